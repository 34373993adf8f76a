"""Charts of a linear's weights: scales, clips, codes, and the groups that are rounded worst."""

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import plotly.graph_objects as go

from awqscope.app.figures.activations import label_apart, log_axis
from awqscope.app.figures.frame import BLUE, FROM_ZERO, GREEN, GREY, ORANGE, make_figure
from awqscope.app.words.studies.weights import name_step
from awqscope.diagnose.studies.weights.answer import ChannelSize, Clipping, GroupValues
from awqscope.mixedprec.words import NOTHING

# Channels that are named in the chart.
NAMED = 3
# Shares with as many digits as their ticks need.
SHARES = {**FROM_ZERO, "tickformat": "~%"}


def draw_channel_sizes(channels: Sequence[ChannelSize], count: int) -> go.Figure:
    """Every input channel, in order: AWQ's scale, its activations and its weights, each relative to
    its median; those with the largest scales are named. count: channels in all."""
    numbers = [channel.channel for channel in channels]
    sizes: list[tuple[str, list[float | None], dict[str, Any]]] = [
        (
            "activation, largest |x|",
            [channel.activation for channel in channels],
            {"mode": "markers", "marker": {"color": BLUE, "symbol": "circle", "size": 4}},
        ),
        (
            "weight, mean |w|",
            [channel.weight for channel in channels],
            {"mode": "markers", "marker": {"color": GREEN, "symbol": "circle-open", "size": 4}},
        ),
        (
            "AWQ's scale",
            [channel.scale for channel in channels],
            {"mode": "markers+text", "marker": {"color": ORANGE, "symbol": "diamond", "size": 5}},
        ),
    ]
    traces, shown_values = [], []
    for name, values, look in sizes:
        known = [value for value in values if value]
        if not known:
            continue
        middle = median(known)
        # A channel that is always zero has no place on a logarithmic axis.
        shown = [value / middle if value else None for value in values]
        shown_values += [value for value in shown if value]
        if "text" in look["mode"]:
            order = sorted(range(len(numbers)), key=lambda at: -(values[at] or 0.0))[:NAMED]
            labels = label_apart([numbers[at] for at in order], count)
            named = dict(zip(order, labels, strict=True))
            look |= {
                "text": [named.get(at, "") for at in range(len(numbers))],
                "textposition": "top center",
                "cliponaxis": False,
            }
        traces.append(
            go.Scatter(
                name=name,
                x=numbers,
                y=shown,
                customdata=values,
                hovertemplate=(
                    f"channel %{{x}}<br>{name} %{{customdata:.3g}}, "
                    "%{y:.3g} of the median<extra></extra>"
                ),
                **look,
            )
        )
    figure = make_figure(traces, "input channel", "of the median", 360)
    figure.update_yaxes(**log_axis(np.array(shown_values)))
    return figure


def draw_clipping(clipping: Clipping) -> go.Figure:
    """How many groups the clip cuts by how much of their range."""
    bars = go.Bar(
        x=[name_step(step) for step in range(len(clipping.steps))],
        y=[count / clipping.groups for count in clipping.steps],
        marker={"color": BLUE},
        customdata=clipping.steps,
        hovertemplate="%{x} cut: %{customdata:,} groups, %{y:.1%}<extra></extra>",
    )
    figure = make_figure([bars], "share of the group's range that is cut", "of the groups", 280)
    figure.update_yaxes(**SHARES)
    figure.update_xaxes(type="category")
    return figure


def draw_codes(codes: Sequence[int], zeros: Sequence[int]) -> go.Figure:
    """How many weights have each code, and how many groups have it for their zero point."""
    traces = []
    for name, counts, colour, pattern in (
        ("codes of weights", codes, BLUE, ""),
        ("zero points of groups", zeros, ORANGE, "/"),
    ):
        total = sum(counts)
        if not total:
            continue
        traces.append(
            go.Bar(
                name=name,
                x=list(range(len(counts))),
                y=[count / total for count in counts],
                marker={"color": colour, "pattern": {"shape": pattern}},
                customdata=counts,
                hovertemplate=f"%{{x}}: %{{customdata:,}} {name}, %{{y:.2%}}<extra></extra>",
                showlegend=True,
            )
        )
    figure = make_figure(traces, "code", "share", 300, barmode="group", bargap=0.1)
    figure.update_xaxes(dtick=1 if len(codes) <= 16 else 32)
    figure.update_yaxes(**SHARES)
    return figure


def draw_limits(limits: np.ndarray) -> go.Figure:
    """The largest weight that is kept, by group, of a run without its model: how they are spread.
    limits: [N, G]."""
    counts, edges = np.histogram(limits, bins=40)
    middles = (edges[:-1] + edges[1:]) / 2
    bars = go.Bar(
        x=middles,
        y=counts / max(1, limits.size),
        marker={"color": BLUE},
        hovertemplate="around %{x:.3g}: %{y:.1%} of the groups<extra></extra>",
    )
    figure = make_figure([bars], "largest scaled weight that is kept", "of the groups", 280)
    figure.update_layout(bargap=0)
    figure.update_yaxes(**SHARES)
    return figure


def draw_group(group: GroupValues) -> go.Figure:
    """One group's weights: 16-bit beside what is stored."""
    codes: Sequence[int | str] = group.codes or [NOTHING] * len(group.channels)
    looks: Sequence[tuple[str, Sequence[float], dict[str, Any]]] = (
        (
            "16-bit",
            group.reference,
            {
                "mode": "lines+markers",
                "line": {"color": GREY, "width": 1.2},
                "marker": {"color": GREY, "size": 5},
            },
        ),
        (
            "stored",
            group.stored,
            {
                "mode": "markers",
                "marker": {"color": ORANGE, "symbol": "diamond-open", "size": 7},
            },
        ),
    )
    traces = [
        go.Scatter(
            name=name,
            x=list(group.channels),
            y=list(values),
            customdata=codes,
            hovertemplate=f"channel %{{x}}<br>{name} %{{y:.4g}}, code %{{customdata}}"
            "<extra></extra>",
            **look,
        )
        for name, values, look in looks
    ]
    return make_figure(traces, "input channel", "weight", 320)
