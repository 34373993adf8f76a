"""Charts of why a block is hurt show the numbers they are given."""

import json
from typing import Any

import pytest

from awqscope.app.figures.studies.causes import (
    draw_attention,
    draw_columns,
    draw_growth,
    draw_heads,
    draw_shares,
)
from tests.help.caused import make_causes, make_channel, make_linear

CAUSES = make_causes()


def is_writable(figure: Any) -> None:
    """What is sent to the browser is JSON, which has no NaN and no infinity."""
    json.loads(figure.to_json(), parse_constant=pytest.fail)


def test_shares_are_in_the_order_of_computation_with_intervals() -> None:
    figure = draw_shares(CAUSES.linears)
    [bars] = figure.data
    assert list(bars.y) == ["self_attn.v_proj", "mlp.down_proj"]
    assert list(bars.x) == [0.2, 0.7]
    assert bars.error_x.array == pytest.approx([0.05, 0.05])
    is_writable(figure)


def test_growth_marks_what_leaves_the_parts() -> None:
    figure = draw_growth(CAUSES.growth)
    [line] = figure.data
    assert list(line.y) == [point.error[0] for point in CAUSES.growth]
    assert list(line.marker.symbol) == ["circle", "diamond", "circle", "diamond"]
    names = ["v_proj", "stream", "→ down_proj", "output"]
    assert [name.split()[-1] for name in figure.layout.xaxis.ticktext] == [
        name.split()[-1] for name in names
    ]
    is_writable(figure)


def test_a_point_without_an_error_has_a_place() -> None:
    silent = make_causes().growth[0].changed(error=(0.0, 0.0, 0.0))
    figure = draw_growth([silent, *CAUSES.growth])
    assert figure.data[0].y[0] == 0
    is_writable(figure)


def test_heads_are_bars_by_role() -> None:
    figure = draw_heads(CAUSES)
    [values] = figure.data
    assert values.name == "values (key-value heads)"
    assert (list(values.x), list(values.y)) == ([0, 1], [0.1, 0.2])
    is_writable(figure)


def test_attention_is_drawn_of_both_models() -> None:
    figure = draw_attention(CAUSES.attention)
    assert [trace.name for trace in figure.data] == ["reference", "quantized"]
    assert [list(trace.y) for trace in figure.data] == [[1.5] * 4, [2.0] * 4]
    is_writable(figure)


def test_channels_are_sorted_by_their_activations() -> None:
    shuffled = [make_channel(channel) for channel in (2, 0, 1)]
    [_, linear] = make_causes(
        linears=[CAUSES.linears[0].to_json(), make_linear("o", "o", 0.5, channels=shuffled)]
    ).linears
    figure = draw_columns(linear)
    by_name = {trace.name: trace for trace in figure.data}
    assert [number for number, _ in by_name["activation, mean |x|"].customdata] == [0, 1, 2]
    assert list(by_name["activation, mean |x|"].y) == pytest.approx([0.5 / 1.5, 1, 2.5 / 1.5])
    assert list(by_name["part of the error"].y) == pytest.approx([0.5, 0.25, 0.5 / 3])
    assert {"AWQ's scale", "weight, mean |w|", "on calibration", "clipped"} < by_name.keys()
    is_writable(figure)


def test_a_linear_without_scales_has_no_line_of_them() -> None:
    silent = {**make_channel(0), "scale": None, "activation": 0.0, "calibrated": 0.0}
    [linear] = make_causes(linears=[make_linear("o", "o", 0.5, channels=[silent])]).linears
    figure = draw_columns(linear)
    assert "AWQ's scale" not in {trace.name for trace in figure.data}
    assert list(figure.data[0].y) == [None]
    is_writable(figure)
