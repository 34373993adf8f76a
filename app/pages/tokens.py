"""The text itself: which windows and tokens the quantized model reads differently, and why."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html

from app.components import Text
from app.facts import shade, token_summary, token_value
from app.figures.tokens import draw_token
from app.jobs import Jobs
from app.pages.run import run_heading
from app.parts import as_table, card, chart, go_to, heading, notice, number, switch, table
from app.store import Store, TokenIndex
from app.urls import Page, link
from app.words import show_line_ends, show_token

COLOURINGS = {"kl": "KL", "delta_nll": "ΔNLL"}
LISTED_WINDOWS = 12

Row = Mapping[str, Any]


def describe_token(row: Row) -> str:
    """A token's numbers in a line, for the hover, with what each model would have said."""
    if row["kl_uniform"] is None:
        return "context only"
    said = f"KL {row['kl_uniform']:.4f}, NLL {row['nll_reference']:.3f} → {row['nll_uniform']:.3f}"
    for key, name in (("top_reference", "16-bit"), ("top_uniform", "uniform")):
        if row.get(key):
            tops = "  ".join(
                f"{show_token(top['text'])} {top['probability']:.0%}" for top in row[key]
            )
            said += f"\n{name}: {tops}"
    return said


def text_view(rows: Sequence[Row], colour: str, chosen: int | None) -> Text:
    """A window's text, coloured by what quantization does to each token."""
    values = [token_value(row, colour) for row in rows]
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    tokens = [
        (
            row["position"],
            show_line_ends(row["text"]),
            f"t {shade(value, largest)}" + " here" * (row["position"] == chosen),
            describe_token(row),
        )
        for row, value in zip(rows, values, strict=True)
    ]
    label = "The text. Arrow keys move from token to token, Enter shows one."
    return Text(rows[0]["window"], tokens, label)


def token_card(row: Row, run: str) -> Any:
    """One token: what both models expected here, and which block's repair would restore it."""
    position = row["position"]
    title = f"Token {position}: {show_token(row['text'])}"
    if row["kl_uniform"] is None:
        return card(
            title, summary="The first token of a window is context only: nothing predicts it."
        )
    parts: list[Any] = [
        table(
            {"what": "", "reference": "16-bit", "uniform": "Uniform", "mixed": "Mixed"},
            [
                {
                    "what": "NLL of this token",
                    "reference": number(row["nll_reference"], ".4f"),
                    "uniform": number(row["nll_uniform"], ".4f"),
                    "mixed": number(row["nll_mixed"], ".4f"),
                },
                {
                    "what": "KL of the prediction",
                    "uniform": number(row["kl_uniform"], ".4f"),
                    "mixed": number(row["kl_mixed"], ".4f"),
                },
            ],
        )
    ]
    reference, uniform = row.get("top_reference"), row.get("top_uniform")
    if reference and uniform:
        expected = predictions(reference, uniform, row["token"])
        parts += [html.H3("What each model expected here"), expected]
    parts.append(blame(row, run))
    return card(title, *parts, summary=token_summary(row))


def predictions(reference: Sequence[Row], uniform: Sequence[Row], actual: int) -> Any:
    """The five likeliest tokens of both models side by side."""

    def cell(top: Row) -> Any:
        mark = " ✓" if top["token"] == actual else ""
        return [html.Code(show_token(top["text"])), f" {top['probability']:.1%}{mark}"]

    return table(
        {"rank": "", "reference": "16-bit", "uniform": "Uniform"},
        [
            {"rank": str(rank), "reference": cell(a), "uniform": cell(b)}
            for rank, (a, b) in enumerate(zip(reference, uniform, strict=True), 1)
        ],
    )


