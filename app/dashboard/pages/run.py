"""One run: its verdict, its numbers with intervals, and where along the depth the damage is."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import html

from awqscope.app.dashboard.components import Link
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.jobs.starts import ENDED, STARTING, find_pending
from awqscope.app.dashboard.parts import (
    as_table,
    card,
    chart,
    command,
    go_to,
    heading,
    mark,
    notice,
    switch,
    tile,
    tiles,
)
from awqscope.app.dashboard.sections.below import (
    offers_part,
    places_card,
    provenance_card,
    widths_card,
)
from awqscope.app.dashboard.sections.by_text import find_numbers, text_cards
from awqscope.app.dashboard.sections.gate.card import gate_part
from awqscope.app.dashboard.sections.gate.head import ship_head
from awqscope.app.dashboard.sections.listed.rows import write_progress
from awqscope.app.dashboard.sections.notes import notes_card, notes_line
from awqscope.app.dashboard.sections.starting import log_details, pending_parts, stop_button
from awqscope.app.dashboard.sections.studies.cards import study_cards
from awqscope.app.dashboard.urls import Page, link
from awqscope.app.figures.blocks import draw_profile, draw_units
from awqscope.app.store import Progress, RunSummary, Store
from awqscope.app.words.compared.comparison import write_note
from awqscope.app.words.noise import find_floor
from awqscope.app.words.predict import find_bits
from awqscope.app.words.run import (
    METRICS,
    headline_tiles,
    profile_rows,
    profile_summary,
    promoted_units,
    unit_rows,
    units_summary,
    worst_blocks,
    worst_units,
)
from awqscope.app.words.sites import order_kinds
from awqscope.app.words.texts import ratio_tiles
from awqscope.app.words.verdict import write_changed, write_subject, write_verdict
from awqscope.diagnose.entries.stages import Fault
from awqscope.diagnose.runs.directory import STAGES
from awqscope.diagnose.runs.record import Comparison, Record
from awqscope.mixedprec.words import write_duration

SCALES = {"linear": "linear", "log": "log"}
TABS = (("run", "Overview"), ("tokens", "Tokens"), ("recipe", "Recipe"), ("explain", "Explain"))
# A comparison has no searches, to choose widths from or to explain a prompt by.
OF_SEARCHES = ("recipe", "explain")


def run_heading(
    run: RunSummary, current: str, title: str | None = None, ship: Any = None
) -> html.Div:
    """The head of every page of a run: its name, state, and the ways to its other pages. ship:
    whether it may ship, said beside the title."""
    compared = isinstance(run.record, Comparison)
    note = write_note(run.record) if isinstance(run.record, Comparison) else None
    return html.Div(
        [
            heading(
                title or run.name,
                over=[go_to("Runs", link("runs")), " / ", go_to(run.name, link("run", run.name))],
                under=write_subject(run.record) if ship is not None and run.record else None,
                beside=mark(run.state) if ship is None else [ship, mark(run.state)],
            ),
            html.P(note, className="hint") if note else None,
            html.Nav(
                [
                    Link(text, link(name, run.name), "way", is_here=name == current)
                    for name, text in TABS
                    if not (compared and name in OF_SEARCHES)
                ],
                className="ways",
                **{"aria-label": "Pages of this run"},
            ),
        ]
    )


def block_chart(name: str, figure: go.Figure, label: str) -> Any:
    """A chart with a block a column: a click opens that block's page."""
    return chart(figure, label, id={"type": "to-block", "chart": name})


def profile_card(
    rows: Sequence[Mapping[str, Any]],
    run: str,
    metric: str,
    scale: str,
    floor: float | None = None,
) -> Any:
    """The profile with its summary and table. floor: the KL below which damage is noise, where that
    was measured."""
    figure = draw_profile(rows, metric, scale, floor)
    return card(
        "Where the damage is",
        block_chart("profile", figure, "Damage by block, see the table"),
        as_table(
            {
                "block": "Block",
                "verdict": "Verdict",
                "value": f"{METRICS[metric]} alone",
                "interval": "95%",
                "cumulative": "Up to here",
                "restored": "If restored",
            },
            [
                row | {"block": go_to(f"Block {row['block']}", link("block", run, row["block"]))}
                for row in profile_rows(rows, metric, floor)
            ],
        ),
        summary=profile_summary(worst_blocks(rows, metric), metric, floor),
        beside=html.Div(
            [
                switch("metric", "Measure", METRICS, metric),
                switch("scale", "Scale", SCALES, scale),
            ],
            className="switches",
        ),
    )


def unit_link(run: str, unit: str) -> Link:
    """The way to a unit's block, at what flows into the unit."""
    block, _, kind = unit.partition(".")
    return go_to(unit, link("block", run, int(block), site=kind))


def units_card(rows: Sequence[Mapping[str, Any]], record: Record, run: str) -> Any:
    """The heat map of units with its summary and table."""
    bits = record.spec.bits
    here = worst_units(rows, record.spec)
    kinds = order_kinds(record, [row["kind"] for row in here])
    return card(
        "Which units",
        block_chart("units", draw_units(here, kinds), "KL by block and unit, see the table"),
        as_table(
            {"unit": "Unit", "kl": f"KL at {bits} bits", "known": "How known", "bytes": "Weights"},
            [row | {"unit": unit_link(run, row["unit"])} for row in unit_rows(here)],
        ),
        summary=units_summary(here, record),
    )


