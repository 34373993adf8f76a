"""Options and arguments of commands. Those of `run` and `compare` are made from where each stands
once (awqscope.diagnose.options); here are those of the commands that read a run."""

import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from awqscope.diagnose.options.amounts import write_bytes
from awqscope.diagnose.options.execution import Execution
from awqscope.diagnose.options.option import Option, list_options
from awqscope.diagnose.options.shared import Spec

Command = TypeVar("Command", bound=Callable[..., None])
AnySpec = TypeVar("AnySpec", bound=Spec)

BUDGET = "Budget, one of"
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
# Of commands that can also print what is of no run.
OptionalRunArgument = Annotated[Path | None, typer.Argument(metavar="RUN", help="A run directory.")]
MovedModelOption = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Where the run's model is now, if it has moved."),
]


def takes(
    kind: type[Spec], only: Collection[str] = (), several: Collection[str] = ()
) -> Callable[[Command], Command]:
    """Make a command take the options of a spec and of its execution, by name: all of them, or
    `only` some; of the arguments in `several` a list. What else the command takes comes first."""
    options = list_options(kind, Execution)
    wanted = [
        make_parameter(options[name], several=name in several)
        for name in options
        if not only or name in only
    ]

    def give(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)
        names = {parameter.name for parameter in wanted}
        others = [
            parameter
            for parameter in own.parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD and parameter.name not in names
        ]
        command.__signature__ = own.replace(parameters=[*others, *wanted])  # type: ignore[attr-defined]
        return command

    return give


def make_parameter(option: Option, *, several: bool = False) -> inspect.Parameter:
    """A command's parameter for an option, as typer reads it. What its value may be the option's
    own model checks, in the same words for every face. several: whether it takes a list."""
    kind: Any = str if option.is_amount else list[str] if option.kind is tuple else option.kind
    kind = list[kind] if several else kind
    kind = kind | None if option.default is None and not option.is_needed else kind
    shown = option.shown
    if option.is_argument:
        said: Any = typer.Argument(metavar=shown.metavar, help=option.help)
    else:
        said = typer.Option(
            *shown.flags,
            metavar=shown.metavar or None,
            rich_help_panel=shown.group,
            show_default=option.kind is not bool,
            help=write_help(option),
        )
    default = inspect.Parameter.empty if option.is_needed else write_default(option)
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[kind, said],
        default=default,
    )


def write_default(option: Option) -> Any:
    """An option's default as it is typed."""
    if option.is_size:
        return write_bytes(option.default)
    return list(option.default) if option.kind is tuple else option.default


def write_help(option: Option) -> str:
    """An option's help, with what holds without it and from what on a count makes sense."""
    said = [option.help]
    if option.shown.unset:
        said.append(f"[default: {option.shown.unset}]")
    if option.least:
        said.append(f"[at least {option.least}]")
    return " ".join(said)


def read_given(kind: type[AnySpec], given: Mapping[str, Any]) -> tuple[AnySpec, Execution]:
    """The spec and the execution that a command's options ask for. InputError for options that make
    no sense."""
    beside = {name: given[name] for name in Execution.model_fields}
    options = {name: value for name, value in given.items() if name not in beside}
    return kind(**options), Execution(**beside)
