"""The sweep: many partly quantized models measured in one pass over the weights.

A *branch* differs from the reference and from the uniform model by what one block does. Block j is
read once and quantized once, and every live stream goes through it before it is dropped: the two
trunks (reference and uniform), the branches born earlier, and those born at j. A branch through L
blocks thus costs L − j block-forwards instead of L, and three views of every block 3L²/2 instead
of 3L². Final hidden states are kept, never logits of a whole set.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from diagnose.likelihood import (
    TOP_TOKENS,
    TokenScores,
    empty_scores,
    prepare_reference,
    rank_tokens,
    score,
    tokens_a_chunk,
)
from diagnose.memory import return_freed_heap
from diagnose.quantized import (
    Swappable,
    Widths,
    read_swappable,
    uniform_widths,
)
from mixedprec.block_search import check_finite
from mixedprec.model import (
    Head,
    SourceModel,
    advance,
    enter_blocks,
    move,
    run_block,
)
from mixedprec.scheme import FP16_BITS
from mixedprec.streams import (
    CPU,
    Stream,
    StreamSpace,
    are_equal,
    as_stream,
    in_memory,
    list_batches,
    list_slices,
)

Trunk = Literal["reference", "uniform"]
REFERENCE: Trunk = "reference"
UNIFORM: Trunk = "uniform"
CONTROL = "control"


@dataclass(frozen=True)
class Branch:
    """A model that follows the trunk `prefix` up to `block`, gives that block's linears `widths`
    (16 is the reference weight), and follows the trunk `suffix`'s weights after it. Where the
    trunks' embeddings and heads differ, those before and after the blocks go with them."""

    name: str
    block: int
    prefix: Trunk
    widths: tuple[tuple[str, int], ...]
    suffix: Trunk


class Sweepable(Protocol):
    """What is swept: the uniform model, wherever its blocks come from, and the branches.

    outside: the model whose embeddings and head the uniform model has, None for the reference's.
    """

    @property
    def branches(self) -> tuple[Branch, ...]: ...

    @property
    def outside(self) -> SourceModel | None: ...

    def uniform(self, model: SourceModel, block: int) -> Widths:
        """The widths that are block `block` of the uniform model."""
        ...

    def read(self, model: SourceModel, block: int, device: torch.device = CPU) -> Swappable:
        """Block `block` of the reference `model` on `device`, for any widths of the plan."""
        ...


@dataclass(frozen=True)
class Plan:
    """What is swept: the uniform model (bits, units kept at 16) and the branches off the trunks.

    searches: folder of AWQ searches. bits: every width that branches use.
    """

    low: int
    bits: tuple[int, ...]
    kept: frozenset[str]
    searches: Path
    branches: tuple[Branch, ...]
    outside: SourceModel | None = None

    def uniform(self, model: SourceModel, block: int) -> Widths:
        """Linear -> bits of block `block` of the uniform model."""
        return uniform_widths(model, self.low, self.kept, block)

    def read(self, model: SourceModel, block: int, device: torch.device = CPU) -> Swappable:
        """Block `block` with its searches."""
        return read_swappable(model, block, self.searches, self.bits, device)


Observer = Callable[[int, str, Tensor, Tensor], None]
Inspector = Callable[[int, str, Tensor, Tensor], None]


def view_name(view: str, place: int | str) -> str:
    """The name of a branch that is the view of a block, or of a place outside of them
    ("isolated.3")."""
    return f"{view}.{place}"


def _freeze(widths: Widths) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(widths.items()))


def block_branches(model: SourceModel, low: int, kept: frozenset[str]) -> tuple[Branch, ...]:
    """The three views of every block, and the control: a block swapped with itself."""
    return view_branches([uniform_widths(model, low, kept, n) for n in range(model.blocks)])


def view_branches(uniform: Sequence[Widths]) -> tuple[Branch, ...]:
    """The same for a uniform model with these widths in each block."""
    branches = []
    for block, widths in enumerate(uniform):
        quantized = _freeze(widths)
        kept_whole = reference_widths(widths)
        branches += [
            Branch(view_name("isolated", block), block, REFERENCE, quantized, REFERENCE),
            Branch(view_name("cumulative", block), block, UNIFORM, quantized, REFERENCE),
            Branch(view_name("restored", block), block, UNIFORM, kept_whole, UNIFORM),
        ]
    middle = len(uniform) // 2
    branches.append(
        Branch(CONTROL, middle, REFERENCE, reference_widths(uniform[middle]), REFERENCE)
    )
    return tuple(branches)


def reference_widths(widths: Widths) -> tuple[tuple[str, int], ...]:
    """The reference's own widths for whatever `widths` quantizes."""
    return _freeze(dict.fromkeys(widths, FP16_BITS))


