"""Choosing units: the fewest that give back enough."""

import pytest
from scipy.stats import spearmanr

from awqscope.diagnose.sweep.promotions import (
    Promotion,
    choose_promotion,
    pick_for_verification,
    rank_correlation,
)

BYTES = {"3.qkv": 30, "3.o": 10, "3.down": 40}


def promotion(kl: float, *units: str) -> Promotion:
    return Promotion(3, units, kl)


def test_fewest_units_that_give_back_enough() -> None:
    found = [
        promotion(0.90, "3.qkv"),
        promotion(0.16, "3.o"),
        promotion(0.90, "3.down"),
        promotion(0.14, "3.qkv", "3.o"),
        promotion(0.13, "3.o", "3.down"),
        promotion(0.10, "3.qkv", "3.o", "3.down"),
    ]
    # The whole block gives back 0.9 of 1.0; o alone 0.84, less than 95% of that.
    assert choose_promotion(found, 1.0, BYTES).units == ("3.qkv", "3.o")
    found[1] = promotion(0.14, "3.o")
    assert choose_promotion(found, 1.0, BYTES).units == ("3.o",)


def test_a_block_whose_promotion_does_not_help_is_promoted_least() -> None:
    found = [promotion(1.1, "3.qkv"), promotion(1.2, "3.qkv", "3.o")]
    assert choose_promotion(found, 1.0, BYTES).units == ("3.qkv",)


def test_verification_takes_the_top_and_a_spread() -> None:
    estimates = {f"{i}.o": float(i) for i in range(20)}
    picked = pick_for_verification(estimates, 6)
    assert picked[:3] == ["19.o", "18.o", "17.o"]
    assert picked[3:] == ["16.o", "8.o", "0.o"]
    assert pick_for_verification(estimates, 0) == []
    assert len(pick_for_verification(estimates, 50)) == 20


def test_rank_correlation() -> None:
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1.0)
    assert rank_correlation([1, 2], [2, 1]) is None
    assert rank_correlation([1, 2, 3], [2, 2, 2]) is None
    estimated, exact = [3.0, 1.0, 1.0, 8.0, 2.5], [2.0, 1.0, 4.0, 4.0, 3.0]
    assert rank_correlation(estimated, exact) == pytest.approx(
        spearmanr(estimated, exact).statistic
    )
