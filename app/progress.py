"""Progress on stderr: a live bar per stage on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from diagnose.rundir import OnProgress

LABELS = {
    "search": "AWQ search",
    "sweep": "sweep of blocks",
    "estimate": "unit estimates",
    "refine": "exact units",
    "recipe": "recipe",
    "requantize": "checkpoint",
    "proof": "proof from disk",
    "writing": "writing",
    "proving": "proving",
    "decode": "decoding",
    "compare": "reading on",
    "judge": "trying repairs",
}
PLAIN_INTERVAL_S = 5.0


class _Rate(ProgressColumn):
    """Steps a second, or seconds a step where steps are slow."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")


@contextlib.contextmanager
def show_progress() -> Iterator[OnProgress]:
    """Yield a callback (stage, done, total) that shows it until the block ends."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainLines()
        return
    columns = (
        TextColumn("{task.description:16}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, object] = {}

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(LABELS.get(stage, stage), total=total)
            bars.update(tasks[stage], completed=done, total=total)  # type: ignore[arg-type]

        yield update


class _PlainLines:
    """A line when a stage begins, ends, or has been silent for a while."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}
        self._last = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        clock = time.monotonic()
        first = stage not in self._began
        began = self._began.setdefault(stage, clock)
        if not first and done < total and clock - self._last < PLAIN_INTERVAL_S:
            return
        self._last = clock
        left = (clock - began) / done * (total - done) if done and done < total else None
        line = f"{LABELS.get(stage, stage)}: {done}/{total}"
        sys.stderr.write(line + (f", about {left:.0f} s left\n" if left else "\n"))
        sys.stderr.flush()
