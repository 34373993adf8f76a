"""A linear's weight and inputs rounded to int8, as servers of W8A8 compute with, simulated in
floating point.

y = x·Wᵀ becomes Q(x)·Q(W)ᵀ, where Q rounds each row, a token of x or an output of W, to 255 levels
with a scale of its own: the sum that integer kernels form exactly and scale afterwards.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from awqscope.diagnose.studies.int8_inputs.answer import LLM_INT8, THRESHOLD
from awqscope.mixedprec.awq.arithmetic import fake_quantize
from awqscope.mixedprec.scheme import Scheme

Transform = Callable[[Tensor], Tensor]
BITS = 8
# A scale for each output, and no zero points.
WEIGHTS = Scheme(BITS, -1, True)
HIGHEST = 2 ** (BITS - 1) - 1


@dataclass(frozen=True)
class RoundedLinear:
    """A linear at int8. weight: what stands in the reference's place [N, K], in its basis.
    transform: what becomes of an input [..., K]."""

    weight: Tensor
    transform: Transform


def round_linear(weight: Tensor, method: str, scales: Tensor | None = None) -> RoundedLinear:
    """A weight [N, K] and its inputs at int8, by a method of METHODS. scales [K]: what smoothquant
    divides its inputs by and multiplies its weight with, None for nothing.

    Where a server folds the scales into what comes before, here they are taken out again after
    rounding: Q(x/s)·s and Q(W·s)/s, so that every other part of a block stays as it is."""
    if scales is not None:
        rounded = fake_quantize(weight * scales, WEIGHTS).div_(scales)
        return RoundedLinear(rounded, partial(round_smoothed, scales=scales))
    transform = round_but_outliers if method == LLM_INT8 else round_tokens
    return RoundedLinear(fake_quantize(weight, WEIGHTS), transform)


def round_tokens(inputs: Tensor) -> Tensor:
    """Inputs [..., K] with each token rounded to int8 by a scale of its own, its largest value over
    127."""
    largest = inputs.abs().amax(-1, keepdim=True)
    scales = largest.clamp(min=torch.finfo(torch.float32).tiny) / HIGHEST
    return torch.round(inputs / scales).mul_(scales)


def round_smoothed(inputs: Tensor, scales: Tensor) -> Tensor:
    """Inputs [..., K] divided by `scales` [K], rounded by token, and multiplied again."""
    return round_tokens(inputs / scales).mul_(scales)


def find_outliers(inputs: Tensor) -> Tensor:
    """The channels of inputs [..., tokens, K] in which some token reaches THRESHOLD, bool
    [..., 1, K]."""
    return (inputs.abs() >= THRESHOLD).any(-2, keepdim=True)


def round_but_outliers(inputs: Tensor) -> Tensor:
    """Inputs [..., tokens, K] rounded by token, but for the outlier channels of each window.

    This is what bitsandbytes computes: its weights are all at int8, and a token's scale is that of
    its values below the threshold, in whatever channel they are."""
    below = inputs.masked_fill(inputs.abs() >= THRESHOLD, 0.0)
    return torch.where(find_outliers(inputs), inputs, round_tokens(below))
