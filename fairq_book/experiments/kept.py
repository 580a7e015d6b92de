"""Tidy tables that leave the store, each with a record of where its numbers come from."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairq_book.experiments import codes
from fairq_book.experiments import settings as experiments_settings
from fairq_book.experiments.code import code_files
from fairq_book.experiments.export import git, made_by, sha256_of_each
from fairq_book.experiments.settings import Declared
from fairq_book.experiments.store import Store
from fairq_book.kit.tables import Ends
from fairq_book.root import book_root
from fairq_utils.errors import BadInput
from fairq_utils.files import write_atomically

_RECORD = "provenance.json"
_DIGITS = "%.6g"  # of a number: more would say nothing, and take space


@dataclass(frozen=True, eq=False)
class Stored:
    """The tables of one setting as they were kept, and where they come from; `load` has checked them."""

    setting: Declared
    tables: dict[str, pd.DataFrame]
    provenance: dict[str, Any]
    folder: Path

    def __getitem__(self, name: str) -> pd.DataFrame:
        """The table of that name."""
        if name not in self.tables:
            raise BadInput(
                f"{self.setting.name} has no table {name!r}; expected one of: {', '.join(self.tables)}."
            )
        return self.tables[name]

    @property
    def title(self) -> str:
        """What the setting is called on a page."""
        return self.setting.title

    @property
    def seeds(self) -> int:
        """Of how many seeds the tables speak."""
        return len(self.provenance["seeds"])

    @property
    def networks(self) -> int:
        """Of how many networks: one a seed, but where a seed has a whole population."""
        return self.seeds * experiments_settings.of_each_seed(self.setting)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The groups, in the order that the data set gives them."""
        return tuple(self["groups"]["group"])

    @cached_property
    def ends(self) -> Ends:
        """The groups with the most and the fewest training images; of equal ones the first and the last."""
        sizes = dict(zip(self.groups, self["groups"]["train"], strict=True))
        largest, smallest = max(sizes, key=sizes.__getitem__), min(reversed(sizes), key=sizes.__getitem__)
        return Ends(largest, smallest, int(sizes[largest]), int(sizes[smallest]))

    @property
    def majority(self) -> str | None:
        """The group with the most training images; where all have as many, there is no majority."""
        return self.ends.largest if self.ends.most > self.ends.fewest else None


def settings(root: Path | None = None) -> dict[str, Declared]:
    """The settings that the book declares, by name.

    >>> settings()["utkface"].image_size
    64
    """
    return experiments_settings.declared((root or book_root()) / "book" / "settings.yml")


def results_folder(root: Path | None = None) -> Path:
    """Where the book keeps what was measured: a folder for each setting."""
    return (root or book_root()) / "book" / "results"


def find_setting(name: str, root: Path | None = None) -> Declared:
    """The setting of that name."""
    known = settings(root)
    if name not in known:
        raise BadInput(f"setting is {name!r}; expected one of: {', '.join(known)}.")
    return known[name]


def keep(setting: Declared, chosen: Sequence[Any], folder: Path, *, store: Store | None = None) -> list[Path]:
    """Write every table of the setting, and the record of where they come from, into `folder/NAME`.

    The code has to be committed: the record names the revision that made the tables.
    """
    revision, files = git("rev-parse", "HEAD"), _code_of_tables()
    if revision and (changed := _differing(files, revision)):
        raise BadInput(
            f"{', '.join(changed)} differ from revision {revision[:10]}; expected the committed code, so "
            "that the tables can name it: commit first."
        )
    made = experiments_settings.tables_of(setting, chosen, store=store)
    written = {
        f"{name}.csv": table.to_csv(index=False, lineterminator="\n", float_format=_DIGITS).encode()
        for name, table in made.items()
    }
    record = {
        "setting": _plain(asdict(setting)),
        "seeds": sorted({study.seed for study in chosen}),
        **experiments_settings.made_of(setting, chosen, store=store),
        "commands": [f"fairq {verb} {setting.name} --root PATH" for verb in ("sweep", "results write")],
        **made_by(),
        "git_revision": revision,
        "code": files,
        "tables": sha256_of_each(written),
    }
    own = folder / setting.name
    for stale in own.glob("*.csv") if own.is_dir() else []:
        if stale.name not in written:
            stale.unlink()
    written[_RECORD] = (json.dumps(record, indent=1) + "\n").encode()
    for name, content in written.items():
        write_atomically(own / name, content)
    return [own / name for name in written]


def load(name: str, *, root: Path | None = None) -> Stored:
    """The tables of a setting, if they are what their record says.

    Refused are tables that were changed by hand, that are of another declaration than book/settings.yml, or
    whose record names a revision that holds other code than it claims. Where git does not know the
    revision, as outside a checkout, the last cannot be asked.
    """
    setting, own = find_setting(name, root), results_folder(root) / name
    again = f"make it again: fairq results write {name} --root PATH"
    try:
        record = json.loads((own / _RECORD).read_text(encoding="utf-8"))
        claimed = {key: record[key] for key in ("setting", "seeds", "git_revision", "code", "tables")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{own} holds no record of its tables that can be read ({type(error).__name__}); expected "
            f"{_RECORD}: {again}."
        ) from None
    if stranger := _other_than_declared(setting, claimed["setting"]):
        raise BadInput(
            f"{own} was made for another {stranger} than book/settings.yml declares; expected the same: "
            f"{again}."
        )
    if claimed["git_revision"] and (changed := _differing(claimed["code"], claimed["git_revision"])):
        raise BadInput(
            f"{own} claims code of {', '.join(changed)} that revision {claimed['git_revision'][:10]} does "
            f"not hold; expected the code of the revision it names: {again}."
        )
    if strangers := set(claimed["seeds"]) - set(setting.seeds):
        raise BadInput(
            f"{own} is of the seeds {sorted(strangers)} too, which book/settings.yml does not declare; "
            f"expected some of {list(setting.seeds)}: {again}."
        )
    found = {}
    for file, digest in claimed["tables"].items():
        content = (own / file).read_bytes() if (own / file).is_file() else b""
        if hashlib.sha256(content).hexdigest() != digest:
            raise BadInput(
                f"{own / file} is not the table that its record speaks of; expected it as it was written: "
                f"{again}."
            )
        found[Path(file).stem] = pd.read_csv(io.BytesIO(content), keep_default_na=False, na_values=[""])
    return Stored(setting, found, record, own)


