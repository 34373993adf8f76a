"""Charts of what flows through a block."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from awqscope.app.figures.frame import BLUE, DECADES, GREY, ORANGE, choose_log, make_figure

# Labels closer than this share of the axis would be written into each other.
APART = 0.05


def draw_histograms(
    edges: np.ndarray, counts: Mapping[str, np.ndarray], names: Mapping[str, str]
) -> go.Figure:
    """How the activations of a site are spread, in both models, as shares of all values.

    edges: [bins + 1], symmetric and denser towards zero. counts: model -> [bins].
    """
    traces = []
    looks = {"reference": (GREY, "solid"), "uniform": (ORANGE, "dot")}
    filled = np.flatnonzero(sum(counts.values()) > 0)
    first, last = (filled[0], filled[-1] + 1) if len(filled) else (0, len(edges) - 1)
    middles = (edges[:-1] + edges[1:]) / 2
    for model, count in counts.items():
        colour, dash = looks[model]
        traces.append(
            go.Scatter(
                name=names[model],
                x=_signed_log(middles[first:last]),
                y=(count / max(1, count.sum()))[first:last],
                mode="lines",
                line={"color": colour, "dash": dash, "width": 2, "shape": "hvh"},
                customdata=middles[first:last],
                hovertemplate="around %{customdata:.3g}: %{y:.2%}<extra></extra>",
            )
        )
    figure = make_figure(traces, "activation (signed log scale)", "share of values", 320)
    reach = max(abs(edges[first]), abs(edges[last])) if len(edges) > 1 else 1
    # The decade beside zero has no room for its label where the axis goes far.
    least = -2 if reach <= 1 else -1
    decades = [10.0**n for n in range(least, 6) if 10.0**n <= reach * 1.01]
    ticks = [-value for value in reversed(decades)] + [0.0] + decades
    figure.update_xaxes(
        tickvals=_signed_log(np.array(ticks)), ticktext=[f"{t:g}" for t in ticks], tickangle=0
    )
    figure.update_yaxes(**DECADES)
    return figure


def _signed_log(values: np.ndarray) -> np.ndarray:
    """sign(x)·log10(1 + |x|/0.01): linear near zero, logarithmic in the tails."""
    return np.sign(values) * np.log10(1 + np.abs(values) / 0.01)


def draw_channels(
    largest: Mapping[str, np.ndarray], median: float, outliers: Sequence[int]
) -> go.Figure:
    """Largest |x| of every channel of a site, the outliers marked; channels that are always zero
    are on the axis too. largest: model -> [channels]."""
    reference = largest["reference"]
    log = choose_log([*reference.tolist(), median])
    marked = [channel for channel in outliers if channel < len(reference)]
    traces = [
        go.Scatter(
            name="channel",
            x=np.arange(len(reference)),
            y=[log.project(value) for value in reference.tolist()],
            customdata=reference,
            mode="markers",
            marker={"size": 4, "color": BLUE, "opacity": 0.7},
            hovertemplate="channel %{x}: %{customdata:.3g}<extra></extra>",
        ),
        go.Scatter(
            name="largest eight",
            x=marked,
            y=[log.project(float(reference[channel])) for channel in marked],
            customdata=[float(reference[channel]) for channel in marked],
            mode="markers+text",
            marker={"size": 9, "color": ORANGE, "symbol": "triangle-up"},
            text=label_apart(marked[:3], len(reference)),
            textposition="top center",
            cliponaxis=False,
            hovertemplate="channel %{x}: %{customdata:.3g}<extra></extra>",
        ),
    ]
    figure = make_figure(traces, "channel", "largest |x|", 320)
    figure.add_hline(log.project(median), line={"color": GREY, "dash": "dot", "width": 1.5})
    log.set_axis(figure)
    if not log.threshold:
        figure.update_yaxes(**log_axis(reference))
    return figure


def label_apart(channels: Sequence[int], count: int) -> list[str]:
    """The channels' numbers, but of those that are so close that they would be written into each
    other the first alone."""
    shown: list[int] = []
    for channel in channels:
        if all(abs(channel - other) >= APART * count for other in shown):
            shown.append(channel)
    return [str(channel) if channel in shown else "" for channel in channels]


def log_axis(values: np.ndarray) -> dict[str, Any]:
    """A logarithmic axis with room for a label above the largest of `values`, and with more ticks
    than the whole decades where there are not two of them between."""
    if not len(values):
        return DECADES
    low, high = np.log10(values.min()), np.log10(values.max())
    room = max(0.12 * (high - low), 0.04)
    axis = DECADES | {"range": [low - room, high + 1.6 * room]}
    if np.floor(high) - np.ceil(low) >= 1:
        return axis
    steps = [m * 10.0**n for n in range(-12, 12) for m in (1, 2, 5)]
    ticks = [step for step in steps if 10 ** (low - room) <= step <= 10 ** (high + 1.6 * room)]
    return axis | {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
