"""Where inside a block its error begins and how it grows, and how much of it each weight brings.

The quantized block runs beside the reference on the same input. At every point on the way the error
is Σ|Δ|² / Σ|x|². What single weights bring to the block's output is measured with these alone
quantized, as the mean over tokens of |Δ|²/|x|²: a few tokens are often a thousand times larger than
the rest and would drown what the head, which norms every token, sees.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.diagnose.statistics.bootstrap import Floats, Resampler
from awqscope.diagnose.studies.causes.answer import Point
from awqscope.diagnose.studies.causes.switches import estimate_share
from awqscope.diagnose.sweep.swappable import SwappableBlock
from awqscope.mixedprec.families.family import Family, ScaleGroup
from awqscope.mixedprec.models.forward import run_block
from awqscope.mixedprec.models.streams import as_stream, list_batches

RESIDUAL, OUTPUT = "residual", "output"


@dataclass(frozen=True)
class Spot:
    """A point inside a block: what goes into or comes out of a module."""

    module: str
    side: str
    kind: str


def list_spots(family: Family, groups: Sequence[ScaleGroup], block: nn.Module) -> list[Spot]:
    """The points of a block in the order of computation: of every unit the residual stream before
    its norm, its input and its linears' outputs, and the block's output last. The first unit's
    input is the block's, which has no error. groups: the block's scale groups, which know norms."""
    spots = []
    norms = {
        linear: group.previous
        for group in groups
        for linear in (*group.linears, group.inspect)
        if linear and not isinstance(block.get_submodule(group.previous), nn.Linear)
    }
    seen = {norms.get(family.units[0].observed)}
    for number, kind in enumerate(family.units):
        norm = norms.get(kind.observed)
        if norm is not None and norm not in seen:
            seen.add(norm)
            spots.append(Spot(norm, "in", RESIDUAL))
        if number:
            spots.append(Spot(kind.observed, "in", kind.name))
        # Experts see other tokens where the router chooses others.
        outputs = [kind.site] if kind.site else kind.linears
        spots += [Spot(module, "out", kind.name) for module in outputs]
    return [*spots, Spot("", "out", OUTPUT)]


class _Watch:
    """Records what passes the spots during forwards."""

    def __init__(self, block: nn.Module, spots: Sequence[Spot]):
        self.seen: dict[Spot, Tensor] = {}
        self._handles = []
        for spot in spots:
            module = block.get_submodule(spot.module)
            if spot.side == "in":
                self._handles.append(module.register_forward_pre_hook(self._before(spot)))
            else:
                self._handles.append(module.register_forward_hook(self._after(spot)))

    def _before(self, spot: Spot) -> Callable[..., None]:
        return lambda _, args: self.seen.__setitem__(spot, args[0])

    def _after(self, spot: Spot) -> Callable[..., None]:
        return lambda _, args, output: self.seen.__setitem__(
            spot, output[0] if isinstance(output, tuple) else output
        )

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def measure_growth(
    swappable: SwappableBlock,
    quantized: Mapping[str, Tensor],
    hidden: Tensor,
    kwargs: dict[str, Any],
    spots: Sequence[Spot],
    resampler: Resampler,
) -> list[Point]:
    """The error at each spot with the weights `quantized`. hidden: what enters the block
    [n, T, d]."""
    noise: dict[Spot, list[Tensor]] = {spot: [] for spot in spots}
    signal: dict[Spot, list[Tensor]] = {spot: [] for spot in spots}
    watch = _Watch(swappable.block, spots)
    for part in list_batches(as_stream(hidden)):
        count = part.stop - part.start
        swappable.use({})
        run_block(swappable.block, hidden[part], kwargs)
        expected = dict(watch.seen)
        swappable.use(quantized)
        run_block(swappable.block, hidden[part], kwargs)
        for spot in spots:
            reference = expected[spot].reshape(count, -1)
            delta = watch.seen[spot].reshape(count, -1) - reference
            noise[spot].append(delta.square().sum(1, dtype=torch.float64))
            signal[spot].append(reference.square().sum(1, dtype=torch.float64))
    watch.remove()
    swappable.use({})
    points = [
        Point(
            name=spot.module,
            side=spot.side,
            kind=spot.kind,
            error=estimate_share(resampler, _join(noise[spot]), _join(signal[spot])),
        )
        for spot in spots
    ]
    # Where attention and MLP read the same stream, the norm of the second sees no error.
    return [p for p in points if p.kind != RESIDUAL or p.error[0] > 0]


def _join(parts: Sequence[Tensor]) -> Floats:
    found: Floats = torch.cat(list(parts)).numpy()
    return found


def measure_arrivals(
    swappable: SwappableBlock,
    variants: Mapping[str, Mapping[str, Tensor]],
    hidden: Tensor,
    kwargs: dict[str, Any],
    on_variant: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """How much of the block's output each variant's weights change, by name: mean over tokens of
    |Δ|²/|x|². hidden: what enters the block [n, T, d]."""
    batches = list_batches(as_stream(hidden))
    swappable.use({})
    expected = [run_block(swappable.block, hidden[part], kwargs) for part in batches]
    sizes = [output.square().sum(-1, dtype=torch.float64) for output in expected]
    found = {}
    for done, (name, weights) in enumerate(variants.items(), 1):
        swappable.use(weights)
        total = torch.zeros((), dtype=torch.float64)
        for part, output, size in zip(batches, expected, sizes, strict=True):
            delta = run_block(swappable.block, hidden[part], kwargs) - output
            total += (delta.square().sum(-1, dtype=torch.float64) / size).sum()
        found[name] = float(total) / (hidden.shape[0] * hidden.shape[1])
        on_variant(done)
    swappable.use({})
    return found
