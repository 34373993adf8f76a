"""What weights of one block cost the model in KL: these alone in the reference's place, all else as
it is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from awqscope.diagnose.machine.memory import return_freed_heap
from awqscope.diagnose.sweep.branches import REFERENCE
from awqscope.diagnose.sweep.scoring import score_streams
from awqscope.diagnose.sweep.swappable import SwappableBlock
from awqscope.mixedprec.awq.search import check_finite
from awqscope.mixedprec.models.ends import Head
from awqscope.mixedprec.models.forward import advance
from awqscope.mixedprec.models.source import SourceModel

Weights = Mapping[str, Tensor]


def reach_block(
    model: SourceModel,
    number: int,
    hidden: Tensor,
    all_kwargs: Sequence[dict[str, Any]],
    on_block: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """The reference's stream before block `number`, from the one before the first [n, T, d]."""
    reached = hidden.clone()
    for before in range(number):
        advance(model.read_block(before), reached, all_kwargs[before])
        on_block(before + 1)
    return reached


@torch.no_grad()
def measure_damage(
    model: SourceModel,
    number: int,
    swappable: SwappableBlock,
    head: Head,
    windows: Tensor,
    hidden: Tensor,
    all_kwargs: Sequence[dict[str, Any]],
    variants: Mapping[str, Weights],
    on_block: Callable[[int], None] = lambda done: None,
) -> dict[str, list[float]]:
    """KL of each variant of block `number`, by window, nats a token. swappable: that block;
    windows: token ids [n, T]; hidden: what enters the block [n, T, d]. on_block: told the blocks
    done after it, and the head, which counts as one. InputError for activations that are not
    finite."""
    streams: dict[str, Tensor] = {}
    for name, weights in {REFERENCE: {}, **variants}.items():
        swappable.use(weights)
        streams[name] = hidden.clone()
        advance(swappable.block, streams[name], all_kwargs[number])
        check_finite(streams[name], f"the output of {model.prefix(number)}")
    swappable.use({})
    for later in range(number + 1, model.blocks):
        block = model.read_block(later)
        for stream in streams.values():
            advance(block, stream, all_kwargs[later])
        del block  # before the next is read: one at a time
        return_freed_heap()
        on_block(later - number)
    scores = score_streams(head, windows, streams, model.config.vocab_size, trunks=(REFERENCE,))
    on_block(model.blocks - number)
    return {name: scores[name].kl.double().mean(1).tolist() for name in variants}
