"""From a block's weights, its AWQ search and a width for each linear to what a checkpoint stores.

AWQ scales the inputs of its linears by s and lets the module before take 1/s. Everything a served
block consists of comes from one function, `realise`: the sweep swaps in its `effective` weights,
the checkpoint writer stores its codes and norms, and the proof compares the two.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.mixedprec.awq.arithmetic import Quantized, quantize
from awqscope.mixedprec.awq.choices import BlockSearch, ScaleChoice
from awqscope.mixedprec.models.served import cast
from awqscope.mixedprec.models.streams import CPU
from awqscope.mixedprec.models.weights import too_large
from awqscope.mixedprec.scheme import FP16_BITS, LinearWidths, Scheme, Width, list_quantized

Searches = Mapping[Width, BlockSearch]


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
    """One block as served: its linears by name, and every other parameter (norms) by name.

    rounded: in the basis of the reference model, the parameters that storing changes besides
    quantized weights: norms, biases, routers and kept weights whose rounding to 16 bits nothing
    undoes. compensated: those of them that read a scaled input (routers). norms: the scales that
    the output of a norm is divided by.
    """

    linears: dict[str, RealisedLinear]
    others: dict[str, Tensor]
    rounded: dict[str, Tensor]
    compensated: frozenset[str]
    norms: dict[str, Tensor]

    def effective(self, only: Collection[str] | None = None) -> dict[str, Tensor]:
        """What stands in the reference's place in the basis of the reference, by parameter.

        only: these linears, with what their scales make of routers, and nothing else of the block.
        """
        quantized = {
            f"{name}.weight": linear.effective()
            for name, linear in self.linears.items()
            if linear.quantized is not None
        }
        if only is None:
            return quantized | self.rounded
        mine = {f"{name}.{part}" for name in only for part in ("weight", "bias")}
        mine |= self.compensated
        return {name: value for name, value in (quantized | self.rounded).items() if name in mine}

    def bases(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Of every linear and every norm that takes scales, what is divided out of its input and
        of its output where it is served, a channel."""
        bases = {name: (one.inputs, one.outputs) for name, one in self.linears.items()}
        return bases | {name: (torch.ones(1), scales) for name, scales in self.norms.items()}


def _source(group_widths: list[Width], searches: Searches) -> BlockSearch | None:
    """Whose scales a group takes: those searched at its narrowest quantized width."""
    quantized = list_quantized(group_widths)
    return searches[quantized[0]] if quantized else None


def norm_offset(norm: nn.Module) -> float:
    """What the architecture adds to a norm's weight: Gemma multiplies by 1 + weight."""
    return 1.0 if "gemma" in type(norm).__name__.lower() else 0.0


