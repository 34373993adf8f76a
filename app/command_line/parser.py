"""How the command line reads and speaks: help in groups with examples, one line for every error.

Where the first word is not a command, the error suggests one by what the word names: a run, a
model, a directory of runs, or a command that is spelt like it.
"""

import difflib
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from awqscope.app.command_line.common import INPUT_ERROR, tell
from awqscope.diagnose.runs.naming import CHECKPOINT, MODEL, RUN, RUNS, find_kind
from awqscope.mixedprec.errors import InputError

# Where typer has the errors of its own, which it does not name elsewhere.
errors: Any = sys.modules[typer.BadParameter.__module__]
OTHERS = "Options"
WIDEST = 22
# The bounds of a number, as typer has them.
RANGE = re.compile(r"\bx>=(\d+)")
# An argument that may be left out, as typer has it in the line of usage.
TWICE = re.compile(r"\[\[(.+?)\](?:\.\.\.)?\](\.\.\.)?")
# What is most likely meant by a path where a command should be.
MEANT = {RUN: "show", RUNS: "list", MODEL: "run", CHECKPOINT: "compare"}
# What is wrong with a value that is none of its option's type; bounds are the options' own.
KINDS = {
    "int_parsing": "no whole number",
    "int_from_float": "no whole number",
    "float_parsing": "no number",
    "finite_number": "no number",
}


class Command(TyperCommand):
    """A command whose options stand in groups, and whose help ends with examples."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then the options of each group in the order in which groups first appear."""
        shown = [(param, record) for param, record in _list_records(self, ctx) if record]
        arguments = [
            (record[0].partition(" <")[0], record[1])
            for param, record in shown
            if param.param_type_name == "argument"
        ]
        options = [(param, record) for param, record in shown if param.param_type_name == "option"]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        groups: dict[str, list[tuple[str, str]]] = {}
        records = [record for _, record in options]
        for param, record in options:
            groups.setdefault(getattr(param, "rich_help_panel", None) or OTHERS, []).append(record)
        # What every command has comes last.
        width = max(len(name) for name, _ in records if len(name) <= WIDEST)
        for title in sorted(groups, key=lambda title: title == OTHERS):
            with formatter.section(title):
                lines = [(name.ljust(width), text) for name, text in groups[title]]
                formatter.write_dl(lines, col_max=WIDEST)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The examples, a line each, as they are typed."""
        if self.epilog:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in self.epilog.splitlines()))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """[OPTIONS] and the arguments' names. typer puts braces around those, and brackets and dots
        around and behind what has some of its own."""
        pieces = super().collect_usage_pieces(ctx)
        return [TWICE.sub(r"[\1]\2", re.sub("[{}]", "", piece)) for piece in pieces]


class Group(TyperGroup):
    """All commands. Every error of usage is one line with the remedy, and exit code 2."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Carry out a command line and, in `standalone_mode`, end the process."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            # Called as a module, or by another name, it speaks of the command all the same.
            code = super().main(args, "awqscope", complete_var, standalone_mode=False, **extra)
        except errors.NoArgsIsHelpError as error:
            error.show()
            sys.exit(INPUT_ERROR)
        except errors.ClickException as error:
            tell(explain_usage(error))
            sys.exit(INPUT_ERROR)
        except typer.Abort:
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is named first. A usage error for a word that is not a command."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise UnknownCommandError(args[0], args[1:], tuple(self.commands))
        return super().resolve_command(ctx, args)


class UnknownCommandError(errors.ClickException):  # type: ignore[misc]
    """The first word is not a command. rest: the words after it."""

    def __init__(self, word: str, rest: Sequence[str], known: tuple[str, ...]):
        super().__init__(f"there is no command {word}")
        self.word, self.rest, self.known = word, rest, known


def explain_usage(error: Any) -> InputError:
    """What is wrong with a command line, and what mends it."""
    if isinstance(error, UnknownCommandError):
        return _explain_unknown(error.word, error.rest, error.known)
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "awqscope"
    see = f"{path} --help lists what there is"
    if isinstance(error, errors.NoSuchOption):
        params = context.command.params if context else []
        known = [option for param in params for option in param.opts]
        nearest = difflib.get_close_matches(error.option_name, known, n=1)
        return InputError(
            f"there is no option {error.option_name}",
            f"did you mean {nearest[0]}? {see}" if nearest else see,
        )
    if isinstance(error, errors.MissingParameter):
        return InputError(f"{_name(error.param)} is missing", f"{_show_usage(context)}; {see}")
    if isinstance(error, typer.BadParameter) and error.param is not None:
        return _explain_value(error, see)
    return InputError(_lower(error.format_message()), see)


def _explain_unknown(word: str, rest: Sequence[str], known: tuple[str, ...]) -> InputError:
    kind = find_kind(Path(word))
    if kind is not None:
        # A checkpoint is compared with the model that it came from, which comes first.
        words = [MEANT[kind], *(["REFERENCE"] if kind == CHECKPOINT else []), word, *rest]
        return InputError(f"{word} is {kind}, no command", shlex.join(["awqscope", *words]))
    nearest = difflib.get_close_matches(word, known, n=1)
    remedy = f"did you mean {nearest[0]}?" if nearest else f"the commands are {', '.join(known)}"
    return InputError(f"there is no command {word}", remedy)


def _explain_value(error: Any, see: str) -> InputError:
    """What is wrong with the value of an option."""
    name = _name(error.param)
    cause = error.__cause__
    found = cause.errors() if hasattr(cause, "errors") else []
    if not found:
        return InputError(f"{name}: {_lower(error.message)}", see)
    first = found[0]
    kind = KINDS.get(first["type"], _lower(first["msg"]))
    return InputError(f"{name} {first.get('input')} is {kind}", see)


def _name(param: Any) -> str:
    """A parameter as its command's help calls it."""
    if param.param_type_name == "option":
        return max(param.opts, key=len)
    return str(param.metavar or param.name.upper()).strip("[]{}")


def _show_usage(context: Any) -> str:
    """What a command line of this command looks like."""
    return " ".join([context.command_path, *context.command.collect_usage_pieces(context)])


def _lower(text: str) -> str:
    """A sentence as a part of ours."""
    return text[:1].lower() + text[1:].rstrip(".")


def _list_records(command: Any, ctx: Any) -> Iterator[tuple[Any, tuple[str, str] | None]]:
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        yield param, record and (record[0], RANGE.sub(r"at least \1", record[1]))
