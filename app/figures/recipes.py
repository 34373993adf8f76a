"""The chart of recipes by size."""

from collections.abc import Sequence

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


def draw_recipes(points: Sequence[Row]) -> go.Figure:
    """Bytes against KL of recipes. points: rows of name, bytes, kl, kind (`frontier`, in the order
    of size and drawn as a line, `rival`, `rival, measured`, `measured`, `predicted`, `yours`), and
    of the frontier `at`, which a click is told of. Every trace has its kind as `meta`.

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
            meta="frontier",
            customdata=[point.get("at") for point in line],
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
                meta=kind,
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
    figure = make_figure(traces, "weights on disk (MB)", "KL (nats a token)", 380)
    kls = [point["kl"] for point in points]
    # A logarithm would leave out a recipe that costs nothing.
    is_wide = bool(kls) and min(kls) > 0 and max(kls) / min(kls) > 20
    figure.update_yaxes(**DECADES if is_wide else FROM_ZERO)
    figure.update_xaxes(showgrid=True)
    return figure
