"""What the study says, held against transformers' own model and plain arithmetic on weights."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from awqscope.diagnose.studies.causes.answer import Causes, LinearCauses
from awqscope.diagnose.studies.causes.errors import OTHER_CHANNELS, WORST_CHANNELS
from awqscope.diagnose.studies.causes.find import find_causes
from awqscope.diagnose.studies.causes.texts import load_texts
from awqscope.diagnose.trials.finished import OpenedRun
from awqscope.mixedprec.awq.choices import load_search, search_path
from tests.help.planted import write_studied_run

BLOCK, GROUP, BITS = 0, 64, 3


@pytest.fixture(scope="module")
def opened(
    make_model: Callable[..., Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> OpenedRun:
    model = make_model("llama")
    folder = tmp_path_factory.mktemp("oracles")
    return write_studied_run(folder / "run", model, text_file, text_file, bits=BITS)


@pytest.fixture(scope="module")
def causes(opened: OpenedRun) -> Causes:
    return find_causes(opened, BLOCK, 6)


@pytest.fixture(scope="module")
def windows(opened: OpenedRun, causes: Causes) -> Tensor:
    found = load_texts(opened, 6)
    assert list(found.numbers) == list(causes.windows)
    return found.windows


def read_model(opened: OpenedRun) -> Any:
    model = AutoModelForCausalLM.from_pretrained(
        opened.model.path, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval().requires_grad_(False)


def round_weight(weight: Tensor, clip: Tensor | None) -> Tensor:
    """Asymmetric rounding in groups with scales in float16, by the formula, after a clip."""
    grouped = weight.reshape(len(weight), -1, GROUP)
    if clip is not None:
        grouped = torch.minimum(torch.maximum(grouped, -clip[..., None]), clip[..., None])
    low, high = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
    scale = ((high - low).clamp(min=1e-5) / (2**BITS - 1)).half().float()
    zero = (-(low / scale).round()).clamp(0, 2**BITS - 1)
    codes = ((grouped / scale).round() + zero).clamp(0, 2**BITS - 1)
    return ((codes - zero) * scale).reshape(weight.shape)


def make_states(opened: OpenedRun, block: Any) -> dict[str, dict[str, Tensor]]:
    """Linear -> its weight rounded, with scales, and as served, in the basis of the reference."""
    search = load_search(search_path(opened.run.searches, BLOCK, BITS))
    inputs, outputs = {}, {}
    for choice in search.scales:
        previous: Any = block.get_submodule(choice.group.previous)
        scales = choice.scales
        if isinstance(previous, torch.nn.Linear):
            outputs[choice.group.previous] = scales
        else:
            # The norm is stored in float16, and its rounding undone in the weights.
            scales = previous.weight / (previous.weight / scales).half().float()
        inputs |= dict.fromkeys(choice.group.linears, scales)
    found = {}
    for name, linear in block.named_modules():
        if not isinstance(linear, torch.nn.Linear):
            continue
        s, r = inputs.get(name, torch.ones(1)), outputs.get(name, torch.ones(1))[:, None]
        scaled = linear.weight * s / r
        found[name] = {
            "rounded": round_weight(linear.weight.clone(), None),
            "scaled": round_weight(scaled, None) * r / s,
            "served": round_weight(scaled, search.clips.get(name)) * r / s,
        }
    return found


@torch.no_grad()
def record_inputs(model: Any, windows: Tensor) -> tuple[dict[str, Tensor], Any]:
    """What each linear of the block is given on all windows, and the model's output."""
    block, seen, handles = model.model.layers[BLOCK], {}, []
    for name, module in block.named_modules():
        if isinstance(module, torch.nn.Linear):

            def keep(_module: Any, args: Any, name: str = name) -> None:
                seen[name] = args[0].reshape(-1, args[0].shape[-1])

            handles.append(module.register_forward_pre_hook(keep))
    output = model(input_ids=windows, output_hidden_states=True, output_attentions=True)
    for handle in handles:
        handle.remove()
    return seen, output


@pytest.fixture(scope="module")
def reference(opened: OpenedRun, windows: Tensor) -> tuple[Any, dict[str, Tensor], Any]:
    model = read_model(opened)
    return model, *record_inputs(model, windows)


@pytest.fixture(scope="module")
def states(opened: OpenedRun) -> dict[str, dict[str, Tensor]]:
    return make_states(opened, read_model(opened).model.layers[BLOCK])


def linear_of(causes: Causes, name: str) -> LinearCauses:
    return next(linear for linear in causes.linears if linear.linear == name)


def test_the_errors_of_outputs_are_those_of_dequantized_weights(
    causes: Causes, reference: tuple, states: Mapping[str, dict[str, Tensor]]
) -> None:
    model, inputs, _ = reference
    assert len(causes.linears) == len(states) == 7
    for name, by_state in states.items():
        weight = model.model.layers[BLOCK].get_submodule(name).weight
        whole = (inputs[name] @ weight.T).double().square().sum()
        error = {
            state: float((inputs[name] @ (w - weight).T).double().square().sum() / whole)
            for state, w in by_state.items()
        }
        split = linear_of(causes, name).split
        assert split is not None
        assert split.rounding[0] == pytest.approx(error["rounded"], rel=1e-3)
        assert split.scale[0] == pytest.approx(error["scaled"] - error["rounded"], abs=1e-5)
        assert split.clip[0] == pytest.approx(error["served"] - error["scaled"], abs=1e-5)
        assert split.total[0] == pytest.approx(error["served"], rel=1e-3)