def _share_streams(plan: Sweepable, model: SourceModel) -> dict[str, Branch | Trunk]:
    """Branch name -> the branch whose stream it shares (itself, an equal one, or a trunk)."""
    last = model.blocks - 1
    alike = plan.outside is None
    shared: dict[str, Branch | Trunk] = {}
    seen: dict[Branch, Branch] = {}
    for branch in plan.branches:
        block, prefix, suffix = branch.block, branch.prefix, branch.suffix
        widths = dict(branch.widths)
        if (
            alike
            and block == last
            and block > 0
            and prefix == UNIFORM
            and set(widths.values()) == {FP16_BITS}
        ):
            # All but the last block quantized: quantized up to the block before it.
            block, suffix = last - 1, REFERENCE
            widths = dict(plan.uniform(model, block))
        if alike and block == 0:
            prefix = REFERENCE
        if alike and block == last:
            suffix = prefix
        uniform = widths == plan.uniform(model, block)
        plain = Branch("", block, prefix, _freeze(widths), suffix)
        if branch.name == CONTROL:
            shared[branch.name] = branch
        elif block == last and prefix == suffix == UNIFORM and uniform:
            shared[branch.name] = UNIFORM
        else:
            shared[branch.name] = seen.setdefault(plain, branch)
    return shared


def count_streams(model: SourceModel, plan: Sweepable) -> int:
    """Streams alive at the end of the sweep."""
    unique = set(_share_streams(plan, model).values()) - {REFERENCE, UNIFORM}
    return len(unique) + 2


