"""What the book ships of networks whose images may not be shipped: what they answered, and how it was made.

`book/results/SETTING/` holds a file for each network and, in `splits/`, one for each distinct test part. A
file is a safetensors byte string of int16 tensors, compressed by LZMA, with a SHA-256 of its content inside.
It names no image and shows none; who holds the images can match its rows to them.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairq_utils.errors import BadInput
from fairq_utils.files import write_atomically
from fairq_utils.items import Item, canonical
from fairq_utils.metrics.arrays import logits_of_one_network
from fairq_utils.metrics.groups import correct_answers, flipped

_ENDING = ".safetensors.xz"
_LARGEST = 64 * 2**20  # bytes of a file, and of what it unpacks to
# Compressed for numbers of two bytes. Its dictionary is of 8 MiB, so reading needs little memory.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6 | lzma.PRESET_EXTREME, "lc": 2, "lp": 1, "pb": 1}]
_MEMORY = 32 * 2**20  # more than a reader needs for that
_FINEST, _COARSEST = -6, 113  # steps are powers of two: from 1/64 to where float32 ends
_INT16 = np.iinfo(np.int16)
_PARTS = ("train", "tuning", "test")
_MADE = ("code", "revision", "versions", "device", "date")
_OF_A_SEED = ("seed", "fold", "draw", "rotation")  # what, in a study, tells its seeds apart
_SHA256 = "[0-9a-f]{64}", "a SHA-256, 64 hexadecimal digits in lower case"
_NAME = r"\w[\w.-]*", "letters, digits, hyphens, underscores and dots"

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Split:
    """What is known of the images of one test part, in their order, and how many the other parts have.

    `labels` and `groups` index into their names. `sizes` counts the images of each group in training, tuning
    and test. `fingerprint` is the SHA-256 of the data set. `attributes` holds whole numbers, one an image,
    such as ages or codes.
    """

    labels: Tensor
    groups: Tensor
    label_names: tuple[str, ...]
    group_names: tuple[str, ...]
    sizes: Mapping[str, Sequence[int]]
    fingerprint: str
    attributes: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check("fingerprint", self.fingerprint, *_SHA256)
        for name, values in self._columns.items():
            fits = values.dtype == torch.int64 and torch.equal(values.to(torch.int16).long(), values)
            if not fits or values.ndim != 1 or not len(values) == self.labels.numel() > 0:
                raise BadInput(
                    f"{name} are of {values.dtype} and shape {tuple(values.shape)}; expected int64 in "
                    f"the range of int16, one for each of {self.labels.numel()} images."
                )
        for what, names in (("labels", self.label_names), ("groups", self.group_names)):
            codes = self._columns[what]
            if len({*names}) < len(names) or codes.min() < 0 or codes.max() >= len(names):
                raise BadInput(
                    f"{what} run from {codes.min()} to {codes.max()} for the names {list(names)}; expected "
                    "each name once, and for each image the place of its name."
                )
        counted = self.groups.bincount(minlength=len(self.group_names)).tolist()
        whole = {*self.sizes} == {*_PARTS} and all(len(n) == len(counted) for n in self.sizes.values())
        if not whole or list(self.sizes["test"]) != counted:
            raise BadInput(
                f"sizes are {dict(self.sizes)}; expected for each of {', '.join(_PARTS)} a count a group, "
                f"and for test {counted}: count the images of each part."
            )

    @property
    def _columns(self) -> dict[str, Tensor]:
        attributes = {f"attribute {name}": values for name, values in self.attributes.items()}
        return {"labels": self.labels, "groups": self.groups} | attributes

    @cached_property
    def item(self) -> Item:
        """The tensors and the plain values that are written."""
        info = {name: getattr(self, name) for name in ("label_names", "group_names", "sizes", "fingerprint")}
        tensors = {name: values.to(torch.int16) for name, values in self._columns.items()}
        return Item(tensors, _plain(info | {"attributes": [*self.attributes]}))

    @property
    def key(self) -> str:
        """SHA-256 of the content: by it a network names the test part that it belongs to."""
        return self.item.digest


@dataclass(frozen=True, eq=False)
class LayerNetwork:
    """What one network and its treatments answered, of what weights, and how it was made.

    `study` identifies it, `weights` is the SHA-256 of the full-precision weights that it descends from, and
    `split` the key of its test part. `logits` holds images by classes for each treatment. `record` is for
    whatever else was measured, such as shares of weights at zero. `made` says `code` (the digest of each
    stage), `revision`, `versions`, `device` and `date`.
    """

    name: str
    study: Mapping[str, Any]
    weights: str
    split: str
    logits: Mapping[str, Tensor]
    record: Mapping[str, Any]
    made: Mapping[str, Any]

    def __post_init__(self) -> None:
        _check("name", self.name, *_NAME)
        _check("weights", self.weights, *_SHA256)
        _check("split", self.split, *_SHA256)
        if missing := {*_MADE} - {*self.made}:
            raise BadInput(
                f"made says nothing of {', '.join(sorted(missing))}; expected {', '.join(_MADE)}: add it."
            )
        for what, value in (("study", self.study), ("record", self.record), ("made", self.made)):
            if found := _path_in(_plain(value)):
                raise BadInput(
                    f"{what} of {self.name} holds {found!r}, a path of this machine; expected none, because "
                    "it will be shipped: leave it out."
                )


# ---------------------------------------------------------------- logits in two bytes


def compact(logits: Tensor) -> tuple[NDArray[np.int16], int]:
    """Logits as whole steps, and the step's power of two: no answer changes, and little else.

    A step is 1/64, or the smallest larger power of two by which the largest logit fits. The answer is the
    first of the largest logits, as in `correct_answers`; where rounding lets an earlier class draw level with
    it, it is lifted by one step. So an error is half a step at most, and one and a half where lifted.
    Logits that are NaN or infinite are refused, as the metrics do.

    >>> compact(torch.tensor([[1.0, -0.5], [0.001, 0.002]]))
    (array([[ 64, -32],
           [  0,   1]], dtype=int16), -6)
    """
    scores = logits_of_one_network(logits)
    power, largest = _FINEST, np.abs(scores).max()
    while np.rint(largest / 2.0**power) >= _INT16.max:  # with room for a lift
        power += 1
    if power > _COARSEST:
        raise BadInput(f"The largest logit is {largest:g}; expected less than 3.4e38, as float32 holds.")
    steps = np.rint(scores / 2.0**power).astype(np.int16)
    answers = scores.argmax(axis=1)
    steps[np.arange(len(steps)), answers] += steps.argmax(axis=1) != answers
    return steps, power


# ---------------------------------------------------------------- files


def _item_of(network: LayerNetwork) -> Item:
    found = {}
    for treatment, logits in network.logits.items():
        try:
            found[treatment] = compact(logits)
        except BadInput as error:
            raise BadInput(f"{network.name}, {treatment}: {error}") from None
    # What differs from the first treatment takes less space. Beyond int16 it wraps round, and back when read.
    first: Any = next(iter(found.values()))[0]
    tensors = {name: steps if steps is first else steps - first for name, (steps, _) in found.items()}
    powers = [[name, power] for name, (_, power) in found.items()]
    info = {name: getattr(network, name) for name in ("name", "study", "weights", "split", "record", "made")}
    info["powers"] = powers
    return Item({name: torch.from_numpy(steps) for name, steps in tensors.items()}, _plain(info))


def _network_of(item: Item) -> LayerNetwork:
    values = dict(item.info)
    powers = dict(values.pop("powers"))
    steps = {name: item.tensors[name].numpy() for name in powers}
    shapes = {tensor.shape for tensor in item.tensors.values()}
    if {*steps} != {*item.tensors} or [len(shape) for shape in shapes] != [2]:
        raise ValueError("it holds other treatments than it names, or such of different shapes")
    if not {*powers.values()} <= {*range(_FINEST, _COARSEST + 1)}:
        raise ValueError("its steps are of no size that is written")
    first: Any = next(iter(steps.values()))
    steps = {name: own if own is first else own + first for name, own in steps.items()}
    logits = {name: torch.from_numpy(own).float() * 2.0 ** powers[name] for name, own in steps.items()}
    return LayerNetwork(**values, logits=logits)


def _split_of(item: Item) -> Split:
    values = dict(item.info)
    columns = {name: tensor.long() for name, tensor in item.tensors.items()}
    values |= {name: tuple(values[name]) for name in ("label_names", "group_names")}
    values["attributes"] = {name: columns[f"attribute {name}"] for name in values["attributes"]}
    return Split(labels=columns["labels"], groups=columns["groups"], **values)


def _packed(item: Item) -> bytes:
    # One entry, because safetensors writes several in any order: equal items should be equal files.
    header = {"fairq": canonical({"info": item.info, "digest": item.digest})}
    tensors = {name: tensor.cpu().contiguous() for name, tensor in item.tensors.items()}
    content = safetensors.torch.save(tensors, metadata=header)
    if len(content) > _LARGEST:
        raise BadInput(
            f"{len(content):,} bytes for one file; expected at most {_LARGEST:,}: write fewer treatments."
        )
    return lzma.compress(content, check=lzma.CHECK_CRC32, filters=_FILTERS)


def _unpacked(packed: bytes) -> Item:
    unpacking = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
    content = unpacking.decompress(packed, max_length=_LARGEST + 1)
    if max(len(packed), len(content)) > _LARGEST:
        raise ValueError(f"more than {_LARGEST:,} bytes")
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError("it ends too early, or something follows its end")
    tensors = safetensors.torch.load(content)
    if {tensor.dtype for tensor in tensors.values()} != {torch.int16}:
        raise ValueError("it holds other numbers than int16")
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    about = json.loads(header["__metadata__"]["fairq"])
    item = Item(tensors, about["info"])
    if item.digest != about["digest"]:
        raise ValueError("its content is not that of its SHA-256")
    return item


def _read(path: Path, made_of: Callable[[Item], _T]) -> _T:
    try:
        with path.open("rb") as file:
            return made_of(_unpacked(file.read(_LARGEST + 1)))
    # LookupError to AttributeError: of JSON that is of somebody else. BadInput is a ValueError.
    except (
        *(OSError, lzma.LZMAError, safetensors.SafetensorError, ValueError),
        *(LookupError, TypeError, AttributeError, RecursionError),
    ) as error:
        why = f"{type(error).__name__}: {error}".rstrip(".")
    raise BadInput(
        f"{path} cannot be read as a part of the book's results ({why}); expected the file as it was "
        "written: take it anew from the repository, or write it again."
    )


class Layer:
    """The networks that a folder such as `book/results` holds, by setting.

    >>> import tempfile
    >>> layer = Layer(Path(tempfile.mkdtemp()))
    >>> split = Split(torch.tensor([0, 1]), torch.tensor([0, 1]), ("no", "yes"), ("a", "b"),
    ...               {"train": [8, 8], "tuning": [1, 1], "test": [1, 1]}, fingerprint="0" * 64)
    >>> made = dict(code={"train": "1" * 64}, revision="abc", versions={}, device="cpu", date="2025-01-31")
    >>> network = LayerNetwork("faces-seed0", {"seed": 0}, "2" * 64, split.key,
    ...                        {"fp32": torch.tensor([[2.0, 0.5], [0.1, 0.0]])}, record={}, made=made)
    >>> layer.write("faces", network, split)
    >>> layer.find("faces", {"seed": 0}).logits["fp32"]
    tensor([[2.0000, 0.5000],
            [0.0938, 0.0000]])
    >>> layer.settings(), layer.find("faces", {"seed": 1})
    (['faces'], None)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def settings(self) -> list[str]:
        """The settings of which networks are here, sorted."""
        return sorted({path.parent.name for path in self.folder.glob(f"*/*{_ENDING}")})

    def networks(self, setting: str) -> Iterator[LayerNetwork]:
        """The networks of a setting, by file name; none if none are here."""
        for path in sorted(self._of(setting).glob(f"*{_ENDING}")):
            yield _read(path, _network_of)

    def find(self, setting: str, study: Mapping[str, Any]) -> LayerNetwork | None:
        """The network of exactly this study, if it is here."""
        for path in self._of(setting).glob(f"*-{_short(study)}{_ENDING}"):
            network = _read(path, _network_of)
            if canonical(network.study) == canonical(study):
                return network
        return None

    def split(self, setting: str, network: LayerNetwork) -> Split:
        """The test part of a network, checked to be the one that it was tested on."""
        path = self._split_path(setting, network.split)
        return _read(path, lambda item: _belonging(_split_of(item), network))

    def write(self, setting: str, network: LayerNetwork, split: Split) -> None:
        """Write a network and its test part; an earlier network of the same study and name is replaced."""
        _belonging(split, network)
        content = _packed(_item_of(network))
        write_atomically(self._split_path(setting, split.key), _packed(split.item))  # never a network without
        write_atomically(self._of(setting) / f"{network.name}-{_short(network.study)}{_ENDING}", content)

    def nbytes(self) -> int:
        """How many bytes the files of all settings have."""
        return sum(path.stat().st_size for path in self.folder.rglob(f"*{_ENDING}"))

    def _of(self, setting: str) -> Path:
        _check("setting", setting, *_NAME)
        return self.folder / setting

    def _split_path(self, setting: str, key: str) -> Path:
        return self._of(setting) / "splits" / f"{key[:16]}{_ENDING}"


