"""The order of the packages: a module imports what stands below it in this list, and nothing that stands above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ORDER = (
    "ditzoo.__main__",
    "ditzoo.cli",
    "ditzoo.ui",
    "ditzoo.evaluation",
    "ditzoo.scale",
    "ditzoo.model",
    "ditzoo_export",
    "ditzoo.recipes",
    "ditzoo.measure",
    "ditzoo.pictures",
    "ditzoo.sampling",
    "ditzoo.backends",
    "ditzoo.model_names",
    "ditzoo.cache",
    "ditzoo.archives",
    "ditzoo.bundle",
    "ditzoo.bundle_checks",
    "ditzoo.plan",
    "ditzoo.solvers",
    "ditzoo.weights",
    "ditzoo.hub",
    "ditzoo.checkpoint",
    "ditzoo.families",
    "ditzoo.nets",
    "ditzoo.zoo",
    "ditzoo.manifests",
    "ditzoo.digests",
    "ditzoo.choices",
    "ditzoo.locks",
    "ditzoo.arrays",
    "ditzoo.specs",
    "ditzoo.records",
    "ditzoo.folders",
    "ditzoo.files",
    "ditzoo.progress",
    "ditzoo.tasks",
    "ditzoo.distributions",
    "ditzoo.ranges",
    "ditzoo.errors",
    "ditzoo",
)
"""From top to bottom. `ditzoo` itself only says where each public name is; below, it is asked for its version."""


def modules() -> dict[str, Path]:
    """Every module of both packages, by its dotted name."""
    found = {}
    for source, package in ((ROOT, "ditzoo"), (ROOT / "export", "ditzoo_export")):
        for path in (source / package).rglob("*.py"):
            parts = path.relative_to(source).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """The modules of ours that a module imports anywhere in it: at its head, in its functions, and for types alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in ("ditzoo", "ditzoo_export"))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("ditzoo", "ditzoo_export"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def floor(module: str) -> int:
    """The place of a module in the order."""
    return next(i for i, package in enumerate(ORDER) if f"{module}.".startswith(f"{package}."))


@pytest.mark.parametrize("module", [name for name in MODULES if name != "ditzoo"])
def test_nothing_is_imported_from_above(module: str) -> None:
    upward = [name for name in imports(MODULES[module]) if floor(name) < floor(module)]
    assert not upward


def test_no_imports_run_in_a_circle() -> None:
    graph = {name: set(imports(path)) - {name} for name, path in MODULES.items() if name != "ditzoo"}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", MODULES)
def test_private_names_stay_in_their_module(module: str) -> None:
    """No module imports a name with a leading underscore from another one, nor reads one off an imported module."""
    tree = ast.parse(MODULES[module].read_text())
    imported, private = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("ditzoo", "ditzoo_export"):
            private += [alias.name for alias in node.names if is_private(alias.name)]
            imported |= {alias.asname or alias.name for alias in node.names if f"{node.module}.{alias.name}" in MODULES}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
            private += [f"{node.value.id}.{node.attr}"] if is_private(node.attr) else []
    assert not private


def is_private(name: str) -> bool:
    """Whether a name is its module's own; `__version__` and the like are not."""
    return name.startswith("_") and not name.startswith("__")


def test_recipes_import_neither_tests_nor_the_command_line() -> None:
    helpers = {path.stem for path in (ROOT / "tests").rglob("*.py")}
    for path in (ROOT / "recipes").rglob("*.py"):
        names = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        names |= {
            alias.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import) for alias in node.names
        }
        wrong = [
            name for name in names if name and (name.startswith("ditzoo.cli") or name.split(".")[0] in {"tests", *helpers})
        ]
        assert not wrong, f"{path} imports {wrong}"
