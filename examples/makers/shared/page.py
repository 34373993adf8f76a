"""The page that two commands write, each a part of it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

TITLE = "# Checkpoints as their makers write them"
SECOND = "## Recipes carried out by other tools"


def change_page(page: str, part: str) -> str:
    """The page with a part put in the place of the one of the same heading, the other one as it
    was. part: begins with its heading, TITLE or SECOND."""
    first, heading, second = page.partition(f"{SECOND}\n")
    parts = {TITLE: first.strip() or TITLE, SECOND: (heading + second).strip()}
    parts[part.partition("\n")[0]] = part.strip()
    return "\n\n".join(text for text in parts.values() if text) + "\n"


def update_page(path: Path, part: str) -> None:
    """Write a part of a page, which need not be there."""
    page = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(change_page(page, part), encoding="utf-8")


def make_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table, a text a cell."""
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    for row in rows:
        cells = [cell.replace("|", "\\|").replace("\n", " ") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