class _Capture:
    """Records the input of every unit during one forward of a block."""

    def __init__(self, swappable: Swappable, model: SourceModel):
        self.inputs: dict[str, Tensor] = {}
        self._handles = [
            swappable.block.get_submodule(kind.observed).register_forward_pre_hook(
                lambda _, args, name=kind.name: self.inputs.__setitem__(name, args[0])
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
    trunks: dict[str, Stream],
    kwargs: dict[str, Any],
    observe: Observer | None,
    device: torch.device,
) -> None:
    """Both trunks through block `number`, batch by batch side by side so that they can be compared
    where they are: at the input of each unit and at the block's output."""
    if observe is None:
        swappable.use({})
        advance(swappable.block, trunks[REFERENCE], kwargs)
        swappable.use(quantized)
        advance(swappable.block, trunks[UNIFORM], kwargs)
        return
    capture = _Capture(swappable, model)
    for part in list_batches(trunks[REFERENCE]):
        swappable.use({})
        reference = run_block(swappable.block, trunks[REFERENCE].read(part).to(device), kwargs)
        expected = dict(capture.inputs)
        swappable.use(quantized)
        uniform = run_block(swappable.block, trunks[UNIFORM].read(part).to(device), kwargs)
        for site, values in expected.items():
            observe(number, site, values, capture.inputs[site])
        observe(number, "output", reference, uniform)
        # A block may give its linears the stream itself: only now may it change.
        trunks[REFERENCE].write(part, reference)
        trunks[UNIFORM].write(part, uniform)
    capture.remove()


@torch.no_grad()
def run_sweep(
    model: SourceModel,
    windows: Tensor,
    plan: Sweepable,
    *,
    observe: Observer | None = None,
    inspect: Inspector | None = None,
    on_block: Callable[[int], None] = lambda done: None,
    device: torch.device = CPU,
    space: StreamSpace | None = None,
) -> dict[str, TokenScores]:
    """Scores of the reference, the uniform model and every branch on `windows` [n, length]; of the
    first two with the likeliest tokens.

    observe(block, site, reference, uniform): called with activations [batch, length, channels] of
    both trunks at each unit's input and each block's output. inspect(block, linear, reference,
    effective): called with both weights [N, K] of each linear that the uniform model quantizes.
    on_block: told the blocks done; the head counts as one more. device: what computes. space: where
    streams are kept; None for memory. InputError for activations that are not finite.
    """
    shared = _share_streams(plan, model)
    space = space or in_memory()
    hidden, all_kwargs = enter_blocks(model, windows, space)
    if plan.outside is None:
        uniform = space.copy(hidden)
    else:
        uniform = enter_blocks(plan.outside, windows, space)[0]
    trunks: dict[str, Stream] = {REFERENCE: hidden, UNIFORM: uniform}
    unique = dict.fromkeys(s for s in shared.values() if isinstance(s, Branch))
    streams: dict[Branch, Stream] = {}
    for number in range(model.blocks):
        swappable = plan.read(model, number, device)
        kwargs = move(all_kwargs[number], device)
        low = plan.uniform(model, number)
        alive = list(streams)
        for branch in unique:
            if branch.block != number:
                continue
            streams[branch] = space.copy(trunks[branch.prefix])
            widths = dict(branch.widths)
            control = branch.name == CONTROL
            swappable.use(swappable.copies(widths) if control else swappable.weights(widths))
            advance(swappable.block, streams[branch], kwargs)
            if widths != low:
                swappable.forget(widths)
        quantized = swappable.weights(low)
        if inspect is not None:
            for name, weight, effective in swappable.pairs(quantized):
                inspect(number, name, weight, effective)
        _advance_trunks(model, number, swappable, quantized, trunks, kwargs, observe, device)
        for trunk, weights in ((REFERENCE, {}), (UNIFORM, quantized)):
            check_finite(trunks[trunk], f"the output of {model.prefix(number)} ({trunk})")
            swappable.use(weights)
            for branch in alive:
                if branch.suffix == trunk:
                    advance(swappable.block, streams[branch], kwargs)
        del swappable, quantized, weights  # before the next is read: one at a time
        return_freed_heap()
        on_block(number + 1)
    finals = {name: trunks[name] for name in trunks}
    finals |= {
        name: trunks[source] if isinstance(source, str) else streams[source]
        for name, source in shared.items()
    }
    head, heads = model.read_head(device), {}
    if plan.outside is not None:
        other = plan.outside.read_head(device)
        after = {branch.name: branch.suffix for branch in plan.branches} | {UNIFORM: UNIFORM}
        heads = {name: other for name, suffix in after.items() if suffix == UNIFORM}
    scores = score_streams(
        head,
        windows,
        finals,
        model.config.vocab_size,
        ranked=(REFERENCE, UNIFORM),
        heads=heads,
        device=device,
    )
    on_block(model.blocks + 1)
    return scores


@torch.no_grad()
def score_streams(
    head: Head,
    windows: Tensor,
    finals: Mapping[str, Stream | Tensor],
    vocabulary: int,
    *,
    ranked: Collection[str] = (),
    heads: Mapping[str, Head] = {},
    device: torch.device = CPU,
) -> dict[str, TokenScores]:
    """Scores of final hidden states [n, length, d] by name, against the one named "reference".
    Those named in `ranked` come with their likeliest tokens; those in `heads` have that head. The
    heads are on `device`, the scores on the CPU.

    Streams that are one object under several names are scored once a head; so is one that equals
    the reference's to the last bit (the control should).
    """
    count, length = windows.shape
    streams = {name: as_stream(stream) for name, stream in finals.items()}
    keys = {name: (id(stream), name in heads) for name, stream in finals.items()}
    owners: dict[tuple[int, bool], str] = {keys[REFERENCE]: REFERENCE}
    for name, stream in finals.items():
        known = keys[name] in owners or name in heads
        equal = not known and are_equal(as_stream(stream), streams[REFERENCE])
        owners.setdefault(keys[name], REFERENCE if equal else name)
    top = {owners[keys[name]] for name in ranked}
    scores = {
        name: empty_scores(count, length, TOP_TOKENS if name in top else 0)
        for name in dict.fromkeys(owners.values())
    }
    step = tokens_a_chunk(vocabulary)
    for window in range(count):
        for start in range(0, length - 1, step):
            here = slice(start, min(start + step, length - 1))
            targets = windows[window, here.start + 1 : here.stop + 1].to(device)

            def read(name: str, window: int = window, here: slice = here) -> Tensor:
                states = streams[name].read(slice(window, window + 1), here)
                return heads.get(name, head)(states.to(device))[0].float()

            reference = prepare_reference(read(REFERENCE))
            for name, found in scores.items():
                logits = reference.logits if name == REFERENCE else read(name)
                nll, kl, agree = score(reference, logits, targets)
                found.nll[window, here] = nll.cpu()
                found.kl[window, here] = kl.cpu()
                found.agree[window, here] = agree.cpu()
                if name in top:
                    tokens, probabilities = rank_tokens(logits)
                    found.top_tokens[window, here] = tokens.int().cpu()
                    found.top_probabilities[window, here] = probabilities.cpu()
    return {name: scores[owners[key]] for name, key in keys.items()}


def list_chunks(count: int, size: int) -> list[slice]:
    """Consecutive slices of at most `size` of `count` windows."""
    return list_slices(count, size)


def list_subsets(items: Sequence[str]) -> list[tuple[str, ...]]:
    """Every non-empty subset, smaller ones first."""
    masks = sorted(range(1, 2 ** len(items)), key=lambda mask: (mask.bit_count(), mask))
    return [tuple(x for i, x in enumerate(items) if mask >> i & 1) for mask in masks]
