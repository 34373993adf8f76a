"""Hints: a term has its meaning beside its first use on a page, and only there."""

from typing import Any

from dash import html
from dash.development.base_component import Component

from awqscope.app.dashboard.components import Hint
from awqscope.app.dashboard.hints import add_hints
from awqscope.app.dashboard.parts import as_table, card, go_to, table, tile, tiles
from awqscope.app.words.terms.table import TERMS

MEANINGS = {term.name: term.plain for term in TERMS}


def list_hints(part: Any) -> list[tuple[str, str]]:
    if isinstance(part, list | tuple):
        return [found for each in part for found in list_hints(each)]
    if part is None or isinstance(part, str):
        return []
    if isinstance(part, Hint):
        return [(part.children, part.meaning)]
    headings = getattr(part, "headings", None) or {}
    named = [
        piece for pieces in headings.values() for piece in pieces if not isinstance(piece, str)
    ]
    children = getattr(part, "children", None) if isinstance(part, Component) else None
    return [*named, *list_hints(children)]


def test_a_term_has_its_meaning_once_a_page() -> None:
    page = [
        html.P(["Block 5 ", html.Strong("stands out"), ", by KL."], className="verdict"),
        tiles(tile("KL, mixed", "0.1"), tile("Recovered", "95%")),
        card("Blocks", table({"kl": "KL alone", "plain": "Number"}, [])),
        as_table({"kl": "KL alone"}, []),
    ]
    found = list_hints(add_hints(page))
    assert [word for word, _ in found] == [
        *("Block", "stands out", "KL", "mixed", "Recovered", "alone"),
        # A folded table is not in the page: its headings have their own.
        *("KL", "alone"),
    ]
    assert dict(found)["KL"] == MEANINGS["KL"]
    assert dict(found)["stands out"] == MEANINGS["spike, flagged"]


def test_links_fields_and_other_texts_stay_as_they_are() -> None:
    page = [
        html.P("The KL of a block.", className="said"),
        html.H2(go_to("Block 5", "/run/a/block/5")),
        html.Dd("KL"),
        html.P("Nothing to explain.", className="summary"),
    ]
    assert not list_hints(add_hints(page))
    assert page[-1].children == "Nothing to explain."
