"""From a model that somebody has to a table of predictions, before and after its weights are rounded.

`load_model` opens a model, `Auditable.treated` rounds its weights, and `to_audit` makes the tables that
`fairq_utils.audit` compares. What was quantized elsewhere is opened as it is, as the second of two models.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from fairq_utils import architectures
from fairq_utils.data import Dataset, DataSettings, _select
from fairq_utils.errors import BadInput
from fairq_utils.faces import FOLDER, LAYOUTS
from fairq_utils.packing import load_packed
from fairq_utils.progress import progress
from fairq_utils.quantizers import _weights
from fairq_utils.store import Store
from fairq_utils.studies import Study, dataset, network
from fairq_utils.training import Recipe, default_device, to_input
from fairq_utils.treatments import Treatment

# What `training.to_input` subtracts from pixels that run from 0 to 1, and divides them by.
_BOOK_MEAN, _BOOK_STD = (0.5,), (0.25,)
_EXPECTED = (
    "package.module:factory, a .pt2 or .onnx file, a folder that save_pretrained wrote, or an architecture "
    f"of the book ({architectures.CHOICES})"
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Auditable:
    """A model that takes images and gives each a logit for each class.

    `network`: takes float images N x 3 x H x W, whose pixels run from 0 to 1 and then have `mean` subtracted
    and are divided by `std` (one number, or one for each of red, green and blue; by default the book's).
    `image_size`: pixels along a side, where the network fixes them.
    `class_names`: what its logits stand for, in their order; None where nobody says: then the labels of the
    images in theirs.
    `treatment`: what was done to it here; None where it is as it came. `source`: what else is known of it.

    >>> images = dataset(DataSettings(train_images=40, test_images=20, image_size=16))
    >>> mine = Auditable(name="mine", network=nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5)))
    >>> rounded = mine.treated("int2", images)
    >>> list(predictions_of(rounded, images).columns[:5])
    ['id', 'label', 'group', 'prediction', 'logit_Alder']
    >>> layers(mine, rounded)[["layer", "weights", "zero_before"]]
          layer  weights  zero_before
    0  1.weight     3840          0.0
    """

    name: str
    network: nn.Module
    image_size: int | None = None
    mean: tuple[float, ...] | None = _BOOK_MEAN
    std: tuple[float, ...] | None = _BOOK_STD
    class_names: tuple[str, ...] | None = None
    treatment: Treatment | None = None
    source: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for option in ("mean", "std"):
            given = getattr(self, option)
            numbers = given is None or all(isinstance(n, int | float) and np.isfinite(n) for n in given)
            if not numbers or (given is not None and len(given) not in (1, 3)):
                raise BadInput(f"{option} is {given!r}; expected one number, or three: red, green, blue.")
        if self.std and min(self.std) <= 0:
            raise BadInput(f"std is {self.std!r}; expected numbers above 0.")

    @cached_property
    def seeing(self) -> nn.Module:
        """The network behind images as `training.to_input` makes them, which is how the book runs one."""
        if self.mean is None or self.std is None:
            raise BadInput(
                f"{self.name} does not say how its images are normalised; expected mean and std: give both, "
                "as in the code that trained it."
            )
        return _Seeing(self.network, self.mean, self.std).eval()

    def treated(self, treatment: Treatment | str, images: Dataset) -> Auditable:
        """The same model with its weights rounded; this one stays as it is.

        Any treatment that does not train. Where inputs are rounded too, or batch norms are taken again, some
        training images are run through the network. An ONNX file and a program take treatments of weights
        alone. In an ONNX file the weights of Conv, Gemm and MatMul are rounded as they stand there: whoever
        exported it often folded batch norms into them, and one scale for all channels then costs more.
        """
        treatment = Treatment.parse(treatment) if isinstance(treatment, str) else treatment
        if treatment.trains:
            raise BadInput(
                f"treatment {treatment.name!r} trains, and an audit does not; expected one that only rounds, "
                "such as int4: train the network yourself and give both models, before and after."
            )
        if not isinstance(self.network, _Graph):
            _require_fit(self, images)
            with _explained(self, images):
                treated = treatment.apply(self.seeing, images)
            return replace(self, network=treated.network, treatment=treatment)  # type: ignore[arg-type]
        if treatment.activations or treatment.batchnorm:
            raise BadInput(
                f"treatment {treatment.name!r} changes more than weights, which {self.name} does not allow; "
                "expected one of weights alone, such as int4: or give the network as package.module:factory."
            )
        weights = self.network.weights()
        if not len(weights):
            raise BadInput(
                f"{self.name} has no floating-point weight that a layer reads; expected a model that is not "
                "quantized yet: give two models, before and after."
            )
        return replace(
            self, network=self.network.holding(treatment.apply(weights, images)), treatment=treatment
        )

    @property
    def title(self) -> str:
        """Its name and what was done to it.

        >>> Auditable(name="mine", network=nn.Identity(), treatment=Treatment(4)).title
        'mine int4'
        """
        return f"{self.name} {self.treatment.name}" if self.treatment else self.name

    def description(self) -> dict[str, Any]:
        """What a record of the audit has to say of the model, as plain JSON."""
        return {
            "model": self.name,
            "treatment": self.treatment and self.treatment.name,
            "image_size": self.image_size,
            "mean": None if self.mean is None else list(self.mean),
            "std": None if self.std is None else list(self.std),
            "classes": None if self.class_names is None else list(self.class_names),
            **self.source,
        }


_COMPUTED = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # types that layers compute in


class _Seeing(nn.Module):
    """A network behind the book's own normalisation, which it undoes."""

    factor: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        own_mean, own_std = (
            torch.tensor(numbers, dtype=torch.float64).view(-1, 1, 1) for numbers in (mean, std)
        )
        # Exactly 1 and 0 where the two normalisations are one.
        self.register_buffer("factor", (_BOOK_STD[0] / own_std).float())
        self.register_buffer("shift", ((_BOOK_MEAN[0] - own_mean) / own_std).float())

    def forward(self, images: Tensor) -> Tensor:
        kinds = (parameter.dtype for parameter in self.network.parameters())
        own = next((kind for kind in kinds if kind in _COMPUTED), torch.float32)
        return _logits(self.network((images * self.factor + self.shift).to(own))).float()


