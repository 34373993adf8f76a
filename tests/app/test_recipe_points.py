"""What the recipe page draws and lists of recipes beside the run's own."""

from itertools import product
from typing import Any

import pytest

from awqscope import Option, ScoredUnit, Scores
from awqscope.app.recipe_points import (
    best_at_size,
    cut_frontier,
    list_points,
    name_race,
    raced_points,
)
from awqscope.app.store import Race
from awqscope.mixedprec.recipes.baselines import RECIPE, Contestant


def point(kind: str, size: int, kl: float) -> dict[str, Any]:
    return {"name": f"{kind} {size}", "bytes": size, "kl": kl, "kind": kind}


LINE = [point("frontier", 100 + 10 * i, 1.0 / 2**i) for i in range(20)]


def test_the_line_goes_a_little_beyond_the_largest() -> None:
    shown = cut_frontier([*LINE, point("measured", 100, 1.0), point("yours", 160, 0.1)])
    assert [each["bytes"] for each in shown if each["kind"] == "frontier"] == [*range(100, 191, 10)]
    assert {"measured 100", "yours 160"} <= {each["name"] for each in shown}


def test_the_line_goes_to_where_most_of_the_damage_is_gone() -> None:
    shown = cut_frontier([*LINE, point("measured", 100, 1.0)])
    # A sixteenth is left at the fifth: the first with less than a tenth.
    assert [each["kl"] for each in shown[:-1]] == [1, 0.5, 0.25, 0.125, 0.0625]
    assert cut_frontier([point("measured", 1, 1.0)]) == [point("measured", 1, 1.0)]
    assert cut_frontier(LINE[:1]) == LINE[:1]


def test_a_table_lists_some_of_the_line_and_all_else() -> None:
    listed = list_points([*LINE, *(point("rival", i, 1.0) for i in range(30))])
    line = [each for each in listed if each["kind"] == "frontier"]
    assert len(line) == 12 and (line[0], line[-1]) == (LINE[0], LINE[-1])
    assert len(listed) == 42
    assert list_points(LINE[:3]) == LINE[:3] and list_points([]) == []


@pytest.mark.parametrize(
    ("provenance", "name"),
    [
        ({"budget": {"target_bits": 4.5}}, "4.5 bits"),
        ({"budget": {"max_bytes": 4_200_000}, "refined": {}}, "4.20 MB, refined"),
        ({"budget": {"min_recovery": 0.9}, "split_fused": True}, "90% given back, split"),
        ({}, "flagged"),
    ],
)
def test_races_are_named_by_what_was_asked(provenance: dict[str, Any], name: str) -> None:
    assert name_race(provenance) == name


def test_raced_points_are_the_measured_ones() -> None:
    contestants = [
        Contestant(RECIPE, 5, 0.2, (0.3, 0.1, 0.4), None),
        Contestant("random 0", 4, 0.2, (0.5, 0.1, 0.6), None),
        Contestant("random 1", 4, 0.2, None, None),
    ]
    points = raced_points([Race({"budget": {"target_bits": 4.5}}, contestants)])
    assert [(each["name"], each["kl"], each["kind"]) for each in points] == [
        ("4.5 bits", 0.3, "measured"),
        ("random 0 (4.5 bits)", 0.5, "rival, measured"),
    ]


def test_best_at_a_size_leaves_kept_units_as_they_are() -> None:
    def unit(name: str, kl: float) -> ScoredUnit:
        return ScoredUnit(name, (name,), 8, (Option(4, 4, kl), Option(8, 8, kl / 8)))

    kept = ScoredUnit("0.o", ("0.o",), 8, (Option(16, 16, 0.0),))
    scores = Scores("m", (unit("0.qkv", 0.3), kept, unit("1.qkv", 0.5)), 10, 1.0)
    for first, by_hand, last in product((4, 8), (4, 8, 16), (4, 8)):
        found = best_at_size(scores, {"0.qkv": first, "0.o": by_hand, "1.qkv": last})
        raised = [unit for unit in ("1.qkv", "0.qkv") if found[unit] == 8]
        assert found["0.o"] == by_hand
        assert raised == ["1.qkv", "0.qkv"][: (first == 8) + (last == 8)]
