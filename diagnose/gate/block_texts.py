"""Which of a run's texts a block hurts most, as far as its token table tells.

The table keeps the KL of every block alone for a few windows: those with the largest uniform KL
among the windows that blocks were measured on (`diagnose/runs/tables.py`). They are no sample of
the texts, so that means over them have no intervals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from awqscope.diagnose.gate.findings import Slice
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import AnyRecord


@dataclass(frozen=True)
class TextDamage:
    """What a block costs alone in the windows that are kept of one text: how many these are, and
    the mean KL over their scored tokens, nats; None where no window is."""

    text: str
    windows: int
    kl: float | None


@dataclass(frozen=True)
class BlockTexts:
    """What the flagged blocks cost in each text: block -> a TextDamage a text, in order."""

    blocks: Mapping[int, Sequence[TextDamage]]

    @property
    def nbytes(self) -> int:
        """About what it takes in memory."""
        return 200 * sum(map(len, self.blocks.values()))


def read_block_texts(run: RunDirectory, record: AnyRecord) -> BlockTexts:
    """What a run's flagged blocks cost alone in each of its texts; nothing where it has a single
    one, or flags no block. InputError for a token table that is missing or damaged."""
    slices, headline = record.ppl_definition.slices, record.headline
    flagged = () if headline is None else headline.flagged
    if len(slices) < 2 or not flagged:
        return BlockTexts({})
    table = run.read_table("tokens", ["window", "block_kl"])
    kept = table.filter(pc.is_valid(table["block_kl"]))
    windows = kept["window"].to_numpy()
    parts = [Slice(part.text, part.first_window, part.windows) for part in slices]
    found = {}
    for block in flagged:
        kl = pc.list_element(kept["block_kl"], block).to_numpy().astype(np.float64)
        found[block] = [_measure(part, windows, kl) for part in parts]
    return BlockTexts(found)


def _measure(part: Slice, windows: np.ndarray, kl: np.ndarray) -> TextDamage:
    here = (windows >= part.span.start) & (windows < part.span.stop)
    mean = float(kl[here].mean()) if here.any() else None
    return TextDamage(part.text, len(np.unique(windows[here])), mean)
