"""`awqscope gate`: whether a run may be released, by a policy."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from awqscope.app.command_line.common import STDOUT, check_outputs, examples, write_output
from awqscope.app.command_line.options import OptionalRunArgument
from awqscope.mixedprec.errors import InputError


@examples(
    "awqscope gate reports/my-model",
    "awqscope gate reports/my-model --policy policy.toml --junit gate.xml",
    "awqscope gate reports/my-model --baseline reports/last-release",
    "awqscope gate --print-policy > policy.toml",
)
def gate(
    path: OptionalRunArgument = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Policy (TOML). [default: RUN/policy.toml, else --print-policy]",
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Run on the same tokens, for the policy's [drift] limits."
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write JUnit XML to this file.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write Markdown to this file.")
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write JSON to this file; - is stdout."),
    ] = None,
    print_policy: Annotated[
        bool, typer.Option("--print-policy", help="Print the default policy, with what it means.")
    ] = False,
    print_schema: Annotated[
        bool, typer.Option("--print-schema", help="Print the JSON Schema of policies.")
    ] = False,
) -> None:
    """Hold a finished run to a policy: its own beside it, unless another is given.

    Every limit is decided on the whole 95% interval of its number. Exit code 0: all hold. 1: one
    does not. 3: one cannot be decided, and none fails; the table says how many tokens would.
    """
    from awqscope.diagnose.gate.policy import DEFAULT_PATH, SCHEMA_PATH, load_policy

    if print_policy and print_schema:
        raise InputError("a policy and its schema are two documents", "print one of them")
    if print_policy or print_schema:
        print((DEFAULT_PATH if print_policy else SCHEMA_PATH).read_text(encoding="utf-8"), end="")
        return
    if path is None:
        raise InputError("no run was given", "awqscope gate RUN")

    from awqscope.app.terminal.console import PlainConsole
    from awqscope.app.terminal.gate import (
        write_json_text,
        write_junit,
        write_markdown,
        write_terminal,
    )
    from awqscope.diagnose.gate.own import load_own
    from awqscope.diagnose.gate.verdict import judge_run
    from awqscope.diagnose.runs.directory import RunDirectory, reads_run

    given = {"junit": junit, "markdown": markdown, "json": json_file}
    files = {kind: file for kind, file in given.items() if file is not None}
    check_outputs(list(files.values()))
    against = None if baseline is None else RunDirectory(baseline)
    run = RunDirectory(path)
    wanted = load_own(run) if policy is None else load_policy(policy)
    with reads_run(path):
        verdict = judge_run(run, wanted, against)
    writers = {"junit": write_junit, "markdown": write_markdown, "json": write_json_text}
    texts = [(file, writers[kind](verdict)) for kind, file in files.items()]
    for file, text in texts:
        write_output(file, text)
    if STDOUT not in files.values():
        width = None if sys.stdout.isatty() else 150
        PlainConsole(width=width, highlight=False).print(write_terminal(verdict))
    raise typer.Exit(verdict.exit_code)
