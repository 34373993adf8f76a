"""The sweep: many partly quantized models measured in one pass over the weights.

A *branch* differs from the reference and from the uniform model by what one block does. Block j is
read once and quantized once, and every live stream goes through it before it is dropped: the two
trunks (reference and uniform), the branches born earlier, and those born at j. A branch through L
blocks thus costs L − j block-forwards instead of L, and three views of every block 3L²/2 instead
of 3L². Final hidden states are kept, never logits of a whole set.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from awqscope.diagnose.machine.memory import return_freed_heap
from awqscope.diagnose.statistics.likelihood import TokenScores
from awqscope.diagnose.sweep.branches import (
    REFERENCE,
    UNIFORM,
    Branch,
    Sweepable,
    follows_uniform,
    share_streams,
)
from awqscope.diagnose.sweep.likely_rows import HeadLog
from awqscope.diagnose.sweep.ranges import (
    OUTPUT,
    OUTSIDE,
    EndWatch,
    RangeLog,
    RangeWatch,
    largest,
)
from awqscope.diagnose.sweep.scoring import score_streams
from awqscope.diagnose.sweep.swappable import Bases, Swappable
from awqscope.mixedprec.awq.search import check_finite
from awqscope.mixedprec.foreign.differences import EMBEDDINGS
from awqscope.mixedprec.models.forward import advance, enter_blocks, move, run_block
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import (
    CPU,
    Stream,
    StreamSpace,
    in_memory,
    list_batches,
)
from awqscope.mixedprec.scheme import LinearWidths

Observer = Callable[[int, str, Tensor, Tensor], None]
Inspector = Callable[[int, str, Tensor, Tensor], None]


class _Capture:
    """Records the input of every unit during one forward of a block."""

    def __init__(self, swappable: Swappable, model: SourceModel):
        self.inputs: dict[str, Tensor] = {}
        self._handles = [
            swappable.block.get_submodule(kind.observed).register_forward_pre_hook(
                # Of products in bfloat16 it may be of that type.
                lambda _, args, name=kind.name: self.inputs.__setitem__(name, args[0].float())
            )
            for kind in model.family.units
        ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def _advance_trunks(
    model: SourceModel,
    number: int,
    swappable: Swappable,
    quantized: dict[str, Tensor],
    bases: Bases,
    trunks: dict[str, Stream],
    kwargs: dict[str, Any],
    observe: Observer | None,
    ranges: RangeLog | None,
    device: torch.device,
) -> None:
    """Both trunks through block `number`, batch by batch side by side so that they can be compared
    where they are: at the input of each unit and at the block's output."""
    if observe is None and ranges is None:
        swappable.use({})
        advance(swappable.block, trunks[REFERENCE], kwargs)
        if UNIFORM in trunks:
            swappable.use(quantized)
            advance(swappable.block, trunks[UNIFORM], kwargs)
        return
    capture = _Capture(swappable, model)
    watch = RangeWatch(swappable.block) if ranges else None
    for part in list_batches(trunks[REFERENCE]):
        swappable.use({})
        reference = run_block(swappable.block, trunks[REFERENCE].read(part).to(device), kwargs)
        expected = dict(capture.inputs)
        if ranges and watch:
            seen = watch.take({}) | {("", OUTPUT): largest(reference).amax(1)}
            ranges.note(number, REFERENCE, part, seen)
        swappable.use(quantized)
        uniform = run_block(swappable.block, trunks[UNIFORM].read(part).to(device), kwargs)
        if ranges and watch:
            seen = watch.take(bases) | {("", OUTPUT): largest(uniform).amax(1)}
            ranges.note(number, UNIFORM, part, seen)
        if observe is not None:
            for site, values in expected.items():
                observe(number, site, values, capture.inputs[site])
            observe(number, "output", reference, uniform)
        # A block may give its linears the stream itself: only now may it change.
        trunks[REFERENCE].write(part, reference)
        trunks[UNIFORM].write(part, uniform)
    capture.remove()
    if watch:
        watch.remove()


