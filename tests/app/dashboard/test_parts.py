"""The pieces of pages hold whatever they are given, also what counts as nothing."""

import importlib.metadata
import math
from typing import Any

import dash_mantine_components as dmc
import pytest
from dash import dcc, html

import awqscope
from awqscope.app.dashboard.components import Hint, Link, Saves, Table, Text, Title
from awqscope.app.dashboard.parts import (
    SEE_TABLE,
    as_table,
    card,
    chart,
    fell_back,
    go_to,
    heading,
    is_there,
    notice,
    switch,
    table,
)
from awqscope.app.figures.frame import make_figure
from awqscope.mixedprec.words import (
    join_written,
    write_bounded,
    write_interval,
    write_number,
    write_size,
)
from tests.help.saved import save_table

# Components without children: their length is none, so that they are false.
CHILDLESS = (
    switch("colour", "Colour by", {"kl": "KL", "delta_nll": "ΔNLL"}, "kl"),
    dmc.TextInput(id="field"),
    dmc.NumberInput(id="number"),
    dmc.Select(id="choice", data=[]),
    dcc.Store(id="store"),
    html.Div(),
    Text(0, [], "text"),
    Title("title"),
    Table(["A"], [], []),
    as_table({"a": "A"}, []),
)


def holds(part: Any, wanted: Any) -> bool:
    """Whether `wanted` itself is somewhere in a layout."""
    if part is wanted:
        return True
    if isinstance(part, (list, tuple)):
        return any(holds(each, wanted) for each in part)
    children = getattr(part, "children", None)
    return children is not None and holds(children, wanted)


@pytest.mark.parametrize("part", CHILDLESS, ids=lambda part: type(part).__name__)
def test_a_component_without_children_is_there(part: Any) -> None:
    assert not part, "this no longer tells one kind of nothing from the other"
    for made in (
        heading("Title", over=part),
        heading("Title", beside=part),
        card("Title", beside=part),
        card("Title", summary=part),
        card("Title", part),
        notice("Title", part),
    ):
        assert holds(made, part)


@pytest.mark.parametrize("nothing", [None, ""])
def test_nothing_leaves_no_empty_element(nothing: Any) -> None:
    assert not is_there(nothing)
    made = [heading("T", over=nothing, beside=nothing), card("T", beside=nothing, summary=nothing)]
    for part in made:
        kinds = {"over", "actions", "summary"}
        assert not [found for found in walk(part) if getattr(found, "className", "") in kinds]


def walk(part: Any) -> list[Any]:
    """Every component of a layout."""
    if isinstance(part, (list, tuple)):
        return [found for each in part for found in walk(each)]
    children = getattr(part, "children", None)
    return [part, *(walk(children) if children is not None else [])]


def test_cells_are_what_they_are_given_as() -> None:
    cells = {"a": Link("to", "/x"), "b": [html.Code(" t"), " 5%"], "c": 7}
    made = table({"a": "A", "b": "B", "c": "C"}, [cells])
    assert made.rows == [
        [{"text": "to", "href": "/x"}, [{"text": " t", "code": ""}, " 5%"], "7"],
    ]


def test_a_table_keeps_the_numbers_that_it_was_written_of() -> None:
    row = {"a": write_bounded(1 / 3, (0.3, 0.4)), "b": write_size(1500), "c": "text"}
    made = table({"a": "A", "b": "B", "c": "C", "d": "D"}, [row, {"b": write_number(None)}])
    assert made.values == [[[1 / 3, 0.3, 0.4], [1500], None, None], [None] * 4]
    assert made.heads == [["A", "A low", "A high"], ["B"], ["C"], ["D"]]
    assert all(type(cell) is str for line in made.rows for cell in line)
    # Nothing of it is sent where there is nothing to keep.
    made = table({"c": "C"}, [{"c": "text"}])
    assert (made.heads, made.values) == ([], [])


def test_a_cell_of_two_lines_is_saved_as_its_numbers_and_what_else_it_says() -> None:
    interval, ends = write_interval((0.3, 0.4)), (math.inf, 1.0)
    rows = [
        {"a": [write_number(1 / 3), html.Span(interval, className="note")]},
        {"a": [write_number(0.5), html.Span("too few windows", className="note")]},
        {"a": join_written(write_bounded(2.0, ends), "valid.txt")},
        {"a": "text"},
    ]
    assert save_table(as_props(table({"a": "A [95%]"}, rows))) == [
        {"A": 1 / 3, "A low": 0.3, "A high": 0.4, "A note": ""},
        {"A": 0.5, "A low": "", "A high": "", "A note": "too few windows"},
        {"A": 2.0, "A low": "inf", "A high": 1.0, "A note": "valid.txt"},
        {"A": "text", "A low": "", "A high": "", "A note": ""},
    ]


def test_a_column_of_several_things_is_saved_as_each() -> None:
    row = {"a": "5.o (+1.5 kB)", "unit": "5.o", "more": write_size(1500, signed=True)}
    made = table({"a": "A", "b": "B"}, [row, {}], apart={"a": {"unit": "Unit", "more": "Bytes"}})
    assert made.rows[0] == ["5.o (+1.5 kB)", ""]
    assert save_table(as_props(made)) == [
        {"Unit": "5.o", "Bytes": 1500, "B": ""},
        {"Unit": "", "Bytes": "", "B": ""},
    ]


def test_lines_of_text_have_a_blank_between_them() -> None:
    title = [Hint("PPL ratio", "what it is"), html.Span("surely above", className="note")]
    passage = ["…of", html.Code(" the"), " order"]
    made = as_props(table({"a": "A", "b": "B"}, [{"a": title, "b": passage}]))
    assert save_table(made) == [{"A": "PPL ratio surely above", "B": "…of the order"}]


def as_props(made: Table) -> dict[str, Any]:
    """A table's properties as the browser gets them."""
    return made.to_plotly_json()["props"]


def test_a_chart_can_be_saved() -> None:
    made = chart(make_figure([], "x", "y", 100), f"KL by block{SEE_TABLE}")
    assert [part.label for part in walk(made) if isinstance(part, Saves)] == ["KL by block"]


def test_what_fell_back_is_said() -> None:
    assert fell_back("There is no window 9", "window 3").children == (
        "There is no window 9: window 3 is shown."
    )


def test_a_component_costs_no_look_at_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dash asks for the version with every one; a page of eighty blocks has thousands."""
    assert awqscope.__version__
    monkeypatch.setattr(importlib.metadata, "version", lambda name: pytest.fail(name))
    go_to("a run", "/run/a")
    monkeypatch.delattr(awqscope, "__version__")
    with pytest.raises(pytest.fail.Exception):
        go_to("a run", "/run/a")
