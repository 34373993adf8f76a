"""One hover says of a block all that its column shows."""

import pyarrow.parquet as pq
import pytest

from awqscope.app.figures.activations import draw_channels, label_apart, log_axis
from awqscope.app.figures.blocks import draw_profile
from awqscope.mixedprec.words import write_number
from tests.help.runs import SAMPLE


@pytest.mark.parametrize("metric", ["kl", "delta_ppl"])
@pytest.mark.parametrize("scale", ["linear", "log"])
def test_a_hover_has_all_three_views_with_their_intervals(metric: str, scale: str) -> None:
    rows = pq.read_table(SAMPLE / "blocks.parquet").to_pylist()
    figure = draw_profile(rows, metric, scale)
    first, *others = figure.data
    form = ".5f" if metric == "kl" else "+.4f"
    for x, note in zip(first.x, first.customdata, strict=True):
        lines = note.split("<br>")
        assert lines[0] == f"<b>Block {x}</b>" + " ▲ flagged" * (x == 5)
        for view, line in zip(("isolated", "cumulative", "restored"), lines[1:], strict=True):
            (row,) = (row for row in rows if row["block"] == x and row["view"] == view)
            for name in (metric, f"{metric}_low", f"{metric}_high"):
                assert write_number(row[name], form) in line
    assert first.hovertemplate == "%{customdata}<extra></extra>"
    assert all(trace.hoverinfo == "skip" and trace.hovertemplate is None for trace in others)
    # Wherever in the column the mouse is, the first trace answers, to a click too.
    assert (figure.layout.hovermode, figure.layout.hoverdistance) == ("x", -1)


def test_labels_of_neighbours_are_not_written_into_each_other() -> None:
    assert label_apart([84, 477, 458], 1000) == ["84", "477", ""]
    assert label_apart([10, 500, 900], 1000) == ["10", "500", "900"]


def test_the_largest_channel_has_room_above_it() -> None:
    import numpy as np

    for values in (np.array([3.0, 5.0]), np.array([1.0, 900.0]), np.array([7.0])):
        low, high = log_axis(values)["range"]
        assert low < np.log10(values.min()) and np.log10(values.max()) < high
    ticks = log_axis(np.array([3.0, 60.0]))["tickvals"]
    assert len(ticks) >= 3
    assert "tickvals" not in log_axis(np.array([0.5, 900.0]))
    figure = draw_channels({"reference": np.array([3.0, 5.0, 60.0])}, 4.0, [2, 1])
    assert figure.layout.yaxis.type == "log" and not figure.data[1].cliponaxis