@torch.no_grad()
def run_sweep(
    model: SourceModel,
    windows: Tensor,
    sweep: Sweepable,
    *,
    observe: Observer | None = None,
    inspect: Inspector | None = None,
    ranges: RangeLog | None = None,
    log: HeadLog | None = None,
    with_uniform: bool = True,
    on_block: Callable[[int], None] = lambda done: None,
    on_head: Callable[[int], None] = lambda done: None,
    device: torch.device = CPU,
    space: StreamSpace | None = None,
) -> dict[str, TokenScores]:
    """Scores of the reference, the uniform model and every branch on `windows` [n, length]; of the
    first two with the likeliest tokens.

    observe(block, site, reference, uniform): called with activations [batch, length, channels] of
    both trunks at each unit's input and each block's output. inspect(block, linear, reference,
    effective): called with both weights [N, K] of each linear that the uniform model quantizes.
    ranges: takes in the largest values of both trunks, of the uniform one as it is served. log:
    takes in how exact the branches' scores are. with_uniform: whether the uniform model is scored;
    branches alone that it is no part of do without it.
    on_block: told the blocks done. on_head: told, after all blocks, the windows scored. device:
    what computes. space: where streams are kept; None for memory. InputError for activations that
    are not finite.
    """
    shared = share_streams(sweep, model)
    space = space or in_memory()
    reference, all_kwargs = enter_blocks(model, windows, space)
    outside = sweep.outside
    trunks: dict[str, Stream] = {REFERENCE: reference}
    if with_uniform:
        entered = enter_blocks(outside, windows, space)[0] if outside else space.copy(reference)
        trunks[UNIFORM] = entered
    if ranges:
        for trunk, stream in trunks.items():
            for part in list_batches(stream):
                seen = {(EMBEDDINGS, OUTPUT): largest(stream.read(part)).amax(1)}
                ranges.note(OUTSIDE, trunk, part, seen)
    unique = dict.fromkeys(s for s in shared.values() if isinstance(s, Branch))
    streams: dict[Branch, Stream] = {}
    for number in range(model.blocks):
        swappable = sweep.read(model, number, device)
        kwargs = move(all_kwargs[number], device)
        low = sweep.uniform(model, number)
        here = [branch for branch in unique if branch.block == number]
        # What the uniform trunk is after this block, and need not go through it again.
        alike = [branch for branch in here if follows_uniform(sweep, model, branch)]
        born = _begin_branches(
            [branch for branch in here if branch not in alike],
            trunks,
            swappable,
            low,
            kwargs,
            space,
        )
        quantized = swappable.weights(low)
        if inspect is not None:
            for name, weight, effective in swappable.pairs(quantized):
                inspect(number, name, weight, effective)
        _advance_trunks(
            model,
            number,
            swappable,
            quantized,
            swappable.bases(low),
            trunks,
            kwargs,
            observe,
            ranges,
            device,
        )
        born |= {branch: space.copy(trunks[UNIFORM]) for branch in alike}
        for trunk, weights in {REFERENCE: {}, UNIFORM: quantized}.items():
            if trunk not in trunks:
                continue
            check_finite(trunks[trunk], f"the output of {model.prefix(number)} ({trunk})")
            swappable.use(weights)
            for branch, stream in streams.items():
                if branch.suffix == trunk:
                    advance(swappable.block, stream, kwargs)
        streams |= born
        del swappable, quantized, weights  # before the next is read: one at a time
        return_freed_heap()
        on_block(number + 1)
    finals = trunks | {
        name: trunks[source] if isinstance(source, str) else streams[source]
        for name, source in shared.items()
    }
    return _score_all(model, sweep, windows, finals, ranges, log, on_head, device)


def _begin_branches(
    branches: Iterable[Branch],
    trunks: Mapping[str, Stream],
    swappable: Swappable,
    low: LinearWidths,
    kwargs: dict[str, Any],
    space: StreamSpace,
) -> dict[Branch, Stream]:
    """The streams of the branches that leave their trunk at a block, after it. low: the block's
    widths in the uniform model, whose weights are kept."""
    born = {}
    for branch in branches:
        born[branch] = space.copy(trunks[branch.prefix])
        widths = dict(branch.widths)
        swappable.use(swappable.copies() if branch.is_control else swappable.weights(widths))
        advance(swappable.block, born[branch], kwargs)
        if widths != low:
            swappable.forget(widths)
    return born


def _score_all(
    model: SourceModel,
    sweep: Sweepable,
    windows: Tensor,
    finals: Mapping[str, Stream],
    ranges: RangeLog | None,
    log: HeadLog | None,
    on_head: Callable[[int], None],
    device: torch.device,
) -> dict[str, TokenScores]:
    """Scores of every final stream, with the head of the trunk that it ended on."""
    head, heads = model.read_head(device), {}
    trunks = [trunk for trunk in (REFERENCE, UNIFORM) if trunk in finals]
    if sweep.outside is not None:
        other = sweep.outside.read_head(device)
        after = {branch.name: branch.suffix for branch in sweep.branches} | {UNIFORM: UNIFORM}
        heads = {name: other for name in finals if after.get(name) == UNIFORM}
    return score_streams(
        head,
        windows,
        finals,
        model.config.vocab_size,
        ranked=trunks,
        heads=heads,
        trunks=trunks,
        log=log,
        ends=EndWatch(ranges, model.family.norm) if ranges else None,
        on_window=on_head,
        device=device,
    )
