"""Run chapters: notebooks with typed parameters, executed once for each set of them."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import reprlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, get_args, get_origin

import filelock
import jupytext
import nbconvert
import nbformat
import papermill
import yaml
from jinja2 import DictLoader
from jupyter_client.manager import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError
from traitlets import default

from fairq_audit.formats import shown
from fairq_book.build import mathjax
from fairq_book.build.watching import Part
from fairq_book.experiments.code import PACKAGES, versions, without_words
from fairq_book.experiments.parameters import StudyParameters
from fairq_book.experiments.settings import find_setting
from fairq_book.kit.measured import MIME, Measured, from_output, of_chapters
from fairq_book.root import book_root
from fairq_utils.errors import BadInput, ChapterFailed
from fairq_utils.files import write_atomically
from fairq_utils.items import canonical

# What decides the look and the numbers of an executed chapter besides its cells and this package.
_VERSIONED = ("torch", "torchvision", "numpy", "pandas", "scipy", "matplotlib", "seaborn", "ipykernel")
# Holds the parameters of every chapter, as JSON, while Sphinx builds a book for them.
PARAMETERS_VARIABLE = "FAIRQ_PARAMETERS"
MEASURED = "fairq_measured"  # what a chapter measured, in the metadata of the executed notebook
_CELL_LIMIT_SECONDS = 3600  # a cell that takes longer hangs


@dataclass(frozen=True)
class Parameter:
    """A name that a chapter lets its reader set, with its type, default and a word of help."""

    name: str
    annotation: str
    default: Any
    help: str = ""

    def check(self, value: Any) -> Any:
        """The value, when it is of the parameter's type.

        >>> Parameter("bit_widths", "list[int]", [8]).check([6, 3])
        [6, 3]
        >>> Parameter("bit_widths", "list[int]", [8]).check(["x"])
        Traceback (most recent call last):
            ...
        fairq_utils.errors.BadInput: bit_widths is ['x']; expected list[int], such as [8].
        """
        if not _fits(value, eval(self.annotation, {"__builtins__": {}}, _TYPES)):
            # Not all of it: YAML writes a list of a thousand million in a line.
            given = shown(reprlib.repr(value), 100)
            raise BadInput(f"{self.name} is {given}; expected {self.annotation}, such as {self.default!r}.")
        return value


_TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list}


def _fits(value: Any, wanted: Any) -> bool:
    if get_origin(wanted) is list:
        return isinstance(value, list) and all(_fits(item, get_args(wanted)[0]) for item in value)
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))


@dataclass(frozen=True)
class Chapter:
    """A notebook pair: the .py is the truth, the .ipynb beside it is what papermill and Jupyter open."""

    source: Path

    @property
    def slug(self) -> str:
        """What files and pages are called."""
        return self.source.stem

    @property
    def notebook(self) -> Path:
        """The other half of the pair."""
        return self.source.with_suffix(".ipynb")

    @cached_property
    def cells(self) -> nbformat.NotebookNode:
        """The notebook as the .py says it is."""
        return _read_notebook(self.source)

    @property
    def title(self) -> str:
        """The first heading."""
        return re.findall(r"^# (.+)$", "\n".join(c.source for c in self.cells.cells), re.MULTILINE)[0]

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """The annotated assignments of the cell tagged `parameters`; the comment behind each is its help."""
        tagged = [cell for cell in self.cells.cells if "parameters" in cell.metadata.get("tags", [])]
        if len(tagged) != 1:
            raise BadInput(f"{self.source.name} has {len(tagged)} cells tagged parameters; expected one.")
        try:
            return dict(_declared(tagged[0].source))
        except (SyntaxError, ValueError) as error:
            raise BadInput(
                f"{self.source.name} has a cell of parameters that is no Python ({error}); expected lines "
                "such as seeds: list[int] = [0, 1]."
            ) from error

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values, when the chapter has such parameters and they are of the right types."""
        for name in values:
            if name not in self.parameters:
                raise BadInput(
                    f"{self.slug} has no parameter {name!r}; expected one of: {', '.join(self.parameters)}."
                )
        checked = {name: self.parameters[name].check(value) for name, value in values.items()}
        return self._filled(checked) if checked.get("setting") else checked

    def _filled(self, given: dict[str, Any]) -> dict[str, Any]:
        """The values, and those of a study that the setting says and nobody gave."""
        setting = find_setting(given["setting"])
        said = {one.name: getattr(setting, one.name) for one in fields(StudyParameters)}
        for name, value in given.items():
            if name in said and value == self.parameters[name].default != said[name]:
                raise BadInput(
                    f"{name} is {value!r}, which is the default and so counts as not given beside the "
                    f"setting {setting.name}; expected another value, or no setting and all parameters."
                )
        fills = {name: value for name, value in said.items() if name in self.parameters and name != "root"}
        return fills | given

    def key(self, values: Mapping[str, Any]) -> str:
        """Digest of everything that decides what the executed chapter shows."""
        decided_by = {
            "cells": [(cell.cell_type, cell.source, cell.metadata) for cell in self.cells.cells],
            "values": dict(values),
            "library": library_digest(),
            "results": results_digest(self.source.parents[1]),
            "versions": versions(*_VERSIONED),
            "python": sys.version,
        }
        return hashlib.sha256(canonical(decided_by).encode()).hexdigest()[:16]


