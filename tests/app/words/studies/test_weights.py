"""What is said of weights says what the answer holds."""

from typing import Any

from awqscope.app.words.studies.weights import (
    draw_bars,
    group_row,
    largest_channels,
    name_owner,
    name_step,
    value_rows,
    write_channels,
    write_clipping,
    write_codes,
    write_fit,
    write_stored,
    write_worst,
)
from awqscope.diagnose.studies.weights.answer import LinearWeights
from tests.help.weighed import make_answer, make_group, make_linear


def linear(**changes: Any) -> LinearWeights:
    return LinearWeights.model_validate(make_linear("mlp.down_proj", "down", 0.12, **changes))


def test_a_linear_is_told_in_sentences() -> None:
    one = linear()
    assert write_stored(one) == (
        "8 × 8 weights at 4 bits in groups of 4, with 16-bit scales and zero points: 64 bytes, "
        "8.000 bits a weight."
    )
    assert "from −0.3 to 0.25" in write_fit(one) and "12.00% of ‖W‖: SQNR 20.0 dB" in write_fit(one)
    assert write_channels(one) == (
        "AWQ multiplies input channel 7 by most, 2.25, whose activations reach 10, and channel 0 "
        "by least, 0.5. The ratio is 0.45."
    )
    assert write_clipping(one) == (
        "4 of 16 groups are cut, by up to 15% of their range; 12.50% of the weights are."
    )
    assert write_codes(one).startswith("1 of 16 codes is unused; a group of 4 has 3.5 different")
    assert [channel.channel for channel in largest_channels(one)] == list(range(7, -1, -1))


def test_what_is_not_there_is_said() -> None:
    kept = linear(bits=16, codes=[], zeros=[], saturated=None, used_in_group=None, sqnr=None)
    assert write_stored(kept) == "8 × 8 weights at 16 bits: 64 bytes, 8.000 bits a weight."
    assert write_fit(kept).endswith("What is stored is just that.") and write_codes(kept) == ""
    unscaled = linear(channels=[{"channel": 0, "scale": None, "activation": 1.0, "weight": 1.0}])
    assert write_channels(unscaled) == "AWQ does not scale its inputs."
    assert write_clipping(linear(clipping=None)) == "Nothing of it is clipped."
    uncut = {"groups": 16, "clipped": 0, "weights": 0.0, "steps": [16]}
    assert write_clipping(linear(clipping=uncut)) == "None of its 16 groups is cut."


def test_groups_are_named_by_their_heads() -> None:
    answer = make_answer()
    worst = answer.linears[0].groups[0]
    assert name_owner(worst, answer) == "values of key-value head 1 (of heads 2–3)"
    assert write_worst(answer.linears[0], answer).startswith(
        "Row 3, group 1, values of key-value head 1 (of heads 2–3), is rounded worst: its error is "
        "31% of it."
    )
    of_o = worst.changed(role="o", heads=(0, 1))
    assert name_owner(of_o, answer) == "columns of heads 0–1"
    alone = make_answer(kv_heads=4)
    assert name_owner(worst, alone) == "values of head 1"
    assert group_row(answer.linears[1].groups[0], answer) == {
        "row": "3",
        "group": "1",
        "head": "–",
        "channels": "4–7",
        "error": "31%",
        "reach": "0.5",
        "cut": "10%",
        "scale": "0.01",
        "zero": "7",
    }


def test_values_stand_side_by_side() -> None:
    first, second, *_ = value_rows(
        make_answer(linears=[make_linear("a", "o", 0.1, groups=[make_group(0, 0, 0.1)])])
        .linears[0]
        .groups[0]
    )
    assert first == {
        "channel": "0",
        "reference": "0.1",
        "stored": "0.11",
        "difference": "+0.01",
        "code": "15",
    }
    assert (second["difference"], second["code"]) == ("+0.01", "0")


def test_counts_become_bars() -> None:
    assert draw_bars([0, 1, 8, 4]) == " ▁█▄" and draw_bars([]) == draw_bars([0, 0]) == ""
    assert draw_bars([1] * 256) == "█" * 64
    assert [name_step(step) for step in range(3)] == ["none", "5%", "10%"]
