"""What people say of a run: shown below its title, and changed in a card of its page."""

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html, no_update, set_props

from awqscope.app.dashboard.asking import Asked, asking_button, asking_form
from awqscope.app.dashboard.parts import card, notice
from awqscope.app.dashboard.urls import read_address
from awqscope.app.store import RunSummary, Store, UnknownRunError
from awqscope.diagnose.runs.directory import now
from awqscope.diagnose.runs.notes import Change, Notes, change_notes
from awqscope.mixedprec.errors import InputError

ABOUT = "For whoever reads this run; kept in its notes.json. Notes stay in the order of their time."


def notes_line(run: RunSummary) -> html.Div:
    """A run's name and tags, and that it is archived; empty where nothing is said."""
    return html.Div(_line(run.notes), id="notes-line", className="notes-line")


def _line(notes: Notes) -> list[Any]:
    tags = [html.Span(tag, className="tag") for tag in notes.tags]
    named = [html.Strong(notes.name)] if notes.name else []
    return [*named, *tags, *([html.Span("archived", className="note")] * notes.archived)]


def notes_card(run: RunSummary, may_change: bool) -> Any:
    """A run's notes, and a form where they may be changed; nothing where neither is there."""
    if not (may_change or run.notes.notes or run.notes_error):
        return None
    return card(
        "Notes",
        html.Div(_body(run, may_change), id="notes-card"),
        html.P(id="notes-said", className="said", role="status") if may_change else None,
        summary=ABOUT if may_change else None,
    )


def _body(run: RunSummary, may_change: bool) -> list[Any]:
    if run.notes_error:
        return [notice("The notes cannot be read", html.P(run.notes_error), tone="bad")]
    said = [
        html.Li(
            [
                html.Span(f"{each.time[:16].replace('T', ' ')} UTC", className="note"),
                html.Div(each.text, className="said-text"),
            ]
        )
        for each in run.notes.notes
    ]
    listed = [html.Ul(said, className="notes-list")] if said else []
    return [*listed, *([_form(run.notes)] if may_change else [])]


def _form(notes: Notes) -> html.Div:
    tags = ", ".join(notes.tags)
    form = asking_form(
        "notes",
        dmc.TextInput(
            id="notes-name", name="called", value=notes.name, label="Name", autoComplete="off"
        ),
        dmc.TextInput(
            id="notes-tags",
            name="tags",
            value=tags,
            label="Tags",
            description="With commas between.",
            autoComplete="off",
        ),
        dmc.Textarea(
            id="notes-note", name="note", value="", label="Add a note", autosize=True, minRows=2
        ),
        dmc.Switch(
            id={"type": "notes-flag", "field": "archived"},
            label="Archived",
            description="Lists leave it out unless they are asked for it.",
            checked=notes.archived,
        ),
        html.Div(asking_button("Keep", "notes-keep", size="sm", variant="default")),
        look="location",
    )
    shown = {"called": notes.name, "tags": tags, "archived": notes.archived}
    return html.Div([form, dcc.Store(id="notes-shown", data=shown)])


def read_change(values: Mapping[str, Any], shown: Mapping[str, Any]) -> Change:
    """What a form asks for beside what it was opened with: another's change of what was left as it
    was stays."""
    tags, before = (_split(each.get("tags")) for each in (values, shown))
    name, note = values.get("called", ""), str(values.get("note") or "")
    archived = bool(values.get("archived"))
    return Change(
        name=None if name == shown.get("called") else str(name),
        tags=[tag for tag in tags if tag not in before],
        untags=[tag for tag in before if tag not in tags],
        note=note if note.strip() else None,
        archived=None if archived == shown.get("archived") else archived,
    )


def _split(text: Any) -> Sequence[str]:
    return [tag.strip() for tag in str(text or "").split(",") if tag.strip()]


def register(app: Dash, store: Store) -> None:
    """Connect the form."""

    @app.callback(
        Output("notes-said", "children"),
        Input("notes-asked", "data"),
        State("notes-shown", "data"),
        prevent_initial_call=True,
    )
    def keep(asked: Asked | None, shown: Mapping[str, Any]) -> Any:
        if not asked:
            return no_update
        name = read_address(asked["path"], "").run
        try:
            change_notes(store.find(name), read_change(asked["values"], shown))
        except (InputError, UnknownRunError) as error:
            return f"Not kept: {error}."
        run = store.summary(name)
        set_props("notes-line", {"children": _line(run.notes)})
        set_props("notes-card", {"children": _body(run, may_change=True)})
        return f"Kept in notes.json, {now()[11:16]} UTC."
