"""A run as an object, and the runs of a directory as a table."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awqscope.app.notebook.frames import frame_headline, list_tables, read_frame, read_tokens
from awqscope.app.store import RunSummary, Store, UnknownRunError
from awqscope.app.words.run import promoted_units
from awqscope.app.words.verdict import write_brief, write_verdict
from awqscope.diagnose.runs.directory import RunDirectory, reads_run
from awqscope.diagnose.runs.naming import RUN, find_kind
from awqscope.diagnose.runs.record import AnyRecord
from awqscope.diagnose.runs.scores import read_scores
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.recipes.scores import Scores

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


class Run:
    """A run or a comparison, in its directory.

    Nothing is kept but the path, as it was given: each attribute reads what is there when it is
    asked for, so that a run that is under way may be looked at again, and a frame may be changed by
    whoever got it.
    Where a run has not got so far, or an earlier version did not write it, an attribute raises
    InputError, whose `remedy` says what would mend that.
    """

    def __init__(self, path: Path | str):
        """InputError where there is no run, or its record is damaged or of a newer version."""
        self.path = Path(path)
        RunDirectory(self.path).read()
        there = self.path.resolve()
        if there.name.startswith("."):
            raise InputError(f"{path} is hidden", "give it a name without a dot before it")
        self.name, self.store = there.name, Store(there.parent)

    def __repr__(self) -> str:
        return f"<Run {self.name}: {self.state}, {write_brief(self.state, self.record)}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: verdict, numbers, and the damage by block as a drawing that needs
        no script and asks nobody for anything."""
        from awqscope.app.notebook.card import write_card

        return write_card(self)

    @property
    def directory(self) -> RunDirectory:
        """The run's directory, as the functions of `awqscope.diagnose` take it."""
        return RunDirectory(self.path)

    @property
    def summary(self) -> RunSummary:
        """The run as lists show it. InputError where it is damaged, or gone meanwhile."""
        try:
            found = self.store.summary(self.name)
        except UnknownRunError as error:
            raise InputError(f"{self.path} is gone", "read it where it is now") from error
        if found.record is None:
            raise InputError(found.error, found.remedy)
        return found

    @property
    def record(self) -> AnyRecord:
        """run.json, typed: `awqscope.diagnose.runs.record`."""
        found = self.summary.record
        assert found is not None
        return found

    @property
    def state(self) -> str:
        """done, running, stopped or failed."""
        return self.summary.state

    @property
    def verdict(self) -> str:
        """The run in a few sentences, as `awqscope show` begins."""
        with reads_run(self.path):
            return write_verdict(self.record, promoted_units(self.recipe, self.record))

    @property
    def recipe(self) -> Recipe | None:
        """The run's own recipe; None before it is chosen, and of a comparison."""
        return self.store.recipe(self.name)

    @property
    def scores(self) -> Scores:
        """What every unit costs at every width, as `awqscope.solve` takes it."""
        return read_scores(self.path)

    @property
    def headline(self) -> "pd.DataFrame":
        """The headline numbers, a row a model (index `model`): `ppl`, `delta_ppl`, `kl`, `kl_p99`,
        `kl_p999`, `top1_agreement`, `bytes` and `recovered`, those with an interval beside their
        bounds, `kl_low` and `kl_high`."""
        with reads_run(self.path):
            return frame_headline(self.record)

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables that the run has so far."""
        return list_tables(self.directory)

    def table(self, name: str, columns: Sequence[str] | None = None) -> "pd.DataFrame":
        """One of `tables` with the columns of reports/README.md, or some of them; rows are found by
        what the guide lists, such as linears by `linear` and `bits`."""
        if name == "tokens":
            return self.read_tokens(columns)
        return read_frame(self.directory, name, columns)

    @property
    def blocks(self) -> "pd.DataFrame":
        """What each block costs in each view, by `block` and `view`."""
        return self.table("blocks")

    @property
    def units(self) -> "pd.DataFrame":
        """What each unit costs at each width, by `unit` and `bits`."""
        return self.table("units")

    @property
    def linears(self) -> "pd.DataFrame":
        """What each linear is estimated to cost at each width, by `linear` and `bits`."""
        return self.table("linears")

    @property
    def tokens(self) -> "pd.DataFrame":
        """Every token of the text by `source`, the validation text that it is from, `window` and
        `position`; without the columns that few tokens have. `read_tokens` reads less, or those."""
        return self.read_tokens()

    def read_tokens(
        self, columns: Sequence[str] | None = None, windows: Collection[int] | None = None
    ) -> "pd.DataFrame":
        """Tokens as `tokens` has them: some columns, of some windows, so that a large table need
        not be read whole. columns: any of tokens.parquet, such as `block_kl`, which is a list by
        block and known for the worst windows only."""
        return read_tokens(self.directory, self.record, columns, windows)

    def figure(self, name: str, **options: Any) -> "go.Figure":
        """A chart of the dashboard's pages, by a name of `figures`, on a white ground. options: as
        `figures` lists them, such as `block=5`. InputError for a name or option that there is not,
        and where the run has not what it is drawn from."""
        from awqscope.app.notebook.charts import draw_chart

        return draw_chart(self, name, options)

    def figures(self) -> "pd.DataFrame":
        """Every chart by name: what it shows (`title`), the `options` that it takes with what they
        are by default, the file that it is drawn `of`, and whether that `exists`."""
        from awqscope.app.notebook.charts import list_charts

        return list_charts(self)

    def save_figure(self, name: str, file: Path | str, **options: Any) -> Path:
        """Write a chart to a file and say which: .html, which holds all that it needs, or .svg,
        .png or .pdf, which take the extra `plots` and a Chromium or Chrome. options: of the
        figure. InputError for another ending, and where it cannot be written."""
        from awqscope.app.notebook.charts import save_chart

        return save_chart(self.figure(name, **options), Path(file))


def read_run(path: Path | str) -> Run:
    """The run or comparison in a directory, done or not. Nothing but its record is read yet.
    InputError where there is none, or where its record is damaged or of a newer version."""
    return Run(path)


def find_run(run: Run | Path | str) -> Run:
    """What was given as a run, as one. InputError where it is none."""
    return run if isinstance(run, Run) else Run(run)


def read_runs(runs_dir: Path | str = "reports") -> "pd.DataFrame":
    """Every run of a directory, the newest first, by name (index `run`).

    `path`, `state`, `verdict` (in a few words), `model`, `kind`, `created`, `blocks`; `ppl`, `kl`,
    `top1_agreement` and `bytes` of the `reference`, of what is `quantized` (uniform, or a
    comparison's candidate) and of `mixed`, such as `kl_mixed`, with bounds where there are any;
    `recovered`, `additivity`, `flagged` (block numbers) and `proved`; then each option that the run
    was given, by its name. A damaged run has its `state` and why as `verdict`. InputError for what
    is no directory of runs.
    """
    import pandas as pd

    root = Path(runs_dir)
    if find_kind(root) == RUN:
        raise InputError(f"{root} is a run", "give it to read_run, or give its parent directory")
    if not root.is_dir():
        raise InputError(f"{root} is no directory", "give the directory that holds your runs")
    rows = [_list_entries(root, found) for found in Store(root).list_runs()]
    frame = pd.DataFrame(rows, columns=None if rows else ["run", "path", "state", "verdict"])
    if rows:
        frame["created"] = pd.to_datetime(frame["created"], utc=True, errors="coerce")
    # Whole numbers that some run lacks would be of another kind than where none does.
    return frame.convert_dtypes(convert_string=False, convert_floating=False).set_index("run")


def _list_entries(root: Path, found: RunSummary) -> dict[str, Any]:
    record = found.record
    told: dict[str, Any] = {"run": found.name, "path": str(root / found.name), "state": found.state}
    if record is None:
        return {**told, "verdict": found.error, "created": None}
    told |= {"verdict": write_brief(found.state, record), "model": record.model}
    told |= {"kind": record.kind, "created": record.created, "blocks": record.source.blocks}
    if record.headline is not None:
        told |= _list_numbers(record)
    options = record.spec.to_json().items()
    kept = {name: tuple(v) if isinstance(v, list) else v for name, v in options}
    # The model has a column already.
    return told | {name: value for name, value in kept.items() if name not in told}


def _list_numbers(record: AnyRecord) -> dict[str, Any]:
    """The headline as columns of one row."""
    frame, numbers = frame_headline(record), {}
    names = {"reference": "reference", record.quantized: "quantized", "mixed": "mixed"}
    for model, row in frame.iterrows():
        for column, value in row.items():
            stem, _, end = column.rpartition("_")
            is_bound = end in ("low", "high")
            base, tail = (stem, f"_{end}") if is_bound else (column, "")
            if base == "recovered":
                if model == "mixed":
                    numbers[column] = value
            elif not (model == "reference" and base not in ("ppl", "bytes")):
                numbers[f"{base}_{names[model]}{tail}"] = value
    headline = record.measured
    return numbers | {
        "additivity": headline.additivity,
        "flagged": tuple(headline.flagged),
        "proved": getattr(headline, "proved", None),
    }
