"""A number over the releases of a model."""

from collections.abc import Sequence

import plotly.graph_objects as go

from awqscope.app.figures.frame import BLUE, GREY, escape, make_figure

# A number and its bounds, None where there is none.
Point = tuple[float | None, float | None, float | None]
LONGEST = 16


def draw_trend(
    names: Sequence[str], points: Sequence[Point], label: str, *, from_zero: bool = True
) -> go.Figure:
    """A number of each release, in the order of time, with its interval. names, points: the same
    length; a release without the number has a gap. from_zero: whether the axis reaches to zero."""

    def reach(from_: float | None, to: float | None) -> float:
        return 0.0 if from_ is None or to is None else to - from_

    at = list(range(len(names)))
    trace = go.Scatter(
        x=at,
        y=[value for value, _, _ in points],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [reach(value, high) for value, _, high in points],
            "arrayminus": [reach(low, value) for value, low, _ in points],
            "color": GREY,
            "thickness": 1.2,
            "width": 3,
        },
        text=[escape(name) for name in names],
        mode="lines+markers",
        line={"color": BLUE, "width": 2},
        marker={"size": 8, "color": BLUE},
        hovertemplate="%{text}<br>%{y:.5g}<extra></extra>",
    )
    figure = make_figure([trace], "", label, 280, showlegend=False)
    figure.update_xaxes(
        tickmode="array",
        tickvals=at,
        ticktext=[escape(_shorten(name)) for name in names],
        # To the left, where there is room for the last one too.
        tickangle=-30,
        range=[-0.4, len(names) - 0.6],
    )
    figure.update_yaxes(rangemode="tozero" if from_zero else "normal")
    return figure


def _shorten(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
