"""Charts show the rows they are given, and say in words what colours say."""

import json
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqscope.app.figures.activations import draw_channels, draw_histograms
from awqscope.app.figures.blocks import draw_depth, draw_differences, draw_profile, draw_units
from awqscope.app.figures.frame import ORANGE, choose_log, escape
from awqscope.app.figures.recipes import draw_recipes
from awqscope.app.words.predict import quantized_units, unit_kl
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.mixedprec.words import write_number
from tests.help.runs import SAMPLE

VIEWS = ("isolated", "cumulative", "restored")


def read(table: str) -> list[dict[str, Any]]:
    return pq.read_table(SAMPLE / f"{table}.parquet").to_pylist()


def block_row(block: int, view: str, **changes: Any) -> dict[str, Any]:
    row = {"block": block, "view": view, "flagged": False}
    for metric, value in (("kl", 0.01), ("delta_ppl", 0.5)):
        row |= {metric: value, f"{metric}_low": value * 0.8, f"{metric}_high": value * 1.3}
    return row | changes


def is_writable(figure: Any) -> None:
    """What is sent to the browser is JSON, which has no NaN and no infinity."""
    json.loads(figure.to_json(), parse_constant=pytest.fail)


@given(st.text())
def test_escaped_text_is_no_markup(text: str) -> None:
    found = escape(text)
    assert "<" not in found and ">" not in found
    assert found.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&") == text


@pytest.mark.parametrize("metric", ["kl", "delta_ppl"])
def test_profile_shows_the_rows(metric: str) -> None:
    rows = read("blocks")
    figure = draw_profile(rows, metric, "linear")
    for trace, view in zip(figure.data, VIEWS, strict=True):
        here = [row for row in rows if row["view"] == view]
        assert trace.name.startswith(view)
        assert list(trace.x) == [row["block"] for row in here]
        assert list(trace.y) == [row[metric] for row in here]
    isolated = [row for row in rows if row["view"] == "isolated"]
    bars = figure.data[0]
    for row, value, up, down in zip(
        isolated, bars.y, bars.error_y.array, bars.error_y.arrayminus, strict=True
    ):
        assert value + up == pytest.approx(row[f"{metric}_high"])
        assert value - down == pytest.approx(row[f"{metric}_low"])
    is_writable(figure)


def test_flagged_blocks_are_marked_by_word_and_colour() -> None:
    figure = draw_profile(read("blocks"), "kl", "linear")
    assert [(note.x, note.text) for note in figure.layout.annotations] == [(5, "▲ flagged")]
    assert [at for at, c in enumerate(figure.data[0].marker.color) if c == ORANGE] == [5]


@pytest.mark.parametrize(
    ("scale", "floor", "is_seen"),
    [
        ("linear", 0.05, True),
        ("linear", 1e-3, False),
        ("log", 1e-3, True),
        ("log", 1e-10, False),
        ("log", None, False),
    ],
)
def test_the_noise_floor_is_a_line_where_the_scale_shows_it(
    scale: str, floor: float | None, is_seen: bool
) -> None:
    rows = read("blocks")
    figure = draw_profile(rows, "kl", scale, floor)
    named = {trace.name: trace for trace in figure.data}
    assert len(named) == 3 + is_seen
    if is_seen:
        line = named[f"noise floor: KL {floor:.2g}"]
        assert list(line.y) == [floor, floor] and line.text[0] == "noise floor"
        assert (line.x[0], line.x[1]) == (-0.5, 7.5)
    assert len(draw_profile(rows, "delta_ppl", scale, floor).data) == 3
    is_writable(figure)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_profile_of_one_block_without_damage(scale: str) -> None:
    rows = [block_row(0, view, kl=0.0, kl_low=0.0, kl_high=0.0) for view in VIEWS]
    figure = draw_profile(rows, "kl", scale)
    assert figure.layout.yaxis.type == "linear"
    assert all(list(trace.y) == [0.0] for trace in figure.data)
    is_writable(figure)


def tick(figure: Any, value: float) -> float:
    """Where the axis says that a value is, by its labels."""
    axis = figure.layout.yaxis
    labels = [float(text.replace("−", "-")) for text in axis.ticktext]
    return float(axis.tickvals[labels.index(value)])


