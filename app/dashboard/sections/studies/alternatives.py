"""The card of a run's alternatives."""

from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import html

from awqscope.app.dashboard.jobs.moved import ModelLocation
from awqscope.app.dashboard.jobs.studies import StudyState
from awqscope.app.dashboard.parts import chart, notice, table
from awqscope.app.dashboard.sections.studies.asking import study_card
from awqscope.app.dashboard.urls import Page
from awqscope.app.figures.studies.alternatives import draw_alternatives
from awqscope.app.store import Store
from awqscope.app.words.studies.alternatives import (
    COLUMNS,
    SUMMARY,
    TITLE,
    alternative_rows,
    block_columns,
    block_rows,
    list_notes,
    write_finding,
    write_how,
)
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.alternatives.answer import Alternatives
from awqscope.diagnose.studies.alternatives.asked import keep_current


def alternatives_card(
    state: StudyState, store: Store, page: Page, location: ModelLocation | None
) -> Any:
    """The alternatives of a run, and what starts measuring them."""
    return study_card(
        state,
        TITLE,
        SUMMARY,
        lambda answer: draw_answer(answer, store.find(page.run)),
        button="Measure the alternatives",
        fields=list_inputs(page.run),
        location=location,
    )


def list_inputs(run: str) -> list[Any]:
    """The fields of the form. run: under whose name what was typed is kept."""
    kept = {"persistence": run, "persistence_type": "session"}
    return [
        dmc.Textarea(
            name="add",
            id="alternatives-add",
            label="Checkpoints of other tools",
            description="NAME=CHECKPOINT, one a line: a directory, a GGUF file, or an id on the "
            "hub, made from this model.",
            autosize=True,
            minRows=2,
            spellCheck=False,
            **kept,
        ),
        dmc.Switch(
            id={"type": "alternatives-flag", "field": "by_block"},
            label="Each block alone, too",
            description="Takes many times as long.",
            checked=False,
            **kept,
        ),
    ]


def draw_answer(answer: Mapping[str, Any], run: RunDirectory) -> list[Any]:
    """What was found, and holds of the run today: in sentences, as a chart and as a table."""
    try:
        found = keep_current(Alternatives.model_validate(answer), run)
    except ValueError:
        return [notice("This answer cannot be shown", html.P("Measure it again."), tone="bad")]
    notes = list_notes(found)
    columns = block_columns(found)
    alone = [
        table(
            columns,
            block_rows(found),
            folded=f"KL of each block alone, on {found.block_windows:,} windows",
        )
    ]
    return [
        html.P(" ".join(write_finding(found)), className="summary"),
        chart(draw_alternatives(found), "KL by bits a weight, see the table"),
        table(COLUMNS, alternative_rows(found), "The least KL first"),
        *(alone if columns else ()),
        html.Ul([html.Li(note) for note in notes], className="hint") if notes else None,
        html.P(write_how(found), className="hint"),
    ]
