"""Several runs side by side, and one model over its releases, for scripts: what `awqscope rank` and
`awqscope trend` print, and the charts of their pages."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from awqscope.app.figures.compared.many import draw_pareto, draw_small, share_scale
from awqscope.app.figures.compared.trend import draw_trend
from awqscope.app.notebook.run import Run
from awqscope.app.notebook.run_charts import SCALES, choose
from awqscope.app.words.compared.many_models import (
    Judged,
    list_json,
    list_points,
    name_sides,
    write_ranking,
)
from awqscope.app.words.compared.trend import DRAWN, FROM_ZERO, read_point, trend_json, write_step
from awqscope.diagnose.compared.changes import Step, read_step
from awqscope.diagnose.compared.choosing import open_ranked, open_sides
from awqscope.diagnose.compared.ranking import Ranked, order_verdicts
from awqscope.diagnose.compared.ranking import rank as rank_models
from awqscope.diagnose.compared.releases import open_releases, sort_releases
from awqscope.diagnose.compared.standing import Standing, read_standing, weigh_side
from awqscope.diagnose.gate.findings import Missing
from awqscope.diagnose.gate.paired import Side
from awqscope.diagnose.gate.shares import read_block_costs
from awqscope.mixedprec.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

AnyRun = Run | Path | str


@dataclass(frozen=True)
class Ranking:
    """Models side by side, the one that loses least first. ranked: with all that is known of each;
    names: what each is called; judged: the gate's verdicts; all in one order."""

    ranked: Sequence[Ranked]
    names: Sequence[str]
    judged: Sequence[Judged]

    @property
    def verdict(self) -> str:
        """Which to ship, in a few sentences."""
        return " ".join(write_ranking(self.ranked, self.names, self.judged))

    @property
    def models(self) -> "pd.DataFrame":
        """A row a model, by `name`: its numbers, with `_low` and `_high` where they have bounds,
        `gate`, `dominated`, and what it has more than the baseline (`difference_kl`)."""
        return _frame(self.to_json()["models"])

    def to_json(self) -> dict[str, Any]:
        """As `awqscope rank --json` prints it."""
        return list_json(self.ranked, self.names, self.judged)


@dataclass(frozen=True)
class Trend:
    """A model's releases in the order of time. standings, names, judged: of each; steps: what
    changed from each to the next."""

    standings: Sequence[Standing]
    names: Sequence[str]
    judged: Sequence[Judged]
    steps: Sequence[Step]

    @property
    def verdict(self) -> str:
        """What the newest release broke and mended, in a few sentences."""
        said = " ".join(write_step(self.steps[-1]))
        return f"{self.names[-1]} after {self.names[-2]}. {said}"

    @property
    def releases(self) -> "pd.DataFrame":
        """A row a release, by `name`, with the columns of a ranking."""
        return _frame(self.to_json()["releases"])

    def to_json(self) -> dict[str, Any]:
        """As `awqscope trend --json` prints it."""
        return trend_json(self.standings, self.names, self.judged, self.steps)


def _frame(rows: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """Entries of JSON as rows by name; a number with bounds as three columns."""
    import pandas as pd

    return pd.DataFrame([_flatten(row) for row in rows]).set_index("name")


def _flatten(entries: Mapping[str, Any], lead: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in entries.items():
        name = f"{lead}{key}"
        if isinstance(value, Mapping) and "value" in value:
            found |= {name: value["value"], f"{name}_low": value["low"]}
            found |= {f"{name}_high": value["high"]}
            found |= {f"{name}_of": value["of"]} if "of" in value else {}
        elif isinstance(value, Mapping):
            found |= _flatten(value, f"{name}_")
        elif not (key == "difference" and value is None):
            found[name] = value
    return found


def _name(run: AnyRun) -> str:
    return str(run.path if isinstance(run, Run) else run)


def rank(*runs: AnyRun, baseline: AnyRun | None = None) -> Ranking:
    """Finished runs side by side, as `awqscope rank` ranks them. runs: also `RUN:uniform`, and a
    directory of runs. baseline: what the others are held against, by default the best. InputError
    for fewer than two, and for what is no run."""
    against = None if baseline is None else _name(baseline)
    sides, at = open_ranked([_name(run) for run in runs], against)
    weighed = [weigh_side(side) for side in sides]
    ranked = rank_models([standing for standing, _ in weighed], at)
    names = name_sides([one.standing.side for one in ranked])
    return Ranking(ranked, names, order_verdicts(ranked, weighed))


def trend(*runs: AnyRun, model: str | None = None) -> Trend:
    """One model over its releases, as `awqscope trend` has it: runs in the order in which they were
    begun. model: of a directory of runs, those of this reference. InputError for fewer than two,
    for runs of several models, and for what is no run."""
    sides = open_releases([_name(run) for run in runs], model)
    weighed = [weigh_side(side) for side in sides]
    steps = [read_step(a, b) for a, b in itertools.pairwise(sides)]
    return Trend(
        [standing for standing, _ in weighed],
        name_sides(sides),
        [verdict for _, verdict in weighed],
        steps,
    )


def _open_all(run: Run, others: Sequence[AnyRun]) -> list[Side]:
    if isinstance(others, Run | Path | str):
        others = (others,)
    return open_sides([_name(run), *(_name(other) for other in others)])


def draw_sizes(run: Run, others: Sequence[AnyRun]) -> go.Figure:
    """Bytes against KL of this run and others."""
    ranked = rank_models([read_standing(side) for side in _open_all(run, others)])
    return draw_pareto(list_points(ranked, name_sides([one.standing.side for one in ranked])))


def draw_blocks_among(run: Run, others: Sequence[AnyRun], scale: str = "linear") -> go.Figure:
    """KL by block, on an axis of KL that this run shares with others."""
    choose("scale", scale, SCALES)
    costs = []
    for side in _open_all(run, others):
        found = read_block_costs(side.run, side.record, side.stored)
        if isinstance(found, Missing):
            raise InputError(f"{side.run.path}: {found.reason}", side.run.how_to_finish())
        costs.append(found)
    return draw_small(costs[0], share_scale(costs, is_log=scale == "log"))


def draw_releases(run: Run, others: Sequence[AnyRun], measure: str = "kl") -> go.Figure:
    """A number of this run and of other releases, in the order in which they were begun."""
    choose("measure", measure, tuple(DRAWN))
    sides = sort_releases(_open_all(run, others))
    points = [read_point(read_standing(side), measure) for side in sides]
    label = DRAWN[measure][0]
    return draw_trend(name_sides(sides), points, label, from_zero=measure in FROM_ZERO)
