"""The chart of what would help a block."""

from collections.abc import Sequence

import plotly.graph_objects as go

from awqscope.app.figures.frame import BLUE, GREY, ORANGE, Row, error_bars, escape, make_figure

# verdict -> colour, symbol, and what the legend says.
LOOKS = {
    "helps": (BLUE, "circle", "helps"),
    "unsure": (GREY, "circle-open", "not sure"),
    "worse": (ORANGE, "x", "worse than nothing"),
}
KILOBYTE = 1e3


def draw_probe(rows: Sequence[Row]) -> go.Figure:
    """KL given back against the bytes that are added; named are those that none of fewer bytes
    beats. rows: `name`, `bytes`, `gain` with `gain_low` and `gain_high`, and `verdict` of each
    alternative."""
    best = find_unbeaten(rows)
    traces = []
    for verdict, (colour, symbol, legend) in LOOKS.items():
        here = [row for row in rows if row["verdict"] == verdict]
        if not here:
            continue
        traces.append(
            go.Scatter(
                name=legend,
                x=[row["bytes"] / KILOBYTE for row in here],
                y=[row["gain"] for row in here],
                text=[escape(row["name"]) if row["name"] in best else "" for row in here],
                hovertext=[escape(row["name"]) for row in here],
                error_y=error_bars(here, "gain"),
                mode="markers+text",
                textposition="top center",
                cliponaxis=False,
                marker={
                    "size": 10,
                    "color": colour,
                    "symbol": symbol,
                    "line": {"color": colour, "width": 1.5},
                },
                hovertemplate="%{hovertext}<br>%{x:,.1f} kB<br>KL %{y:.4g}<extra></extra>",
            )
        )
    figure = make_figure(traces, "bytes added (kB)", "KL given back (nats a token)", 380)
    figure.update_xaxes(showgrid=True)
    figure.update_yaxes(zeroline=True, zerolinecolor=GREY, zerolinewidth=1.5)
    return figure


def find_unbeaten(rows: Sequence[Row]) -> set[str]:
    """The names of those that surely help and of which no other gives back as much for as few
    bytes."""
    names: set[str] = set()
    most = 0.0
    for row in sorted(rows, key=lambda row: (row["bytes"], -row["gain"])):
        if row["verdict"] == "helps" and row["gain"] > most:
            names.add(row["name"])
            most = row["gain"]
    return names
