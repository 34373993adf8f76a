"""Every run of the directory, to sort, filter, open, stop, and compare."""

from collections.abc import Mapping, Sequence
from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import Dash, Input, Output, dcc, html, no_update, set_props

from awqscope.app.dashboard.components import Saves
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.parts import command, go_to, heading, notice
from awqscope.app.dashboard.sections.listed.rows import CANCEL, list_rows, may_change
from awqscope.app.dashboard.urls import Page, link
from awqscope.app.store import Store, UnknownRunError
from awqscope.app.words.gate.ship import QUESTION
from awqscope.mixedprec.errors import InputError

# More lines than these scroll in a box of their own.
MOST_SHOWN = 30
# A visit elsewhere, and back, finds the list as it was left.
KEPT = {"persistence": "runs", "persistence_type": "session"}
# Pixels of a line at least, headings too: the room that is kept until the grid is drawn.
LINE = 60
PPL = "params.value < 1000 ? '.3f' : ',.0f'"
MEGABYTES = "params.value < 1e9 ? '.1f' : ',.0f'"


def _number(form: str, width: int, divisor: float = 1) -> dict[str, Any]:
    shown = f"d3.format({form})(params.value / {divisor:.0f})"
    written = {"function": f"params.value == null ? '–' : {shown}"}
    return {
        "type": "rightAligned",
        "width": width,
        "valueFormatter": written,
        # A number is found as it is shown.
        "getQuickFilterText": written,
    }


# On a screen too narrow for columns there is one alone, whose cells are cards: assets/runs.js.
COLUMNS: list[dict[str, Any]] = [
    {
        "field": "ship",
        "headerName": QUESTION,
        "cellRenderer": "RunShip",
        "autoHeight": True,
        "minWidth": 165,
        "flex": 5,
    },
    {
        "field": "name",
        "headerName": "Run",
        "cellRenderer": "RunName",
        "autoHeight": True,
        "minWidth": 130,
        "flex": 4,
    },
    {"field": "model", "hide": True},
    {"field": "model_end", "hide": True},
    {"field": "said", "hide": True},
    {"field": "state", "hide": True},
    {
        "field": "verdict",
        "headerName": "Found",
        "autoHeight": True,
        "wrapText": True,
        "minWidth": 150,
        "flex": 5,
    },
    {
        "field": "widths",
        "headerName": "Bits",
        "autoHeight": True,
        "wrapText": True,
        "width": 100,
    },
    {"field": "reference", "headerName": "PPL 16-bit", **_number(PPL, 76)},
    {"field": "quantized", "headerName": "PPL quantized", **_number(PPL, 100)},
    {"field": "mixed", "headerName": "PPL mixed", **_number(PPL, 76)},
    {"field": "kl", "headerName": "KL quantized", **_number("'.4f'", 100)},
    {"field": "kl_mixed", "headerName": "KL mixed", **_number("'.4f'", 74)},
    {
        "field": "size",
        "headerName": "MB",
        "context": {"saved": "Bytes"},
        **_number(MEGABYTES, 64, 1e6),
    },
    {
        "field": "created",
        "headerName": "Begun (UTC)",
        "width": 104,
        "wrapText": True,
        "sort": "desc",
    },
    {
        "colId": "card",
        "headerName": "Runs",
        "cellRenderer": "RunCard",
        "autoHeight": True,
        "sortable": False,
        "flex": 1,
        "hide": True,
    },
]


