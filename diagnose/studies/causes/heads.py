"""Which rows and columns of a block's linears belong to which attention head, and how
ill-conditioned they are.

Rows of separate projections are heads one after another. Fused projections hold all queries, then
keys, then values (Phi-3, MPT), or for each key-value head its queries, its key and its value
(GPT-NeoX, BLOOM, Falcon, GPTBigCode): where keys and values are as many as queries or one, that is
all there is. Columns of the output projection are query heads one after another.

Values and output projection of a head may be mixed by any invertible matrix without a change of the
model. Where the mixing is ill-conditioned, all of a head's rows lie near a few directions; rounding
errs in all of them alike, and the output projection amplifies what is lost. No scale of single
channels undoes that. The condition number of a head's rows (of o: its columns) tells: the largest
singular value over the smallest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.diagnose.studies.causes.answer import ROLES
from awqscope.mixedprec.families.family import Family
from awqscope.mixedprec.models.catalogue import stored_name
from awqscope.mixedprec.models.forward import get_linear
from awqscope.mixedprec.models.source import SourceModel

# The names of fused projections, by how their rows are laid out.
ONE_AFTER_ANOTHER = ("self_attn.qkv_proj", "attn.Wqkv")
BY_GROUP = ("attention.query_key_value", "self_attention.query_key_value", "attn.c_attn")
# Other blocks that a block is compared with, spread over the model.
MOST_OTHERS = 8
# Squared singular values below this share of the largest are rounding in float64.
LEAST_SQUARE = 1e-15


@dataclass(frozen=True)
class HeadPart:
    """What one head has of a linear: rows of q, k and v, columns of o, as indices [head size].
    head: a query head for q and o, a key-value head for k and v; serves: the query heads that
    compute with it."""

    linear: str
    role: str
    head: int
    serves: tuple[int, ...]
    index: Tensor

    def select(self, weight: Tensor) -> Tensor:
        """These rows or columns of the linear's weight, a row an element of `index`."""
        return (weight.T if self.role == "o" else weight)[self.index]

    def put(self, weight: Tensor, other: Tensor) -> Tensor:
        """The weight with these rows or columns of another in their place."""
        mixed = weight.clone()
        if self.role == "o":
            mixed[:, self.index] = other[:, self.index]
        else:
            mixed[self.index] = other[self.index]
        return mixed


@dataclass(frozen=True)
class Heads:
    """The heads of a block. count: query heads; groups: key-value heads. output: the output
    projection; its module's attention is the block's."""

    count: int
    groups: int
    output: str
    parts: tuple[HeadPart, ...]

    @property
    def module(self) -> str:
        """The attention inside the block."""
        return self.output.rpartition(".")[0]

    def of(self, linear: str, role: str | None = None) -> list[HeadPart]:
        """The parts of a linear, of one role if it is named."""
        return [p for p in self.parts if p.linear == linear and role in (None, p.role)]


def count_groups(config: Any, heads: int) -> int:
    """The key-value heads that a config.json says."""
    if getattr(config, "new_decoder_architecture", False):
        return int(config.num_kv_heads)
    if getattr(config, "multi_query", False):
        return 1
    return getattr(config, "num_key_value_heads", None) or heads


def find_heads(family: Family, config: Any, block: nn.Module) -> Heads | None:
    """The heads of a block of the family; None where keys and values are not laid out by head, as
    where they are compressed (MiniCPM3), or where the sizes say otherwise."""
    kinds = {kind.name: kind.linears for kind in family.units}
    if "qkv" not in kinds or "o" not in kinds:
        return None
    heads = config.num_attention_heads
    groups = count_groups(config, heads)
    output = kinds["o"][0]
    size, rest = divmod(get_linear(block, output).in_features, heads)
    if rest or heads % groups:
        return None
    rows = _list_rows(kinds["qkv"], heads, groups, size)
    for linear in kinds["qkv"]:
        found = sum(len(index) for name, _, _, index in rows if name == linear)
        if found != get_linear(block, linear).out_features:
            return None
    served = heads // groups
    parts = [
        HeadPart(
            name,
            role,
            head,
            (head,) if role == "q" else tuple(range(head * served, (head + 1) * served)),
            index,
        )
        for name, role, head, index in rows
    ]
    columns = torch.arange(heads * size).view(heads, size)
    parts += [HeadPart(output, "o", head, (head,), columns[head]) for head in range(heads)]
    parts.sort(key=lambda part: (ROLES.index(part.role), part.head))
    return Heads(heads, groups, output, tuple(parts))


def _list_rows(
    linears: Sequence[str], heads: int, groups: int, size: int
) -> list[tuple[str, str, int, Tensor]]:
    """Linear, role, head and rows, of every head of queries, keys and values."""
    counts = {"q": heads, "k": groups, "v": groups}
    if len(linears) == len(counts):
        return [
            (linear, role, head, torch.arange(head * size, (head + 1) * size))
            for linear, (role, count) in zip(linears, counts.items(), strict=True)
            for head in range(count)
        ]
    [fused] = linears
    rows = torch.arange((heads + 2 * groups) * size)
    if fused in ONE_AFTER_ANOTHER:
        by_head = rows.view(-1, size)
        starts = {"q": 0, "k": heads, "v": heads + groups}
        return [
            (fused, role, head, by_head[starts[role] + head])
            for role, count in counts.items()
            for head in range(count)
        ]
    if fused in BY_GROUP:
        by_group = rows.view(groups, heads // groups + 2, size)
        queries = by_group[:, :-2].reshape(heads, size)
        own = {"q": queries, "k": by_group[:, -2], "v": by_group[:, -1]}
        return [
            (fused, role, head, index)
            for role, all_rows in own.items()
            for head, index in enumerate(all_rows)
        ]
    return []


def find_condition(rows: Tensor) -> float:
    """The condition number of a few long rows [r, K], from the eigenvalues of their Gram matrix;
    up to 3·10⁷, from where on it cannot be told."""
    long = rows.double()
    squares = torch.linalg.eigvalsh(long @ long.T)
    largest = float(squares[-1])
    if largest <= 0:
        return 1.0
    return (largest / max(float(squares[0]), LEAST_SQUARE * largest)) ** 0.5


def choose_others(blocks: int, number: int) -> list[int]:
    """Up to MOST_OTHERS blocks besides `number`, spread evenly."""
    others = [block for block in range(blocks) if block != number]
    some = min(len(others), MOST_OTHERS)
    return [others[place * len(others) // some] for place in range(some)]


def find_usual(model: SourceModel, number: int, heads: Heads) -> dict[str, float]:
    """Role -> the median condition number of its heads in other blocks; empty for a model of one
    block."""
    found: dict[str, list[float]] = {}
    for block in choose_others(model.blocks, number):
        for linear in dict.fromkeys(part.linear for part in heads.parts):
            name = stored_name(f"{model.prefix(block)}.{linear}.weight", model.tensors)
            weight = model.read([name], torch.float32)[name]
            for part in heads.of(linear):
                found.setdefault(part.role, []).append(find_condition(part.select(weight)))
    return {role: median(values) for role, values in found.items()}
