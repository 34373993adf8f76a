"""What is swept: models that differ from the reference, or from the uniform model, in one block."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import torch

from awqscope.diagnose.sweep.swappable import (
    Frozen,
    Swappable,
    freeze_widths,
    read_swappable,
    uniform_widths,
)
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import CPU
from awqscope.mixedprec.scheme import LinearWidths, Width

Trunk = Literal["reference", "uniform"]
REFERENCE: Trunk = "reference"
UNIFORM: Trunk = "uniform"
CONTROL = "control"


@dataclass(frozen=True)
class Branch:
    """A model that leaves one trunk at a block and goes on along a trunk after it. Where the
    trunks' embeddings and heads differ, it has the embeddings of the first and the head of the
    second."""

    name: str
    block: int
    # The trunk up to the block.
    prefix: Trunk
    # The bits of the block's linears. Those that are not named are the reference's, and so is the
    # whole block where none is.
    widths: Frozen
    # The trunk whose weights come after the block.
    suffix: Trunk
    # Whether the block's parameters are copies of the reference's, as a control.
    is_control: bool = False


class Sweepable(Protocol):
    """What is swept: the uniform model, wherever its blocks come from, and the branches.

    outside: the model whose embeddings and head the uniform model has, None for the reference's.
    """

    @property
    def branches(self) -> tuple[Branch, ...]: ...

    @property
    def outside(self) -> SourceModel | None: ...

    def only(self, branches: tuple[Branch, ...]) -> "Sweepable":
        """The same with these branches alone."""
        ...

    def uniform(self, model: SourceModel, block: int) -> LinearWidths:
        """The widths that are block `block` of the uniform model."""
        ...

    def read(self, model: SourceModel, block: int, device: torch.device = CPU) -> Swappable:
        """Block `block` of the reference `model` on `device`, for any widths of the sweep."""
        ...


@dataclass(frozen=True)
class Sweep:
    """What is swept: the uniform model (bits, units kept at 16) and the branches off the trunks.

    searches: folder of AWQ searches. bits: every width that branches use. outside: the model as its
    checkpoint stores it, None where that is the reference.
    """

    low: int
    bits: tuple[Width, ...]
    kept: frozenset[str]
    searches: Path
    branches: tuple[Branch, ...]
    outside: SourceModel | None = None

    def only(self, branches: tuple[Branch, ...]) -> "Sweep":
        """The same with these branches alone."""
        return replace(self, branches=branches)

    def uniform(self, model: SourceModel, block: int) -> LinearWidths:
        """Linear -> bits of block `block` of the uniform model."""
        return uniform_widths(model, self.low, self.kept, block)

    def read(self, model: SourceModel, block: int, device: torch.device = CPU) -> Swappable:
        """Block `block` with its searches."""
        return read_swappable(model, block, self.searches, self.bits, device)


def view_name(view: str, place: int | str) -> str:
    """The name of a branch that is the view of a block, or of a place outside of them
    ("isolated.3")."""
    return f"{view}.{place}"


def block_branches(model: SourceModel, low: int, kept: frozenset[str]) -> tuple[Branch, ...]:
    """The three views of every block, and the control: a block swapped with itself."""
    return view_branches([uniform_widths(model, low, kept, n) for n in range(model.blocks)])


def view_branches(uniform: Sequence[LinearWidths]) -> tuple[Branch, ...]:
    """The three views of every block, and the control, for a uniform model whose blocks have these
    widths."""
    branches = []
    for block, widths in enumerate(uniform):
        quantized = freeze_widths(widths)
        branches += [
            Branch(view_name("isolated", block), block, REFERENCE, quantized, REFERENCE),
            Branch(view_name("cumulative", block), block, UNIFORM, quantized, REFERENCE),
            Branch(view_name("restored", block), block, UNIFORM, (), UNIFORM),
        ]
    middle = len(uniform) // 2
    branches.append(Branch(CONTROL, middle, REFERENCE, (), REFERENCE, is_control=True))
    return tuple(branches)


def share_streams(sweep: Sweepable, model: SourceModel) -> dict[str, Branch | Trunk]:
    """Branch name -> the branch whose stream it shares (itself, an equal one, or a trunk)."""
    last = model.blocks - 1
    alike = sweep.outside is None
    shared: dict[str, Branch | Trunk] = {}
    seen: dict[Branch, Branch] = {}
    for branch in sweep.branches:
        block, prefix, suffix = branch.block, branch.prefix, branch.suffix
        widths = dict(branch.widths)
        if alike and block == last and block > 0 and prefix == UNIFORM and not widths:
            # All but the last block quantized: quantized up to the block before it.
            block, suffix = last - 1, REFERENCE
            widths = dict(sweep.uniform(model, block))
        if alike and block == 0:
            prefix = REFERENCE
        if alike and block == last:
            suffix = prefix
        uniform = widths == sweep.uniform(model, block)
        plain = Branch("", block, prefix, freeze_widths(widths), suffix)
        if branch.is_control:
            shared[branch.name] = branch
        elif block == last and prefix == suffix == UNIFORM and uniform:
            shared[branch.name] = UNIFORM
        elif prefix == suffix == REFERENCE and not widths:
            shared[branch.name] = REFERENCE
        else:
            shared[branch.name] = seen.setdefault(plain, branch)
    return shared


def follows_uniform(sweep: Sweepable, model: SourceModel, branch: Branch) -> bool:
    """Whether a branch is the uniform trunk up to and with its block."""
    same = dict(branch.widths) == sweep.uniform(model, branch.block)
    return branch.prefix == UNIFORM and same and not branch.is_control


def count_streams(model: SourceModel, sweep: Sweepable) -> int:
    """Streams alive at the end of the sweep."""
    unique = set(share_streams(sweep, model).values()) - {REFERENCE, UNIFORM}
    return len(unique) + 2


def list_subsets(items: Sequence[str]) -> list[tuple[str, ...]]:
    """Every non-empty subset, smaller ones first."""
    masks = sorted(range(1, 2 ** len(items)), key=lambda mask: (mask.bit_count(), mask))
    return [tuple(x for i, x in enumerate(items) if mask >> i & 1) for mask in masks]