def _logits(output: Any) -> Tensor:
    logits = getattr(output, "logits", output)  # Hugging Face's models wrap them
    if not isinstance(logits, Tensor):
        raise BadInput(
            f"the model returned a {type(output).__name__}; expected a tensor of logits, or an object that "
            "has them as .logits: wrap the model in a module that returns them alone."
        )
    if logits.dim() != 2:
        raise BadInput(
            f"the model returned a tensor of shape {tuple(logits.shape)}; expected images × classes: wrap "
            "the model in a module that returns one logit for each class."
        )
    return logits


# ---------------------------------------------------------------- the entrances


def load_model(
    text: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    data: DataSettings | None = None,
    epochs: float = 0,
) -> Auditable:
    """The model that the text names, ready to be audited.

    `package.module:factory`: a function or class that returns an `nn.Module`, given `arguments` if there are
    any, and filled with `weights`. A `.pt2` file: a program of `torch.export`. An `.onnx` file. A folder:
    what `save_pretrained` of Hugging Face's transformers wrote. `resnet18` or `resnet18-seed3`: the book's
    own network of that seed, of the study that `data` and `epochs` describe, from the store or trained now.

    A factory and a `.pt2` program run code of whoever wrote them: name only those that you trust. All other
    files are only read.

    `image_size`, `mean`, `std` and `class_names` overrule what the model says, or say it where it does not.

    >>> load_model("torch.nn:Identity", class_names=["ship", "horse"]).class_names
    ('ship', 'horse')
    >>> load_model("network.h5")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: model is 'network.h5'; expected package.module:factory, a .pt2 or .onnx
    file, a folder that save_pretrained wrote, or an architecture of the book (resnet18, resnet18-16 (or
    another number of channels), efficientnet_b0, mobilenet_v3_small, vit).
    """
    path = Path(text).expanduser()
    factory = is_factory(text)
    named = re.fullmatch(rf"({architectures.PATTERN})(?:-seed(\d+))?", text)
    if not factory and (weights or arguments):
        raise BadInput(
            f"{text} was given with weights or arguments, but brings its own; expected them with "
            "package.module:factory alone: leave them out."
        )
    if factory:
        found = from_factory(text, weights=weights, arguments=arguments)
    elif named:
        recipe = Recipe(epochs=epochs) if epochs else Recipe()
        seed = int(named[2] or 0)
        found = from_study(Study(dataset=data or DataSettings(), arch=named[1], recipe=recipe, seed=seed))
    elif path.is_dir():
        found = from_folder(path)
    elif path.suffix == ".pt2":
        found = from_program(path)
    elif path.suffix == ".onnx":
        found = from_onnx(path)
    elif path.suffix in (".safetensors", ".pt", ".pth", ".bin", ".ckpt"):
        raise BadInput(
            f"{text} holds weights and not the network; expected the code that builds it as well: give "
            "package.module:factory as the model, and this file as its weights."
        )
    else:
        raise BadInput(f"model is {text!r}; expected {_EXPECTED}.")
    overruled: dict[str, Any] = {
        name: tuple(given)
        for name, given in {"mean": mean, "std": std, "class_names": class_names}.items()
        if given is not None
    }
    return replace(found, image_size=image_size or found.image_size, **overruled)


def is_factory(text: str) -> bool:
    """Whether the text names a factory, which may be given weights and arguments.

    >>> is_factory("torchvision.models:resnet18"), is_factory("resnet18")
    (True, False)
    """
    return bool(re.fullmatch(r"[\w.]+:[\w.]+", text)) and not Path(text).exists()


def from_study(study: Study, *, store: Store | None = None) -> Auditable:
    """The full-precision network of a study, from the store or trained now."""
    return Auditable(
        name=study.name,
        network=network(study, store=store),
        image_size=study.dataset.image_size,
        class_names=dataset(study, store=store).label_names,
        source={"entrance": "study"},
    )


