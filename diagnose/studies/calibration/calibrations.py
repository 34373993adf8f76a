"""Which windows are searched, and what each search answers.

A calibration is a set of windows that one AWQ search reads. Halves of the windows that the run's
search read, and other draws of as many, tell how far its choices are the windows' rather than the
model's; growing counts tell what more windows buy; other texts what a domain does. Pure: windows
in, windows out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from awqscope.diagnose.inputs.corpora import pick_windows
from awqscope.diagnose.studies.calibration.answer import Role

RUN = "run"
HALVES = ("half 1", "half 2")


@dataclass(frozen=True, eq=False)
class Calibration:
    """Windows [n, length] that a search reads. name: tells it from the study's others. texts: the
    SPECs that they are of. of_last: how many of them are of the last of these."""

    name: str
    role: Role
    texts: tuple[str, ...]
    windows: Tensor
    of_last: int

    def reads_as(self, other: Self) -> bool:
        """Whether it is of just the windows that another is of."""
        return torch.equal(self.windows, other.windows)


def of_text(name: str, role: Role, text: str, windows: Tensor) -> Calibration:
    """A calibration on windows of one text."""
    return Calibration(name, role, (text,), windows, len(windows))


def list_calibrations(
    read: Tensor,
    text: str,
    available: Tensor,
    also: Mapping[str, Tensor],
    *,
    counts: Sequence[int],
    draws: int,
    seed: int,
) -> list[Calibration]:
    """Every calibration of a study, the run's own first.

    read: the windows [n, length] that the run's search read, of the calibration text `text`, whose
    windows `available` are. also: other texts' windows by SPEC."""
    return [
        of_text(RUN, "run", text, read),
        *halve(read, text),
        *draw(read, text, available, draws, seed),
        *count_up(text, available, counts),
        *(found for number in range(len(also)) for found in _try_text(read, text, also, number)),
    ]


def halve(read: Tensor, text: str) -> list[Calibration]:
    """Every other window, and those between: both halves spread over the text as the whole is.
    Nothing of a single window."""
    size = len(read) // 2
    parts = (read[0 : 2 * size : 2], read[1 : 2 * size : 2])
    return [
        of_text(name, "half", text, part) for name, part in zip(HALVES, parts, strict=True) if size
    ]


def draw(read: Tensor, text: str, available: Tensor, draws: int, seed: int) -> list[Calibration]:
    """Up to `draws` sets of as many windows as were `read`, at random of those that were not; no
    window is in two of them. Fewer, or none, where the text has no more."""
    seen = {tuple(window) for window in read.tolist()}
    fresh = [number for number, row in enumerate(available.tolist()) if tuple(row) not in seen]
    order = torch.randperm(len(fresh), generator=torch.Generator().manual_seed(seed))
    shuffled = torch.tensor(fresh, dtype=torch.long)[order]
    return [
        of_text(f"draw {number + 1}", "draw", text, available[part.sort().values])
        for number, part in enumerate(shuffled.split(len(read))[:draws])
        if len(part) == len(read)
    ]


def count_up(text: str, available: Tensor, counts: Sequence[int]) -> list[Calibration]:
    """The windows that a run with so many would read, spread over the text. A count that the text
    has not is all that it has."""
    sizes = sorted({min(count, len(available)) for count in counts})
    return [
        of_text(f"{size} windows", "count", text, pick_windows(available, size)) for size in sizes
    ]


def _try_text(
    read: Tensor, text: str, also: Mapping[str, Tensor], number: int
) -> list[Calibration]:
    """As many windows of another text as were read; and as many of both texts, half of each. Of a
    text that has fewer all that it has, with more of the run's own."""
    spec, windows = list(also.items())[number]
    added = pick_windows(windows, max(1, len(read) // 2))
    mine = pick_windows(read, max(1, len(read) - len(added)))
    both = torch.cat([mine, added])
    return [
        of_text(f"text {number + 1}", "text", spec, pick_windows(windows, len(read))),
        Calibration(f"both {number + 1}", "both", (text, spec), both, len(added)),
    ]
