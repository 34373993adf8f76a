"""Which of several models loses least, by how much surely, and which no other makes pointless."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from awqscope.diagnose.compared.standing import Standing
from awqscope.diagnose.gate.findings import Finding, Missing
from awqscope.diagnose.gate.paired import Pair, Side, read_pair
from awqscope.diagnose.gate.verdict import GateVerdict
from awqscope.mixedprec.ranking import as_cost

# More than these are hardly told apart in a chart.
MOST_RANKED = 12


@dataclass(frozen=True)
class Ranked:
    """A model in its place. pair: it beside the baseline, changes being its numbers less the
    baseline's; None for the baseline itself. dominated: whether another that was measured on the
    same tokens is no larger and loses no more, and is better in one of the two."""

    standing: Standing
    pair: Pair | None
    dominated: bool

    @property
    def is_comparable(self) -> bool:
        """Whether its numbers can be held against the baseline's."""
        return self.pair is None or self.pair.same_tokens is True

    @property
    def is_surely_worse(self) -> bool:
        """Whether its KL is surely above the baseline's."""
        kl = None if self.pair is None else self.pair.changes["kl"]
        return isinstance(kl, Finding) and kl.low > 0


def rank(
    standings: Sequence[Standing],
    baseline: int | None = None,
    pair: Callable[[Side, Side], Pair] = read_pair,
) -> list[Ranked]:
    """Models in the order of their KL, the least first, those on other tokens than the baseline's
    behind them. baseline: which of them the others are held against; by default as `choose_best`
    has it. pair: reads two sides.
    """
    at = choose_best(standings) if baseline is None else baseline
    base = standings[at]
    pairs = [
        None if index == at else pair(base.side, each.side) for index, each in enumerate(standings)
    ]
    ranked = [
        Ranked(
            each,
            beside,
            any(
                dominates(other, each)
                for other in standings
                if tokens_of(other.side) == tokens_of(each.side)
            ),
        )
        for each, beside in zip(standings, pairs, strict=True)
    ]
    return sorted(ranked, key=lambda one: (not one.is_comparable, as_cost(_known(one.standing.kl))))


def order_verdicts(
    ranked: Sequence[Ranked], weighed: Iterable[tuple[Standing, GateVerdict | Missing]]
) -> list[GateVerdict | Missing]:
    """The gate's verdicts on models, as `weigh_side` gives them, in the order of a ranking."""
    known = {id(standing): verdict for standing, verdict in weighed}
    return [known[id(one.standing)] for one in ranked]


def choose_best(standings: Sequence[Standing]) -> int:
    """The model with the least KL of the largest set that was measured on the same tokens; of sets
    of equal size that of the earliest. Models of finished runs go before all others."""
    tokens = [tokens_of(each.side) for each in standings]
    shared = Counter(tokens).most_common(1)[0][0]
    alike = [index for index, found in enumerate(tokens) if found == shared]

    def rate(index: int) -> tuple[bool, float]:
        return not standings[index].has_finished, as_cost(_known(standings[index].kl))

    return min(alike, key=rate)


def tokens_of(side: Side) -> tuple[object, ...]:
    """What tells the tokens that a run was measured on from others; a run of an earlier version,
    which has no hash of them, shares its own with nobody."""
    found = side.record.ppl_definition
    own = found.tokens_sha256 or str(side.run.path.resolve())
    return found.windows, found.seq_len, own


def dominates(one: Standing, other: Standing) -> bool:
    """Whether one is no larger and loses no more than the other, and is better in one of both."""
    if one.bytes is None or other.bytes is None or one.kl is None or other.kl is None:
        return False
    no_worse = one.bytes <= other.bytes and one.kl <= other.kl
    return no_worse and (one.bytes < other.bytes or one.kl < other.kl)


def _known(kl: float | None) -> float:
    return float("nan") if kl is None else kl
