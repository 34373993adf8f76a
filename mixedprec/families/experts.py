"""Mixtures of experts as their checkpoints and servers know them: linears of their own.

transformers 5 holds the experts of a block as two tensors, gates and ups stacked in one and downs
in the other. Here each expert is three linears under the names that checkpoints give them, so that
everything which works on linears works on experts too. The function is the same, and so is the
router: transformers' own.
"""

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.family import ExpertLayout


class Expert(nn.Module):
    """One expert: down(act(gate(x)) · up(x)), its linears named as `layout` says."""

    def __init__(self, layout: ExpertLayout, hidden: int, inner: int, act: nn.Module):
        super().__init__()
        self._names = (layout.gate, layout.up, layout.down)
        self.add_module(layout.gate, nn.Linear(hidden, inner, bias=False))
        self.add_module(layout.up, nn.Linear(hidden, inner, bias=False))
        self.add_module(layout.down, nn.Linear(inner, hidden, bias=False))
        self.act = act

    def inner(self, hidden: Tensor) -> Tensor:
        """The input of its last linear, for tokens [T, d]."""
        gate, up, _ = (self.get_submodule(name) for name in self._names)
        return self.act(gate(hidden)) * up(hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.get_submodule(self._names[2])(self.inner(hidden))


class Experts(nn.ModuleList):
    """All experts of a block; called by transformers' mixture with what its router chose.

    rows: which tokens of the last call each expert saw, by number, ascending.
    """

    rows: dict[int, Tensor]

    def inner(self, number: int, hidden: Tensor) -> Tensor:
        """The input of an expert's last linear, for tokens [T, d]."""
        expert = self[number]
        assert isinstance(expert, Expert)
        return expert.inner(hidden)

    def forward(self, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """hidden: [T, d]; top_k_index, top_k_weights: [T, k]. The weighted sum [T, d]."""
        result = torch.zeros_like(hidden)
        chosen = top_k_index.flatten()
        order = chosen.argsort(stable=True)
        counts = chosen.bincount(minlength=len(self)).tolist()
        weights = top_k_weights.flatten()[order, None].to(hidden.dtype)
        self.rows = {}
        shares = zip(self, order.split(counts), weights.split(counts), strict=True)
        for number, (expert, places, share) in enumerate(shares):
            if len(places):
                rows = self.rows[number] = places // top_k_index.shape[1]
                result.index_add_(0, rows, expert(hidden[rows]) * share)
        return result


def seen_rows(block: nn.Module, linear: str) -> Tensor:
    """Which tokens of the block's last batch, all windows one after another, the expert saw that
    `linear` (its name inside the block) belongs to."""
    experts, number, _ = linear.rsplit(".", 2)
    module = block.get_submodule(experts)
    assert isinstance(module, Experts), linear
    return module.rows[int(number)]


def same_choices(one: nn.Module, other: nn.Module, layout: ExpertLayout) -> Tensor:
    """Which tokens went to the same experts in the last calls of two blocks, bool [T]."""
    seen = []
    for block in (one, other):
        experts: Any = block.get_submodule(f"{layout.module}.experts")
        tokens = 1 + max(int(rows.max()) for rows in experts.rows.values())
        chosen = torch.zeros(tokens, len(experts), dtype=torch.bool)
        for number, rows in experts.rows.items():
            chosen[rows.cpu(), number] = True
        seen.append(chosen)
    return (seen[0] == seen[1]).all(1)


def split_experts(block: nn.Module, layout: ExpertLayout, name: str) -> None:
    """Give a block of transformers' that holds its experts stacked a linear for each, without
    weights, and its mixture the name that checkpoints give it. InputError, naming the model, for a
    block without experts."""
    mixture: Any = getattr(block, layout.attribute)
    stacked = getattr(mixture, "experts", None)
    if stacked is None:
        raise InputError(
            f"{name} mixes dense blocks with mixtures of experts",
            "use a model whose blocks are all alike",
        )
    count, hidden, inner = stacked.down_proj.shape
    mixture.experts = Experts(Expert(layout, hidden, inner, stacked.act_fn) for _ in range(count))
    if layout.module != layout.attribute:
        del block._modules[layout.attribute]
        block.add_module(layout.module, mixture)
        # The block's forward calls it by transformers' name, under which it is no submodule.
        block.__dict__[layout.attribute] = mixture


def _split_name(name: str, layout: ExpertLayout | None) -> tuple[str, int, int | None] | None:
    """Block, number and half of the stacked rows (None for a last linear) of an expert's weight."""
    if layout is None:
        return None
    found = re.fullmatch(rf"(.+)\.{layout.module}\.experts\.(\d+)\.(\w+)\.weight", name)
    halves = {layout.gate: 0, layout.up: 1, layout.down: None}
    if found is None or found[3] not in halves:
        return None
    return found[1], int(found[2]), halves[found[3]]


@dataclass(frozen=True)
class Part:
    """A linear of an expert inside a stacked tensor on disk: `tensor`[expert, rows]. half: 0 for
    the first half of the rows, 1 for the second, None for all."""

    tensor: str
    expert: int
    half: int | None

    def rows(self, stacked: Sequence[int]) -> range:
        """Which rows it is of a stacked tensor of this shape, the experts' rows counted one after
        another. ValueError unless that has three dimensions."""
        _, rows, _ = stacked
        begin = self.expert * rows
        if self.half is None:
            return range(begin, begin + rows)
        begin += self.half * rows // 2
        return range(begin, begin + rows // 2)


def find_part(name: str, layout: ExpertLayout | None, tensors: Container[str]) -> Part | None:
    """Where a checkpoint that stacks its experts holds the parameter `name`; None where it does
    not, or holds it by itself."""
    found = _split_name(name, layout)
    if layout is None or found is None or name in tensors:
        return None
    block, expert, half = found
    stacked = "down_proj" if half is None else "gate_up_proj"
    for module in (layout.module, layout.attribute):
        tensor = f"{block}.{module}.experts.{stacked}"
        if tensor in tensors:
            return Part(tensor, expert, half)
    return None
