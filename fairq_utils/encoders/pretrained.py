"""Dual encoders that others trained, read by open_clip from files that you have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairq_utils.encoders.linear_layers import quietly
from fairq_utils.encoders.mini import DualEncoder
from fairq_utils.errors import BadInput


class OpenClip(DualEncoder):
    """A model of open_clip with its own tokenizer and its own way to see images; `open_clip` makes it.

    Images of any size are scaled to the one it was trained at. Texts longer than its context are cut, and
    what its tokenizer does with words it never saw is its own affair.
    """

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        for (
            part
        ) in model.modules():  # open_clip casts to the type of a weight, which may become a whole number
            if hasattr(part, "get_cast_dtype"):
                part.get_cast_dtype = _float32  # type: ignore[assignment] # a method, no part of the network
        size = model.visual.image_size  # type: ignore[union-attr] # every model of open_clip has it
        self.size: tuple[int, int] = (size, size) if isinstance(size, int) else tuple(size)  # type: ignore[arg-type]
        about: Any = getattr(model.visual, "preprocess_cfg", {})
        mean, std = about.get("mean", _MEAN), about.get("std", _STD)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    @property
    def logit_scale(self) -> float:
        """What the cosine of an image and a text is multiplied by."""
        scale: Any = self.model.logit_scale
        return float(scale.detach().exp())

    def image_features(self, images: Tensor) -> Tensor:
        """The image tower's answer to a batch of uint8 images."""
        seen = images.to(self.mean.device).float() / 255
        if seen.shape[2:] != self.size:
            seen = F.interpolate(seen, self.size, mode="bicubic", antialias=True).clamp(0, 1)
        return self.model.encode_image((seen - self.mean) / self.std)  # type: ignore[operator]

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """The text tower's answer to a batch of texts."""
        return self.model.encode_text(self.tokenizer(list(texts)).to(self.mean.device))  # type: ignore[operator]


def _float32() -> torch.dtype:
    return torch.float32


# What CLIP was trained with; models that were trained otherwise say so themselves.
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def open_clip(name: str, checkpoint: str | None = None, *, download: bool = False) -> OpenClip:
    """A model of open_clip, in eval mode: `pip install 'fairq-utils[models]'`.

    With a `checkpoint`, a file of weights (safetensors or a state dict; nothing in it is run) for the
    architecture `name`, as in `open_clip("ViT-B-32", "ViT-B-32.safetensors")`. Where `name` is a folder
    that open_clip saved, with `open_clip_config.json`, that decides all. Weights are fetched only with
    `download=True`, by the name of the training after a slash: `open_clip("ViT-B-32/openai", download=True)`.
    """
    library = _library()
    folder = Path(name).expanduser()
    with quietly():
        if folder.is_dir():
            _refuse_foreign(folder)
            return _made(library, f"local-dir:{folder}", None)
        arch, _, tag = name.partition("/")
        if arch not in library.list_models():
            raise BadInput(
                f"{name!r} is no folder and no architecture of open_clip; expected one of both, such as "
                "ViT-B-32: open_clip.list_models() lists them."
            )
        if checkpoint is not None:
            if not Path(checkpoint).expanduser().is_file():
                raise BadInput(f"checkpoint is {checkpoint!r}, which is no file; expected weights of {arch}.")
            return _made(library, arch, str(Path(checkpoint).expanduser()))
        if not download:
            raise BadInput(
                f"the weights of {name} are not named; expected checkpoint= with a file that you have, the "
                "folder of a saved model in place of the name, or download=True to fetch them."
            )
        known = library.list_pretrained_tags_by_model(arch)
        if tag not in known:
            raise BadInput(
                f"{name!r} names no training of {arch}; expected {arch}/ and one of: {', '.join(known)}."
            )
        return _made(library, arch, tag)


def _library() -> Any:
    try:
        with quietly():
            import open_clip
    except ImportError as error:
        raise BadInput(
            f"open_clip is not installed ({error}); expected it: pip install 'fairq-utils[models]'."
        ) from error
    return open_clip


def _refuse_foreign(folder: Path) -> None:
    try:
        config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
        known = "embed_dim" in config["model_cfg"]
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    weights = [path for end in ("safetensors", "bin", "pth") for path in folder.glob(f"*.{end}")]
    if not known or not weights:
        raise BadInput(
            f"{str(folder)!r} is no model that open_clip saved; expected open_clip_config.json and "
            "open_clip_model.safetensors in it."
        )


def _made(library: Any, name: str, weights: str | None) -> OpenClip:
    try:
        model = library.create_model(name, pretrained=weights, weights_only=True, require_pretrained=True)
        tokenizer = library.get_tokenizer(name)
    except BadInput:
        raise
    except Exception as error:  # of a file that is damaged or of another architecture, whatever reads it
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(
            f"open_clip cannot read {weights or name!r} ({reason}); expected weights of that architecture: "
            "name another file."
        ) from error
    return OpenClip(model, tokenizer).eval()
