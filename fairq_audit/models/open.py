"""Open somebody's model: a factory, a program, an ONNX file or a folder of transformers."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from fairq_audit.models.base import AuditModel
from fairq_audit.models.graphs import OnnxGraph, Program
from fairq_audit.models.images import Form, Size, form_of
from fairq_audit.models.outputs import first_line
from fairq_audit.models.own import OwnModels
from fairq_audit.models.programs import load_program
from fairq_utils.data.sources import DataSettings
from fairq_utils.errors import BadInput
from fairq_utils.quantization.packing import load_packed

_EXPECTED = "package.module:factory, a .pt2 or .onnx file, or a folder that save_pretrained wrote"


def open_model(
    text: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    image_size: Size | None = None,
    channels: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    takes_images: bool = True,
    data: DataSettings | None = None,
    epochs: float = 0,
    own: OwnModels | None = None,
) -> AuditModel:
    """The model that the text names, ready to be audited.

    `package.module:factory`: a function or class that returns an `nn.Module`, given `arguments` if there are
    any, and filled with `weights`. A `.pt2` file: a program of `torch.export`. An `.onnx` file. A folder:
    what `save_pretrained` of Hugging Face's transformers wrote. With `own`, also a name that its owner knows,
    for the images that `data` describes and so many `epochs` of training.

    A factory and a `.pt2` program run code of whoever wrote them: name only those that you trust. All other
    files are only read.

    `image_size`, `channels`, `mean`, `std` and `class_names` overrule what the model says, or say it where it
    does not: of images, mean and std must be known before they are shown. Without `takes_images` a graph may
    take anything, and a folder is one of a classifier of text.

    >>> open_model("torch.nn:Identity", class_names=["ship", "horse"]).class_names
    ('ship', 'horse')
    >>> open_model("network.h5")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: model is 'network.h5'; expected package.module:factory, a .pt2 or .onnx
    file, or a folder that save_pretrained wrote.
    """
    path = Path(text).expanduser()
    factory = is_factory(text)
    if not factory and (weights or arguments):
        raise BadInput(
            f"{text} was given with weights or arguments, but brings its own; expected them with "
            "package.module:factory alone: leave them out."
        )
    if factory:
        found = from_factory(text, weights=weights, arguments=arguments)
    elif own and re.fullmatch(own.pattern, text):
        found = own.open(text, data or DataSettings(), epochs)
        if image_size not in (None, found.image_size):
            raise BadInput(
                f"image_size is {image_size}, and {text} is trained on squares of {found.image_size} pixels; "
                "expected a side from 16 to 512."
            )
    elif path.is_dir():
        found = from_folder(path, takes_images=takes_images)
    elif path.suffix == ".pt2":
        found = from_program(path, takes_images=takes_images)
    elif path.suffix == ".onnx":
        found = from_onnx(path, takes_images=takes_images)
    elif path.suffix in (".safetensors", ".pt", ".pth", ".bin", ".ckpt"):
        raise BadInput(
            f"{text} holds weights and not the network; expected the code that builds it as well: give "
            "package.module:factory as the model, and this file as its weights."
        )
    else:
        also = f", or {own.expected}" if own else ""
        raise BadInput(f"model is {text!r}; expected {_EXPECTED}{also}.")
    overruled: dict[str, Any] = {
        name: tuple(given)
        for name, given in {"mean": mean, "std": std, "class_names": class_names}.items()
        if given is not None
    }
    size = image_size or found.image_size
    return replace(found, image_size=size, channels=channels or found.channels, **overruled)


def is_factory(text: str) -> bool:
    """Whether the text names a factory, which may be given weights and arguments.

    >>> is_factory("torchvision.models:resnet18"), is_factory("resnet18")
    (True, False)
    """
    return bool(re.fullmatch(r"[\w.]+:[\w.]+", text)) and not Path(text).exists()


def from_factory(
    text: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> AuditModel:
    """The network that `package.module:factory` returns, filled with the weights of a file.

    Imports the module, from the working directory too, and calls the factory: this runs its code. The
    weights are a safetensors file, also one of `save_packed`, or a state dict that `torch.load` reads
    without running code.

    >>> build = {"arch": "resnet18", "classes": 5}
    >>> from_factory("fairq_utils.training.architectures:build", arguments=build).network.fc.out_features
    5
    >>> from_factory("fairq_utils.training.architectures:built")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: fairq_utils.training.architectures has no 'built'; expected
    package.module:factory
    with a function of that module that returns a network.
    """
    module, _, path = text.partition(":")
    with _working_directory_importable():
        try:
            factory: Any = importlib.import_module(module)
        except Exception as error:  # it is somebody's code
            raise BadInput(
                f"{module} cannot be imported ({first_line(error)}); expected package.module:factory that is "
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
        except Exception as error:  # it is somebody's code
            raise BadInput(
                f"{text} raised {first_line(error)}; expected a function that returns a network "
                "when it is called "
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
    return AuditModel(name=text, network=made.eval(), mean=None, std=None, source=source)


def from_program(path: str | os.PathLike[str], *, takes_images: bool = True) -> AuditModel:
    """The program that `torch.export.save` wrote, also one that PT2E or torchao quantized.

    Loading it evaluates expressions that the file holds, so open only one that you trust. Pickles in it that
    would run more are refused.
    """
    path = _existing(Path(path))
    program = load_program(path)
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
    keywords = program.call_spec.in_spec.child(1).context if program.call_spec.in_spec else ()
    network = Program(module, keywords)
    return _of_graph(path, network, "torch.export", takes_images)


def from_onnx(path: str | os.PathLike[str], *, takes_images: bool = True) -> AuditModel:
    """An ONNX file, run by onnxruntime on the CPU with its default options."""
    path = _existing(Path(path))
    return _of_graph(path, OnnxGraph(path, path), "onnx", takes_images)


def _of_graph(path: Path, network: OnnxGraph | Program, entrance: str, takes_images: bool) -> AuditModel:
    takes = network.takes()
    form = form_of(path, takes) if takes_images else Form()
    network.batch = next((shape[0] for shape in takes.values() if shape), None)
    return AuditModel(
        name=path.name,
        network=network,
        image_size=form.size,
        channels=form.channels,
        channels_last=form.channels_last,
        mean=None,
        std=None,
        source={"entrance": entrance, "sha256": _sha256(path)},
    )


def from_folder(path: str | os.PathLike[str], *, takes_images: bool = True) -> AuditModel:
    """A classifier of images that Hugging Face's transformers saved, with its image processor; or of text.

    Only safetensors are read, nothing is fetched, and no code of the folder is run. Of the processor only
    size and normalisation are taken: the images come cropped and shrunk as the book does it.
    """
    path = Path(path).expanduser()
    try:
        from transformers import (
            AutoImageProcessor,
            AutoModelForImageClassification,
            AutoModelForSequenceClassification,
        )
        from transformers.utils import logging
    except ImportError as error:
        raise BadInput(
            f"{path} is a folder, and to open it takes the package transformers; run pip install "
            "fairq-utils[models]."
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
    what, opener = (
        ("an image classifier", AutoModelForImageClassification)
        if takes_images
        else ("a classifier of text", AutoModelForSequenceClassification)
    )
    local = {"local_files_only": True, "trust_remote_code": False}
    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # of a file on this disk, shown whoever watches
    try:
        network, loaded = opener.from_pretrained(
            path, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **local
        )
    except Exception as error:  # whatever the configuration leads it to
        raise BadInput(
            f"{path} cannot be opened as {what} ({first_line(error)}); expected a folder that "
            "save_pretrained of such a model wrote."
        ) from error
    finally:
        if drawn:
            logging.enable_progress_bar()
    for differs, keys in (("misses", "missing_keys"), ("has, and the model not,", "unexpected_keys")):
        if loaded[keys]:
            raise BadInput(
                f"{path} {differs} {sorted(loaded[keys])[0]!r}, so that weights would be made up; expected "
                f"all weights of {what}: save the trained model again."
            )
    names = [network.config.id2label[place] for place in sorted(network.config.id2label)]
    unnamed = all(re.fullmatch(r"LABEL_\d+", name) for name in names)
    fixed = getattr(network.config, "image_size", None)
    size: Size | None = fixed if isinstance(fixed, int) else None
    mean = std = None
    if takes_images and (path / "preprocessor_config.json").is_file():
        try:
            processor = AutoImageProcessor.from_pretrained(path, **local)
            plain = [np.broadcast_to(colour, (64, 64, 3)).copy() for colour in _COLOURS]
            seen = processor(images=plain, return_tensors="pt")["pixel_values"].double()
        except Exception as error:  # whatever the configuration leads it to
            raise BadInput(
                f"{path} has a preprocessor_config.json that cannot be used ({first_line(error)}); expected "
                "what "
                "save_pretrained wrote: save the image processor again."
            ) from error
        size, mean, std = _size_and_normalisation(path, seen)
    return AuditModel(
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


def _size_and_normalisation(path: Path, seen: Tensor) -> tuple[Size, tuple[float, ...], tuple[float, ...]]:
    """The size that an image processor makes, and what it does to a pixel: from its images of `_COLOURS`."""
    if seen.dim() != 4 or seen.shape[1] != 3:
        raise BadInput(
            f"the image processor in {path} makes {tuple(seen.shape[1:])} of an image; expected 3 × height × "
            "width: export the model with what it needs, as .onnx or .pt2."
        )
    height, width = seen.shape[2:]
    middle = seen[:, :, height // 2, width // 2]
    std = 1 / (middle[1] - middle[0])
    mean = -middle[0] * std
    wanted = (torch.from_numpy(_COLOURS).double() / 255 - mean) / std
    if not torch.allclose(middle, wanted, atol=1e-4):
        raise BadInput(
            f"the image processor in {path} does more to a pixel than to subtract and divide; expected red, "
            "green and blue, each with its mean and std: wrap the rest into the model and export it."
        )
    rounded = [tuple(round(float(n), 6) for n in numbers) for numbers in (mean, std)]
    return height if height == width else (height, width), rounded[0], rounded[1]


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


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """Let modules be imported from here, as `python -m` does and an installed command does not."""
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added:
            sys.path.remove(here)
