"""Scores of many models that are close to one another, from the likely rows of the head alone.

A branch differs from a trunk by one block, so its logits differ little, and real vocabularies make
their full product the dearer half of a sweep. With δ the difference of the two inputs of the head,
W its weight, b the trunk's probabilities, and D = W·δ − E_b[W·δ] the centred change of the logits,

    log-sum-exp of the branch = that of the trunk + E_b[W·δ] + log(1 + Σ_v b_v·(e^{D_v} − 1 − D_v)).

E_b[W·δ] is one product with Wᵀb, made once a position for all branches. The terms of the sum are
about b_v·D_v²/2: rows with a large b_v·|W_v − W̄|² are taken exactly (LEAST), the rest is
estimated from SAMPLES rows drawn in proportion to it (systematic sampling, Hansen and Hurwitz,
1943), without bias and with a known standard error. Drawing is by position and not at random, so
that a run repeats to the last bit; its start moves by the golden ratio from one group of positions
to the next, so that neighbours do not err alike.

KL of the reference p to a branch is then KL(p ‖ trunk) + (Wᵀb − Wᵀp)·δ + log(1 + Σ): a difference
of small numbers, which keeps its digits. Where the standard error passes MOST_ERROR nats, or a
logit grows beyond float32, the position is scored in full.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from awqscope.diagnose.statistics.likelihood import (
    LARGEST_EXPONENT,
    Reference,
    score,
)
from awqscope.mixedprec.models.ends import Head

# Of smaller vocabularies, and for fewer branches, the full product is as fast.
FEWEST_ROWS = 16384
FEWEST_BRANCHES = 8
ROWS_AT_ONCE = 4096
# Positions that share the rows that are read for them.
GROUP = 2
LEAST = 1e-5
SAMPLES = 1024
MOST_ERROR = 1e-3
GOLDEN = 0.6180339887498949
# Below this, nats, an error of KL is no longer told relative to it.
LEAST_KL = 1e-3
# How closely a head must be one product for its logits to be taken apart.
LINEARITY = 1e-4

Scores = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class LinearHead:
    """A head whose logits are one product with its input. head: all of it. weight: [V, d]. factor:
    what logits are multiplied by. spread: |W_v − W̄|² of each row relative to their mean, [V]."""

    head: Head
    weight: Tensor
    factor: float
    spread: Tensor

    def states(self, hidden: Tensor) -> Tensor:
        """The input of the product [..., d] for final states, multiplied by the factor."""
        return self.factor * self.head.normed(hidden).float()


def take_apart(head: Head, hidden: Tensor) -> LinearHead | None:
    """The head as one product, if that is what it is: architectures that bound their logits, or add
    a bias to them, are left whole. hidden: some final states [1, n, d] to see it on."""
    weight = head.weight.float()
    if len(weight) < FEWEST_ROWS:
        return None
    logits, plain = head(hidden)[0].float(), head.normed(hidden)[0].float() @ weight.T
    factor = (logits * plain).sum() / plain.square().sum()
    off = (logits - factor * plain).abs().max() / logits.abs().max()
    if not off < LINEARITY:
        return None
    # A factor of 1 up to rounding is none.
    is_one = (factor - 1).abs() <= LINEARITY
    middle = weight.mean(0)
    # A part at a time: a large head is not held twice.
    spread = torch.cat([(rows - middle).square().sum(1) for rows in weight.split(ROWS_AT_ONCE)])
    return LinearHead(head, weight, 1.0 if is_one else factor.item(), spread / spread.mean())


@dataclass
class HeadLog:
    """How far the scores of branches are from those of all logits, where both were made: summed KL
    of each branch by either way, and how many positions that was."""

    positions: int = 0
    found: dict[str, float] = field(default_factory=dict)
    whole: dict[str, float] = field(default_factory=dict)

    def note(self, name: str, found: Tensor, whole: Tensor) -> None:
        """Take in the KL of a branch at some positions [n], by both ways."""
        for sums, values in ((self.found, found), (self.whole, whole)):
            sums[name] = sums.get(name, 0.0) + values.double().sum().item()

    def state(self) -> dict[str, Tensor]:
        """What a chunk keeps of it; nothing where nothing was checked."""
        if not self.positions:
            return {}
        sums = {
            f"kl.{name}": torch.tensor([found, self.whole[name]], dtype=torch.float64)
            for name, found in self.found.items()
        }
        return {"positions": torch.tensor([self.positions]), **sums}


def join_errors(states: Sequence[Mapping[str, Tensor]]) -> tuple[int, float] | None:
    """From what chunks kept: the positions that were checked, and the largest error of a branch's
    mean KL over them, relative to it; None where nothing was checked."""
    checked = [state for state in states if state]
    if not checked:
        return None
    positions = sum(int(state["positions"]) for state in checked)
    sums: dict[str, Tensor] = {}
    for state in checked:
        for name, values in state.items():
            if name != "positions":
                sums[name] = sums.get(name, 0.0) + values
    found, whole = torch.stack(list(sums.values())).unbind(1)
    errors = (found - whole).abs() / whole.abs().clamp(min=LEAST_KL * positions)
    return positions, errors.max().item()


@dataclass(frozen=True)
class Trunk:
    """A trunk at n positions, as what branches are set against.

    states: the head's input [n, d]. found: its logits and probabilities. mean: Wᵀb, and expected:
    Wᵀp of the reference's probabilities p [n, d]. kl: KL of the reference to it [n]."""

    head: LinearHead
    states: Tensor
    found: Reference
    mean: Tensor
    expected: Tensor
    kl: Tensor


