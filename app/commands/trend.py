"""`awqscope trend`: one model over its releases, what is newly broken and what was mended."""

import itertools
import json
import sys
from typing import Annotated

import typer

from awqscope.app.command_line.common import examples
from awqscope.app.commands.rank import JsonOption, RunsArgument


@examples(
    "awqscope trend reports/v1 reports/v2 reports/v3",
    "awqscope trend reports --model org/model",
    "awqscope trend reports/v1 reports/v2 --json",
)
def trend(
    runs: RunsArgument,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Of a directory of runs, those of this reference."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show one model over its releases: runs in the order in which they were begun.

    Their numbers stand in a table. Between each release and the next it says which blocks, units
    and tokens are newly broken and which were mended: blocks and units whose KL surely changed, by
    5% or more of all that was lost before, and tokens whose likeliest next token was the
    reference's and is not any more, or the other way round.
    """
    from awqscope.app.terminal.compared import show_trend
    from awqscope.app.terminal.console import PlainConsole
    from awqscope.app.terminal.progress import show_note
    from awqscope.app.words.compared.many_models import name_sides
    from awqscope.app.words.compared.trend import trend_json
    from awqscope.diagnose.compared.changes import read_step
    from awqscope.diagnose.compared.releases import open_releases
    from awqscope.diagnose.compared.standing import weigh_side

    sides = open_releases(runs, model, show_note)
    names = name_sides(sides)
    standings, judged = zip(*map(weigh_side, sides), strict=True)
    steps = [read_step(a, b) for a, b in itertools.pairwise(sides)]
    if as_json:
        print(json.dumps(trend_json(standings, names, judged, steps), indent=2))
        return
    width = None if sys.stdout.isatty() else 170
    console = PlainConsole(width=width, highlight=False)
    show_trend(standings, names, judged, steps, console)