def _short(study: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(study).encode()).hexdigest()[:16]


def stale(network: LayerNetwork, digests: Mapping[str, str]) -> list[str]:
    """The stages that made a network whose code is another by today's digests, or that are no more."""
    return [stage for stage, digest in network.made["code"].items() if digests.get(stage) != digest]


def verify(layer: Layer, setting: str, anew: LayerNetwork) -> pd.DataFrame:
    """Compare a network of the layer with one made anew of the same study: a row a treatment and group.

    `kept` and `anew` count right answers of `n`. Where device, versions and code are those of the record,
    `agrees` means that every answer of the group is the same, and `tolerance` is 0. Elsewhere a seed gives
    another network, and it means that the counts are at most `tolerance` apart: four standard deviations of
    a difference of two seeds. Those are estimated from the setting's studies that differ from this one in
    seed, fold or draw alone, and are at least the binomial ones.

    How much does that say? `wrong_passes` is the share of the setting's other networks that would agree too,
    if they lay in this one's place, and `wrong_passes_all` that in all rows at once; NaN if there is no
    other. Those tested on other images count by their accuracy.
    """
    kept = layer.find(setting, anew.study)
    names = [name for name in kept.logits if name in anew.logits] if kept else []
    if kept is None or kept.split != anew.split or not names:
        raise BadInput(
            f"{anew.name} was made anew, but {setting} in {layer.folder} holds no network of its study, test "
            "images and treatments; expected one: make a network that is there, of the same data."
        )
    split = _belonging(layer.split(setting, kept), anew)
    others = [
        (network, own)
        for network in layer.networks(setting)
        if canonical(network.study) != canonical(kept.study)
        and (own := layer.split(setting, network)).group_names == split.group_names
    ]
    n = np.tile(split.sizes["test"], len(names))

    def counted(network: LayerNetwork, own: Split, where: Callable[..., NDArray[Any]]) -> NDArray[np.float64]:
        """How many images of each group are so, treatment by treatment; NaN for a treatment that it lacks."""
        counts = np.full((len(names), len(own.group_names)), np.nan)
        for place, name in enumerate(names):
            if name in network.logits:
                groups = own.groups.numpy()[where(network.logits[name], name)]
                counts[place] = np.bincount(groups, minlength=counts.shape[1])
        return counts.ravel()

    def right(network: LayerNetwork, own: Split) -> NDArray[np.float64]:
        counts = counted(network, own, lambda logits, _: correct_answers(logits, own.labels))
        return counts / np.maximum(np.tile(own.sizes["test"], len(names)), 1) * n

    def changed(network: LayerNetwork, own: Split) -> NDArray[np.float64]:
        if own.key != split.key:  # none can be told to be the same
            return n.astype(float)
        return counted(network, own, lambda logits, name: flipped(logits, anew.logits[name]))

    before, after = np.rint(right(kept, split)), np.rint(right(anew, split))
    there = pd.DataFrame([right(*other) for other in others], columns=range(len(n)), dtype=float)
    if all(kept.made[key] == anew.made[key] for key in ("code", "versions", "device")):
        tolerance = np.zeros_like(n)
        apart = np.array([changed(*other) for other in [(kept, split), *others]])
    else:
        share = (before + 1) / (n + 2)  # none or all right, of few images, is not without chance
        seeds = [_seedless(network.study) == _seedless(kept.study) for network, _ in others]
        of_seeds = there[np.array(seeds, dtype=bool)].std().fillna(0).to_numpy()
        deviation = np.maximum(np.sqrt(n * share * (1 - share)), of_seeds)
        tolerance = np.ceil(4 * np.sqrt(2) * deviation).astype(int)
        apart = np.abs(np.rint([before, *there.to_numpy()]) - after)
    agrees = apart <= tolerance
    passed = pd.DataFrame(agrees[1:], columns=there.columns, dtype=float).where(there.notna()).loc[:, n > 0]
    of = {"treatment": np.repeat(names, len(split.group_names)), "group": split.group_names * len(names)}
    counts = {"n": n, "kept": before.astype(int), "anew": after.astype(int), "tolerance": tolerance}
    table = pd.DataFrame(of | counts | {"agrees": agrees[0]})[n > 0].assign(wrong_passes=passed.mean())
    return table.assign(wrong_passes_all=passed.dropna().all(axis="columns").mean()).reset_index(drop=True)


