"""The chart of alternatives: each where it belongs, with its interval, and the run's own told
apart."""

import pytest

from awqscope.app.figures.studies.alternatives import OURS, draw_alternatives
from tests.help.alternatives import UNIFORM_KL, make_answer, make_row, make_usual


def test_each_is_drawn_once_with_its_interval() -> None:
    found = make_usual()
    figure = draw_alternatives(found)
    drawn = {
        text: (x, y, up, down)
        for trace in figure.data
        for text, x, y, up, down in zip(
            trace.text, trace.x, trace.y, trace.error_y.array, trace.error_y.arrayminus, strict=True
        )
    }
    assert len(drawn) == len(found.rows)
    assert drawn["title of gptq"] == pytest.approx((4.16, 0.1, 0.1, 0.05))
    ours = next(trace for trace in figure.data if trace.name == OURS)
    assert len(ours.x) == 3
    symbols = [trace.marker.symbol for trace in figure.data]
    assert len(set(symbols)) == len(symbols)
    assert figure.layout.yaxis.type == "log"


def test_what_costs_nothing_has_a_place() -> None:
    rows = [make_row("uniform", 4.25, UNIFORM_KL), make_row("rescue", 16.0, 0.0)]
    assert draw_alternatives(make_answer(rows)).layout.yaxis.type == "linear"
