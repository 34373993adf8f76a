"""Charts of what blocks and units cost."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from app.figures.frame import (
    BLUE,
    DECADES,
    FROM_ZERO,
    GREEN,
    GREY,
    METRIC_NAMES,
    ORANGE,
    Row,
    error_bars,
    escape,
    make_figure,
    share_hover,
)
from app.predict import unit_kl
from app.words import interval, number


def draw_profile(rows: Sequence[Row], metric: str, scale: str) -> go.Figure:
    """The profile of the damage: a bar a block for isolated, lines for cumulative and restored.

    rows: of blocks.parquet. metric: `kl` or `delta_ppl`. scale: `linear` or `log`; values that a
    logarithm cannot show are left out there.
    """
    views = {
        view: [row for row in rows if row["view"] == view]
        for view in ("isolated", "cumulative", "restored")
    }
    isolated = views["isolated"]
    bars = go.Bar(
        name="isolated: only this block quantized",
        x=[row["block"] for row in isolated],
        y=[row[metric] for row in isolated],
        error_y=error_bars(isolated, metric),
        marker={
            "color": [ORANGE if row["flagged"] else BLUE for row in isolated],
        },
        hovertemplate="block %{x}<br>alone %{y:.5g}<extra></extra>",
    )
    lines = [
        go.Scatter(
            name=f"{view}: {meaning}",
            x=[row["block"] for row in views[view]],
            y=[row[metric] for row in views[view]],
            mode="lines+markers",
            marker={"symbol": symbol, "size": 7, "color": colour},
            line={"color": colour, "dash": dash, "width": 2},
            hovertemplate=f"block %{{x}}<br>{view} %{{y:.5g}}<extra></extra>",
        )
        for view, meaning, colour, dash, symbol in (
            ("cumulative", "blocks 0 to this one", GREEN, "solid", "circle"),
            ("restored", "all but this one", GREY, "dot", "diamond"),
        )
    ]
    figure = make_figure([bars, *lines], "block", METRIC_NAMES[metric], 400)
    figure.update_yaxes(**DECADES if scale == "log" else FROM_ZERO)
    for row in isolated:
        if row["flagged"]:
            figure.add_annotation(
                x=row["block"],
                y=1,
                yref="paper",
                yanchor="bottom",
                text="▲ flagged",
                showarrow=False,
            )
    share_hover(figure, write_notes(views, metric))
    # No label left of block 0, however wide the steps.
    edges = [-0.6, len(isolated) - 0.4]
    figure.update_xaxes(tickmode="linear", dtick=max(1, len(isolated) // 16), range=edges)
    return figure


def write_notes(views: Mapping[str, Sequence[Row]], metric: str) -> dict[int, str]:
    """By block, what all three views say of it, with their intervals. views: view -> rows."""
    names = {"isolated": "alone", "cumulative": "up to here", "restored": "if restored"}
    form = ".5f" if metric == "kl" else "+.4f"
    notes: dict[int, list[str]] = {}
    for view, name in names.items():
        for row in views[view]:
            bounds = interval((row[f"{metric}_low"], row[f"{metric}_high"]), form)
            lines = notes.setdefault(row["block"], [f"<b>Block {row['block']}</b>"])
            if row["flagged"] and view == "isolated":
                lines[0] += " ▲ flagged"
            lines.append(f"{name} {number(row[metric], form)} {bounds}")
    return {block: "<br>".join(lines) for block, lines in notes.items()}


def draw_units(here: Sequence[Row], kinds: Sequence[str] = ()) -> go.Figure:
    """A heat map of blocks by unit kinds, in the order of `kinds` where it is given: log10 of each
    unit's KL, exact where it was measured, else estimated. here: rows of units.parquet at one
    width."""
    kinds = list(kinds) or list(dict.fromkeys(row["kind"] for row in here))
    blocks = sorted({row["block"] for row in here})
    values = np.full((len(kinds), len(blocks)), np.nan)
    notes = np.full(values.shape, "", dtype=object)
    for row in here:
        place = kinds.index(row["kind"]), blocks.index(row["block"])
        kl = unit_kl(row)
        values[place] = np.log10(max(kl, 1e-9))
        known = "measured" if row["exact_kl"] is not None else "estimated"
        notes[place] = f"{escape(row['unit'])}: KL {kl:.3g}, {known}"
    shown = values[~np.isnan(values)]
    ends = (np.floor(shown.min()), np.ceil(shown.max())) if len(shown) else (0, -1)
    ticks = np.arange(ends[0], ends[1] + 1)
    heat = go.Heatmap(
        x=blocks,
        y=kinds,
        z=values,
        customdata=notes,
        hovertemplate="%{customdata}<extra></extra>",
        colorscale="Cividis",
        xgap=2,
        ygap=2,
        colorbar={
            "title": {"text": "KL", "side": "top"},
            "tickvals": list(ticks),
            "ticktext": [f"1e{int(tick)}" for tick in ticks],
            "thickness": 12,
            "outlinewidth": 0,
        },
    )
    figure = make_figure([heat], "block", "", 120 + 38 * len(kinds))
    figure.update_yaxes(showgrid=False, autorange="reversed", type="category")
    figure.update_xaxes(tickmode="linear", dtick=max(1, len(blocks) // 16))
    return figure


def draw_depth(rows: Sequence[Row], block: int) -> go.Figure:
    """SQNR of the blocks' outputs along the depth, this block marked.

    rows: of activations.parquet, site `output`, model `uniform`.
    """
    outputs = sorted(rows, key=lambda row: row["block"])
    figure = make_figure(
        [
            go.Scatter(
                name="SQNR of the output",
                x=[row["block"] for row in outputs],
                y=[row["sqnr"] for row in outputs],
                customdata=[row["cosine"] for row in outputs],
                mode="lines+markers",
                line={"color": BLUE, "width": 2},
                marker={
                    "size": [12 if row["block"] == block else 6 for row in outputs],
                    "symbol": ["diamond" if row["block"] == block else "circle" for row in outputs],
                    "color": [ORANGE if row["block"] == block else BLUE for row in outputs],
                },
                hovertemplate=(
                    "block %{x}<br>SQNR %{y:.1f} dB<br>cosine %{customdata:.5f}<extra></extra>"
                ),
            )
        ],
        "block",
        "SQNR (dB), higher is better",
        320,
        showlegend=False,
    )
    figure.update_xaxes(tickmode="linear", dtick=max(1, len(outputs) // 16))
    return figure


def draw_differences(rows: Sequence[Row], metric: str) -> go.Figure:
    """Difference of two runs by block, with intervals. rows: of block, difference, low, high."""
    figure = make_figure(
        [
            go.Bar(
                x=[row["block"] for row in rows],
                y=[row["difference"] for row in rows],
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [row["high"] - row["difference"] for row in rows],
                    "arrayminus": [row["difference"] - row["low"] for row in rows],
                    "color": GREY,
                    "thickness": 1.2,
                    "width": 3,
                },
                marker={"color": [ORANGE if row["difference"] > 0 else BLUE for row in rows]},
                text=["worse" if r["low"] > 0 else "better" if r["high"] < 0 else "" for r in rows],
                textposition="outside",
                cliponaxis=False,
                hovertemplate="block %{x}<br>B − A %{y:+.4g}<extra></extra>",
            )
        ],
        "block",
        f"{METRIC_NAMES[metric]}, B − A",
        360,
        showlegend=False,
    )
    figure.update_xaxes(tickmode="linear", dtick=max(1, len(rows) // 16))
    return figure
