"""What was found of a prompt, in cards: both continuations, the blocks to blame, KL by token."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import html

from awqscope.app.dashboard.jobs.explanations import Explaining
from awqscope.app.dashboard.parts import as_table, card, chart, go_to, table
from awqscope.app.dashboard.urls import link
from awqscope.app.figures.tokens import draw_blame, draw_positions
from awqscope.app.store import Store
from awqscope.app.words.explanation import (
    mixed_mark,
    name_units,
    shorten,
    show_piece,
    write_blame,
    write_blocks,
    write_mixed,
    write_parting,
    write_repair,
    write_units,
)
from awqscope.app.words.numbers import show_line_ends
from awqscope.app.words.run import shade
from awqscope.mixedprec.words import NOTHING, write_number, write_size

# How much of a prompt stands where it is quoted.
QUOTED = 70
# What is saved of a repair, apart from one another.
APART = {"repair": {"units": "Cheapest repair", "more": "Cheapest repair: bytes"}}

Entry = Mapping[str, Any]


def earlier_card(run: str, asked: Sequence[Explaining], store: Store, shown: str) -> Any:
    """Every explanation of the run, a line a prompt, each a link."""
    results = store.explained(run)
    rows = []
    for job in asked:
        result = results.get(job.name)
        entries = result["prompts"] if result else [{"prompt": text} for text in job.prompts]
        for number_, entry in enumerate(entries or [{"prompt": job.name}]):
            href = link("explain", run, shown=job.name, prompt=number_ or None)
            row = {
                "prompt": go_to(shorten(entry["prompt"], QUOTED), href),
                "class": "chosen" if job.name == shown else "",
            }
            rows.append(row | (_list_entry(entry) if result else {"parting": job.state}))
    columns = {
        "prompt": "Prompt",
        "parting": "Parts after",
        "block": "Block",
        "repair": "Cheapest repair",
        "mixed": "Recipe repairs",
    }
    return card("Explained so far", table(columns, rows, apart=APART), summary="The newest first.")


def _list_entry(entry: Entry) -> dict[str, str]:
    parting, repair = entry["parting"], entry["repair"]
    return {
        "parting": NOTHING if parting is None else str(parting["position"]),
        "block": write_blocks(entry),
        "repair": write_units(repair) if repair else NOTHING,
        "units": name_units(repair) if repair else "",
        "more": write_size(repair["extra_bytes"], signed=True) if repair else "",
        "mixed": mixed_mark(entry),
    }


def entry_parts(entry: Entry, asked: Entry, run: str) -> list[Any]:
    """Everything on one prompt."""
    parting = entry["parting"]
    said = [write_blame(entry), write_repair(entry, asked), write_mixed(entry, asked)]
    parts = [
        card(
            f"“{shorten(entry['prompt'], QUOTED)}”",
            html.P(write_parting(entry, asked), className="verdict"),
            html.Ul([html.Li(sentence) for sentence in said if sentence], className="claims"),
        ),
        html.Div(
            [
                text_card("16-bit", entry, "reference"),
                text_card(f"{asked['bits']}-bit", entry, "uniform"),
            ],
            className="columns",
        ),
    ]
    contest = parting or entry["closest"]
    title = "The token where they part" if parting else "Where it came closest"
    parts.append(card(title, rivals_table(contest, asked)))
    if entry["blocks"]:
        parts.append(blame_card(entry, run))
    parts.append(positions_card(entry))
    return parts


def text_card(label: str, entry: Entry, name: str) -> Any:
    """The prompt and what a model goes on with; the reference's is coloured by KL."""
    pieces = entry["pieces"]
    if name == "reference":
        values = [piece["kl_uniform"] for piece in pieces]
        texts = [piece["text"] for piece in pieces]
    else:
        texts = [piece["text"] for piece in pieces[: entry["prompt_tokens"]]]
        texts += entry["uniform"]["pieces"]
        values = [None] * len(texts)
    largest = max((value for value in values if value is not None), default=0.0)
    parting = None if entry["parting"] is None else entry["prompt_tokens"] + entry["common"]
    spans = [
        html.Span(
            show_line_ends(text),
            className=f"t {shade(value, largest)}" + (" parting" * (position == parting)),
            **({} if value is None else {"title": f"KL {value:.4f}"}),
        )
        for position, (text, value) in enumerate(zip(texts, values, strict=True))
    ]
    start = entry["prompt_tokens"]
    summary = (
        "The stronger the orange, the further the quantized model is off there."
        if name == "reference"
        else "The token where it parts is framed in both."
    )
    return card(
        f"{label} continuation",
        html.Div(
            [html.Span(spans[:start], className="note"), *spans[start:]],
            className="text still",
            tabIndex=0,
            role="region",
            **{"aria-label": f"Prompt and {label} continuation"},
        ),
        summary=summary,
    )


