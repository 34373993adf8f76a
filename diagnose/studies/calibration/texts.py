"""The texts of a study of the calibration, loaded and cut as the run's were, and checked to be what
they were."""

from dataclasses import dataclass

from torch import Tensor

from awqscope.diagnose.inputs.corpora import (
    Corpus,
    load_corpus,
    pick_windows,
    spread_windows,
    tile_windows,
)
from awqscope.diagnose.inputs.load import check_tokens
from awqscope.diagnose.studies.calibration.asked import Asked
from awqscope.diagnose.trials.course import load_measured
from awqscope.diagnose.trials.finished import OpenedRun

# Validation tokens that are measured on where nothing is asked for: intervals of paired
# differences are narrow by then, and every calibration takes a forward of them.
MOST_TOKENS = 16_384
LEAST_WINDOWS = 8


@dataclass(frozen=True, eq=False)
class Column:
    """A validation text. windows: [n, length] that are measured. of_run: whether the run was
    measured on it too."""

    text: Corpus
    windows: Tensor
    of_run: bool


@dataclass(frozen=True, eq=False)
class Texts:
    """What a study reads. calib: the run's calibration text; available: all its windows; read:
    those that the run's search read. also: other calibration texts with their windows. columns:
    validation texts, the run's own first."""

    calib: Corpus
    available: Tensor
    read: Tensor
    also: tuple[tuple[Corpus, Tensor], ...]
    columns: tuple[Column, ...]

    def hashes(self) -> dict[str, str]:
        """Text -> SHA-256 of what was given beside the run's own."""
        beside = [corpus for corpus, _ in self.also]
        beside += [column.text for column in self.columns if not column.of_run]
        return {corpus.spec: corpus.hash for corpus in beside}


def load_texts(opened: OpenedRun, asked: Asked) -> Texts:
    """The run's texts and those that are asked for beside them. InputError for a text that cannot
    be used, and for one of the run's that has changed since."""
    inputs = load_measured(opened.run, opened.model)
    length, seq_len = inputs.calib_windows.shape[1], inputs.windows.shape[1]
    most = asked.windows or max(LEAST_WINDOWS, MOST_TOKENS // seq_len)
    parts = inputs.windows.split(list(inputs.slices))
    sizes = spread_windows(inputs.slices, max(most, 2 * len(parts)))
    columns = [
        Column(corpus, pick_windows(part, size), True)
        for corpus, part, size in zip(inputs.valid, parts, sizes, strict=True)
    ]
    usual = max(2, sum(sizes) // len(sizes))

    def load(spec: str, length: int, count: int | None = None) -> tuple[Corpus, Tensor]:
        corpus = load_corpus(spec)
        windows = pick_windows(tile_windows(corpus, opened.tokenizer, length), count)
        check_tokens(opened.model, windows)
        return corpus, windows

    columns += [Column(*load(text, seq_len, usual), False) for text in asked.valid_also]
    return Texts(
        calib=inputs.calib,
        available=tile_windows(inputs.calib, opened.tokenizer, length),
        read=inputs.search_windows,
        also=tuple(load(text, length) for text in asked.calib_also),
        columns=tuple(columns),
    )
