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
    number_columns,
)
from awqscope.diagnose.gate.shares import Cost

SMALL_HEIGHT = 190
# From this ratio of the largest KL to the smallest on, the axis is logarithmic.
WIDE = 20
# By whether it is the baseline and whether it is dominated: what a point is called, and its sign.
LOOKS = {
    (False, False): ("no other is as small and loses as little", "circle"),
    (False, True): ("dominated: one no larger loses no more", "circle-open"),
    (True, False): ("the baseline", "diamond"),
    (True, True): ("the baseline, dominated", "diamond-open"),
}
# The chart as a phone has it, in pixels: its plot, what may stand beside that, half of a point, a
# character of a name and its line.
PLOT, OUTSIDE, POINT, CHARACTER, LINE = (280, 240), 8, 6, 7.1, 15
# Where names and numbers may stand. The line falls: numbers are right above it or left below.
SIDES = ("top center", "bottom center")
CORNERS = ("top right", "bottom left", "top left", "bottom right")


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
    number_columns(figure, len(costs), 8)
    return figure


def sort_points(points: Sequence[Row]) -> list[Row]:
    """Points in the order in which `draw_pareto` numbers them: the smallest first."""
    return sorted(points, key=lambda point: (point["bytes"], point["kl"]))


def has_room(points: Sequence[Row]) -> bool:
    """Whether the names of all points are legible where the chart is as narrow as on a phone: none
    runs over an edge, and none over another."""
    ordered = sort_points(points)
    return None not in _place(ordered, [point["name"] for point in ordered], SIDES)


def _place(points: Sequence[Row], labels: Sequence[str], sides: Sequence[str]) -> list[str | None]:
    """On which side of each point its label stands on a narrow chart so that it lies on no point
    and no other label; None where there is no such side."""
    places = list(zip(_spread_sizes(points), _spread_damage(points), strict=True))
    taken = [_Box(x - POINT, y - POINT, x + POINT, y + POINT) for x, y in places]
    found: list[str | None] = []
    for label, (x, y) in zip(labels, places, strict=True):
        boxes = {side: _find_box(x, y, len(label) * CHARACTER, side) for side in sides}
        free = (side for side, box in boxes.items() if box.is_free(taken))
        side = next(free, None)
        found.append(side)
        taken += [boxes[side]] if side else []
    return found


@dataclass(frozen=True)
class _Box:
    """Where something is on the narrow chart, in pixels."""

    left: float
    low: float
    right: float
    high: float

    def is_free(self, others: Sequence["_Box"]) -> bool:
        """Whether it is on the chart and on none of the others."""
        if self.left < -OUTSIDE or self.right > PLOT[0] + OUTSIDE:
            return False
        return not any(
            self.left < other.right
            and other.left < self.right
            and self.low < other.high
            and other.low < self.high
            for other in others
        )


def _find_box(x: float, y: float, width: float, side: str) -> _Box:
    """The box of a label at a point."""
    up, _, along = side.partition(" ")
    low = y + POINT if up == "top" else y - POINT - LINE
    left = {"left": x - POINT - width, "center": x - width / 2, "right": x + POINT}[along]
    return _Box(left, low, left + width, low + LINE)


def _spread_sizes(points: Sequence[Row]) -> list[float]:
    """Where points are across the narrow chart, with the room that `_make_room` leaves."""
    sizes = [point["bytes"] / 1e6 for point in points]
    low, high = _make_room(sizes)
    return [PLOT[0] * (size - low) / (high - low) for size in sizes]


def _spread_damage(points: Sequence[Row]) -> list[float]:
    """How high points are on the narrow chart."""
    kls = [point["kl"] for point in points]
    if _is_wide(points):
        kls = [math.log10(kl / min(kls)) for kl in kls]
    most = max(kls, default=0.0) or 1.0
    return [PLOT[1] * kl / most for kl in kls]


def _is_wide(points: Sequence[Row]) -> bool:
    """Whether the axis of KL is logarithmic, which would leave out one that costs nothing."""
    kls = [point["kl"] for point in points]
    return bool(kls) and min(kls) > 0 and max(kls) / min(kls) > WIDE


def draw_pareto(points: Sequence[Row], *, numbered: bool = False) -> go.Figure:
    """Bytes against KL, with intervals. points: rows of name, bytes, kl, low, high (None where
    there is no bound), dominated and is_baseline. Dominated ones are hollow: another is no larger
    and loses no more. The line goes through those that are not. numbered: by their size from 1 on,
    for a list beside the chart, where their names have no room."""
    ordered = sort_points(points)
    front = [point for point in ordered if not point["dominated"]]
    line = go.Scatter(
        x=[point["bytes"] / 1e6 for point in front],
        y=[point["kl"] for point in front],
        mode="lines",
        line={"color": GREY, "width": 1, "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )
    labels = [str(at) if numbered else escape(point["name"]) for at, point in enumerate(ordered, 1)]
    sides = CORNERS if numbered else SIDES
    # Where nothing is free they take turns: neighbours' would lie on one another.
    turns = itertools.cycle(sides)
    labelled = [
        {**point, "label": label, "side": side or turn}
        for point, label, side, turn in zip(
            ordered, labels, _place(ordered, labels, sides), turns, strict=False
        )
    ]
    traces = [line]
    for (is_baseline, dominated), (name, symbol) in LOOKS.items():
        here = [
            point
            for point in labelled
            if (point["is_baseline"], point["dominated"]) == (is_baseline, dominated)
        ]
        if here:
            traces.append(_draw_points(here, name, symbol, ORANGE if is_baseline else BLUE))
    figure = make_figure(traces, "weights on disk (MB)", "KL (nats a token)", 420)
    figure.update_yaxes(**DECADES if _is_wide(points) else FROM_ZERO)
    figure.update_xaxes(showgrid=True, range=_make_room([point["bytes"] / 1e6 for point in points]))
    return figure


def _make_room(sizes: Sequence[float]) -> tuple[float, float]:
    """Ends of the axis that leave room for the names of the outermost."""
    least, most = min(sizes, default=0.0), max(sizes, default=1.0)
    spread = most - least or 0.1 * most or 1.0
    return least - 0.15 * spread, most + 0.15 * spread


def _draw_points(here: Sequence[Row], name: str, symbol: str, colour: str) -> go.Scatter:
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
        text=[point["label"] for point in here],
        customdata=[escape(point["name"]) for point in here],
        mode="markers+text",
        textposition=[point["side"] for point in here],
        cliponaxis=False,
        marker={
            "size": 11,
            "symbol": symbol,
            "color": colour,
            "line": {"width": 1.5, "color": colour},
        },
        hovertemplate="%{customdata}<br>%{x:,.2f} MB<br>KL %{y:.4g}<extra></extra>",
    )


def _reach(low: float | None, high: float | None) -> float:
    return 0.0 if low is None or high is None else high - low
