"""What of a table is saved as CSV: numbers as they were before they were rounded, each in a column
of its own, and words in theirs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from awqscope.mixedprec.words import NOTHING, Written, write_number

# A number takes a column, bounds two, and a number with its bounds three.
ENDS = {1: ("",), 2: (" low", " high"), 3: ("", " low", " high")}
NOTE = " note"
# How a heading says that its cells hold intervals, which have headings of their own.
INTERVAL = " [95%]"

# Key of a column that is shown -> those that are saved in its place, key -> heading.
Apart = Mapping[str, Mapping[str, str]]
# What is saved in a column: a number as it is, or text.
Field = float | str | None
Fields = list[Field]


def list_fields(
    columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]], apart: Apart
) -> tuple[list[list[str]], list[list[Fields | None]]]:
    """By column what its columns are called, and by row and column what is saved of a cell, None
    where that is its text. Nothing where that is so of all cells."""
    found = [_list_column(key, name, rows, apart.get(key)) for key, name in columns.items()]
    if not any(any(cells) for _, cells in found):
        return [], []
    return [heads for heads, _ in found], [
        [cells[line] for _, cells in found] for line in range(len(rows))
    ]


def _list_column(
    key: str, name: str, rows: Sequence[Mapping[str, Any]], instead: Mapping[str, str] | None
) -> tuple[list[str], list[Fields | None]]:
    """What a column is saved as: the headings, and each row's fields."""
    if instead is None:
        return _split_cells(name, [row.get(key) for row in rows])
    parts = [
        _split_cells(title, [row.get(part) for row in rows], is_shown=False)
        for part, title in instead.items()
    ]
    heads = [head for titles, _ in parts for head in titles]
    return heads, [
        [field for _, cells in parts for field in cells[line] or ()] for line in range(len(rows))
    ]


def _split_cells(
    name: str, cells: Sequence[Any], *, is_shown: bool = True
) -> tuple[list[str], list[Fields | None]]:
    """The headings and the fields of cells of one kind. is_shown: text is read where it is seen."""
    known = [split_cell(cell) for cell in cells]
    count = max((len(numbers) for numbers, _ in known), default=0) or 1
    has_note = any(numbers and words for numbers, words in known)
    called = name.removesuffix(INTERVAL)
    heads = [called + end for end in ENDS[count]] + [called + NOTE] * has_note
    fields: list[Fields | None] = []
    for numbers, words in known:
        if not numbers and is_shown:
            fields.append(None)
            continue
        written: Fields = [_write_field(number) for number in numbers] or [words]
        written += [""] * (count - len(written))
        fields.append(written + [words if numbers else ""] * has_note)
    return heads, fields


def split_cell(cell: Any) -> tuple[list[float | None], str]:
    """The numbers of a cell, and what else it says. cell: text, a part of a page that holds some,
    or a list of them."""
    numbers: list[float | None] = []
    words = []
    for part in cell if isinstance(cell, list) else [cell]:
        text = getattr(part, "children", part)
        if isinstance(text, Written):
            numbers += text.values
            words.append(text.words)
        elif text is not None and text != NOTHING:
            words.append(str(text).strip())
    return numbers, " ".join(filter(None, words))


def _write_field(number: float | None) -> Field:
    """What is not finite is no number to JSON, and is said."""
    return number if number is None or math.isfinite(number) else write_number(number)
