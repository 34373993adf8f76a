"""A model measured against its reference on a text: whole, and each block alone."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from awqscope.diagnose.statistics.likelihood import TokenScores
from awqscope.diagnose.studies.alternatives.making import Made, ReadBlock
from awqscope.diagnose.sweep.branches import REFERENCE, Branch, view_name
from awqscope.diagnose.sweep.one_pass import run_sweep
from awqscope.diagnose.sweep.scoring import score_streams
from awqscope.diagnose.sweep.swappable import Swappable
from awqscope.diagnose.sweep.whole_blocks import WHOLE, WholeBlock
from awqscope.mixedprec.awq.search import check_finite
from awqscope.mixedprec.models.forward import advance, enter_blocks
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import CPU, Stream, StreamSpace
from awqscope.mixedprec.scheme import LinearWidths

IT = "it"

OnBlock = Callable[[int], None]


@torch.no_grad()
def run_whole(
    model: SourceModel,
    windows: Tensor,
    read_block: ReadBlock,
    outside: SourceModel | None,
    space: StreamSpace,
    on_block: OnBlock = lambda done: None,
) -> Stream:
    """Final hidden states of `windows` [n, length], with blocks that `read_block` gives and the
    embeddings of `outside`, None for the model's. InputError for activations that are not
    finite."""
    hidden, all_kwargs = enter_blocks(outside or model, windows, space)
    for number in range(model.blocks):
        block = read_block(number)
        advance(block, hidden, all_kwargs[number])
        check_finite(hidden, f"the output of {model.prefix(number)}")
        del block  # before the next is read: one at a time
        on_block(number + 1)
    return hidden


def score_reference(model: SourceModel, windows: Tensor, final: Stream) -> TokenScores:
    """Scores of the reference's own final states, whose KL is zero."""
    vocabulary = model.config.vocab_size
    return score_streams(model.read_head(), windows, {REFERENCE: final}, vocabulary)[REFERENCE]


def score_whole(
    model: SourceModel, windows: Tensor, reference: Stream, made: Made, hidden: Stream
) -> TokenScores:
    """Scores of an alternative's final states against the reference's."""
    heads = {IT: made.outside.read_head()} if made.outside else {}
    finals = {REFERENCE: reference, IT: hidden}
    vocabulary = model.config.vocab_size
    return score_streams(model.read_head(), windows, finals, vocabulary, heads=heads)[IT]


@dataclass(frozen=True)
class AloneSweep:
    """The sweep of an alternative's blocks, each alone in the reference."""

    read_block: ReadBlock
    branches: tuple[Branch, ...]

    @property
    def outside(self) -> None:
        """Embeddings and head stay the reference's."""

    def only(self, branches: tuple[Branch, ...]) -> "AloneSweep":
        """The same with these branches alone."""
        return replace(self, branches=branches)

    def uniform(self, model: SourceModel, block: int) -> LinearWidths:
        """Every block is the alternative's, whole."""
        return WHOLE

    def read(self, model: SourceModel, block: int, device: torch.device = CPU) -> Swappable:
        """Block `block` of both models."""
        theirs = self.read_block(block).to(device)
        return WholeBlock(model.read_block(block, device), theirs, rebased=False)


def score_alone(
    model: SourceModel,
    windows: Tensor,
    read_block: ReadBlock,
    space: StreamSpace,
    on_block: OnBlock = lambda done: None,
) -> list[TokenScores]:
    """Scores of each block of an alternative alone in the reference, on `windows` [n, length]."""
    swapped = tuple(WHOLE.items())
    branches = tuple(
        Branch(view_name("isolated", block), block, REFERENCE, swapped, REFERENCE)
        for block in range(model.blocks)
    )
    sweep = AloneSweep(read_block, branches)
    scores = run_sweep(model, windows, sweep, with_uniform=False, on_block=on_block, space=space)
    return [scores[branch.name] for branch in branches]
