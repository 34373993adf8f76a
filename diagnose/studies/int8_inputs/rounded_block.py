"""A block that the sweep swaps weights of, and with them what becomes of its linears' inputs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from awqscope.diagnose.studies.int8_inputs.rounding import (
    BITS,
    RoundedLinear,
    Transform,
    round_linear,
)
from awqscope.diagnose.sweep.branches import Branch
from awqscope.diagnose.sweep.swappable import Bases, Swappable, list_linears, uniform_widths
from awqscope.mixedprec.models.forward import get_linear
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import CPU
from awqscope.mixedprec.scheme import FP16_BITS, LinearWidths

# A linear at int8, of its name and its weight [N, K].
RoundLinear = Callable[[str, Tensor], RoundedLinear]
# The scales of a block's linears by name, of those that have any.
ReadScales = Callable[[int], Mapping[str, Tensor]]


class RoundedBlock:
    """A block with its reference weights, and its linears at int8: one that has its rounded weight
    in place takes rounded inputs, every other the reference's.

    Widths (linear -> bits) say which linears are at int8; the others are the reference's."""

    def __init__(self, block: nn.Module, linears: tuple[str, ...], rounds: RoundLinear):
        self.block = block
        self._linears = linears
        self._rounds = rounds
        self._reference = {name: value.data for name, value in block.named_parameters()}
        self._rounded: dict[str, RoundedLinear] = {}
        # What the hooks read. They must not hold the block, which then would outlive its turn.
        self._transforms: dict[str, Transform] = {}
        for name in linears:
            hook = partial(_transform_inputs, self._transforms, name)
            get_linear(block, name).register_forward_pre_hook(hook)

    def weights(self, widths: LinearWidths) -> dict[str, Tensor]:
        """The rounded weights of the linears that `widths` has at int8."""
        chosen = [name for name, bits in widths.items() if bits != FP16_BITS]
        return {f"{name}.weight": self._round(name).weight for name in chosen}

    def _round(self, name: str) -> RoundedLinear:
        if name not in self._rounded:
            self._rounded[name] = self._rounds(name, self._reference[f"{name}.weight"])
        return self._rounded[name]

    def copies(self) -> dict[str, Tensor]:
        """Copies of the reference's parameters, to be swapped in as a control."""
        return {name: values.clone() for name, values in self._reference.items()}

    def bases(self, widths: LinearWidths) -> Bases:
        """Nothing: what smoothquant folds elsewhere is taken out of weights and inputs again."""
        return {}

    def use(self, weights: Mapping[str, Tensor]) -> None:
        """Put these weights in place, and the reference's everywhere else; round the inputs of the
        linears whose weight is the rounded one."""
        for name, parameter in self.block.named_parameters():
            parameter.data = weights.get(name, self._reference[name])
        self._transforms.clear()
        for name, rounded in self._rounded.items():
            if weights.get(f"{name}.weight") is rounded.weight:
                self._transforms[name] = rounded.transform

    def forget(self, widths: LinearWidths) -> None:
        """Rounded weights stay as long as the block does."""

    def pairs(self, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each linear whose weight is in `weights`: its name, reference and rounded weight."""
        for name in self._linears:
            full = f"{name}.weight"
            if full in weights:
                yield name, self._reference[full], weights[full]


def _transform_inputs(
    transforms: Mapping[str, Transform], name: str, module: nn.Module, args: tuple[Tensor, ...]
) -> tuple[Tensor, ...] | None:
    """A hook before a linear's forward: its input rounded, or as it is."""
    transform = transforms.get(name)
    return None if transform is None else (transform(args[0]), *args[1:])


@dataclass(frozen=True)
class InputSweep:
    """The sweep of int8 inputs: every block at int8 stands in the uniform model's place. kept:
    units that the run keeps at 16 bits. read_scales: gives smoothquant's scales of a block."""

    method: str
    kept: frozenset[str]
    branches: tuple[Branch, ...]
    read_scales: ReadScales

    @property
    def outside(self) -> None:
        """Embeddings and head are the reference's."""

    def only(self, branches: tuple[Branch, ...]) -> "InputSweep":
        """The same with these branches alone."""
        return replace(self, branches=branches)

    def uniform(self, model: SourceModel, block: int) -> LinearWidths:
        """Linear -> 8 bits of block `block`, or 16 of units that are kept."""
        return uniform_widths(model, BITS, self.kept, block)

    def read(self, model: SourceModel, block: int, device: torch.device = CPU) -> Swappable:
        """Block `block` on `device`."""
        scales = {name: each.to(device) for name, each in self.read_scales(block).items()}

        def rounds(name: str, weight: Tensor) -> RoundedLinear:
            return round_linear(weight, self.method, scales.get(name))

        return RoundedBlock(model.read_block(block, device), list_linears(model.family), rounds)
