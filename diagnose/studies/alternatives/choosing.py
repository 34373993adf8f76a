"""Which alternatives a run's model can take, and by what code weights are rounded."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from awqscope.diagnose.runs.record import MIXED, UNIFORM
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.studies.alternatives.asked import check_names
from awqscope.diagnose.studies.alternatives.llama_cpp import Q4KM
from awqscope.diagnose.studies.alternatives.methods import METHODS, NAMES, Method, Rounded
from awqscope.diagnose.studies.alternatives.rounding import (
    Gguf,
    Mix,
    ModelLinear,
    Nf4,
    check_mix,
)
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.scheme import Scheme

# Of the methods that round by a library's code.
MIXES: Mapping[str, Mix] = {
    "nf4": Nf4(double=False),
    "nf4-double": Nf4(double=True),
    "q4_0": Gguf("Q4_0"),
    "q4_1": Gguf("Q4_1"),
    "q4_k_m": Q4KM(),
    "q8_0": Gguf("Q8_0"),
}


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
    check_names(only)
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
                check_mix(MIXES[method.source.mix], method.name, linear)
    except InputError as error:
        return error
    return None
