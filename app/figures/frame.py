"""What all charts share: colours, axes, the frame.

Colours are mid-tones that hold on light and dark ground alike; text and grid take theirs from the
page's style sheet, so that a change of theme needs no new figure. Nothing is told by colour alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

BLUE, ORANGE, GREY, GREEN = "#4f8fcb", "#d97b1f", "#8a94a3", "#3a9d8b"
FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
METRIC_NAMES = {"kl": "KL (nats a token)", "delta_ppl": "ΔPPL"}

FROM_ZERO = {"type": "linear", "rangemode": "tozero"}
# Whole decades only: plotly's labels in between are unreadable.
DECADES = {"type": "log", "exponentformat": "power", "dtick": 1}

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
        yaxis={**axis, "title_text": y, "gridwidth": 1},
    )
    figure.update_layout(**layout)
    return figure


def error_bars(rows: Sequence[Row], metric: str) -> dict[str, Any]:
    """The intervals of a metric, as plotly takes them."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [row[f"{metric}_high"] - row[metric] for row in rows],
        "arrayminus": [row[metric] - row[f"{metric}_low"] for row in rows],
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
