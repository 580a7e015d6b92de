"""The loss around a trained network: gradient, Hessian and what they promise about a small change.

Everything here speaks of one function: the mean loss over the given images, in evaluation mode, as a
function of the chosen parameters. At a quantized network these are the dequantized weights, taken as
free parameters: how the loss would change if they could move, not what rounding lets through.

Images go through in batches of `batch_size`, weighted by their length, so the answer does not depend
on it. Memory does: it grows with the batch, and by one vector of the parameters' size an iteration.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial, reduce
from itertools import chain, pairwise
from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from fairq_utils.errors import BadInput

Parameters = Literal["all", "weights"] | Sequence[str]
Loss = Callable[[Tensor, Tensor], Tensor]

_QUANTIZABLE = (_ConvNd, nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.MultiheadAttention)


class Where(TypedDict, total=False):
    """Options that every function here passes on to `Hessian`, which describes them."""

    parameters: Parameters
    batch_size: int
    loss: Loss


class Hessian:
    """The Hessian H of the mean loss, as an operator: `H @ vector`, with `H.gradient()` and `H.loss()`.

    `parameters` is "all", "weights" (of convolutions, linear layers, attention projections and embeddings:
    what a quantizer rounds) or a sequence of names as in `model.named_parameters()`; vectors are flat, in
    the order of `H.names`. `loss(outputs, labels)` must be a mean over the examples of its batch. The model
    is copied, so nothing of the caller's changes; half precision is computed in float32.

    A model whose outputs differ from call to call is refused. Memory too small: lower `batch_size`, at half
    again the time, since the graph is kept between products only when all images fit in one batch.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> H = Hessian(model, torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1), loss=nn.MSELoss())
    >>> H @ torch.tensor([1.0, 1.0])
    tensor([1., 4.])
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        parameters: Parameters = "all",
        batch_size: int = 256,
        loss: Loss = nn.functional.cross_entropy,
    ):
        if len(images) != len(labels) or len(images) == 0:
            raise BadInput(
                f"there are {len(images)} images and {len(labels)} labels; expected one label for each "
                "image, and at least one: give both from the same examples."
            )
        if batch_size < 1:
            raise BadInput(f"batch_size is {batch_size}; expected 1 or more.")
        self.network = _dequantized_copy(model)
        self.names = _chosen(self.network, parameters)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name in self.names)
        self.parameters = [self.network.get_parameter(name) for name in self.names]
        self.size = sum(p.numel() for p in self.parameters)
        self._images, self._labels, self._batch_size, self._loss = images, labels, batch_size, loss
        self._one_batch = len(images) <= batch_size
        self._kept: Tensor | None = None
        _check_and_speed_up(self.network, _like(images[:8], self.parameters[0]))

    def loss(self) -> float:
        """The mean loss over all images."""
        with torch.no_grad():
            return sum(loss.item() for loss in self._losses(self._batch_size))

    def gradient(self) -> Tensor:
        """The gradient of the mean loss."""
        total = reduce(torch.add, (gradient.detach() for gradient in self._gradients()))
        return _finite(total.clone(), "gradient")  # the kept one stays out of the caller's hands

    def squared_gradient_norm(self, *, batches: int = 8) -> float:
        """An unbiased estimate of the squared norm of the expected gradient; where that is near 0, it may be
        below 0.

        The gradient of a mean over n images is on average too long: its squared norm exceeds that of the
        expected gradient by the variance of the gradient of a single image, over n. Gradients of different
        images are independent, so their products carry nothing of that variance. This is the mean of the
        products of the gradients of so many batches, each with every other. With as many batches as images
        these are all pairs of images; eight batches of 64 images take a sixth of the time, at an eighth more
        variance. Of one image there is no such estimate, and it is NaN.

        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> images, labels = torch.ones(3, 1), torch.tensor([[1.0], [-2.0], [-3.0]])
        >>> H = Hessian(model, images, labels, loss=nn.MSELoss())  # gradients of -2, 4 and 6
        >>> [round(norm, 2) for norm in (H.squared_gradient_norm(), H.gradient().square().sum().item())]
        [1.33, 7.11]
        """
        if batches < 2:
            raise BadInput(f"batches is {batches}; expected 2 or more, such as 8.")
        count = len(self._images)
        size = math.ceil(count / batches)
        total, squares, shares = torch.zeros_like(flat(self.parameters)), 0.0, 0.0
        for start, loss in zip(range(0, count, size), self._losses_to_differentiate(size), strict=True):
            gradient = flat(torch.autograd.grad(loss, self.parameters, materialize_grads=True))
            total += gradient
            squares += dot(gradient, gradient)
            shares += (min(size, count - start) / count) ** 2
        return (dot(total, total) - squares) / (1 - shares) if count > 1 else math.nan

    def __matmul__(self, vector: Tensor) -> Tensor:
        if vector.shape != (self.size,):
            raise BadInput(
                f"the vector has shape {tuple(vector.shape)}; expected ({self.size},), one entry for each "
                "chosen parameter."
            )
        vector = vector.to(self.parameters[0])
        products = (self._differentiate(gradient, vector) for gradient in self._gradients())
        return _finite(reduce(torch.add, products), "product of Hessian and vector")

    def _losses(self, batch_size: int) -> Iterator[Tensor]:
        """What each batch adds to the mean loss."""
        like = self.parameters[0]
        total = len(self._images)
        for start in range(0, total, batch_size):
            x, y = (t[start : start + batch_size].to(like.device) for t in (self._images, self._labels))
            # The fused attention kernels have no second derivative.
            with sdpa_kernel(SDPBackend.MATH):
                loss = self._loss(self.network(_like(x, like)), y)
            yield _finite(loss, "loss") * (len(x) / total)

    def _losses_to_differentiate(self, batch_size: int) -> Iterator[Tensor]:
        for loss in self._losses(batch_size):
            if not loss.requires_grad:
                raise BadInput(
                    "the loss does not depend on the chosen parameters; expected a model that computes with "
                    "them and with gradients on: look for no_grad, detach or an unused parameter."
                )
            yield loss

    def _gradients(self) -> Iterator[Tensor]:
        """What each batch adds to the gradient, ready to be differentiated again."""
        if self._kept is not None:
            yield self._kept
            return
        for loss in self._losses_to_differentiate(self._batch_size):
            parts = torch.autograd.grad(loss, self.parameters, create_graph=True, materialize_grads=True)
            gradient = flat(parts)
            if self._one_batch:
                self._kept = gradient
            yield gradient

    def _differentiate(self, gradient: Tensor, vector: Tensor) -> Tensor:
        """Backwards again: forward mode is wrong at LayerNorm and unknown to straight-through rounding."""
        if not gradient.requires_grad:  # the loss is linear in the parameters
            return torch.zeros_like(vector)
        return flat(
            torch.autograd.grad(
                gradient, self.parameters, vector, retain_graph=self._one_batch, materialize_grads=True
            )
        )


