"""Greedy continuations: at each step the likeliest token, of equals the one with the lowest id.

A model that fits in the budget is held whole, reference first, then with its weights quantized in
place, and decoded with transformers' own cache of keys and values. One that does not fit is read
block by block for every token, all prompts and both models in the same pass.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from awqscope.diagnose.sweep.swappable import SwappableBlock, list_linears
from awqscope.diagnose.trials.variants import Variant, block_mix, run_variants
from awqscope.mixedprec.awq.choices import load_searches
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.served import put_outside, read_ends
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.scheme import UnitWidths, list_quantized

# A block is held beside the model while its weights are quantized, in a few copies.
BLOCK_COPIES = 4
Continuations = dict[str, list[list[int]]]


def find_ends(model: SourceModel) -> frozenset[int]:
    """Tokens that end a text."""
    try:
        found = GenerationConfig.from_pretrained(model.path).eos_token_id
    except OSError:
        found = GenerationConfig.from_model_config(model.config).eos_token_id
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        raise InputError(
            f"{model.path / 'generation_config.json'} cannot be used ({error})", "repair it"
        ) from error
    return frozenset([found] if isinstance(found, int) else found or [])


def fits_in_memory(model: SourceModel, max_memory: int) -> bool:
    """Whether the whole model in float32 fits in `max_memory` bytes while it is quantized."""
    whole = sum(parameter.numel() for _, parameter in model.list_parameters())
    block = sum(parameter.numel() for parameter in model.block_shell(0).parameters())
    return 4 * (whole + BLOCK_COPIES * block) <= max_memory


@torch.no_grad()
def continue_held(
    whole: Any, prompt: Sequence[int], tokens: int, ends: frozenset[int]
) -> list[int]:
    """Up to `tokens` tokens after `prompt`, by a model in memory; fewer where one of `ends` comes,
    which is the last."""
    fed: Tensor = torch.tensor([list(prompt)])
    cache = None
    found: list[int] = []
    while len(found) < tokens and not (found and found[-1] in ends):
        output = whole(input_ids=fed, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        found.append(int(output.logits[0, -1].float().argmax()))
        fed = torch.tensor([found[-1:]])
    return found


@torch.no_grad()
def quantize_whole(model: SourceModel, whole: Any, bits: UnitWidths, searches: Path) -> None:
    """Put effective weights into a reference model, block by block, in place, and what its
    checkpoint stores outside of them. bits: of every unit, or of none for the reference."""
    if bits:
        put_outside(whole, model)
    for number in range(model.blocks):
        mix = dict(block_mix(model, bits, number))
        block = whole.get_submodule(model.prefix(number))
        loaded = load_searches(searches, number, list_quantized(mix.values()))
        swappable = SwappableBlock(block, loaded, model.dtype, list_linears(model.family))
        swappable.use(swappable.weights(mix))


def decode_held(
    model: SourceModel,
    prompts: Sequence[Sequence[int]],
    models: Mapping[str, UnitWidths],
    searches: Path,
    tokens: int,
    on_step: Callable[[int], None] = lambda done: None,
) -> Continuations:
    """Continuations of every prompt by each of `models` (name -> bits of every unit; the reference
    and one more), from memory."""
    ends, whole = find_ends(model), model.read_whole()
    found: Continuations = {}
    for name, bits in models.items():
        quantize_whole(model, whole, bits, searches)
        found[name] = []
        for prompt in prompts:
            found[name].append(continue_held(whole, prompt, tokens, ends))
            on_step(sum(map(len, found.values())))
    return found


@torch.no_grad()
def decode_streamed(
    model: SourceModel,
    prompts: Sequence[Sequence[int]],
    models: Mapping[str, UnitWidths],
    searches: Path,
    tokens: int,
    on_step: Callable[[int], None] = lambda done: None,
) -> Continuations:
    """Continuations of every prompt by each of `models` (name -> bits of every unit), with one
    block in memory at a time: the weights are read once for every further token."""
    ends, outside = find_ends(model), read_ends(model)
    found: Continuations = {name: [[] for _ in prompts] for name in models}
    for step in range(tokens):
        open_ends = [
            (name, number)
            for name, texts in found.items()
            for number, text in enumerate(texts)
            if not (text and text[-1] in ends)
        ]
        if not open_ends:
            break
        variants = [
            Variant((*prompts[number], *found[name][number]), models[name], bool(models[name]))
            for name, number in open_ends
        ]
        finals = run_variants(model, outside, variants, searches)
        for (name, number), final in zip(open_ends, finals, strict=True):
            head = outside.heads[bool(models[name])]
            found[name][number].append(int(head(final[:, -1:])[0, -1].float().argmax()))
        on_step(step + 1)
    return found
