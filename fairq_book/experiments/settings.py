"""Settings: studies that are declared under a name, with what is done to their networks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from fairq_book.experiments.parameters import StudyParameters
from fairq_book.experiments.studies import Study, studies
from fairq_book.root import book_root
from fairq_utils.errors import BadInput
from fairq_utils.treatments.ablations import Ablation, parse_name
from fairq_utils.treatments.treatment import Treatment


def studies_of(setting: str = "", **parameters: Any) -> list[Study]:
    """The study of each seed, from the plain values that a notebook or a command gives.

    A `setting` fills what has its default here, and what is given beside it overrules.

    >>> [study.name for study in studies_of("utkface_small", root="faces.zip", seeds=[901])]
    ['utkface-resnet18-16-64px-seed901']
    """
    return studies(**filled(setting, parameters))


def filled(setting: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, and where one of a study has its default, what the setting says of it."""
    if not setting:
        return dict(parameters)
    usual = {one.name: one.default for one in fields(StudyParameters)}
    declared_there = find_setting(setting)
    fills = {name: getattr(declared_there, name) for name in usual}
    given = {
        name: value
        for name, value in parameters.items()
        if name not in usual or _plain(value) != _plain(usual[name])
    }
    return fills | given


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


@dataclass(frozen=True, kw_only=True)
class Setting(StudyParameters):
    """Studies under one name, and what is done to each network: every width in every one of the `ways`.

    What is done `also` is named one by one, or several at once in braces. `part` is what the networks are
    asked about: the images for the test, or those for tuning where something is to be chosen. With
    `images_per_group` it is the gradients of each network that are measured, on so many images of each group,
    and not what it answers.

    >>> few = Setting(name="few", title="Few", bit_widths=[8, 3], ways=["", "mse-bn"])
    >>> [treatment.name for treatment in few.treatments()]
    ['fp32', 'int8', 'int3', 'int8-mse-bn', 'int3-mse-bn']
    >>> few = Setting(name="few", title="Few", bit_widths=[8], also=["int{4,3}-zeros"])
    >>> [treatment.name for treatment in few.treatments()]
    ['fp32', 'int8', 'int4-zeros', 'int3-zeros']
    """

    name: str
    title: str
    bit_widths: Sequence[int] = (8, 6, 5, 4, 3, 2)
    ways: Sequence[str] = ("",)
    also: Sequence[str] = ()
    images_per_group: int = 0
    part: str = "test"

    def __post_init__(self) -> None:
        if self.part not in ("test", "tuning"):
            raise BadInput(f"part of {self.name} is {self.part!r}; expected test or tuning.")

    def treatments(self) -> list[Treatment | Ablation]:
        """Full precision, and then every width in every way, and what is done `also`."""
        names = [f"int{bits}{'-' * bool(way)}{way}" for way in self.ways for bits in self.bit_widths]
        more = [name for pattern in self.also for name in spelled_out(pattern)]
        return list(dict.fromkeys(parse_name(name) for name in ["fp32", *names, *more]))


def spelled_out(pattern: str) -> list[str]:
    """The names that a pattern with alternatives in braces stands for.

    >>> spelled_out("int{4,3}{,-bn}")
    ['int4', 'int4-bn', 'int3', 'int3-bn']
    """
    parts = re.split(r"\{([^{}]*)\}", pattern)
    choices = [part.split(",") if place % 2 else [part] for place, part in enumerate(parts)]
    return ["".join(chosen) for chosen in product(*choices)]


def settings(root: Path | None = None) -> dict[str, Setting]:
    """The settings that book/settings.yml declares, by name.

    >>> settings()["utkface_small"].image_size
    64
    """
    return declared((root or book_root()) / "book" / "settings.yml")


def find_setting(name: str, root: Path | None = None) -> Setting:
    """The setting of that name."""
    known = settings(root)
    if name not in known:
        raise BadInput(f"setting is {name!r}; expected one of: {', '.join(known)}.")
    return known[name]


@cache  # chapters ask for one setting after the other, and YAML is read slowly
def _parsed(text: str) -> Any:
    return yaml.safe_load(text)


def declared(file: Path) -> dict[str, Setting]:
    """The settings that a file declares, by name, in its order: for each a block of fields of `Setting`."""
    try:
        blocks = _parsed(file.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())  # of YAML's several lines one sentence
        raise BadInput(f"{file} cannot be read ({said}); expected settings in YAML.") from error
    if not isinstance(blocks, dict):
        raise BadInput(f"{file} holds no blocks with names; expected settings in YAML.")
    known = [one.name for one in fields(Setting) if one.name not in ("name", "root")]
    needed = {one.name for one in fields(Setting) if one.default is MISSING} - {"name"}
    found = {}
    for name, block in blocks.items():
        if not isinstance(block, dict) or (unknown := set(block) - set(known)):
            stranger = repr(sorted(unknown)[0]) if isinstance(block, dict) else repr(block)
            raise BadInput(f"{file.name} says {stranger} of {name}; expected some of: {', '.join(known)}.")
        if missing := needed - set(block):
            raise BadInput(f"{file.name} says no {sorted(missing)[0]} of {name}; expected one.")
        found[name] = Setting(name=name, **block)
    return found
