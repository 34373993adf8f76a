"""What the parts of a report are made of, before it is marked up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """columns: key -> heading; rows: cells written out, `class` for the line's look. caption names
    it, and no other table of the page. code: columns set as code. summary: what it shows."""

    columns: Mapping[str, str]
    rows: Sequence[Row]
    caption: str
    code: Sequence[str] = ()
    summary: str = ""


@dataclass(frozen=True)
class Chart:
    """A figure, the sentence that says what it shows, and the same as a table. key: its id."""

    key: str
    title: str
    figure: go.Figure
    summary: str
    table: Table
