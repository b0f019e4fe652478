"""Imports go down only: the public modules, _api, _engine, _core; no circles. What is below the public modules is private."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from building import ROOT

PACKAGE = ROOT / "fastrnn"
LEVELS = ("fastrnn._core", "fastrnn._engine", "fastrnn._api", "fastrnn")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py")} | {"fastrnn._core": PACKAGE / "_core.pyi"}


def imports(name: str, path: Path) -> set[str]:
    """The modules of the package that this one imports when it is imported itself."""
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    found = set()
    for node in at_import(ast.parse(path.read_text()).body):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join(package[: len(package) - node.level + 1] + ([node.module] if node.module else []))
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names}
    return found - {name}


def at_import(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements that run at import: not those of functions, nor what type checkers alone see."""
    found = []
    for node in body:
        found.append(node)
        if isinstance(node, ast.Try) or (isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test)):
            found += at_import(node.body)
    return found


GRAPH = {name: imports(name, path) for name, path in MODULES.items() if path.suffix == ".py"}


def level(name: str) -> int:
    return next(i for i, prefix in enumerate(LEVELS) if name == prefix or name.startswith(f"{prefix}."))


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_imports_go_down_only(name):
    assert [other for other in sorted(GRAPH[name]) if level(other) > level(name)] == []


def test_there_is_no_circle_of_imports():
    list(TopologicalSorter(GRAPH).static_order())  # CycleError names the modules


def test_csrc_names_no_dtype_in_its_functions():
    """A file per instruction set and dtype is their namespace."""
    texts = {path: path.read_text() for path in (ROOT / "csrc").rglob("*.[ch]")}
    assert len(texts) > 20
    assert [path.name for path, text in texts.items() if "NAME(" in text] == []
