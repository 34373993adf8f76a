"""Which linears of a block share AWQ scales, and what takes the inverse: the family's table, or
autoawq's registry, without scales that the model has no place for."""

from typing import Any

from torch import nn

from awqscope.mixedprec.awq.autoawq import read_scale_groups
from awqscope.mixedprec.families.table import Family, ScaleGroup

# What a fused projection is wider than the linear after it, whose inputs are its last rows.
FUSED_WIDTHS = {"qkv_proj": 3, "Wqkv": 3, "gate_up_proj": 2}


def find_scale_groups(family: Family, model_type: str, block: nn.Module) -> tuple[ScaleGroup, ...]:
    """The scale groups of `block`, a decoder layer of that family and type.

    Left out are groups whose inverse scales nothing could take: an activation function or a norm
    without weights (checkpoints have no place for them), a linear whose output passes an activation
    other than ReLU, and value rows that are not as many as the output projection's inputs (grouped
    heads), which autoawq would scale wrongly in a fused projection.
    """
    groups = family.scales if family.scales is not None else read_scale_groups(model_type, block)
    return tuple(group for group in groups if _takes_scales(family, block, group))


def _takes_scales(family: Family, block: nn.Module, group: ScaleGroup) -> bool:
    previous: Any = block.get_submodule(group.previous)
    if getattr(previous, "weight", None) is None:
        return False
    if not isinstance(previous, nn.Linear):
        return True
    activation = dict(family.activations).get(group.previous)
    if activation is not None and not isinstance(block.get_submodule(activation), nn.ReLU):
        return False
    first: Any = block.get_submodule(group.linears[0])
    fused = FUSED_WIDTHS.get(group.previous.rpartition(".")[2], 1)
    return previous.out_features == fused * first.in_features
