"""The text itself: which windows and tokens the quantized model reads differently, and why."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html

from app.components import Text
from app.figures import draw_token
from app.jobs import Jobs
from app.pages.block import show_token
from app.pages.run import run_heading
from app.parts import as_table, card, chart, go_to, heading, notice, number, switch, table
from app.store import Store, TokenIndex
from app.urls import Page, link

COLOURINGS = {"kl": "KL", "delta_nll": "ΔNLL"}
SHADES = 8
LISTED_WINDOWS = 12
SMALLEST_KL = 1e-6
# Shares of a token's KL that a repair gives back: below, it does little; above, it restores it.
LITTLE, MOST = 0.2, 0.8

Row = Mapping[str, Any]


def token_value(row: Row, colour: str) -> float | None:
    """What a token is coloured by; None for a window's first, which is context only."""
    if row["kl_uniform"] is None:
        return None
    if colour == "kl":
        return row["kl_uniform"]
    return row["nll_uniform"] - row["nll_reference"]


def shade(value: float | None, largest: float) -> str:
    """The class of a token: `s0` to `s8`, by the square root of its share of the largest; `b…` for
    a token that the quantized model predicts better."""
    if value is None or largest <= 0:
        return "s0"
    step = min(SHADES, round(SHADES * (abs(value) / largest) ** 0.5))
    return f"s{step}" if value >= 0 else f"b{step}"


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


def show_line_ends(text: str) -> str:
    """Line ends stay line ends, and are seen."""
    return text.replace("\n", "⏎\n") or "∅"


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


def token_summary(row: Row) -> str:
    """Which block is to blame, in words, where it is known."""
    restored, alone = row.get("restored_kl"), row.get("block_kl")
    if restored:
        best = min(range(len(restored)), key=restored.__getitem__)
        left = 1 - restored[best] / row["kl_uniform"] if row["kl_uniform"] > 0 else 0.0
        if row["kl_uniform"] < SMALLEST_KL:
            return "Quantization does not move this token."
        if left < LITTLE:
            return "No single block's repair restores this token: the damage adds up."
        does = "restores it" if left >= MOST else "gives back the most of it"
        return (
            f"Repairing block {best} alone {does}: KL {number(row['kl_uniform'])} → "
            f"{number(restored[best])} ({left:.1%} given back)."
        )
    if alone:
        worst = max(range(len(alone)), key=alone.__getitem__)
        return f"Block {worst} alone moves it most: KL {number(alone[worst])}."
    return "Blame by block is kept for the eight worst windows only; this is not one of them."


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
