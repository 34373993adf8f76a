"""Charts of why a block is hurt."""

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import plotly.graph_objects as go

from awqscope.app.figures.activations import log_axis
from awqscope.app.figures.frame import (
    BLUE,
    FROM_ZERO,
    GREEN,
    GREY,
    ORANGE,
    choose_log,
    escape,
    make_figure,
    number_columns,
)
from awqscope.app.words.studies.why import ROLE_NAMES, name_point, write_percent
from awqscope.diagnose.entries.part import Bounded
from awqscope.diagnose.studies.causes.answer import Causes, HeadAttention, LinearCauses, Point

# How bars of roles are told apart besides their colours.
ROLE_LOOKS = {"q": (GREY, ""), "k": (GREEN, "/"), "v": (ORANGE, ""), "o": (BLUE, "x")}


def _whiskers(values: Sequence[Bounded], project: Any = float) -> dict[str, Any]:
    """Intervals as plotly takes them. project: where a value is on the axis."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [project(high) - project(value) for value, _, high in values],
        "arrayminus": [project(value) - project(low) for value, low, _ in values],
        "color": GREY,
        "thickness": 1.2,
        "width": 3,
    }


def draw_shares(linears: Sequence[LinearCauses]) -> go.Figure:
    """What each linear alone costs, as a share of the block's KL, in order of computation."""
    bars = go.Bar(
        y=[escape(linear.linear) for linear in linears],
        x=[linear.share[0] for linear in linears],
        error_x=_whiskers([linear.share for linear in linears]),
        orientation="h",
        marker={"color": BLUE},
        hovertemplate="%{y}<br>%{x:.1%} of the block's KL<extra></extra>",
    )
    figure = make_figure([bars], "share of the block's KL", "", 70 + 34 * len(linears))
    figure.update_xaxes(**FROM_ZERO, tickformat=".0%", showgrid=True)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def draw_growth(points: Sequence[Point]) -> go.Figure:
    """The error at every point inside the block, in order of computation; points without any are
    on the axis too."""
    log = choose_log([point.error[0] for point in points])
    line = go.Scatter(
        x=list(range(len(points))),
        y=[log.project(point.error[0]) for point in points],
        error_y=_whiskers([point.error for point in points], log.project),
        mode="lines+markers",
        line={"color": BLUE, "width": 2},
        marker={
            "size": 8,
            "color": [ORANGE if p.kind in ("residual", "output") else BLUE for p in points],
            "symbol": ["diamond" if p.kind in ("residual", "output") else "circle" for p in points],
        },
        customdata=[f"{escape(name_point(p))}: {write_percent(p.error[0])}" for p in points],
        hovertemplate="%{customdata}<extra></extra>",
    )
    figure = make_figure([line], "", "relative error, lower is better", 360, showlegend=False)
    log.set_axis(figure)
    names = [escape(name_point(point).replace("into ", "→ ")) for point in points]
    figure.update_xaxes(
        tickvals=list(range(len(points))), ticktext=[_last_parts(n) for n in names], tickangle=-45
    )
    return figure


def _last_parts(name: str) -> str:
    """A module's own name, without what it is in."""
    arrow, _, module = name.rpartition(" ")
    return f"{arrow} {module.rpartition('.')[2]}".strip()


def draw_heads(causes: Causes) -> go.Figure:
    """What each head's rows or columns, quantized alone, bring of the error of the block's output:
    a group of bars a head, a bar a role."""
    bars = []
    is_shared = causes.kv_heads != causes.heads
    for role, (colour, pattern) in ROLE_LOOKS.items():
        parts = [part for linear in causes.linears for part in linear.heads if part.role == role]
        if parts:
            of_groups = " (key-value heads)" * (role in "kv" and is_shared)
            bars.append(
                go.Bar(
                    name=ROLE_NAMES[role] + of_groups,
                    x=[part.head for part in parts],
                    y=[part.arrived for part in parts],
                    marker={"color": colour, "pattern": {"shape": pattern}},
                    customdata=[part.condition for part in parts],
                    hovertemplate=(
                        f"{ROLE_NAMES[role]} of head %{{x}}<br>%{{y:.1%}} of the block's error<br>"
                        "condition number %{customdata:.3g}<extra></extra>"
                    ),
                )
            )
    figure = make_figure(bars, "head", "share of the block's error", 320, barmode="group")
    count = max((len(bar.x) for bar in bars), default=1)
    number_columns(figure, count)
    figure.update_yaxes(**FROM_ZERO, tickformat=".0%")
    return figure


