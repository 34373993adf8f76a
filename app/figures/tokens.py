"""Charts of tokens and passages: what each costs, and which block is to blame."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from awqscope.app.figures.frame import (
    BLUE,
    GREEN,
    GREY,
    METRIC_NAMES,
    ORANGE,
    Row,
    escape,
    make_figure,
    number_columns,
)


def draw_token(
    alone: Sequence[float], restored: Sequence[float] | None, uniform: float
) -> go.Figure:
    """One token's KL by block: with only that block quantized, and with all but it. uniform: with
    all of them."""
    blocks = list(range(len(alone)))
    traces: list[Any] = [
        go.Bar(
            name="only this block quantized",
            x=blocks,
            y=list(alone),
            marker={"color": BLUE},
            hovertemplate="block %{x}<br>alone %{y:.4g}<extra></extra>",
        )
    ]
    if restored:
        traces.append(
            go.Scatter(
                name="all but this block",
                x=blocks,
                y=list(restored),
                mode="lines+markers",
                line={"color": GREY, "dash": "dot", "width": 2},
                marker={"symbol": "diamond", "size": 7},
                hovertemplate="block %{x}<br>restored %{y:.4g}<extra></extra>",
            )
        )
    figure = make_figure(traces, "block", METRIC_NAMES["kl"], 260)
    figure.add_hline(uniform, line={"color": ORANGE, "dash": "dash", "width": 1.5})
    figure.update_yaxes(rangemode="tozero")
    number_columns(figure, len(blocks))
    return figure


def draw_positions(pieces: Sequence[Row], parting: int | None) -> go.Figure:
    """KL by token of a prompt and its continuation: bars for uniform, lines for the run's recipe
    and for the repair where they were measured. pieces: of an explanation. parting: the place among
    them where uniform parts from the reference."""
    positions = [
        position for position, piece in enumerate(pieces) if piece["kl_uniform"] is not None
    ]
    traces: list[Any] = []
    for part, label, colour in (
        ("prompt", "uniform, in the prompt", GREY),
        ("continuation", "uniform, going on", BLUE),
    ):
        here = [position for position in positions if pieces[position]["part"] == part]
        bars = go.Bar(
            name=label,
            x=here,
            y=[pieces[position]["kl_uniform"] for position in here],
            text=[escape(repr(pieces[position]["text"])) for position in here],
            textposition="none",
            marker={"color": colour},
            hovertemplate="%{text}<br>uniform %{y:.4g}<extra></extra>",
        )
        traces.append(bars)
    for name, label, colour, symbol in (
        ("mixed", "the run's recipe", GREEN, "circle"),
        ("repaired", "the repair", ORANGE, "diamond"),
    ):
        known = [position for position in positions if pieces[position][f"kl_{name}"] is not None]
        if known:
            traces.append(
                go.Scatter(
                    name=label,
                    x=known,
                    y=[pieces[position][f"kl_{name}"] for position in known],
                    mode="lines+markers",
                    line={"color": colour, "width": 1.5, "dash": "dot"},
                    marker={"symbol": symbol, "size": 5},
                    hovertemplate=f"{label} %{{y:.4g}}<extra></extra>",
                )
            )
    figure = make_figure(traces, "token of the text", METRIC_NAMES["kl"], 340, barmode="overlay")
    start = sum(piece["part"] == "prompt" for piece in pieces)
    figure.add_vline(start - 0.5, line={"color": GREY, "dash": "dash", "width": 1})
    if parting is not None:
        figure.add_annotation(
            x=parting, y=1, yref="paper", yanchor="bottom", text="▼ parts", showarrow=False
        )
    figure.update_yaxes(rangemode="tozero")
    return figure


def draw_blame(blocks: Sequence[Row], reference: float, uniform: float) -> go.Figure:
    """The margin of the reference's token by block: quantized alone and restored alone; below zero
    another token is preferred. blocks: of an explanation. reference, uniform: the margins of these
    models."""
    numbers = [row["block"] for row in blocks]
    figure = make_figure(
        [
            go.Bar(
                name="only this block quantized",
                x=numbers,
                y=[row["isolated_margin"] for row in blocks],
                marker={"color": [ORANGE if row["breaks"] else BLUE for row in blocks]},
                hovertemplate="block %{x}<br>alone %{y:+.3f}<extra></extra>",
            ),
            go.Scatter(
                name="all but this block",
                x=numbers,
                y=[row["restored_margin"] for row in blocks],
                mode="markers",
                marker={
                    "size": [13 if row["restores"] else 8 for row in blocks],
                    "symbol": ["diamond" if row["restores"] else "diamond-open" for row in blocks],
                    "color": [GREEN if row["restores"] else GREY for row in blocks],
                },
                hovertemplate="block %{x}<br>restored %{y:+.3f}<extra></extra>",
            ),
        ],
        "block",
        "margin (nats)",
        340,
    )
    figure.add_hline(0, line={"color": GREY, "width": 1.5})
    for margin, name in ((reference, "16-bit"), (uniform, "uniform")):
        figure.add_hline(
            margin,
            line={"color": GREY, "dash": "dot", "width": 1},
            annotation={"text": name, "font": {"size": 11}},
        )
    number_columns(figure, len(numbers))
    return figure
