"""The alternatives that can be made here: a row each, with how its weights are made.

`Own` models are the run's, made by its searches; a `Searched` one is AWQ searched anew with options
changed; a `Nearest` one rounds every weight by itself to AWQ's grid, a `Rounded` one to that of
another library.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from awqscope.diagnose.runs.record import MIXED, UNIFORM
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.studies.alternatives.answer import AWQ, GGUF, NF4, RESCUE, RTN
from awqscope.mixedprec.scheme import Scheme


@dataclass(frozen=True)
class Own:
    """A model of the run's own searches: uniform, mixed, or every unit at the rescue width."""

    model: str


@dataclass(frozen=True)
class Searched:
    """AWQ with some of the run's options changed. changes: option -> value."""

    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Nearest:
    """AWQ's grid without its scales and clipping: each weight to the nearest value. changes: of the
    run's options."""

    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rounded:
    """Every weight rounded by the code of a library, by the mix of this name (`choosing.MIXES`)."""

    library: str
    mix: str


Source = Own | Searched | Nearest | Rounded


@dataclass(frozen=True)
class Method:
    """An alternative. name: on the command line and in files. kind: whose method it is. source: how
    its weights are made. said: what its title says besides its kind, where no scheme says it."""

    name: str
    kind: str
    source: Source
    said: str = ""

    def scheme(self, spec: RunSpec) -> Scheme | None:
        """The scheme of its weights beside a run; None for a grid that is not AWQ's, and for mixed
        widths."""
        if isinstance(self.source, Searched | Nearest):
            return replace(spec.low, **self.source.changes)
        schemes = {UNIFORM: spec.low, RESCUE: spec.rescue}
        return schemes.get(self.source.model) if isinstance(self.source, Own) else None

    def title(self, spec: RunSpec) -> str:
        """What it is called in tables."""
        scheme = self.scheme(spec)
        if scheme is None:
            return f"{self.kind} {self.said}".strip()
        symmetric = " symmetric" if scheme.symmetric else ""
        return f"{self.kind}{symmetric} {scheme.bits} bits in {scheme.write_groups()}"


METHODS: tuple[Method, ...] = (
    Method(UNIFORM, AWQ, Own(UNIFORM)),
    Method(MIXED, AWQ, Own(MIXED), "mixed by the recipe"),
    Method(RESCUE, AWQ, Own(RESCUE)),
    Method("rtn", RTN, Nearest()),
    Method("rtn-3-bit", RTN, Nearest({"bits": 3})),
    Method("nf4", NF4, Rounded("bitsandbytes", "nf4")),
    Method("nf4-double", NF4, Rounded("bitsandbytes", "nf4-double"), "with double quantization"),
    Method("gguf-q4_0", GGUF, Rounded("gguf", "q4_0"), "Q4_0"),
    Method("gguf-q4_1", GGUF, Rounded("gguf", "q4_1"), "Q4_1"),
    Method("gguf-q4_k_m", GGUF, Rounded("xllamacpp", "q4_k_m"), "Q4_K_M"),
    Method("gguf-q8_0", GGUF, Rounded("gguf", "q8_0"), "Q8_0"),
    Method("awq-g128", AWQ, Searched({"group_size": 128})),
    Method("awq-g64", AWQ, Searched({"group_size": 64})),
    Method("awq-g32", AWQ, Searched({"group_size": 32})),
    Method("awq-symmetric", AWQ, Searched({"symmetric": True})),
    Method("awq-3-bit", AWQ, Searched({"bits": 3})),
)
NAMES = tuple(method.name for method in METHODS)


def change_low(spec: RunSpec, changes: Mapping[str, Any]) -> RunSpec:
    """A run's options with those of its low width changed. Nothing is made at the rescue width of
    these: it is moved where it is not above the changed one."""
    bits = changes.get("bits", spec.bits)
    return spec.change(**changes, rescue_bits=max(spec.rescue_bits, bits + 1))
