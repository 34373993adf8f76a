"""What the terminal says of a recipe among its rivals."""

from dataclasses import replace

import pytest

from awqscope import Option, ScoredUnit, Scores, solve
from awqscope.app.terminal.recipe import print_recipe
from awqscope.mixedprec.recipes.baselines import predict_contest
from awqscope.mixedprec.recipes.recipe import Recipe

SCORES = Scores(
    "m",
    tuple(
        ScoredUnit(name, (name,), 2_000_000, (Option(4, 10**6, kl), Option(8, 2 * 10**6, kl / 4)))
        for name, kl in (("0.qkv", 0.4), ("0.down", 0.1))
    ),
    fixed_bytes=10**6,
    uniform_kl=1.0,
)


def said(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> str:
    print_recipe(SCORES, recipe, predict_contest(SCORES, recipe.bits, {}))
    return capsys.readouterr().out


def test_size_damage_and_what_is_raised(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(solve(SCORES, max_bytes=4 * 10**6), capsys)
    # 3 of 2 + 2 million bytes for 4 million weights; 0.1 + 0.1 of 0.5 is left.
    assert "6.000 bits per weight of the units, 4.00 MB in all (+33.3% on uniform)" in out
    assert "predicted KL 0.40000, which gives back 60.0%" in out
    assert "At 8 bits (1): 0.qkv" in out and "Not proved" not in out


def test_a_gap_is_said_in_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for budget, words in (
        ({"max_bytes": 4 * 10**6}, "2.00e-02 nats less"),  # 0.01 of 0.5 summed, of 1.0 measured
        ({"min_recovery": 0.5}, "1,234 bytes less"),
    ):
        recipe = solve(SCORES, **budget)
        gap = 0.01 if "max_bytes" in budget else 1234.0
        recipe = replace(recipe, provenance={**recipe.provenance, "gap": gap})
        assert f"Not proved the best: {words} may be possible." in said(recipe, capsys)
