"""A checkpoint's tensors, as they are on disk and as transformers holds them, against what recipe
and searches say, bit for bit."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from awqscope.diagnose.proof.load import Loaded, let_go
from awqscope.mixedprec.awq.arithmetic import Quantized
from awqscope.mixedprec.checkpoints.reader import StoredCheckpoint
from awqscope.mixedprec.checkpoints.writer import block_tensors, realise_block
from awqscope.mixedprec.models.forward import get_linear
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.scheme import FP16_BITS, Grouped, Width


def check_tensors(
    model: SourceModel, recipe: Recipe, searches: Path, stored: StoredCheckpoint, loaded: Loaded
) -> dict[str, Any]:
    """Compare every tensor on disk, and every linear as transformers holds it, with what recipe and
    searches say, block by block; names of those that are not as they should be."""
    unexpected = set(stored.tensors)
    wrong_width, differing, differing_loaded = [], [], []
    widths = recipe.linear_widths()

    def compare(name: str, expected: Tensor) -> None:
        unexpected.discard(name)
        if name not in stored.tensors or not torch.equal(stored.tensor(name), expected):
            differing.append(name)

    for number in range(model.blocks):
        prefix = model.prefix(number)
        realised = realise_block(model, recipe, searches, number, model.dtype)
        for name, tensor in block_tensors(prefix, realised, "compressed-tensors").items():
            compare(name, tensor)
        held = loaded.block(number)
        for name, linear in realised.linears.items():
            full = f"{prefix}.{name}"
            on_disk = stored.linear(full)
            width = _read_width(on_disk, widths[full])
            weight = on_disk.dequantize() if isinstance(on_disk, Quantized) else on_disk
            if width != widths[full]:
                wrong_width.append(full)
            if weight is None or not torch.equal(weight.float(), linear.served()):
                differing.append(full)
            if not torch.equal(get_linear(held, full).weight.float(), linear.served()):
                differing_loaded.append(full)
        del realised, held  # before the next is read: one at a time
        let_go()
    for name in model.other_tensors():
        compare(name, model.read([name], model.dtype)[name])
    return {
        "linears": len(widths),
        "tensors": len(stored.tensors),
        "wrong_width": wrong_width,
        "unexpected": sorted(unexpected),
        "differing_on_disk": differing,
        "differing_in_transformers": differing_loaded,
    }


def _read_width(stored: Quantized | Tensor | None, wanted: Width) -> Width:
    """The width that a linear on disk has, with its groups where those that are wanted are not the
    run's own."""
    if not isinstance(stored, Quantized):
        return FP16_BITS
    scheme = stored.scheme
    return Grouped(scheme.bits, scheme.group_size) if isinstance(wanted, Grouped) else scheme.bits
