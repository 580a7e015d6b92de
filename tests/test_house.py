"""The walls of the house that no linter holds."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("fairq_utils", "fairq_audit", "fairq_book")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NAMES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in MODULES
}
MOST_LINES = 600  # that a stranger can hold in mind


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names_of_others(tree: ast.Module) -> list[str]:
    """Private names that a module takes from another of ours, or from an object that is not its own."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    own |= {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("self", "cls")
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGES):
            found += [f"{node.module}.{alias.name}" for alias in node.names if is_private(alias.name)]
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            found.append(ast.unparse(node))
    return found


# Of torch, which has no public way to say the same.
FOREIGN = {
    "conv._conv_forward",
    "module._qkv_same_embed_dim",
    "nn.modules.batchnorm._BatchNorm",
    "nn.modules.conv._ConvNd",
}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_name_crosses_a_module(path):
    assert not set(private_names_of_others(ast.parse(path.read_text()))) - FOREIGN


def test_what_would_cross_is_seen():
    source = "from fairq_utils.files import _write\nstore._read(1)\nself._mine = 1\nother._mine"
    assert private_names_of_others(ast.parse(source)) == ["fairq_utils.files._write", "store._read"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_name_is_taken_from_the_module_that_defines_it(path):
    """Never from a folder's index: so what a module reaches is what it uses."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module in NAMES and path.name != "__init__.py":
            taken = {alias.name for alias in node.names if f"{node.module}.{alias.name}" not in NAMES}
            assert not taken or NAMES[node.module].name != "__init__.py" or node.module == "fairq_utils"
            tree = ast.parse(NAMES[node.module].read_text())
            imported = {
                alias.asname or alias.name
                for statement in tree.body
                if isinstance(statement, ast.Import | ast.ImportFrom)
                for alias in statement.names
            }
            assert not taken & imported, f"{taken & imported} of {node.module}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_can_be_held_in_mind(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize(
    "index",
    [path for path in MODULES if path.name == "__init__.py" and "__all__" in path.read_text()],
    ids=lambda path: str(path.parent.relative_to(ROOT)),
)
def test_an_index_lists_what_it_takes_from_its_own_modules_and_no_more(index):
    tree = ast.parse(index.read_text())
    folder = ".".join(index.parent.relative_to(ROOT).parts)
    # What is slow to import stands under `if TYPE_CHECKING`, and is fetched once it is asked for.
    statements = [one for node in tree.body for one in (node.body if isinstance(node, ast.If) else [node])]
    taken = {
        alias.name: node.module
        for node in statements
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGES)
        for alias in node.names
    }
    (listed,) = [node for node in tree.body if isinstance(node, ast.Assign)]
    names = ast.literal_eval(listed.value)
    assert set(names) == taken.keys()
    for name, module in taken.items():
        assert module.startswith(f"{folder}.")
        defined = {
            getattr(node, "name", None)
            or ast.unparse(getattr(node, "targets", [getattr(node, "target", node)])[0])
            for node in ast.parse(NAMES[module].read_text()).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign)
        }
        assert name in defined


def test_every_module_is_on_one_page_of_the_book():
    pages = (ROOT / "book" / "api").glob("*.md")
    shown = [name for page in pages for name in re.findall(r"automodule:: (\S+)", page.read_text())]
    modules = {name for name, path in NAMES.items() if path.stem not in ("__init__", "__main__")}
    assert sorted(shown) == sorted(modules)