@pytest.mark.parametrize("metric", ["kl", "delta_ppl"])
def test_a_log_scale_shows_every_block_with_its_interval(metric: str) -> None:
    """The sample's ΔPPL of blocks 6 and 7 is below zero, and no bar stands on a logarithm."""
    rows = read("blocks")
    figure = draw_profile(rows, metric, "log")
    assert {trace.type for trace in figure.data} == {"scatter"}
    alone = figure.data[0]
    isolated = [row for row in rows if row["view"] == "isolated"]
    values = [row[metric] for row in isolated]
    form = ".5f" if metric == "kl" else "+.4f"
    assert all(
        write_number(v, form) in note for v, note in zip(values, alone.customdata, strict=True)
    )
    if metric == "kl":
        assert figure.layout.yaxis.type == "log"
        assert list(alone.y) == [row["kl"] for row in isolated]
        return
    below = [row["block"] for row in isolated if row[metric] < 0]
    assert below == [6, 7]
    assert "signed log scale" in [note.text for note in figure.layout.annotations]
    assert np.isfinite(alone.y).all()
    # In the order of the values, on zero's own side, and between the labels it is between.
    assert np.argsort(alone.y).tolist() == np.argsort(values).tolist()
    assert [block for block, y in zip(alone.x, alone.y, strict=True) if y < 0] == below
    assert tick(figure, 0) == 0
    assert tick(figure, -0.1) < alone.y[6] < tick(figure, -0.01)
    assert tick(figure, 1) < alone.y[5] < 10 ** tick(figure, 1)
    for row, y, up, down in zip(
        isolated, alone.y, alone.error_y.array, alone.error_y.arrayminus, strict=True
    ):
        high, low = (row[f"{metric}{end}"] for end in ("_high", "_low"))
        assert np.sign(y + up) == np.sign(high) and np.sign(y - down) == np.sign(low)
        assert up >= 0 and down >= 0
    is_writable(figure)


@given(
    st.lists(
        st.floats(-1e6, 1e6, allow_subnormal=False).filter(lambda v: v == 0 or abs(v) > 1e-9),
        min_size=1,
    )
)
def test_a_log_scale_places_every_number_in_order(values: list[float]) -> None:
    log = choose_log(values)
    places = [log.project(value) for value in values]
    assert np.isfinite(places).all()
    for value, place in zip(values, places, strict=True):
        assert np.sign(place) == np.sign(value)
    ordered = sorted(values)
    assert sorted(places) == [log.project(value) for value in ordered]
    if log.threshold == 0:
        assert min(values) > 0
        return
    axis = log.axis
    assert "0" in axis["ticktext"] and len(axis["ticktext"]) <= 16
    assert list(axis["tickvals"]) == sorted(axis["tickvals"])


def test_profile_of_nothing() -> None:
    figure = draw_profile([], "kl", "log")
    assert not any(len(trace.x) for trace in figure.data)


@pytest.mark.parametrize(
    ("blocks", "step"), [(1, 1), (8, 1), (10, 1), (24, 3), (30, 3), (32, 4), (80, 10), (126, 20)]
)
def test_as_many_blocks_are_labelled_as_a_phone_has_room_for(blocks: int, step: int) -> None:
    rows = [block_row(block, view) for block in range(blocks) for view in VIEWS]
    assert draw_profile(rows, "kl", "log").layout.xaxis.dtick == step
    heat = draw_units([unit_row(f"{block}.qkv") for block in range(blocks)])
    assert heat.layout.xaxis.dtick == step


@pytest.mark.parametrize(
    ("flagged", "texts"),
    [
        ([29], ["flagged ▲"]),
        ([0], ["▲ flagged"]),
        ([0, 29], ["▲ flagged", "flagged ▲"]),
        ([27, 28, 29], ["flagged ▲", "▲", "▲"]),
        ([10, 11], ["flagged ▲", "▲ flagged"]),
        ([4, 5, 6, 25], ["▲", "▲", "▲ flagged", "flagged ▲"]),
        ([10, 13, 29], ["flagged ▲", "▲ flagged", "flagged ▲"]),
    ],
)
def test_what_is_flagged_is_said_where_a_phone_has_room(
    flagged: list[int], texts: list[str]
) -> None:
    rows = [block_row(block, "isolated", flagged=block in flagged) for block in range(30)]
    notes = draw_profile(rows, "kl", "linear").layout.annotations
    assert [(note.x, note.text) for note in notes] == list(zip(flagged, texts, strict=True))
    # No word leaves the chart or lies on another's.
    taken = -0.6
    for note in notes:
        width = 30 * 0.25 if "flagged" in note.text else 0
        left = note.x - (width if note.xanchor == "right" else 0)
        right = note.x + (width if note.xanchor == "left" else 0)
        assert taken <= left and right <= 29.4
        taken = right