def gradient_norm(model: nn.Module, images: Tensor, labels: Tensor, **where: Unpack[Where]) -> float:
    """The Euclidean norm of the gradient of the mean loss over the images.

    It is the norm of the mean, not the mean of the norms: gradients of single examples may cancel. The fewer
    images, the longer it is by chance: compare it on equally many, beside `Hessian.squared_gradient_norm`.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.ones_(model.weight)
    >>> gradient_norm(model, torch.tensor([[3.0, 4.0]]), torch.tensor([[6.5]]), loss=nn.MSELoss())
    5.0
    """
    return euclidean_norm(Hessian(model, images, labels, **where).gradient())


# -- the network: a private copy, in evaluation mode, with plain weights ------------------------------


def _dequantized_copy(model: nn.Module) -> nn.Module:
    network = copy.deepcopy(model).eval()
    for module in network.modules():
        if parametrize.is_parametrized(module):
            names = list(module.parametrizations)  # type: ignore[arg-type]  # a ModuleDict here
            values = {name: getattr(module, name).detach().clone() for name in names}
            # Not remove_parametrizations: the copy shares its class with the caller's module, and that
            # function takes the property from the class.
            plain = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            module.__class__ = plain
            # The weights go in front, where they were, so that vectors of both networks line up.
            others = dict(module.named_parameters(recurse=False))
            for name in others:
                delattr(module, name)
            for name, value in (values | others).items():
                module.register_parameter(name, nn.Parameter(value))
    first = next(network.parameters(), None)
    if first is None:
        raise BadInput("the model has no parameters; expected a network to differentiate.")
    return network.to(torch.promote_types(first.dtype, torch.float32))


