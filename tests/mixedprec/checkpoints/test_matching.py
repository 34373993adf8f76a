"""Which group is taken for a linear, against compressed-tensors' own functions and rules written
out by hand; tests/whole/test_vllm.py asks vLLM's."""

from copy import deepcopy
from typing import Any

import pytest
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from hypothesis import given, settings
from torch import nn

from awqscope.mixedprec.checkpoints.matching import (
    Declared,
    Layer,
    Refused,
    find_targets,
    read_agreed,
    read_groups,
    read_in_sglang,
    read_in_transformers,
    read_in_vllm,
    served_layers,
)
from awqscope.mixedprec.families.table import GPT_NEOX
from tests.help.grouped import LAYERS, layer_named, quantizations

PARTS = [part for layer in LAYERS for part in layer.parts]
QKV = layer_named("model.layers.0.self_attn.qkv_proj")


def build_model() -> nn.Module:
    """Linears at the names of a llama's, in plain modules."""
    model = nn.Module()
    for name in (*PARTS, "lm_head"):
        parent = model
        for part in name.split(".")[:-1]:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = getattr(parent, part)
        parent.add_module(name.split(".")[-1], nn.Linear(128, 8, device="meta"))
    return model


@given(quantizations())
@settings(max_examples=150, deadline=None)
def test_transformers_reading_is_that_of_compressed_tensors(quantization: dict[str, Any]) -> None:
    model = build_model()
    config = QuantizationConfig.model_validate(deepcopy(quantization))
    groups = read_groups(quantization)
    others = [name for name, m in model.named_modules() if not isinstance(m, nn.Linear)]
    if any(groups.naming(name) and not groups.ignores(name) for name in others):
        with pytest.raises(ValueError, match="not supported"):
            apply_quantization_config(model, config)
        return
    apply_quantization_config(model, config)
    for name in (*PARTS, "lm_head"):
        scheme = getattr(model.get_submodule(name), "quantization_scheme", None)
        taken = None if scheme is None else (scheme.weights.num_bits, scheme.weights.group_size)
        declared = read_in_transformers(name, groups)
        assert taken == (declared and (declared.bits, declared.group_size)), name


def groups_of(ignore: tuple[str, ...] = (), **targets: int) -> dict[str, Any]:
    """Each target in a group of its own, at a width."""
    made = {
        f"group_{number}": {
            "targets": [target],
            "weights": {"num_bits": bits, "symmetric": True, "strategy": "channel"},
        }
        for number, (target, bits) in enumerate(targets.items())
    }
    return {"config_groups": made, "ignore": list(ignore)}


def bits(reading: Declared | Refused | None) -> int | None:
    assert isinstance(reading, Declared | None)
    return reading.bits if reading else None


def test_vllm_takes_the_first_in_the_file_and_transformers_in_the_alphabet() -> None:
    lone = Layer(QKV.parts[0], QKV.parts[:1], "q")
    for first, second in ((4, 8), (8, 4)):
        widths = {4: "re:.*q_proj", 8: "re:.*[q]_proj"}
        groups = read_groups(groups_of(**{widths[first]: first, widths[second]: second}))
        assert bits(read_in_vllm(lone, groups)) == first
        assert bits(read_in_transformers(lone.name, groups)) == 8


def test_a_class_goes_before_the_parts_in_sglang_only() -> None:
    named = dict.fromkeys(QKV.parts, 8)
    groups = read_groups(groups_of(**{"Linear": 4, **named}))
    assert bits(read_in_vllm(QKV, groups)) == 8
    assert bits(read_in_sglang(QKV, groups)) == 4
    assert bits(read_in_transformers(QKV.parts[0], groups)) == 8


def test_the_fused_name_goes_before_the_parts() -> None:
    groups = read_groups(groups_of(**{**dict.fromkeys(QKV.parts, 8), QKV.name: 4}))
    assert bits(read_in_vllm(QKV, groups)) == bits(read_in_sglang(QKV, groups)) == 4


def test_parts_count_together_or_not_at_all() -> None:
    some = read_groups(groups_of(**dict.fromkeys(QKV.parts[:2], 8)))
    assert read_in_vllm(QKV, some) is None
    assert isinstance(read_in_sglang(QKV, some), Refused)
    every = read_groups(groups_of(**dict.fromkeys(QKV.parts, 8)))
    assert bits(read_in_vllm(QKV, every)) == 8
    assert read_in_vllm(QKV, every, mapped=False) is None


def test_ignoring_some_parts_is_refused() -> None:
    groups = read_groups(groups_of(QKV.parts[:1], Linear=4))
    assert isinstance(read_in_vllm(QKV, groups), Refused)
    assert isinstance(read_in_sglang(QKV, groups), Refused)
    assert read_in_vllm(QKV, read_groups(groups_of((QKV.name,), Linear=4))) is None
    assert read_in_vllm(QKV, read_groups(groups_of(QKV.parts, Linear=4))) is None


