"""What a solver needs to know of a model: every unit's size and damage at every width."""

from dataclasses import dataclass
from functools import cached_property

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.scheme import UnitWidths, Width, bits_of


@dataclass(frozen=True)
class Option:
    """A unit at a width. bytes: its weights on disk, scales and zero points included. kl: nats a
    token that it costs when all others are the reference's."""

    width: Width
    bytes: int
    kl: float

    @property
    def bits(self) -> int:
        """The bits of each weight, whatever its groups."""
        return bits_of(self.width)


@dataclass(frozen=True)
class ScoredUnit:
    """A unit and what it may be. linears: full module names. weights: how many it has. options: by
    width, as `rank_width` sorts them; the first is the uniform model's. A unit that is kept has
    one."""

    name: str
    linears: tuple[str, ...]
    weights: int
    options: tuple[Option, ...]

    @property
    def block(self) -> int:
        return int(self.name.partition(".")[0])

    @property
    def kind(self) -> str:
        return self.name.partition(".")[2]

    def option(self, width: Width) -> Option:
        """The unit at a width. InputError where it was not scored there."""
        for option in self.options:
            if option.width == width:
                return option
        scored = ", ".join(str(option.width) for option in self.options)
        raise InputError(f"unit {self.name} was not scored at {width} bits", f"use {scored}")


@dataclass(frozen=True)
class Scores:
    """A model's units, in the order of computation.

    fixed_bytes: on disk, of all that has no width: embeddings, head, norms, biases. uniform_kl:
    measured, of the model with every unit at its first width.
    """

    model: str
    units: tuple[ScoredUnit, ...]
    fixed_bytes: int
    uniform_kl: float

    @property
    def uniform(self) -> dict[str, Width]:
        """unit -> its first width, the uniform model's."""
        return {unit.name: unit.options[0].width for unit in self.units}

    @cached_property
    def weights(self) -> int:
        """How many weights have a width."""
        return sum(unit.weights for unit in self.units)

    @cached_property
    def uniform_sum(self) -> float:
        """Σ KL of all units at their first width, each alone: what predictions are scaled by."""
        return sum(unit.options[0].kl for unit in self.units)

    def unit_bytes(self, widths: UnitWidths) -> int:
        """Bytes of all units at these widths."""
        return sum(unit.option(widths[unit.name]).bytes for unit in self.units)

    def predict(self, widths: UnitWidths) -> "Prediction":
        """Size and damage that are predicted of a recipe (unit -> width). Units' damage nearly adds
        up, so the KL is taken as the uniform model's times the share of the units' summed KL that
        is left."""
        damage = sum(unit.option(widths[unit.name]).kl for unit in self.units)
        return self.predict_sums(self.unit_bytes(widths), damage)

    def predict_sums(self, size: int, damage: float) -> "Prediction":
        """What is predicted of a recipe whose units take `size` bytes and cost `damage` nats, each
        measured alone and summed."""
        total = self.uniform_sum
        share = damage / total if total > 0 else 1.0
        return Prediction(
            bytes=self.fixed_bytes + size,
            bits_per_weight=8 * size / self.weights,
            kl=self.uniform_kl * share,
            recovered=1 - share,
        )


@dataclass(frozen=True)
class Prediction:
    """bytes: of all tensors on disk. bits_per_weight: of the units alone, scales and zero points
    counted. kl: nats a token. recovered: share of the uniform model's KL that is given back."""

    bytes: int
    bits_per_weight: float
    kl: float
    recovered: float
