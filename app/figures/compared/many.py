"""Charts of several models: what each costs by its size, and block by block."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from awqscope.app.figures.frame import (
    BLUE,
    DECADES,
    FROM_ZERO,
    GREY,
    ORANGE,
    Row,
    escape,
    make_figure,
)
from awqscope.diagnose.gate.shares import Cost

SMALL_HEIGHT = 190
# From this ratio of the largest KL to the smallest on, the axis is logarithmic.
WIDE = 20


@dataclass(frozen=True)
class Scale:
    """What the charts of all models share: the ends of the axis of KL, and whether it is
    logarithmic."""

    least: float
    most: float
    is_log: bool

    @property
    def axis(self) -> dict[str, Any]:
        """The axis, as plotly takes it."""
        if not self.is_log:
            return {**FROM_ZERO, "range": [0, 1.05 * self.most or 1.0]}
        ends = [math.floor(math.log10(self.least)), math.log10(self.most) + 0.1]
        return {**DECADES, "range": ends}


def share_scale(costs: Sequence[Mapping[int, Cost]], *, is_log: bool) -> Scale:
    """One axis for the blocks of all models. Logarithmic it begins at the decade of the smallest
    KL above zero, but no more than five decades below the largest."""
    values = [cost[0] for each in costs for cost in each.values()]
    most = max(values, default=0.0)
    above = [value for value in values if value > 0]
    if not above:
        return Scale(0.0, most, False)
    return Scale(max(min(above), most / 1e5), most, is_log)


def draw_small(costs: Mapping[int, Cost], scale: Scale) -> go.Figure:
    """A model's KL by block, on an axis that all models share: bars from zero, or dots on a
    logarithmic axis, where nothing is at zero for a bar to stand on."""
    shown: dict[str, Any] = {
        "x": list(costs),
        "y": [cost[0] for cost in costs.values()],
        "customdata": [[cost[1], cost[2]] for cost in costs.values()],
        "hovertemplate": (
            "block %{x}<br>KL %{y:.4g} [%{customdata[0]:.4g}, %{customdata[1]:.4g}]<extra></extra>"
        ),
    }
    trace: Any = (
        go.Scatter(**shown, mode="markers", marker={"color": BLUE, "size": 5})
        if scale.is_log
        else go.Bar(**shown, marker={"color": BLUE})
    )
    figure = make_figure([trace], "", "", SMALL_HEIGHT, showlegend=False, bargap=0.15)
    figure.update_layout(margin={"l": 4, "r": 4, "t": 8, "b": 4})
    figure.update_yaxes(**scale.axis, nticks=4)
    figure.update_xaxes(tickmode="linear", dtick=max(1, len(costs) // 8))
    return figure


def draw_pareto(points: Sequence[Row]) -> go.Figure:
    """Bytes against KL, with intervals. points: rows of name, bytes, kl, low, high (None where
    there is no bound), dominated and is_baseline. Dominated ones are hollow: another is no larger
    and loses no more. The line goes through those that are not."""
    front = sorted((p for p in points if not p["dominated"]), key=lambda p: p["bytes"])
    looks = (
        ("no other is as small and loses as little", False, "circle"),
        ("dominated: another is no larger and loses no more", True, "circle-open"),
    )
    line = go.Scatter(
        x=[point["bytes"] / 1e6 for point in front],
        y=[point["kl"] for point in front],
        mode="lines",
        line={"color": GREY, "width": 1, "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )
    # Neighbours' names would lie on one another.
    sides = itertools.cycle(("top center", "bottom center"))
    by_size = sorted(points, key=lambda point: (point["bytes"], point["kl"]))
    places = {point["name"]: place for point, place in zip(by_size, sides, strict=False)}
    traces = [line]
    for name, dominated, symbol in looks:
        here = [point for point in points if point["dominated"] is dominated]
        if here:
            traces.append(_draw_points(here, name, symbol, places))
    figure = make_figure(traces, "weights on disk (MB)", "KL (nats a token)", 420)
    kls = [point["kl"] for point in points]
    # A logarithm would leave out one that costs nothing.
    is_wide = bool(kls) and min(kls) > 0 and max(kls) / min(kls) > WIDE
    figure.update_yaxes(**DECADES if is_wide else FROM_ZERO)
    figure.update_xaxes(showgrid=True, **_make_room([point["bytes"] / 1e6 for point in points]))
    return figure


def _make_room(sizes: Sequence[float]) -> dict[str, Any]:
    """Ends of the axis that leave room for the names of the outermost."""
    if not sizes:
        return {}
    spread = max(sizes) - min(sizes) or 0.1 * max(sizes)
    return {"range": [min(sizes) - 0.15 * spread, max(sizes) + 0.15 * spread]}


def _draw_points(
    here: Sequence[Row], name: str, symbol: str, places: Mapping[str, str]
) -> go.Scatter:
    return go.Scatter(
        name=name,
        x=[point["bytes"] / 1e6 for point in here],
        y=[point["kl"] for point in here],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [_reach(point["kl"], point["high"]) for point in here],
            "arrayminus": [_reach(point["low"], point["kl"]) for point in here],
            "color": GREY,
            "thickness": 1.2,
            "width": 3,
        },
        text=[escape(point["name"]) for point in here],
        mode="markers+text",
        textposition=[places[point["name"]] for point in here],
        cliponaxis=False,
        marker={
            "size": 11,
            "symbol": symbol,
            "color": [ORANGE if point["is_baseline"] else BLUE for point in here],
            "line": {"width": 1.5},
        },
        hovertemplate="%{text}<br>%{x:,.2f} MB<br>KL %{y:.4g}<extra></extra>",
    )


def _reach(low: float | None, high: float | None) -> float:
    return 0.0 if low is None or high is None else high - low
