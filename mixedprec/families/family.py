"""What a model family is, as data: where its blocks are, which linears a server fuses, which
linears share AWQ scales, and which settings of its config.json cannot be handled."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.scheme import Scheme

# The unit of all experts of a block.
EXPERTS = "experts"
# Far above any model's: no config.json may make us list more experts than there can be.
MOST_EXPERTS = 4096


@dataclass(frozen=True)
class ScaleGroup:
    """Linears that share one input, and with it one vector of scales.

    previous: the module whose output takes the inverse scales. inspect: the module through whose
    output the linears are judged; None for a lone linear. mixes_tokens: whether that module is
    attention (needs whole sequences) rather than token-wise. compensated: modules that read the
    same input and stay at 16 bits (routers), whose weights [N, K] are multiplied by the scales.
    """

    previous: str
    linears: tuple[str, ...]
    inspect: str | None = None
    mixes_tokens: bool = False
    compensated: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnitKind:
    """A unit of every block. `linears`: module names inside a block, in the order a server
    concatenates them; `fused`: the name the server gives the result.

    pattern: a regular expression for all of these names, where listing them would be long.
    symmetric: whether servers take it without zero points only, at every width. site: the module
    whose input is that of the whole unit; None for the first linear.
    """

    name: str
    linears: tuple[str, ...]
    fused: str
    pattern: str | None = None
    symmetric: bool = False
    site: str | None = None

    @property
    def observed(self) -> str:
        """The module whose input is the unit's."""
        return self.site or self.linears[0]

    def scheme(self, scheme: Scheme) -> Scheme:
        """The scheme of this unit at a width whose scheme is `scheme`."""
        return replace(scheme, symmetric=True) if self.symmetric else scheme


@dataclass(frozen=True)
class ExpertLayout:
    """Mixtures of experts of a family, by the names that checkpoints and servers use.

    module: of the mixture inside a block. attribute: what transformers calls it there, if it has
    another name. gate, up, down: the linears of an expert. count: the entry of config.json with the
    number of experts. gates: modules that stay at 16 bits and read the mixture's input, the router
    first. aliases: names under which servers look the linears up besides.
    """

    module: str
    count: str
    attribute: str
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    gates: tuple[str, ...] = ("gate",)
    aliases: tuple[str, ...] = ()

    def expert(self, number: int) -> str:
        """The name of an expert inside a block."""
        return f"{self.module}.experts.{number}"

    def unit(self, count: int) -> UnitKind:
        """The unit of `count` experts."""
        names = (self.gate, self.up, self.down)
        listed = "|".join((*names, *self.aliases))
        return UnitKind(
            EXPERTS,
            tuple(f"{self.expert(number)}.{name}" for number in range(count) for name in names),
            f"{self.module}.{EXPERTS}",
            pattern=rf"{self.module}\.experts\.\d+\.({listed})",
            symmetric=True,
            site=self.module,
        )

    def scales(self, count: int, previous: str) -> tuple[ScaleGroup, ...]:
        """All gates and ups share the mixture's input, which the routers read too; each down has
        its own."""
        shared = tuple(
            f"{self.expert(number)}.{name}"
            for number in range(count)
            for name in (self.gate, self.up)
        )
        gates = tuple(f"{self.module}.{gate}" for gate in self.gates)
        return (
            ScaleGroup(previous, shared, self.module, compensated=gates),
            *(
                ScaleGroup(f"{expert}.{self.up}", (f"{expert}.{self.down}",))
                for expert in map(self.expert, range(count))
            ),
        )


@dataclass(frozen=True)
class Refusal:
    """A setting of config.json with which models of a family are refused: what it does to the
    model, and what to do."""

    applies: Callable[[Any], bool]
    what: str
    remedy: str


@dataclass(frozen=True)
class ScaleVariant:
    """The scale groups of a family's models with a certain setting in config.json."""

    applies: Callable[[Any], bool]
    scales: tuple[ScaleGroup, ...]


@dataclass(frozen=True)
class Family:
    """Module paths of a causal language model, the units of its blocks, and its scale groups; None
    for those of autoawq's registry.

    activations: pairs of a linear and the module that its output passes before the next linear:
    scales pass a ReLU only. returns_tuple: whether a block gives a tuple, of which its output is
    the first. loads_packed: whether transformers 5.23 loads its packed checkpoints. experts: of a
    family of mixtures, whose unit and groups depend on the model's config.
    """

    blocks: str
    embedding: str
    norm: str
    units: tuple[UnitKind, ...]
    scales: tuple[ScaleGroup, ...] | None = None
    activations: tuple[tuple[str, str], ...] = ()
    returns_tuple: bool = False
    loads_packed: bool = True
    variants: tuple[ScaleVariant, ...] = ()
    experts: ExpertLayout | None = None
    refusals: tuple[Refusal, ...] = ()

    def kind_of(self, linear: str) -> UnitKind:
        """The kind of unit that a linear (its name inside a block) is in."""
        return next(kind for kind in self.units if linear in kind.linears)

    def symmetric_linears(self) -> frozenset[str]:
        """Names inside a block of those linears that servers take without zero points only."""
        return frozenset(linear for kind in self.units if kind.symmetric for linear in kind.linears)


@dataclass(frozen=True)
class Unit:
    """One unit of one block: the smallest thing that gets one bit-width.

    name: `BLOCK.KIND`, as in recipes and on the command line ("3.qkv").
    linears: module names inside the block.
    """

    block: int
    kind: UnitKind

    @property
    def name(self) -> str:
        return f"{self.block}.{self.kind.name}"

    @property
    def linears(self) -> tuple[str, ...]:
        return self.kind.linears


def list_units(family: Family, blocks: int) -> tuple[Unit, ...]:
    """Every unit of a model with `blocks` blocks, in the order of computation."""
    return tuple(Unit(block, kind) for block in range(blocks) for kind in family.units)


def fit_family(family: Family, config: Any, name: str) -> Family:
    """The family as a model of this config has it: its variant, and as many experts. InputError,
    naming the model, for a setting that cannot be handled."""
    for refusal in family.refusals:
        if refusal.applies(config):
            raise InputError(f"{name} {refusal.what}", refusal.remedy)
    variant = next((v for v in family.variants if v.applies(config)), None)
    if variant is not None:
        family = replace(family, scales=variant.scales)
    if family.experts is None:
        return family
    count = getattr(config, family.experts.count, None)
    if not isinstance(count, int) or not 0 < count <= MOST_EXPERTS:
        raise InputError(
            f"{name} has {count} experts by its config.json", "use the one that came with the model"
        )
    groups = family.experts.scales(count, "post_attention_layernorm")
    units = tuple(
        family.experts.unit(count) if kind.name == EXPERTS else kind for kind in family.units
    )
    return replace(family, units=units, scales=(*(family.scales or ()), *groups))