def rivals_table(contest: Entry, asked: Entry) -> Any:
    """Two tokens side by side, by both models."""
    return table(
        {"token": "Next token", "reference": "16-bit", "uniform": f"{asked['bits']}-bit"},
        [
            {
                "token": html.Code(show_piece(rival["text"])),
                "reference": write_number(rival["probability_reference"], ".2%"),
                "uniform": write_number(rival["probability_uniform"], ".2%"),
            }
            for rival in (contest["reference"], contest["other"])
        ],
    )


def blame_card(entry: Entry, run: str) -> Any:
    """The blocks at the parting position."""
    blocks, parting = entry["blocks"], entry["parting"]
    rows = [
        {
            "block": go_to(f"Block {row['block']}", link("block", run, row["block"])),
            "alone": write_number(row["isolated_margin"], "+.3f"),
            "breaks": "breaks it" if row["breaks"] else "",
            "restored": write_number(row["restored_margin"], "+.3f"),
            "restores": "brings it back" if row["restores"] else "",
            "class": "flagged" if row["breaks"] and row["restores"] else "",
        }
        for row in blocks
    ]
    columns = {
        "block": "Block",
        "alone": "Margin, quantized alone",
        "breaks": "",
        "restored": "Margin, restored alone",
        "restores": "",
    }
    figure = draw_blame(blocks, parting["margin_reference"], parting["margin_uniform"])
    return card(
        "Which block",
        chart(figure, "Margin of the 16-bit model's token by block, see the table"),
        as_table(columns, rows),
        summary="How far the 16-bit model's token is before any other; below zero another one is "
        "preferred. A bar below zero breaks the token; a filled diamond above it brings it back.",
    )


def positions_card(entry: Entry) -> Any:
    """KL along the text."""
    pieces = entry["pieces"]
    parting = None if entry["parting"] is None else entry["prompt_tokens"] + entry["common"]
    known = [piece for piece in pieces if piece["kl_uniform"] is not None]
    after = [piece["kl_uniform"] for piece in known if piece["part"] != "prompt"]
    worst = max(known, key=lambda piece: piece["kl_uniform"])
    rows = [
        {
            "position": str(position),
            "text": html.Code(show_piece(piece["text"])),
            "part": piece["part"],
            "uniform": write_number(piece["kl_uniform"], ".4f"),
            "mixed": write_number(piece["kl_mixed"], ".4f"),
            "repaired": write_number(piece["kl_repaired"], ".4f"),
        }
        for position, piece in enumerate(pieces)
    ]
    columns = {
        "position": "Position",
        "text": "Token",
        "part": "Part",
        "uniform": "KL, uniform",
        "mixed": "KL, recipe",
        "repaired": "KL, repair",
    }
    return card(
        "KL by token",
        chart(draw_positions(pieces, parting), "KL by token of the text, see the table"),
        as_table(columns, rows),
        summary=f"Of what is predicted in each token's place: {sum(after) / len(after):.4f} nats "
        f"on average over the continuation, the most at “{show_piece(worst['text'])}” "
        f"({worst['kl_uniform']:.3f}). On the 16-bit model's text; grey is the prompt.",
    )
