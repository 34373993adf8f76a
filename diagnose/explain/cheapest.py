"""The cheapest set of units whose promotion repairs a prompt, found by asking for few sets.

The search measures nothing itself: it is a generator that yields sets to be measured and is sent
their outcomes, so that many prompts' searches can share each pass over the weights.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

Units = frozenset[str]
# How many of the best units are tried in pairs, grown into one set, and added one at a time to a
# set; how often the last; how many cheaper sets are tried out.
PAIRED = 6
GROWN = 16
ADDED = 48
ROUNDS = 6
EXHAUSTIVE = 128


@dataclass(frozen=True)
class Outcome:
    """Whether a model predicts the tokens wanted of it, and how clearly. repaired: whether all are
    the likeliest; worst: the smallest margin of them (a token's logit less the largest other one).
    Of the last token: whether it `wins`, its margin and its probability."""

    repaired: bool
    worst: float
    wins: bool
    margin: float
    probability: float


@dataclass(frozen=True)
class Cheapest:
    """A set that repairs. proved: every cheaper set was measured and repairs nothing; else only
    that it does not with any one unit left out. tried: sets measured, one unit alone included."""

    units: tuple[str, ...]
    extra_bytes: int
    proved: bool
    tried: int


Search = Generator[list[Units], Mapping[Units, Outcome], Cheapest | None]


def search_cheapest(
    extra_bytes: Mapping[str, int], singles: Mapping[str, Outcome], worst: float
) -> Search:
    """Search among the units of `extra_bytes` (unit -> bytes that its promotion adds).

    singles: the outcome of each unit alone. worst: the smallest margin with none. Yields sets to
    measure; returns None where not even promoting everything repairs, nor any set on the way there.
    """
    costs = {unit: max(1, size) for unit, size in extra_bytes.items()}
    known: dict[Units, Outcome] = {frozenset([unit]): found for unit, found in singles.items()}
    # What does most for its bytes first.
    order = sorted(costs, key=lambda unit: ((worst - singles[unit].worst) / costs[unit], unit))

    def price(units: Units) -> int:
        return sum(costs[unit] for unit in units)

    def best() -> Units | None:
        repaired = [units for units, found in known.items() if found.repaired]
        return min(repaired, key=lambda s: (price(s), len(s), sorted(s)), default=None)

    def ask(sets: Iterator[Units] | Sequence[Units]) -> Generator[list[Units], Mapping, None]:
        fresh = [units for units in dict.fromkeys(sets) if units not in known]
        if fresh:
            known.update((yield fresh))

    grown = [frozenset(order[:size]) for size in range(2, len(order) + 1)]
    yield from ask(_pairs(order[:PAIRED]))
    if best() is None:
        # What repairs one token may break an earlier one: only the outcome of the whole set counts.
        largest = frozenset([max(order, key=lambda unit: singles[unit].worst)])
        for _ in range(ROUNDS):
            wider = [largest | {unit} for unit in order[:ADDED] if unit not in largest]
            if best() is not None or not wider:
                break
            yield from ask(wider)
            largest = max(wider, key=lambda units: known[units].worst)
        yield from ask(grown[:GROWN])
    for start in range(GROWN, len(grown), GROWN):
        if best() is not None:
            break
        yield from ask(grown[start : start + GROWN])
    found = best()
    if found is None:
        return None
    while len(found) > 1:
        parts = [found - {unit} for unit in sorted(found)]
        yield from ask(parts)
        smaller = best()
        assert smaller is not None
        if price(smaller) >= price(found):
            break
        found = smaller
    cheaper = list_cheaper(costs, price(found), EXHAUSTIVE)
    if cheaper is not None:
        yield from ask(cheaper)
        found = best() or found
    return Cheapest(
        tuple(unit for unit in costs if unit in found),
        sum(extra_bytes[unit] for unit in found),
        cheaper is not None,
        len(known),
    )


def _pairs(units: Sequence[str]) -> list[Units]:
    return [frozenset((a, b)) for at, a in enumerate(units) for b in units[at + 1 :]]


def list_cheaper(costs: Mapping[str, int], limit: int, most: int) -> list[Units] | None:
    """Every non-empty set of units that costs less than `limit`; None if there are more than
    `most`. costs: positive."""
    ascending = sorted(costs, key=lambda unit: (costs[unit], unit))
    found: list[Units] = []
    open_sets: list[tuple[Units, int, int]] = [(frozenset(), 0, 0)]
    while open_sets:
        units, cost, start = open_sets.pop()
        for at in range(start, len(ascending)):
            more = cost + costs[ascending[at]]
            if more >= limit:
                break
            grown = units | {ascending[at]}
            found.append(grown)
            if len(found) > most:
                return None
            open_sets.append((grown, more, at + 1))
    return found
