"""Progress on stderr: a live bar per stage on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from awqscope.diagnose.machine.signals import asked_to_end
from awqscope.diagnose.runs.directory import OnProgress
from awqscope.mixedprec.words import write_duration, write_memory, write_share

if TYPE_CHECKING:
    from awqscope.diagnose.entries.plan import MemoryPlan, StagePlan

LABELS = {
    "search": "AWQ search",
    "sweep": "sweep of blocks",
    "estimate": "unit estimates",
    "exact": "exact units",
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
# Seconds from which on a plan says what would shorten it, and what is tried for that.
LONG = 3600.0
FEWER_WINDOWS = (128, 64, 32, 16, 8)
# The most of its time that a plan may keep for another precision to be worth naming.
WORTH_ROUNDING = 0.7


def _write_windows(stage: "StagePlan") -> str:
    """The windows that a stage takes; of how many, where not all streams go through all."""
    total = stage.windows + stage.beside
    return f"{stage.windows} of {total}" if stage.beside else str(total or "")


def list_plan(plan: "MemoryPlan", no_checkpoint: str | None = None) -> list[str]:
    """A plan in lines: what every stage takes, and why it ends without a checkpoint, if it does."""
    budget, minimum = map(write_memory, (plan.budget, plan.minimum))
    several = f" for {plan.workers} processes" if plan.workers > 1 else ""
    lines = [f"memory {budget}{several} (at least {minimum}), about {write_duration(plan.seconds)}"]
    head = ("", "memory", "streams", "in files", "windows", "chunks", "passes", "read", "time")
    rows: list[tuple[str, ...]] = [head]
    for stage in plan.stages:
        rows.append(
            (
                LABELS.get(stage.stage, stage.stage),
                write_memory(stage.peak_bytes),
                str(stage.streams) if stage.streams else "",
                write_memory(stage.spilled_bytes) if stage.spilled_bytes else "",
                _write_windows(stage),
                str(stage.chunks),
                str(stage.passes),
                write_memory(stage.read_bytes),
                write_duration(stage.seconds),
            )
        )
        if stage.device_bytes:
            rows.append(
                (" on the device", write_memory(stage.device_bytes), *[""] * (len(head) - 2))
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    advice = advise_on_time(plan)
    lines += [advice] if advice else []
    if no_checkpoint:
        lines.append(f"no checkpoint will be written: {no_checkpoint}")
    return lines


def advise_on_time(plan: "MemoryPlan") -> str:
    """For a plan that takes LONG, what each option that would shorten it makes of it; empty for
    one that does not."""
    if plan.seconds <= LONG:
        return ""
    ways = [_advise_windows(plan)]
    if plan.in_bfloat16 <= plan.seconds * WORTH_ROUNDING:
        ways.append(f"--precision bfloat16: about {write_duration(plan.in_bfloat16)}")
    return "; ".join(way for way in ways if way)


def _advise_windows(plan: "MemoryPlan") -> str:
    """How many windows bring a plan under LONG, or the fewest that it could have."""
    measuring = [stage for stage in plan.stages if stage.stage != "search"]
    windows = max((stage.windows + stage.beside for stage in measuring), default=0)
    fewer = [count for count in FEWER_WINDOWS if count < windows]
    if not fewer:
        return ""
    fits = [count for count in fewer if plan.with_windows(count) <= LONG]
    count = fits[0] if fits else fewer[-1]
    return f"--windows {count}: about {write_duration(plan.with_windows(count))}"


def show_plan(plan: "MemoryPlan", no_checkpoint: str | None = None) -> None:
    """A plan on stderr, before what it is of begins."""
    sys.stderr.write("\n".join(list_plan(plan, no_checkpoint)) + "\n")
    sys.stderr.flush()


def show_note(note: str) -> None:
    """What a user should know of the inputs, on stderr."""
    sys.stderr.write(f"awqscope: {note}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def show_progress() -> Iterator[OnProgress]:
    """Yield a callback (stage, done, total) that shows it until the block ends, and that ends what
    calls it once the process was asked to end."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _heed_interrupts(_PlainLines())
        return
    columns = (
        TextColumn("{task.description:16}"),
        BarColumn(bar_width=32),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, object] = {}

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(LABELS.get(stage, stage), total=total)
            bars.update(tasks[stage], completed=done, total=total)  # type: ignore[arg-type]

        yield _heed_interrupts(update)


def _heed_interrupts(show: OnProgress) -> OnProgress:
    """Code of a library that catches everything swallows an interrupt that falls into it, and the
    work would go on to its end. Where it reports its progress the interrupt is raised again."""

    def show_or_end(stage: str, done: int, total: int) -> None:
        if asked_to_end.is_set():
            raise KeyboardInterrupt
        show(stage, done, total)

    return show_or_end


class _PlainLines:
    """A line when a stage begins, ends, or has been silent for a while."""

    def __init__(self) -> None:
        # By stage: when it was first told of, and what was done of it then.
        self._began: dict[str, tuple[float, int]] = {}
        self._last = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        clock = time.monotonic()
        first = stage not in self._began
        began, before = self._began.setdefault(stage, (clock, done))
        if not first and done < total and clock - self._last < PLAIN_INTERVAL_S:
            return
        self._last = clock
        newly = done - before
        left = (clock - began) / newly * (total - done) if newly and done < total else None
        line = f"{LABELS.get(stage, stage)}: {write_share(done / total, '.0%')}"
        sys.stderr.write(line + (f", about {write_duration(left)} left\n" if left else "\n"))
        sys.stderr.flush()
