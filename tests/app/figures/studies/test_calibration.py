"""Charts of a run's calibration show what was measured, each with its interval."""

import json
import math

import pytest

from awqscope.app.figures.studies.calibration import draw_agreement, draw_curve, draw_matrix
from tests.help.calibrated import make_advice


def test_the_curve_has_every_calibration_of_the_runs_text() -> None:
    advice = make_advice()
    figure = draw_curve(advice.calibrations)
    json.loads(figure.to_json(), parse_constant=pytest.fail)
    assert [trace.name for trace in figure.data] == [
        *("more and fewer windows", "the run's own", "other draws of as many"),
        "halves of the run's",
    ]
    counts = figure.data[0]
    assert list(counts.x) == [math.log2(8), math.log2(32)]
    assert list(counts.y) == pytest.approx([1.05, 0.98])
    # The interval of what is given back, turned into one of what is left.
    assert [*counts.error_y.array, *counts.error_y.arrayminus] == pytest.approx([0.004] * 4)
    assert list(figure.layout.xaxis.ticktext) == ["8", "16", "32"]


def test_an_interval_that_leans_to_one_side_is_turned_over() -> None:
    own, *_, count, _, _ = make_advice().calibrations
    leaning = count.changed(gain=(0.1, 0.09, 0.15))
    (trace,) = draw_curve([leaning]).data
    assert trace.y[0] == pytest.approx(0.9)
    assert trace.y[0] + trace.error_y.array[0] == pytest.approx(1 - 0.09)
    assert trace.y[0] - trace.error_y.arrayminus[0] == pytest.approx(1 - 0.15)
    assert own.role == "run"


def test_the_matrix_says_in_words_what_its_colours_say() -> None:
    advice = make_advice()
    rows = [(each.name, each) for each in advice.calibrations if each.role in ("run", "both")]
    (heat,) = draw_matrix(rows, ["wiki", "<code>"]).data
    assert heat.x == ("wiki", "&lt;code&gt;") and heat.y == ("run", "both 1")
    assert heat.z[1].tolist() == pytest.approx([-0.12, -0.12])
    assert heat.text[1][0] == "0.4400<br>−12.0%"
    assert heat.zmax == -heat.zmin == pytest.approx(0.12)


def test_agreement_is_a_share_of_the_groups() -> None:
    pairs = make_advice().pairs
    names = {(pair.one, pair.other): f"{pair.one}, {pair.other}" for pair in pairs}
    first, second = draw_agreement(pairs, names).data
    assert first.x == ("qkv", "down") and first.y == pytest.approx((2 / 3, 0.2))
    assert first.name == "half 1, half 2"
    # Told apart by more than colour.
    assert first.marker.pattern.shape != second.marker.pattern.shape
