"""What is asked of a run's text, and the windows and tokens that answer it."""

from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import html

from awqscope.app.dashboard.components import Link
from awqscope.app.dashboard.parts import card, go_to, switch, table
from awqscope.app.dashboard.urls import Page, link
from awqscope.app.store import RunSummary
from awqscope.app.token_index import WHICH, TokenIndex, TokenQuestion
from awqscope.app.words.compared.comparison import name_model
from awqscope.app.words.numbers import show_token
from awqscope.app.words.texts import name_texts
from awqscope.diagnose.runs.record import AnyRecord, Comparison
from awqscope.mixedprec.words import write_count, write_number, write_share

MEASURES = {"kl": "KL", "delta_nll": "ΔNLL"}
PER_PAGE = 15
# Which tokens to look at -> its words in the list of choices, and for what was found.
CHOICES = {
    "all": "All",
    "changed": "Top token changed",
    "repaired": "Top token given back by mixed",
    "still": "Top token changed in mixed too",
    "broken": "Top token changed in mixed alone",
    "worse": "KL larger in mixed than in uniform",
}

Row = Mapping[str, Any]


def read_question(page: Page, has_mixed: bool) -> TokenQuestion:
    """What an address asks. Without a mixed model, nothing is asked of it."""
    which, above = page.option("which"), page.option("above")
    return TokenQuestion(
        model=page.option("model") if has_mixed else "uniform",
        measure=page.option("colour"),
        which=which if has_mixed or which in WHICH[:2] else WHICH[0],
        text=page.option("text"),
        above=float(above) if above else None,
    )


def write_question(question: TokenQuestion) -> dict[str, Any]:
    """The options of an address that ask the same."""
    return {
        "model": question.model,
        "colour": question.measure,
        "which": question.which,
        "text": question.text,
        "above": None if question.above is None else f"{question.above:g}",
    }


def filters_card(record: AnyRecord, every: TokenIndex, question: TokenQuestion) -> Any:
    """Where it is chosen whose damage is shown, and which tokens are looked for."""
    models = {"uniform": "Candidate" if isinstance(record, Comparison) else "Uniform"}
    kinds = {kind: CHOICES[kind] for kind in WHICH[:2]}
    if every.has_mixed:
        models["mixed"] = "Mixed"
        kinds = CHOICES
    switches = [switch("colour", "Colour by", MEASURES, question.measure)]
    if len(models) > 1:
        switches.insert(0, switch("model", "Model", models, question.model))
    fields = [
        dmc.Select(
            id={"type": "option", "name": "which"},
            label="Tokens",
            data=[{"value": kind, "label": text} for kind, text in kinds.items()],
            value=question.which,
            allowDeselect=False,
        ),
        dmc.TextInput(
            id={"type": "option", "name": "text"},
            label="With the text",
            placeholder="any, over several tokens too",
            value=question.text,
            debounce=300,
            spellCheck=False,
            autoComplete="off",
        ),
        dmc.NumberInput(
            id={"type": "option", "name": "above"},
            label="Damage from",
            placeholder="any, in nats",
            value="" if question.above is None else question.above,
            min=0,
            step=0.1,
            debounce=300,
        ),
    ]
    return card(
        "What to look for",
        html.Div(fields, className="filters"),
        summary=write_counts(every),
        beside=html.Div(switches, className="switches"),
    )


def write_counts(every: TokenIndex) -> str:
    """In how many places the likeliest token changes, and what the mixed model makes of that."""
    counts = every.counts
    said = (
        f"Of {counts['scored']:,} tokens, the likeliest next one is another in "
        f"{counts['uniform']:,}"
    )
    if not every.has_mixed:
        return f"{said}."
    return (
        f"{said} with uniform and {counts['mixed']:,} with mixed: {counts['repaired']:,} are given "
        f"back, {counts['still']:,} still changed, {counts['broken']:,} changed by mixed alone. "
        f"In {counts['worse']:,} the KL of mixed is the larger one."
    )


def write_finds(index: TokenIndex, question: TokenQuestion, record: AnyRecord) -> str:
    """How much was found of what was asked for; nothing where everything was."""
    if not question.is_filter:
        return ""
    if not index.found:
        return "No token is like that."
    tokens = f"{index.found:,} token{'s' * (index.found > 1)}"
    windows = f"{len(index.windows):,} window{'s' * (len(index.windows) > 1)}"
    return f"{tokens} in {windows}, by the damage in {name_model(question.model, record)}."


def lists(index: TokenIndex, run: RunSummary, current: int, question: TokenQuestion) -> list[Any]:
    """The windows and the worst tokens, each a link that keeps asking the same."""
    assert run.record is not None
    asked = write_question(question)
    return [
        windows_card(index, run, current, question, asked),
        worst_card(index, run, question, asked),
    ]


def windows_card(
    index: TokenIndex,
    run: RunSummary,
    current: int,
    question: TokenQuestion,
    asked: Mapping[str, Any],
) -> Any:
    """All windows, or all with tokens that are asked for, the worst first."""
    assert run.record is not None
    texts = name_texts(run.record)
    columns = {"window": "Window"}
    if len(texts.names) > 1:
        columns["text"] = "Text"
    if question.is_filter:
        columns["found"] = "Found"
    columns |= {"kl": "Mean KL", "delta": "Mean ΔNLL", "changed": "Top token changed"}
    rows = [
        {
            "window": go_to(
                str(row["window"]), link("tokens", run.name, window=row["window"], **asked)
            ),
            "text": texts.of(row["window"]),
            "found": write_count(row["found"]),
            "kl": write_number(row["kl"], ".4f"),
            "delta": write_number(row["delta_nll"], "+.4f"),
            "changed": write_share(row["changed"]),
            "class": "chosen" if row["window"] == current else "",
        }
        for row in index.windows
    ]
    return card(
        "Windows",
        table(columns, rows, per_page=PER_PAGE),
        summary=f"{len(rows):,} windows, the largest mean {MEASURES[question.measure]} first."
        if rows
        else None,
    )


def worst_card(
    index: TokenIndex, run: RunSummary, question: TokenQuestion, asked: Mapping[str, Any]
) -> Any:
    """The worst tokens of what is asked for."""
    assert run.record is not None
    columns = {"text": "Token", "where": "Where", "kl_uniform": "KL", "delta": "ΔNLL"}
    if index.has_mixed:
        columns = {
            "text": "Token",
            "where": "Where",
            "kl_uniform": "KL, uniform",
            "kl_mixed": "KL, mixed",
            "delta": f"ΔNLL, {question.model}",
        }
    rows = [
        {
            "text": html.Code(show_token(row["text"])),
            "kl_uniform": write_number(row["kl_uniform"], ".4f"),
            "kl_mixed": write_number(row["kl_mixed"], ".4f"),
            "delta": write_number(row["delta_nll"], "+.4f"),
            "where": Link(
                f"window {row['window']}, token {row['position']}",
                link("tokens", run.name, window=row["window"], position=row["position"], **asked),
                look="place",
            ),
        }
        for row in index.tokens
    ]
    by = "KL of mixed less that of uniform" if question.which == "worse" else ""
    by = by or f"{MEASURES[question.measure]} in {name_model(question.model, run.record)}"
    shown = (
        f"The {len(rows)} worst of {index.found:,}" if index.found > len(rows) else "All of them"
    )
    return card(
        "Worst tokens",
        table(columns, rows, per_page=PER_PAGE),
        summary=f"{shown}, by {by}." if rows else None,
    )
