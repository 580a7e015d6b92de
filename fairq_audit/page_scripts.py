"""The scripts of the widgets: modules in folders, joined into one text for a notebook and for a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

SCRIPTS = Path(__file__).parent / "scripts"
_STARTER = SCRIPTS / "page.js"  # finds the widgets of a page and calls them

# Modules import and export in these forms alone, so that no parser is needed to join them.
_IMPORT = re.compile(r'^import \{ ([\w, ]+) \} from "(\.[^"]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:function\*?|const) (\w+))", re.MULTILINE)
_WIDGET = "export default { render };"
_OTHERWISE = re.compile(r"^(?:import|export)\b.*|\bimport\(.*", re.MULTILINE)


def widget_kinds() -> list[str]:
    """What the widgets are called: each has a script of that name, with a folder of modules beside it."""
    return sorted(path.stem for path in SCRIPTS.glob("*.js") if path != _STARTER)


def joined(script: Path) -> str:
    """The script and all that it imports, as one module that imports nothing.

    A notebook takes a widget as one text, and a page that was opened as a file may load no modules. Each
    module that is imported becomes a function that returns what the module exports, so that all other names
    in it stay its own.
    """
    *modules, widget = dict.fromkeys(_needed(script.resolve(), ()))
    return "".join(["const fairqModules = {};\n", *map(_as_function, modules), _plain(widget)])


def page_script(*kinds: str) -> str:
    """What a published page runs: the scripts of these widgets, and what starts each where it stands."""
    scripts = {kind: joined(SCRIPTS / f"{kind}.js").replace(_WIDGET, "return { render };") for kind in kinds}
    widgets = "".join(f'  "{kind}": (() => {{\n{script}}})(),\n' for kind, script in scripts.items())
    return f"window.fairqWidgets = {{\n{widgets}}};\n{_STARTER.read_text(encoding='utf-8')}"


def _needed(module: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """All that the module imports, also by way of others, and then the module itself."""
    if module in above:
        raise ValueError(f"{module.name} imports itself, by way of {above[-1].name}.")
    for _, path in _IMPORT.findall(module.read_text(encoding="utf-8")):
        yield from _needed((module.parent / path).resolve(), (*above, module))
    yield module


def _as_function(module: Path) -> str:
    return (
        f"{_name(module)} = (() => {{\n{_plain(module)}return {{ {', '.join(_exports(module))} }};\n}})();\n"
    )


def _name(module: Path) -> str:
    return f'fairqModules["{module.parent.name}/{module.name}"]'


def _exports(module: Path) -> list[str]:
    return _EXPORT.findall(module.read_text(encoding="utf-8"))


def _plain(module: Path) -> str:
    """What the module says, without `import` and `export`."""

    def taken(line: re.Match[str]) -> str:
        names, other = line[1], (module.parent / line[2]).resolve()
        if unknown := set(names.split(", ")) - set(_exports(other)):
            raise ValueError(
                f"{module.name} imports {', '.join(sorted(unknown))}, which {other.name} does not export."
            )
        return f"const {{ {names} }} = {_name(other)};"

    text = _EXPORT.sub("", _IMPORT.sub(taken, module.read_text(encoding="utf-8")))
    if otherwise := _OTHERWISE.search(text.replace(_WIDGET, "")):
        raise ValueError(f"{module.name} says {otherwise[0]!r}, which is in no form that can be joined.")
    return text
