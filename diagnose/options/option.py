"""Options: what is said of each, how what people type is read, and how a wrong value is refused.

An option is a field of a model that derives from `Options`. The field has its name, type, default,
bounds and help; a `Shown` beside them has the rest. The command line, the forms and the model card
are made from both, and reports/README.md is held against them.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Self, cast, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic_core import ErrorDetails, PydanticCustomError

from awqscope.mixedprec.errors import InputError

# The groups of options in a command's help.
TEXTS, WIDTHS, FLAGGING = "Texts", "Widths", "What is flagged"
MACHINE, RESULT = "Machine", "Result"
# What a count can be at most, on every machine and in every file.
MOST = 2**31 - 1
# What the number of an amount of memory counts; people type it with a unit.
BYTES = "bytes"
# What is typed as a share of a whole, in percent or as a fraction.
SHARE = "of the whole"
# An InputError of one of our checks, among what pydantic finds.
OURS = "input"
NO_WHOLE = ("{flag} {value} is no whole number", "give a whole number")
NO_NUMBER = ("{flag} {value} is no number", "give a number")
NO_SWITCH = ("{flag} {value} is neither on nor off", "give true or false")
NO_TEXT = ("{flag} {value} is no text", "give a text")
# By what pydantic calls it: what is wrong with a value, and what mends it.
REFUSALS: Mapping[str, tuple[str, str]] = {
    "greater_than_equal": ("{flag} {value} is too small", "give at least {ge}"),
    "less_than_equal": ("{flag} {value} is too large", "give at most {le}"),
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), NO_WHOLE),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), NO_NUMBER),
    **dict.fromkeys(("bool_type", "bool_parsing"), NO_SWITCH),
    **dict.fromkeys(("string_type", "tuple_type"), NO_TEXT),
    "missing": ("{flag} is missing", "give it"),
    "extra_forbidden": ("{flag} is no option", "leave it out"),
}
LONGEST_SHOWN = 40
# How options follow one another in help, in records and in the commands that are shown.
ORDER = (
    *("model", "reference", "candidate", "revision", "calib", "valid"),
    *("bits", "rescue_bits", "group_size", "symmetric", "search"),
    *("seq_len", "windows", "sweep", "sweep_windows", "calib_windows", "calib_seq_len"),
    *("z", "ratio", "delta_ppl", "top_k", "whole_blocks", "target_bits", "min_recovery"),
    *("keep_fp16", "verify_units"),
    *("out", "seed", "device", "workers", "ray", "max_memory", "chunk_windows", "plan"),
    *("precision", "trust_remote_code", "dtype", "as_json"),
)


@dataclass(frozen=True)
class Shown:
    """How an option is shown.

    label: what a form calls it. hint: what the form says below that; empty for the option's help.
    metavar: what stands for its value in a command's help. group: the heading that it is under
    there; empty for an argument. unset: what holds where no value is given. unit: what its number
    counts. choices: every value that it can have, where they are few. flags: its names on the
    command line, where they are not made from its own. is_binding: whether a run that goes on must
    be given the same value again; not where it changes how a run is carried out alone.
    """

    label: str = ""
    hint: str = ""
    metavar: str = ""
    group: str = ""
    unset: str = ""
    unit: str = ""
    choices: Sequence[int | str] = ()
    flags: tuple[str, ...] = ()
    is_binding: bool = True


@dataclass(frozen=True)
class Option:
    """All that is known of an option.

    kind: the type of its value; tuple for texts of which there may be several. default: None where
    there is none. is_needed: whether a value must be given. least, most: its bounds, None without.
    help: a sentence, for a command's help.
    """

    name: str
    kind: type
    default: Any
    is_needed: bool
    least: int | None
    most: int | None
    help: str
    shown: Shown

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return self.shown.flags[0] if self.shown.flags else name_flag(self.name)

    @property
    def label(self) -> str:
        """What pages and reports call it: as forms do, or as the command line does."""
        return self.shown.label or self.flag

    @property
    def hint(self) -> str:
        """What a form says of it."""
        return self.shown.hint or self.help

    @property
    def is_argument(self) -> bool:
        """Whether the command line knows it by its place alone."""
        return not self.shown.group

    @property
    def is_amount(self) -> bool:
        """Whether it is typed as a text that is read as a number."""
        return self.shown.unit in (BYTES, SHARE)

    @property
    def is_size(self) -> bool:
        """Whether it is typed as an amount of memory."""
        return self.shown.unit == BYTES

    def list_given(self, value: Any) -> list[str | None]:
        """How often its flag stands in a command for this value, and with which text each time;
        None for a flag alone."""
        if value is None or value is False:
            return []
        if value is True:
            return [None]
        return list(value) if isinstance(value, tuple) else [str(value)]


class OptionsError(InputError):
    """Options that make no sense, in the words of the first. problems: option -> what is wrong."""

    def __init__(self, problems: Mapping[str, InputError]):
        first = next(iter(problems.values()))
        super().__init__(first.what, first.remedy)
        self.problems = problems


class Options(BaseModel):
    """Options that are given together. OptionsError for values that make no sense."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @model_validator(mode="wrap")
    @classmethod
    def _refuse(cls, given: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(given)
        except ValidationError as error:
            # The first of what is wrong with an option is enough of it.
            found = {str(entry["loc"][0]): _explain(entry) for entry in reversed(error.errors())}
            raise OptionsError(dict(reversed(found.items()))) from error

    def change(self, **changes: Any) -> Self:
        """The same with some of them changed. OptionsError if that makes no sense."""
        return type(self)(**{**dict(self), **changes})


def _explain(found: ErrorDetails) -> InputError:
    """Say what pydantic finds wrong with an option as the command line says it."""
    context, kind = found.get("ctx", {}), found["type"]
    if kind == OURS:
        return InputError(context["what"], context["remedy"])
    flag = name_flag(str(found["loc"][0]))
    value = str(found["input"])[:LONGEST_SHOWN]
    what, remedy = REFUSALS.get(kind, (f"{{flag}} {{value}}: {found['msg'].lower()}", "change it"))
    return InputError(what.format(flag=flag, value=value), remedy.format(**context))


def refuse(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Let pydantic collect the InputErrors of a check, so that one look finds all problems."""

    @functools.wraps(check)
    def collected(value: Any) -> Any:
        try:
            return check(value)
        except InputError as error:
            told = {"what": error.what, "remedy": error.remedy}
            raise PydanticCustomError(OURS, "{what}: {remedy}", told) from error

    return collected


def check_with(check: Callable[[Any], object]) -> Callable[[Any], Any]:
    """Make a validator, which returns the value, of a check that raises InputError."""

    def checked(value: Any) -> Any:
        check(value)
        return value

    return refuse(checked)


def read_option(name: str, field: FieldInfo) -> Option:
    """What a field of `Options` says of its option."""
    # Of `T | None` T; of `tuple[str, ...]` tuple.
    annotation: Any = field.annotation
    if NoneType in get_args(annotation):
        annotation = next(part for part in get_args(annotation) if part is not NoneType)
    least = [part.ge for part in field.metadata if isinstance(part, Ge)]
    most = [part.le for part in field.metadata if isinstance(part, Le)]
    return Option(
        name=name,
        kind=get_origin(annotation) or annotation,
        default=None if field.is_required() else field.default,
        is_needed=field.is_required(),
        least=cast(int, least[0]) if least else None,
        most=cast(int, most[0]) if most else None,
        help=field.description or "",
        shown=next(part for part in field.metadata if isinstance(part, Shown)),
    )


def name_flag(name: str) -> str:
    """An option's name on the command line."""
    return f"--{name.replace('_', '-')}"


@functools.cache
def list_options(*kinds: type[Options]) -> Mapping[str, Option]:
    """The options of these kinds together, in their order: name -> option."""
    fields = {name: field for kind in kinds for name, field in kind.model_fields.items()}
    return {name: read_option(name, fields[name]) for name in sorted(fields, key=ORDER.index)}
