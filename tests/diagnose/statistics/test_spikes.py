"""Who is flagged, and why not."""

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from awqscope.diagnose.statistics.spikes import BlockDamage, Thresholds, flag_blocks

DEFAULT = Thresholds()


def damages(*kls: float, low: float = 0.9) -> list[BlockDamage]:
    return [BlockDamage(i, kl, kl * low, 10 * kl) for i, kl in enumerate(kls)]


def flagged(found: list[BlockDamage], thresholds: Thresholds = DEFAULT) -> list[int]:
    return [verdict.block for verdict in flag_blocks(found, thresholds) if verdict.flagged]


HEALTHY = (0.0022, 0.0006, 0.0008, 0.0009, 0.0010, 0.0011, 0.0014, 0.0012)


def test_a_spike_is_flagged_and_a_healthy_spread_is_not() -> None:
    assert flagged(damages(*HEALTHY)) == []
    assert flagged(damages(*HEALTHY[:5], 0.2, *HEALTHY[6:])) == [5]


def test_two_spikes_do_not_hide_each_other() -> None:
    assert flagged(damages(0.001, 0.2, 0.0011, 0.0009, 0.15, 0.001, 0.0012, 0.0008)) == [1, 4]


def test_a_block_without_a_number_is_the_worst_and_spoils_no_other() -> None:
    found = flag_blocks(damages(*HEALTHY[:3], math.nan, *HEALTHY[4:5], 0.2, *HEALTHY[6:]), DEFAULT)
    assert [verdict.block for verdict in found if verdict.flagged] == [3, 5]
    assert "not a number" in found[3].reason
    assert flagged(damages(*HEALTHY[:3], math.inf, *HEALTHY[4:])) == [3]
    first = Thresholds(top_k=1)
    assert flagged(damages(0.1, 0.2, math.nan, 0.3), first) == [2]
    # Of equal blocks the first.
    assert flagged(damages(0.1, 0.2, 0.2, 0.2), first) == [1]


def test_an_uncertain_spike_is_not_flagged() -> None:
    assert flagged(damages(0.001, 0.0012, 0.2, 0.0009, 0.001, low=0.001)) == []


def test_extreme_but_small_is_not_flagged() -> None:
    """Peers that agree to the last digit make any neighbour extreme."""
    alike = damages(0.00100, 0.00101, 0.00100, 0.00099, 0.00200, 0.00100)
    verdict = flag_blocks(alike, DEFAULT)[4]
    assert verdict.z > 3.5
    assert not verdict.flagged
    assert "below 3×" in verdict.reason


def test_limits_and_top_k() -> None:
    found = damages(*HEALTHY)
    assert flagged(found, replace(DEFAULT, top_k=2)) == [0, 6]
    assert flagged(found, replace(DEFAULT, top_k=0)) == []
    assert flagged(found, replace(DEFAULT, delta_ppl=0.02)) == [0]


def test_zeros_are_no_outliers_and_hide_none() -> None:
    assert flagged(damages(0.0, 0.0, 0.0, 0.0, 0.0)) == []
    assert flagged(damages(0.0, 0.0, 0.5, 0.0, 0.0)) == [2]
    assert flagged(damages(0.0, 0.001, 0.0011, 0.0009, 0.3)) == [4]


def test_too_few_blocks_say_so() -> None:
    assert "too few" in flag_blocks(damages(1.0, 0.001), DEFAULT)[0].reason


@given(st.lists(st.floats(0, 10), min_size=1, max_size=40))
def test_every_block_gets_a_verdict_with_a_reason(kls: list[float]) -> None:
    verdicts = flag_blocks(damages(*kls), DEFAULT)
    assert [verdict.block for verdict in verdicts] == list(range(len(kls)))
    assert all(verdict.reason for verdict in verdicts)
    # Never most of the blocks: outliers are few by definition.
    assert sum(verdict.flagged for verdict in verdicts) <= len(kls) / 2


def test_what_is_below_the_noise_floor_is_never_flagged() -> None:
    found = damages(1e-6, 1.1e-6, 9e-7, 1e-6, 5e-5, 1e-6)
    assert flagged(found) == [4]
    for asked in (DEFAULT, Thresholds(delta_ppl=1e-4), Thresholds(top_k=1)):
        verdicts = flag_blocks(found, asked, floor=1e-4)
        assert not any(verdict.flagged for verdict in verdicts)
        assert verdicts[4].reason == "KL 5e-05 is below the noise floor of 0.0001"
    # What computes no number does not lose it to rounding.
    spoiled = flag_blocks(damages(1e-6, math.nan, 1e-6, 1e-6), DEFAULT, floor=1e-4)
    assert [verdict.flagged for verdict in spoiled] == [False, True, False, False]
    nothing = flag_blocks(damages(0.0, 1e-6, 1e-6, 1e-6), DEFAULT, floor=1e-4)
    assert nothing[0].reason == "no damage measured"


def test_noise_of_the_others_lets_no_block_stand_out() -> None:
    """Their KL is known to be below the floor, and no more."""
    found = damages(1e-6, 1.1e-6, 9e-7, 1e-6, 2e-4, 1e-6)
    assert "200.0×" in flag_blocks(found, DEFAULT)[4].reason
    above = flag_blocks(found, DEFAULT, floor=1e-4)[4]
    assert not above.flagged and "KL 2.0× the noise floor" in above.reason
    noisy = flag_blocks(damages(*[1e-6] * 5, 4e-4, low=0.2), DEFAULT, floor=1e-4)[5]
    assert noisy.reason.endswith("but its interval reaches down to that floor")
    assert flag_blocks(damages(*HEALTHY[:5], 0.2), DEFAULT, floor=1e-3)[5].flagged


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0, 1))
def test_a_floor_only_takes_flags_away(kls: list[float], floor: float) -> None:
    found = damages(*kls)
    with_floor = {v.block for v in flag_blocks(found, DEFAULT, floor) if v.flagged}
    assert with_floor <= set(flagged(found))
    assert all(kls[block] >= floor for block in with_floor)
