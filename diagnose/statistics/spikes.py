"""Which blocks stand out: pure decisions over measured damage."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from awqscope.mixedprec.ranking import as_cost

# Turns a median absolute deviation into a standard deviation, for normal values.
MAD_TO_SIGMA = 1.4826
# Blocks of a healthy model differ by more than this in log KL; peers that happen to agree closer
# must not make the next one look extreme.
SMALLEST_SIGMA = 0.1
SMALLEST_KL = 1e-12


@dataclass(frozen=True)
class BlockDamage:
    """Isolated damage of one block, in nats (KL) and perplexity."""

    block: int
    kl: float
    kl_low: float
    delta_ppl: float


@dataclass(frozen=True)
class Thresholds:
    """When a block is flagged.

    z: robust z-score of its log KL among the other blocks. ratio: its KL is at least this many
    times their median (statistically extreme is not yet worth repairing). delta_ppl: flag any block
    above this, whatever its peers. top_k: flag the k worst instead of those that stand out.
    """

    z: float = 3.5
    ratio: float = 3.0
    delta_ppl: float | None = None
    top_k: int | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether a block is flagged, and why or why not, in words."""

    block: int
    flagged: bool
    z: float
    reason: str


def is_noise(kl: float, floor: float | None) -> bool:
    """Whether a block's KL could be of rounding alone. floor: the KL of the reference against
    itself at higher precision; None where that was not measured."""
    return floor is not None and 0 < kl < floor


def flag_blocks(
    damages: Sequence[BlockDamage], thresholds: Thresholds, floor: float = 0.0
) -> list[Verdict]:
    """A verdict for every block, in the order given. Of blocks with equal KL the earlier ranks
    higher. floor: the KL below which damage is noise: it is never flagged, and no block stands out
    that is not so many times the floor, too."""
    ranks = sorted(range(len(damages)), key=lambda i: -as_cost(damages[i].kl))
    return [
        _judge(damage, [d for d in damages if d is not damage], ranks.index(i), thresholds, floor)
        for i, damage in enumerate(damages)
    ]


def _judge(
    damage: BlockDamage,
    peers: Sequence[BlockDamage],
    rank: int,
    thresholds: Thresholds,
    floor: float,
) -> Verdict:
    def verdict(flagged: bool, reason: str) -> Verdict:
        return Verdict(damage.block, flagged, z, reason)

    z, typical = _robust_z(damage.kl, [peer.kl for peer in peers if not math.isnan(peer.kl)])
    if is_noise(damage.kl, floor):
        return verdict(False, f"KL {damage.kl:.2g} is below the noise floor of {floor:.2g}")
    if thresholds.top_k is not None:
        flagged = rank < thresholds.top_k
        return verdict(flagged, f"rank {rank + 1} by KL; the {thresholds.top_k} worst are flagged")
    if math.isnan(damage.kl):
        return verdict(True, "its KL is not a number: quantized, it computes none")
    if thresholds.delta_ppl is not None and damage.delta_ppl > thresholds.delta_ppl:
        return verdict(True, f"ΔPPL {damage.delta_ppl:.3f} is above {thresholds.delta_ppl:g}")
    if len(peers) < 3:
        return verdict(False, "too few blocks to tell an outlier")
    if damage.kl <= 0:
        return verdict(False, "no damage measured")
    if typical <= 0:
        return verdict(True, "the only kind of block with measured damage")
    # What peers lose below the floor nobody knows: their rounding must not make others stand out.
    measure = "noise floor" if floor > typical else "other blocks' median"
    typical = max(typical, floor)
    times = damage.kl / typical
    described = f"KL {times:.1f}× the {measure} (z = {z:.1f})"
    if z < thresholds.z:
        return verdict(False, f"{described}: below z = {thresholds.z:g}")
    if times < thresholds.ratio:
        return verdict(False, f"{described}: below {thresholds.ratio:g}×")
    if damage.kl_low <= typical:
        return verdict(
            False, f"{described}, but its interval reaches down to that {measure.split()[-1]}"
        )
    return verdict(True, described)


def _robust_z(value: float, peers: Sequence[float]) -> tuple[float, float]:
    """Robust z-score of log `value` among log `peers`, and the peers' median; 0 where undefined."""
    if not value > 0 or not peers or median(peers) <= 0:
        return 0.0, 0.0
    logs = [math.log(max(peer, SMALLEST_KL)) for peer in peers]
    centre = median(logs)
    sigma = MAD_TO_SIGMA * median(abs(log - centre) for log in logs)
    return (math.log(value) - centre) / max(sigma, SMALLEST_SIGMA), math.exp(centre)
