"""Charts of a run's own tables, each a function of the run: of the rows that the dashboard's pages
show, and of what those begin with where nothing is said."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from awqscope.app.figures.activations import draw_channels, draw_histograms
from awqscope.app.figures.blocks import draw_depth, draw_differences, draw_profile, draw_units
from awqscope.app.figures.recipes import draw_recipes
from awqscope.app.figures.tokens import draw_token
from awqscope.app.notebook.run import Run, find_run
from awqscope.app.recipe_points import (
    cut_frontier,
    frontier_points,
    raced_points,
)
from awqscope.app.words.compared.comparison import NO_RECIPE, NO_UNITS, label_models
from awqscope.app.words.compared.two_models import block_differences, is_judged
from awqscope.app.words.noise import find_floor
from awqscope.app.words.run import METRICS, measured_points, worst_units
from awqscope.app.words.sites import OUTPUT, choose_site, order_kinds
from awqscope.diagnose.gate.findings import Missing
from awqscope.diagnose.gate.paired import Side, choose_side, read_pair
from awqscope.diagnose.gate.shares import Cost, read_block_costs
from awqscope.diagnose.runs.record import MIXED, UNIFORM, Record
from awqscope.mixedprec.errors import InputError

SCALES = ("linear", "log")

Row = Mapping[str, Any]


def choose(what: str, value: Any, among: Sequence[Any]) -> None:
    """Raise InputError for a value that is none of some."""
    if value not in among:
        is_range = isinstance(among, range) and len(among) > 2
        listed = f"{among[0]} to {among[-1]}" if is_range else ", ".join(map(str, among))
        raise InputError(
            f"there is no {what} {value!r} here",
            f"give one of {listed}" if among else "there is none",
        )


def _rows(run: Run, table: str) -> list[Row]:
    return run.directory.read_table(table).to_pylist()


def _searched(run: Run, why: str) -> Record:
    record = run.record
    if not isinstance(record, Record):
        raise InputError(f"{run.path} is a comparison ({why.rstrip('.')})", "give a run")
    return record


def draw_blocks(run: Run, metric: str = "kl", scale: str = "linear") -> go.Figure:
    """What each block costs: alone, up to here, and if restored."""
    choose("metric", metric, tuple(METRICS))
    choose("scale", scale, SCALES)
    return draw_profile(_rows(run, "blocks"), metric, scale, find_floor(run.record))


def draw_all_units(run: Run) -> go.Figure:
    """KL of each unit at the low width, blocks by kinds."""
    record, rows = _searched(run, NO_UNITS), _rows(run, "units")
    here = worst_units(rows, record.spec)
    return draw_units(here, order_kinds(record, [row["kind"] for row in here]))


def draw_outputs(run: Run, block: int) -> go.Figure:
    """SQNR of each block's output, one block marked."""
    choose("block", block, range(run.record.source.blocks))
    outputs = [
        row
        for row in _rows(run, "activations")
        if row["site"] == OUTPUT and row["model"] == UNIFORM
    ]
    return draw_depth(outputs, block)


def _find_site(run: Run, block: int, site: str | None) -> tuple[str, list[Row]]:
    """The site of a block that is looked at, by default where its page looks first, and the rows of
    activations there."""
    record = run.record
    choose("block", block, range(record.source.blocks))
    here = [row for row in _rows(run, "activations") if row["block"] == block]
    sites = order_kinds(record, [row["site"] for row in here])
    worst: Sequence[Row] = ()
    if isinstance(record, Record) and "units" in run.tables:
        rows = [row for row in _rows(run, "units") if row["block"] == block]
        worst = worst_units(rows, record.spec)
    chosen = site or choose_site(sites, worst, here)
    choose("site", chosen, sites)
    return chosen, [row for row in here if row["site"] == chosen]


