"""The card of the tasks that a run's models were given."""

from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import html

from awqscope.app.dashboard.jobs.moved import ModelLocation
from awqscope.app.dashboard.jobs.studies import StudyState
from awqscope.app.dashboard.parts import chart, notice, table
from awqscope.app.dashboard.sections.studies.asking import study_card
from awqscope.app.dashboard.urls import Page
from awqscope.app.figures.studies.tasks import draw_tasks
from awqscope.app.store import Store
from awqscope.app.words.studies.tasks import (
    COLUMNS,
    SUMMARY,
    TITLE,
    list_notes,
    task_rows,
    write_finding,
    write_how,
)
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.tasks.answer import Tasks, list_stale
from awqscope.diagnose.studies.tasks.pairing import weigh_tasks


def tasks_card(state: StudyState, store: Store, page: Page, location: ModelLocation | None) -> Any:
    """The tasks of a run, and what starts more."""
    return study_card(
        state,
        TITLE,
        SUMMARY,
        lambda answer: draw_answer(answer, store.find(page.run)),
        button="Run the tasks",
        fields=list_inputs(page.run),
        location=location,
    )


def list_inputs(run: str) -> list[Any]:
    """The fields of the form. run: under whose name what was typed is kept."""
    kept = {"persistence": run, "persistence_type": "session"}
    return [
        dmc.Textarea(
            name="tasks",
            id="tasks-names",
            label="Tasks of lm-eval",
            description="Names of tasks or groups, one a line. Their documents come from the hub, "
            "unless the folder below has them.",
            autosize=True,
            minRows=2,
            spellCheck=False,
            **kept,
        ),
        dmc.Textarea(
            name="include_path",
            id="tasks-include",
            label="Folder with further task files",
            description="Python in them is run.",
            autosize=True,
            minRows=1,
            spellCheck=False,
            **kept,
        ),
        dmc.TextInput(
            name="limit",
            id="tasks-limit",
            label="Documents of each task",
            description="All of them where this is empty.",
            **kept,
        ),
    ]


def draw_answer(answer: Mapping[str, Any], run: RunDirectory) -> list[Any]:
    """What was found: in sentences, as a chart and as a table."""
    try:
        found = Tasks.model_validate(answer)
    except ValueError:
        return [notice("This answer cannot be shown", html.P("Run the tasks again."), tone="bad")]
    weighed, failed = weigh_tasks(found)
    notes = list_notes(found, failed, list_stale(found, run))
    drawn: list[Any] = []
    if weighed:
        drawn += [
            html.P(" ".join(write_finding(weighed)), className="summary"),
            chart(draw_tasks(weighed), "What each task lost or gained, see the table"),
            table(COLUMNS, task_rows(weighed), "By model and task"),
        ]
    if notes:
        drawn.append(html.Ul([html.Li(note) for note in notes], className="hint"))
    return [*drawn, html.P(write_how(found), className="hint")]
