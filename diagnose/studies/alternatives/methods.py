"""The alternatives that can be made here: a row each, with how its weights are made.

`Own` models are the run's, made by its searches; a `Searched` one is AWQ searched anew with options
changed; a `Rounded` one rounds every weight by itself, to AWQ's grid or to that of another library.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from awqscope.diagnose.runs.record import MIXED, UNIFORM
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.studies.alternatives.answer import AWQ, GGUF, NF4, RESCUE, RTN
from awqscope.diagnose.studies.alternatives.llama_cpp import Q4KM
from awqscope.diagnose.studies.alternatives.rounding import (
    Gguf,
    Mix,
    ModelLinear,
    Nf4,
    check_mix,
)
from awqscope.mixedprec.errors import InputError
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
    """Every weight rounded by a library's code."""

    mix: Mix


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
    Method("nf4", NF4, Rounded(Nf4(double=False))),
    Method("nf4-double", NF4, Rounded(Nf4(double=True)), "with double quantization"),
    Method("gguf-q4_0", GGUF, Rounded(Gguf("Q4_0")), "Q4_0"),
    Method("gguf-q4_1", GGUF, Rounded(Gguf("Q4_1")), "Q4_1"),
    Method("gguf-q4_k_m", GGUF, Rounded(Q4KM()), "Q4_K_M"),
    Method("gguf-q8_0", GGUF, Rounded(Gguf("Q8_0")), "Q8_0"),
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


@dataclass(frozen=True)
class Choice:
    """The methods to measure, and those that a run has none of: name -> why."""

    methods: tuple[Method, ...]
    left_out: Mapping[str, str]


def choose_methods(
    spec: RunSpec, linears: Sequence[ModelLinear], *, raises: bool, only: Collection[str] = ()
) -> Choice:
    """The methods that can be held against a run's uniform model, which is always among them.

    linears: of all blocks. raises: whether the run's recipe raises any unit. only: names to
    measure; all where none are given. InputError for a name that there is none of, and for one of
    `only` that cannot be made."""
    unknown = sorted(set(only) - set(NAMES))
    if unknown:
        raise InputError(f"there is no alternative {unknown[0]}", f"choose from {', '.join(NAMES)}")
    wanted = {UNIFORM, *(only or NAMES)}
    chosen: dict[tuple[str, Scheme | str], Method] = {}
    left_out: dict[str, str] = {}
    for method in METHODS:
        twin = chosen.setdefault((method.kind, method.scheme(spec) or method.name), method)
        if method.name not in wanted:
            continue
        if twin is not method:
            left_out[method.name] = f"it is the same as {twin.name}"
        elif method.name == MIXED and not raises:
            left_out[method.name] = "the run's recipe raises no unit"
        else:
            problem = find_problem(method, spec, linears)
            if problem is not None and only:
                raise problem
            if problem is not None:
                left_out[method.name] = problem.what
    methods = [m for m in chosen.values() if m.name in wanted and m.name not in left_out]
    return Choice(tuple(methods), left_out)


def find_problem(
    method: Method, spec: RunSpec, linears: Sequence[ModelLinear]
) -> InputError | None:
    """Why a method cannot be carried out beside a run: it lacks its library, or does not tile the
    inputs of every linear. None where it can."""
    scheme = method.scheme(spec)
    try:
        for linear in linears:
            if scheme is not None:
                scheme.check_divides(linear.columns, linear.name)
            elif isinstance(method.source, Rounded):
                check_mix(method.source.mix, method.name, linear)
    except InputError as error:
        return error
    return None
