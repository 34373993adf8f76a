"""A block that can be any mix of its reference and its quantized weights, by swapping pointers."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from awqscope.mixedprec.awq.choices import load_searches
from awqscope.mixedprec.awq.realise import Searches, realise
from awqscope.mixedprec.families.table import Family, list_units
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import CPU
from awqscope.mixedprec.scheme import FP16_BITS, LinearWidths, Width

# Module -> what is divided out of its input and its output, a channel.
Bases = Mapping[str, tuple[Tensor, Tensor]]
# Linears with their widths, in the order of their names.
Frozen = tuple[tuple[str, Width], ...]


def freeze_widths(widths: LinearWidths) -> Frozen:
    """Widths by linear as a key."""
    return tuple(sorted(widths.items(), key=lambda item: item[0]))


class Swappable(Protocol):
    """A block that the sweep gives one set of weights after another, by name. What becomes of the
    inputs of its linears may go with the weights."""

    block: nn.Module

    def weights(self, widths: LinearWidths) -> dict[str, Tensor]:
        """What `widths` puts in the reference's place."""
        ...

    def copies(self) -> dict[str, Tensor]:
        """Copies of the reference's parameters, to be swapped in as a control."""
        ...

    def bases(self, widths: LinearWidths) -> Bases:
        """What is divided out of the inputs and outputs of modules where `widths` is served."""
        ...

    def use(self, weights: Mapping[str, Tensor]) -> None:
        """Put these weights in place, and the reference's everywhere else."""
        ...

    def forget(self, widths: LinearWidths) -> None:
        """Drop what `weights` keeps of these widths."""
        ...

    def pairs(self, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each linear of `weights` that can be set beside the reference's: its name and both
        weights [N, K], the reference's first."""
        ...


class SwappableBlock:
    """One block with its reference weights and, for every mix of widths asked for, the effective
    ones: Q(clip(W·s))/s, so that norms and neighbours stay as they are but for what rounding them
    to the served type changes.

    Widths of all its `linears` are the block as it is stored, 16 bits included;
    of some, these alone with everything else the reference's; of none, the reference."""

    def __init__(
        self,
        block: nn.Module,
        searches: Searches,
        dtype: torch.dtype,
        linears: Collection[str],
    ):
        self.block = block
        self._searches = searches
        self._dtype = dtype
        self._linears = linears
        self._reference: dict[str, Tensor] = {}
        self._effective: dict[Frozen, dict[str, Tensor]] = {}
        self._bases: dict[Frozen, Bases] = {}

    def weights(self, widths: LinearWidths) -> dict[str, Tensor]:
        """The parameters that `widths` puts in the reference's place: effective weights of
        quantized linears, and whatever else is not stored as the reference has it."""
        if not widths:
            return {}
        key = freeze_widths(widths)
        if key not in self._effective:
            self.use({})
            every = {**dict.fromkeys(self._linears, FP16_BITS), **widths}
            realised = realise(self.block, self._searches, every, self._dtype)
            whole = len(widths) == len(self._linears)
            self._effective[key] = realised.effective(None if whole else widths)
            self._bases[key] = realised.bases()
        return self._effective[key]

    def copies(self) -> dict[str, Tensor]:
        """Copies of the reference's parameters, to be swapped in as a control."""
        self.use({})
        return {name: value.data.clone() for name, value in self.block.named_parameters()}

    def bases(self, widths: LinearWidths) -> Bases:
        """What is divided out of the inputs and outputs of linears and norms where `widths` is
        served."""
        self.weights(widths)
        return self._bases.get(freeze_widths(widths), {})

    def use(self, weights: Mapping[str, Tensor]) -> None:
        """Put these parameters in place, and the reference's everywhere else."""
        for name, value in self._reference.items():
            self.block.get_parameter(name).data = value
        for name, value in weights.items():
            parameter = self.block.get_parameter(name)
            self._reference.setdefault(name, parameter.data)
            parameter.data = value

    def forget(self, widths: LinearWidths) -> None:
        """Drop the effective weights of one mix."""
        key = freeze_widths(widths)
        self._effective.pop(key, None)
        self._bases.pop(key, None)

    def pairs(self, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each linear whose weight is in `weights`: its name, reference and effective weight."""
        self.use({})
        for name in self._linears:
            full = f"{name}.weight"
            if full in weights:
                yield name, self.block.get_parameter(full).data, weights[full]


def read_swappable(
    model: SourceModel,
    number: int,
    searches: Path,
    widths: tuple[Width, ...],
    device: torch.device = CPU,
) -> SwappableBlock:
    """Block `number` on `device`, with its searches at each of `widths`."""
    found = load_searches(searches, number, widths)
    loaded = {width: search.to(device) for width, search in found.items()}
    return SwappableBlock(
        model.read_block(number, device), loaded, model.dtype, list_linears(model.family)
    )


def list_linears(family: Family) -> tuple[str, ...]:
    """The linears of a block that are in units, by name."""
    return tuple(linear for kind in family.units for linear in kind.linears)


def uniform_bits(model: SourceModel, bits: int, kept: Iterable[str]) -> dict[str, int]:
    """Unit -> bits of the whole model when every unit but the `kept` ones gets `bits`."""
    units = (unit.name for unit in list_units(model.family, model.blocks))
    return dict.fromkeys(units, bits) | dict.fromkeys(kept, FP16_BITS)


def uniform_widths(
    model: SourceModel, bits: int, kept: frozenset[str], number: int
) -> dict[str, int]:
    """Linear -> bits inside block `number` when every unit but the `kept` ones gets `bits`."""
    return {
        linear: FP16_BITS if f"{number}.{kind.name}" in kept else bits
        for kind in model.family.units
        for linear in kind.linears
    }
