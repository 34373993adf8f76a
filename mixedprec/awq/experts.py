"""The AWQ search of a block's experts, one after another, on the tokens that the router gives each.

An expert sees few tokens, some experts none. What is judged on them is an expert's own: the scales
between its up and its down, and the clipping of its three linears. The scales of all gates and ups
come from all tokens; they share one input, and the norm before it.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from awqscope.mixedprec.awq.autoawq import is_clipped
from awqscope.mixedprec.awq.choices import BlockSearch, ScaleChoice
from awqscope.mixedprec.awq.clipping import choose_clip, sample_for_clipping
from awqscope.mixedprec.awq.losses import (
    RATIOS,
    list_scalings,
    lone_losses,
    second_moment,
    weight_means,
)
from awqscope.mixedprec.families.experts import Experts
from awqscope.mixedprec.families.family import ExpertLayout, ScaleGroup
from awqscope.mixedprec.models.forward import get_linear
from awqscope.mixedprec.models.streams import Stream, list_batches
from awqscope.mixedprec.ranking import least_at

# Fewer tokens than the smallest weight group has channels leave directions in every group unseen,
# and clipping is free to spoil them.
FEWEST_TOKENS = 32


def _choose_scales(
    block: nn.Module, group: ScaleGroup, inputs: Tensor, search: BlockSearch
) -> ScaleChoice:
    """The scales of a lone linear, from its inputs [T, K]."""
    scheme = search.scheme_of(group.linears[0])
    weight = get_linear(block, group.linears[0]).weight.data
    scalings = list_scalings(inputs.abs().mean(0), weight_means([weight], scheme))
    losses = lone_losses(weight, second_moment(inputs), scalings, scheme)
    best = least_at(losses)
    return ScaleChoice(group, best / RATIOS, scalings[best].clone())


def search_experts(
    block: nn.Module,
    layout: ExpertLayout,
    groups: Sequence[ScaleGroup],
    inputs: Stream,
    searches: Sequence[BlockSearch],
) -> list[BlockSearch]:
    """Complete the searches of a block, one a scheme, by what each expert is searched for alone.

    groups: of the block. inputs: [n, length, d], what its mixture saw. An expert that saw fewer
    than FEWEST_TOKENS is rounded as it is, and listed as uncalibrated.
    """
    mixture, alone = block.get_submodule(layout.module), {g.previous: g for g in groups}
    experts = mixture.get_submodule("experts")
    assert isinstance(experts, Experts)
    router: nn.Module = mixture.get_submodule(layout.gates[0])
    device = next(router.parameters()).device
    windows, length, _ = inputs.shape
    batches = (inputs.read(part).to(device).flatten(0, 1) for part in list_batches(inputs))
    chosen = torch.cat([router(batch)[2].cpu() for batch in batches])
    by_token = inputs.reshape(windows * length, 1)
    found = [(list(s.scales), dict(s.clips), list(s.uncalibrated)) for s in searches]
    for number in range(len(experts)):
        name = layout.expert(number)
        rows = (chosen == number).any(-1).nonzero().flatten()
        if len(rows) < FEWEST_TOKENS:
            for _, _, uncalibrated in found:
                uncalibrated.append(name)
            continue
        hidden = by_token.gather(rows)[:, 0].to(device)
        inner = experts.inner(number, hidden)
        group = alone.get(f"{name}.{layout.up}")
        for search, (scales, clips, _) in zip(searches, found, strict=True):
            if group is not None:
                scales.append(_choose_scales(block, group, inner, search))
            scaled = replace(search, scales=tuple(scales))
            for linear, site in ((layout.gate, hidden), (layout.up, hidden), (layout.down, inner)):
                # By its own name: that of Mixtral's mixture would pass for a key projection.
                if is_clipped(linear):
                    full = f"{name}.{linear}"
                    weight = get_linear(block, full).weight.data
                    clips[full] = choose_clip(full, weight, sample_for_clipping(site), scaled)
    return [
        replace(search, scales=tuple(scales), clips=clips, uncalibrated=tuple(uncalibrated))
        for search, (scales, clips, uncalibrated) in zip(searches, found, strict=True)
    ]
