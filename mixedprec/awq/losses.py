"""The scales of a linear by its own loss, found fast.

The choices of the AWQ search are those of autoawq 0.2.9 (Lin et al., 2023, "AWQ: Activation-aware
Weight Quantization"): 20 scale ratios a scale group, 10 clipping levels a weight group, the same
losses. Only the way there differs. Here: the loss of a lone linear, Σ over tokens of |x·ΔWᵀ|², is
tr(ΔW·G·ΔWᵀ) with the Gram matrix G = XᵀX: one matrix for all scalings, tokens read once. Linears
that are judged together are in `joint.py`, clipping is in `clipping.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from awqscope.mixedprec.awq.arithmetic import fake_quantize
from awqscope.mixedprec.ranking import least_at
from awqscope.mixedprec.scheme import Scheme

RATIOS = 20
# Ratios of a search that need not be exact: autoawq's and those between them. One between must be
# better by MARGIN: the loss is ragged, and who is ahead by less says nothing of the model. How far
# apart autoawq's are tried, from coarse to fine, by whether linears are judged alone (True), whose
# losses are smooth.
FINE_RATIOS = 2 * RATIOS
MARGIN = 1e-2
STRIDES = {True: (6, 2), False: (2,)}
ELEMENTS_A_CHUNK = 2**18


def split_rows(weight: Tensor) -> tuple[Tensor, ...]:
    """Views of a few rows each, small enough for their temporaries to stay in the cache."""
    return weight.split(max(1, ELEMENTS_A_CHUNK // weight.shape[1]))


def weight_means(weights: Sequence[Tensor], scheme: Scheme) -> Tensor:
    """Mean over rows of |w| relative to its weight group's largest, [K]: AWQ's weight salience."""
    # One mean over all rows, as autoawq takes it: another order of summation moves scales by a
    # rounding, and that moves ties between clipping levels.
    relative = torch.cat(list(weights), dim=0).abs_()
    for rows in split_rows(relative):
        grouped = rows.view(-1, scheme.group(rows.shape[1]))
        grouped /= grouped.amax(dim=1, keepdim=True) + 1e-6
    return relative.mean(0)


def list_scalings(x_mean: Tensor, w_mean: Tensor | None, count: int = RATIOS) -> Tensor:
    """The scalings, `count` scale vectors [count, K] from mean |x| [K] and, for duo scaling,
    `w_mean`."""
    scalings = []
    for step in range(count):
        ratio = step / count
        scales = x_mean.pow(ratio)
        if w_mean is not None:
            scales = scales / (w_mean.pow(1 - ratio) + 1e-4)
        scales = scales.clamp(min=1e-4)
        scales = scales / (scales.max() * scales.min()).sqrt()
        scales[torch.isinf(scales) | torch.isnan(scales)] = 1
        scalings.append(scales)
    return torch.stack(scalings)


def scaled_round_trip(weight: Tensor, scales: Tensor, scheme: Scheme) -> Tensor:
    """Q(W·s)/s: the weight that acts on unscaled inputs when W·s is quantized."""
    result = torch.empty_like(weight)
    for rows, out in zip(split_rows(weight), split_rows(result), strict=True):
        torch.div(fake_quantize(rows * scales, scheme), scales, out=out)
    return result


@dataclass(frozen=True)
class SecondMoment:
    """Σ xᵀx over tokens x, as the Gram matrix [K, K] or, where tokens are fewer than channels, as
    the tokens [T, K] themselves: whichever makes the loss cheaper."""

    matrix: Tensor
    is_gram: bool

    def squared_error(self, delta: Tensor) -> float:
        """Σ over tokens of |x·δᵀ|² for an error δ [N, K] of a weight."""
        if self.is_gram:
            return ((delta @ self.matrix) * delta).sum().item()
        return (delta @ self.matrix.T).square().sum().item()


def second_moment(inputs: Tensor) -> SecondMoment:
    """The second moment of the inputs [T, K]."""
    is_gram = inputs.shape[0] >= inputs.shape[1]
    return SecondMoment(inputs.T @ inputs if is_gram else inputs, is_gram)


def lone_losses(
    weight: Tensor, moment: SecondMoment, scalings: Tensor, scheme: Scheme
) -> list[float]:
    """Σ over tokens and outputs of the squared error of a lone linear under each scaling."""
    return [
        moment.squared_error(scaled_round_trip(weight, scales, scheme).sub_(weight))
        for scales in scalings
    ]


class Race(Protocol):
    """Gives the winner of some things, by number. A favourite wins unless another is better by
    MARGIN."""

    def __call__(self, numbers: Sequence[int], favourite: int | None = None) -> int: ...


def descend(race: Race, count: int, strides: Sequence[int]) -> int:
    """The winner among `count` things of which neighbours are alike: of those a stride apart, and
    then of whoever leads and its neighbours at smaller and smaller strides, until it leads again;
    at last it is the favourite among its nearest neighbours."""
    first, *finer = strides
    leader = race(range(0, count, first))

    def list_near(stride: int) -> list[int]:
        near = (leader - stride, leader, leader + stride)
        return [number for number in near if 0 <= number < count]

    for stride in finer:
        while (winner := race(list_near(stride))) != leader:
            leader = winner
    return race(list_near(1), leader)


def choose_favoured(numbers: Sequence[int], losses: Sequence[float], favourite: int | None) -> int:
    """The number with the least loss, of equal ones the first; the favourite unless another is
    better by MARGIN. FloatingPointError where no loss is a number."""
    best = numbers[least_at(losses)]
    if favourite is None or best == favourite:
        return best
    mine, other = losses[numbers.index(favourite)], losses[numbers.index(best)]
    return best if not mine * (1 - MARGIN) <= other else favourite


def choose_lone(
    weight: Tensor, moment: SecondMoment, scalings: Tensor, scheme: Scheme, *, exact: bool
) -> int:
    """Index of the scaling under which a lone linear loses least; unless it must be exact, the
    least that `descend` finds."""
    if exact:
        return least_at(lone_losses(weight, moment, scalings, scheme))
    losses: dict[int, float] = {}

    def race(numbers: Sequence[int], favourite: int | None = None) -> int:
        for number in numbers:
            if number not in losses:
                [losses[number]] = lone_losses(
                    weight, moment, scalings[number : number + 1], scheme
                )
        return choose_favoured(numbers, [losses[number] for number in numbers], favourite)

    return descend(race, len(scalings), STRIDES[True])
