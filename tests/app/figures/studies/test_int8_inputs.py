"""The chart of int8 inputs: every number in its place, and who refuses marked."""

import math

from awqscope.app.figures.studies.int8_inputs import draw_inputs
from tests.help.int8 import BLOCKS, make_activations


def test_every_series_has_its_dots_and_marks() -> None:
    answer = make_activations()
    weights, plain, split, smoothed = draw_inputs(answer).data
    assert [trace.name for trace in (weights, plain, split, smoothed)] == [
        *("4-bit weights", "int8 by token", "LLM.int8", "SmoothQuant")
    ]
    assert list(plain.y) == [each.isolated.kl[0] for each in answer.methods[0].blocks]
    assert [round(x) for x in plain.x] == list(range(BLOCKS))
    assert plain.text[3] == weights.text[5] == "▲"
    assert not any(split.text) and not any(smoothed.text)
    up, down = plain.error_y.array[3], plain.error_y.arrayminus[3]
    assert math.isclose(up, 0.004) and math.isclose(down, 0.004)
    assert len({trace.marker.symbol for trace in (weights, plain, split, smoothed)}) == 4
    # One hover says all of a block.
    note = weights.customdata[3]
    assert "Block 3" in note and "int8 by token 0.040000" in note and note.count("▲") == 1
