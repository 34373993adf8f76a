"""Recipes beside the run's own: the frontier, cheap ones of equal bytes, and measured ones."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from awqscope.app.store import Race, Store
from awqscope.mixedprec.recipes.baselines import RECIPE, list_baselines
from awqscope.mixedprec.recipes.scores import Prediction, Scores
from awqscope.mixedprec.recipes.solver import solve
from awqscope.mixedprec.scheme import UnitWidths, Width
from awqscope.mixedprec.words import write_size

# Of the uniform model's KL: what is not worth drawing, and how far the line goes at least.
NEGLIGIBLE = 0.002
MOSTLY_GONE = 0.1
# How far the line goes on beyond the largest of the other recipes, of what that is above uniform.
BEYOND = 1.5
# Points of the frontier that a table lists.
LISTED = 12

Row = Mapping[str, Any]


def frontier_points(store: Store, name: str) -> list[dict[str, Any]]:
    """The frontier's outline, as far as there is damage left to speak of, each with its place on
    it (`at`), and the run's own recipe's rivals at its size, as predicted."""
    outline = store.outline(name)
    points = [
        {
            "name": f"best at {point.bits_per_weight:.2f} bits",
            **_locate(point),
            "kind": "frontier",
            "at": at,
        }
        for at, point in enumerate(outline[: count_useful(outline)])
    ]
    scores, own = store.grouped_scores(name), store.recipe(name)
    if scores is None or own is None:
        return points
    room = scores.unit_bytes(own.widths)
    for rival, bits in list_baselines(scores, room, store.squared_errors(name)).items():
        points.append({"name": rival, **_locate(scores.predict(bits)), "kind": "rival"})
    return points


def count_useful(outline: Sequence[Prediction]) -> int:
    """How many points of an outline there are before hardly any damage is left."""
    return sum(point.kl > NEGLIGIBLE * outline[0].kl for point in outline)


def cut_frontier(points: Sequence[Row]) -> list[Row]:
    """The points, the frontier's no further than is of use beside the others: a little beyond the
    largest, and at least to where most of the damage is gone."""
    line = [point for point in points if point["kind"] == "frontier"]
    others = [point for point in points if point["kind"] != "frontier"]
    if not line:
        return others
    start = line[0]["bytes"]
    reach = start + BEYOND * (max((point["bytes"] for point in others), default=start) - start)
    floor = MOSTLY_GONE * line[0]["kl"]
    kept = [line[0]] + [
        point for before, point in pairwise(line) if point["bytes"] <= reach or before["kl"] > floor
    ]
    return [*kept, *others]


def list_points(points: Sequence[Row]) -> list[Row]:
    """What a table lists of the points: of the frontier's some, spread evenly."""
    line = [point for point in points if point["kind"] == "frontier"]
    steps = min(LISTED, len(line))
    some = {round(i * (len(line) - 1) / max(1, steps - 1)) for i in range(steps)}
    return [
        *(line[i] for i in sorted(some)),
        *(point for point in points if point["kind"] != "frontier"),
    ]


def best_at_size(scores: Scores, mine: UnitWidths) -> dict[str, Width]:
    """The best recipe of no more bytes than `mine` (unit -> width). Units that the run kept were
    not scored at other widths: they stay as `mine` has them."""
    kept = {unit.name: unit.options[0].width for unit in scores.units if len(unit.options) == 1}
    size = scores.predict({**mine, **kept}).bytes
    return solve(scores, max_bytes=size).widths | {unit: mine[unit] for unit in kept}


def _locate(predicted: Prediction) -> dict[str, Any]:
    return {"bytes": predicted.bytes, "kl": predicted.kl}


def raced_points(races: Sequence[Race]) -> list[dict[str, Any]]:
    """What `awqscope recipe --verify` measured: recipes, named by their budget, and rivals."""
    points = []
    for race in races:
        own = name_race(race.provenance)
        points += [
            {
                "name": own if rival.name == RECIPE else f"{rival.name} ({own})",
                "bytes": rival.bytes,
                "kl": rival.kl[0],
                "kind": "measured" if rival.name == RECIPE else "rival, measured",
            }
            for rival in race.contestants
            if rival.kl is not None
        ]
    return points


def name_race(provenance: Mapping[str, Any]) -> str:
    """A raced recipe by what was asked: `4.5 bits, refined`."""
    said = {
        "target_bits": lambda value: f"{value:g} bits",
        "max_bytes": write_size,
        "min_recovery": lambda value: f"{100 * value:g}% given back",
    }
    budget = provenance.get("budget", {})
    asked = [said[name](value) for name, value in budget.items() if name in said]
    extra = [
        word
        for word, is_so in (
            ("split", provenance.get("split_fused")),
            ("refined", "refined" in provenance),
            ("in groups", any("x" in str(width) for width in provenance.get("widths", ()))),
        )
        if is_so
    ]
    return ", ".join([*(asked or ["flagged"]), *extra])
