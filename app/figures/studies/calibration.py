"""Charts of a run's calibration: damage over windows, and texts against texts."""

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap

import numpy as np
import plotly.graph_objects as go

from awqscope.app.figures.frame import BLUE, GREEN, GREY, ORANGE, escape, make_figure
from awqscope.diagnose.studies.calibration.answer import Beside, Calibrated, Cell
from awqscope.mixedprec.words import write_bounded, write_number, write_share

# How the calibrations of a role look: colour, symbol, and what they are called together.
LOOKS = {
    "count": (BLUE, "circle", "more and fewer windows"),
    "run": (ORANGE, "star", "the run's own"),
    "draw": (GREY, "diamond-open", "other draws of as many"),
    "half": (GREEN, "triangle-up-open", "halves of the run's"),
}
# The colours of damage given back and added, on the page's own ground: words on them take their
# colour from the page, light or dark.
HEAT = [
    [0.0, "rgba(58, 157, 139, 0.35)"],
    [0.5, "rgba(138, 148, 163, 0.1)"],
    [1.0, "rgba(217, 123, 31, 0.35)"],
]
# What is as far from the run's own has the full colour where nothing is further.
LEAST_HEAT = 0.02
LABEL_WIDTH = 16


def draw_curve(calibrations: Sequence[Calibrated]) -> go.Figure:
    """Damage over calibration windows: KL as a share of that of the run's own, with its paired
    interval; each doubling of the windows is one step."""
    traces = []
    for role, (colour, symbol, name) in LOOKS.items():
        here = sorted(
            (each for each in calibrations if each.role == role), key=lambda each: each.windows
        )
        if not here:
            continue
        shares = [1 - each.gain[0] for each in here]
        traces.append(
            go.Scatter(
                name=name,
                x=[math.log2(each.windows) for each in here],
                y=shares,
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [each.gain[0] - each.gain[1] for each in here],
                    "arrayminus": [each.gain[2] - each.gain[0] for each in here],
                    "color": colour,
                    "thickness": 1.2,
                    "width": 3,
                },
                customdata=[_write_note(each) for each in here],
                mode="lines+markers" if role == "count" else "markers",
                line={"color": colour, "width": 2},
                marker={"color": colour, "symbol": symbol, "size": 13 if role == "run" else 10},
                hovertemplate="%{customdata}<extra></extra>",
            )
        )
    figure = make_figure(traces, "calibration windows", "KL, the run's own is 100%", 360)
    sizes = sorted({each.windows for each in calibrations if each.role in LOOKS})
    figure.update_xaxes(
        tickvals=[math.log2(size) for size in sizes], ticktext=[f"{size:,}" for size in sizes]
    )
    figure.update_yaxes(tickformat=".1%")
    return figure


def _write_note(each: Calibrated) -> str:
    return (
        f"<b>{escape(each.name)}</b>: {each.windows:,} windows<br>"
        f"KL {write_bounded(each.kl[0], each.kl[1:], '.5f')}<br>"
        f"gives back {write_bounded(each.gain[0], each.gain[1:], '+.1%')}"
    )


def draw_matrix(calibrations: Sequence[tuple[str, Calibrated]], texts: Sequence[str]) -> go.Figure:
    """Calibrations, each with its name, against validation texts: KL in words, and in colour how
    much more it is than that of the first, which is the run's own."""
    added = np.array([[-cell.gain[0] for cell in each.cells] for _, each in calibrations])
    words = [[_write_cell(each, cell) for cell in each.cells] for _, each in calibrations]
    most = max(LEAST_HEAT, float(np.abs(added).max()))
    heat = go.Heatmap(
        x=[escape(text) for text in texts],
        y=["<br>".join(wrap(escape(name), LABEL_WIDTH)) for name, _ in calibrations],
        z=added,
        text=words,
        texttemplate="%{text}",
        hovertemplate="calibrated on %{y}<br>measured on %{x}<br>%{text}<extra></extra>",
        colorscale=HEAT,
        zmin=-most,
        zmax=most,
        xgap=2,
        ygap=2,
        showscale=False,
    )
    figure = make_figure([heat], "measured on", "", 140 + 64 * len(calibrations))
    figure.update_yaxes(showgrid=False, autorange="reversed", type="category")
    figure.update_xaxes(type="category")
    return figure


def _write_cell(each: Calibrated, cell: Cell) -> str:
    """KL, and how much more it is than the run's own."""
    more = "" if each.role == "run" else f"<br>{write_share(-cell.gain[0], '+.1%')}"
    return f"{write_number(cell.kl[0], '.4f')}{more}"


def draw_agreement(pairs: Sequence[Beside], names: Mapping[tuple[str, str], str]) -> go.Figure:
    """Share of equal scale ratios by kind of unit, a bar a pair of calibrations, at the first of
    its widths. names: of pairs."""
    colours = (BLUE, ORANGE, GREEN, GREY)
    patterns = ("", "/", "x", ".")
    bars = []
    for number, pair in enumerate(pairs):
        groups = pair.agreements[0].groups
        bars.append(
            go.Bar(
                name=escape(names[pair.one, pair.other]),
                x=[group.kind for group in groups],
                y=[group.equal / group.of for group in groups],
                customdata=[f"{group.equal} of {group.of}" for group in groups],
                marker={
                    "color": colours[number % len(colours)],
                    "pattern": {"shape": patterns[number % len(patterns)]},
                },
                hovertemplate="%{x}: %{customdata}<extra></extra>",
            )
        )
    figure = make_figure(bars, "kind of unit", "equal scale ratios", 300)
    figure.update_yaxes(range=[0, 1], tickformat=".0%")
    return figure
