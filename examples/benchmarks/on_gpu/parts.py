"""The parts in their order, and carrying them out in the time there is. Imports no torch."""

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from examples.benchmarks.on_gpu.process import SKIPPED, Note, Outcome, run_limited
from examples.benchmarks.on_gpu.setting import Setting


@dataclass(frozen=True)
class Part:
    """A part of the measurement. seconds: its share of the time. module, function: what measures
    it, imported where that is done; shape: what that is given first, if anything."""

    name: str
    seconds: float
    module: str
    function: str
    shape: str | None = None

    def __call__(self, setting: Setting, note: Note) -> None:
        module = importlib.import_module(f"examples.benchmarks.on_gpu.{self.module}")
        given = () if self.shape is None else (self.shape,)
        getattr(module, self.function)(*given, setting, note)


# Before all others: what is there.
MACHINE = Part("machine", 40, "machine", "describe")
# Together with MACHINE they come to no more than 8 minutes.
PARTS = (
    Part("equality", 110, "equality", "measure_equality"),
    Part("noise", 30, "equality", "measure_noise"),
    Part("search-1b", 45, "search", "measure_search", "1b"),
    Part("search-8b", 80, "search", "measure_search", "8b"),
    Part("sweep-8b", 95, "sweep", "measure_sweep", "8b"),
    Part("serving", 70, "serving", "measure_serving"),
)
SECONDS = 470.0


def run_parts(
    parts: Sequence[Part],
    setting: Setting,
    until: float,
    stretch: float,
    on_part: Callable[[str, Outcome], None],
) -> None:
    """Carry out parts one after another, leaving out those that would pass `until` (of the
    monotonic clock) with their share. stretch: what each share is multiplied by. on_part: told each
    outcome."""
    for part in parts:
        left, share = until - time.monotonic(), stretch * part.seconds
        if share > left:
            reason = f"it may take {share:.0f} s, and {max(0, left):.0f} s are left"
            on_part(part.name, Outcome(SKIPPED, 0.0, reason, {}))
        else:
            on_part(part.name, run_limited(part, setting, share))
