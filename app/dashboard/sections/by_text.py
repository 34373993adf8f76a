"""A run's numbers by text: which text is hurt most, and which text a flagged block hurts."""

from typing import Any

from dash import html

from awqscope.app.dashboard.parts import card, table
from awqscope.app.store import RunSummary, Store
from awqscope.app.words.texts import (
    ABOUT_TEXTS,
    BLOCK_COLUMNS,
    TEXT_COLUMNS,
    block_text_rows,
    text_rows,
    write_block_texts,
    write_worst_text,
)
from awqscope.diagnose.gate.texts import RunNumbers
from awqscope.mixedprec.errors import InputError


def find_numbers(store: Store, name: str) -> RunNumbers | None:
    """The numbers of a run by text; None where its tokens cannot be read, which the gate's card
    says."""
    try:
        return store.numbers(name)
    except InputError:
        return None


def text_cards(store: Store, run: RunSummary, numbers: RunNumbers | None) -> list[Any]:
    """Every number by text and model, and the flagged blocks by text; nothing of a single text."""
    if run.record is None or numbers is None or len(numbers.texts) < 2:
        return []
    blocks = store.block_texts(run.name)
    rows = [
        {key: _cell(*cell) for key, cell in row.items()} for row in text_rows(numbers, run.record)
    ]
    parts: list[Any] = [
        table(TEXT_COLUMNS, rows, "Every number by text and model", per_page=len(rows)),
        html.P(ABOUT_TEXTS, className="hint"),
    ]
    if blocks is not None and blocks.blocks:
        parts += [
            html.P(write_block_texts(blocks), className="summary"),
            table(BLOCK_COLUMNS, block_text_rows(blocks), "Flagged blocks by text"),
        ]
    return [card("By text", *parts, summary=write_worst_text(numbers, run.record))]


def _cell(value: str, interval: str) -> Any:
    return [value, html.Span(interval, className="note")] if interval else value