def progress_panel(run: RunSummary, progress: Progress | None) -> html.Div:
    """The stages of a run that is not done, and how far the present one is."""
    assert run.record is not None
    items = []
    for stage in STAGES:
        found = run.record.stages.get(stage)
        state, took = (found.state, found.seconds) if found is not None else ("", None)
        sign = {"done": "●", "skipped": "○", "running": "◐"}.get(state, "·")
        note = write_duration(took) if took is not None else state
        items.append(html.Li([f"{sign} {stage}", html.Span(note, className="note")]))
    bar = None
    if progress and run.state == "running":
        bar = html.Progress(
            value=str(progress.done), max=str(progress.total), **{"aria-label": "Progress"}
        )
    said = write_progress(progress) if run.state == "running" else "nobody works on it"
    return html.Div(
        [html.Ol(items, className="stages"), bar, html.P(said, className="summary")],
        className="progress",
        **{"aria-live": "polite"},
    )


def trouble(run: RunSummary, resume: Any = None) -> Any:
    """What stopped a run, and the remedy; nothing for one that goes well."""
    if run.state == "damaged":
        return notice("This run cannot be shown", html.P(run.error), html.P(run.remedy), tone="bad")
    assert run.record is not None
    if run.state == "failed":
        error = run.record.error or Fault(message="Its record does not say why.")
        remedy = [html.P(["Remedy: ", error.remedy])] if error.remedy else []
        return notice("This run stopped", html.P(error.message), *remedy, resume, tone="bad")
    if run.state == "stopped":
        return notice(
            "Nobody works on this run",
            html.P("It was stopped before its end; it goes on where it was."),
            resume,
        )
    return None


def resume_button(run: RunSummary, jobs: Jobs | None) -> Any:
    """Takes a stopped run up again; nothing where the dashboard may not start anything."""
    if jobs is None or run.state not in ("stopped", "failed"):
        return None
    return dmc.Button("Go on with it", id={"type": "resume", "name": run.name}, size="sm")


def cancel_button(run: RunSummary, jobs: Jobs | None) -> Any:
    """Stops a run that somebody works on."""
    return stop_button(run.name, jobs) if run.state == "running" else None


def stress(text: str, part: str) -> list[Any]:
    """A text with the part of it that says most to those who do not know the numbers."""
    before, found, after = text.partition(part)
    return [before, html.Strong(found), after]


def layout(store: Store, page: Page, jobs: Jobs | None) -> Any:
    """The overview of a run."""
    run = store.summary(page.run)
    pending = find_pending(store.root, run.name)
    if run.record is not None and pending is not None and pending.state != ENDED:
        run = replace(run, state=STARTING)
    if run.record is None:
        return [heading(run.name, over=go_to("Runs", link("runs"))), trouble(run)]
    parts: list[Any] = [run_heading(run, "run", ship=ship_head(store, run)), notes_line(run)]
    parts.append(trouble(run, resume_button(run, jobs)))
    if jobs is not None and run.state != "done":
        parts.append(html.P(id="job-said", className="said", role="status"))
    if pending is not None:
        stop = stop_button(run.name, jobs) if pending.state == STARTING else None
        parts += [stop, *pending_parts(pending, jobs, is_new=False)]
    elif run.state != "done":
        panel = progress_panel(run, store.progress(run.name))
        log = log_details(jobs.log_tail(run.name)) if jobs is not None else None
        stop = cancel_button(run, jobs)
        parts.append(card("Progress", html.Div(panel, id="progress-panel"), log, beside=stop))
    if run.record.headline is None:
        return [*parts, notes_card(run, jobs is not None)]
    if run.state == "done":
        verdict = write_verdict(run.record, promoted_units(store.recipe(run.name), run.record))
        parts.append(html.P(stress(verdict, write_changed(run.record)), className="verdict"))
    blocks, units = store.table(run.name, "blocks"), store.table(run.name, "units")
    bits = find_bits(store.grouped_scores(run.name), store.recipe(run.name))
    numbers = find_numbers(store, run.name)
    facts = [*headline_tiles(run.record, bits), *ratio_tiles(numbers, run.record)]
    parts.append(tiles(*(tile(*fact) for fact in facts)))
    if blocks:
        shown = (page.option("metric"), page.option("scale"), find_floor(run.record))
        parts.append(html.Div(profile_card(blocks, run.name, *shown), id="profile-card"))
    parts += text_cards(store, run, numbers)
    if isinstance(run.record, Comparison) and run.record.places:
        parts.append(places_card(run.record.places))
    if units and isinstance(run.record, Record):
        parts.append(units_card(units, run.record, run.name))
    elif units:
        parts.append(widths_card(units))
    parts += offers_part(store, run)
    if run.state == "done":
        parts.append(gate_part(store, run, jobs))
    parts.append(notes_card(run, jobs is not None))
    parts += study_cards(store, page, jobs)
    parts.append(provenance_card(run.record, store.recipe(run.name)))
    if run.state == "done":
        again = shlex.join(["awqscope", "show", str(store.find(run.name).path)])
        parts.append(html.P(["In the terminal: ", command(again)], className="hint"))
    if jobs is not None:
        like = go_to("New run like this one", link("new", like=run.name))
        parts.append(html.P(like, className="hint"))
    return parts
