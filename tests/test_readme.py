"""What the README says of the project, against the project."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", ["mixedprec", "diagnose", "app"])
def test_every_room_is_in_the_map(package: str) -> None:
    """A line a folder; modules beside folders are named in the first line."""
    chapter = README.partition("## The code")[2].partition(f"\n{package}/")[2]
    lines = []
    for line in chapter.splitlines()[1:]:
        if not line.startswith("  "):
            break
        lines.append(line)
    folders = {
        path.parent.name
        for path in (ROOT / package).glob("*/__init__.py")
        if path.parent.name != "bundled"
    }
    assert {line.split()[0].rstrip("/") for line in lines if "/" in line.split()[0]} == folders
    beside = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    named = {
        name.rstrip(",") for line in lines for name in line.split()[:4] if "/" not in line[:12]
    }
    assert beside <= named
