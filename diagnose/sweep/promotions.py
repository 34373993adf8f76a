"""Inside the flagged blocks: which units do the damage, and which are the fewest worth 8 bits.

Units are measured exactly, by the same sweep as blocks: alone (`unit.NAME.BITS`), and in every
combination of promotions with everything else at the low width (`promoted.BLOCK.UNIT+UNIT`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pandas import Series

from awqscope.diagnose.sweep.branches import REFERENCE, UNIFORM, Branch, list_subsets
from awqscope.diagnose.sweep.swappable import uniform_widths
from awqscope.mixedprec.families.table import Unit
from awqscope.mixedprec.models.source import SourceModel

ENOUGH = 0.95


@dataclass(frozen=True)
class Promotion:
    """Units of one block at the rescue width, the rest of the model uniform. kl: of that model."""

    block: int
    units: tuple[str, ...]
    kl: float


def unit_branch(model: SourceModel, unit: Unit, bits: int) -> Branch:
    """The reference model with one unit at `bits`."""
    widths = tuple(sorted(dict.fromkeys(unit.linears, bits).items()))
    return Branch(f"unit.{unit.name}.{bits}", unit.block, REFERENCE, widths, REFERENCE)


def promotion_branches(
    model: SourceModel, block: int, low: int, rescue: int, kept: frozenset[str]
) -> dict[Branch, tuple[str, ...]]:
    """Each branch that promotes a set of units of `block` -> the names of those units."""
    kinds = {
        f"{block}.{kind.name}": kind.linears
        for kind in model.family.units
        if f"{block}.{kind.name}" not in kept
    }
    branches = {}
    for units in list_subsets(list(kinds)):
        widths = dict(uniform_widths(model, low, kept, block))
        for unit in units:
            widths |= dict.fromkeys(kinds[unit], rescue)
        name = f"promoted.{block}.{'+'.join(unit.partition('.')[2] for unit in units)}"
        branch = Branch(name, block, UNIFORM, tuple(sorted(widths.items())), UNIFORM)
        branches[branch] = units
    return branches


def choose_promotion(
    promotions: Sequence[Promotion], uniform_kl: float, unit_bytes: Mapping[str, int]
) -> Promotion:
    """The fewest units that give back at least 95% of what the whole block's promotion does; among
    equally many the cheapest in bytes, then the one with the lowest KL."""
    whole = max(promotions, key=lambda p: len(p.units))
    wanted = ENOUGH * (uniform_kl - whole.kl)
    enough = [p for p in promotions if uniform_kl - p.kl >= wanted]
    return min(
        [*enough, whole],
        key=lambda p: (len(p.units), sum(unit_bytes[u] for u in p.units), p.kl),
    )


def pick_for_verification(estimates: Mapping[str, float], count: int) -> list[str]:
    """Units to measure exactly: the worst half of `count` by estimate, the others spread evenly
    over the rest of the ranking, so that the rank correlation says something of all of it."""
    ranking = sorted(estimates, key=lambda unit: (-estimates[unit], unit))
    top = ranking[: (count + 1) // 2]
    rest = ranking[len(top) :]
    wanted = min(count - len(top), len(rest))
    if wanted <= 0:
        return top
    spread = [rest[round(i * (len(rest) - 1) / max(1, wanted - 1))] for i in range(wanted)]
    return list(dict.fromkeys([*top, *spread]))


def rank_correlation(estimated: Sequence[float], exact: Sequence[float]) -> float | None:
    """Spearman's correlation; None for fewer than three pairs, or if either is constant."""
    if len(exact) < 3 or min(len(set(estimated)), len(set(exact))) < 2:
        return None
    # Not scipy.stats: importing it would hold 20 MiB for the rest of the run.
    return float(Series(estimated).rank().corr(Series(exact).rank()))
