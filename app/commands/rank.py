"""`awqscope rank`: several finished runs in one table, the one that loses least first."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from awqscope.app.command_line.common import examples

if TYPE_CHECKING:
    from awqscope.diagnose.gate.paired import Side

RunsArgument = Annotated[
    list[str],
    typer.Argument(metavar="RUN", help="Runs, RUN:uniform of one, or a directory of runs."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")]


@examples(
    "awqscope rank reports/a reports/b reports/gptq",
    "awqscope rank reports --baseline reports/last-release",
    "awqscope rank reports/a reports/a:uniform --json",
)
def rank(
    runs: RunsArgument,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="What the others are held against. [default: the best]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put finished runs side by side: which checkpoint to ship.

    One table has every model's size, bits a weight, PPL, KL, share of equal top tokens, p99.9 of
    KL, worst text and gate verdict, with intervals. Another has the differences to the best, paired
    by token; where two were measured on other tokens it says so. Of a run its mixed model is meant,
    of a comparison its candidate; RUN:uniform is a run's uniform model.
    """
    from awqscope.app.terminal.progress import show_note
    from awqscope.diagnose.compared.choosing import open_ranked

    sides, at = open_ranked(runs, baseline, show_note)
    print_ranking(sides, as_json, at)


def print_ranking(sides: Sequence["Side"], as_json: bool, baseline: int | None = None) -> None:
    """Models of finished runs side by side, as JSON or in words and tables. baseline: which of them
    the others are held against, by default the best."""
    from awqscope.app.terminal.compared import show_ranking
    from awqscope.app.terminal.console import PlainConsole
    from awqscope.app.words.compared.many_models import list_json, name_sides
    from awqscope.diagnose.compared.ranking import order_verdicts
    from awqscope.diagnose.compared.ranking import rank as rank_models
    from awqscope.diagnose.compared.standing import weigh_side

    weighed = [weigh_side(side) for side in sides]
    ranked = rank_models([standing for standing, _ in weighed], baseline)
    names = name_sides([one.standing.side for one in ranked])
    judged = order_verdicts(ranked, weighed)
    if as_json:
        print(json.dumps(list_json(ranked, names, judged), indent=2))
        return
    width = None if sys.stdout.isatty() else 170
    show_ranking(ranked, names, judged, PlainConsole(width=width, highlight=False))
