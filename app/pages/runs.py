"""Every run of the directory, to sort, filter, open, and compare two of."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import html

from app.jobs import Jobs
from app.parts import command, go_to, heading, notice
from app.store import Progress, RunSummary, Store
from app.urls import Page, link
from app.verdict import write_brief


def _number(form: str, width: int = 96) -> dict[str, Any]:
    written = f"params.value == null ? '–' : d3.format('{form}')(params.value)"
    return {"type": "rightAligned", "width": width, "valueFormatter": {"function": written}}


COLUMNS: list[dict[str, Any]] = [
    {"field": "name", "headerName": "Run", "cellRenderer": "RunLink", "minWidth": 130, "flex": 2},
    {"field": "model", "headerName": "Model", "minWidth": 130, "flex": 2},
    {"field": "state", "headerName": "State", "cellRenderer": "RunState", "width": 118},
    {"field": "verdict", "headerName": "Verdict", "minWidth": 215, "flex": 3},
    {
        "headerName": "Perplexity",
        "children": [
            {"field": "reference", "headerName": "16-bit", **_number(",.3f")},
            {"field": "uniform", "headerName": "uniform", **_number(",.3f")},
            {"field": "mixed", "headerName": "mixed", **_number(",.3f")},
        ],
    },
    {"field": "kl", "headerName": "KL, uniform", **_number(".4f", 118)},
    {"field": "flagged", "headerName": "Flagged", "width": 104},
    {"field": "size", "headerName": "MB", **_number(",.2f", 96)},
    {"field": "created", "headerName": "Begun (UTC)", "width": 152, "sort": "desc"},
]


def list_row(run: RunSummary, progress: Progress | None) -> dict[str, Any]:
    """One line of the grid."""
    row: dict[str, Any] = {"name": run.name, "state": run.state, "href": link("run", run.name)}
    if run.record is None:
        return row | {"verdict": run.error}
    headline = run.record["headline"]
    ppl, kl, size = (headline.get(name, {}) for name in ("ppl", "kl", "bytes"))
    flagged = headline.get("flagged", [])
    return row | {
        "model": run.record["model"],
        "created": run.record["created"][:16].replace("T", " "),
        "verdict": write_progress(progress) if run.state == "running" else brief_verdict(run),
        "reference": ppl.get("reference"),
        "uniform": ppl.get("uniform"),
        "mixed": ppl.get("mixed"),
        "kl": kl.get("uniform"),
        "flagged": ", ".join(map(str, flagged)) if flagged else ("none" if kl else ""),
        "size": (size.get("mixed") or size.get("uniform") or 0) / 1e6 or None,
    }


def brief_verdict(run: RunSummary) -> str:
    """A few words on what a run came to."""
    return write_brief(run.state, run.record or {})


def write_progress(progress: Progress | None) -> str:
    """Stage, share and time left."""
    if progress is None:
        return "starting"
    left = "" if progress.eta is None else f", {write_seconds(progress.eta)} left"
    return f"{progress.stage} {progress.done} of {progress.total}{left}"


def write_seconds(seconds: float) -> str:
    """A duration as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def list_rows(store: Store) -> list[dict[str, Any]]:
    """The grid's lines, now."""
    return [safe_row(store, run) for run in store.list_runs()]


def safe_row(store: Store, run: RunSummary) -> dict[str, Any]:
    """One line of the grid, also of a run whose record holds what no run writes."""
    try:
        return list_row(run, store.progress(run.name) if run.state == "running" else None)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        said = f"its record cannot be read ({error})"
        return list_row(RunSummary(run.name, "damaged", None, said), None)


def stamp_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """What tells these lines from others; empty where there are none."""
    return f"{zlib.crc32(repr(rows).encode(errors='replace')):08x}" if rows else ""


def compare_link(names: Sequence[str]) -> str:
    """Where the compare button leads: to nothing until two runs are chosen."""
    return link("compare", a=names[0], b=names[1]) if len(names) == 2 else ""


def layout(store: Store, page: Page, jobs: Jobs | None) -> Any:
    """The list, or what to do where there is none."""
    rows = list_rows(store)
    if not rows:
        return [
            heading("Runs"),
            notice(
                "No runs here yet",
                html.P(["Nothing in ", html.Code(str(store.root)), " is a run. Make one:"]),
                html.P(command("awqscope demo")),
                html.P(["or start one from ", go_to("New run", link("new")), "."])
                if jobs
                else None,
            ),
        ]
    return [
        heading(
            "Runs",
            over=f"{len(rows)} in {store.root}",
            beside=dmc.Button(
                "Compare two", id="compare-button", disabled=True, variant="default", size="sm"
            ),
        ),
        dmc.TextInput(
            id="runs-filter",
            placeholder="Filter: any word of a line",
            debounce=200,
            size="sm",
            className="filter",
            **{"aria-label": "Filter the runs"},
        ),
        dag.AgGrid(
            id="runs-grid",
            className="grid",
            columnDefs=COLUMNS,
            rowData=rows,
            getRowId="params.data.name",
            defaultColDef={
                "sortable": True,
                "filter": True,
                "resizable": True,
                "suppressHeaderFilterButton": True,
            },
            dashGridOptions={
                "theme": {"function": "awqscopeTheme(agGrid)"},
                "rowSelection": {"mode": "multiRow", "headerCheckbox": False},
                "domLayout": "autoHeight" if len(rows) <= 15 else "normal",
                "rowHeight": 48,
                "ensureDomOrder": True,
                "suppressColumnVirtualisation": len(rows) < 50,
            },
            style={"height": None if len(rows) <= 15 else "70vh"},
            dangerously_allow_code=False,
        ),
        html.P(
            "Tick two runs to compare them. Arrow keys move in the grid, Space ticks, "
            "Enter opens a run.",
            className="hint",
        ),
    ]
