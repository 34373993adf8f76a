"""Recipes beside the run's own: the frontier, cheap ones of equal bytes, and measured ones."""

from collections.abc import Sequence
from typing import Any

from app.store import Store
from mixedprec.baselines import RECIPE, list_baselines
from mixedprec.recipe import Recipe
from mixedprec.scores import Prediction

# Of the uniform model's KL.
NEGLIGIBLE = 0.002


def frontier_points(store: Store, name: str, rescue: int) -> list[dict[str, Any]]:
    """The frontier, as far as there is damage left to speak of, and the run's own recipe's rivals
    at its size, as predicted."""
    frontier = [point.predicted for point in store.frontier(name)]
    points = [
        {"name": "frontier", **_place(point), "kind": "frontier"}
        for point in frontier
        if point.kl > NEGLIGIBLE * frontier[0].kl
    ]
    scores, own = store.scores(name), store.recipe(name)
    if scores is None or own is None:
        return points
    room = scores.unit_bytes(own.bits)
    for rival, bits in list_baselines(scores, room, rescue).items():
        points.append({"name": rival, **_place(scores.predict(bits)), "kind": "rival"})
    return points


def _place(predicted: Prediction) -> dict[str, Any]:
    return {"bytes": predicted.bytes, "kl": predicted.kl}


def raced_points(races: Sequence[Recipe]) -> list[dict[str, Any]]:
    """What `awqscope recipe --verify` measured: recipes, named by their budget, and rivals."""
    points = []
    for recipe in races:
        budget = recipe.provenance.get("budget", {})
        own = " ".join(f"{name.replace('_', ' ')} {value}" for name, value in budget.items())
        own = own or "flagged"
        points += [
            {
                "name": own if rival["name"] == RECIPE else f"{rival['name']} ({own})",
                "bytes": rival["bytes"],
                "kl": rival["kl"][0],
                "kind": "measured" if rival["name"] == RECIPE else "rival, measured",
            }
            for rival in recipe.provenance.get("rivals", ())
            if rival["kl"] is not None
        ]
    return points
