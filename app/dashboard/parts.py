"""The pieces every page is made of: cards, tiles, marks of state, tables, links.

All text goes in as children, which are text nodes: nothing that a run holds can become markup.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import dcc, html
from dash.development.base_component import Component

from awqscope.app.dashboard.components import Cell, Hint, Later, Link, Piece, Saves, Table
from awqscope.app.saved import Apart, list_fields

MARKS = {
    "done": ("●", "done", "good"),
    "running": ("◐", "running", "busy"),
    "starting": ("◐", "starting", "busy"),
    "stopped": ("◼", "stopped", "quiet"),
    "failed": ("✕", "failed", "bad"),
    "damaged": ("!", "damaged", "bad"),
}
# How charts' names end, which says where their numbers are.
SEE_TABLE = ", see the table"
# More rows than these are shown a page at a time.
MOST_ROWS = 30
GRAPH = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtons": [["zoom2d", "resetScale2d"]],
}


def mark(state: str) -> html.Span:
    """A run's state, by sign, word and colour."""
    sign, word, tone = MARKS[state]
    return html.Span(
        [html.Span(sign, **{"aria-hidden": "true"}), f" {word}"], className=f"mark {tone}"
    )


def is_there(part: Any) -> bool:
    """Whether there is something to show. A component without children has no length, so that its
    truth is that of an empty list: switches, inputs and links are there all the same."""
    return part is not None and part != ""


def heading(title: str, *, over: Any = None, under: Any = None, beside: Any = None) -> html.Header:
    """A page's title with what it belongs to above, what it is of below, and actions beside it."""
    return html.Header(
        [
            html.Div(
                [
                    html.Div(over, className="over") if is_there(over) else None,
                    html.H1(title),
                    html.P(under, className="subject") if is_there(under) else None,
                ],
                className="title",
            ),
            html.Div(beside, className="actions") if is_there(beside) else None,
        ],
        className="heading",
    )


def card(title: str, *children: Any, summary: Any = None, beside: Any = None) -> html.Section:
    """A titled part of a page; `summary` says in words what it shows."""
    return html.Section(
        [
            html.Div(
                [html.H2(title), html.Div(beside) if is_there(beside) else None],
                className="card-head",
            ),
            html.P(summary, className="summary") if is_there(summary) else None,
            *children,
        ],
        className="card",
    )


def tile(label: str, value: str, note: str = "", tone: str = "") -> html.Div:
    """A headline number."""
    return html.Div(
        [
            html.Dt(label),
            html.Dd([html.Span(value, className="value"), html.Span(note, className="note")]),
        ],
        className=f"tile {tone}",
    )


def tiles(*parts: html.Div) -> html.Dl:
    """Headline numbers in a row."""
    return html.Dl(list(parts), className="tiles")


def chart(figure: go.Figure, label: str, **options: Any) -> html.Div:
    """A chart, named for those who do not see it; the summary and table beside it say the same. It
    can be saved as an image."""
    graph = dcc.Graph(figure=figure, config=GRAPH, **options)
    return html.Div(
        [Later(graph, figure.layout.height), Saves(label.removesuffix(SEE_TABLE))],
        role="figure",
        className="chart",
        **{"aria-label": label},
    )


def table(
    columns: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
    caption: str = "",
    folded: str = "",
    per_page: int = MOST_ROWS,
    apart: Apart | None = None,
) -> Table:
    """A plain table. columns: key -> heading; cells are text, numbers already written out, links,
    hints, html.Code or html.Span of text, or lists of them. folded: what opens it. per_page: rows
    that are shown at once; there are ways to the others and to all. It can be saved as CSV, with
    numbers as `awqscope.mixedprec.words` was given them. apart: key of a column of several things
    -> those of the rows' cells that are saved in its place, key -> heading."""
    heads, values = list_fields(columns, rows, apart or {})
    return Table(
        list(columns.values()),
        [[_cell(row.get(key, "")) for key in columns] for row in rows],
        [row.get("class", "") for row in rows],
        caption,
        folded,
        per_page,
        heads=heads,
        values=values,
    )


def _cell(value: Any) -> Cell:
    return [_piece(part) for part in value] if isinstance(value, list) else _piece(value)


def _piece(part: Any) -> Piece:
    if isinstance(part, Link):
        look = {"look": part.className} if part.className else {}
        return {"text": part.children, "href": part.href, **look}
    if isinstance(part, Hint):
        return {"text": part.children, "meaning": part.meaning}
    if isinstance(part, html.Code):
        return {"text": part.children, "code": getattr(part, "className", "")}
    if isinstance(part, html.Span):
        return {"text": part.children, "look": getattr(part, "className", "")}
    if isinstance(part, Component):
        raise TypeError(f"a cell cannot hold {type(part).__name__}")
    return str(part)


def as_table(
    columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]], apart: Apart | None = None
) -> Table:
    """What a chart shows, as a table that is folded until it is opened."""
    return table(columns, rows, folded="The same as a table", apart=apart)


def notice(title: str, *children: Any, tone: str = "") -> html.Div:
    """What stands where there is nothing to show, and what to do about it."""
    return html.Div([html.H2(title), *children], className=f"notice {tone}", role="status")


def fell_back(what: str, shown: str) -> html.P:
    """Says what an address asked for in vain, and what stands there instead."""
    return html.P(f"{what}: {shown} is shown.", className="fallen", role="status")


def command(text: str) -> html.Code:
    """A command line to copy."""
    return html.Code(text, className="command")


def switch(name: str, label: str, choices: Mapping[str, str], value: str) -> dmc.SegmentedControl:
    """A choice between a few ways to look at the same; `name` is its option in the address."""
    return dmc.SegmentedControl(
        id={"type": "option", "name": name},
        data=[{"value": key, "label": text} for key, text in choices.items()],
        value=value,
        size="xs",
        **{"aria-label": label},
    )


def go_to(text: str, href: str) -> Link:
    """A link to another page of the dashboard."""
    return Link(text, href)
