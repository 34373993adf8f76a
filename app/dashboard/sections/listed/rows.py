"""The lines of the list of runs: what each says, whether it may change, what can be done to it."""

import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from awqscope.app.dashboard.jobs.processes import find_reason
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.jobs.starts import ENDED, STARTING, STOPPING, Pending, list_pending
from awqscope.app.dashboard.sections.gate.head import TONES
from awqscope.app.dashboard.urls import link
from awqscope.app.store import Progress, RunSummary, Store, UnknownRunError
from awqscope.app.words.compared.comparison import name_candidate, name_widths
from awqscope.app.words.numbers import tell_apart
from awqscope.app.words.verdict import write_brief
from awqscope.diagnose.runs.record import AnyRecord, Comparison
from awqscope.mixedprec.words import write_duration, write_share

# In the list, a start whose process ended before the run had a record.
UNBEGUN = "did not begin"
PENDING = "Not judged yet"
LIVELY = ("running", STARTING, STOPPING)
# What the list can be asked to do with a run.
CANCEL, DISMISS = "cancel", "dismiss"


def list_row(run: RunSummary, progress: Progress | None) -> dict[str, Any]:
    """One line of the grid."""
    row: dict[str, Any] = {"name": run.name, "state": run.state, "href": link("run", run.name)}
    notes = run.notes
    row |= {"called": notes.name, "tags": list(notes.tags), "archived": notes.archived}
    # What the list is searched by.
    row["said"] = " ".join([notes.name, *notes.tags])
    if run.record is None:
        return row | {"verdict": run.error}
    record = run.record
    row |= {
        "model": record.model,
        "candidate": name_candidate(record) if isinstance(record, Comparison) else "",
        "created": record.created[:16].replace("T", " "),
        "verdict": (
            write_progress(progress) if run.state == "running" else write_brief(run.state, record)
        ),
        "widths": brief_widths(record),
    }
    return row | _list_numbers(record)


def _list_numbers(record: AnyRecord) -> dict[str, float | None]:
    """The headline numbers of a line; of a comparison its candidate's are where a run has its
    quantized model's."""
    headline = record.headline
    if headline is None:
        return dict.fromkeys(("reference", "quantized", "mixed", "kl", "kl_mixed", "size"))
    ppl, kl, size = headline.ppl, headline.kl, headline.bytes
    return {
        "reference": ppl.reference,
        "quantized": ppl.quantized,
        "mixed": ppl.mixed,
        "kl": kl.quantized,
        "kl_mixed": kl.mixed,
        "size": size.mixed or size.quantized or None,
    }


def pending_row(pending: Pending) -> dict[str, Any]:
    """The line of a run that has no record yet."""
    spec = pending.start.spec
    said = find_reason(pending.log) or "its log says why"
    doing = "being stopped" if pending.state == STOPPING else "opening the model and the texts"
    return {
        "name": pending.name,
        "state": UNBEGUN if pending.state == ENDED else pending.state,
        "href": link("run", pending.name),
        "model": str(spec.get("model") or spec.get("reference") or ""),
        "created": f"{datetime.fromtimestamp(pending.start.began / 1e9, UTC):%Y-%m-%d %H:%M}",
        "verdict": said if pending.state == ENDED else doing,
    }


def brief_widths(record: AnyRecord) -> str:
    """The widths of a run's units and the size of its groups, in a few words."""
    if isinstance(record, Comparison):
        return name_widths(record.candidate.bits)
    spec = record.spec
    group = spec.low.write_groups()
    return f"{spec.bits} and {spec.rescue_bits}, {group}"


def write_progress(progress: Progress | None) -> str:
    """Stage, share and time left."""
    if progress is None:
        return "starting"
    left = "" if progress.eta is None else f", {write_duration(progress.eta)} left"
    return f"{progress.stage} {write_share(progress.done / progress.total, '.0%')}{left}"


def list_rows(store: Store, jobs: Jobs | None = None) -> list[dict[str, Any]]:
    """The grid's lines, now; with what can be done to each where `jobs` may do it."""
    if jobs is not None:
        jobs.tidy()
    # Looked at first: a run that begins in between has its record then.
    pending = {found.name: found for found in list_pending(store.root)}
    rows = [safe_row(store, run) for run in store.list_runs()]
    for row in rows:
        found = pending.pop(row["name"], None)
        if found is not None and found.state != ENDED:
            row |= {key: pending_row(found)[key] for key in ("state", "verdict")}
    rows = [*(pending_row(found) for found in pending.values()), *rows]
    ends = tell_apart(sorted({row["model"] for row in rows if row.get("model")}))
    add_ships(store, rows)
    for row in rows:
        row["model_end"] = row.get("candidate") or ends.get(row.get("model", ""), "")
        row["acts"] = [] if jobs is None else list_acts(row["state"])
    return rows


def list_acts(state: str) -> list[str]:
    """What can be done to a run in the list."""
    if state in ("running", STARTING):
        return [CANCEL]
    return [DISMISS] if state == UNBEGUN else []


def may_change(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any of these lines may change by itself."""
    return any(row["state"] in LIVELY or row.get("ship") == PENDING for row in rows)


def add_ships(store: Store, rows: Sequence[dict[str, Any]]) -> None:
    """Add to each line whether its run may ship, as far as that is known; what is not is found in
    the background, and the list does not wait for it."""
    unknown = []
    for row in rows:
        if row["state"] != "done":
            continue
        try:
            judged = store.verdicts.look(row["name"])
        except UnknownRunError:
            continue
        if judged is None:
            unknown.append(row["name"])
            row |= {"ship": PENDING, "answer": f"○ {PENDING}", "why": "", "tone": "quiet"}
            continue
        said = judged.ship
        row |= {"ship": said.sentence, "answer": f"{said.sign} {said.answer}", "why": said.why}
        row["tone"] = TONES.get(said.outcome, "quiet")
    store.verdicts.ask(unknown)


def safe_row(store: Store, run: RunSummary) -> dict[str, Any]:
    """One line of the grid, also of a run whose record holds what no run writes."""
    try:
        return list_row(run, store.progress(run.name) if run.state == "running" else None)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        said = f"its record cannot be read ({error})"
        return list_row(RunSummary(run.name, "damaged", None, said), None)


def stamp_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """What tells these lines from others, whoever may act on them; empty where there are none."""
    shown = [{key: value for key, value in row.items() if key != "acts"} for row in rows]
    return f"{zlib.crc32(repr(shown).encode(errors='replace')):08x}" if rows else ""