def from_factory(
    text: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Auditable:
    """The network that `package.module:factory` returns, filled with the weights of a file.

    Imports the module, from the working directory too, and calls the factory: this runs its code. The
    weights are a safetensors file, also one of `save_packed`, or a state dict that `torch.load` reads
    without running code.

    >>> build = {"arch": "resnet18", "classes": 5}
    >>> from_factory("fairq_utils.architectures:build", arguments=build).network.fc.out_features
    5
    >>> from_factory("fairq_utils.architectures:built")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: fairq_utils.architectures has no 'built'; expected package.module:factory
    with a function of that module that returns a network.
    """
    module, _, path = text.partition(":")
    with _working_directory_importable():
        try:
            factory: Any = importlib.import_module(module)
        except Exception as error:  # it is somebody's code
            raise BadInput(
                f"{module} cannot be imported ({_said(error)}); expected package.module:factory that is "
                "installed, or lies in the working directory."
            ) from error
        for name in path.split("."):
            if not hasattr(factory, name):
                raise BadInput(
                    f"{module} has no {path!r}; expected package.module:factory with a function of that "
                    "module that returns a network."
                )
            factory = getattr(factory, name)
        try:
            made = factory(**(arguments or {}))
        except Exception as error:  # likewise
            raise BadInput(
                f"{text} raised {_said(error)}; expected a function that returns a network when it is called "
                f"with {', '.join(arguments) if arguments else 'no arguments'}."
            ) from error
    if not isinstance(made, nn.Module):
        raise BadInput(
            f"{text} returned a {type(made).__name__}; expected a torch.nn.Module: let it return the network."
        )
    source: dict[str, Any] = {"entrance": "factory", "arguments": dict(arguments or {})}
    if weights is not None:
        made = _filled(made, Path(weights).expanduser())
        source |= {"weights": Path(weights).name, "sha256": _sha256(Path(weights).expanduser())}
    return Auditable(name=text, network=made.eval(), source=source)


def from_program(path: str | os.PathLike[str]) -> Auditable:
    """The program that `torch.export.save` wrote.

    Loading it evaluates expressions that the file holds, so open only one that you trust. Pickles in it that
    would run more are refused.
    """
    path = _existing(Path(path))
    with _weights_only(), warnings.catch_warnings():
        # torch reads each tensor from bytes that it never writes, and warns of that
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        try:
            program = torch.export.load(path)
        except Exception as error:  # whatever the bytes lead it to
            raise BadInput(
                f"{path} cannot be loaded ({_said(error)}); expected what torch.export.save wrote, with "
                "tensors alone: export it again, with this version of torch."
            ) from error
    module = program.module(check_guards=False)
    for node in module.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        names = [argument.name for argument in schema.arguments] if schema else []
        given = dict(zip(names, node.args, strict=False))  # what has a default may be left out
        if given.get("train") is True or given.get("training") is True:
            raise BadInput(
                f"{path} was exported in training mode ({node.name}); expected evaluation mode: call "
                "network.eval() before torch.export.export."
            )
    batch, size = _batch_and_size(path, [given.shape for given in _placeholders(module)])
    return Auditable(
        name=path.name,
        network=_Program(module, batch),
        image_size=size,
        source={"entrance": "torch.export", "sha256": _sha256(path)},
    )


def from_onnx(path: str | os.PathLike[str]) -> Auditable:
    """An ONNX file, run by onnxruntime on the CPU with its default options."""
    path = _existing(Path(path))
    network = _OnnxGraph(path, path)
    session = network.session
    batch, size = _batch_and_size(path, [given.shape for given in session.get_inputs()])
    network.batch = batch
    return Auditable(
        name=path.name,
        network=network,
        image_size=size,
        source={"entrance": "onnx", "sha256": _sha256(path)},
    )


def from_folder(path: str | os.PathLike[str]) -> Auditable:
    """An image classifier that Hugging Face's transformers saved, with its image processor.

    Only safetensors are read, nothing is fetched, and no code of the folder is run. Of the processor only
    size and normalisation are taken: the images come cropped and shrunk as the book does it.
    """
    path = Path(path).expanduser()
    try:
        from transformers import AutoImageProcessor, AutoModelForImageClassification
        from transformers.utils import logging
    except ImportError as error:
        raise BadInput(
            f"{path} is a folder, and to open it takes the package transformers; run pip install "
            "fairq-utils[audit]."
        ) from error
    if not (path / "config.json").is_file():
        raise BadInput(
            f"{path} has no config.json; expected a folder that save_pretrained of transformers wrote, or "
            f"instead of a folder {_EXPECTED}."
        )
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise BadInput(
            f"{path} has no .safetensors file, and pickles are not opened; expected safetensors: save it "
            "again by save_pretrained of a current transformers."
        )
    local = {"local_files_only": True, "trust_remote_code": False}
    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # of a file on this disk, shown whoever watches
    try:
        network, loaded = AutoModelForImageClassification.from_pretrained(
            path, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **local
        )
    except Exception as error:  # whatever the configuration leads it to
        raise BadInput(
            f"{path} cannot be opened as an image classifier ({_said(error)}); expected a folder that "
            "save_pretrained of such a model wrote."
        ) from error
    finally:
        if drawn:
            logging.enable_progress_bar()
    for what, keys in (("misses", "missing_keys"), ("has, and the model not,", "unexpected_keys")):
        if loaded[keys]:
            raise BadInput(
                f"{path} {what} {sorted(loaded[keys])[0]!r}, so that weights would be made up; expected all "
                "weights of an image classifier: save the trained model again."
            )
    names = [network.config.id2label[place] for place in sorted(network.config.id2label)]
    unnamed = all(re.fullmatch(r"LABEL_\d+", name) for name in names)
    fixed = getattr(network.config, "image_size", None)
    size, mean, std = fixed if isinstance(fixed, int) else None, None, None
    if (path / "preprocessor_config.json").is_file():
        try:
            processor = AutoImageProcessor.from_pretrained(path, **local)
            plain = [np.broadcast_to(colour, (64, 64, 3)).copy() for colour in _COLOURS]
            seen = processor(images=plain, return_tensors="pt")["pixel_values"].double()
        except Exception as error:  # likewise
            raise BadInput(
                f"{path} has a preprocessor_config.json that cannot be used ({_said(error)}); expected what "
                "save_pretrained wrote: save the image processor again."
            ) from error
        size, mean, std = _size_and_normalisation(path, seen)
    return Auditable(
        name=path.name,
        network=network.eval(),
        image_size=size,
        mean=mean,
        std=std,
        class_names=None if unnamed else tuple(names),
        source={
            "entrance": "transformers",
            "architecture": type(network).__name__,
            "sha256": _sha256(*files),
        },
    )


# Plain images that an image processor is asked about: its settings are many, and each kind of processor reads
# them in its own way.
_COLOURS = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [102, 102, 102]], dtype=np.uint8)