def unit_row(unit: str, **changes: Any) -> dict[str, Any]:
    block, kind = unit.split(".")
    row = {"unit": unit, "block": int(block), "kind": kind, "bits": 4}
    return row | {"estimated_kl": 0.01, "exact_kl": None, **changes}


def test_units_are_where_they_belong() -> None:
    rows = [row for row in read("units") if row["bits"] == 4]
    figure = draw_units(rows)
    heat = figure.data[0]
    assert np.shape(heat.z) == (len(heat.y), len(heat.x)) == (4, 8)
    for row in rows:
        place = list(heat.y).index(row["kind"]), list(heat.x).index(row["block"])
        assert 10 ** heat.z[place] == pytest.approx(unit_kl(row))
        known = "measured" if row["exact_kl"] is not None else "estimated"
        assert heat.customdata[place].startswith(row["unit"])
        assert heat.customdata[place].endswith(known)
    is_writable(figure)


def test_units_missing_from_a_block_are_holes() -> None:
    heat = draw_units([unit_row("0.qkv"), unit_row("1.qkv"), unit_row("1.o")]).data[0]
    assert np.isnan(heat.z[1, 0])
    assert heat.customdata[1, 0] == ""
    assert not np.isnan(heat.z[:, 1]).any()


def test_no_units() -> None:
    figure = draw_units([])
    assert np.size(figure.data[0].z) == 0
    is_writable(figure)


def test_one_unit_that_costs_nothing() -> None:
    figure = draw_units([unit_row("0.qkv", exact_kl=0.0)])
    assert np.isfinite(figure.data[0].z).all()
    assert figure.data[0].customdata[0, 0] == "0.qkv: KL 0, measured"
    # Beside others it is at their scale's lower end, and does not stretch it.
    heat = draw_units([unit_row("0.o", exact_kl=0.0), unit_row("1.o", exact_kl=0.02)]).data[0]
    assert heat.z[0, 0] == -2 and list(heat.colorbar.ticktext) == ["1e-2", "1e-1"]


def test_kept_units_are_not_quantized() -> None:
    rows = [unit_row("0.o"), unit_row("0.o", bits=8), unit_row("1.o")]
    spec = RunSpec(model="m", bits=4, keep_fp16=("1.o",))
    found = quantized_units(rows, spec)
    assert found == [unit_row("0.o")]


def test_exact_is_preferred_to_estimated() -> None:
    assert unit_kl(unit_row("0.o", estimated_kl=0.5, exact_kl=0.25)) == 0.25
    assert unit_kl(unit_row("0.o", estimated_kl=0.5, exact_kl=0.0)) == 0.0
    assert unit_kl(unit_row("0.o", estimated_kl=0.5)) == 0.5


EDGES = np.array([-100.0, -1.0, -0.1, 0.1, 1.0, 100.0])
NAMES = {"reference": "16-bit", "uniform": "4-bit"}


def test_histograms_are_shares_of_the_filled_range() -> None:
    counts = {
        "reference": np.array([0, 1, 6, 3, 0]),
        "uniform": np.array([0, 0, 8, 2, 0]),
    }
    figure = draw_histograms(EDGES, counts, NAMES)
    reference, uniform = figure.data
    assert (reference.name, uniform.name) == ("16-bit", "4-bit")
    assert list(reference.y) == [0.1, 0.6, 0.3]
    assert list(uniform.y) == [0.0, 0.8, 0.2]
    assert list(reference.x) == sorted(reference.x)
    assert reference.line.dash != uniform.line.dash
    assert list(figure.layout.xaxis.ticktext) == ["-1", "-0.1", "-0.01", "0", "0.01", "0.1", "1"]


