"""The `quantization_config` of a recipe's checkpoint, by which servers know what its tensors are.

What each server insists on: disjoint anchored targets that list the fused names too, no catch-all.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import Family, UnitKind
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.recipes.widths import group_by_scheme
from awqscope.mixedprec.scheme import (
    FP16_BITS,
    SERVED_WIDTHS,
    Scheme,
    Width,
    bits_of,
    sort_widths,
)

FORMATS = ("compressed-tensors", "awq")


def check_format(fmt: str, family: Family, recipe: Recipe, schemes: Mapping[Width, Scheme]) -> None:
    """Raise InputError unless a format, and the servers that read it, hold a recipe's widths."""
    if fmt not in FORMATS:
        raise InputError(f"unknown format {fmt!r}", f"choose from {', '.join(FORMATS)}")
    widths = sort_widths(recipe.widths.values())
    if fmt == "awq" and not set(widths) <= {4, FP16_BITS}:
        asked = ", ".join(map(str, widths))
        raise InputError(
            f"autoawq's GEMM format holds 4 and 16 bits in groups of one size, the recipe asks "
            f"{asked}",
            "write it as compressed-tensors",
        )
    if fmt == "awq" and (family.experts or (4 in schemes and schemes[4].symmetric)):
        what = "experts are symmetric" if family.experts else "this run is symmetric"
        raise InputError(
            f"autoawq's GEMM format has zero points, {what}", "write it as compressed-tensors"
        )
    if fmt == "awq" and 4 in schemes and schemes[4].group_size == -1:
        raise InputError(
            "autoawq's GEMM format is served in groups, this run has one group a row",
            "write it as compressed-tensors",
        )
    odd = [width for width in widths if bits_of(width) not in (*SERVED_WIDTHS, FP16_BITS)]
    if odd:
        raise InputError(
            f"no server loads {bits_of(odd[0])}-bit layers in compressed-tensors",
            "measure them, but make checkpoints of 4, 8 and 16 bits",
        )


def _targets(
    family: Family, recipe: Recipe, kinds: Collection[UnitKind], width: Width
) -> list[str]:
    """Anchored patterns of the linears of `kinds` at a width, one a kind, fused names included."""
    layers = re.escape(family.blocks.rpartition(".")[2])
    targets = []
    for kind in kinds:
        blocks = [
            entry.unit.split(".")[0]
            for entry in recipe.units
            if entry.width == width and entry.unit.split(".")[1] == kind.name
        ]
        if blocks:
            names = kind.pattern or "|".join(
                re.escape(n) for n in dict.fromkeys((*kind.linears, kind.fused))
            )
            targets.append(rf"re:.*\.{layers}\.({'|'.join(blocks)})\.({names})$")
    return targets


def _routers(family: Family) -> list[str]:
    """A pattern for what stays at 16 bits inside the blocks without being in a unit."""
    if family.experts is None:
        return []
    layers = re.escape(family.blocks.rpartition(".")[2])
    gates = "|".join(map(re.escape, family.experts.gates))
    return [rf"re:.*\.{layers}\.\d+\.{family.experts.module}\.({gates})$"]


def _kept_names(family: Family, recipe: Recipe) -> list[str]:
    """The linears that stay at 16 bits, fused names included: not every server's class says which
    linears it fuses."""
    fused = {kind.name: kind.fused for kind in family.units}
    kept = []
    for entry in recipe.units:
        if entry.bits == FP16_BITS:
            block, _, kind = entry.unit.partition(".")
            kept += [*entry.linears, f"{family.blocks}.{block}.{fused[kind]}"]
    return list(dict.fromkeys(kept))


def quantization_config(
    model: SourceModel, recipe: Recipe, schemes: Mapping[Width, Scheme], fmt: str
) -> dict[str, Any]:
    """The `quantization_config` of config.json."""
    heads = ["lm_head", "embed_out"] if "embed_out.weight" in model.tensors else ["lm_head"]
    if fmt == "awq":
        kept = _kept_names(model.family, recipe)
        return {
            "quant_method": "awq",
            "bits": 4,
            "group_size": schemes[4].group_size,
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": kept or None,
        }
    groups: dict[str, Any] = {}
    for scheme, placed in group_by_scheme(recipe, schemes, model.family).items():
        targets = [
            target
            for kind, width in placed
            for target in _targets(model.family, recipe, [kind], width)
        ]
        channel = scheme.group_size == -1
        groups[f"group_{len(groups)}"] = {
            "targets": targets,
            "weights": {
                "num_bits": scheme.bits,
                "type": "int",
                "symmetric": scheme.symmetric,
                "strategy": "channel" if channel else "group",
                "group_size": None if channel else scheme.group_size,
            },
            "format": "pack-quantized",
        }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": [
            *heads,
            *_routers(model.family),
            *_targets(model.family, recipe, model.family.units, FP16_BITS),
        ],
    }
