"""Ranking by numbers of which some may be none: every choice of a worst or a best takes them so."""

import math
from collections.abc import Sequence

NONE_FINITE = "no AWQ candidate has a finite loss"


def as_cost(value: float | None) -> float:
    """A number to rank damage by. What is missing or NaN, which no comparison orders, counts as the
    largest: it is shown first among what is bad, and never chosen as what is good."""
    return math.inf if value is None or math.isnan(value) else value


def least_at(losses: Sequence[float]) -> int:
    """Where the smallest loss is; of equal ones the first. FloatingPointError where none is a
    number."""
    costs = [as_cost(loss) for loss in losses]
    least = min(costs)
    if math.isinf(least):
        raise FloatingPointError(NONE_FINITE)
    return costs.index(least)