def _arrays(run: Run, kind: str, block: int, site: str, rows: Sequence[Row]) -> dict[str, Any]:
    found = {
        row["model"]: run.store.array(run.name, f"{kind}.{block}.{site}.{row['model']}")
        for row in rows
    }
    kept = {model: array for model, array in found.items() if array is not None}
    if not kept:
        remedy = "copy the whole run, or run it again elsewhere"
        raise InputError(f"{run.path} has no activations.safetensors of block {block}", remedy)
    return kept


def draw_histogram(run: Run, block: int, site: str | None = None) -> go.Figure:
    """How the values at a site of a block are spread."""
    site, rows = _find_site(run, block, site)
    counts = _arrays(run, "histogram", block, site, rows)
    labels = {model: label_models(run.record)[model] for model in ("reference", UNIFORM)}
    edges = run.store.array(run.name, "histogram_edges")
    # They are in the file that the counts are in.
    assert edges is not None
    return draw_histograms(edges, counts, labels)


def draw_outliers(run: Run, block: int, site: str | None = None) -> go.Figure:
    """The largest activation of each channel at a site of a block."""
    site, rows = _find_site(run, block, site)
    largest = _arrays(run, "channel_max", block, site, rows)
    reference = next(row for row in rows if row["model"] == "reference")
    return draw_channels(largest, reference["channel_median"], reference["outlier_channels"])


def draw_one_token(run: Run, window: int | None = None, position: int | None = None) -> go.Figure:
    """What each block does to one token, by default the worst of the worst window."""
    columns = ["kl_uniform", "block_kl", "restored_kl"]
    if window is None:
        index = run.store.token_index(run.name)
        if index is None or not index.windows:
            raise InputError(f"{run.path} has no tokens yet", run.directory.how_to_finish())
        window = index.windows[0]["window"]
    found = run.read_tokens(columns, [window]).reset_index()
    if position is None:
        position = int(found["position"][found["kl_uniform"].idxmax()])
    choose("position", position, range(len(found)))
    row = found.iloc[position]
    if row["block_kl"] is None:
        raise InputError(
            f"{run.path} keeps no blame by block of window {window}",
            "give none for the worst token, or one of those windows that have block_kl",
        )
    restored = None if row["restored_kl"] is None else row["restored_kl"].tolist()
    return draw_token(row["block_kl"].tolist(), restored, float(row["kl_uniform"]))


def draw_all_recipes(run: Run) -> go.Figure:
    """Recipes by size and KL: the frontier, what was tried, and the run's own."""
    record = _searched(run, NO_RECIPE)
    promotions = _rows(run, "promotions") if "promotions" in run.tables else []
    points = [
        *frontier_points(run.store, run.name),
        *measured_points(record, promotions),
        *raced_points(run.store.races(run.name)),
    ]
    return draw_recipes(cut_frontier(points))


def draw_beside(
    run: Run,
    other: Run | Path | str,
    metric: str = "kl",
    model: str = "",
    other_model: str = "",
) -> go.Figure:
    """What each block costs in another run less what it costs in this one."""
    choose("metric", metric, tuple(METRICS))
    beside = find_run(other)
    sides = [
        choose_side(each.directory, each.record, wanted)
        for each, wanted in ((run, model), (beside, other_model))
    ]
    costs = [_read_costs(side, metric) for side in sides]
    judged = is_judged(read_pair(*sides))
    return draw_differences(block_differences(*costs), metric, judged=judged)


def _read_costs(side: Side, metric: str) -> Mapping[int, Cost]:
    path = side.run.path
    if metric != "kl" and side.model == MIXED:
        raise InputError(
            f"ΔPPL by block is not measured of the mixed model of {path}",
            "give model='uniform' and other_model='uniform', or metric='kl'",
        )
    if metric == "kl":
        found = read_block_costs(side.run, side.record, side.stored)
        if isinstance(found, Missing):
            raise InputError(f"{path}: {found.reason}", side.run.how_to_finish())
        return found
    return {
        row["block"]: (row[metric], row[f"{metric}_low"], row[f"{metric}_high"])
        for row in side.run.read_table("blocks").to_pylist()
        if row["view"] == "isolated"
    }
