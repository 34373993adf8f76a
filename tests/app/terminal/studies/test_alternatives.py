"""The alternatives in the terminal."""

import io

from awqscope.app.terminal.console import PlainConsole
from awqscope.app.terminal.studies.alternatives import show_alternatives
from tests.help.alternatives import make_usual


def test_lines_begin_with_the_name_that_only_takes_and_no_number_is_broken() -> None:
    console = PlainConsole(file=io.StringIO(), width=100, highlight=False)
    found = make_usual()
    show_alternatives(found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    begins = [line.split()[0] for line in text.splitlines() if line.strip()]
    assert {row.name for row in found.rows} <= set(begins)
    assert "−0.1000" in text and "[−0.1200," in text and "−0.0800]" in text
