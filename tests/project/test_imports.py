"""Imports go one way, app -> diagnose -> mixedprec, and one module alone imports autoawq."""

import ast
import graphlib
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.help.root import ROOT

FORBIDDEN = {"mixedprec": {"diagnose", "app"}, "diagnose": {"app"}, "app": set()}


def imported(path: Path) -> set[str]:
    """Top-level packages that a module imports, at any depth of its code; of ours, which folder."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name_package(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(name_package(node.module))
    return found


def name_package(module: str) -> str:
    """The package of a module; of ours, its folder in the repository."""
    return module.removeprefix("awqscope.").split(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package: str) -> None:
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    for path in modules:
        backwards = imported(path) & (FORBIDDEN[package] | {"awqscope", "examples", "tests"})
        assert not backwards, f"{path} imports {backwards}"


def test_runs_are_read_without_torch() -> None:
    """What shows a run must start at once: it reads the run directory, and imports no torch."""
    shown = ("terminal.run", "report.page", "dashboard.sections.gate.card")
    modules = ", ".join(f"awqscope.app.{name}" for name in shown)
    program = f"import awqscope, {modules}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def name_module(path: Path) -> str:
    """What a file is imported as."""
    parts = ("awqscope", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def imported_anywhere(path: Path) -> set[str]:
    """This project's modules that a module imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def imported_first(path: Path) -> set[str]:
    """This project's modules that a module imports before anything in it can be used."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


def test_no_module_needs_itself() -> None:
    """Modules that import each other in a circle work or not by who comes first."""
    paths = [path for package in FORBIDDEN for path in (ROOT / package).rglob("*.py")]
    needs = {name_module(p): imported_first(p) for p in paths}
    graph = {name: (found & needs.keys()) - {name} for name, found in needs.items()}
    assert len(graph) > 100 and any(graph.values())
    graphlib.TopologicalSorter(graph).prepare()


def find_room(module: str, packages: set[str]) -> str:
    """The folder of a module; the module itself where it lies beside folders."""
    folder = module if module in packages else module.rpartition(".")[0]
    beside = any(other.rpartition(".")[0] == folder for other in packages)
    return module if beside else folder


def test_rooms_have_an_order() -> None:
    """Whoever reads a room has read those that it takes from: no two need each other."""
    paths = [path for package in FORBIDDEN for path in (ROOT / package).rglob("*.py")]
    modules = {name_module(path): path for path in paths}
    packages = {name for name, path in modules.items() if path.name == "__init__.py"}
    assert len(packages) > 20
    edges: dict[str, dict[str, str]] = {}
    for name, path in modules.items():
        room = find_room(name, packages)
        for needed in imported_anywhere(path) & modules.keys():
            if find_room(needed, packages) != room:
                edges.setdefault(room, {})[find_room(needed, packages)] = f"{name} -> {needed}"
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        rooms = error.args[1]
        circle = [edges[a][b] for b, a in itertools.pairwise(rooms) if b in edges.get(a, {})]
        raise AssertionError(f"these rooms need each other: {circle}") from None


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_room_can_be_taken_in(package: str) -> None:
    """Few enough files to be seen at once; the commands are one each."""
    for folder in (ROOT / package).rglob("*"):
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= (18 if folder.name == "commands" else 11), folder


def names_of(path: Path) -> set[str]:
    """What a module imports by name, wherever it is from."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {name.name for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names}


def test_headers_have_one_reader() -> None:
    """Of a model's files by its catalogue, of a run's arrays where they are unsealed: everybody
    else asks those. The store shows one array of a run's many."""
    readers = {"read_header": {"catalogue.py", "sealed.py"}, "safe_open": {"store.py"}}
    for name, expected in readers.items():
        paths = [p for package in FORBIDDEN for p in (ROOT / package).rglob("*.py")]
        assert {path.name for path in paths if name in names_of(path)} == expected
    libraries = ("load_file", "struct", "parse_header")
    assert not [p for p in paths if any(name in names_of(p) for name in libraries)]


def test_only_one_module_imports_autoawq() -> None:
    users = [p.name for f in FORBIDDEN for p in (ROOT / f).rglob("*.py") if "awq" in imported(p)]
    assert users == ["autoawq.py"]
