"""Charts, as pure functions: rows of a run in, a plotly figure out.

Colours are mid-tones that hold on light and dark ground alike; text and grid take theirs from the
page's style sheet, so that a change of theme needs no new figure. Nothing is told by colour alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.predict import unit_kl

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


def _figure(traces: Sequence[Any], x: str, y: str, height: int, **layout: Any) -> go.Figure:
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


def _error_bars(rows: Sequence[Row], metric: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [row[f"{metric}_high"] - row[metric] for row in rows],
        "arrayminus": [row[metric] - row[f"{metric}_low"] for row in rows],
        "color": GREY,
        "thickness": 1.2,
        "width": 3,
    }


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
        error_y=_error_bars(isolated, metric),
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
    figure = _figure([bars, *lines], "block", METRIC_NAMES[metric], 400)
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
    # No label left of block 0, however wide the steps.
    edges = [-0.6, len(isolated) - 0.4]
    figure.update_xaxes(tickmode="linear", dtick=max(1, len(isolated) // 16), range=edges)
    return figure


def draw_units(here: Sequence[Row]) -> go.Figure:
    """A heat map of blocks by unit kinds: log10 of each unit's KL, exact where it was measured,
    else estimated. here: rows of units.parquet at one width."""
    kinds = list(dict.fromkeys(row["kind"] for row in here))
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
    figure = _figure([heat], "block", "", 120 + 38 * len(kinds))
    figure.update_yaxes(showgrid=False, autorange="reversed", type="category")
    figure.update_xaxes(tickmode="linear", dtick=max(1, len(blocks) // 16))
    return figure


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
    figure = _figure(traces, "activation (signed log scale)", "share of values", 320)
    reach = max(abs(edges[first]), abs(edges[last])) if len(edges) > 1 else 1
    decades = [10.0**n for n in range(-2, 6) if 10.0**n <= reach * 1.01]
    ticks = [-value for value in reversed(decades)] + [0.0] + decades
    figure.update_xaxes(tickvals=_signed_log(np.array(ticks)), ticktext=[f"{t:g}" for t in ticks])
    figure.update_yaxes(**DECADES)
    return figure


def _signed_log(values: np.ndarray) -> np.ndarray:
    """sign(x)·log10(1 + |x|/0.01): linear near zero, logarithmic in the tails."""
    return np.sign(values) * np.log10(1 + np.abs(values) / 0.01)


def draw_channels(
    largest: Mapping[str, np.ndarray], median: float, outliers: Sequence[int]
) -> go.Figure:
    """Largest |x| of every channel of a site, the outliers marked. largest: model -> [channels]."""
    reference = largest["reference"]
    marked = [channel for channel in outliers if channel < len(reference)]
    traces = [
        go.Scatter(
            name="channel",
            x=np.arange(len(reference)),
            y=reference,
            mode="markers",
            marker={"size": 4, "color": BLUE, "opacity": 0.7},
            hovertemplate="channel %{x}: %{y:.3g}<extra></extra>",
        ),
        go.Scatter(
            name="largest eight",
            x=marked,
            y=[float(reference[channel]) for channel in marked],
            mode="markers+text",
            marker={"size": 9, "color": ORANGE, "symbol": "triangle-up"},
            text=[str(channel) for channel in marked[:3]],
            textposition="top center",
            hovertemplate="channel %{x}: %{y:.3g}<extra></extra>",
        ),
    ]
    figure = _figure(traces, "channel", "largest |x|", 320)
    figure.add_hline(median, line={"color": GREY, "dash": "dot", "width": 1.5})
    figure.update_yaxes(**DECADES)
    return figure


def draw_depth(rows: Sequence[Row], block: int) -> go.Figure:
    """SQNR of the blocks' outputs along the depth, this block marked.

    rows: of activations.parquet, site `output`, model `uniform`.
    """
    outputs = sorted(rows, key=lambda row: row["block"])
    figure = _figure(
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
    figure = _figure(traces, "block", METRIC_NAMES["kl"], 260)
    figure.add_hline(uniform, line={"color": ORANGE, "dash": "dash", "width": 1.5})
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(tickmode="linear", dtick=max(1, len(blocks) // 12))
    return figure


def draw_recipes(points: Sequence[Row]) -> go.Figure:
    """Bytes against KL of recipes. points: rows of name, bytes, kl, kind (`frontier`, in the order
    of size and drawn as a line, `rival`, `rival, measured`, `measured`, `predicted`, `yours`).

    The line is nowhere above a recipe, if its points are of the lower convex hull: straight on a
    logarithmic axis, it lies below the hull's own chords."""
    line = [point for point in points if point["kind"] == "frontier"]
    looks = {
        "rival": (GREY, "x-thin", "rivals at the recipe's size, predicted"),
        "rival, measured": (GREY, "diamond", "rivals, measured"),
        "measured": (BLUE, "circle", "measured"),
        "predicted": (GREY, "circle-open", "predicted from the sweep"),
        "yours": (ORANGE, "star-open", "yours, predicted"),
    }
    traces = [
        go.Scatter(
            name="frontier, predicted",
            x=[point["bytes"] / 1e6 for point in line],
            y=[point["kl"] for point in line],
            text=[escape(point["name"]) for point in line],
            mode="lines+markers",
            line={"color": ORANGE, "width": 1.5},
            marker={"color": ORANGE, "size": 4},
            hovertemplate="%{text}<br>%{x:,.2f} MB<br>KL %{y:.4g}<extra></extra>",
        )
    ] * bool(line)
    for kind, (colour, symbol, name) in looks.items():
        here = [point for point in points if point["kind"] == kind]
        here.sort(key=lambda point: point["bytes"])
        if not here:
            continue
        traces.append(
            go.Scatter(
                name=name,
                x=[point["bytes"] / 1e6 for point in here],
                y=[point["kl"] for point in here],
                text=[escape(point["name"]) for point in here],
                mode="markers+text" if kind == "measured" else "markers",
                # Little lies below the frontier; the smallest's name would run into the axis there.
                textposition=["top center", *["bottom center"] * (len(here) - 1)],
                cliponaxis=False,
                marker={
                    "size": 17 if kind == "yours" else 10,
                    "color": colour,
                    "symbol": symbol,
                    "line": {"color": colour, "width": 1.5},
                },
                hovertemplate="%{text}<br>%{x:,.2f} MB<br>KL %{y:.4g}<extra></extra>",
            )
        )
    figure = _figure(traces, "weights on disk (MB)", "KL (nats a token)", 380)
    kls = [point["kl"] for point in points]
    # A logarithm would leave out a recipe that costs nothing.
    is_wide = bool(kls) and min(kls) > 0 and max(kls) / min(kls) > 20
    figure.update_yaxes(**DECADES if is_wide else FROM_ZERO)
    figure.update_xaxes(showgrid=True)
    return figure


