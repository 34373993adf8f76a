"""Forms that ask for what they show.

What a field holds reaches dash a moment later than the page. assets/forms.js reads the fields
themselves when a button is pressed, and tells what they show by way of a store.
"""

from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

# What a store is told: `values` by field name, `path` and `search` of the address, and `asked`, a
# number a time.
Asked = Mapping[str, Any]


def asking_form(
    name: str,
    *children: Any,
    look: str = "",
    follows: bool = False,
    typed: bool = False,
    enter: bool = False,
) -> html.Div:
    """A form whose button and Enter key ask for what its fields show: the store NAME-asked is
    told. follows: the store NAME-shown is told whenever the fields have come to rest, by a callback
    of the page; typed: so it is without one, once nothing has been typed for a moment. enter: in a
    text of several lines Enter asks too, and begins a line with Shift only; Ctrl and Enter always
    ask."""
    stores = [dcc.Store(id=f"{name}-asked")]
    marks = {"data-asks": f"{name}-asked"}
    if follows or typed:
        stores.append(dcc.Store(id=f"{name}-shown"))
        marks["data-types" if typed else "data-shows"] = f"{name}-shown"
    if enter:
        marks["data-enter"] = ""
    # Without a button of this type the Enter key would do nothing.
    submit = html.Button(type="submit", hidden=True)
    return html.Div(
        [html.Form([*children, submit], className=look, noValidate=True, **marks), *stores]
    )


def asking_button(text: str, name: str, asks: str = "", **look: Any) -> dmc.Button:
    """The button of an `asking_form`. asks: another store that is to be told instead."""
    return dmc.Button(text, id=name, **{"data-asks": asks or "form"}, **look)
