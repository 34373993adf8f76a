"""Explanations in words and in the terminal."""

import io
from typing import Any

import pytest
from rich.console import Console

from awqscope.app.terminal.explanation import show_explained
from awqscope.app.words.explanation import (
    guilty_blocks,
    mixed_mark,
    shorten,
    show_piece,
    write_blame,
    write_mixed,
    write_parting,
    write_repair,
    write_units,
)
from awqscope.mixedprec.words import write_size
from tests.help.explained import CONTEST, make_asked, make_block, make_entry


def show(asked: dict[str, Any], width: int = 120) -> str:
    out = io.StringIO()
    show_explained(asked, Console(file=out, width=width, highlight=False))
    return out.getvalue()


def test_parting() -> None:
    asked = make_asked()
    assert write_parting(make_entry(), asked) == (
        "They part after 1 token: the 16-bit model says “ in” (50.0%), the 4-bit model “⏎” (40.0%)."
    )
    first = make_entry(parting={**CONTEST, "position": 0, "margin_reference": 0.1})
    said = write_parting(first, asked)
    assert said.startswith("They part at once: ")
    assert said.endswith("only 0.10 nats: a close call.")
    tied = write_parting(make_entry(parting={**CONTEST, "tied": True}), asked)
    assert "over a tie" in tied
    assert write_repair(make_entry(parting={**CONTEST, "tied": True}), asked) == ""


def test_nothing_parts() -> None:
    entry = make_entry(parting=None, closest=CONTEST, blocks=[], repair=None)
    entry["mixed"] = {"repairs": None, "parts_at": None, "mean_kl": 0.0}
    said = write_parting(entry, make_asked(entry))
    assert said.startswith("Both models go on alike for all 3 tokens. It was closest after 1 token")
    assert "“ in” (20.0%) stays before “⏎” (40.0%)" in said
    assert write_blame(entry) == ""
    assert write_mixed(entry, make_asked(entry)) == "The run's recipe goes on alike too."
    entry["reference"] = {**entry["reference"], "ended": True}
    assert "for 3 tokens, to the end of the text" in write_parting(entry, make_asked(entry))
    assert "parts after" in show(make_asked(entry, make_entry()))


@pytest.mark.parametrize(
    ("breaking", "restoring", "guilty", "wanted"),
    [
        ([5], [5], [5], ["Block 5 is to blame: quantized alone it breaks"]),
        (
            [5, 6],
            [5, 2],
            [5],
            ["Block 5 is to blame", "Restoring block 2 alone also", "Block 6 al"],
        ),
        ([4, 5], [4, 5], [4, 5], ["Blocks 4 and 5 are to blame"]),
        ([], [1, 2, 3], [1, 2, 3], ["Restoring block 1, 2 or 3 alone", "No block quantized alone"]),
        ([1, 2], [], [1, 2], ["No block restored alone", "Blocks 1 and 2 each break"]),
        ([], [], [], ["No block restored alone", "No block quantized alone"]),
    ],
)
def test_blame(
    breaking: list[int], restoring: list[int], guilty: list[int], wanted: list[str]
) -> None:
    rows = [make_block(n, breaks=n in breaking, restores=n in restoring) for n in range(8)]
    entry = make_entry(blocks=rows)
    assert guilty_blocks(entry) == guilty
    for part in wanted:
        assert part in write_blame(entry)
    assert (" is to blame" in write_blame(entry)) == (len(set(breaking) & set(restoring)) == 1)


def test_repair() -> None:
    asked, entry = make_asked(), make_entry()
    assert write_repair(entry, asked) == (
        "Unit 5.o at 8 bits (+32.5 kB) brings it back; no cheaper set does. "
        "The continuation then is the 16-bit model's to its end."
    )
    more = {
        **entry["repair"],
        "units": ["0.o", "1.o", "2.o", "5.qkv"],
        "proved": False,
        "followed": {"repairs": True, "parts_at": 12, "mean_kl": 0.1},
    }
    said = write_repair(make_entry(repair=more), asked)
    assert "Units 0.o, 1.o, 2.o and 5.qkv at 8 bits" in said
    assert "a cheaper set may exist" in said
    assert "1 other unit of 32 would do it alone" in said
    assert said.endswith("The continuation parts again after 12 tokens.")
    assert write_units(more) == "4 units (+32.5 kB)"
    assert write_units(entry["repair"]) == "5.o (+32.5 kB)"
    assert "not even all 32 units" in write_repair(make_entry(repair=None), asked)
    assert write_size(2_500_000, signed=True) == "+2.50 MB"


@pytest.mark.parametrize(
    ("mixed", "recipe", "wanted", "mark"),
    [
        (None, None, "no recipe yet", "–"),
        ((True, None), "flagged", "repairs this prompt: all 3 tokens", "whole"),
        ((True, 2), "flagged", "parts later, after 2 tokens", "token"),
        ((False, 1), "flagged", "does not repair it: it parts after 1 token.", "no"),
        ((False, 0), "flagged", "it parts at once", "no"),
        ((False, 1), "uniform", "promotes nothing", "no"),
    ],
)
def test_the_recipe(
    mixed: tuple[bool, int | None] | None, recipe: str | None, wanted: str, mark: str
) -> None:
    told = mixed and {"repairs": mixed[0], "parts_at": mixed[1], "mean_kl": 0.1}
    entry = make_entry(mixed=told)
    assert wanted in write_mixed(entry, make_asked(entry, recipe=recipe))
    assert mixed_mark(entry) == mark


def test_nothing_a_model_says_reaches_the_terminal_raw() -> None:
    assert show_piece("a\n\x1b[31m\x07\u202e b") == "a⏎�[31m�� b"
    assert show_piece("") == "∅"
    assert shorten("x" * 50, 10) == "x" * 9 + "…"
    hostile = "\x1b]0;owned\x07[bold red]x[/]"
    entry = make_entry(hostile)
    entry["uniform"] = {**entry["uniform"], "pieces": [" of", hostile, hostile]}
    said = show(make_asked(entry, entry))
    assert "\x1b" not in said
    assert "\x07" not in said
    assert "[bold red]x[/]" in said


def test_the_terminal_shows_all_of_it() -> None:
    said = show(make_asked())
    for part in ("the order  (2 tokens)", " of in it", " of⏎end", "50.00%", "40.00%"):
        assert part in said
    assert "✕ breaks it" in said
    assert "● brings it back" in said
    assert "▃ │ ▅▇█" in said
    assert "largest 0.400 at “ it” (after 2)" in said
    assert "prompt 1" not in said
    several = show(make_asked(make_entry(), make_entry("another")), width=80)
    assert "prompt 2" in several
    assert "+32.5 kB" in several