def _size_and_normalisation(path: Path, seen: Tensor) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """The size that an image processor makes, and what it does to a pixel: from its images of `_COLOURS`."""
    if seen.dim() != 4 or seen.shape[1] != 3 or seen.shape[2] != seen.shape[3]:
        raise BadInput(
            f"the image processor in {path} makes {tuple(seen.shape[1:])} of an image; expected 3 × size × "
            "size: export the model with the size it needs, as .onnx or .pt2."
        )
    middle = seen[:, :, seen.shape[2] // 2, seen.shape[3] // 2]
    std = 1 / (middle[1] - middle[0])
    mean = -middle[0] * std
    wanted = (torch.from_numpy(_COLOURS).double() / 255 - mean) / std
    if not torch.allclose(middle, wanted, atol=1e-4):
        raise BadInput(
            f"the image processor in {path} does more to a pixel than to subtract and divide; expected red, "
            "green and blue, each with its mean and std: wrap the rest into the model and export it."
        )
    rounded = [tuple(round(float(n), 6) for n in numbers) for numbers in (mean, std)]
    return seen.shape[-1], rounded[0], rounded[1]


# ---------------------------------------------------------------- models that are a graph, not modules


class _Weights(nn.ModuleList):
    """The weights that the layers of a graph read, as layers, so that any treatment of weights applies."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names = tuple(weights)
        for weight in weights.values():
            layer = nn.Linear(1, 1, bias=False)
            layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
            self.append(layer)

    def items(self) -> Iterator[tuple[str, Tensor]]:
        for name, layer in zip(self.names, self, strict=True):
            yield name, layer.weight  # type: ignore[misc]


class _Graph(nn.Module):
    """A model that is a graph. `batch`: how many images it takes at once, where that is fixed."""

    def __init__(self, batch: int | None) -> None:
        super().__init__()
        self.batch = batch

    @abstractmethod
    def weights(self) -> _Weights:
        """The floating-point weights that layers read."""

    @abstractmethod
    def holding(self, weights: nn.Module) -> _Graph:
        """A copy that reads these."""

    @abstractmethod
    def run(self, images: Tensor) -> Any:
        """What the graph makes of a batch that it takes."""

    def forward(self, images: Tensor) -> Any:
        if self.batch is None:
            return self.run(images)
        rows = []
        for part in images.split(self.batch):
            lacking = self.batch - len(part)
            whole = torch.cat([part, part[:1].expand(lacking, *part.shape[1:])]) if lacking else part
            rows.append(_logits(self.run(whole))[: len(part)])
        return torch.cat(rows)


# The operations that read a weight, and which of their arguments it is.
_READS = {"linear": 1, "mm": 1, "addmm": 2, "embedding": 0, "convolution": 1} | {
    f"conv{transposed}{n}d": 1 for transposed in ("", "_transpose") for n in (1, 2, 3)
}
_TURNS = ("t", "transpose", "permute")  # of what is read, when a program is decomposed


class _Program(_Graph):
    """A program of `torch.export`, and the weights that it reads in place of its own."""

    module: torch.fx.GraphModule

    def __init__(
        self, module: torch.fx.GraphModule, batch: int | None, rounded: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__(batch)
        # Not as a submodule: it refuses eval(), and may hold the CPU in its constants.
        self.__dict__["module"] = module
        self.rounded = dict(rounded or {})

    def weights(self) -> _Weights:
        found = {}
        for node in self.module.graph.nodes:
            place = _READS.get(_operation(node))
            if place is None or len(node.args) <= place:
                continue
            read = node.args[place]
            while isinstance(read, torch.fx.Node) and _operation(read) in _TURNS:
                read = read.args[0]
            if isinstance(read, torch.fx.Node) and read.op == "get_attr":
                with suppress(AttributeError):  # a buffer is no weight
                    weight = self.module.get_parameter(str(read.target))
                    if weight.is_floating_point():
                        found[str(read.target)] = weight
        return _Weights(found | self.rounded)

    def holding(self, weights: nn.Module) -> _Program:
        assert isinstance(weights, _Weights)
        return _Program(self.module, self.batch, dict(weights.items()))

    def run(self, images: Tensor) -> Any:
        (given,) = _placeholders(self.module)
        # in the layout of the example that it was exported with, which some of its views need
        images = images.to("cpu", given.dtype).contiguous()
        return torch.func.functional_call(self.module, self.rounded, (images,))


def _placeholders(module: torch.fx.GraphModule) -> list[Tensor]:
    """What a program takes, as tensors without content."""
    return [node.meta["val"] for node in module.graph.nodes if node.op == "placeholder"]


def _operation(node: torch.fx.Node) -> str:
    """The name of what a node calls: `conv2d` of `aten::conv2d.default`."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.partition("::")[2] if schema else ""


class _OnnxGraph(_Graph):
    """An ONNX model: its path, or its bytes after they were changed."""

    def __init__(self, path: Path, content: Path | bytes, batch: int | None = None) -> None:
        super().__init__(batch)
        self.path, self.content = path, content

    @cached_property
    def session(self) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise BadInput(
                f"{self.path} is run by the package onnxruntime; run pip install fairq-utils[audit]."
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors, not what it would like to have been told
        content = self.content if isinstance(self.content, bytes) else str(self.content)
        try:
            return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # it has classes of its own for what it refuses
            raise BadInput(
                f"{self.path} cannot be run ({_said(error)}); expected an ONNX file that onnxruntime takes: "
                "export it again."
            ) from error

    def run(self, images: Tensor) -> Any:
        (given,) = self.session.get_inputs()
        kinds = {"tensor(float16)": np.float16, "tensor(double)": np.float64}
        values = images.cpu().contiguous().numpy().astype(kinds.get(given.type, np.float32), copy=False)
        names = [output.name for output in self.session.get_outputs()]
        wanted = ["logits"] if "logits" in names else names
        outputs = self.session.run(wanted, {given.name: values})
        return torch.from_numpy(outputs[0]) if len(outputs) == 1 else tuple(outputs)

    def weights(self) -> _Weights:
        return _Weights(
            {
                name: torch.from_numpy(_turned(value, turned).copy())
                for name, (value, turned) in self._read(self._model()).items()
            }
        )

    def holding(self, weights: nn.Module) -> _OnnxGraph:
        from onnx import numpy_helper

        assert isinstance(weights, _Weights)
        model = self._model()
        turned = {name: turned for name, (_, turned) in self._read(model).items()}
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        for name, weight in weights.items():
            value = np.ascontiguousarray(_turned(weight.numpy(), turned[name]))
            tensors[name].CopyFrom(numpy_helper.from_array(value, name))
        return _OnnxGraph(self.path, model.SerializeToString(), self.batch)

    def _model(self) -> Any:
        try:
            import onnx
        except ImportError as error:
            raise BadInput(
                f"the weights of {self.path} are rounded by the package onnx; run pip install "
                "fairq-utils[audit]."
            ) from error
        return (
            onnx.load_from_string(self.content) if isinstance(self.content, bytes) else onnx.load(self.path)
        )

    @staticmethod
    def _read(model: Any) -> dict[str, tuple[np.ndarray, bool]]:
        """The weights that layers read, and whether their first axis is the inputs, as in `x @ w`."""
        from onnx import numpy_helper

        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        makers = {name: node for node in model.graph.node for name in node.output}
        found = {}
        for node in model.graph.node:
            if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
                continue
            of_gemm = any(a.name == "transB" and a.i for a in node.attribute)
            turned = node.op_type == "MatMul" or (node.op_type == "Gemm" and not of_gemm)
            name = node.input[1]
            while name in makers and makers[name].op_type in ("Transpose", "Identity"):
                turned ^= makers[name].op_type == "Transpose"
                name = makers[name].input[0]
            if name in tensors:
                value = numpy_helper.to_array(tensors[name])
                if value.dtype in (np.float16, np.float32, np.float64):
                    found[name] = value, turned and value.ndim == 2
        return found


def _turned(value: np.ndarray, turned: bool) -> np.ndarray:
    return value.T if turned else value


def _batch_and_size(path: Path, inputs: Sequence[Sequence[Any]]) -> tuple[int | None, int | None]:
    """The number of images at once and the pixels along a side, where a graph fixes them."""
    shape = tuple(n if isinstance(n, int) else None for n in inputs[0]) if len(inputs) == 1 else ()
    if len(shape) != 4 or shape[1] not in (3, None) or shape[2] != shape[3]:
        taken = " and ".join(" × ".join(map(str, given)) for given in inputs) or "nothing"
        raise BadInput(
            f"{path} takes {taken}; expected images × 3 × size × size and nothing else: export a model that "
            "takes these."
        )
    return shape[0], shape[2]


# ---------------------------------------------------------------- the tables


def predictions_of(model: Auditable, images: Dataset, *, batch_size: int = 100) -> pd.DataFrame:
    """What a model says of the test images, a row for each: id, label, group, prediction and logits.

    `id` is the place of the image in the data set. A logit is under `logit_` and the name of its class, in
    the order of the data's labels, whatever the model's own order. So two tables of one data set go
    together, whoever made the models.
    """
    _require_fit(model, images)
    order = _order(model, images)
    shown = (~images.is_train).nonzero()[:, 0]
    found = []
    with (
        _where_it_runs_fast(model.seeing) as device,
        torch.inference_mode(),
        progress(total=len(shown), description=model.title, unit="img") as bar,
    ):
        for rows in shown.split(batch_size):
            with _explained(model, images):
                found.append(model.seeing(to_input(images.images[rows].to(device))).cpu())
            if found[-1].shape[1] != len(order):
                raise _other_classes(model, found[-1].shape[1], images)
            bar.update(len(rows))
    logits = torch.cat(found)[:, order]
    finite = logits.isfinite().all(1)
    if not finite.all():
        raise BadInput(
            f"{model.title} gives NaN or infinity for {int((~finite).sum())} of "
            f"{len(shown)} images; expected finite logits: look at mean and std, and whether it diverged."
        )
    names = np.array(images.label_names)
    table = pd.DataFrame(
        {
            "id": shown.numpy(),
            "label": names[images.labels[shown].numpy()],
            "group": np.array(images.group_names)[images.groups[shown].numpy()],
            "prediction": names[logits.argmax(1).numpy()],
        }
    )
    return table.join(pd.DataFrame(logits.numpy(), columns=[f"logit_{name}" for name in names]))


def layers(before: Auditable, after: Auditable) -> pd.DataFrame:
    """The layers that two models share: how many weights, and which share of them is exactly zero in each.

    Left out is a layer that is in one of them only, under that name, or holds its weights in a packed form.
    """
    first, second = (_shares(model.network) for model in (before, after))
    return first.merge(second, on=["layer", "weights"], suffixes=("_before", "_after"))


def _shares(network: nn.Module) -> pd.DataFrame:
    weights: nn.Module = network.weights() if isinstance(network, _Graph) else network
    rows = []
    for number, place in enumerate(_weights(weights)):
        name = weights.names[number] if isinstance(weights, _Weights) else place.name
        values = getattr(place.module, place.tensor).detach()
        with suppress(NotImplementedError, RuntimeError):  # of a packed form that cannot be unpacked
            values = values if type(values) is Tensor else values.dequantize()
            share = 1 - int(values.count_nonzero()) / max(values.numel(), 1)
            rows.append((name, values.numel(), share))
    return pd.DataFrame(rows, columns=["layer", "weights", "zero"])


_OWN_COLUMNS = ("id", "label", "group", "prediction")  # of a table of predictions, whatever the data


def further_groups(settings: DataSettings, names: Sequence[str]) -> list[str]:
    """Those of the names that are not in every table of predictions, if the data set has them.

    >>> further_groups(DataSettings(name="utkface", root="faces.zip"), ["group", "gender", "age"])
    ['gender', 'age']
    >>> further_groups(DataSettings(), ["group", "light"])
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: groups names light, but moths holds one group only, in the column group;
    expected group, or data with several: utkface, fairface, celeba, or a folder whose CSV has more columns.
    """
    wanted = [name for name in names if name not in ("label", "group")]
    known = _attributes(settings) if wanted else []
    if unknown := [name for name in wanted if name not in known]:
        raise BadInput(
            f"groups names {unknown[0]}, which {settings.name} does not have; expected some of: "
            f"{', '.join(['label', 'group', *known])}."
            if known
            else f"groups names {unknown[0]}, but {settings.name} holds one group only, in the column group; "
            "expected group, or data with several: utkface, fairface, celeba, or a folder whose CSV has more "
            "columns."
        )
    return wanted


def group_columns(settings: DataSettings, images: Dataset, names: Sequence[str]) -> pd.DataFrame:
    """Further columns of groups for the test images, by which they can be compared and crossed.

    `images` are those of the settings. UTKFace and FairFace have race, gender and age, CelebA its attributes,
    and a folder the columns of its CSV. `label` and `group` are in every table of predictions anyway, and
    need not be asked for.

    >>> moths = DataSettings(train_images=40, test_images=20)
    >>> group_columns(moths, dataset(moths), ["group"]).shape
    (20, 0)
    """
    wanted = further_groups(settings, names)
    shown = ~images.is_train.numpy()
    if not wanted:
        return pd.DataFrame(index=range(int(shown.sum())))
    layout, paths = LAYOUTS[settings.name], settings._paths()
    label, group = settings.label or layout.label, settings.group or layout.group
    rows = _select(layout.read(paths, label=label, group=group), settings)[0]
    if rows["label"].tolist() != images.labels.tolist() or rows["group"].tolist() != images.groups.tolist():
        raise BadInput(
            f"The images at {settings.root} are others than those that were loaded; expected the same: load "
            "them again with these settings."
        )
    found = {}
    for name in wanted:
        listing = layout.read(paths, label=label, group=name)
        texts = np.array(listing.group_names, dtype=object)[listing.table["group"]]
        own = pd.Series(texts, index=listing.table["name"])[rows["name"][shown]]
        if empty := int((own.str.strip() == "").sum()):
            raise BadInput(
                f"{settings.root} has {empty} test images without a {name}; expected one for each: fill them "
                "in, or leave those images out."
            )
        found[name] = own.to_numpy()
    return pd.DataFrame(found)


def _attributes(settings: DataSettings) -> list[str]:
    """The columns by which the images of a data set can be compared, apart from its label and group."""
    if settings.is_drawn:
        return []
    if settings.name != "folder":
        return list(LAYOUTS[settings.name].attributes)
    table = pd.read_csv(FOLDER._table(settings._paths()), nrows=0, encoding="utf-8-sig")
    own = ("file", "split", *_OWN_COLUMNS)
    return [
        name
        for name in map(str, table)
        if name not in own and not name.startswith(("logit_", "probability_"))
    ]


def check_two_models(before: Auditable, after: Auditable) -> None:
    """Refuse one model that was given twice, before it answers."""
    first, second = map(_what_it_is, (before, after))
    if first == second:
        raise BadInput(
            f"{before.name} and {after.name} are one model; expected two: give the one that was quantized as "
            "the second --model, or one --model and --treatment."
        )


def _what_it_is(model: Auditable) -> tuple[object, ...]:
    """What tells a model from others: a copy of its file has the same, and is it."""
    source = {name: value for name, value in model.source.items() if name != "weights"}
    # A factory and a study are told by their name. An ONNX file may keep its weights in another one.
    own = model.network.path.resolve() if isinstance(model.network, _OnnxGraph) else None
    named = model.name if source["entrance"] in ("factory", "study") else own
    return named, source, model.mean, model.std, model.image_size, model.class_names, model.treatment


def to_audit(
    before: Auditable,
    after: Auditable,
    images: Dataset,
    *,
    groups: pd.DataFrame | None = None,
    batch_size: int = 100,
) -> dict[str, Any]:
    """What two models say of the test images, as the arguments of `fairq_utils.audit`.

    `groups`: further columns for the tables, from `group_columns`.

    >>> from fairq_utils import audit
    >>> images = dataset(DataSettings(train_images=40, test_images=60, image_size=16))
    >>> mine = Auditable(name="mine", network=nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5)))
    >>> found = audit(**to_audit(mine, mine.treated("int4", images), images))
    >>> found.record["compared"]["after"]["name"]
    'mine int4'
    """
    tables = [predictions_of(model, images, batch_size=batch_size) for model in (before, after)]
    if groups is not None:
        tables = [table.join(groups) for table in tables]
    shared = layers(before, after)
    names = [model.title for model in (before, after)]
    if names[0] == names[1]:
        names = [f"{name}, {place}" for name, place in zip(names, ("before", "after"), strict=True)]
    size = images.images.shape[-1]
    other = _about(after)
    if after.treatment and (before.name, before.source) == (after.name, after.source):
        other = f"the same at {after.treatment.name}"
    return {
        "before": tables[0],
        "after": tables[1],
        "names": tuple(names),
        "layers": None if shared.empty else shared,
        "description": f"{_about(before)}, and {other}, on {len(tables[0]):,} test images of {size} × {size} "
        f"pixels (fingerprint {images.fingerprint[:12]}).",
    }


def of_study(
    study: Study,
    treatment: Treatment | str,
    *,
    groups: Sequence[str] = ("group",),
    store: Store | None = None,
) -> dict[str, Any]:
    """The arguments of `fairq_utils.audit` for a study's network, before and after its weights are rounded.

    The network is read from the store, or trained now. `groups` names the columns that the audit compares,
    where they are more than the data set's usual one.

    >>> few = DataSettings(train_images=40, test_images=60, image_size=16)
    >>> of_study(Study(dataset=few, recipe=Recipe(epochs=1)), "int4")["names"]
    ('moths-resnet18-16px-seed0', 'moths-resnet18-16px-seed0 int4')
    """
    images = dataset(study, store=store)
    columns = group_columns(study.dataset, images, groups)  # refused before the network is trained
    before = from_study(study, store=store)
    return to_audit(before, before.treated(treatment, images), images, groups=columns)


def _about(model: Auditable) -> str:
    """Which model, from which file, and how its images were normalised."""
    digest = str(model.source.get("sha256", ""))[:12]
    mean, std = (
        ", ".join(f"{n:g}" for n in (numbers[:1] if len(set(numbers)) == 1 else numbers))
        for numbers in (model.mean or (), model.std or ())
    )
    return f"{model.title} ({f'SHA-256 {digest}, ' if digest else ''}mean {mean}, std {std})"


def _require_fit(model: Auditable, images: Dataset) -> None:
    size = images.images.shape[-1]
    if model.image_size not in (None, size):
        raise BadInput(
            f"{model.name} takes images of {model.image_size} pixels along a side, and these have {size}; "
            f"expected the same: load the data with image_size={model.image_size}."
        )


def _order(model: Auditable, images: Dataset) -> list[int]:
    """For each label of the data the place of its logit."""
    if model.class_names is None:
        return list(range(len(images.label_names)))
    if len(model.class_names) != len(images.label_names):
        raise _other_classes(model, len(model.class_names), images)
    for name in images.label_names:
        if model.class_names.count(name) != 1:
            raise BadInput(
                f"{model.name} has no class {name!r}, which is a label of the data (its classes are "
                f"{', '.join(model.class_names)}); expected the same names: give class_names, the data's "
                "labels in the order of the model's logits."
            )
    return [model.class_names.index(name) for name in images.label_names]


def _other_classes(model: Auditable, classes: int, images: Dataset) -> BadInput:
    labels = images.label_names
    return BadInput(
        f"{model.name} tells {classes} classes apart, and the data have {len(labels)} labels "
        f"({', '.join(labels)}); expected as many: give the data it was trained for, or a model of these."
    )


@contextmanager
def _where_it_runs_fast(network: nn.Module) -> Iterator[torch.device]:
    """Bring a network that is on the CPU to the accelerator, where there is one, and back."""
    home = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    device = home if home.type != "cpu" else default_device()
    network.to(device)
    try:
        yield device
    finally:
        network.to(home)


@contextmanager
def _explained(model: Auditable, images: Dataset) -> Iterator[None]:
    """Say in a sentence what somebody's model raised."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        size = images.images.shape[-1]
        raise BadInput(
            f"{model.name} raised {_said(error)} on images of 3 × {size} × {size}; expected a model that "
            "takes them: give its image_size, or mend it."
        ) from error


# ---------------------------------------------------------------- files and code


def _filled(network: nn.Module, path: Path) -> nn.Module:
    """The network with the weights of a file, all of them and no others."""
    _existing(path)
    if path.suffix == ".safetensors":
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                packed = "fairq-packed" in (file.metadata() or {})
            if packed:
                return load_packed(path, into=network)
            state = safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise BadInput(
                f"{path} is cut short or no safetensors file; expected weights: copy it again."
            ) from error
    elif path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        state = _unpickled(path)
    else:
        raise BadInput(
            f"weights is {str(path)!r}; expected a .safetensors file, or a state dict as .pt or .pth."
        )
    own = network.state_dict(keep_vars=True)
    tied = {id(own[name]) for name in own.keys() & state.keys()}
    for name, value in own.items():
        if name not in state and id(value) not in tied:
            raise _other_weights(path, f"no {name!r}, which the network has")
        if name in state and state[name].shape != value.shape:
            there, here = (" × ".join(map(str, t.shape)) or "one number" for t in (state[name], value))
            raise _other_weights(path, f"{name!r} of shape {there}, which has {here} in the network")
    for name in state:
        if name not in own:
            raise _other_weights(path, f"{name!r}, which the network has not")
    network.load_state_dict(state, strict=False)  # what is left is tied to what is there
    return network


def _unpickled(path: Path) -> dict[str, Tensor]:
    """The state dict of a file that torch saved, read without running any code of it."""
    again = (
        "save the state dict by safetensors.torch.save_file(network.state_dict(), 'weights.safetensors'), "
        "where the file comes from."
    )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        raise BadInput(
            f"{path} holds more than weights, and to open it could run code; expected tensors alone: {again}"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # as trainers save it
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInput(f"{path} holds a {type(state).__name__} that is no state dict; {again}")
    return state


def _other_weights(path: Path, what: str) -> BadInput:
    return BadInput(
        f"{path} has {what}; expected the weights of this very network: build it with the arguments that it "
        "was trained with, or give its own file."
    )


def _existing(path: Path) -> Path:
    path = path.expanduser()
    if not path.is_file():
        raise BadInput(f"{path} is no file; expected a model or its weights: look at the path.")
    return path


def _sha256(*paths: Path) -> str:
    """Of the files one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while part := file.read(2**20):
                digest.update(part)
    return digest.hexdigest()


def _said(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    first = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """As `python -m` has it; an installed command has not."""
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added:
            sys.path.remove(here)


@contextmanager
def _weights_only() -> Iterator[None]:
    """Let torch unpickle tensors alone, also where it would ask for more."""
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[names[0]] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
