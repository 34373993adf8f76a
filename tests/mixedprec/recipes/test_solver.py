"""Recipes for a budget: sizes and predictions by hand, every budget, what no recipe can meet."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awqscope import (
    InputError,
    Option,
    ScoredUnit,
    Scores,
    change_recipe,
    diff_recipes,
    limit_widths,
    list_frontier,
    load_recipe,
    save_recipe,
    solve,
)
from awqscope.mixedprec.recipes.baselines import (
    RECIPE,
    judge_contest,
    list_baselines,
    predict_contest,
    rank_contest,
)
from awqscope.mixedprec.recipes.baselines import Contestant as Rival
from awqscope.mixedprec.recipes.solver import predict_outline, without_groups
from awqscope.mixedprec.scheme import Grouped

KL = {"0.qkv": 0.04, "0.down": 0.01, "1.qkv": 0.02, "1.down": 0.03}


def unit(name: str, kl: float, weights: int) -> ScoredUnit:
    """A unit of `weights` weights: half, one and two bytes each."""
    block, _, kind = name.partition(".")
    options = (
        Option(4, weights // 2, kl),
        Option(8, weights, kl / 100),
        Option(16, weights * 2, 0.0),
    )
    return ScoredUnit(name, (f"model.layers.{block}.{kind}_proj",), weights, options)


SCORES = Scores(
    "m",
    tuple(unit(name, kl, 800 if name.endswith("qkv") else 400) for name, kl in KL.items()),
    fixed_bytes=1000,
    uniform_kl=0.2,
)


def test_predictions_by_hand() -> None:
    predicted = SCORES.predict({**SCORES.uniform, "0.qkv": 8, "1.down": 16})
    assert predicted.bytes == 1000 + 800 + 200 + 400 + 800
    assert predicted.bits_per_weight == 8 * 2200 / 2400
    # Of 0.10 summed, 0.0004 + 0.01 + 0.02 is left.
    assert predicted.kl == pytest.approx(0.2 * 0.304)
    assert predicted.recovered == pytest.approx(0.696)


def test_every_budget_is_met_by_the_best_recipe() -> None:
    every = [
        (dict(zip(KL, bits, strict=True)), SCORES.predict(dict(zip(KL, bits, strict=True))))
        for bits in product((4, 8, 16), repeat=4)
    ]
    for size in (2200, 2600, 2900, 3400, 5800):
        best = min(each.kl for _, each in every if each.bytes <= size)
        found = SCORES.predict(solve(SCORES, max_bytes=size).bits)
        assert found.bytes <= size and found.kl == pytest.approx(best)
    for target in (4.0, 4.5, 5.0, 7.9):
        best = min(each.kl for _, each in every if each.bits_per_weight <= target)
        found = SCORES.predict(solve(SCORES, target_bits=target).bits)
        assert found.bits_per_weight <= target and found.kl == pytest.approx(best)
    for share in (0.0, 0.5, 0.9, 0.995, 1.0):
        least = min(each.bytes for _, each in every if each.recovered >= share - 1e-12)
        found = SCORES.predict(solve(SCORES, min_recovery=share).bits)
        assert found.recovered >= share - 1e-12 and found.bytes == least


def test_provenance_says_what_was_asked_and_is_expected() -> None:
    recipe = solve(SCORES, target_bits=4.5)
    assert recipe.provenance["budget"] == {"target_bits": 4.5}
    assert recipe.provenance["predicted"]["bytes"] == SCORES.predict(recipe.bits).bytes
    assert recipe.provenance["gap"] == 0


def test_budgets_that_nothing_meets() -> None:
    with pytest.raises(InputError, match=r"as small as 3\.9 bits per weight: .* 4\.000 bits"):
        solve(SCORES, target_bits=3.9)
    with pytest.raises(InputError, match=r"as small as 2000 bytes: .* 2,200 bytes"):
        solve(SCORES, max_bytes=2000)
    with pytest.raises(InputError, match=r"gives back 99\.90%.* 99\.00% at most"):
        solve(limit_widths(SCORES, (4, 8)), min_recovery=0.999)
    for share in (1.2, float("nan")):
        with pytest.raises(InputError, match="no share"):
            solve(SCORES, min_recovery=share)
    for target in (float("inf"), float("nan")):
        with pytest.raises(InputError, match="no budget"):
            solve(SCORES, target_bits=target)
    with pytest.raises(InputError, match="one budget"):
        solve(SCORES)
    with pytest.raises(InputError, match="one budget"):
        solve(SCORES, target_bits=5, max_bytes=4000)


def test_what_a_recipe_comes_to_is_budget_enough_for_it() -> None:
    """Many units of uneven damage: sums that rounding must not push over their own limit."""
    rng = Random(0)
    units = tuple(unit(f"{i}.down", rng.lognormvariate(-8, 1.2), 402) for i in range(300))
    scores = Scores("m", units, 0, 0.1)
    assert solve(scores, min_recovery=0).bits == scores.uniform
    assert set(solve(scores, min_recovery=1).bits.values()) == {16}
    for point in list_frontier(scores, most=40):
        for budget in (
            {"target_bits": point.predicted.bits_per_weight},
            {"max_bytes": point.predicted.bytes},
        ):
            again = scores.predict(solve(scores, **budget).bits)
            assert again.bytes == point.predicted.bytes
            assert again.kl == pytest.approx(point.predicted.kl, abs=1e-15)
        predicted = scores.predict(point.bits)
        assert point.predicted.bytes == predicted.bytes
        assert point.predicted.recovered == pytest.approx(predicted.recovered, abs=1e-12)


def test_limited_widths() -> None:
    narrow = limit_widths(SCORES, (4, 16))
    assert set(solve(narrow, target_bits=9).bits.values()) == {4, 16}
    assert narrow.predict(SCORES.uniform) == SCORES.predict(SCORES.uniform)
    alone = ScoredUnit("2.o", ("model.layers.2.o_proj",), 8, (Option(16, 16, 0.0),))
    kept = Scores("m", (*SCORES.units, alone), 0, 1.0)
    assert solve(limit_widths(kept, (4, 8)), target_bits=9).bits["2.o"] == 16
    with pytest.raises(InputError, match="no unit was scored at 5 bits: choose from 4, 8, 16"):
        limit_widths(SCORES, (4, 5))
    # What is given back is told from the uniform model: 8 bits must not pass for it.
    with pytest.raises(InputError, match="leave out 4 bits"):
        limit_widths(SCORES, (8, 16))


def test_the_outline_is_of_the_frontier_and_below_it() -> None:
    outline = predict_outline(SCORES)
    points = [point.predicted for point in list_frontier(SCORES)]
    assert (outline[0], outline[-1].bytes, outline[-1].kl) == (points[0], points[-1].bytes, 0)
    sizes, least = [each.bytes for each in outline], [each.kl for each in outline]
    assert set(sizes) <= {point.bytes for point in points}
    for point in points:
        assert point.kl >= np.interp(point.bytes, sizes, least) - 1e-12


def test_frontier_holds_what_solving_finds() -> None:
    points = list_frontier(SCORES)
    assert points[0].bits == SCORES.uniform
    for point in points:
        solved = SCORES.predict(solve(SCORES, max_bytes=point.predicted.bytes).bits)
        assert solved.kl == pytest.approx(point.predicted.kl, abs=1e-12)
    thin = list_frontier(SCORES, most=5)
    assert len(thin) <= 5 and thin[0] == points[0] and thin[-1] == points[-1]


def test_recipes_are_edited_saved_and_compared(tmp_path: Path) -> None:
    recipe = solve(SCORES, max_bytes=2200)
    changed = change_recipe(recipe, {"1.down": 16})
    assert [(c.unit, c.before, c.after) for c in diff_recipes(recipe, changed)] == [
        ("1.down", 4, 16)
    ]
    save_recipe(tmp_path / "mine.json", changed)
    assert load_recipe(tmp_path / "mine.json") == changed
    assert json.loads((tmp_path / "mine.json").read_text())["kind"] == "by hand"
    with pytest.raises(InputError, match=r"no unit '7\.down'"):
        change_recipe(recipe, {"7.down": 8})


@st.composite
def grouped_scores(draw: st.DrawFn) -> Scores:
    """A few units that may be at 4 bits, at 4 in smaller groups, and at 8."""
    units = []
    for number in range(draw(st.integers(1, 4))):
        size = draw(st.integers(10, 40))
        fine = [draw(st.integers(1, 8)) for _ in range(2)]
        kl = [draw(st.integers(0, 40)) / 100 for _ in range(4)]
        options = (
            Option(4, size, kl[0]),
            Option(Grouped(4, 64), size + fine[0], kl[1]),
            Option(Grouped(4, 32), size + sum(fine), kl[2]),
            Option(8, 2 * size, kl[3]),
        )
        units.append(ScoredUnit(f"{number}.o", (f"layers.{number}.o",), 2 * size, options))
    return Scores("m", tuple(units), 100, 1.0)


@settings(max_examples=200, deadline=None)
@given(grouped_scores(), st.floats(0, 1))
def test_more_options_never_predict_less(scores: Scores, share: float) -> None:
    """And what is found is the best there is, against enumeration."""
    least, most = (
        sum(pick(option.bytes for option in unit.options) for unit in scores.units)
        for pick in (min, max)
    )
    room = scores.fixed_bytes + least + round(share * (most - least))
    every = [
        scores.predict(dict(zip(scores.uniform, widths, strict=True)))
        for widths in product(*[[o.width for o in unit.options] for unit in scores.units])
    ]
    best = min(each.kl for each in every if each.bytes <= room)
    found = scores.predict(solve(scores, max_bytes=room).widths)
    assert found.bytes <= room and found.kl == pytest.approx(best, abs=1e-12)
    plain = without_groups(scores)
    alone = plain.predict(solve(plain, max_bytes=room).widths)
    assert found.kl <= alone.kl + 1e-12
    kl = scores.predict_sums(0, sum(unit.options[0].kl for unit in scores.units)).kl
    assert found.kl <= kl + 1e-12


def test_options_in_groups_are_named_and_limited() -> None:
    fine = Grouped(4, 64)
    units = tuple(
        replace(unit, options=(unit.options[0], Option(fine, unit.options[0].bytes + 20, 0.001)))
        for unit in SCORES.units
    )
    scores = replace(SCORES, units=units)
    recipe = solve(scores, max_bytes=2200 + 45)
    assert recipe.provenance["widths"] == [4, "4x64"]
    assert [unit for unit, width in recipe.widths.items() if width == fine] == ["0.qkv", "1.down"]
    assert set(recipe.bits.values()) == {4}
    assert solve(limit_widths(scores, (4,)), max_bytes=2300).widths == scores.uniform
    # Cheap choices know of one size of groups.
    assert set(list_baselines(scores, 9999)["first blocks"].values()) == {4}
    with pytest.raises(InputError, match="no unit was scored at 4x32 bits: choose from 4, 4x64"):
        limit_widths(scores, (4, Grouped(4, 32)))


def test_baselines_keep_within_the_room_and_to_their_rule() -> None:
    room = SCORES.unit_bytes(SCORES.uniform) + 600
    errors = {"0.qkv": 1.0, "0.down": 4.0, "1.qkv": 2.0, "1.down": 3.0}
    found = list_baselines(SCORES, room, errors)
    assert len({name for name in found if name.startswith("random")}) == 5
    raised = {
        name: [unit for unit, width in bits.items() if width == 8] for name, bits in found.items()
    }
    assert raised["first blocks"] == ["0.qkv", "0.down"]
    assert raised["last blocks"] == ["1.qkv", "1.down"]
    assert raised["down only"] == ["0.down", "1.down"]
    # By error for a byte: 4/200, 3/200, then neither qkv (400 bytes) fits in what is left.
    assert raised["weight error"] == ["0.down", "1.down"]
    assert all(SCORES.unit_bytes(bits) <= room for bits in found.values())
    assert "weight error" not in list_baselines(SCORES, room)


def test_baselines_use_every_width_that_the_recipe_may() -> None:
    """Room for all units at 8 bits, and for 800 bytes besides: one qkv, or both down, at 16."""
    wide = dict.fromkeys(SCORES.uniform, 8)
    found = list_baselines(SCORES, SCORES.unit_bytes(wide) + 800)
    assert found["first blocks"] == {**wide, "0.qkv": 16}
    assert found["last blocks"] == {**wide, "1.down": 16, "0.down": 16}
    assert found["down only"] == {**SCORES.uniform, "0.down": 16, "1.down": 16}
    # Without 8 bits to choose, 16 is next.
    narrow = limit_widths(SCORES, (4, 16))
    assert list_baselines(narrow, SCORES.unit_bytes(SCORES.uniform) + 1200)["first blocks"] == {
        **SCORES.uniform,
        "0.qkv": 16,
    }


def test_a_loss_is_never_hidden() -> None:
    best = solve(SCORES, max_bytes=2800).bits
    rivals = list_baselines(SCORES, 1800)
    assert "No rival" in judge_contest(predict_contest(SCORES, best, rivals))
    worst = predict_contest(SCORES, SCORES.uniform, {"other": best})
    assert judge_contest(worst) == "IT LOSES: other is predicted to do better."

    def measured(name: str, kl: float, behind: tuple[float, float, float]) -> Rival:
        return Rival(name, 1, None, (kl, kl, kl), behind)

    mine = measured(RECIPE, 0.5, (0, 0, 0))
    unsure = rank_contest([measured("other", 0.4, (-0.1, -0.2, 0.1)), mine])
    assert judge_contest(unsure).startswith("IT IS NOT THE BEST: other measured lower")
    sure = rank_contest([measured("other", 0.4, (-0.1, -0.2, -0.01)), mine])
    assert judge_contest(sure).startswith("IT LOSES: other")
