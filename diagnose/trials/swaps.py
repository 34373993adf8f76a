"""A recipe bettered by measuring: swaps of widths tried in the quantized model itself.

Damage adds up only nearly. Where it does not, the best sum is not the best model: a few recipes
that the scores hold to be nearly as good are measured in full, the best becomes the new start,
until none of them is better. Deciding what to try is pure; measuring is handed in.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from heapq import nsmallest

import numpy as np

from awqscope.mixedprec.ranking import as_cost
from awqscope.mixedprec.recipes.scores import Option, ScoredUnit, Scores
from awqscope.mixedprec.scheme import UnitWidths, Width

TRIED_A_ROUND = 12
MOST_ROUNDS = 6
# Changes of each direction that are paired with each other: those nearest to paying.
PAIRED = 64

# A unit, the width it is given, and what that adds in bytes and KL.
Move = tuple[str, Width, int, float]
# Recipes by name -> mean token KL by window [n] of each.
Measure = Callable[[Mapping[str, UnitWidths]], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Betterment:
    """A recipe found by measuring. kl, kl_before: by window, of it and of the first start.
    measured: how many recipes were."""

    bits: dict[str, Width]
    kl: np.ndarray
    kl_before: np.ndarray
    measured: int
    rounds: int


def in_context(scores: Scores, gains: Mapping[int, float]) -> Scores:
    """The scores with every block's KL brought to what restoring that block gives back in the
    quantized model (`gains`, by block), shared out as its units' own damage is."""
    alone: dict[int, float] = {}
    for unit in scores.units:
        alone[unit.block] = alone.get(unit.block, 0.0) + unit.options[0].kl

    def bring(unit: ScoredUnit) -> ScoredUnit:
        gain = gains.get(unit.block, 0.0)
        if gain <= 0 or alone[unit.block] <= 0:
            return unit
        factor = gain / alone[unit.block]
        options = tuple(Option(o.width, o.bytes, o.kl * factor) for o in unit.options)
        return replace(unit, options=options)

    return replace(scores, units=tuple(map(bring, scores.units)))


def better_recipe(
    scores: Scores, starts: Mapping[str, UnitWidths], room: float, measure: Measure
) -> Betterment:
    """The best recipe found from `starts` by measured swaps, of at most `room` bytes of units."""
    seen = {name: dict(bits) for name, bits in starts.items()}
    found = measure(seen)
    best = min(seen, key=lambda name: as_cost(float(found[name].mean())))
    bits, kl, before = seen[best], found[best], found[next(iter(seen))]
    tried = {_key(each) for each in seen.values()}
    rounds = 0
    while rounds < MOST_ROUNDS:
        neighbours = [each for each in _neighbours(scores, bits, room) if _key(each) not in tried]
        if not neighbours:
            break
        rounds += 1
        batch = {f"swap {rounds}.{i}": each for i, each in enumerate(neighbours[:TRIED_A_ROUND])}
        tried |= {_key(each) for each in batch.values()}
        found = measure(batch)
        winner = min(batch, key=lambda name: as_cost(float(found[name].mean())))
        if not found[winner].mean() < as_cost(float(kl.mean())):
            break
        bits, kl = dict(batch[winner]), found[winner]
    return Betterment(bits, kl, before, len(tried), rounds)


def _key(bits: UnitWidths) -> tuple[tuple[str, Width], ...]:
    return tuple(sorted(bits.items(), key=lambda item: item[0]))


def _neighbours(scores: Scores, bits: UnitWidths, room: float) -> list[dict[str, Width]]:
    """Recipes one change or one exchange away that fit, the best by the scores first."""
    used = scores.unit_bytes(bits)
    every = list(_moves(scores, bits))
    moves = nsmallest(PAIRED, (move for move in every if move[2] > 0), key=_price)
    moves += nsmallest(PAIRED, (move for move in every if move[2] <= 0), key=lambda m: -_price(m))
    ranked: list[tuple[float, tuple[tuple[str, Width], ...]]] = []
    for i, (unit, width, size, kl) in enumerate(moves):
        if used + size <= room:
            ranked.append((kl, ((unit, width),)))
        for other, other_width, other_size, other_kl in moves[i + 1 :]:
            fits = used + size + other_size <= room
            if other != unit and fits and min(size, other_size) < 0 < max(size, other_size):
                ranked.append((kl + other_kl, ((unit, width), (other, other_width))))
    found = nsmallest(4 * TRIED_A_ROUND, ranked, key=lambda each: each[0])
    return [{**bits, **dict(change)} for _, change in found]


def _price(move: Move) -> float:
    """KL that a change adds for a byte it adds."""
    _, _, size, kl = move
    return kl / size if size else kl


def _moves(scores: Scores, bits: UnitWidths) -> Iterator[Move]:
    """Every change of one unit's width: unit, width, and what it adds in bytes and KL."""
    for unit in scores.units:
        now = unit.option(bits[unit.name])
        for option in unit.options:
            if option.width != now.width:
                yield unit.name, option.width, option.bytes - now.bytes, option.kl - now.kl