def test_unanchored_patterns_catch_the_fused_name() -> None:
    groups = read_groups(groups_of(**{"re:.*v_proj": 4, "re:.*[qk]_proj": 8}))
    assert bits(read_in_vllm(QKV, groups)) == 4
    assert bits(read_in_transformers(QKV.parts[0], groups)) == 8


def test_vllm_serves_gpt_neox_under_other_names() -> None:
    layer = served_layers(GPT_NEOX, 1)[0]
    assert bits(read_in_vllm(layer, read_groups(groups_of(**{layer.name: 4})))) == 4
    pattern = {r"re:gpt_neox\.layers\.0\..*": 4}
    assert read_in_vllm(layer, read_groups(groups_of(**pattern))) is None
    assert bits(read_in_transformers(layer.name, read_groups(groups_of(**pattern)))) == 4


def test_the_last_meaning_of_a_target_counts() -> None:
    config = groups_of(Linear=4)
    config["config_groups"]["again"] = groups_of(Linear=8)["config_groups"]["group_0"]
    assert bits(read_in_transformers(PARTS[0], read_groups(config))) == 8


@given(quantizations())
@settings(max_examples=150, deadline=None)
def test_what_is_read_of_a_packed_linear_is_what_transformers_takes(
    quantization: dict[str, Any],
) -> None:
    """Where the library takes a group, and no other would do as well but for the alphabet."""
    quantization["ignore"] = []
    model = build_model()
    groups = read_groups(quantization)
    others = [name for name, m in model.named_modules() if not isinstance(m, nn.Linear)]
    if any(groups.naming(name) for name in others):
        return
    apply_quantization_config(model, QuantizationConfig.model_validate(deepcopy(quantization)))
    for name in (*PARTS, "lm_head"):
        scheme = getattr(model.get_submodule(name), "quantization_scheme", None)
        try:
            found = read_agreed(name, groups)
        except ValueError as error:
            choice = {groups.targets[target] for target in find_targets(name, groups)}
            twice = groups.unsure.intersection(find_targets(name, groups))
            said = "different things" if scheme else "nothing"
            assert f"say {said} of {name}" in str(error)
            assert (len(choice) > 1 or twice) if scheme else not choice
            continue
        assert (found.bits, found.symmetric) == (
            scheme.weights.num_bits,
            scheme.weights.symmetric,
        ), name


def test_groups_that_say_different_things_are_not_chosen_between() -> None:
    """transformers takes the first pattern in the alphabet; what is stored cannot be both."""
    patterns = {"re:.*q_proj": 4, "re:.*[q]_proj": 8}
    with pytest.raises(ValueError, match="say different things of"):
        read_agreed(PARTS[0], read_groups(groups_of(**patterns)))
    alike = read_groups(groups_of(**dict.fromkeys(patterns, 4)))
    assert read_agreed(PARTS[0], alike).bits == 4
    named = read_groups(groups_of(**patterns, **{PARTS[0]: 3}))
    assert read_agreed(PARTS[0], named).bits == 3


def test_a_target_that_stands_in_two_groups() -> None:
    config = groups_of(Linear=4)
    config["config_groups"]["again"] = groups_of(Linear=8)["config_groups"]["group_0"]
    with pytest.raises(ValueError, match="say different things of"):
        read_agreed(PARTS[0], read_groups(config))
    config["config_groups"]["again"] = config["config_groups"]["group_0"]
    assert read_agreed(PARTS[0], read_groups(config)).bits == 4


def test_what_is_ignored_but_packed_has_a_scheme_all_the_same() -> None:
    groups = read_groups(groups_of((PARTS[0],), Linear=4))
    assert read_in_transformers(PARTS[0], groups) is None
    assert read_agreed(PARTS[0], groups).bits == 4
    with pytest.raises(ValueError, match="say nothing of"):
        read_agreed(PARTS[0], read_groups(groups_of((), **{PARTS[1]: 4})))


def test_weights_are_symmetric_where_nothing_is_said_of_it() -> None:
    config = groups_of(Linear=4)
    del config["config_groups"]["group_0"]["weights"]["symmetric"]
    library = QuantizationConfig.model_validate(deepcopy(config) | {"format": "pack-quantized"})
    (group,) = library.config_groups.values()
    assert read_agreed(PARTS[0], read_groups(config)).symmetric is group.weights.symmetric is True


def test_groups_of_attention_hold_no_weights() -> None:
    config = groups_of(LlamaAttention=8, Linear=4)
    assert list(read_groups(config).targets) == ["Linear"]