def _fold_into_norm(
    name: str, norm: Any, scales: Tensor, dtype: torch.dtype
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """The parameters of the norm `name` divided by `scales` and rounded to `dtype`; the same in the
    basis of the reference; and the scales that undo exactly what was stored, so that the rounding
    of a norm's weight costs nothing."""
    offset = norm_offset(norm)
    weight = norm.weight.float()
    gain = weight + offset
    folded = cast(f"{name}.weight", gain / scales - offset, dtype)
    stored = folded.float() + offset
    exact = gain / stored
    undone = (stored != 0) & (exact > 0) & torch.isfinite(exact)
    exact = torch.where(undone, exact, scales)
    tensors = {f"{name}.weight": folded}
    effective = {f"{name}.weight": torch.where(undone, weight, stored * scales - offset)}
    if getattr(norm, "bias", None) is not None:
        tensors[f"{name}.bias"] = cast(f"{name}.bias", norm.bias.float() / exact, dtype)
        effective[f"{name}.bias"] = tensors[f"{name}.bias"].float() * exact
    return tensors, effective, exact


@dataclass(frozen=True)
class Folding:
    """Where the scales of a block go when each of its linears gets its width.

    inputs [K], outputs [N]: by linear, what its columns are multiplied with and its rows divided
    by. sources: linear -> the choice that its inputs' scales are of. others: every parameter but
    the linears', as stored; effective: the same in the basis of the reference. compensated, norms:
    as a RealisedBlock has them.
    """

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    sources: Mapping[str, ScaleChoice]
    others: Mapping[str, Tensor]
    effective: Mapping[str, Tensor]
    compensated: frozenset[str]
    norms: Mapping[str, Tensor]

    def scale(self, name: str, weight: Tensor, rows: slice = slice(None)) -> Tensor:
        """These rows of a linear, float32 [n, K], as they are before they are clipped and rounded,
        in memory of their own."""
        return (weight * self.inputs[name]).div_(self.outputs[name][rows, None])

    def find_limit(self, name: str, search: BlockSearch) -> Tensor | None:
        """The largest weight that is kept of each group of a linear, [N, G], once its scales are
        in; None where nothing is clipped."""
        clip = search.clips.get(name)
        # A clip was searched under its own width's input scales: under others it does not apply.
        # Row scales only stretch it.
        if clip is None or self.sources.get(name) is not search.choice_for(name):
            return None
        return clip * (search.row_scales(name, len(clip)) / self.outputs[name])[:, None]


def clip_groups(scaled: Tensor, limit: Tensor | None) -> Tensor:
    """Scaled weights [n, K] clamped in place to the largest of each group that is kept, [n, G]."""
    if limit is not None:
        most = limit[:, :, None]
        scaled.view(*limit.shape, -1).clamp_(-most, most)
    return scaled


def fold_scales(
    block: nn.Module,
    searches: Searches,
    widths: LinearWidths,
    dtype: torch.dtype,
    device: torch.device = CPU,
) -> Folding:
    """Where the scales of `block` go. Of its linears, which may be on meta, no weight is read; the
    rest is as `realise` takes it. device: where everything else of the block is."""
    linears = {name: m for name, m in block.named_modules() if name in widths}
    reference = dict(block.named_parameters())
    inputs = {name: torch.ones(m.in_features, device=device) for name, m in linears.items()}
    outputs = {name: torch.ones(m.out_features, device=device) for name, m in linears.items()}
    others = {
        name: cast(name, value, dtype)
        for name, value in reference.items()
        if name.rpartition(".")[0] not in widths
    }
    effective = {name: value.float() for name, value in others.items()}
    compensated: list[str] = []
    norms: dict[str, Tensor] = {}
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
            norm = block.get_submodule(group.previous)
            folded, restored, scales = _fold_into_norm(group.previous, norm, scales, dtype)
            others |= folded
            effective |= restored
            norms[group.previous] = scales
        for name in group.linears:
            inputs[name] = scales
            sources[name] = choice
        for name in group.compensated:
            weight = f"{name}.weight"
            others[weight] = cast(weight, reference[weight].float() * scales, dtype)
            effective[weight] = others[weight].float() / scales
            compensated.append(weight)
    return Folding(inputs, outputs, sources, others, effective, frozenset(compensated), norms)


def realise(
    block: nn.Module,
    searches: Searches,
    widths: LinearWidths,
    dtype: torch.dtype,
) -> RealisedBlock:
    """What is stored of `block` (float32 reference weights) when each linear gets its width.

    searches: width -> search, for every width below 16 in use, on the block's device. widths:
    by linear, 16 to keep it. dtype: the 16-bit type that scales, norms and kept weights are
    stored in.
    """
    linears = {name: m for name, m in block.named_modules() if name in widths}
    folding = fold_scales(block, searches, widths, dtype, next(block.parameters()).device)
    effective = dict(folding.effective)

    def finish(name: str, linear: nn.Linear) -> RealisedLinear:
        width, inputs, outputs = widths[name], folding.inputs[name], folding.outputs[name]
        weight = folding.scale(name, linear.weight.float())
        bias: Tensor | None = linear.bias
        if bias is not None:
            bias = cast(f"{name}.bias", bias.float() / outputs, dtype)
            effective[f"{name}.bias"] = bias.float() * outputs
        if width == FP16_BITS:
            kept = cast(f"{name}.weight", weight, dtype)
            found = RealisedLinear(None, kept, bias, inputs, outputs)
            rounded = found.effective()
            if not torch.equal(rounded, linear.weight):
                effective[f"{name}.weight"] = rounded
            return found
        search = searches[width]
        clip_groups(weight, folding.find_limit(name, search))
        coded = quantize(weight, search.scheme_of(name), dtype)
        _check_codes(f"{name}.weight", coded, dtype)
        return RealisedLinear(coded, None, bias, inputs, outputs)

    finished = {name: finish(name, m) for name, m in linears.items()}
    reference = dict(block.named_parameters())
    rounded = {n: v for n, v in effective.items() if not torch.equal(v, reference[n])}
    return RealisedBlock(
        finished, dict(folding.others), rounded, folding.compensated, dict(folding.norms)
    )


def _check_codes(name: str, coded: Quantized, dtype: torch.dtype) -> None:
    """Raise InputError, with the weight's `name`, where a server that unpacks it to `dtype` would
    get infinity."""
    largest = torch.finfo(dtype).max
    scale = coded.scales.float().amax()
    # A scale times the most that a code can be from its zero is a bound that mostly tells.
    if dtype == torch.float16 and not scale * 2**coded.scheme.bits <= largest:
        values = coded.dequantize().abs().amax()
        if not values <= largest:
            raise too_large(name, float(values) if torch.isfinite(values) else None)


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


def scale_block(block: nn.Module, choices: Sequence[ScaleChoice]) -> nn.Module:
    """A float copy of `block` with AWQ's scales folded in and nothing quantized: the same function
    in exact arithmetic."""
    scaled = copy.deepcopy(block)
    for choice in choices:
        scales = choice.scales
        previous: Any = scaled.get_submodule(choice.group.previous)
        offset = norm_offset(previous)
        if isinstance(previous, nn.Linear):
            previous.weight.data[-len(scales) :] /= scales[:, None]
        else:
            previous.weight.data = (previous.weight.data + offset) / scales - offset
        if getattr(previous, "bias", None) is not None:
            previous.bias.data[-len(scales) :] /= scales
        for name in (*choice.group.linears, *choice.group.compensated):
            reader: Any = scaled.get_submodule(name)
            reader.weight.data *= scales
    return scaled
