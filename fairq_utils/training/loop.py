"""Make a full-precision network from images, and run it."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairq_utils.errors import BadInput
from fairq_utils.files import write_atomically
from fairq_utils.progress import Report, progress, reporting
from fairq_utils.training.architectures import build

# What is to become small: of a batch, its logits, its labels, and the places of its images.
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained: SGD with Nesterov momentum; the rate climbs for a quarter and falls to 0.

    When training diverges, lower `learning_rate`; when groups are still far from their final accuracy,
    raise `epochs`. Half an epoch shows half of the images.

    >>> Recipe(epochs=2).epochs
    2
    >>> Recipe(epochs=0)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: epochs is 0; expected a number above 0.
    """

    epochs: float = 8
    batch_size: int = 128
    learning_rate: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 5e-4
    flip: bool = True  # mirror half of the images
    shift: float = 0.1  # move each image by up to this share of its width and height

    def __post_init__(self) -> None:
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise BadInput(f"batch_size is {self.batch_size!r}; expected a whole number of at least 1.")
        for name in ("epochs", "learning_rate"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < math.inf:
                raise BadInput(f"{name} is {value!r}; expected a number above 0.")
        if self.epochs == int(self.epochs):  # 8 and 8.0 are one recipe, and should be one in the store
            object.__setattr__(self, "epochs", int(self.epochs))
        if not 0 <= self.shift < 0.5:
            raise BadInput(f"shift is {self.shift!r}; expected a share of the image from 0 to below 0.5.")


@dataclass(frozen=True)
class Checkpoint:
    """A file from which an interrupted training goes on, to the same weights; it is gone at the end.

    It is written after an epoch when `every_seconds` have passed. A file of another training is refused;
    one that is damaged is not used. `about` goes into its header.
    """

    path: Path
    every_seconds: float = 30.0
    about: dict[str, str] = field(default_factory=dict)

    def read(self, run: str) -> dict[str, Tensor] | None:
        """What was written last by that run, or nothing."""
        with suppress(FileNotFoundError, safetensors.SafetensorError):
            with safetensors.safe_open(self.path, framework="pt") as file:
                if (file.metadata() or {}).get("run") != run:
                    raise BadInput(
                        f"the checkpoint {self.path} is of another training; expected one of this network, "
                        "recipe and seed: name another file, or delete this one."
                    )
            return safetensors.torch.load_file(self.path)
        return None

    def write(self, run: str, state: dict[str, Tensor]) -> None:
        """Write the state, whole or not at all."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        write_atomically(self.path, safetensors.torch.save(tensors, metadata=self.about | {"run": run}))


def default_device() -> torch.device:
    """The accelerator when there is one, else the CPU.

    >>> default_device().type in {"cpu", "cuda", "mps"}
    True
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def train(
    arch: str,
    images: Tensor,
    labels: Tensor,
    *,
    classes: int,
    recipe: Recipe = Recipe(),
    seed: int = 0,
    weights: str | None = None,
    device: torch.device | None = None,
    description: str = "training",
    report: Report | None = None,
    checkpoint: Checkpoint | None = None,
) -> nn.Module:
    """Train a network of that architecture on uint8 images (N x 3 x H x W); it comes back in eval mode.

    From scratch, unless `weights` names some to begin with. What else is to be known says `fit`.

    >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    >>> network = train("resnet18", images, torch.arange(8) % 2, classes=2, recipe=Recipe(epochs=1))
    >>> predict(network, images).shape
    torch.Size([8, 2])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(arch, classes=classes, image_size=images.shape[-1], weights=weights)
    return fit(
        network,
        images,
        labels,
        recipe=recipe,
        seed=seed,
        device=device,
        description=description,
        report=report,
        checkpoint=checkpoint,
    )


def fit(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    recipe: Recipe = Recipe(),
    seed: int = 0,
    loss: Loss | None = None,
    rows: Callable[[torch.Generator], Tensor] | None = None,
    after_epoch: Callable[[nn.Module], str] | None = None,
    device: torch.device | None = None,
    description: str = "training",
    report: Report | None = None,
    checkpoint: Checkpoint | None = None,
    method: str = "",
) -> nn.Module:
    """Train this very network further; it comes back on the CPU, in eval mode.

    The seed decides the order of the images and how each is moved: two runs on one machine with as many
    threads give equal weights. PyTorch's global random state is left as it was.

    `loss`: of the logits, the labels and the rows of a batch; by default the mean cross entropy. One that
    changes as it goes is to be an `nn.Module` with buffers, so that a checkpoint can hold them.
    `rows`: draws the images of one epoch, each as often as it is to be seen; by default each once.
    `after_epoch`: is given the network in between, and says how it stands.
    `report`: is told after each step how many images passed, a backward pass counting as two, and after
    each epoch the loss; without it a progress bar is drawn.
    `checkpoint`: where an interrupted training goes on; `method` is to say all that only `loss`, `rows` and
    the network's code know, so that no other training goes on there.

    >>> images = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8)
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    >>> fit(network, images, torch.arange(8) % 2, recipe=Recipe(epochs=1)) is network
    True
    """
    if len(images) < 2:
        raise BadInput(f"{len(images)} images to train on; expected at least 2.")
    device = device or default_device()
    network = network.to(device)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing from the stub
    images, labels = images.to(device), labels.to(device)
    loss = loss or _mean_loss
    if isinstance(loss, nn.Module):
        loss = loss.to(device)

    # Drawn on the CPU whatever the device, so that every device sees the same images in the same order.
    random = torch.Generator().manual_seed(seed)
    rows = rows or partial(_each_once, len(images))
    # A short last batch is dropped: of one image, BatchNorm could take no statistics.
    seen = len(rows(torch.Generator().manual_seed(seed)))
    batch_size = min(recipe.batch_size, seen)
    steps = seen // batch_size
    total = max(1, round(recipe.epochs * steps))
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
        fused=device.type in ("cpu", "cuda"),
    )
    # Of a map of 1 x 1 that a stride halves, the CPU's bfloat16 gradients are memory that nobody wrote: in
    # ResNet18 that happens below 24 pixels.
    fast = has_fast_bfloat16(device) and (device.type != "cpu" or images.shape[-1] >= 24)
    run = ""
    if checkpoint:
        begin = _digest([*network.state_dict().values(), images, labels])
        run = json.dumps([method, asdict(recipe), seed, begin])
    begun, written = 0, time.monotonic()
    network.train()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        torch.manual_seed(seed)  # of dropout, where the architecture has it
        if checkpoint and (state := checkpoint.read(run)):
            begun = _restore(state, network, optimizer, loss, random)
        if report is None:
            bar = stack.enter_context(
                progress(total=3 * batch_size * total, description=description, unit="img")
            )
            report = reporting(bar)
        report(3 * batch_size * steps * begun)
        for epoch in range(begun, math.ceil(total / steps)):
            sum_of_losses = torch.zeros((), device=device)
            batches = rows(random).to(device).split(batch_size)[: min(steps, total - epoch * steps)]
            for step, batch in enumerate(batches, epoch * steps):
                optimizer.param_groups[0]["lr"] = recipe.learning_rate * _one_cycle((step + 1) / (total + 1))
                seen_images = to_input(augment(images[batch], recipe, random))
                with torch.autocast(device.type, torch.bfloat16, enabled=fast):
                    logits = network(seen_images)
                batch_loss = loss(logits.float(), labels[batch], batch)
                optimizer.zero_grad(set_to_none=True)
                batch_loss.backward()
                optimizer.step()
                sum_of_losses += batch_loss.detach()
                report(3 * len(batch))
            if not torch.isfinite(sum_of_losses):
                raise BadInput(
                    f"{description}: the loss became {batch_loss.item()} in epoch {epoch + 1}; expected a "
                    f"finite number, so lower learning_rate (now {recipe.learning_rate})."
                )
            said = [
                f"loss {sum_of_losses.item() / len(batches):.2f}",
                after_epoch(network) if after_epoch else "",
            ]
            report(0, ", ".join(filter(None, said)))
            if checkpoint and time.monotonic() - written >= checkpoint.every_seconds:
                checkpoint.write(run, _state(epoch + 1, network, optimizer, loss, random))
                written = time.monotonic()
    if checkpoint:
        checkpoint.path.unlink(missing_ok=True)
    network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] # missing from the stub
    return network.eval().to("cpu")


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _each_once(count: int, random: torch.Generator) -> Tensor:
    return torch.randperm(count, generator=random)


def _mean_loss(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels)


def _state(
    epochs: int, network: nn.Module, optimizer: torch.optim.SGD, loss: Loss, random: torch.Generator
) -> dict[str, Tensor]:
    """All that decides how training goes on after so many epochs."""
    state = {"epochs": torch.tensor(epochs), "random": random.get_state(), "global": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    state |= {f"network.{name}": tensor.clone() for name, tensor in network.state_dict().items()}
    state |= {
        f"momentum.{place}": optimizer.state[parameter]["momentum_buffer"]
        for place, parameter in _moving(optimizer)
    }
    if isinstance(loss, nn.Module):
        state |= {f"loss.{name}": tensor for name, tensor in loss.state_dict().items()}
    return state


def _restore(
    state: dict[str, Tensor],
    network: nn.Module,
    optimizer: torch.optim.SGD,
    loss: Loss,
    random: torch.Generator,
) -> int:
    """Bring everything to where it stood; the number of epochs that are done comes back."""

    def part(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(name): value for key, value in state.items() if key.startswith(name)}

    network.load_state_dict(part("network."))
    parameters: list[nn.Parameter] = optimizer.param_groups[0]["params"]
    for place, momentum in part("momentum.").items():
        parameter = parameters[int(place)]
        optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
    if isinstance(loss, nn.Module):
        loss.load_state_dict(part("loss."))
    random.set_state(state["random"])
    torch.set_rng_state(state["global"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    return int(state["epochs"])


def _moving(optimizer: torch.optim.SGD) -> Iterator[tuple[int, nn.Parameter]]:
    for place, parameter in enumerate(optimizer.param_groups[0]["params"]):
        if optimizer.state.get(parameter, {}).get("momentum_buffer") is not None:
            yield place, parameter


@torch.no_grad()
def predict(network: nn.Module, images: Tensor, *, batch_size: int = 500) -> Tensor:
    """Logits of every image, on the network's own device, returned on the CPU.

    In float32 throughout: what is to be compared must not drown in the rounding of bfloat16.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    >>> predict(network, torch.zeros(7, 3, 2, 2, dtype=torch.uint8)).shape
    torch.Size([7, 3])
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    try:
        return torch.cat(
            [network(to_input(batch.to(device))).float().cpu() for batch in images.split(batch_size)]
        )
    finally:
        network.train(was_training)


