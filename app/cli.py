"""The command line. One file a command in `app/commands`.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done or pass, 1 the proof or
the gate failed, 2 usage or input that cannot be used (one line with the remedy), 3 the gate is
inconclusive, 130 interrupted by Ctrl-C, 143 by SIGTERM, 129 by the end of the terminal.
"""

from importlib.metadata import version
from typing import Annotated, Any

import typer

from awqscope.app.command_line.common import reports_errors
from awqscope.app.command_line.interruption import interruptible
from awqscope.app.command_line.parser import Command, Group
from awqscope.app.commands.check import check
from awqscope.app.commands.compare import compare
from awqscope.app.commands.dashboard import dashboard
from awqscope.app.commands.delete import delete
from awqscope.app.commands.dequantize import dequantize
from awqscope.app.commands.explain import explain
from awqscope.app.commands.gate import gate
from awqscope.app.commands.list import list_runs
from awqscope.app.commands.note import note
from awqscope.app.commands.rank import rank
from awqscope.app.commands.recipe import recipe
from awqscope.app.commands.report import report
from awqscope.app.commands.requantize import requantize
from awqscope.app.commands.run import demo, run
from awqscope.app.commands.show import show
from awqscope.app.commands.studies.activations import activations
from awqscope.app.commands.studies.alternatives import alternatives
from awqscope.app.commands.studies.calibrate import calibrate
from awqscope.app.commands.studies.probe import probe
from awqscope.app.commands.studies.tasks import tasks
from awqscope.app.commands.studies.weights import weights
from awqscope.app.commands.studies.why import why
from awqscope.app.commands.terms import terms
from awqscope.app.commands.trend import trend
from awqscope.diagnose.machine.pages import use_huge_pages
from awqscope.diagnose.machine.threads import wait_passively

COMMANDS: dict[str, Any] = {
    "run": run,
    "demo": demo,
    "list": list_runs,
    "show": show,
    "note": note,
    "delete": delete,
    "dashboard": dashboard,
    "explain": explain,
    "why": why,
    "weights": weights,
    "probe": probe,
    "calibrate": calibrate,
    "alternatives": alternatives,
    "activations": activations,
    "tasks": tasks,
    "recipe": recipe,
    "requantize": requantize,
    "report": report,
    "gate": gate,
    "compare": compare,
    "rank": rank,
    "trend": trend,
    "check": check,
    "dequantize": dequantize,
    "terms": terms,
}

# What its numbers depend on besides.
DECISIVE = ("autoawq", "torch", "transformers")

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(wanted: bool) -> None:
    """Print the versions of awqscope and of what decides its numbers, and end."""
    if wanted:
        with_what = ", ".join(f"{name} {version(name)}" for name in DECISIVE)
        print(f"awqscope {version('awqscope')} ({with_what})")
        raise typer.Exit


@app.callback()
def awqscope(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Which layers did 4-bit AWQ hurt, how surely, and what is the cheapest mixed 4/8-bit
    checkpoint that repairs it?

    Give a path in a command's place, and the command that it is for is named.
    """


for name, command in COMMANDS.items():
    app.command(name, cls=Command, epilog="\n".join(command.examples))(reports_errors(command))


def main() -> None:
    """Entry point of the `awqscope` command."""
    wait_passively()
    use_huge_pages()
    with interruptible(until_exit=True):
        app()


if __name__ == "__main__":
    main()
