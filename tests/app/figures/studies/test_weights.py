"""Charts of weights show the answer's numbers."""

import numpy as np

from awqscope.app.figures.studies.weights import (
    draw_channel_sizes,
    draw_clipping,
    draw_codes,
    draw_group,
    draw_limits,
)
from tests.help.weighed import make_answer

LINEAR = make_answer().linears[0]


def test_channels_are_drawn_by_number_and_the_largest_named() -> None:
    figure = draw_channel_sizes(LINEAR.channels, LINEAR.columns)
    by_name = {trace.name: trace for trace in figure.data}
    scale = by_name["AWQ's scale"]
    assert list(scale.x) == list(range(8)) and list(scale.customdata) == [
        0.5 + n / 4 for n in range(8)
    ]
    assert [text for text in scale.text if text] == ["5", "6", "7"]
    median = np.median([0.5 + n / 4 for n in range(8)])
    np.testing.assert_allclose(scale.y, np.array(scale.customdata) / median)
    assert list(by_name["activation, largest |x|"].customdata) == [3.0 + n for n in range(8)]
    unknown = [channel.changed(activation=None, weight=None) for channel in LINEAR.channels]
    assert [trace.name for trace in draw_channel_sizes(unknown, 8).data] == ["AWQ's scale"]
    nothing = [channel.changed(scale=0.0, activation=None, weight=None) for channel in unknown]
    assert not draw_channel_sizes(nothing, 8).data


def test_counts_are_shares() -> None:
    assert LINEAR.clipping is not None
    [bars] = draw_clipping(LINEAR.clipping).data
    assert list(bars.y) == [0.75, 0.1875, 0, 0.0625] and next(iter(bars.x)) == "none"
    codes, zeros = draw_codes(LINEAR.codes, LINEAR.zeros).data
    assert list(codes.y) == [4 / 60] * 15 + [0] and zeros.y[7] == 1
    assert len(draw_codes(LINEAR.codes, []).data) == 1
    [spread] = draw_limits(np.array([[1.0, 2.0], [2.0, 2.0]])).data
    assert sum(spread.y) == 1 and spread.y[-1] == 0.75


def test_a_group_shows_both_values_of_each_channel() -> None:
    group = LINEAR.groups[0]
    reference, stored = draw_group(group).data
    assert list(reference.x) == list(stored.x) == list(group.channels)
    assert list(reference.y) == list(group.reference) and list(stored.y) == list(group.stored)
    assert list(stored.customdata) == list(group.codes)
