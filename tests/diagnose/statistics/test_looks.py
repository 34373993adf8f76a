"""How many windows a verdict needs."""

import numpy as np
import pytest

from awqscope.diagnose.statistics.bootstrap import Floats, Resampler
from awqscope.diagnose.statistics.looks import (
    ERROR,
    LEAST_TOKENS,
    LEAST_WINDOWS,
    SUM_ERROR,
    Drawn,
    draw_order,
    find_unsure,
    is_known,
    list_looks,
)
from awqscope.diagnose.statistics.spikes import BlockDamage, Thresholds, flag_blocks
from awqscope.diagnose.statistics.survey import Survey

WINDOWS, BLOCKS = 64, 12


@pytest.mark.parametrize(
    ("windows", "length", "most", "looks"),
    [
        (64, 2048, None, (8, 16, 32, 64)),
        (100, 512, None, (8, 16, 32, 64, 100)),
        (100, 256, None, (16, 32, 64, 100)),
        (100, 512, 20, (8, 16, 20)),
        (100, 512, 5, (5,)),
        (6, 512, None, (6,)),
        (40, 16, None, (40,)),
        (8, 2048, 200, (8,)),
    ],
)
def test_looks(windows: int, length: int, most: int | None, looks: tuple[int, ...]) -> None:
    assert list_looks(windows, length, most) == looks
    assert looks[0] >= min(windows, LEAST_WINDOWS, most or windows)
    assert looks[0] * length >= min(LEAST_TOKENS, windows * length, (most or windows) * length)


def test_the_order_is_random_and_the_same_again() -> None:
    order = draw_order(WINDOWS, 3)
    assert sorted(order) == list(range(WINDOWS))
    assert (order == draw_order(WINDOWS, 3)).all()
    assert (order != draw_order(WINDOWS, 4)).any()
    firsts = {int(draw_order(8, seed)[0]) for seed in range(100)}
    assert firsts == set(range(8))


def planted(seed: int, spike: float) -> tuple[Floats, Floats]:
    """KL by window and block, of which the last has `spike` times the others' level, and the sum of
    all, which windows share."""
    generator = np.random.default_rng(seed)
    ease = np.exp(generator.normal(0, 0.3, (WINDOWS, 1)))
    levels = np.exp(generator.normal(0, 0.15, BLOCKS))
    levels[-1] = spike
    kl = levels * ease * np.exp(generator.normal(0, 0.35, (WINDOWS, BLOCKS)))
    return kl, kl.sum(1) * np.exp(generator.normal(0, 0.02, WINDOWS))


def flag(
    kl: Floats, control: Floats, mask: np.ndarray, seed: int
) -> tuple[list[BlockDamage], dict]:
    survey = Survey(Resampler(WINDOWS, seed), mask, seed)
    damages, drawn = [], {}
    for block in range(BLOCKS):
        found = survey.mean(kl[:, block], control)
        damages.append(BlockDamage(block, found.value, found.low, 0.0))
        _, draws = survey.of_text(kl[:, block], control)
        drawn[block] = Drawn(draws, np.zeros(len(draws)))
    return damages, drawn


def settle(seed: int, spike: float) -> tuple[int, int]:
    """At the first look at a planted text: how many of its flags are settled, and how many of these
    are not what the whole text's are."""
    kl, control = planted(seed, spike)
    looks = list_looks(WINDOWS, 512)
    mask = np.zeros(WINDOWS, dtype=bool)
    mask[draw_order(WINDOWS, seed)[: looks[0]]] = True
    damages, drawn = flag(kl, control, mask, seed)
    whole, _ = flag(kl, control, np.ones(WINDOWS, dtype=bool), seed)
    thresholds = Thresholds()
    unsure = find_unsure(damages, drawn, thresholds, len(looks))
    found, true = (
        [verdict.flagged for verdict in flag_blocks(each, thresholds)] for each in (damages, whole)
    )
    settled = [block for block in range(BLOCKS) if block not in unsure]
    return len(settled), sum(found[block] != true[block] for block in settled)


@pytest.mark.parametrize("spike", [1.0, 2.5, 3.0, 3.5, 10.0])
def test_few_settled_flags_are_wrong(spike: float) -> None:
    """A block at the edge of what is flagged among clear ones, in planted texts."""
    found = [settle(seed, spike) for seed in range(40)]
    settled, wrong = (sum(each) for each in zip(*found, strict=True))
    assert wrong / settled <= ERROR / len(list_looks(WINDOWS, 512))
    # Nearly all of the others are clear at once.
    assert settled / (40 * BLOCKS) > 0.8


def test_what_is_clear_is_settled_and_what_is_not_is_not() -> None:
    levels = np.array([1.0, 1.1, 0.9, 1.05, 0.95, 20.0, 3.4])
    damages = [BlockDamage(block, kl, kl * 0.9, 0.0) for block, kl in enumerate(levels)]
    generator = np.random.default_rng(0)
    drawn = {
        block: Drawn(kl * np.exp(generator.normal(0, 0.1, 500)), np.zeros(500))
        for block, kl in enumerate(levels)
    }
    assert find_unsure(damages, drawn, Thresholds(), 4) == [6]
    # Of more looks each has less of the error.
    assert find_unsure(damages, drawn, Thresholds(top_k=1), 1) == []
    assert 6 not in find_unsure(damages, drawn, Thresholds(ratio=1.5), 1)


def test_a_limit_on_perplexity_is_told_from_perplexity() -> None:
    damages = [BlockDamage(block, 1.0, 0.9, 0.5 if block else 2.0) for block in range(5)]
    generator = np.random.default_rng(0)
    drawn = {
        block: Drawn(np.full(500, 1.0), each.delta_ppl + generator.normal(0, 0.2, 500))
        for block, each in enumerate(damages)
    }
    assert find_unsure(damages, drawn, Thresholds(delta_ppl=1.0), 2) == []
    assert find_unsure(damages, drawn, Thresholds(delta_ppl=1.9), 2) == [0]


def test_when_a_sum_is_known() -> None:
    draws = np.random.default_rng(0).normal(0, 1, 100_000) / 1.96
    assert is_known(1.0, 1 + SUM_ERROR * 0.97 * draws)
    assert not is_known(1.0, 1 + SUM_ERROR * 1.03 * draws)
    assert is_known(0.0, np.zeros(5))
    assert is_known(np.nan, np.full(5, np.nan))
