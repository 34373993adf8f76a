"""Charts of what blocks and units cost."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from awqscope.app.figures.frame import (
    BLUE,
    FROM_ZERO,
    GREEN,
    GREY,
    METRIC_NAMES,
    ORANGE,
    Row,
    choose_log,
    error_bars,
    escape,
    make_figure,
    number_columns,
    share_hover,
)
from awqscope.app.words.predict import unit_kl
from awqscope.mixedprec.words import write_interval, write_number

# What "▲ flagged" takes of the width of a narrow chart, and half of its sign in pixels.
WORD = 0.25
HALF_SIGN = 6


def draw_profile(
    rows: Sequence[Row], metric: str, scale: str, floor: float | None = None
) -> go.Figure:
    """The profile of the damage: isolated by block, lines for cumulative and restored.

    rows: of blocks.parquet. metric: `kl` or `delta_ppl`. scale: `linear`, with a bar a block from
    zero, or `log`, where nothing is at zero for a bar to stand on: a dot with its interval, and a
    scale that has a place for what is not above zero. floor: the KL below which damage is noise,
    drawn where the scale shows it.
    """
    views = {
        view: [row for row in rows if row["view"] == view]
        for view in ("isolated", "cumulative", "restored")
    }
    isolated = views["isolated"]
    is_log = scale == "log"
    bounds = (row[f"{metric}{end}"] for row in isolated for end in ("_low", "_high"))
    log = choose_log((row[metric] for row in rows), bounds) if is_log else None
    project = log.project if log else float
    shown: dict[str, Any] = {
        "name": "isolated: only this block quantized",
        "x": [row["block"] for row in isolated],
        "y": [project(row[metric]) for row in isolated],
        "error_y": error_bars(isolated, metric, project),
        "customdata": [row[metric] for row in isolated],
        "hovertemplate": "block %{x}<br>alone %{customdata:.5g}<extra></extra>",
    }
    colours = [ORANGE if row["flagged"] else BLUE for row in isolated]
    if is_log:
        symbols = ["triangle-up" if row["flagged"] else "square" for row in isolated]
        marker = {"color": colours, "symbol": symbols, "size": 11}
        # Above the lines: the first and the guilty block's are where a line is too.
        alone: Any = go.Scatter(**shown, mode="markers", marker=marker, zorder=1)
    else:
        alone = go.Bar(**shown, marker={"color": colours})
    lines = [
        go.Scatter(
            name=f"{view}: {meaning}",
            x=[row["block"] for row in views[view]],
            y=[project(row[metric]) for row in views[view]],
            customdata=[row[metric] for row in views[view]],
            mode="lines+markers",
            marker={"symbol": symbol, "size": 7, "color": colour},
            line={"color": colour, "dash": dash, "width": 2},
            hovertemplate=f"block %{{x}}<br>{view} %{{customdata:.5g}}<extra></extra>",
        )
        for view, meaning, colour, dash, symbol in (
            ("cumulative", "blocks 0 to this one", GREEN, "solid", "circle"),
            ("restored", "all but this one", GREY, "dot", "diamond"),
        )
    ]
    if metric == "kl" and floor and _shows_floor(rows, floor, is_log=is_log):
        lines.append(_draw_floor(project(floor), floor, len(isolated)))
    figure = make_figure([alone, *lines], "block", METRIC_NAMES[metric], 400)
    if log:
        log.set_axis(figure)
    else:
        figure.update_yaxes(**FROM_ZERO)
    _mark_flagged(figure, isolated)
    share_hover(figure, write_notes(views, metric))
    # No label left of block 0, however wide the steps.
    edges = [-0.6, len(isolated) - 0.4]
    number_columns(figure, len(isolated))
    figure.update_xaxes(range=edges)
    return figure


def _mark_flagged(figure: go.Figure, isolated: Sequence[Row]) -> None:
    """A sign above each flagged block, with the word on that side of it where a narrow chart has
    room for it: not beyond an edge, and not over the sign of the next."""
    flagged = [row["block"] for row in isolated if row["flagged"]]
    places = [(block + 0.6) / len(isolated) for block in flagged]
    taken = 0.0
    for at, (block, place) in enumerate(zip(flagged, places, strict=True)):
        following = places[at + 1] if at + 1 < len(places) else 1.0
        text, side, shift = "▲", "center", 0
        if following - place >= WORD:
            text, side, shift = "▲ flagged", "left", -HALF_SIGN
        elif place - taken >= WORD:
            text, side, shift = "flagged ▲", "right", HALF_SIGN
        taken = place + WORD if side == "left" else place
        figure.add_annotation(
            x=block,
            y=1,
            yref="paper",
            xanchor=side,
            xshift=shift,
            yanchor="bottom",
            text=text,
            showarrow=False,
        )


def _shows_floor(rows: Sequence[Row], floor: float, *, is_log: bool) -> bool:
    """Whether a scale that is made for these rows has a place for the floor."""
    above = [row["kl"] for row in rows if row["kl"] > 0]
    return bool(above) and floor >= (min(above) / 10 if is_log else max(above) / 100)


def _draw_floor(at: float, floor: float, blocks: int) -> go.Scatter:
    """The noise floor, a line across all blocks with its name on it. at: where it is on the
    axis."""
    return go.Scatter(
        name=f"noise floor: KL {floor:.2g}",
        x=[-0.5, blocks - 0.5],
        y=[at, at],
        text=["noise floor", ""],
        textposition="top right",
        mode="lines+text",
        line={"color": GREY, "dash": "dash", "width": 1.5},
    )


def write_notes(views: Mapping[str, Sequence[Row]], metric: str) -> dict[int, str]:
    """By block, what all three views say of it, with their intervals. views: view -> rows."""
    names = {"isolated": "alone", "cumulative": "up to here", "restored": "if restored"}
    form = ".5f" if metric == "kl" else "+.4f"
    notes: dict[int, list[str]] = {}
    for view, name in names.items():
        for row in views[view]:
            bounds = write_interval((row[f"{metric}_low"], row[f"{metric}_high"]), form)
            lines = notes.setdefault(row["block"], [f"<b>Block {row['block']}</b>"])
            if row["flagged"] and view == "isolated":
                lines[0] += " ▲ flagged"
            lines.append(f"{name} {write_number(row[metric], form)} {bounds}")
    return {block: "<br>".join(lines) for block, lines in notes.items()}


def draw_units(here: Sequence[Row], kinds: Sequence[str] = ()) -> go.Figure:
    """A heat map of blocks by unit kinds, in the order of `kinds` where it is given: log10 of each
    unit's KL, exact where it was measured, else estimated. A unit that costs nothing has the colour
    of the scale's lower end, which is that of the smallest that costs something. here: rows of
    units.parquet at one width."""
    kinds = list(kinds) or list(dict.fromkeys(row["kind"] for row in here))
    blocks = sorted({row["block"] for row in here})
    values = np.full((len(kinds), len(blocks)), np.nan)
    notes = np.full(values.shape, "", dtype=object)
    floor = 10 ** np.floor(
        np.log10(min((kl for row in here if (kl := unit_kl(row)) > 0), default=1))
    )
    for row in here:
        cell = kinds.index(row["kind"]), blocks.index(row["block"])
        kl = unit_kl(row)
        values[cell] = np.log10(max(kl, floor))
        known = "measured" if row["exact_kl"] is not None else "estimated"
        notes[cell] = f"{escape(row['unit'])}: KL {kl:.3g}, {known}"
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
    number_columns(figure, len(blocks))
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
    number_columns(figure, len(outputs))
    return figure


def draw_differences(rows: Sequence[Row], metric: str, *, judged: bool = True) -> go.Figure:
    """Difference of two models by block, with intervals. rows: of block, difference, low, high.
    judged: whether a difference that is sure is better or worse for it, and said to be."""
    bars = go.Bar(
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
        marker={"color": [ORANGE if judged and row["difference"] > 0 else BLUE for row in rows]},
        hovertemplate="block %{x}<br>B − A %{y:+.4g}<extra></extra>",
    )
    sure = [row for row in rows if judged and (row["low"] > 0 or row["high"] < 0)]
    # Beyond the interval's end, which would cross them.
    words = go.Scatter(
        x=[row["block"] for row in sure],
        y=[row["high"] if row["low"] > 0 else row["low"] for row in sure],
        text=["worse" if row["low"] > 0 else "better" for row in sure],
        textposition=["top center" if row["low"] > 0 else "bottom center" for row in sure],
        mode="text",
        cliponaxis=False,
        hoverinfo="skip",
    )
    figure = make_figure(
        [bars, words], "block", f"{METRIC_NAMES[metric]}, B − A", 360, showlegend=False
    )
    number_columns(figure, len(rows))
    return figure
