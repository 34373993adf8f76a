"""What changed from one model to the next: blocks, units, tokens that are newly broken or mended.

A block or a unit is newly broken where its KL surely rose, by no less than MATERIAL of all that the
earlier model lost, and mended where it fell so. A token is newly broken where the earlier model's
likeliest next token was the reference's and the later one's is not, and mended the other way round.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from awqscope.diagnose.compared.standing import read_unit_costs
from awqscope.diagnose.gate.findings import Missing
from awqscope.diagnose.gate.paired import Pair, Side, read_pair
from awqscope.diagnose.gate.shares import Cost, read_block_costs

# Of the earlier model's KL: what changes by less decides no release.
MATERIAL = 0.05
# Tokens of each kind that are shown in their text, and how much of it.
MOST_TOKENS = 30
BEFORE, AFTER = 12, 3

Name = TypeVar("Name", int, str)
Row = Mapping[str, Any]


@dataclass(frozen=True)
class CostChange:
    """What a block, by its number, or a unit, by its name, costs before and after, and the
    difference with its bounds."""

    of: int | str
    before: float
    after: float
    difference: float
    low: float
    high: float

    @property
    def is_sure(self) -> bool:
        """Whether the difference surely has its sign."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class TokenChanges:
    """Tokens whose likeliest next token changed its agreement with the reference's. scored: tokens
    in all. broken, mended: how many of each. worst: of the newly broken those with the largest KL
    now, best: of the mended those with the largest KL before; rows of window, position, before,
    text, after (the passage), kl_before and kl_after."""

    scored: int
    broken: int
    mended: int
    worst: Sequence[Row] = ()
    best: Sequence[Row] = ()


@dataclass(frozen=True)
class Step:
    """From one model, `a`, to the next, `b`. blocks, units: what surely and materially changed, the
    largest change first, or why that is not known. threshold: the least change that is material,
    in nats a token."""

    a: Side
    b: Side
    pair: Pair
    blocks: Sequence[CostChange] | Missing
    units: Sequence[CostChange] | Missing
    tokens: TokenChanges | Missing
    threshold: float

    @property
    def nbytes(self) -> int:
        """About what it takes in memory."""
        return 100_000


def subtract_costs(before: Mapping[Name, Cost], after: Mapping[Name, Cost]) -> list[CostChange]:
    """What each costs more than before, of those that both have. The interval takes the two
    estimates for independent (half-widths add in squares), which is cautious for runs on the same
    text."""
    found = []
    for of in sorted(before.keys() & after.keys()):
        (one, one_low, one_high), (other, other_low, other_high) = before[of], after[of]
        difference = other - one
        down = math.hypot(other - other_low, one_high - one)
        up = math.hypot(other_high - other, one - one_low)
        found.append(CostChange(of, one, other, difference, difference - down, difference + up))
    return found


def choose_material(changes: Sequence[CostChange], threshold: float) -> list[CostChange]:
    """The changes that are sure and of at least `threshold`, the largest first."""
    sure = [each for each in changes if each.is_sure and abs(each.difference) >= threshold]
    return sorted(sure, key=lambda each: -abs(each.difference))


def read_step(a: Side, b: Side, pair: Pair | None = None) -> Step:
    """What changed from `a` to `b`. pair: the two side by side, where that is known already.
    InputError for tables that are damaged."""
    beside = pair or read_pair(a, b)
    threshold = MATERIAL * (a.record.measured.kl.of(a.model) or 0.0)
    if beside.same_tokens is not True:
        said = (
            "they were measured on different tokens"
            if beside.same_tokens is False
            else "it is not known whether they were measured on the same tokens"
        )
        why = Missing(said)
        return Step(a, b, beside, why, why, why, threshold)
    blocks = [read_block_costs(side.run, side.record, side.stored) for side in (a, b)]
    units = [read_unit_costs(side) for side in (a, b)]
    return Step(
        a,
        b,
        beside,
        _compare_costs(blocks[0], blocks[1], threshold),
        _compare_costs(units[0], units[1], threshold),
        read_token_changes(a, b),
        threshold,
    )


def _compare_costs(
    before: Mapping[Name, Cost] | Missing, after: Mapping[Name, Cost] | Missing, threshold: float
) -> Sequence[CostChange] | Missing:
    if isinstance(before, Missing):
        return before
    if isinstance(after, Missing):
        return after
    return choose_material(subtract_costs(before, after), threshold)


def read_token_changes(a: Side, b: Side) -> TokenChanges | Missing:
    """The tokens that `b` broke newly or mended, of two models measured on the same tokens. Missing
    where one of them has no scores of its own, or no tokens at all."""
    for side in (a, b):
        if not (side.run.path / "tokens.parquet").exists():
            return Missing(f"{side.run.path} has no tokens.parquet")
    columns = ["window", "position", "text"]
    tables = [
        side.run.read_table("tokens", [*more, f"kl_{side.stored}", f"agree_{side.stored}"])
        for side, more in ((a, []), (b, columns))
    ]
    kls, agrees = [], []
    for side, table in zip((a, b), tables, strict=True):
        agrees.append(table[f"agree_{side.stored}"].to_numpy(zero_copy_only=False))
        kls.append(np.asarray(table[f"kl_{side.stored}"].to_numpy(), dtype=np.float64))
    if len(agrees[0]) != len(agrees[1]):
        return Missing("their token tables are of different lengths")
    known = [~np.isnan(kl) for kl in kls]
    scored = known[0] & known[1]
    if not scored.any():
        return Missing("one of them has no scores of tokens")
    kept, keeps = (agree == True for agree in agrees)  # noqa: E712
    broken = np.flatnonzero(scored & kept & ~keeps)
    mended = np.flatnonzero(scored & ~kept & keeps)
    worst = broken[np.argsort(-kls[1][broken], kind="stable")[:MOST_TOKENS]]
    best = mended[np.argsort(-kls[0][mended], kind="stable")[:MOST_TOKENS]]
    return TokenChanges(
        int(scored.sum()),
        len(broken),
        len(mended),
        [_show(tables[1], kls, at) for at in worst.tolist()],
        [_show(tables[1], kls, at) for at in best.tolist()],
    )


def _show(table: Any, kls: Sequence[np.ndarray], at: int) -> Row:
    """A token in its passage, which does not go beyond its window."""
    window, position = table["window"][at].as_py(), table["position"][at].as_py()
    around = table["text"].slice(at - min(position, BEFORE), min(position, BEFORE)).to_pylist()
    behind = table.slice(at + 1, AFTER)
    return {
        "window": window,
        "position": position,
        "before": "".join(around),
        "text": table["text"][at].as_py(),
        "after": "".join(row["text"] for row in behind.to_pylist() if row["window"] == window),
        "kl_before": float(kls[0][at]),
        "kl_after": float(kls[1][at]),
    }