def draw_positions(pieces: Sequence[Row], parting: int | None) -> go.Figure:
    """KL by token of a prompt and its continuation: bars for uniform, lines for the run's recipe
    and for the repair where they were measured. pieces: of an explanation. parting: the place among
    them where uniform parts from the reference."""
    places = [place for place, piece in enumerate(pieces) if piece["kl_uniform"] is not None]
    traces: list[Any] = []
    for part, label, colour in (
        ("prompt", "uniform, in the prompt", GREY),
        ("continuation", "uniform, going on", BLUE),
    ):
        here = [place for place in places if pieces[place]["part"] == part]
        bars = go.Bar(
            name=label,
            x=here,
            y=[pieces[place]["kl_uniform"] for place in here],
            text=[escape(repr(pieces[place]["text"])) for place in here],
            textposition="none",
            marker={"color": colour},
            hovertemplate="%{text}<br>uniform %{y:.4g}<extra></extra>",
        )
        traces.append(bars)
    for name, label, colour, symbol in (
        ("mixed", "the run's recipe", GREEN, "circle"),
        ("repaired", "the repair", ORANGE, "diamond"),
    ):
        known = [place for place in places if pieces[place][f"kl_{name}"] is not None]
        if known:
            traces.append(
                go.Scatter(
                    name=label,
                    x=known,
                    y=[pieces[place][f"kl_{name}"] for place in known],
                    mode="lines+markers",
                    line={"color": colour, "width": 1.5, "dash": "dot"},
                    marker={"symbol": symbol, "size": 5},
                    hovertemplate=f"{label} %{{y:.4g}}<extra></extra>",
                )
            )
    figure = _figure(traces, "token of the text", METRIC_NAMES["kl"], 340, barmode="overlay")
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
    figure = _figure(
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
    figure.update_xaxes(tickmode="linear", dtick=max(1, len(numbers) // 16))
    return figure


def draw_differences(rows: Sequence[Row], metric: str) -> go.Figure:
    """Difference of two runs by block, with intervals. rows: of block, difference, low, high."""
    figure = _figure(
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
