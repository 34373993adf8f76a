"""The chart of what int8 inputs cost, beside the run's own weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from awqscope.app.figures.frame import (
    BLUE,
    GREEN,
    GREY,
    METRIC_NAMES,
    ORANGE,
    choose_log,
    error_bars,
    make_figure,
    number_columns,
    share_hover,
)
from awqscope.app.words.studies.activations import (
    NAMES,
    SIGN,
    name_weights,
    write_damage,
)
from awqscope.diagnose.entries.part import Bounded
from awqscope.diagnose.studies.int8_inputs.answer import (
    INT8,
    LLM_INT8,
    SMOOTHQUANT,
    Activations,
)

# By method: colour and sign. Weights are drawn as the first.
LOOKS = {
    INT8: (BLUE, "circle"),
    LLM_INT8: (GREEN, "diamond"),
    SMOOTHQUANT: (ORANGE, "cross"),
}
WEIGHTS_LOOK = (GREY, "square")
# How far apart the series of one block are, in blocks.
STEP = 0.18


@dataclass(frozen=True)
class _Series:
    """What is drawn in one colour: KL by block, and which blocks refuse."""

    name: str
    look: tuple[str, str]
    kl: Sequence[Bounded]
    refuses: Sequence[bool]


def _list_series(answer: Activations) -> list[_Series]:
    weights = _Series(
        name_weights(answer),
        WEIGHTS_LOOK,
        [each.kl for each in answer.weights],
        [each.refuses for each in answer.weights],
    )
    measured = [
        _Series(
            NAMES[found.method],
            LOOKS[found.method],
            [each.isolated.kl for each in found.blocks],
            [each.refuses for each in found.blocks],
        )
        for found in answer.methods
    ]
    return [weights, *measured]


def draw_inputs(answer: Activations) -> go.Figure:
    """KL of each block alone, a dot a block and method with its interval, on a log scale: int8
    costs hundreds of times less than 4 bits where nothing is wrong. What refuses has a ▲ above."""
    series = _list_series(answer)
    values = [kl for each in series for kl in each.kl]
    log = choose_log((kl[0] for kl in values), (bound for kl in values for bound in kl[1:]))
    blocks = [each.block for each in answer.weights]
    middle = (len(series) - 1) / 2
    traces = []
    for number, each in enumerate(series):
        rows = [{"kl": kl[0], "kl_low": kl[1], "kl_high": kl[2]} for kl in each.kl]
        colour, symbol = each.look
        traces.append(
            go.Scatter(
                name=each.name,
                x=[block + STEP * (number - middle) for block in blocks],
                y=[log.project(row["kl"]) for row in rows],
                error_y=error_bars(rows, "kl", log.project),
                mode="markers+text",
                marker={"color": colour, "symbol": symbol, "size": 9},
                text=[SIGN if refuses else "" for refuses in each.refuses],
                textposition="top center",
                cliponaxis=False,
            )
        )
    figure = make_figure(traces, "block", METRIC_NAMES["kl"], 380)
    log.set_axis(figure)
    number_columns(figure, len(blocks))
    # The hover is the first trace's, whose points lie left of their blocks.
    places = enumerate(zip(traces[0].x, blocks, strict=True))
    share_hover(figure, {x: _write_note(series, block, n) for n, (x, block) in places})
    return figure


def _write_note(series: Sequence[_Series], block: int, number: int) -> str:
    """What the hover says of a block."""
    lines = [
        f"{each.name} {write_damage(each.kl[number], each.refuses[number])}" for each in series
    ]
    return "<br>".join([f"<b>Block {block}</b>, alone", *lines])
