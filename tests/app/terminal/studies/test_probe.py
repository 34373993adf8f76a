"""A probe in the terminal."""

import io

from awqscope.app.terminal.console import PlainConsole
from awqscope.app.terminal.studies.probe import show_probe
from tests.help.probed import make_probe


def test_names_that_apply_takes_are_whole_where_room_is_short() -> None:
    console = PlainConsole(file=io.StringIO(), width=100, highlight=False)
    show_probe(make_probe(), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    begins = {line.strip().split(" ")[0] for line in text.splitlines()}
    assert {"half-calibration", "no-clipping"} <= begins
    assert "…" not in text
