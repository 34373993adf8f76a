"""The meaning of a term beside its first use on a page: every page has it from the same terms.

Marked are terms in titles, in the names of numbers and columns, and in sentences that say what is
found; not in links, fields and buttons.
"""

from collections.abc import MutableSet
from typing import Any

from dash import html
from dash.development.base_component import Component

from awqscope.app.dashboard.components import Hint, Table
from awqscope.app.words.terms.find import Spot, split_terms

# Elements that are explained, whatever they look like, and paragraphs by their class.
EXPLAINED = (html.H2, html.Dt, html.Th, html.Strong)
PARAGRAPHS = frozenset(("verdict", "summary", "answer", "hint"))


def add_hints(part: Any, told: MutableSet[str] | None = None) -> Any:
    """A page or a part of one, with hints in it. told: terms that have theirs already; those that
    are found here are added."""
    told = set() if told is None else told
    if isinstance(part, list | tuple):
        for each in part:
            add_hints(each, told)
    elif isinstance(part, Table):
        _explain_columns(part, told)
    elif isinstance(part, Component):
        children = getattr(part, "children", None)
        if _is_explained(part) and not isinstance(children, Component):
            part.children = _explain(children, told)
        elif children is not None:
            add_hints(children, told)
    return part


def _is_explained(part: Component) -> bool:
    if isinstance(part, html.P):
        return getattr(part, "className", None) in PARAGRAPHS
    return isinstance(part, EXPLAINED)


def _explain(children: Any, told: MutableSet[str]) -> Any:
    """The text in an element with its terms as hints; what else is in it as on the page."""
    if isinstance(children, str):
        pieces = split_terms(children, told)
        found = [_hint(each) if isinstance(each, Spot) else each for each in pieces]
        return found if any(not isinstance(each, str) for each in found) else children
    if not isinstance(children, list | tuple):
        return children
    parts: list[Any] = []
    for each in children:
        if isinstance(each, str):
            explained = _explain(each, told)
            parts += explained if isinstance(explained, list) else [explained]
        else:
            parts.append(add_hints(each, told))
    return parts


def _hint(spot: Spot) -> Hint:
    return Hint(spot.word, spot.term.plain)


def _explain_columns(table: Table, told: MutableSet[str]) -> None:
    """Hints in the headings of a table. One that is folded shows nothing on the page: it has its
    own."""
    told = set() if table.folded else told
    headings = {}
    for name in table.columns:
        pieces = split_terms(name, told)
        if any(isinstance(piece, Spot) for piece in pieces):
            headings[name] = [
                (piece.word, piece.term.plain) if isinstance(piece, Spot) else piece
                for piece in pieces
            ]
    table.headings = headings
