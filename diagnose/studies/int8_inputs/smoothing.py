"""The scales that SmoothQuant divides inputs by (Xiao et al. 2022): s_j = max|X_j|^α /
max|W_j|^(1 − α) for every channel j, α searched by the error of the outputs.

They have a place where AWQ's have: in the norm or linear before. The paper fixes α and smooths
what comes after norms; here α is chosen for each group of linears that share an input, from the
same calibration windows as the run's search.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.diagnose.studies.int8_inputs.rounding import WEIGHTS, round_tokens
from awqscope.mixedprec.awq.arithmetic import fake_quantize
from awqscope.mixedprec.awq.scale_groups import find_scale_groups
from awqscope.mixedprec.families.table import ScaleGroup
from awqscope.mixedprec.models.forward import get_linear, run_block
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import Stream, list_batches
from awqscope.mixedprec.ranking import least_at

ALPHAS = tuple(step / 10 for step in range(11))
# Tokens that α is judged on; the largest values are those of all.
SAMPLED_TOKENS = 512
# Below this a channel is not scaled further apart, as in the paper's own code.
SMALLEST = 1e-5


@dataclass
class Seen:
    """What is kept of a linear's inputs: their largest |value| by channel [K], and a few of them.
    step: of how many tokens one is kept."""

    step: int
    largest: Tensor | None = None
    count: int = 0
    sample: list[Tensor] = field(default_factory=list)

    def add(self, inputs: Tensor) -> None:
        """Take in a batch of inputs [..., K]."""
        flat = inputs.flatten(0, -2)
        if not len(flat):
            return
        largest = flat.abs().amax(0)
        self.largest = largest if self.largest is None else torch.maximum(self.largest, largest)
        self.sample.append(flat[-self.count % self.step :: self.step].clone())
        self.count += len(flat)


@dataclass(frozen=True)
class Smoothing:
    """The scales of a block. scales: linear -> [K]; those without are not smoothed. alphas: kind of
    unit -> the α of its group; of experts that of their shared input."""

    scales: Mapping[str, Tensor]
    alphas: Mapping[str, float]


@torch.no_grad()
def search_smoothing(
    model: SourceModel, number: int, stream: Stream, kwargs: dict[str, Any]
) -> Smoothing:
    """The scales of block `number`. stream: the calibration windows before it, which stay as they
    are; kwargs: what it is called with beside them."""
    block = model.read_block(number)
    groups = find_scale_groups(model.family, model.config.model_type, block)
    step = max(1, stream.shape[0] * stream.shape[1] // SAMPLED_TOKENS)
    seen = {name: Seen(step) for group in groups for name in group.linears}
    for name, each in seen.items():
        get_linear(block, name).register_forward_pre_hook(partial(_add_inputs, each))
    for part in list_batches(stream):
        run_block(block, stream.read(part), kwargs)
    scales: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    for group in groups:
        found = choose_alpha(_list_seen(block, group, seen))
        if found is not None:
            alpha, chosen = found
            scales |= dict.fromkeys(group.linears, chosen)
            kinds = [model.family.kind_of(name).name for name in group.linears]
            alphas = dict.fromkeys(kinds, alpha) | alphas
    return Smoothing(scales, alphas)


def _add_inputs(seen: Seen, module: nn.Module, args: tuple[Tensor, ...]) -> None:
    seen.add(args[0])


def _list_seen(
    block: nn.Module, group: ScaleGroup, seen: Mapping[str, Seen]
) -> list[tuple[Tensor, Seen]]:
    """The weights of a group's linears that saw any token, each with what it saw."""
    weights = {name: get_linear(block, name).weight for name in group.linears}
    return [(weights[name], seen[name]) for name in group.linears if seen[name].count]


def choose_alpha(linears: Sequence[tuple[Tensor, Seen]]) -> tuple[float, Tensor] | None:
    """The α of ALPHAS with which the outputs of these linears, weights [N, K] and inputs at int8,
    are closest to the reference's on their sampled inputs, and its scales [K]. None for no
    linears."""
    if not linears:
        return None
    inputs = torch.stack([seen.largest for _, seen in linears if seen.largest is not None])
    weights = torch.stack([weight.abs().amax(0) for weight, _ in linears])
    tried = [smoothing_scales(inputs.amax(0), weights.amax(0), alpha) for alpha in ALPHAS]
    best = least_at([_output_error(linears, scales) for scales in tried])
    return ALPHAS[best], tried[best]


def smoothing_scales(inputs: Tensor, weights: Tensor, alpha: float) -> Tensor:
    """s_j of every channel, from the largest |values| of inputs and weights [K]."""
    scales = inputs.pow(alpha) / weights.clamp(min=SMALLEST).pow(1 - alpha)
    return scales.clamp(min=SMALLEST)


def _output_error(linears: Sequence[tuple[Tensor, Seen]], scales: Tensor) -> float:
    """How far the outputs are from the reference's, summed over squares."""
    total = 0.0
    for weight, seen in linears:
        inputs = torch.cat(seen.sample)
        rounded = round_tokens(inputs / scales) @ fake_quantize(weight * scales, WEIGHTS).T
        total += float((rounded - inputs @ weight.T).square().sum(dtype=torch.float64))
    return total
