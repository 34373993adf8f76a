"""A block with AWQ's steps switched on one after another, and the split of an error by them.

AWQ takes three steps: it rounds, it scales inputs before that so that rounding hurts less (chosen
first), and it clips the largest weights (chosen under those scales). Let e(·) be an error of the
same thing with some of the steps: of a linear's output, or the block's KL. The split switches them
on in AWQ's own order:

    rounding = e(rounded) − e(nothing) = e(rounded)      since e(nothing) = 0
    scale    = e(rounded, scaled) − e(rounded)
    clip     = e(rounded, scaled, clipped) − e(rounded, scaled)

The sum telescopes to e(rounded, scaled, clipped), the error as it is served, exactly. Every term is
a difference of two models that can be made: the clip's is what leaving the clip out gives back,
scale and clip together are what AWQ changes about plain rounding. Scale and clip are below 0 where
they do what they are meant to. An order that clips without scales is left out, as in Shapley's mean
over all orders: a clip is a maximum of scaled weights, and means nothing of others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from awqscope.diagnose.entries.part import Bounded
from awqscope.diagnose.statistics.bootstrap import Floats, Resampler, bounded, bounds, expanded_tail
from awqscope.diagnose.studies.causes.answer import Split
from awqscope.mixedprec.awq.choices import BlockSearch
from awqscope.mixedprec.awq.realise import RealisedBlock, RealisedLinear, realise
from awqscope.mixedprec.models.forward import get_linear
from awqscope.mixedprec.scheme import LinearWidths

ROUNDED, SCALED, SERVED, CLIPPED = "rounded", "scaled", "served", "clipped"
# With what is switched on: rounding; with scales; with clipping, as served.
STATES = (ROUNDED, SCALED, SERVED)


@dataclass(frozen=True)
class Switched:
    """A block with steps switched on. blocks: state -> the parameters in the reference's place, in
    its basis. clipped: linear -> its weight scaled and clipped, and not rounded. served: every
    linear as it is served."""

    blocks: Mapping[str, dict[str, Tensor]]
    clipped: Mapping[str, Tensor]
    served: Mapping[str, RealisedLinear]

    def weight(self, state: str, linear: str) -> Tensor:
        """The effective weight [N, K] of a linear in one of STATES, or CLIPPED."""
        if state == CLIPPED:
            return self.clipped[linear]
        return self.blocks[state][f"{linear}.weight"]


@torch.no_grad()
def switch(
    block: nn.Module,
    search: BlockSearch,
    widths: LinearWidths,
    linears: Sequence[str],
    dtype: torch.dtype,
) -> Switched:
    """The block in every state. block: with the reference's weights. search: the run's, at its low
    width. widths: of the uniform model, linear -> that width or 16. linears: those quantized ones
    that are looked at by themselves."""

    def make(with_search: BlockSearch) -> RealisedBlock:
        return realise(block, {search.scheme.bits: with_search}, widths, dtype)

    served = make(search)
    states = {
        ROUNDED: make(replace(search, scales=(), clips={})).effective(),
        SCALED: make(replace(search, clips={})).effective(),
        SERVED: served.effective(),
    }
    clipped = {
        name: _clip(get_linear(block, name).weight, served.linears[name], search, name)
        for name in linears
    }
    return Switched(states, clipped, served.linears)


def _limit(one: RealisedLinear, search: BlockSearch, linear: str, rows: int) -> Tensor | None:
    """The largest weight kept [N, G, 1] of a linear as it is served; None where it is not
    clipped."""
    clip = search.clips.get(linear)
    if clip is None:
        return None
    # A clip is of rows as the search scaled them; scales of a linear that is kept are not served.
    return (clip * (search.row_scales(linear, rows) / one.outputs)[:, None])[:, :, None]


def _clip(weight: Tensor, one: RealisedLinear, search: BlockSearch, linear: str) -> Tensor:
    limit = _limit(one, search, linear, len(weight))
    if limit is None:
        return weight
    scaled = weight * one.inputs / one.outputs[:, None]
    scaled = scaled.view(*limit.shape[:2], -1).clamp(-limit, limit).view_as(weight)
    return scaled * one.outputs[:, None] / one.inputs


def count_clipped(weight: Tensor, one: RealisedLinear, search: BlockSearch, linear: str) -> Tensor:
    """The share of each column's weights that the clip of a linear cuts, [K]."""
    limit = _limit(one, search, linear, len(weight))
    if limit is None:
        return torch.zeros(weight.shape[1])
    scaled = (weight * one.inputs / one.outputs[:, None]).view(*limit.shape[:2], -1)
    # A largest weight that is the limit itself is not cut.
    return (scaled.abs() > limit * (1 + 1e-6)).view_as(weight).float().mean(0)


def estimate_share(resampler: Resampler, part: Floats, whole: Floats) -> Bounded:
    """Σ part / Σ whole over windows, with its interval; zeros where the whole is zero. The interval
    is widened for how few windows there are."""
    if not whole.sum():
        return 0.0, 0.0, 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled = resampler.means(part) / resampler.means(whole)
    tail = expanded_tail(len(part))
    return bounds(bounded(float(part.sum() / whole.sum()), resampled, tail, tail))


def split_error(
    resampler: Resampler, errors: Mapping[str, Floats], whole: Floats | None = None
) -> Split:
    """An error by AWQ's steps. errors: state -> of each window [n]; whole: what they are relative
    to; None for their own unit."""
    whole = np.ones_like(errors[SERVED]) if whole is None else whole

    def share(part: Floats) -> Bounded:
        return estimate_share(resampler, part, whole)

    return Split(
        rounding=share(errors[ROUNDED]),
        scale=share(errors[SCALED] - errors[ROUNDED]),
        clip=share(errors[SERVED] - errors[SCALED]),
        total=share(errors[SERVED]),
    )


def split_plainly(errors: Mapping[str, float], whole: float) -> Sequence[float]:
    """Rounding, scale and clip of an error that has no windows, relative to `whole`."""
    steps = (errors[ROUNDED], errors[SCALED] - errors[ROUNDED], errors[SERVED] - errors[SCALED])
    return [step / whole if whole else 0.0 for step in steps]
