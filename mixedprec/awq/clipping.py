"""Clipping: how far the largest weights of a weight group are cut before it is rounded.

The loss of a weight group is dᵀ·G_g·d with the error d of its weights and the group's own Gram
matrix G_g, so that the tokens are read once for all of autoawq's 10 levels.
"""

import torch
from torch import Tensor

from awqscope.mixedprec.awq.arithmetic import fake_quantize
from awqscope.mixedprec.awq.choices import BlockSearch
from awqscope.mixedprec.awq.losses import split_rows
from awqscope.mixedprec.scheme import Scheme

CLIP_LEVELS = 10
CLIP_STEP = 1 / 20
CLIP_TOKENS = 512


def group_grams(inputs: Tensor, group: int) -> Tensor:
    """Gram matrix of each run of `group` channels over tokens [T, K]: [K / group, group, group]."""
    by_group = inputs.reshape(len(inputs), -1, group).permute(1, 0, 2)
    return by_group.transpose(1, 2) @ by_group


def sample_for_clipping(inputs: Tensor) -> Tensor:
    """The tokens [≤ 1023, K] of [..., K] inputs that autoawq judges clipping on: every n-th."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    return flat[:: max(1, len(flat) // CLIP_TOKENS)]


def choose_clip(name: str, weight: Tensor, inputs: Tensor, search: BlockSearch) -> Tensor:
    """The clipping maximum [N, G] of each weight group of the linear `name`, once all scales of
    `search` are in its weight [N, K]. inputs: the tokens [T, K] it is judged on."""
    choice = search.choice_for(name)
    if choice is not None:
        weight, inputs = weight * choice.scales, inputs / choice.scales
    weight = weight / search.row_scales(name, len(weight))[:, None]
    scheme = search.scheme_of(name)
    return best_clip(weight, group_grams(inputs, scheme.group(weight.shape[1])), scheme)


def best_clip(weight: Tensor, grams: Tensor, scheme: Scheme) -> Tensor:
    """The clipping maximum [N, G] of each weight group that loses least.

    weight: [N, K], inputs already scaled. grams: `group_grams` of the scaled inputs.
    """
    group = scheme.group(weight.shape[1])
    best = []
    for rows in split_rows(weight):
        grouped = rows.reshape(len(rows), -1, group)
        largest = grouped.abs().amax(dim=-1, keepdim=True)
        chosen = largest.clone()
        lowest = torch.full_like(largest, 1e9)
        for level in range(CLIP_LEVELS):
            maximum = largest * (1 - level * CLIP_STEP)
            clipped = grouped.clamp(-maximum, maximum)
            delta = fake_quantize(clipped.view(rows.shape), scheme).view_as(grouped) - grouped
            by_group = delta.transpose(0, 1)
            loss = ((by_group @ grams) * by_group).sum(-1).transpose(0, 1)[:, :, None]
            better = loss < lowest
            lowest = torch.where(better, loss, lowest)
            chosen = torch.where(better, maximum, chosen)
        best.append(chosen.squeeze(-1))
    return torch.cat(best)