def _declared(source: str) -> Iterator[tuple[str, Parameter]]:
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            name, annotation = node.target.id, ast.unparse(node.annotation)
            note = lines[node.end_lineno - 1][node.end_col_offset :].strip(" #") if node.end_lineno else ""
            yield name, Parameter(name, annotation, ast.literal_eval(node.value), note)


def chapters(root: Path | None = None) -> list[Chapter]:
    """The chapters of the book, in order.

    >>> chapters()[0].slug
    '01_disparity_baseline'
    """
    return [
        Chapter(source) for source in sorted(((root or book_root()) / "notebooks").glob("[0-9][0-9]_*.py"))
    ]


def find(name: str, root: Path | None = None) -> Chapter:
    """The chapter of that number or slug, or at that path.

    >>> find("01") == find("01_disparity_baseline") == find("notebooks/01_disparity_baseline.ipynb")
    True
    """
    known = chapters(root)
    wanted = Path(name).stem
    for chapter in known:
        if wanted in (chapter.slug, chapter.slug[:2]):
            return chapter
    raise BadInput(f"chapter is {name!r}; expected one of: {', '.join(c.slug for c in known)}.")


def library_digest() -> str:
    """Digest of all code and strings of the three packages: after an edit of any, a chapter runs again.

    Comments and docstrings do not count, and what is no code (a template, a script of a widget) counts whole.
    """
    root, digest = Path(__file__).parents[2], hashlib.sha256()
    for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
            content = path.read_bytes()
            digest.update(without_words(content.decode()).encode() if path.suffix == ".py" else content)
    return digest.hexdigest()


def results_digest(root: Path) -> str:
    """Digest of what was measured before and lies in the book, with which chapters end."""
    return _digest(
        root,
        "book/settings.yml",
        "book/audits/*",
        "book/earlier/*/provenance.json",
        "book/results/**/*",
        "book/measured/*",
    )


def pages_key(root: Path, values: Mapping[str, Mapping[str, Any]]) -> str:
    """A key of all that the pages of a book are made of, once its chapters are executed with these values.

    Unlike that of a chapter it counts every comment and docstring, for the reference is made of them.
    """
    decided_by = {
        "executed": [executed_path(chapter, values[chapter.slug]).name for chapter in chapters(root)],
        "sources": _digest(root, "_*.yml", "requirements.txt", "README.md", "LICENSE", "book/**/*"),
        "packages": [_digest(Path(__file__).parents[2], f"{package}/**/*") for package in PACKAGES],
        "python": sys.version,
    }
    return hashlib.sha256(canonical(decided_by).encode()).hexdigest()


def _digest(root: Path, *places: str) -> str:
    """Digest of the files at these places, with their names."""
    digest = hashlib.sha256()
    for path in sorted({path for place in places for path in root.glob(place)}):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def executed_path(chapter: Chapter, values: Mapping[str, Any]) -> Path:
    """Where the chapter, once executed with these values, is kept; another key is another file."""
    folder = chapter.source.parents[1] / "_build" / "executed"
    return folder / f"{chapter.slug}-{chapter.key(_overrides(chapter, values))}.ipynb"


