"""Heads found in weights, against what transformers' own attention does with them."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from awqscope.diagnose.studies.causes.attention import attending_eagerly
from awqscope.diagnose.studies.causes.heads import (
    Heads,
    choose_others,
    find_condition,
    find_heads,
)
from awqscope.mixedprec.families.table import FAMILIES, fit_family
from awqscope.mixedprec.models.forward import get_linear
from awqscope.mixedprec.models.source import make_shell
from tests.help.tiny import FAMILIES as TINY
from tests.help.tiny import tiny_config

TOKENS = 12
VARIANTS = {
    **{name: (name, {}) for name in TINY if name != "minicpm3"},
    "phi3, grouped": ("phi3", {"num_key_value_heads": 2}),
    "falcon, one key": ("falcon", {"new_decoder_architecture": False, "multi_query": True}),
    "falcon, plain": (
        "falcon",
        {"new_decoder_architecture": False, "multi_query": False, "num_kv_heads": 4},
    ),
    "gpt_bigcode, plain": ("gpt_bigcode", {"multi_query": False}),
}


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_rows_and_columns_are_of_their_heads(name: str) -> None:
    """Without a head's values its columns of o see nothing; without its queries or keys the
    attention of just the query heads that it serves is another."""
    kind, changes = VARIANTS[name]
    config = tiny_config(kind, **changes)
    family = fit_family(FAMILIES[kind], config, kind)
    shell = make_shell(config, family, kind)
    heads = find_heads(family, config, shell.get_submodule(family.blocks)[0])
    assert heads is not None
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    block = model.get_submodule(family.blocks)[0]
    for part in {part.linear: part for part in heads.parts}.values():
        # Small weights leave attention nearly even, and biases would fill what is taken out.
        linear = get_linear(block, part.linear)
        linear.weight.normal_(0, 0.3)
        if linear.bias is not None:
            linear.bias.zero_()
    expected = read(model, block, heads)
    size = len(heads.parts[0].index)
    for role in ("q", "k", "v"):
        parts = [part for part in heads.parts if part.role == role]
        assert len(parts) == (heads.count if role == "q" else heads.groups)
        for part in parts:
            weight = get_linear(block, part.linear).weight
            before = weight.clone()
            weight.copy_(part.put(weight, torch.zeros_like(weight)))
            inputs, attention = read(model, block, heads)
            weight.copy_(before)
            served = torch.isin(torch.arange(heads.count), torch.tensor(part.serves))
            if role == "v":
                by_head = inputs.view(TOKENS, heads.count, size).abs().amax((0, 2))
                assert torch.equal(by_head == 0, served)
                assert torch.equal(attention, expected[1])
            else:
                moved = (attention - expected[1]).abs().amax((1, 2)) > 0
                assert torch.equal(moved | served, moved)
                # A norm over all heads together lets each feel the others.
                assert torch.equal(moved, served) or kind.startswith("olmo")
    for part in heads.of(heads.output, "o"):
        assert part.select(get_linear(block, heads.output).weight).shape == (size, 128)


def read(model: torch.nn.Module, block: torch.nn.Module, heads: Heads) -> tuple:
    """What goes into the output projection [T, columns], and the attention [heads, T, T]."""
    seen = []
    handles = [
        block.get_submodule(heads.output).register_forward_pre_hook(
            lambda _, args: seen.append(args[0])
        ),
        block.get_submodule(heads.module).register_forward_hook(
            lambda _, args, output: seen.extend(
                part for part in output if getattr(part, "ndim", 0) == 4
            )
        ),
    ]
    with attending_eagerly(model):
        model(input_ids=torch.arange(TOKENS)[None], use_cache=False)
    for handle in handles:
        handle.remove()
    inputs, *attention = seen
    return inputs.reshape(TOKENS, -1), attention[0][0]


def test_compressed_keys_have_no_heads_of_their_own() -> None:
    config = tiny_config("minicpm3")
    shell = make_shell(config, FAMILIES["minicpm3"], "minicpm3")
    assert find_heads(FAMILIES["minicpm3"], config, shell.model.layers[0]) is None


@pytest.mark.parametrize("condition", [1.0, 30.0, 4e3, 1e6])
def test_a_condition_number_is_numpys(condition: float) -> None:
    generator = torch.Generator().manual_seed(5)
    left, _ = torch.linalg.qr(torch.randn(16, 16, generator=generator, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(96, 16, generator=generator, dtype=torch.float64))
    values = torch.logspace(0, 1, 16, base=condition, dtype=torch.float64)
    rows = left @ torch.diag(values) @ right.T
    assert find_condition(rows) == pytest.approx(torch.linalg.cond(rows).item(), rel=1e-3)


def test_what_cannot_be_told_of_a_condition_is_bounded() -> None:
    assert find_condition(torch.zeros(3, 5)) == 1.0
    assert 1e7 < find_condition(torch.ones(3, 5)) < 1e8


def test_other_blocks_are_spread_over_the_model() -> None:
    assert choose_others(1, 0) == []
    assert choose_others(3, 1) == [0, 2]
    assert choose_others(31, 30) == [0, 3, 7, 11, 15, 18, 22, 26]