def test_histograms_of_nothing() -> None:
    figure = draw_histograms(EDGES, {"reference": np.zeros(5), "uniform": np.zeros(5)}, NAMES)
    assert all(not np.any(trace.y) for trace in figure.data)
    is_writable(figure)


def test_channels_mark_the_outliers() -> None:
    largest = np.linspace(1.0, 2.0, 20)
    figure = draw_channels({"reference": largest}, 1.5, [19, 18, 17, 16, 99])
    every, marked = figure.data
    assert list(every.y) == list(largest)
    assert list(marked.x) == [19, 18, 17, 16]
    assert list(marked.text) == ["19", "18", "17"]
    assert figure.layout.shapes[0].y0 == 1.5
    assert figure.layout.yaxis.type == "log"
    is_writable(draw_channels({"reference": np.zeros(0)}, 0.0, []))
    # A channel that is always zero is on the axis too.
    silent = draw_channels({"reference": np.array([0.0, 0.5, 2.0])}, 0.5, [2])
    assert silent.data[0].y[0] == 0.0 and list(silent.data[0].customdata) == [0.0, 0.5, 2.0]
    assert silent.data[1].y[0] == silent.data[0].y[2]
    assert [note.text for note in silent.layout.annotations] == ["signed log scale"]


def test_depth_marks_this_block() -> None:
    rows = [{"block": b, "sqnr": 30.0 - b, "cosine": 0.99} for b in (2, 0, 1)]
    trace = draw_depth(rows, 1).data[0]
    assert list(trace.x) == [0, 1, 2]
    assert list(trace.y) == [30.0, 29.0, 28.0]
    assert list(trace.marker.symbol) == ["circle", "diamond", "circle"]
    is_writable(draw_depth([], 0))


def recipe_point(name: str, kl: float, kind: str = "predicted") -> dict[str, Any]:
    return {"name": name, "bytes": 2e6, "kl": kl, "kind": kind}


def test_recipes_by_kind() -> None:
    points = [recipe_point("<b>odd</b>", 0.2, "measured"), recipe_point("yours", 0.1, "yours")]
    figure = draw_recipes(points)
    measured, yours = figure.data
    assert (list(measured.x), list(measured.y)) == ([2.0], [0.2])
    assert list(measured.text) == ["&lt;b&gt;odd&lt;/b&gt;"]
    assert list(yours.y) == [0.1]
    assert figure.layout.yaxis.type != "log"
    line = [recipe_point("frontier", kl, "frontier") for kl in (0.3, 0.1)]
    drawn = draw_recipes([*points, *line]).data[0]
    assert (drawn.mode, drawn.line.shape, list(drawn.y)) == ("lines+markers", None, [0.3, 0.1])
    assert draw_recipes([*points, recipe_point("far", 0.001)]).layout.yaxis.type == "log"
    # The smallest is named above, where the axis is not in the way.
    named = [recipe_point("big", 0.1, "measured"), recipe_point("small", 0.3, "measured")]
    named[1]["bytes"] = 1e6
    drawn = draw_recipes(named).data[0]
    assert list(drawn.text) == ["small", "big"]
    assert list(drawn.textposition) == ["top center", "bottom center"]
    is_writable(draw_recipes([]))
    is_writable(draw_recipes([recipe_point("none", 0.0)]))


def test_differences_are_said_in_words() -> None:
    rows = [
        {"block": 0, "difference": 0.2, "low": 0.1, "high": 0.3},
        {"block": 1, "difference": -0.2, "low": -0.3, "high": -0.1},
        {"block": 2, "difference": 0.1, "low": -0.1, "high": 0.3},
    ]
    bars, words = draw_differences(rows, "kl").data
    assert list(zip(words.x, words.text, words.y, strict=True)) == [
        (0, "worse", 0.3),
        (1, "better", -0.3),
    ]
    unjudged = draw_differences(rows, "kl", judged=False)
    assert not unjudged.data[1].text and ORANGE not in unjudged.data[0].marker.color
    assert list(bars.y) == [0.2, -0.2, 0.1]
    assert np.add(bars.y, bars.error_y.array) == pytest.approx([0.3, -0.1, 0.3])
    assert np.subtract(bars.y, bars.error_y.arrayminus) == pytest.approx([0.1, -0.3, -0.1])