def execute(chapter: Chapter, values: Mapping[str, Any], part: Part | None = None) -> Path:
    """Run the chapter with these values, unless it has been; the path of what it became.

    As a part of a build its kernel says to that how far it is; by itself, to whoever is at the terminal.
    """
    path = executed_path(chapter, values)
    if path.exists():
        return path
    overrides = _overrides(chapter, values)
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_suffix(".lock")):
        if not path.exists():
            notebook = _run(chapter, overrides, part)
            write_atomically(path, nbformat.writes(_portable(notebook)).encode())
    return path


def _overrides(chapter: Chapter, values: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the chapter's defaults: a page of defaults shows no second cell of parameters."""
    checked = chapter.check(values)
    return {name: value for name, value in checked.items() if value != chapter.parameters[name].default}


def _run(chapter: Chapter, values: dict[str, Any], part: Part | None) -> nbformat.NotebookNode:
    watched = sys.stderr.isatty()
    environment = part.environment if part else {"FAIRQ_PROGRESS": str(int(watched))} | os.environ
    with tempfile.TemporaryDirectory(prefix="fairq-") as folder:
        unrun = Path(folder) / chapter.notebook.name
        nbformat.write(chapter.cells, unrun)
        try:
            return papermill.execute_notebook(
                str(unrun),
                None,
                parameters=values,
                progress_bar=watched and not part,
                log_output=False,
                stderr_file=part or sys.stderr,
                execution_timeout=_CELL_LIMIT_SECONDS,
                kernel_manager_class=_kernel_in(folder, chapter.source.parents[1], environment, part),
                extra_arguments=["--log-level=50"],  # what goes wrong in a cell arrives as an exception
            )
        except PapermillExecutionError as error:
            if error.ename == BadInput.__name__:
                raise BadInput(error.evalue) from None
            raise ChapterFailed(f"{chapter.slug} failed in cell {error.exec_count}:\n{error}") from None


def _kernel_in(
    folder: str, root: Path, environment: dict[str, str], part: Part | None
) -> type[AsyncKernelManager]:
    """A kernel that works in `root`, where papermill by itself would take this whole process.

    It talks through files in the folder: over TCP, kernels that are started side by side fight over ports.
    """

    class Kernel(AsyncKernelManager):
        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override] # both are awaited
            await self._async_start_kernel(cwd=str(root), env=environment, **options)
            if part and self.provisioner:
                part.started(self.provisioner.pid)  # type: ignore[attr-defined] # it is a local process

        @default("transport")
        def _files(self) -> str:
            return "ipc"

        @default("ip")
        def _folder(self) -> str:
            return f"{folder}/kernel"

    return Kernel


