"""What the heads of a block attend to, in the reference and in the quantized block on the same
input: transformers' own attention, in its eager form, which shows its weights."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.diagnose.studies.causes.answer import HeadAttention
from awqscope.diagnose.studies.causes.heads import Heads
from awqscope.diagnose.sweep.swappable import SwappableBlock
from awqscope.mixedprec.models.forward import run_block
from awqscope.mixedprec.models.source import SourceModel

EAGER = "eager"
# Tokens of a window that are looked at: attention is causal, so that they see what they always see,
# and its weights grow with the square of the tokens.
MOST_TOKENS = 512


@contextlib.contextmanager
def attending_eagerly(module: nn.Module) -> Iterator[None]:
    """Until this ends, attention inside a module gives its weights."""
    owners = (getattr(part, "config", None) for part in module.modules())
    configs = {id(config): config for config in owners if config is not None}.values()
    before = [config._attn_implementation for config in configs]
    try:
        for config in configs:
            config._attn_implementation = EAGER
        yield
    finally:
        for config, how in zip(configs, before, strict=True):
            config._attn_implementation = how


def eager_kwargs(model: SourceModel, number: int, length: int) -> dict[str, Any]:
    """What a block is called with beside its stream for its attention to be eager: masks are
    written out."""
    entrance = model.read_entrance(torch.zeros(1, dtype=torch.long))
    with attending_eagerly(entrance.module):
        return entrance.block_kwargs(length)[number]


def compare_attention(
    model: SourceModel,
    number: int,
    swappable: SwappableBlock,
    heads: Heads,
    quantized: Mapping[str, Tensor],
    hidden: Tensor,
) -> list[HeadAttention]:
    """Every query head of block `number` in both models. quantized: the weights in the reference's
    place; hidden: what enters the block [n, T, d]. Empty where the module gives no weights."""
    hidden = hidden[:, :MOST_TOKENS]
    kwargs = eager_kwargs(model, number, hidden.shape[1])
    sums: list[Tensor] = []
    with attending_eagerly(swappable.block):
        for window in hidden.split(1):
            pair = []
            for weights in ({}, quantized):
                swappable.use(weights)
                found = _read_weights(swappable.block, heads, window, kwargs)
                if found is None:
                    return []
                pair.append(found)
            sums.append(_compare(*pair))
    swappable.use({})
    means = torch.stack(sums).mean(0).tolist()
    return [
        HeadAttention(
            head=head,
            entropy=(reference_entropy, entropy),
            first=(reference_first, first),
            moved=moved,
        )
        for head, (reference_entropy, entropy, reference_first, first, moved) in enumerate(means)
    ]


def _read_weights(
    block: nn.Module, heads: Heads, window: Tensor, kwargs: dict[str, Any]
) -> Tensor | None:
    """Attention weights [heads, queries, keys] on one window [1, T, d]."""
    seen: list[Tensor] = []
    length = window.shape[1]

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        parts = output if isinstance(output, tuple) else ()
        shape = (1, heads.count, length, length)
        seen.extend(part for part in parts if isinstance(part, Tensor) and part.shape == shape)

    handle = block.get_submodule(heads.module).register_forward_hook(keep)
    try:
        run_block(block, window, kwargs)
    finally:
        handle.remove()
    return seen[0][0].float() if seen else None


def _compare(reference: Tensor, quantized: Tensor) -> Tensor:
    """Of each head [heads, 5]: entropy of both, share on the first token of both, and what moved;
    means over all queries but the first, which has only itself to look at."""
    reference, quantized = reference[:, 1:].double(), quantized[:, 1:].double()
    columns = []
    for weights in (reference, quantized):
        columns.append(torch.special.entr(weights).sum(-1).mean(-1))
    for weights in (reference, quantized):
        columns.append(weights[..., 0].mean(-1))
    columns.append((reference - quantized).abs().sum(-1).mean(-1) / 2)
    return torch.stack(columns, dim=1)