def prepare_trunk(
    head: LinearHead, hidden: Tensor, found: Reference, reference: Reference, kl: Tensor
) -> Trunk:
    """What branches of a trunk need of it. hidden: its final states [1, n, d]. found, reference:
    its logits and the reference's. kl: KL of the reference to it [n]."""
    mean = found.probabilities @ head.weight
    expected = mean if found is reference else reference.probabilities @ head.weight
    return Trunk(head, head.states(hidden)[0], found, mean, expected, kl)


@dataclass(frozen=True)
class _Rows:
    """The rows that a group of positions reads: `rows` of the weight, of which the first `exact`
    are taken exactly; weights: by trunk, what each counts at each position [positions, rows]."""

    rows: Tensor
    exact: int
    weights: Mapping[str, Tensor]


def _choose_rows(trunks: Mapping[str, Trunk], spread: Tensor, first: int) -> list[_Rows]:
    """The rows of each GROUP of positions. first: the number of the first position in its window,
    by which the sample begins."""
    probabilities = [trunk.found.probabilities for trunk in trunks.values()]
    likely = functools.reduce(torch.maximum, probabilities) * spread
    chosen = []
    for start in range(0, len(likely), GROUP):
        here = slice(start, start + GROUP)
        is_exact = likely[here].amax(0) > LEAST
        # Of a flat distribution too, the likeliest token is to be found.
        for trunk in trunks.values():
            is_exact[trunk.found.top[here]] = True
        rows = is_exact.nonzero().flatten()
        left = torch.where(is_exact, 0, likely[here].sum(0)).double()
        total = left.cumsum(0)
        offset = (0.5 + (first + start) // GROUP * GOLDEN) % 1
        steps = torch.arange(SAMPLES, dtype=torch.float64, device=left.device) + offset
        drawn = torch.searchsorted(total, steps * (total[-1] / SAMPLES))
        drawn = drawn.clamp(max=len(left) - 1)
        share = SAMPLES * left[drawn] / total[-1]
        weights = {}
        for name, trunk in trunks.items():
            b = trunk.found.probabilities[here]
            sampled = torch.where(share > 0, b[:, drawn] / share, 0).float()
            weights[name] = torch.cat([b[:, rows], sampled], 1)
        chosen.append(_Rows(torch.cat([rows, drawn]), len(rows), weights))
    return chosen


def score_branches(
    trunks: Mapping[str, Trunk],
    reference: str,
    branches: Mapping[str, Mapping[str, Tensor]],
    targets: Tensor,
    first: int,
) -> dict[str, Scores]:
    """NLL, KL and agreement [n] of each branch at n positions of a window.

    reference: the trunk that KL is from. branches: by trunk, the final states [1, n, d] of those
    that are set against it, by name. targets: the tokens that come next [n]. first: the number of
    the first position in the window.
    """
    if not any(branches.values()):
        return {}
    groups = _choose_rows(trunks, trunks[reference].head.spread, first)
    base = trunks[reference].found
    found: dict[str, Scores] = {}
    for trunk_name, hidden in branches.items():
        if not hidden:
            continue
        trunk, finals = trunks[trunk_name], torch.cat(list(hidden.values()))
        head = trunk.head
        delta = head.states(finals) - trunk.states
        mean = (delta * trunk.mean).sum(-1)
        growth, doubtful, best = _sum_up(trunk, trunk_name, groups, delta, mean)
        of_target = (delta * head.weight[targets]).sum(-1)
        logit = trunk.found.logits.gather(1, targets[:, None]).squeeze(1)
        nll = trunk.found.log_sum + mean + growth - logit - of_target
        kl = trunk.kl + (delta * (trunk.mean - trunk.expected)).sum(-1) + growth
        scores = nll, kl, best == base.top
        _score_doubtful(scores, doubtful.nonzero(), head.head, finals, base, targets)
        found |= {name: (*each,) for name, *each in zip(hidden, *scores, strict=True)}
    return found


def _score_doubtful(
    scores: Scores, doubtful: Tensor, head: Head, finals: Tensor, base: Reference, targets: Tensor
) -> None:
    """Score branches in full where the likely rows say too little. scores: of every branch and
    position. doubtful: which of both [pairs, 2]. finals: the branches' final states."""
    # They may be many: as many at once as take half of what the trunks' own logits do.
    for pairs in doubtful.split(max(1, len(targets) // 2)) if len(doubtful) else ():
        at, positions = pairs.unbind(1), pairs[:, 1]
        logits = head(finals[at][None])[0].float()
        there = Reference(*(getattr(base, each.name)[positions] for each in fields(base)))
        for part, value in zip(scores, score(there, logits, targets[positions]), strict=True):
            part[at] = value


def _sum_up(
    trunk: Trunk, name: str, groups: list[_Rows], delta: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of branches with the states' differences delta [branches, n, d] and E_b[W·δ] = mean: the
    growth log(1 + Σ), whether it is too doubtful to be used, and the likeliest token."""
    growth, doubtful = torch.empty_like(mean), torch.empty_like(mean, dtype=torch.bool)
    best = torch.empty_like(mean, dtype=torch.long)
    # Positions first: one product for all branches at the positions of a group.
    delta, mean = delta.transpose(0, 1).contiguous(), mean.T[..., None]
    for number, group in enumerate(groups):
        here = slice(number * GROUP, number * GROUP + GROUP)
        weight = trunk.head.weight.index_select(0, group.rows)
        change = (delta[here].flatten(0, 1) @ weight.T).unflatten(0, delta[here].shape[:2])
        exact = group.rows[: group.exact]
        logits = change[..., : group.exact] + trunk.found.logits[here][:, None, exact]
        best[:, here] = exact[logits.argmax(-1)].T
        change -= mean[here]
        largest = change.amax(-1)
        terms = change.expm1().sub_(change).mul_(group.weights[name][:, None])
        error = terms[..., group.exact :].std(-1) * SAMPLES**0.5
        growth[:, here] = terms.sum(-1).log1p().T
        doubtful[:, here] = ~((largest < LARGEST_EXPONENT) & (error < MOST_ERROR)).T
    return growth, doubtful, best
