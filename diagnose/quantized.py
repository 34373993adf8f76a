"""A block that can be any mix of its reference and its quantized weights, by swapping pointers."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mixedprec.forward import get_linear
from mixedprec.model import SourceModel
from mixedprec.realise import Searches, realise
from mixedprec.scheme import FP16_BITS
from mixedprec.searches import load_searches
from mixedprec.streams import CPU

Widths = Mapping[str, int]


class Swappable(Protocol):
    """A block that the sweep gives one set of weights after another, by name."""

    block: nn.Module

    def weights(self, widths: Widths) -> dict[str, Tensor]:
        """What `widths` puts in the reference's place."""
        ...

    def copies(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Copies of the reference's weights, to be swapped in as a control."""
        ...

    def use(self, weights: Mapping[str, Tensor]) -> None:
        """Put these weights in place, and the reference's everywhere else."""
        ...

    def forget(self, widths: Widths) -> None:
        """Drop what `weights` keeps of these widths."""
        ...

    def pairs(self, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each linear of `weights` that can be set beside the reference's: its name and both
        weights [N, K], the reference's first."""
        ...


class SwappableBlock:
    """One block with its reference weights and, for every mix of widths asked for, the effective
    ones: Q(clip(W·s))/s, so that norms and neighbours stay as they are."""

    def __init__(self, block: nn.Module, searches: Searches, dtype: torch.dtype):
        self.block = block
        self._searches = searches
        self._dtype = dtype
        self._reference: dict[str, Tensor] = {}
        self._effective: dict[tuple[tuple[str, int], ...], dict[str, Tensor]] = {}

    def weights(self, widths: Widths) -> dict[str, Tensor]:
        """Effective weight of each linear that `widths` (linear -> bits) quantizes, and of each
        router that reads what is scaled for them."""
        key = tuple(sorted(widths.items()))
        if set(widths.values()) <= {FP16_BITS}:
            return {}
        if key not in self._effective:
            self.use({})
            realised = realise(self.block, self._searches, widths, self._dtype)
            self._effective[key] = realised.effective()
        return self._effective[key]

    def copies(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Copies of the reference weights, to be swapped in as a control."""
        self.use({})
        return {name: get_linear(self.block, name).weight.data.clone() for name in names}

    def use(self, weights: Mapping[str, Tensor]) -> None:
        """Put these weights in place, and the reference's everywhere else."""
        for name, weight in self._reference.items():
            self._module(name).weight.data = weight
        for name, weight in weights.items():
            module = self._module(name)
            self._reference.setdefault(name, module.weight.data)
            module.weight.data = weight

    def _module(self, name: str) -> Any:
        """A linear of the block, or a router."""
        return self.block.get_submodule(name)

    def forget(self, widths: Widths) -> None:
        """Drop the effective weights of one mix."""
        self._effective.pop(tuple(sorted(widths.items())), None)

    def pairs(self, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each linear of `weights`: its name, reference and effective weight."""
        self.use({})
        for name, effective in weights.items():
            module = self._module(name)
            if isinstance(module, nn.Linear):
                yield name, module.weight.data, effective


def read_swappable(
    model: SourceModel,
    number: int,
    searches: Path,
    bits: tuple[int, ...],
    device: torch.device = CPU,
) -> SwappableBlock:
    """Block `number` on `device`, with its searches at each of `bits`."""
    found = load_searches(searches, number, bits)
    loaded = {width: search.to(device) for width, search in found.items()}
    return SwappableBlock(model.read_block(number, device), loaded, model.dtype)


def uniform_widths(model: SourceModel, bits: int, kept: frozenset[str], number: int) -> Widths:
    """Linear -> bits inside block `number` when every unit but the `kept` ones gets `bits`."""
    return {
        linear: FP16_BITS if f"{number}.{kind.name}" in kept else bits
        for kind in model.family.units
        for linear in kind.linears
    }
