"""Any mixes of widths on any texts, in one pass over the weights.

The sweep's branches change one block, on windows of one length. Here a variant may give every unit
a width of its own and has its own text. Variants share a stream for as long as text and widths
agree, so that what differs only late in the depth costs little.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from awqscope.diagnose.sweep.swappable import read_swappable
from awqscope.mixedprec.awq.search import check_finite
from awqscope.mixedprec.models.forward import advance
from awqscope.mixedprec.models.served import Ends
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.scheme import UnitWidths, Width, list_quantized

Mix = tuple[tuple[str, Width], ...]


@dataclass(frozen=True)
class Variant:
    """A model on a text. tokens: ids. bits: widths of units by name; those not named are the
    reference's. stored: whether embeddings, final norm and head are as a checkpoint stores them."""

    tokens: tuple[int, ...]
    bits: UnitWidths
    stored: bool


def block_mix(model: SourceModel, widths: UnitWidths, number: int) -> Mix:
    """(linear, width) inside block `number`, of the units that `widths` names."""
    return tuple(
        (linear, widths[f"{number}.{kind.name}"])
        for kind in model.family.units
        for linear in kind.linears
        if f"{number}.{kind.name}" in widths
    )


@torch.no_grad()
def run_variants(
    model: SourceModel,
    ends: Ends,
    variants: Sequence[Variant],
    searches: Path,
    *,
    on_block: Callable[[int], None] = lambda done: None,
) -> list[Tensor]:
    """Final hidden states [1, tokens, d] of each variant. InputError for activations that are not
    finite."""
    differ = ends.entrances[True] is not ends.entrances[False]
    starts = [(variant.tokens, variant.stored and differ) for variant in variants]
    numbers = {start: number for number, start in enumerate(dict.fromkeys(starts))}
    lengths = {len(text) for text, _ in numbers}
    kwargs = {length: ends.entrances[False].block_kwargs(length) for length in lengths}
    streams = [ends.entrances[stored].enter(torch.tensor([text])) for text, stored in numbers]
    owners = [numbers[start] for start in starts]
    widths = list_quantized(w for variant in variants for w in variant.bits.values())
    for number in range(model.blocks):
        swappable = read_swappable(model, number, searches, widths)
        mixes = [block_mix(model, variant.bits, number) for variant in variants]
        grown: dict[tuple[Mix, int], Tensor] = {}
        for mix, members in _group(mixes, owners):
            swappable.use(swappable.weights(dict(mix)))
            for owner in members:
                stream = streams[owner].clone()
                advance(swappable.block, stream, kwargs[stream.shape[1]][number])
                check_finite(stream, f"the output of {model.prefix(number)}")
                grown[mix, owner] = stream
            swappable.forget(dict(mix))
        order = {key: number for number, key in enumerate(grown)}
        owners = [order[mix, owner] for mix, owner in zip(mixes, owners, strict=True)]
        streams = list(grown.values())
        del swappable  # before the next is read: one at a time
        on_block(number + 1)
    return [streams[owner] for owner in owners]


def _group(mixes: Sequence[Mix], owners: Sequence[int]) -> Iterator[tuple[Mix, list[int]]]:
    """Each mix with the streams that go through it."""
    members: dict[Mix, dict[int, None]] = {}
    for mix, owner in zip(mixes, owners, strict=True):
        members.setdefault(mix, {})[owner] = None
    for mix, streams in members.items():
        yield mix, list(streams)


def split_variants(
    variants: Sequence[Variant], hidden_size: int, budget: int
) -> list[list[Variant]]:
    """Consecutive variants whose streams, before and after a block, fit in `budget` bytes; at least
    one at a time."""
    parts: list[list[Variant]] = []
    room = 0
    for variant in variants:
        size = len(variant.tokens) * hidden_size * 4 * 2
        if not parts or size > room:
            parts.append([])
            room = budget
        parts[-1].append(variant)
        room -= size
    return parts