def blame(row: Row, run: str) -> Any:
    """The blocks' shares in one token's damage, as a chart and a table."""
    alone, restored = row.get("block_kl"), row.get("restored_kl")
    if not alone:
        return None
    lines = [
        {
            "block": go_to(f"Block {block}", link("block", run, block)),
            "alone": number(value, ".4f"),
            "restored": number(restored[block], ".4f") if restored else "–",
        }
        for block, value in enumerate(alone)
    ]
    return html.Div(
        [
            html.H3("Which block"),
            chart(draw_token(alone, restored, row["kl_uniform"]), "KL by block, see the table"),
            as_table({"block": "Block", "alone": "Alone", "restored": "If restored"}, lines),
        ]
    )


def windows_card(index: TokenIndex, run: str, current: int, colour: str) -> Any:
    """The worst windows, each a link."""
    return card(
        "Worst windows",
        table(
            {"window": "Window", "kl": "Mean KL", "delta": "Mean ΔNLL"},
            [
                {
                    "window": go_to(
                        str(row["window"]), link("tokens", run, window=row["window"], colour=colour)
                    ),
                    "kl": number(row["kl"], ".4f"),
                    "delta": number(row["delta_nll"], "+.4f"),
                    "class": "chosen" if row["window"] == current else "",
                }
                for row in index.windows[:LISTED_WINDOWS]
            ],
        ),
        summary=f"{len(index.windows)} windows, the largest mean KL first.",
    )


def worst_card(index: TokenIndex, run: str, colour: str) -> Any:
    """The worst tokens of all windows, each a link."""
    return card(
        "Worst tokens",
        table(
            {"text": "Token", "kl": "KL", "delta": "ΔNLL", "where": ""},
            [
                {
                    "text": html.Code(show_token(row["text"])),
                    "kl": number(row["kl"], ".4f"),
                    "delta": number(row["delta_nll"], "+.4f"),
                    "where": go_to(
                        f"window {row['window']}, token {row['position']}",
                        link(
                            "tokens",
                            run,
                            window=row["window"],
                            position=row["position"],
                            colour=colour,
                        ),
                    ),
                }
                for row in index.tokens
            ],
        ),
    )


def window_card(rows: Sequence[Row], window: int, colour: str, chosen: int | None) -> Any:
    """The text of a window, coloured."""
    what = "KL" if colour == "kl" else "ΔNLL"
    return card(
        f"Window {window}",
        text_view(rows, colour, chosen),
        summary=f"The stronger the orange, the larger the {what}"
        + (" (blue: the uniform model does better)" if colour == "delta_nll" else "")
        + ". Click a token, or move with the arrow keys and press Enter.",
        beside=switch("colour", "Colour by", COLOURINGS, colour),
    )


def layout(store: Store, page: Page, jobs: Jobs | None) -> Any:
    """The tokens page."""
    run = store.summary(page.run)
    if run.record is None:
        return [heading(run.name), notice("This run cannot be shown", html.P(run.error))]
    index = store.token_index(run.name)
    if index is None or not index.windows:
        said = html.P("The sweep writes them: they appear here when it is done.")
        return [run_heading(run, "tokens", "Tokens"), notice("No tokens measured yet", said)]
    window, colour, chosen = page.number("window"), page.option("colour"), page.number("position")
    if window is None or window not in {row["window"] for row in index.windows}:
        window, chosen = index.windows[0]["window"], None
    rows = store.window(run.name, window)
    if chosen is None or chosen >= len(rows):
        chosen = worst_position(rows)
    return [
        run_heading(run, "tokens", "Tokens"),
        dcc.Store(id="token-chosen", data={"window": window, "position": chosen}),
        html.Div(
            [
                html.Div(window_card(rows, window, colour, chosen), id="window-card"),
                html.Div(
                    token_card(rows[chosen], run.name), id="token-card", **{"aria-live": "polite"}
                ),
            ],
            className="reading",
        ),
        html.Div(
            [windows_card(index, run.name, window, colour), worst_card(index, run.name, colour)],
            className="columns",
        ),
    ]


def worst_position(rows: Sequence[Row]) -> int:
    """The position of a window's largest KL."""
    return max(range(len(rows)), key=lambda place: rows[place]["kl_uniform"] or 0.0)
