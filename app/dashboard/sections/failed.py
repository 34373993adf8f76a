"""What can be done about something that was started from a page and failed."""

import dash_mantine_components as dmc
from dash import ctx, html

AGAIN, REMOVE = "again", "remove"
WORDS = {AGAIN: "Try again", REMOVE: "Remove"}


def failed_buttons(kind: str, name: str) -> html.Div:
    """Tries it once more, or removes it."""
    return html.Div(
        [
            dmc.Button(
                text, id={"type": kind, "name": name, "act": act}, size="xs", variant="default"
            )
            for act, text in WORDS.items()
        ],
        className="actions",
    )


def clicked_part() -> tuple[str, str] | None:
    """The name and the act of the button that was pressed; None where one has only just
    appeared."""
    if not ctx.triggered_id or not ctx.triggered[0]["value"]:
        return None
    return str(ctx.triggered_id["name"]), str(ctx.triggered_id["act"])
