"""Tables as the dashboard's assets/save.js saves them, for tests without a browser."""

from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]


def read_cell(cell: Any) -> str:
    """A cell's text: what has a look of its own stands on a line of its own."""
    if isinstance(cell, list):
        parts = [(" " if at and is_line(part) else "", part) for at, part in enumerate(cell)]
        return "".join(blank + read_cell(part) for blank, part in parts)
    return cell if isinstance(cell, str) else cell["text"]


def is_line(part: Any) -> bool:
    """Whether it has a look of its own."""
    return isinstance(part, Mapping) and bool(part.get("look"))


def list_saved(table: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """The headings and the lines of what is saved of a table. table: its props."""
    shown = [["" if read_cell(c) == "–" else read_cell(c) for c in row] for row in table["rows"]]
    heads, values = table["heads"], table["values"]
    if not values:
        return list(table["columns"]), shown
    lines = []
    for texts, row in zip(shown, values, strict=True):
        line: list[Any] = []
        for text, fields, names in zip(texts, row, heads, strict=True):
            found = fields or [text]
            line += [*found, *[""] * (len(names) - len(found))]
        lines.append(line)
    return [head for names in heads for head in names], lines


def save_table(table: Mapping[str, Any]) -> list[Row]:
    """The lines of what is saved of a table, by heading."""
    heads, lines = list_saved(table)
    return [dict(zip(heads, line, strict=True)) for line in lines]