def describe_filter(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The choice of tags and of archived runs beside these lines: properties by component. Nothing
    is offered of what no run has."""
    tags = sorted({tag for row in rows for tag in row.get("tags", ())})
    archived = sum(bool(row.get("archived")) for row in rows)
    return {
        "runs-tags": {"data": tags, "display": None if tags else "none"},
        "runs-archived": {
            "label": f"{archived} archived too",
            "display": None if archived else "none",
        },
        "runs-notes": {"hidden": not (tags or archived)},
    }


def notes_filter(rows: Sequence[Mapping[str, Any]]) -> html.Div:
    """Which tags a run must have, and whether archived ones are listed."""
    now = describe_filter(rows)
    return html.Div(
        [
            dmc.MultiSelect(
                id="runs-tags",
                placeholder="Tags",
                size="sm",
                **KEPT,
                **now["runs-tags"],
                **{"aria-label": "Only runs with these tags"},
            ),
            dmc.Switch(id="runs-archived", checked=False, **KEPT, **now["runs-archived"]),
        ],
        id="runs-notes",
        className="notes-filter",
        **now["runs-notes"],
    )


def show_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Have the list that is shown have these lines."""
    set_props("runs-grid", {"rowData": rows})
    for component, properties in describe_filter(rows).items():
        set_props(component, properties)


def layout(store: Store, page: Page, jobs: Jobs | None) -> Any:
    """The list, or what to do where there is none."""
    rows = list_rows(store, jobs)
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
    shown = len(rows) <= MOST_SHOWN
    return [
        heading(
            "Runs",
            over=f"{len(rows)} in {store.root}",
            beside=[
                html.Span(id="compare-hint", className="note", role="status"),
                dmc.Button(
                    "Compare", id="compare-button", disabled=True, variant="default", size="sm"
                ),
            ],
        ),
        dmc.TextInput(
            id="runs-filter",
            placeholder='Filter: words, or a "phrase"',
            debounce=200,
            size="sm",
            className="filter",
            **KEPT,
            **{"aria-label": "Filter the runs"},
        ),
        notes_filter(rows),
        html.P(id="runs-said", className="said", role="status"),
        html.P(id="runs-found", className="finds", role="status"),
        dcc.Store(id="runs-asked"),
        html.Div(
            dag.AgGrid(
                id="runs-grid",
                className="grid runs",
                columnDefs=COLUMNS,
                rowData=rows,
                getRowId="params.data.name",
                defaultColDef={
                    "sortable": True,
                    "filter": True,
                    "resizable": True,
                    "suppressHeaderFilterButton": True,
                    "wrapHeaderText": True,
                },
                dashGridOptions={
                    "theme": {"function": "awqscopeTheme(agGrid)"},
                    "rowSelection": {"mode": "multiRow", "headerCheckbox": False},
                    "selectionColumnDef": {"headerName": "✓", "headerTooltip": "Picked"},
                    "domLayout": "autoHeight" if shown else "normal",
                    "rowHeight": LINE,
                    "ensureDomOrder": True,
                    "suppressColumnVirtualisation": True,
                    "suppressColumnMoveAnimation": True,
                    "quickFilterParser": {"function": "readFilter(params)"},
                    "animateRows": False,
                    # What cards stand for is found by its own words all the same.
                    "includeHiddenColumnsInQuickFilter": True,
                    # The grid says that nothing matches before it has looked, and does not take it
                    # back: runs.js says it, above the grid.
                    "suppressOverlays": ["noMatchingRows"],
                    "isExternalFilterPresent": {"function": "filtersByNotes()"},
                    "doesExternalFilterPass": {"function": "passesNotes(params)"},
                },
                style={"height": None if shown else "70vh"},
                dangerously_allow_code=False,
                **KEPT,
            ),
            style={"minHeight": LINE * (1 + len(rows)) if shown else "70vh"},
        ),
        Saves("runs", grid="runs-grid"),
        html.P(
            "PPL is perplexity, and KL is in nats. Quantized is a run's uniform model, or the "
            "candidate of a comparison. Tick two to twelve runs to compare them. Arrow keys move "
            "in the grid, Space ticks, Enter opens a run.",
            className="hint",
        ),
    ]


def register(app: Dash, store: Store, jobs: Jobs) -> None:
    """Connect the buttons of the list's lines."""

    @app.callback(
        Output("runs-said", "children"),
        Output("live", "disabled", allow_duplicate=True),
        Input("runs-asked", "data"),
        prevent_initial_call=True,
    )
    def act(asked: Mapping[str, str] | None) -> Any:
        if not asked:
            return no_update, no_update
        name, said = asked["name"], ""
        try:
            if asked["act"] == CANCEL:
                jobs.cancel(name)
                said = f"{name} was asked to stop."
            else:
                jobs.dismiss(name)
        except (InputError, UnknownRunError) as error:
            said = f"Not done: {error}."
        rows = list_rows(store, jobs)
        show_rows(rows)
        return said, not may_change(rows)