def to_input(images: Tensor) -> Tensor:
    """What a network sees of uint8 images: float32, about zero mean and unit variance, channels last.

    >>> to_input(torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)).flatten()
    tensor([-2.,  2.])
    """
    return images.float().div_(63.75).sub_(2.0).contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, recipe: Recipe, random: torch.Generator) -> Tensor:
    """Each image mirrored or not, and moved a little; what moves in at the edge repeats the edge.

    >>> image = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 1, 4)
    >>> always = Recipe(flip=True, shift=0.0)
    >>> sorted(augment(image, always, torch.Generator().manual_seed(s)).flatten().tolist() for s in (0, 1))
    [[0, 1, 2, 3], [3, 2, 1, 0]]
    """
    count, _, height, width = images.shape

    def positions(size: int, mirrored: Tensor) -> Tensor:
        reach = round(recipe.shift * size)
        offset = torch.randint(-reach, reach + 1, (count, 1), generator=random)
        along = torch.arange(size).expand(count, size)
        along = torch.where(mirrored, size - 1 - along, along)
        return (along + offset).clamp_(0, size - 1).to(images.device)

    mirrored = torch.rand(count, 1, generator=random) < (0.5 if recipe.flip else 0.0)
    columns = positions(width, mirrored)[:, None, None, :]
    rows = positions(height, torch.zeros(count, 1, dtype=torch.bool))[:, None, :, None]
    moved = images.gather(2, rows.expand_as(images))
    return moved.gather(3, columns.expand_as(images))


def _one_cycle(done: float) -> float:
    """The share of the learning rate when so much of the training is done: up a line, down half a cosine."""
    climb = 0.25
    return done / climb if done < climb else 0.5 * (1 + math.cos(math.pi * (done - climb) / (1 - climb)))


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed natively: on a CPU without it, autocast is slower than float32.

    >>> has_fast_bfloat16(torch.device("meta"))
    False
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
