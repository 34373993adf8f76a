"""Text of a run cannot steer the terminal, nor become markup in the files that are written."""

import io
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.app.terminal.console import PlainConsole, show_controls
from tests.help.runs import write_run

STEERING = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\x00"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [95%]", "plain [95%]"),
        ("ΔPPL ▲ 模型 👩‍🔬 é", "ΔPPL ▲ 模型 👩‍🔬 é"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\x9b31mb", r"a\x9b31mb"),
        ("a\rb\x07", r"a\rb\x07"),
        ("a\u202eb\u2066", r"a\u202eb\u2066"),
        ("a\ud800", r"a\ud800"),
        ("two\nlines\tof it", "two\nlines\tof it"),
    ],
)
def test_controls_are_written_out(text: str, shown: str) -> None:
    assert show_controls(text) == shown


def test_the_console_styles_but_passes_nothing_on() -> None:
    file = io.StringIO()
    console = PlainConsole(file=file, force_terminal=True, color_system="standard", width=200)
    console.print(Text(STEERING, style="bold"))
    said = file.getvalue()
    assert said.startswith("\x1b[1m")
    assert said.replace("\x1b[1m", "").replace("\x1b[0m", "").rstrip("\n").isprintable()


def test_brackets_and_colons_of_a_name_are_shown() -> None:
    file = io.StringIO()
    table = Table()
    table.add_row("a[bold] [1] :smile:[/bold]")
    PlainConsole(file=file, width=200).print(table, "[red]b[/red]")
    assert "a[bold] [1] :smile:[/bold]" in file.getvalue() and "[red]b[/red]" in file.getvalue()


def test_no_name_in_a_run_steers_the_terminal(tmp_path: Path) -> None:
    """Everything that `show`, `gate` and an error say of a run full of escapes."""
    import json

    run = write_run(tmp_path)
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    record["model"] = STEERING
    record["ppl_definition"] |= {"text": STEERING, "sentence": STEERING}
    record["stages"]["requantize"] = {"state": "skipped", "reason": STEERING}
    (run / "run.json").write_text(json.dumps(record))
    for arguments in (
        ["show", str(run)],
        ["gate", str(run)],
        ["show", str(tmp_path / STEERING.replace("\x00", ""))],
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code in (0, 1, 2, 3)
        for said in (result.stdout, result.stderr):
            assert not set(said) & {"\x1b", "\x07", "\x9b", "\u202e", "\x00"}, arguments
