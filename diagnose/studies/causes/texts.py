"""The windows that causes are looked for on: some of a run's validation text, and for comparison
some of its calibration text."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from awqscope.diagnose.inputs.corpora import LEAST_WINDOWS, spread_windows
from awqscope.diagnose.trials.course import load_measured
from awqscope.diagnose.trials.finished import OpenedRun
from awqscope.mixedprec.errors import InputError

# As many tokens of the validation text as show what is the matter, in windows enough for intervals.
USUAL_TOKENS, USUAL_WINDOWS = 2048, 4


@dataclass(frozen=True)
class Texts:
    """windows: token ids [n, T]; numbers: which of the run's windows these are; owners: which of
    its validation texts, `names`, each is of. calibration: windows [m, T'] that the searches
    read."""

    windows: Tensor
    numbers: tuple[int, ...]
    owners: tuple[int, ...]
    names: tuple[str, ...]
    calibration: Tensor


def count_windows(asked: int | None, slices: Sequence[int], length: int) -> int:
    """How many windows to look at, of the `slices` that each text has: what is asked, or the usual
    number. InputError for fewer than an interval needs of each text."""
    least = LEAST_WINDOWS * len(slices)
    if asked is None:
        asked = max(USUAL_WINDOWS, USUAL_TOKENS // length, least)
    if asked < least:
        raise InputError(f"--windows {asked} is too few", f"give at least {least}")
    return min(asked, sum(slices))


def load_texts(opened: OpenedRun, asked: int | None) -> Texts:
    """The run's texts, and `asked` windows of them, spread evenly. InputError where they are gone
    or have changed, and for too few windows."""
    inputs = load_measured(opened.run, opened.model)
    length = inputs.windows.shape[1]
    count = count_windows(asked, inputs.slices, length)
    numbers: list[int] = []
    owners: list[int] = []
    first = 0
    for owner, (have, wanted) in enumerate(
        zip(inputs.slices, spread_windows(inputs.slices, count), strict=True)
    ):
        chosen = torch.linspace(first, first + have - 1, wanted).round().long().tolist()
        numbers += chosen
        owners += [owner] * wanted
        first += have
    windows = inputs.windows[numbers]
    searched = inputs.search_windows
    fewer = max(1, min(len(searched), windows.numel() // searched.shape[1]))
    calibration = searched[torch.linspace(0, len(searched) - 1, fewer).round().long()]
    names = tuple(text.spec for text in inputs.valid)
    return Texts(windows, tuple(numbers), tuple(owners), names, calibration)


def name_kind(position: int, text: str) -> str:
    """`first` for the token that a window begins with, `delimiter` for one that is only blanks and
    punctuation, `word` for any other."""
    if position == 0:
        return "first"
    return "word" if any(char.isalnum() for char in text) else "delimiter"