def test_parts_add_up_to_the_whole(causes: Causes) -> None:
    for linear in causes.linears:
        for split in (linear.split, linear.calibrated, causes.damage):
            assert split is not None
            parts = split.rounding[0] + split.scale[0] + split.clip[0]
            assert parts == pytest.approx(split.total[0], rel=1e-9, abs=1e-12)
            assert split.total[1] <= split.total[0] <= split.total[2]
        assert sum(share.error for share in linear.tokens) == pytest.approx(1)
        assert sum(share.tokens for share in linear.tokens) == pytest.approx(1)
        if linear.channel_count <= WORST_CHANNELS + OTHER_CHANNELS:
            assert len(linear.channels) == linear.channel_count
            assert sum(channel.error for channel in linear.channels) == pytest.approx(1, rel=1e-3)
        if linear.heads:
            assert sum(head.error for head in linear.heads) == pytest.approx(1, rel=1e-4)
            for head in linear.heads:
                parts = head.rounding + head.scale + head.clip
                assert parts == pytest.approx(head.error, rel=1e-6)
    assert causes.kl == causes.damage.total


def test_channels_and_heads_are_those_of_plain_sums(
    causes: Causes, reference: tuple, states: Mapping[str, dict[str, Tensor]]
) -> None:
    model, inputs, _ = reference
    for name in ("self_attn.q_proj", "self_attn.o_proj"):
        linear = linear_of(causes, name)
        weight = model.model.layers[BLOCK].get_submodule(name).weight
        delta, x = (states[name]["served"] - weight).double(), inputs[name].double()
        error = x @ delta.T
        for channel in linear.channels[:20]:
            along = x[:, channel.channel, None] * delta[:, channel.channel]
            part = (error * along).sum() / error.square().sum()
            assert channel.error == pytest.approx(float(part), abs=1e-4)
            assert channel.activation == pytest.approx(
                float(x[:, channel.channel].abs().mean()), rel=1e-4
            )
            assert channel.largest == pytest.approx(
                float(x[:, channel.channel].abs().max()), rel=1e-4
            )
        for head in linear.heads:
            here = slice(32 * head.head, 32 * head.head + 32)
            if head.role == "q":
                part = error[:, here].square().sum()
                condition = np.linalg.cond(weight[here].numpy().astype(np.float64))
            else:
                part = (error * (x[:, here] @ delta[:, here].T)).sum()
                condition = np.linalg.cond(weight[:, here].numpy().astype(np.float64))
            assert head.error == pytest.approx(float(part / error.square().sum()), abs=1e-4)
            assert head.condition == pytest.approx(condition, rel=1e-3)


@torch.no_grad()
def quantized_model(opened: OpenedRun, states: Mapping, only: str | None = None) -> Any:
    """transformers' model with the block's linears as served, or one of them."""
    model = read_model(opened)
    block = model.model.layers[BLOCK]
    for name, by_state in states.items():
        if only in (None, name):
            block.get_submodule(name).weight.copy_(by_state["served"])
    return model


@torch.no_grad()
def kl_of(reference: Any, output: Any) -> float:
    expected = reference.logits[:, :-1].double().log_softmax(-1)
    found = output.logits[:, :-1].double().log_softmax(-1)
    return float((expected.exp() * (expected - found)).sum(-1).mean())


def test_damage_is_that_of_transformers_own_model(
    opened: OpenedRun, causes: Causes, windows: Tensor, reference: tuple, states: Mapping
) -> None:
    with torch.no_grad():
        whole = quantized_model(opened, states)(input_ids=windows)
        assert causes.kl[0] == pytest.approx(kl_of(reference[2], whole), rel=5e-3)
        for name in ("self_attn.v_proj", "mlp.down_proj"):
            found = quantized_model(opened, states, name)(input_ids=windows)
            kl, linear = kl_of(reference[2], found), linear_of(causes, name)
            assert linear.kl[0] == pytest.approx(kl, rel=5e-3)
            assert linear.share[0] == pytest.approx(kl / causes.kl[0], rel=5e-3)


def test_growth_and_attention_are_those_of_transformers_own_model(
    opened: OpenedRun, causes: Causes, windows: Tensor, reference: tuple, states: Mapping
) -> None:
    inputs, output = record_inputs(quantized_model(opened, states), windows)
    _, expected_inputs, expected = reference
    points = {(point.name, point.side): point.error[0] for point in causes.growth}

    def error(found: Tensor, wanted: Tensor) -> float:
        return float((found - wanted).double().square().sum() / wanted.double().square().sum())

    for name in ("self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"):
        wanted = error(inputs[name], expected_inputs[name])
        assert points[name, "in"] == pytest.approx(wanted, rel=1e-3)
    before, after = expected.hidden_states[BLOCK + 1], output.hidden_states[BLOCK + 1]
    assert points["", "out"] == pytest.approx(error(after, before), rel=1e-3)
    assert len(causes.attention) == 4
    for head in causes.attention:
        pair = [side.attentions[BLOCK][:, head.head, 1:].double() for side in (expected, output)]
        for side, weights in enumerate(pair):
            entropy = -(weights * weights.clamp(min=1e-300).log()).sum(-1).mean()
            assert head.entropy[side] == pytest.approx(float(entropy), rel=1e-4)
            assert head.first[side] == pytest.approx(float(weights[..., 0].mean()), rel=1e-4)
        moved = (pair[0] - pair[1]).abs().sum(-1).mean() / 2
        assert head.moved == pytest.approx(float(moved), rel=1e-2)
