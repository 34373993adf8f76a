"""How many windows a verdict needs: what is looked at after how many, and what is sure by then.

Windows are measured in random order. After so many there is a look: flags that would hold on the
whole text too are settled, and only what is not sure is measured on more. Every look may settle a
flag wrongly; ERROR is what all looks together may, shared evenly between them (Bonferroni).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from awqscope.diagnose.statistics.bootstrap import Floats
from awqscope.diagnose.statistics.spikes import BlockDamage, Thresholds, flag_blocks

# The first look is after so many windows, and so many tokens; each later one after twice as many.
LEAST_WINDOWS, LEAST_TOKENS = 8, 4096
# The share of settled flags that may differ from those of the whole text.
ERROR = 0.05
# How well the isolated damage of all blocks together must be known: half its 95% interval, as a
# share of it.
SUM_ERROR = 0.05
# Draws of the whole text's damage that flags are told from.
DRAWS = 500


def draw_order(windows: int, seed: int) -> NDArray[np.intp]:
    """The windows of a text in the random order that they are measured in."""
    return np.random.default_rng([seed, windows]).permutation(windows)


def list_looks(windows: int, length: int, most: int | None = None) -> tuple[int, ...]:
    """After how many of a text's windows of `length` tokens there is a look. The last is after
    all, or after `most`."""
    last = windows if most is None else min(windows, most)
    look = min(last, max(LEAST_WINDOWS, math.ceil(LEAST_TOKENS / length)))
    looks = [look]
    while look < last:
        look = min(2 * look, last)
        looks.append(look)
    return tuple(looks)


@dataclass(frozen=True)
class Drawn:
    """What blocks' damage may be on the whole text, one value a draw [n]."""

    kl: Floats
    delta_ppl: Floats


def find_unsure(
    damages: Sequence[BlockDamage],
    drawn: Mapping[int, Drawn],
    thresholds: Thresholds,
    looks: int,
    floor: float = 0.0,
) -> list[int]:
    """The blocks whose flag is not settled at one of so many looks: in more than their share of the
    draws, by block, it is not what it is by what was measured. floor: the KL up to which damage is
    noise."""
    by_block = {damage.block: damage for damage in damages}
    flags = [verdict.flagged for verdict in flag_blocks(damages, thresholds, floor)]
    differing = np.zeros(len(damages))
    count = min(DRAWS, *(len(each.kl) for each in drawn.values()))
    for draw in range(count):
        moved = [
            replace(
                damage,
                kl=float(drawn[block].kl[draw]),
                kl_low=float(drawn[block].kl[draw]) - (damage.kl - damage.kl_low),
                delta_ppl=float(drawn[block].delta_ppl[draw]),
            )
            for block, damage in by_block.items()
        ]
        found = [verdict.flagged for verdict in flag_blocks(moved, thresholds, floor)]
        differing += np.not_equal(found, flags)
    settled = differing / count <= ERROR / looks
    return [damage.block for damage, sure in zip(damages, settled, strict=True) if not sure]


def is_known(value: float, drawn: Floats) -> bool:
    """Whether a sum is known to SUM_ERROR, by what it may be on the whole text; so is one that is
    no number, which no more windows make one."""
    half = float(np.subtract(*np.quantile(drawn, [0.975, 0.025]))) / 2
    return not half > SUM_ERROR * abs(value)
