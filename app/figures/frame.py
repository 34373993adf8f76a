"""What all charts share: colours, axes, the frame.

Colours are mid-tones that hold on light and dark ground alike; text and grid take theirs from the
page's style sheet, so that a change of theme needs no new figure. Nothing is told by colour alone.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from awqscope.mixedprec.words import write_number

BLUE, ORANGE, GREY, GREEN = "#4f8fcb", "#d97b1f", "#8a94a3", "#3a9d8b"
FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
METRIC_NAMES = {"kl": "KL (nats a token)", "delta_ppl": "ΔPPL"}

FROM_ZERO = {"type": "linear", "rangemode": "tozero"}
# Whole decades only: plotly's labels in between are unreadable.
DECADES = {"type": "log", "exponentformat": "power", "dtick": 1}

# As many whole numbers below a chart as a phone has room for.
MOST_TICKS = 10

# How many times smaller than the largest a value can be and still have a decade of its own.
DEEPEST = 1e5

Row = Mapping[str, Any]


def escape(text: str) -> str:
    """Text as plotly shows it literally: it reads a subset of HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def make_figure(traces: Sequence[Any], x: str, y: str, height: int, **layout: Any) -> go.Figure:
    """The house style: no ground of its own, thin grid, room for the labels."""
    figure = go.Figure(list(traces))
    axis = {"automargin": True, "zeroline": False, "ticks": "", "title_standoff": 12}
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 8, "r": 8, "t": 28, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13},
        hoverlabel={"font": {"family": FONT, "size": 13}},
        legend={"orientation": "h", "x": 0, "y": 1.08, "yanchor": "bottom", "title_text": ""},
        bargap=0.35,
        xaxis={**axis, "title_text": x, "showgrid": False},
        # Plotly would write thousandths as "m" and millionths as "µ".
        yaxis={**axis, "title_text": y, "gridwidth": 1, "exponentformat": "none"},
    )
    figure.update_layout(**layout)
    return figure


def number_columns(figure: go.Figure, count: int, most: int = MOST_TICKS) -> None:
    """Whole numbers below `count` columns that are numbered from 0, `most` of them at most, so that
    they neither turn nor run together where the chart is narrow."""
    steps = (first * 10**zeros for zeros in itertools.count() for first in (1, 2, 3, 4, 5))
    step = next(step for step in steps if count <= most * step)
    figure.update_xaxes(tickmode="linear", tick0=0, dtick=step)


@dataclass(frozen=True)
class LogScale:
    """A logarithmic axis that drops nothing. Where all values are above zero it is plotly's own;
    else values are set by `project` on a linear one: sign(x)·log10(1 + |x|/threshold), which is
    linear near zero and logarithmic further out, on both sides. threshold: 0 for plotly's own."""

    threshold: float
    least: float
    most: float

    def project(self, value: float) -> float:
        """Where a value is on the axis."""
        if self.threshold == 0:
            return value
        return math.copysign(math.log10(1 + abs(value) / self.threshold), value)

    @property
    def axis(self) -> dict[str, Any]:
        """The axis, as plotly takes it."""
        if self.threshold == 0:
            return DECADES
        decades = [self.threshold]
        while decades[-1] * 10 <= max(abs(self.least), abs(self.most)):
            decades.append(decades[-1] * 10)
        ticks = [-each for each in reversed(decades) if each <= -self.least]
        ticks += [0.0, *(each for each in decades if each <= self.most)]
        return {
            "type": "linear",
            "tickvals": [self.project(tick) for tick in ticks],
            "ticktext": [write_number(tick, "g") for tick in ticks],
            "zeroline": True,
            "zerolinecolor": GREY,
            "zerolinewidth": 1.5,
        }

    def set_axis(self, figure: go.Figure) -> None:
        """Give a figure this vertical axis, and say above it where it is not plotly's own."""
        figure.update_yaxes(**self.axis)
        if self.threshold:
            figure.add_annotation(
                x=0,
                y=1,
                xref="paper",
                yref="paper",
                xanchor="left",
                yanchor="bottom",
                text="signed log scale",
                font={"size": 11},
                showarrow=False,
            )


def choose_log(values: Iterable[float], bounds: Iterable[float] = ()) -> LogScale:
    """The scale for values and the bounds of their intervals: linear up to the decade of the
    smallest of the values, but over five decades at most."""
    known = [value for value in values if math.isfinite(value)]
    every = [*known, *(bound for bound in bounds if math.isfinite(bound))]
    least, most = min(every, default=0.0), max(every, default=0.0)
    if least > 0:
        return LogScale(0.0, least, most)
    sizes = [abs(value) for value in known if value] or [1.0]
    smallest = max(min(sizes), max(sizes) / DEEPEST)
    return LogScale(10.0 ** math.floor(math.log10(smallest)), least, most)


def error_bars(
    rows: Sequence[Row], metric: str, project: Callable[[float], float] = float
) -> dict[str, Any]:
    """The intervals of a metric, as plotly takes them. project: where a value is on the axis."""
    ends = [[project(row[f"{metric}{end}"]) for row in rows] for end in ("_low", "", "_high")]
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for _, value, high in zip(*ends, strict=True)],
        "arrayminus": [value - low for low, value, _ in zip(*ends, strict=True)],
        "color": GREY,
        "thickness": 1.2,
        "width": 3,
    }


def share_hover(figure: go.Figure, notes: Mapping[int, str]) -> None:
    """One hover for a whole column, wherever in it the mouse is: `notes` by x, on the first trace,
    and nothing on the others. A click in the column is one on the first trace's point."""
    first, *others = figure.data
    first.customdata = [notes.get(x, "") for x in first.x]
    first.hovertemplate = "%{customdata}<extra></extra>"
    for trace in others:
        trace.update(hoverinfo="skip", hovertemplate=None)
    figure.update_layout(hovermode="x", hoverdistance=-1, hoverlabel_align="left")
