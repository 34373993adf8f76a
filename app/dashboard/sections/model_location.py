"""Where a run's model is, said or asked for beside what needs it."""

from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, html, no_update, set_props

from awqscope.app.dashboard.asking import Asked, asking_button, asking_form
from awqscope.app.dashboard.jobs.moved import ModelLocation, remember_model
from awqscope.app.dashboard.parts import notice
from awqscope.app.dashboard.urls import read_address
from awqscope.app.store import Store, UnknownRunError
from awqscope.mixedprec.errors import InputError


def can_open(location: ModelLocation) -> bool:
    """Whether a command may find the model: what only the hub may have it will ask there for."""
    return location.state != "missing"


def location_panel(location: ModelLocation) -> Any:
    """Where the model is, if not where the run left it; and a field for its path where it is not
    found."""
    if location.state == "here":
        return None
    if location.state == "moved":
        said = html.P(["The model is in ", html.Code(location.path), "."], className="hint")
        again = html.Details([html.Summary("It is elsewhere"), location_form(location.path)])
        return html.Div([said, again])
    where = f" (from {location.looked_in})" if location.looked_in else ""
    rest = (
        " If that is an id on the hub, it will be downloaded."
        if location.state == "hub"
        else " Nothing can be measured without it."
    )
    return notice(
        "The model is not here any more" if location.state == "missing" else "Is the model here?",
        html.P(
            ["The run has it as ", html.Code(location.named), f"{where}; it is not there.{rest}"]
        ),
        location_form(""),
    )


def location_form(path: str) -> Any:
    """Asks for the model's directory."""
    return asking_form(
        "location",
        dmc.TextInput(
            id="location-path",
            name="path",
            value=path,
            label="Directory of the model",
            description="Its files are held against the run's hashes; every run of it finds it "
            "there from then on.",
            spellCheck=False,
            autoComplete="off",
        ),
        html.Div(
            [
                asking_button("Use it", "location-use", size="sm", variant="default"),
                html.P(id="location-said", className="said", role="alert"),
            ],
            className="actions",
        ),
        look="location",
    )


def register(app: Dash, store: Store) -> None:
    """Connect the field."""

    @app.callback(
        Output("location-said", "children"),
        Input("location-asked", "data"),
        running=[(Output("location-use", "loading"), True, False)],
        prevent_initial_call=True,
    )
    def use(asked: Asked | None) -> Any:
        if not asked:
            return no_update
        run = read_address(asked["path"], "").run
        try:
            remember_model(store, run, asked["values"].get("path"))
        except (InputError, UnknownRunError) as error:
            return f"Not used: {error}."
        set_props("address", {"data": {"path": asked["path"], "search": asked["search"]}})
        return ""