def stored(root: Path | None = None) -> dict[str, Stored]:
    """What the book keeps, by setting, in the order in which the settings are declared."""
    kept = [name for name in settings(root) if (results_folder(root) / name / _RECORD).exists()]
    return {name: load(name, root=root) for name in kept}


def _plain(value: Any) -> Any:
    """As it will be read back from JSON."""
    return json.loads(json.dumps(value))


def _other_than_declared(setting: Declared, claimed: Mapping[str, Any]) -> str:
    """The first field in which a record differs from the declaration; it may be of fewer seeds."""
    declared = _plain(asdict(setting))
    names = [field.name for field in fields(setting) if field.name not in ("title", "seeds")]
    differing = [name for name in names if claimed.get(name) != declared[name]]
    return differing[0] if differing else ""


def _code_of_tables() -> dict[str, str]:
    """Every module that has a part in the tables, by its path, with git's name for its content."""
    return _contents("fairq_book.experiments.settings")


def _code_of_numbers() -> dict[str, str]:
    """Those that decide what a network answers: they draw images, train and treat."""
    return _contents("fairq_utils.encoders.captions", *map(codes.module, codes.STAGES))


def _contents(*modules: str) -> dict[str, str]:
    paths = {path for module in modules for path in code_files(module).values()}
    root = Path(__file__).parents[1]
    return {path.relative_to(root).as_posix(): _blob(path.read_bytes()) for path in sorted(paths)}


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _differing(code: Mapping[str, str], revision: str) -> list[str]:
    """The modules that the revision holds otherwise, or not at all; none where git does not know it."""
    listed = git("ls-tree", "-r", revision, "fairq_utils")
    if not listed:
        return []
    known = {line.partition("\t")[2]: line.split()[2] for line in listed.splitlines()}
    return [path for path, blob in code.items() if known.get(path) != blob]


@dataclass(frozen=True)
class Check:
    """One number of a table, computed anew: how many images of a group one network names right."""

    setting: str
    seed: int
    treatment: str
    group: str
    n: int
    kept: int
    anew: int
    tolerance: int

    @property
    def agrees(self) -> bool:
        """Whether the two are as near as they should be."""
        return abs(self.kept - self.anew) <= self.tolerance

    def __str__(self) -> str:
        within = f"at most {self.tolerance} apart" if self.tolerance else "equal"
        return (
            f"{self.setting} seed {self.seed} {self.treatment} {self.group}: {self.kept} of {self.n} kept, "
            f"{self.anew} anew; expected {within}: {'agrees' if self.agrees else 'DIFFERS'}"
        )


def check_a_cell(
    kept: Stored, *, root: str = "", draw: int | None = None, store: Store | None = None
) -> Check:
    """Compute one number of `accuracy_by_seed`, drawn at random, from the images, and compare.

    Where the code, torch and the processor are those of the record, the two are to be equal. Elsewhere
    floats are rounded otherwise, training amplifies that, and a seed gives another network: then they may be
    as far apart as networks of two seeds, four standard deviations of such a difference.
    """
    table = kept["accuracy_by_seed"]
    table = table[table["n"] > 0]  # none of no images says nothing
    row = table.iloc[int(np.random.default_rng(draw).integers(len(table)))]
    anew, made = experiments_settings.counted_anew(kept.setting, row.to_dict(), root=root, store=store)
    if made["data_fingerprint"] != kept.provenance["data_fingerprint"]:
        raise BadInput(
            f"the images have the fingerprint {made['data_fingerprint'][:10]}; expected that of the record, "
            f"{kept.provenance['data_fingerprint'][:10]}: name the same data, whole and unchanged."
        )
    return Check(
        setting=kept.setting.name,
        seed=int(row["seed"]),
        treatment=" ".join(str(row[name]) for name in ("model", "treatment") if name in row),
        group=str(row["group"]),
        n=int(row["n"]),
        kept=int(row["correct"]),
        anew=anew,
        tolerance=0 if _same_place(kept.provenance, made["devices"]) else _as_other_seeds(table, row),
    )


def _same_place(record: Mapping[str, Any], devices: list[str]) -> bool:
    here, code = made_by(), _code_of_numbers()
    same = all(record["versions"][name] == here["versions"][name] for name in ("torch", "torchvision"))
    same = same and {path: record["code"].get(path) for path in code} == code
    return same and record["hardware"] == here["hardware"] and record["devices"] == devices


def _as_other_seeds(table: pd.DataFrame, row: pd.Series) -> int:
    alike = table[(table["treatment"] == row["treatment"]) & (table["group"] == row["group"])]
    share = np.clip(row["correct"] / row["n"], 1 / row["n"], 1 - 1 / row["n"])
    of_images = np.sqrt(row["n"] * share * (1 - share))
    of_seeds = alike["correct"].std(ddof=1) if len(alike) > 1 else 0.0
    return int(np.ceil(4 * np.sqrt(2) * max(of_images, of_seeds)))
