"""Where a candidate differs from its reference besides the linears of its blocks: outside the
blocks, and in the other parameters inside one, such as norms and biases."""

import torch
from torch import nn

from awqscope.mixedprec.foreign.candidate import Candidate
from awqscope.mixedprec.models.catalogue import stored_name
from awqscope.mixedprec.models.source import SourceModel

EMBEDDINGS, HEAD = "embeddings", "head"
ROWS_AT_ONCE = 4096


def differing_places(reference: SourceModel, candidate: Candidate) -> tuple[str, ...]:
    """Where the two differ outside the blocks: of EMBEDDINGS and HEAD, the final norm included."""
    blocks, norm = reference.family.blocks + ".", reference.family.norm + "."
    names = [n for n, _ in reference.shell.named_parameters() if not n.startswith(blocks)]
    after = [name for name in names if name.startswith((norm, "lm_head."))]
    before = [name for name in names if name not in after]
    places = []
    if any(not _equal(reference, name, candidate, name) for name in before):
        places.append(EMBEDDINGS)
    after = [name for name in after if name != "lm_head.weight"]
    heads = [_head_name(model) for model in (reference, candidate)]
    if any(not _equal(reference, name, candidate, name) for name in after) or not _equal(
        reference, heads[0], candidate, heads[1]
    ):
        places.append(HEAD)
    return tuple(places)


def rebased_blocks(reference: SourceModel, candidate: Candidate) -> frozenset[int]:
    """Blocks in which more differs than linears' weights: scales folded into norms and biases, so
    that a linear's weight and input are no longer what they are in the reference."""
    start = reference.family.blocks + "."
    weights = {
        f"{name}.weight"
        for name, module in reference.shell.named_modules()
        if isinstance(module, nn.Linear)
    }
    return frozenset(
        int(name.removeprefix(start).partition(".")[0])
        for name, _ in reference.shell.named_parameters()
        if name.startswith(start)
        and name not in weights
        and not _equal(reference, name, candidate, name)
    )


def _head_name(model: SourceModel) -> str:
    """The parameter whose weight the head multiplies with: its own, or the tied embedding's."""
    packed = isinstance(model, Candidate) and "lm_head" in model.codings
    tied = model.tied and not packed
    return model.family.embedding + ".weight" if tied else "lm_head.weight"


def _equal(one: SourceModel, name: str, other: SourceModel, twin: str) -> bool:
    """Whether two parameters hold the same values, whatever types they are stored in."""
    ours, theirs = (
        next(iter(model.read([stored_name(full, model.tensors)]).values()))
        for model, full in ((one, name), (other, twin))
    )
    rows = zip(ours.split(ROWS_AT_ONCE), theirs.split(ROWS_AT_ONCE), strict=True)
    return all(torch.equal(a.float(), b.float()) for a, b in rows)