def _chosen(network: nn.Module, parameters: Parameters) -> tuple[str, ...]:
    known = [name for name, p in network.named_parameters() if p.is_floating_point()]
    if parameters == "all":
        wanted = set(known)
    elif parameters == "weights":
        wanted = {
            f"{path}.{name}".removeprefix(".")
            for path, module in network.named_modules()
            if isinstance(module, _QUANTIZABLE)
            for name, _ in module.named_parameters(recurse=False)
            if name.endswith("weight")
        }
    else:
        wanted = {parameters} if isinstance(parameters, str) else set(parameters)
        if not wanted <= set(known):
            raise BadInput(
                f"parameters names {sorted(wanted - set(known))}, which the model lacks; expected 'all', "
                f"'weights' or names from model.named_parameters(), such as {known[0]!r}."
            )
    if not wanted:
        raise BadInput(f"parameters={parameters!r} chooses none; expected at least one: try 'all'.")
    return tuple(name for name in known if name in wanted)


def _check_and_speed_up(network: nn.Module, probe: Tensor) -> None:
    """Refuse a model that is random, and fold BatchNorm into convolutions where that changes nothing."""
    with torch.no_grad(), torch.random.fork_rng([probe.device] if probe.is_cuda else []):
        state = torch.get_rng_state()
        outputs, again = network(probe), network(probe)
        # The state finds what a comparison may miss: a flip with probability 1/2 agrees half the time.
        drew = not torch.equal(state, torch.get_rng_state())
        if drew or not _agree(outputs, again):
            raise BadInput(
                "the model gives different outputs for the same images in evaluation mode; expected a "
                "deterministic model: take dropout and random augmentation out of its forward pass."
            )
        # At other biases, for a new BatchNorm does nothing and would do it just as well elsewhere.
        torch.manual_seed(0)
        biases = {n: p + torch.randn_like(p) for n, p in network.named_parameters() if n.endswith("bias")}
        outputs = functional_call(network, biases, probe)
        folded = _fold_batchnorm(network)
        if not _agree(outputs, functional_call(network, biases, probe)):
            for module in folded:
                del module.forward


def _fold_batchnorm(network: nn.Module) -> list[nn.Module]:
    """Let each convolution do the work of the BatchNorm defined next to it; return both.

    Up to a quarter of the time of a product goes into the second derivative of BatchNorm. In evaluation mode
    it is a scale and a shift for each channel, which the convolution can take over as weights and bias. That
    the definitions stand side by side does not prove that the data flows so: the caller checks the outputs.
    """
    leaves = [module for module in network.modules() if not list(module.children())]
    pairs = [
        (conv, norm)
        for conv, norm in pairwise(leaves)
        if isinstance(conv, nn.Conv2d)
        and isinstance(norm, nn.BatchNorm2d)
        and norm.affine
        and norm.track_running_stats
        and norm.num_features == conv.out_channels
    ]
    for conv, norm in pairs:
        conv.forward = partial(_convolve_and_normalise, conv, norm)  # type: ignore[method-assign]
        norm.forward = nn.Identity().forward  # type: ignore[method-assign]
    return list(chain.from_iterable(pairs))


def _convolve_and_normalise(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    scale = norm.weight * (norm.get_buffer("running_var") + norm.eps).rsqrt()
    shift = norm.bias - scale * norm.get_buffer("running_mean")
    if conv.bias is not None:
        shift = shift + scale * conv.bias
    return conv._conv_forward(x, conv.weight * scale[:, None, None, None], shift)


def _agree(a: Tensor, b: Tensor) -> bool:
    slack = math.sqrt(torch.finfo(a.dtype).eps)
    largest = a.nan_to_num().abs().max().item()
    return torch.allclose(a, b, rtol=slack, atol=slack * largest, equal_nan=True)


def _finite(number: Tensor, what: str) -> Tensor:
    if not number.sum().isfinite():
        raise BadInput(
            f"the {what} is not finite; expected finite numbers at these images: look for NaN in the images "
            "or weights, for overflow, or for a root or logarithm at 0 in the model."
        )
    return number


def _like(images: Tensor, parameter: Tensor) -> Tensor:
    """The images where the parameter is and, unless they are token numbers, in its precision."""
    return images.to(parameter) if images.is_floating_point() else images.to(parameter.device)


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """Tensors as one long vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def dot(a: Tensor, b: Tensor) -> float:
    """The product of two long vectors, summed in pieces so that no rounding piles up."""
    # In pieces, for over ten million float32 entries BLAS loses the fourth digit of a @ b.
    size = 2**16
    return sum(torch.stack([x @ y for x, y in zip(a.split(size), b.split(size), strict=True)]).tolist())


def euclidean_norm(vector: Tensor) -> float:
    """The length of a vector."""
    return math.sqrt(dot(vector, vector))