def draw_attention(heads: Sequence[HeadAttention]) -> go.Figure:
    """Entropy of each head's attention, in the reference and quantized."""
    looks = (("reference", GREY, "circle", 0), ("quantized", ORANGE, "diamond-open", 1))
    traces = [
        go.Scatter(
            name=name,
            x=[head.head for head in heads],
            y=[head.entropy[side] for head in heads],
            mode="markers",
            marker={"size": 10, "color": colour, "symbol": symbol},
            customdata=[head.first[side] for head in heads],
            hovertemplate=(
                "head %{x}<br>entropy %{y:.3f} nats<br>"
                f"first token %{{customdata:.1%}} ({name})<extra></extra>"
            ),
        )
        for name, colour, symbol, side in looks
    ]
    figure = make_figure(traces, "head", "entropy of attention (nats)", 300)
    number_columns(figure, len(heads))
    figure.update_yaxes(**FROM_ZERO)
    return figure


def draw_columns(linear: LinearCauses) -> go.Figure:
    """A linear's input channels, sorted by the size of their activations: activations, weights and
    AWQ's scale, each relative to its median; below, what of the error falls on each; and last, what
    share of its weights the clip cuts."""
    channels = sorted(linear.channels, key=lambda channel: channel.activation)
    numbers = [channel.channel for channel in channels]
    sizes: list[tuple[str, Sequence[float], dict[str, Any]]] = [
        ("activation, mean |x|", [c.activation for c in channels], _line(BLUE, "solid")),
        ("on calibration", [c.calibrated for c in channels], _line(BLUE, "dot")),
        ("weight, mean |w|", [c.weight for c in channels], _dots(GREEN, "circle-open")),
    ]
    if channels and channels[0].scale is not None:
        scales = [channel.scale or 0.0 for channel in channels]
        sizes.append(("AWQ's scale", scales, _dots(ORANGE, "diamond")))
    traces: list[Any] = []
    relative: list[float] = []
    for name, values, look in sizes:
        middle = median(values) or 1.0
        # A channel that is always zero has no place on a logarithmic axis.
        shown = [value / middle if value > 0 else None for value in values]
        relative += [value for value in shown if value is not None]
        traces.append(
            go.Scatter(
                name=name,
                y=shown,
                customdata=list(zip(numbers, values, strict=True)),
                hovertemplate=(
                    f"channel %{{customdata[0]}}<br>{name} %{{customdata[1]:.3g}}, "
                    "%{y:.3g} of the median<extra></extra>"
                ),
                **look,
            )
        )
    for name, parts, colour, axis in (
        ("part of the error", [c.error for c in channels], GREY, "y2"),
        ("clipped", [c.clipped for c in channels], ORANGE, "y3"),
    ):
        traces.append(
            go.Bar(
                name=name,
                y=parts,
                yaxis=axis,
                marker={"color": colour},
                customdata=numbers,
                hovertemplate=f"channel %{{customdata}}<br>{name} %{{y:.2%}}<extra></extra>",
                showlegend=False,
            )
        )
    title = "input channels, by the size of their activations"
    figure = make_figure(traces, title, "of the median", 460, bargap=0)
    figure.update_xaxes(showticklabels=False, anchor="y3")
    figure.update_yaxes(**log_axis(np.array(relative)), domain=[0.5, 1])
    below = {"tickformat": ".0%", "automargin": True, "nticks": 4, "title_standoff": 12}
    figure.update_layout(
        yaxis2={**below, "domain": [0.26, 0.42], "title_text": "of the error"},
        yaxis3={**below, "domain": [0, 0.18], "title_text": "clipped", "rangemode": "tozero"},
    )
    return figure


def _line(colour: str, dash: str) -> dict[str, Any]:
    return {"mode": "lines", "line": {"color": colour, "dash": dash, "width": 1.6}}


def _dots(colour: str, symbol: str) -> dict[str, Any]:
    return {"mode": "markers", "marker": {"color": colour, "symbol": symbol, "size": 4}}