def _seedless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _seedless(inner) for key, inner in value.items() if key not in _OF_A_SEED}
    return value


def _belonging(split: Split, network: LayerNetwork) -> Split:
    expected = (len(split.labels), len(split.label_names))
    shapes = {tuple(logits.shape) for logits in network.logits.values()}
    if split.key != network.split or shapes != {expected}:
        raise BadInput(
            f"{network.name} has logits of the shapes {sorted(shapes)} on the split {network.split[:16]}; "
            f"expected one treatment or more, each of {expected}, images by classes of the split "
            f"{split.key[:16]}: give the split that it was tested on."
        )
    return split


def _check(what: str, value: str, pattern: str, expected: str) -> None:
    if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
        raise BadInput(f"{what} is {value!r}; expected {expected}.")


def _plain(value: Any) -> dict[str, Any]:
    """The value as it will be read back from JSON."""
    try:
        return dict(json.loads(canonical(value)))
    except (TypeError, ValueError) as error:
        raise BadInput(f"{value!r} was given; expected names with values for JSON ({error}).") from None


def _path_in(value: Any) -> str | None:
    """A path of this machine that plain values hold: an absolute one, or any that is called a root."""
    if isinstance(value, Mapping):
        if value.get("root"):
            return str(value["root"])
        value = [*value, *value.values()]
    if isinstance(value, list):
        return next(filter(None, map(_path_in, value)), None)
    return value if isinstance(value, str) and re.match(r"/\w|~/|\\\\|[A-Za-z]:[\\/]", value) else None
