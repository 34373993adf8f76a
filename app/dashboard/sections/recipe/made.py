"""What was requantized from the recipe page: how far it is, and measured beside predicted."""

from collections.abc import Sequence
from typing import Any

from dash import html

from awqscope.app.dashboard.jobs.processes import find_reason
from awqscope.app.dashboard.jobs.runs import Jobs, Requantization
from awqscope.app.dashboard.parts import notice, table
from awqscope.app.dashboard.sections.failed import failed_buttons
from awqscope.app.store import RunSummary, Store
from awqscope.app.words.predict import Prediction, predict, unit_table
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.dtypes import write_type
from awqscope.mixedprec.recipes.recipe import load_recipe
from awqscope.mixedprec.words import NOTHING, write_bounded, write_number, write_share, write_size

# A requantization, and what it should come to.
Made = tuple[Requantization, Prediction | None]


def made_recipes(store: Store, jobs: Jobs, run: RunSummary) -> list[Made]:
    """What was requantized from this page, newest first, each with what it should come to (None
    where that cannot be told any more)."""
    units = unit_table(store.table(run.name, "units"), store.table(run.name, "groups"))
    found: list[Made] = []
    for job in jobs.requantizations(run.name):
        try:
            recipe = load_recipe(store.find(run.name).path / "recipes" / f"{job.name}.json")
            found.append((job, predict(store.find(run.name).read_searched(), units, recipe.widths)))
        except (InputError, KeyError):
            found.append((job, None))
    return found


def is_making(made: Sequence[Made]) -> bool:
    """Whether any of them is still under way."""
    return any(job.state == "running" for job, _ in made)


def results(made: Sequence[Made]) -> Any:
    """How far each requantization is, and in the end measured beside predicted."""
    return [result_card(job, predicted) for job, predicted in made]


def result_card(job: Requantization, predicted: Prediction | None) -> Any:
    """One requantization."""
    if job.state == "running":
        last = job.log.strip().splitlines()[-1:] or ["starting"]
        return notice(f"◐ {job.name} is being made", html.P(last[0]))
    if job.state == "failed" or job.result is None:
        why = find_reason(job.log)
        log = html.Details([html.Summary("Log"), html.Pre(job.log, tabIndex=0)], open=not why)
        return notice(
            f"✕ {job.name} was not made",
            html.P(why) if why else None,
            failed_buttons("recipe-failed", job.name),
            log,
            tone="bad",
        )
    measured = job.result.get("proof") or {}
    lines = [
        (
            "Weights on disk",
            write_size(job.result["bytes"]),
            predicted and write_size(predicted.bytes),
        ),
    ]
    if measured:
        lines += [
            (
                "KL",
                write_bounded(measured["kl"], measured["kl_interval"], ".4f"),
                predicted and write_number(predicted.kl, ".4f"),
            ),
            (
                "Perplexity",
                write_number(measured["ppl"], ".3f"),
                predicted and write_number(predicted.ppl, ".3f"),
            ),
            (
                "Recovered",
                write_share(measured["recovered"]),
                predicted and write_share(predicted.recovered),
            ),
        ]
    reasons = "; and ".join(measured.get("reasons") or ())
    failed = f"THE PROOF FAILED: {reasons}." if reasons else "THE PROOF FAILED."
    of_type = write_type((job.result.get("serving") or {}).get("type"))
    said = (
        ("The proof passed." + f" {of_type}." * bool(of_type)) if measured.get("passed") else failed
    )
    return notice(
        f"● {job.name} is made",
        table(
            {"what": "", "predicted": "Predicted", "measured": "Measured"},
            [
                {"what": what, "measured": value, "predicted": expected or NOTHING}
                for what, value, expected in lines
            ],
        ),
        html.P([said, " ", html.Code(job.result["checkpoint"])], className="summary"),
        tone="" if measured.get("passed") else "bad",
    )


def made_points(made: Sequence[Made]) -> list[dict[str, Any]]:
    """What was requantized from this page, as measured."""
    return [
        {
            "name": job.name,
            "bytes": job.result["bytes"],
            "kl": job.result["proof"]["kl"],
            "kind": "measured",
        }
        for job, _ in made
        if job.result is not None and job.result.get("proof")
    ]
