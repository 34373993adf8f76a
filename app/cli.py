"""The command line. One file a command in `app/commands`.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done or pass, 1 the proof or
the gate failed, 2 usage or input that cannot be used (one line with the remedy), 3 the gate is
inconclusive, 130 interrupted.
"""

import typer

from app.commands.common import reports_errors
from app.commands.compare import compare
from app.commands.dashboard import dashboard
from app.commands.explain import explain
from app.commands.gate import gate
from app.commands.recipe import recipe
from app.commands.report import report
from app.commands.requantize import requantize
from app.commands.run import demo, run
from app.commands.show import show

COMMANDS = (
    run,
    demo,
    show,
    dashboard,
    explain,
    recipe,
    requantize,
    report,
    gate,
    compare,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Which layers did 4-bit AWQ hurt, how surely, and what is the cheapest mixed 4/8-bit "
    "checkpoint that repairs it?",
)
for command in COMMANDS:
    app.command()(reports_errors(command))


def main() -> None:
    """Entry point of the `awqscope` command."""
    app()


if __name__ == "__main__":
    main()
