"""The chart of alternatives: what each costs, by its size."""

from collections.abc import Sequence

import plotly.graph_objects as go

from awqscope.app.figures.frame import (
    BLUE,
    DECADES,
    FROM_ZERO,
    GREEN,
    GREY,
    ORANGE,
    escape,
    make_figure,
)
from awqscope.app.words.studies.alternatives import OWN, name_alternative
from awqscope.diagnose.studies.alternatives.answer import (
    ADDED,
    AWQ,
    GGUF,
    NF4,
    RTN,
    Alternative,
    Alternatives,
)

OURS = "this run"
# Colour and symbol of each kind.
LOOKS = {
    OURS: (ORANGE, "star"),
    AWQ: (BLUE, "circle"),
    RTN: (GREY, "x"),
    NF4: (GREEN, "diamond"),
    GGUF: (GREEN, "square-open"),
    ADDED: (BLUE, "triangle-up-open"),
}
NAMES = {AWQ: "AWQ, otherwise", ADDED: "checkpoints of other tools"}
# From this ratio of the largest KL to the smallest on, the axis is logarithmic.
WIDE = 20


def draw_alternatives(found: Alternatives) -> go.Figure:
    """Bits a weight against KL, with intervals; the run's own models stand out and are named."""
    traces = []
    for kind, (colour, symbol) in LOOKS.items():
        here = [row for row in found.rows if (OURS if row.name in OWN else row.kind) == kind]
        if not here:
            continue
        traces.append(
            go.Scatter(
                name=NAMES.get(kind, kind),
                x=[row.bits_per_weight for row in here],
                y=[row.kl[0] for row in here],
                error_y=_error_bars(here),
                text=[escape(name_alternative(row)) for row in here],
                mode="markers",
                cliponaxis=False,
                marker={
                    "size": 15 if kind == OURS else 10,
                    "color": colour,
                    "symbol": symbol,
                    "line": {"color": colour, "width": 1.5},
                },
                hovertemplate="%{text}<br>%{x:.2f} bits a weight<br>KL %{y:.4g}<extra></extra>",
            )
        )
    figure = make_figure(traces, "bits a weight", "KL (nats a token)", 420)
    kls = [row.kl[0] for row in found.rows]
    # A logarithm would leave out one that costs nothing.
    is_wide = min(kls) > 0 and max(kls) / min(kls) > WIDE
    figure.update_yaxes(**DECADES if is_wide else FROM_ZERO)
    figure.update_xaxes(showgrid=True)
    return figure


def _error_bars(rows: Sequence[Alternative]) -> dict[str, object]:
    """The intervals of KL, as plotly takes them."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for value, _, high in (row.kl for row in rows)],
        "arrayminus": [value - low for value, low, _ in (row.kl for row in rows)],
        "color": GREY,
        "thickness": 1.2,
        "width": 3,
    }
