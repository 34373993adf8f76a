"""int8 inputs in the terminal: a line a block, in which no cell is broken."""

import io

from awqscope.app.terminal.console import PlainConsole
from awqscope.app.terminal.studies.activations import show_activations
from tests.help.int8 import make_activations


def test_a_line_a_block_with_marks() -> None:
    console = PlainConsole(file=io.StringIO(), width=160)
    show_activations(make_activations(), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = text.splitlines()
    assert "Block 5 refuses 4-bit weights." in lines
    [fifth] = [line for line in lines if line.split()[:1] == ["5"]]
    assert "▲ 0.200000 [0.180000, 0.220000]" in fifth and fifth.count("▲") == 1
    [third] = [line for line in lines if line.split()[:1] == ["3"]]
    assert "▲ 0.040000 [0.036000, 0.044000]" in third
    assert "126 tokens of 2 windows; ▲: the block refuses it" in text


def test_where_room_is_short_blocks_are_named_and_no_interval_is_cut() -> None:
    console = PlainConsole(file=io.StringIO(), width=100)
    show_activations(make_activations(), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line for line in text.splitlines() if len(line) == 100]
    assert any(line.split()[:1] == ["block"] for line in lines) and "…" not in text
    at = next(n for n, line in enumerate(lines) if line.split()[:1] == ["5"])
    whole = " ".join(lines[at : at + 2])
    assert all(bound in whole for bound in ("▲ 0.200000", "0.180000", "0.220000]"))