def _portable(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without papermill's notes of times and paths, progress bars, and widgets that would need a kernel.

    What the chapter measured goes from its output, where Sphinx would not know what to do with it, to the
    notebook's metadata.
    """
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for data in (output.get("data", {}) for output in cell.outputs):
                if MIME in data:
                    notebook.metadata[MEASURED] = data.pop(MIME)
                if "text/html" in data:
                    data.pop("application/vnd.jupyter.widget-view+json", None)
    return notebook


def as_page(executed: Path) -> str:
    """The executed notebook as one HTML page that needs no other file and no network."""
    notebook = nbformat.reads(executed.read_text(), as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _alone(cell.source)
    exporter = nbconvert.HTMLExporter(
        extra_loaders=[DictLoader({"offline.html.j2": _OFFLINE})], template_file="offline.html.j2"
    )
    about = {"metadata": {"name": executed.stem}, "mathjax": mathjax.program("tex-svg.js").decode()}
    page, _ = exporter.from_notebook_node(notebook, about)
    return str(page)


# nbconvert's own page, without what it would fetch: two programs that nothing here needs, and MathJax.
_OFFLINE = r"""{%- extends "lab/index.html.j2" -%}
{%- block html_head_js_requirejs -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}
<script>MathJax = {tex: {inlineMath: [["$", "$"], ["\\(", "\\)"]]}, options: {enableMenu: false}};</script>
<script>{{ resources.mathjax }}</script>
{%- endblock -%}
"""


# What leads elsewhere in the book, and what is left of it on a page that stands alone.
_LEFT_ALONE = (
    (r" ?\{(?:cite|eq)\}`[^`]+`", ""),
    (r"\{term\}`([^`<]+?)(?: <[^`>]+>)?`", r"\1"),
    (r"\[([^\]]+)\]\(#[^)]+\)", r"\1"),
    (r"(?<=\$\$) \([a-z-]+\)$", ""),
    (r"^:::\{margin\} (.+)\n((?:.+\n)+):::$", r"> **\1.** \2"),
)


def _alone(text: str) -> str:
    """Markdown without what only the whole book resolves: citations, words, formulas, margins.

    >>> _alone("The {term}`ranges <MSE range>` of {cite}`bellam2025`, by {eq}`rounding`.")
    'The ranges of, by.'
    """
    for pattern, instead in _LEFT_ALONE:
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    return text


def measured_by(chosen: Mapping[str, Mapping[str, Any]]) -> Measured | None:
    """What the chapters measured, executed with these parameters, for the page that holds claims against it.

    None where no chapter leaves anything.
    """
    parts: dict[str, Measured] = {}
    for chapter in chapters():
        executed = nbformat.read(execute(chapter, chosen.get(chapter.slug, {})), as_version=4)
        if MEASURED in executed.metadata:
            parts[chapter.slug] = from_output(executed.metadata[MEASURED])
    return of_chapters(parts) if parts else None


def load_profile(profile: str, root: Path | None = None) -> dict[str, dict[str, Any]]:
    """Parameters of every chapter, by slug, from book/profiles or a file of the same form."""
    folder = (root or book_root()) / "book" / "profiles"
    path = Path(profile) if profile.endswith((".yml", ".yaml")) else folder / f"{profile}.yml"
    if not path.exists():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yml")))
        raise BadInput(f"profile is {profile!r}; expected one of: {known}, or the path of a .yml file.")
    values = yaml.safe_load(path.read_text()) or {}
    return {slug: find(slug, root).check(given or {}) for slug, given in values.items()}


def sync(chapter: Chapter, *, check: bool = False) -> list[Path]:
    """Bring the pair in step, without outputs; the files that were, or with `check` would be, written.

    The half that was edited since both were last in step wins, whatever the times of the files say: a clock
    may be wrong, and a copy is younger than what it was made of. Where both were, or nobody knows, the one
    saved last wins, of two saved at once the .py; what the other held is then kept under `_build/replaced`,
    and stands among the files that were written.
    """
    source, notebook = chapter.source, chapter.notebook
    truth, kept = _read_notebook(source), None
    if notebook.exists():
        edited = _read_notebook(notebook)
        edited.metadata["jupytext"] = truth.metadata.get("jupytext", {})
        halves = {source: _as_python(truth), notebook: _as_python(edited)}
        if halves[source] != halves[notebook]:
            known = _in_step(chapter).read_text() if _in_step(chapter).exists() else None
            changed = [path for path, text in halves.items() if _sha256(text) != known]
            later = max(halves, key=lambda path: path.stat().st_mtime)  # of equals the first
            winner = changed[0] if len(changed) == 1 else later
            if len(changed) > 1:
                kept = notebook if winner == source else source
            truth = truth if winner == source else edited
    for number, cell in enumerate(truth.cells):
        cell.id = f"cell-{number}"  # the .py holds none, and random ones would change with every sync
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    wanted = {source: _as_python(truth), notebook: jupytext.writes(truth, fmt="ipynb") + "\n"}
    written = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if check:
        return written
    if kept:
        content = kept.read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:8]
        copy = _build_folder(chapter) / "replaced" / f"{kept.stem}-{digest}{kept.suffix}"
        write_atomically(copy, content)
        written.append(copy)
    for path, text in wanted.items():
        if path in written:
            write_atomically(path, text.encode())
    write_atomically(_in_step(chapter), _sha256(wanted[source]).encode())
    return written


def _read_notebook(path: Path) -> nbformat.NotebookNode:
    try:
        found = jupytext.read(path)
        nbformat.validate(found)
    except Exception as error:  # of what is no notebook, readers raise nearly anything
        said = shown(str(error), 80) or type(error).__name__
        raise BadInput(
            f"{path.name} cannot be read as a notebook ({said}); expected one half of a chapter: mend it, or "
            "delete the .ipynb, which `fairq sync` writes anew."
        ) from error
    return found


def _as_python(notebook: nbformat.NotebookNode) -> str:
    return str(jupytext.writes(notebook, fmt="py:percent"))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _build_folder(chapter: Chapter) -> Path:
    return chapter.source.parents[1] / "_build"


def _in_step(chapter: Chapter) -> Path:
    """Where it is written what the halves were when they were last in step."""
    return _build_folder(chapter) / "in_step" / f"{chapter.slug}.sha256"
