"""Explanations in the terminal. Pure rendering of what `awqscope explain --json` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from awqscope.app.words.explanation import (
    count_tokens,
    mixed_mark,
    name_units,
    quote,
    shorten,
    show_piece,
    write_blame,
    write_blocks,
    write_mixed,
    write_parting,
    write_repair,
)
from awqscope.mixedprec.words import NOTHING, write_number, write_size

SPARKS = "▁▂▃▄▅▆▇█"
WORST = 3
PROMPT_SHOWN = 400
PROMPT_SPARKS = 60
# Columns that the overview gives a prompt at least, and the rest of it.
SHORTEST, REST = 12, 92
# Shares of the largest KL from which a position is coloured.
WARM, HOT = 0.25, 0.6

Entry = Mapping[str, Any]


def show_explained(asked: Entry, console: Console) -> None:
    """Print every explanation, with a table of them first where there are several."""
    entries = asked["prompts"]
    if len(entries) > 1:
        console.print(overview_table(asked, console.width))
    for number, entry in enumerate(entries, 1):
        if len(entries) > 1:
            console.rule(f"prompt {number}", align="left", style="dim")
        console.print(render_entry(entry, asked))


def overview_table(asked: Entry, width: int) -> Table:
    """A line a prompt, for a console of `width` columns."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("prompt", no_wrap=True)
    table.add_column("parts after", justify="right")
    for name in ("16-bit", f"{asked['bits']}-bit", "block", "repair", "bytes", "recipe repairs"):
        table.add_column(name, no_wrap=name == "bytes")
    for number, entry in enumerate(asked["prompts"], 1):
        parting, repair = entry["parting"], entry["repair"]
        table.add_row(
            str(number),
            Text(shorten(entry["prompt"], max(SHORTEST, width - REST))),
            NOTHING if parting is None else str(parting["position"]),
            Text("" if parting is None else shorten(parting["reference"]["text"], 9)),
            Text("" if parting is None else shorten(parting["other"]["text"], 9)),
            write_blocks(entry),
            name_units(repair) if repair else NOTHING,
            Text(write_size(repair["extra_bytes"], signed=True) if repair else "", justify="right"),
            mixed_mark(entry),
        )
    return table


def render_entry(entry: Entry, asked: Entry) -> Group:
    """One prompt: both continuations, where they part, who is to blame, what repairs it."""
    parts: list[Any] = [
        continuations_table(entry, asked),
        Text(write_parting(entry, asked), style="bold"),
    ]
    if entry["parting"] is not None:
        parts.append(rivals_table(entry["parting"], asked))
    said = [write_blame(entry), write_repair(entry, asked), write_mixed(entry, asked)]
    parts += [Text(sentence) for sentence in said if sentence]
    if entry["blocks"]:
        parts.append(blocks_table(entry["blocks"]))
    parts.append(kl_lines(entry["pieces"]))
    return Group(*parts, Text())


def continuations_table(entry: Entry, asked: Entry) -> Table:
    """The prompt and what both models make of it, what they share dimmed."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    prompt = shorten(entry["prompt"], PROMPT_SHOWN)
    table.add_row("prompt", Text(f"{prompt}  ({count_tokens(entry['prompt_tokens'])})"))
    names = {"reference": "16-bit", "uniform": f"{asked['bits']}-bit"}
    for name, label in names.items():
        table.add_row(label, mark_continuation(entry[name]["pieces"], entry["common"], name))
    return table


def mark_continuation(pieces: Sequence[str], common: int, name: str) -> Text:
    """A continuation: what is shared dim, the parting token marked."""
    text = Text("".join(show_piece(piece) for piece in pieces[:common]), style="dim")
    if common < len(pieces):
        colour = "green" if name == "reference" else "dark_orange"
        text.append(show_piece(pieces[common]), style=f"not dim bold reverse {colour}")
        rest = "".join(show_piece(piece) for piece in pieces[common + 1 :])
        text.append(rest, style="not dim")
    return text


def rivals_table(parting: Entry, asked: Entry) -> Padding:
    """The two tokens side by side, by both models."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("next token", "16-bit", f"{asked['bits']}-bit"):
        table.add_column(name, justify="left" if name == "next token" else "right")
    for rival in (parting["reference"], parting["other"]):
        table.add_row(
            Text(show_piece(rival["text"])),
            f"{rival['probability_reference']:.2%}",
            f"{rival['probability_uniform']:.2%}",
        )
    return Padding(table, (0, 0, 0, 2))


def blocks_table(blocks: Sequence[Entry]) -> Table:
    """Every block, quantized alone and restored alone."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("block", justify="right")
    for name in ("quantized alone", "margin", "restored alone", "margin"):
        table.add_column(name, justify="right" if name == "margin" else "left")
    for row in blocks:
        marked = row["breaks"] or row["restores"]
        table.add_row(
            str(row["block"]),
            Text("✕ breaks it", style="dark_orange") if row["breaks"] else Text("", style="dim"),
            write_number(row["isolated_margin"], "+.3f"),
            Text("● brings it back", style="green") if row["restores"] else Text("", style="dim"),
            write_number(row["restored_margin"], "+.3f"),
            style="bold" if row["breaks"] and row["restores"] else "" if marked else "dim",
        )
    return table


def kl_lines(pieces: Sequence[Entry]) -> Group:
    """KL of the uniform model by position as bars, prompt and continuation apart, and the worst."""
    known = [piece for piece in pieces if piece["kl_uniform"] is not None]
    if not known:
        return Group()
    largest = max(piece["kl_uniform"] for piece in known)
    prompt = [piece for piece in known if piece["part"] == "prompt"]
    after = [piece for piece in known if piece["part"] != "prompt"]
    line = Text("KL by token  " + "…" * (len(prompt) > PROMPT_SPARKS))
    for piece in prompt[-PROMPT_SPARKS:]:
        line.append_text(spark(piece["kl_uniform"], largest))
    line.append(" │ ", style="dim")
    for piece in after:
        line.append_text(spark(piece["kl_uniform"], largest))
    mean = sum(piece["kl_uniform"] for piece in after) / len(after)
    worst = sorted(after, key=lambda piece: -piece["kl_uniform"])[:WORST]
    start = len(pieces) - len(after)
    positions = {id(piece): at - start for at, piece in enumerate(pieces)}
    note = Text(f"             mean of the continuation {mean:.4f}; largest ", style="dim")
    note.append(
        ", ".join(
            f"{piece['kl_uniform']:.3f} at {quote(piece['text'])} (after {positions[id(piece)]})"
            for piece in worst
        )
    )
    return Group(line, note)


def spark(value: float, largest: float) -> Text:
    """One position's bar."""
    share = value / largest if largest > 0 else 0.0
    style = "dark_orange" if share >= HOT else "yellow" if share >= WARM else "blue"
    return Text(SPARKS[min(len(SPARKS) - 1, int(share * len(SPARKS)))], style=style)
