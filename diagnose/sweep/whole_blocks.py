"""A candidate in the sweep: its blocks swapped whole for the reference's.

What flows between blocks is the same quantity in both models, whatever scales the candidate's maker
folded into norms and linears inside of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from awqscope.diagnose.sweep.branches import REFERENCE, UNIFORM, Branch, view_branches, view_name
from awqscope.diagnose.sweep.swappable import Bases, Swappable
from awqscope.mixedprec.foreign.candidate import Candidate
from awqscope.mixedprec.foreign.differences import (
    EMBEDDINGS,
    HEAD,
    differing_places,
    rebased_blocks,
)
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import CPU
from awqscope.mixedprec.scheme import LinearWidths

# The block itself, as one thing that is the candidate's or, not named, the reference's.
WHOLE: LinearWidths = {"": 0}


class WholeBlock:
    """A block of the reference with the candidate's parameters beside it, all by name.

    rebased: whether the candidate's linears take other inputs than the reference's."""

    def __init__(self, block: nn.Module, candidate: nn.Module, rebased: bool):
        self.block = block
        self._reference = {name: p.data for name, p in block.named_parameters()}
        self._candidate = {name: p.data for name, p in candidate.named_parameters()}
        self._rebased = rebased

    def weights(self, widths: LinearWidths) -> dict[str, Tensor]:
        """Every parameter of the candidate's, or none where `widths` keeps the reference."""
        return self._candidate if widths else {}

    def bases(self, widths: LinearWidths) -> Bases:
        """Nothing: the candidate's linears take what they are served with."""
        return {}

    def copies(self) -> dict[str, Tensor]:
        """Copies of every parameter of the reference."""
        return {name: values.clone() for name, values in self._reference.items()}

    def use(self, weights: Mapping[str, Tensor]) -> None:
        """Put these parameters in place, and the reference's everywhere else."""
        for name, parameter in self.block.named_parameters():
            parameter.data = weights.get(name, self._reference[name])

    def forget(self, widths: LinearWidths) -> None:
        """Both sides stay as long as the block does."""

    def pairs(self, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each linear's two weights; nothing of a rebased block, whose weights are not comparable
        one by one."""
        for name, module in self.block.named_modules():
            full = f"{name}.weight"
            if isinstance(module, nn.Linear) and full in weights and not self._rebased:
                yield name, self._reference[full], weights[full]


@dataclass(frozen=True)
class CandidateSweep:
    """The sweep of a candidate. places: where it differs from the reference outside the blocks.
    rebased: blocks whose linears' inputs are scaled."""

    candidate: Candidate
    branches: tuple[Branch, ...]
    places: tuple[str, ...]
    rebased: frozenset[int]

    @property
    def outside(self) -> SourceModel | None:
        return self.candidate if self.places else None

    def only(self, branches: tuple[Branch, ...]) -> "CandidateSweep":
        """The same with these branches alone."""
        return replace(self, branches=branches)

    def uniform(self, model: SourceModel, block: int) -> LinearWidths:
        """Every block is the candidate's, whole."""
        return WHOLE

    def read(self, model: SourceModel, block: int, device: torch.device = CPU) -> Swappable:
        """Block `block` of both models."""
        ours, theirs = (each.read_block(block, device) for each in (model, self.candidate))
        return WholeBlock(ours, theirs, block in self.rebased)


def build_candidate_sweep(reference: SourceModel, candidate: Candidate) -> CandidateSweep:
    """The views of every block and of every place outside the blocks that differs."""
    places = differing_places(reference, candidate)
    last, same = reference.blocks - 1, ()
    swapped = tuple(WHOLE.items())
    outside = {
        EMBEDDINGS: (
            Branch(view_name("isolated", EMBEDDINGS), 0, UNIFORM, same, REFERENCE),
            Branch(view_name("restored", EMBEDDINGS), 0, REFERENCE, swapped, UNIFORM),
        ),
        HEAD: (
            Branch(view_name("isolated", HEAD), last, REFERENCE, same, UNIFORM),
            Branch(view_name("restored", HEAD), last, UNIFORM, swapped, REFERENCE),
        ),
    }
    branches = view_branches([WHOLE] * reference.blocks)
    branches += tuple(branch for place in places for branch in outside[place])
    return CandidateSweep(candidate, branches, places, rebased_blocks(reference, candidate))
