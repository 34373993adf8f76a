"""From a block's weights, its AWQ search and a width for each linear to what a checkpoint stores.

AWQ scales the inputs of its linears by s and lets the module before take 1/s. Everything a served
block consists of comes from one function, `realise`: the sweep swaps in its `effective` weights,
the checkpoint writer stores its codes and norms, and the proof compares the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mixedprec.arithmetic import Quantized, quantize
from mixedprec.scheme import FP16_BITS, Scheme
from mixedprec.search import BlockSearch, ScaleChoice

Searches = Mapping[int, BlockSearch]
Widths = Mapping[str, int]


@dataclass(frozen=True)
class RealisedLinear:
    """One linear as served. Exactly one of `quantized` and `weight` (16-bit values) is set.

    inputs [K] and outputs [N] are the scales folded into it: the served weight is
    W·inputs / outputs, up to quantization.
    """

    quantized: Quantized | None
    weight: Tensor | None
    bias: Tensor | None
    inputs: Tensor
    outputs: Tensor

    def served(self) -> Tensor:
        """The weight a server multiplies with, float32 [N, K], in the scaled basis."""
        if self.quantized is not None:
            return self.quantized.dequantize()
        assert self.weight is not None
        return self.weight.float()

    def effective(self) -> Tensor:
        """The same weight in the basis of the reference model, float32 [N, K]: Q(clip(W·s))/s."""
        if self.quantized is None:
            return self.served() * self.outputs[:, None] / self.inputs
        return self.served().mul_(self.outputs[:, None]).div_(self.inputs)


@dataclass(frozen=True)
class RealisedBlock:
    """One block as served: its linears by name, and every other parameter (norms) by name."""

    linears: dict[str, RealisedLinear]
    others: dict[str, Tensor]


def _source(group_widths: list[int], searches: Searches) -> BlockSearch | None:
    """Whose scales a group takes: those searched at its narrowest quantized width."""
    quantized = [bits for bits in group_widths if bits < FP16_BITS]
    return searches[min(quantized)] if quantized else None


def norm_offset(norm: nn.Module) -> float:
    """What the architecture adds to a norm's weight: Gemma multiplies by 1 + weight."""
    return 1.0 if "gemma" in type(norm).__name__.lower() else 0.0


def _fold_into_norm(norm: Any, scales: Tensor, dtype: torch.dtype) -> tuple[dict, Tensor]:
    """The norm's parameters over `scales`, rounded to `dtype`, and the scales that undo exactly
    what was stored: the rounding of a norm then costs nothing."""
    offset = norm_offset(norm)
    gain = norm.weight.float() + offset
    folded = (gain / scales - offset).to(dtype)
    stored = folded.float() + offset
    exact = torch.where(stored != 0, gain / stored, scales)
    exact = torch.where((exact > 0) & torch.isfinite(exact), exact, scales)
    tensors = {"weight": folded}
    if getattr(norm, "bias", None) is not None:
        tensors["bias"] = (norm.bias.float() / exact).to(dtype)
    return tensors, exact


def realise(
    block: nn.Module,
    searches: Searches,
    widths: Widths,
    dtype: torch.dtype,
) -> RealisedBlock:
    """What is stored of `block` (float32 reference weights) when each linear gets its width.

    searches: bits -> search, for every width below 16 in use, on the block's device. widths:
    linear -> bits, 16 to keep it. dtype: the 16-bit type that scales, norms and kept weights are
    stored in.
    """
    linears = {name: m for name, m in block.named_modules() if name in widths}
    device = next(block.parameters()).device
    inputs = {name: torch.ones(m.in_features, device=device) for name, m in linears.items()}
    outputs = {name: torch.ones(m.out_features, device=device) for name, m in linears.items()}
    others = {
        name: value.to(dtype)
        for name, value in block.named_parameters()
        if name.rpartition(".")[0] not in widths
    }
    sources: dict[str, ScaleChoice] = {}
    groups = {choice.group for search in searches.values() for choice in search.scales}
    for group in sorted(groups, key=lambda g: g.linears):
        source = _source([widths[name] for name in group.linears], searches)
        if source is None:
            continue
        choice = source.choice_for(group.linears[0])
        if choice is None:
            raise KeyError(f"no scales for {group.linears} at {source.scheme.bits} bits")
        scales = choice.scales
        if group.previous in linears:
            outputs[group.previous][-len(scales) :] = scales
        else:
            folded, scales = _fold_into_norm(block.get_submodule(group.previous), scales, dtype)
            others |= {f"{group.previous}.{name}": value for name, value in folded.items()}
        for name in group.linears:
            inputs[name] = scales
            sources[name] = choice

    def finish(name: str, linear: nn.Linear) -> RealisedLinear:
        bits = widths[name]
        weight: Tensor = linear.weight.float() * inputs[name]
        bias: Tensor | None = linear.bias
        if bias is not None:
            bias = (bias.float() / outputs[name]).to(dtype)
        if bits == FP16_BITS:
            kept = (weight / outputs[name][:, None]).to(dtype)
            return RealisedLinear(None, kept, bias, inputs[name], outputs[name])
        search = searches[bits]
        weight.div_(outputs[name][:, None])
        clip = search.clips.get(name)
        # A clip was searched under its own width's input scales: under others it does not apply.
        # Row scales only stretch it.
        if clip is not None and sources.get(name) is search.choice_for(name):
            stretched = clip * (search.row_scales(name, len(weight)) / outputs[name])[:, None]
            limit = stretched[:, :, None]
            weight.view(*clip.shape, -1).clamp_(-limit, limit)
        coded = quantize(weight, search.scheme, dtype)
        return RealisedLinear(coded, None, bias, inputs[name], outputs[name])

    return RealisedBlock({name: finish(name, m) for name, m in linears.items()}, others)


def stored_bytes(rows: int, columns: int, bits: int, scheme: Scheme) -> int:
    """Bytes of one linear's weight on disk at `bits`: packed codes, 16-bit scales, zero points.

    scheme: that of the width; ignored for 16 bits.
    """
    if bits == FP16_BITS:
        return rows * columns * 2
    per_word = 32 // bits
    groups = columns // scheme.group(columns)
    zeros = 0 if scheme.symmetric else -(-rows // per_word) * groups * 4
    return rows * -(-columns // per_word) * 4 + rows * groups * 2 + zeros + 16
