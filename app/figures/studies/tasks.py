"""The chart of tasks: what each model lost or gained on each, with intervals."""

from collections.abc import Sequence

import plotly.graph_objects as go

from awqscope.app.figures.frame import BLUE, GREY, ORANGE, escape, make_figure
from awqscope.app.words.studies.tasks import write_gained
from awqscope.diagnose.runs.record import MIXED
from awqscope.diagnose.studies.tasks.pairing import Weighed

# Colour and symbol of the mixed model, and of any other.
LOOKS = {True: (ORANGE, "star"), False: (BLUE, "circle")}
HEIGHT_A_ROW = 34


def draw_tasks(weighed: Sequence[Weighed]) -> go.Figure:
    """A row a task and a mark a model: right of zero it scores better than the 16-bit model. Scores
    that are not right or wrong are on the same axis, times 100."""
    traces = []
    tasks = list(dict.fromkeys(each.pair.task for each in weighed))
    for model in dict.fromkeys(each.pair.name for each in weighed):
        here = [each.pair for each in weighed if each.pair.name == model]
        colour, symbol = LOOKS[model == MIXED]
        drops = [pair.bound() for pair in here]
        traces.append(
            go.Scatter(
                name=model,
                x=[-100 * drop.value for drop in drops],
                y=[escape(pair.task) for pair in here],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [100 * (drop.value - drop.low) for drop in drops],
                    "arrayminus": [100 * (drop.high - drop.value) for drop in drops],
                    "color": GREY,
                    "thickness": 1.2,
                    "width": 3,
                },
                text=[escape(f"{pair.task}, {model}: {write_gained(pair)}") for pair in here],
                mode="markers",
                cliponaxis=False,
                marker={"size": 11, "color": colour, "symbol": symbol},
                hovertemplate="%{text}<extra></extra>",
            )
        )
    height = 130 + HEIGHT_A_ROW * max(2, len(tasks))
    figure = make_figure(
        traces, "points gained over the 16-bit model", "", height, scattermode="group"
    )
    figure.update_xaxes(showgrid=True, zeroline=True, zerolinecolor=GREY, zerolinewidth=1.5)
    figure.update_yaxes(autorange="reversed", type="category")
    return figure
