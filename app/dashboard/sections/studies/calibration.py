"""The card on a run's calibration: what follows, the curve over windows, choices, and texts."""

import json
from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import html

from awqscope.app.dashboard.jobs.moved import ModelLocation
from awqscope.app.dashboard.jobs.studies import StudyState
from awqscope.app.dashboard.parts import as_table, chart, notice
from awqscope.app.dashboard.sections.studies.asking import study_card
from awqscope.app.dashboard.urls import Page
from awqscope.app.figures.studies.calibration import draw_agreement, draw_curve, draw_matrix
from awqscope.app.store import Store
from awqscope.app.words.studies.calibration import (
    CURVE_COLUMNS,
    PAIR_APART,
    PAIR_COLUMNS,
    SUMMARY,
    TITLE,
    curve_rows,
    list_texts,
    matrix_columns,
    matrix_rows,
    name_calibration,
    name_pair,
    name_texts,
    pair_rows,
    split_matrix,
    write_advice,
    write_how,
)
from awqscope.diagnose.studies.calibration.answer import CalibrationAdvice
from awqscope.diagnose.studies.calibration.asked import COUNTS


def calibration_card(
    state: StudyState, store: Store, page: Page, location: ModelLocation | None
) -> Any:
    """The study of a run's calibration on its page."""
    return study_card(
        state,
        TITLE,
        SUMMARY,
        draw_answer,
        button="Search and measure",
        fields=_list_fields(),
        location=location,
    )


def draw_answer(answer: Mapping[str, Any]) -> list[Any]:
    """What was found, in words, charts and tables."""
    try:
        advice = CalibrationAdvice.model_validate_json(json.dumps(answer))
    except ValueError:
        return [notice("This answer cannot be read", html.P("Measure it again."))]
    names = name_texts(advice)
    parts: list[Any] = [
        html.Ul([html.Li(sentence) for sentence in write_advice(advice)], className="claims"),
        html.P(write_how(advice), className="hint"),
        html.H3("More and fewer windows"),
        chart(draw_curve(advice.calibrations), "Damage over calibration windows, see the table"),
        as_table(CURVE_COLUMNS, curve_rows(advice)),
    ]
    if advice.pairs:
        called = {(pair.one, pair.other): name_pair(pair) for pair in advice.pairs}
        parts += [
            html.H3("How far choices agree"),
            chart(
                draw_agreement(advice.pairs, called),
                "Share of equal scale ratios by kind of unit, see the table",
            ),
            as_table(PAIR_COLUMNS, pair_rows(advice), PAIR_APART),
        ]
    texts = list_texts(advice)
    if len(texts) > 1 or len(advice.columns) > 1:
        rows = [(name_calibration(each, names), each) for each in texts]
        columns = [names[column.text] for column in advice.columns]
        parts += [
            html.H3("Calibration texts and validation texts"),
            chart(
                draw_matrix(rows, columns), "KL by calibration and validation text, see the table"
            ),
            as_table(matrix_columns(advice), matrix_rows(advice), split_matrix(advice)),
        ]
    return parts


def _list_fields() -> list[Any]:
    """What can be asked."""
    lines = {"autosize": True, "minRows": 1, "spellCheck": False}
    fields = [
        dmc.TextInput(
            name="counts",
            label="Calibration windows",
            description="Counts to search, with commas between; fewer take less time.",
            value=",".join(map(str, COUNTS)),
        ),
        dmc.Textarea(
            name="calib_also",
            label="Other calibration texts",
            description="One a line: a file on this machine, or a data set as a run takes it.",
            **lines,
        ),
        dmc.Textarea(
            name="valid_also",
            label="Other texts to measure on",
            description="One a line. A domain is told from a text of it in both fields.",
            **lines,
        ),
    ]
    return [dmc.Stack(fields, gap="sm")]
