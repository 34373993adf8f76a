"""Imports go one way, app -> diagnose -> mixedprec, and one module alone imports autoawq."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {"mixedprec": {"diagnose", "app"}, "diagnose": {"app"}, "app": set()}


def imported(path: Path) -> set[str]:
    """Top-level packages that a module imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package: str) -> None:
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    for path in modules:
        backwards = imported(path) & (FORBIDDEN[package] | {"examples", "tests"})
        assert not backwards, f"{path} imports {backwards}"


def test_runs_are_read_without_torch() -> None:
    """What shows a run must start at once: it reads the run directory, and imports no torch."""
    modules = "mixedprec, diagnose, app.show, app.report.page, app.pages.gate_card"
    program = f"import {modules}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


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
    needs = {".".join(p.relative_to(ROOT).with_suffix("").parts): imported_first(p) for p in paths}
    graph = {module: found & needs.keys() for module, found in needs.items()}
    assert len(graph) > 100 and any(graph.values())
    graphlib.TopologicalSorter(graph).prepare()


def test_only_one_module_imports_autoawq() -> None:
    users = [p.name for f in FORBIDDEN for p in (ROOT / f).rglob("*.py") if "awq" in imported(p)]
    assert users == ["autoawq.py"]
