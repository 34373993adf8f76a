"""The dashboard's own components, drawn by assets/components.js.

Dash wraps every component of a page in several of React's: a table of html.Td costs a browser a
thousand of them. These draw what is long or late as one, from plain data.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dash.development.base_component import Component

from awqscope.app.saved import Field

NAMESPACE = "awqscope"

# A cell is text, or parts of it: {"text": ..., "href", "look" (a class, of a link too), "meaning"
# (of a term) or "code": ...}.
Piece = str | dict[str, Any]
Cell = Piece | list[Piece]


class Link(Component):
    """A way to another page of the dashboard. is_here: it leads to the page that is shown."""

    _namespace = NAMESPACE
    _type = "Link"
    _prop_names = ["children", "href", "className", "is_here"]
    _valid_wildcard_attributes: list[str] = []

    def __init__(self, text: str, href: str, look: str = "", is_here: bool = False):
        super().__init__(children=text, href=href, className=look, is_here=is_here)


class Hint(Component):
    """A term with its meaning, which is shown where the term is pointed at, focused or tapped."""

    _namespace = NAMESPACE
    _type = "Hint"
    _prop_names = ["children", "meaning"]
    _valid_wildcard_attributes: list[str] = []

    def __init__(self, word: str, meaning: str):
        super().__init__(children=word, meaning=meaning)


class Table(Component):
    """A table of text. rows: cells, in the order of `columns`; marks: a class a row; the page with
    the first one marked `chosen` is shown. folded: what it takes to open it; it is not in the page
    before. per_page: rows shown at a time, all on paper. headings: by column, pieces of its name
    where it has a hint: text, or a term and its meaning. All rows are saved: heads: by column, what
    its columns are called there; values: by row and column what is saved of a cell, null where that
    is its text. Both are empty where that is so of all cells."""

    _namespace = NAMESPACE
    _type = "Table"
    _prop_names = [
        "columns",
        "rows",
        "marks",
        "caption",
        "folded",
        "per_page",
        "headings",
        "heads",
        "values",
    ]
    _valid_wildcard_attributes: list[str] = []

    def __init__(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[Cell]],
        marks: Sequence[str],
        caption: str = "",
        folded: str = "",
        per_page: int = 30,
        headings: Mapping[str, Sequence[str | tuple[str, str]]] | None = None,
        heads: Sequence[Sequence[str]] = (),
        values: Sequence[Sequence[Sequence[Field] | None]] = (),
    ):
        super().__init__(
            headings=headings or {},
            columns=columns,
            rows=rows,
            marks=marks,
            caption=caption,
            folded=folded,
            per_page=per_page,
            heads=heads,
            values=values,
        )


class Saves(Component):
    """The buttons that save the chart or the grid beside it: the chart that it is inside of as PNG
    and SVG, or the `grid` of an id as CSV. label: what the chart or grid is called."""

    _namespace = NAMESPACE
    _type = "Saves"
    _prop_names = ["label", "grid"]
    _valid_wildcard_attributes: list[str] = []

    def __init__(self, label: str, grid: str = ""):
        super().__init__(label=label, grid=grid)


class Title(Component):
    """What the browser calls the page, in its tab and its history; nothing of it is in the page."""

    _namespace = NAMESPACE
    _type = "Title"
    _prop_names = ["text"]
    _valid_wildcard_attributes: list[str] = []

    def __init__(self, text: str):
        super().__init__(text=text)


class Text(Component):
    """A window's text, token by token. Arrow keys move, Enter chooses, as a click does. tokens:
    position, text, class and what the hover says, of each."""

    _namespace = NAMESPACE
    _type = "Text"
    _prop_names = ["window", "tokens", "label"]
    _valid_wildcard_attributes: list[str] = []

    def __init__(self, window: int, tokens: Sequence[tuple[int, str, str, str]], label: str):
        super().__init__(window=window, tokens=tokens, label=label)


class Later(Component):
    """What is drawn once the page around it is painted and it is about to be seen. height: of the
    room kept for it, pixels."""

    _namespace = NAMESPACE
    _type = "Later"
    _prop_names = ["children", "height"]
    _valid_wildcard_attributes: list[str] = []

    def __init__(self, children: Component, height: int):
        super().__init__(children=children, height=height)


class Recipe(Component):
    """A recipe that can be edited, unit by unit and along its frontier, with what is predicted of
    it in sight. data: see sections/recipe/editing.py; changes: what differs from the run's own
    recipe, as the address has it. The browser sets `changes` at once, `rested` to the same once
    none has come for a moment, and `asked` to a budget that it wants solved exactly. children: what
    stands under the slider, and above the grid."""

    _namespace = NAMESPACE
    _type = "Recipe"
    _prop_names = ["id", "children", "data", "changes", "rested", "asked"]
    _valid_wildcard_attributes: list[str] = []

    def __init__(self, id: str, children: Sequence[Any], data: Mapping[str, Any], changes: str):
        super().__init__(id=id, children=list(children), data=data, changes=changes)
