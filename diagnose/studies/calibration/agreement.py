"""How far two searches of a model chose alike: scale ratios by linear group, and clipping levels.

Ratios are compared as they are. A clip is a largest weight once the search's own scales are in, so
that two clips are comparable only as levels: how many of autoawq's steps of 5% they are below the
largest weight of their group.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from awqscope.diagnose.studies.calibration.answer import Agreement, GroupAgreement
from awqscope.mixedprec.awq.choices import BlockSearch, load_search, search_path
from awqscope.mixedprec.awq.clipping import CLIP_LEVELS, CLIP_STEP
from awqscope.mixedprec.models.forward import get_linear
from awqscope.mixedprec.models.source import SourceModel


@torch.no_grad()
def compare_searches(
    model: SourceModel,
    one: Path,
    other: Path,
    bits: int,
    on_block: Callable[[int], None] = lambda done: None,
) -> Agreement:
    """How far the searches in two folders agree at a width."""
    differences: dict[str, list[float]] = {}
    levels = torch.zeros(CLIP_LEVELS, dtype=torch.long)
    for number in range(model.blocks):
        first, second = (load_search(search_path(folder, number, bits)) for folder in (one, other))
        for choice in first.scales:
            twin = second.choice_for(choice.group.linears[0])
            if twin is not None:
                kind = _name_kind(model, choice.group.linears[0])
                differences.setdefault(kind, []).append(abs(choice.ratio - twin.ratio))
        block = model.read_block(number)
        for name in first.clips.keys() & second.clips.keys():
            weight = get_linear(block, name).weight.data
            mine, theirs = (read_levels(search, name, weight) for search in (first, second))
            levels += torch.bincount((mine - theirs).abs().flatten(), minlength=CLIP_LEVELS)
        on_block(number + 1)
    order = [kind.name for kind in model.family.units if kind.name in differences]
    total = int(levels.sum())
    return Agreement(
        bits=bits,
        groups=tuple(
            GroupAgreement(
                kind=kind,
                equal=sum(value == 0 for value in differences[kind]),
                of=len(differences[kind]),
                apart=sum(differences[kind]) / len(differences[kind]),
            )
            for kind in order
        ),
        clips=tuple((levels / total).tolist()) if total else (),
    )


def read_levels(search: BlockSearch, linear: str, weight: Tensor) -> Tensor:
    """The clipping level of each weight group [N, G] of a linear [N, K]: 0 where nothing is cut, to
    CLIP_LEVELS − 1."""
    clip, choice = search.clips[linear], search.choice_for(linear)
    scaled = weight if choice is None else weight * choice.scales
    scaled = scaled / search.row_scales(linear, len(weight))[:, None]
    largest = scaled.reshape(*clip.shape, -1).abs().amax(-1)
    # A group of zeros has nothing to cut.
    kept = torch.where(largest > 0, clip / largest, 1.0)
    return ((1 - kept) / CLIP_STEP).round().long().clamp(0, CLIP_LEVELS - 1)


def _name_kind(model: SourceModel, linear: str) -> str:
    """The kind of unit that a linear is in."""
    return next(kind.name for kind in model.family.units if linear in kind.linears)
