"""What servers would make of checkpoints, sound and spoiled, against what transformers does with
them; tests/whole/test_vllm.py asks vLLM the same."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from awqscope.mixedprec.checkpoints.matching import Layer
from awqscope.mixedprec.checkpoints.serving import (
    LOADS,
    REFUSES,
    SGLANG,
    TRANSFORMERS,
    VLLM,
    WRONG,
    Served,
    Serving,
    check_serving,
    describe_served,
    write_serving,
)
from awqscope.mixedprec.checkpoints.writer import examine_serving, write_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import FAMILIES, find_family
from awqscope.mixedprec.models.catalogue import open_catalogue
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.recipes.recipe import load_recipe, make_recipe
from awqscope.mixedprec.scheme import Scheme
from tests.help.searched import write_searched_run
from tests.help.spoiled import FAULTS, at, meaning, spoil, write_sound

MakeModel = Callable[..., Path]


@pytest.fixture(scope="module")
def sound(
    make_model: MakeModel, text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SourceModel, Path]:
    """A llama's checkpoint with 4, 8 and 16 bits."""
    out = tmp_path_factory.mktemp("sound") / "checkpoint"
    return write_sound(out, make_model("llama"), text_file), out


@torch.no_grad()
def try_transformers(path: Path) -> str:
    """What transformers makes of a checkpoint, by its weights against what is stored."""
    try:
        loaded = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        # Packed linears are unpacked in the first forward.
        loaded(torch.zeros(1, 2, dtype=torch.long), use_cache=False)
    except (RuntimeError, ValueError):
        return REFUSES
    held = {n: m.weight for n, m in loaded.named_modules() if isinstance(m, nn.Linear)}
    tensors = load_file(path / "model.safetensors")
    wanted = meaning(tensors) | {"lm_head": tensors["lm_head.weight"].float()}
    same = all(name in wanted and torch.equal(held[name], wanted[name]) for name in held)
    return LOADS if same else WRONG


@pytest.mark.parametrize("name", FAULTS)
def test_spoiled_checkpoints(name: str, sound: tuple[SourceModel, Path], tmp_path: Path) -> None:
    model, checkpoint = sound
    fault = FAULTS[name]
    path = spoil(checkpoint, tmp_path / "spoiled", fault.change)
    found = examine_serving(open_catalogue(path), model)
    outcomes = {who: found.outcome(who) for who in (VLLM, SGLANG, TRANSFORMERS)}
    expected = {VLLM: fault.vllm, SGLANG: fault.sglang, TRANSFORMERS: fault.transformers}
    assert outcomes == expected, found.notes
    # A packed weight that is missing is random, and so is the shape that it is unpacked to.
    random = any("without weight_packed" in note for note in found.notes)
    assert try_transformers(path) in {fault.transformers, REFUSES if random else fault.transformers}


QUANTIZATION: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["re:.*_proj$"],
            "weights": {
                "num_bits": 4,
                "type": "int",
                "symmetric": True,
                "strategy": "group",
                "group_size": 64,
            },
        }
    },
    "ignore": ["lm_head"],
}


def experts(block: int, names: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")) -> Layer:
    prefix = f"model.layers.{block}.mlp.experts"
    return Layer(
        prefix, tuple(f"{prefix}.{n}.{name}" for n in range(2) for name in names), "experts"
    )


def shapes_of(layers: tuple[Layer, ...], bits: int, zeros: bool = False) -> dict[str, list[int]]:
    """Tensors of linears [64, 128] in groups of 64."""
    shapes: dict[str, list[int]] = {}
    for layer in layers:
        for part in layer.parts:
            shapes[f"{part}.weight_packed"] = [64, 128 * bits // 32]
            shapes[f"{part}.weight_scale"] = [64, 2]
            shapes[f"{part}.weight_shape"] = [2]
            if zeros:
                shapes[f"{part}.weight_zero_point"] = [64 * bits // 32, 2]
    return shapes


def changed_groups(**groups: tuple[list[str], dict[str, Any]]) -> dict[str, Any]:
    weights = QUANTIZATION["config_groups"]["group_0"]["weights"]
    made = {
        name: {"targets": targets, "weights": weights | changes}
        for name, (targets, changes) in groups.items()
    }
    return QUANTIZATION | {"config_groups": made}


def test_experts_of_one_scheme_load() -> None:
    layers = (experts(0), experts(1))
    found = check_serving(QUANTIZATION, shapes_of(layers, 4), Served(layers, {}))
    assert found == Serving(())


def test_experts_with_zero_points_are_a_limit_of_transformers() -> None:
    layers = (experts(0),)
    quantization = changed_groups(group_0=(["re:.*_proj$"], {"symmetric": False}))
    found = check_serving(quantization, shapes_of(layers, 4, zeros=True), Served(layers, {}))
    assert found.outcome(VLLM) == LOADS
    assert found.outcome(TRANSFORMERS) == REFUSES
    assert not found.faults


def test_experts_of_blocks_that_differ_are_a_limit_of_transformers() -> None:
    layers = (experts(0), experts(1))
    quantization = changed_groups(
        group_0=([r"re:.*layers\.0\..*_proj$"], {}),
        group_1=([r"re:.*layers\.1\..*_proj$"], {"num_bits": 8}),
    )
    shapes = shapes_of(layers[:1], 4) | shapes_of(layers[1:], 8)
    found = check_serving(quantization, shapes, Served(layers, {}))
    assert found.outcome(VLLM) == LOADS
    assert found.outcome(TRANSFORMERS) == WRONG
    assert not found.faults
    assert "model.layers.1.mlp.experts" in found.notes[0]


def test_experts_that_differ_within_a_block_are_a_fault() -> None:
    layers = (experts(0),)
    quantization = changed_groups(
        group_0=([r"re:.*(gate|up)_proj$"], {}), group_1=([r"re:.*down_proj$"], {"num_bits": 8})
    )
    shapes = shapes_of((experts(0, ("gate_proj", "up_proj")),), 4)
    shapes |= shapes_of((experts(0, ("down_proj",)),), 8)
    found = check_serving(quantization, shapes, Served(layers, {}))
    assert found.outcome(VLLM) == REFUSES
    assert any("several schemes" in fault.what for fault in found.faults)


def test_an_expert_of_another_width_than_the_first_is_a_fault() -> None:
    """vLLM asks for the scheme of the first only, which the others then do not fit."""
    layers = (experts(0),)
    quantization = changed_groups(
        group_0=([r"re:.*experts\.0\..*_proj$"], {}),
        group_1=([r"re:.*experts\.1\..*_proj$"], {"num_bits": 8}),
    )
    second = tuple(part for part in layers[0].parts if ".1." in part)
    shapes = shapes_of(layers, 4) | shapes_of((Layer("", second, "experts"),), 8)
    found = check_serving(quantization, shapes, Served(layers, {}))
    assert found.outcome(VLLM) == REFUSES
    assert found.faults


def test_what_loads_but_should_be_known_is_noted() -> None:
    layers = (Layer(at(0, "self_attn.o_proj"), (at(0, "self_attn.o_proj"),), "o"),)
    quantization = changed_groups(
        group_0=(
            ["re:.*o_proj$", "model.layers.7.mlp.down_proj"],
            {"num_bits": 8, "symmetric": False},
        )
    )
    found = check_serving(quantization, shapes_of(layers, 8, zeros=True), Served(layers, {}))
    assert [found.outcome(who) for who in (VLLM, SGLANG, TRANSFORMERS)] == [LOADS] * 3
    assert "model.layers.7.mlp.down_proj" in found.notes[0] and "matches nothing" in found.notes[0]
    assert "Marlin" in found.notes[1]


def test_groups_that_do_not_tile_are_refused() -> None:
    layers = (Layer(at(0, "self_attn.o_proj"), (at(0, "self_attn.o_proj"),), "o"),)
    served = Served(layers, {at(0, "self_attn.o_proj"): 96})
    shapes = shapes_of(layers, 4) | {at(0, "self_attn.o_proj") + ".weight_packed": [64, 12]}
    assert check_serving(QUANTIZATION, shapes, served).outcome(VLLM) == REFUSES


@pytest.mark.parametrize(
    "damage",
    [
        {"config_groups": None},
        {"config_groups": {"group_0": {"targets": ["Linear"]}}},
        {"ignore": ["re:("]},
    ],
)
def test_a_config_that_cannot_be_read_is_refused_by_all(damage: dict[str, Any]) -> None:
    found = check_serving(QUANTIZATION | damage, {}, Served((), {}))
    assert {found.outcome(who) for who in (VLLM, SGLANG, TRANSFORMERS)} == {REFUSES}


def test_other_methods_are_not_judged() -> None:
    found = check_serving({"quant_method": "gptq"}, {}, Served((), {}))
    assert found.to_json() == {"notes": []}
    assert write_serving(found.to_json()) == "unknown"


@pytest.mark.parametrize("family", FAMILIES)
def test_stablelm_needs_the_fused_names(family: str) -> None:
    """vLLM's class for it does not say what it fuses."""
    served = describe_served(find_family(family), family, 1, {})
    names = "|".join(part.rpartition(".")[2] for layer in served.layers for part in layer.parts)
    quantization = changed_groups(group_0=([rf"re:.*\.({names})$"], {}))
    found = check_serving(quantization, shapes_of(served.layers, 4), served)
    assert found.outcome(VLLM) == (REFUSES if family == "stablelm" else LOADS)


def test_units_kept_in_autoawqs_format(
    make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    """Of a fused unit of StableLM too, which vLLM knows by its fused name only."""
    run = write_searched_run(
        tmp_path / "run", make_model("stablelm"), text_file, changed={"1.qkv": 16}
    )
    recipe = load_recipe(run.path / "recipe.json")
    model = open_model(str(make_model("stablelm")))
    out = tmp_path / "out"
    found = write_checkpoint(out, model, recipe, run.searches, {4: Scheme(4, 64, False)}, fmt="awq")
    assert found.serving.to_json() == {"vllm": LOADS, "notes": []}
    config = json.loads((out / "config.json").read_text())
    config["quantization_config"]["modules_to_not_convert"].remove(at(1, "self_attn.qkv_proj"))
    (out / "config.json").write_text(json.dumps(config))
    assert examine_serving(open_catalogue(out), model).outcome(VLLM) == REFUSES
    config["quantization_config"]["modules_to_not_convert"] = None
    (out / "config.json").write_text(json.dumps(config))
    notes = examine_serving(open_catalogue(out), model).notes
    assert notes[0].startswith("Refused by vLLM: model.layers.1.self_attn.q_proj and 2 more")


def test_a_checkpoint_that_would_not_load_is_not_left_behind(
    make_model: MakeModel, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("awqscope.mixedprec.checkpoints.config._targets", lambda *_: [])
    with pytest.raises(RuntimeError, match=r"Refused by vLLM: model.layers.0.self_attn.q_proj"):
        write_sound(tmp_path / "out", make_model("llama"), text_file)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_outcomes_are_told_in_a_line() -> None:
    said = {"vllm": REFUSES, "sglang": REFUSES, "transformers": LOADS, "notes": ["Why"]}
    assert write_serving(said) == "transformers loads it, vLLM and SGLang refuse it. Why"


@pytest.mark.parametrize("size", [{}, {"group_size": None}, {"group_size": 0}, {"group_size": -1}])
def test_one_group_a_row_however_it_is_said(
    size: dict[str, Any],
) -> None:
    """As candidates are decoded: in both formats no size means one group."""
    layers = (Layer(at(0, "self_attn.o_proj"), (at(0, "self_attn.o_proj"),), "o"),)
    served = Served(layers, {at(0, "self_attn.o_proj"): 128})
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", **size}
    quantization = QUANTIZATION | {
        "config_groups": {"group_0": {"targets": ["re:.*_proj$"], "weights": weights}}
    }
    shapes = shapes_of(layers, 4) | {at(0, "self_attn.o_proj") + ".weight_scale": [64, 1]}
    assert check_serving(quantization, shapes, served).outcome(VLLM) == LOADS
    gemm = {"qweight": [128, 8], "qzeros": [1, 8], "scales": [1, 64]}
    shapes = {at(0, f"self_attn.o_proj.{part}"): shape for part, shape in gemm.items()}
    awq = {"quant_method": "awq", "bits": 4, **size}
    assert check_serving(awq, shapes, served).outcome(VLLM) == LOADS
    assert check_serving(awq | {"group_size": 64}, shapes, served).outcome(VLLM) == REFUSES
    assert check_serving(awq | {"group_size": "x"}, shapes, served).outcome(VLLM) == REFUSES


def test_ignored_patterns_that_would_not_end_are_not_tried() -> None:
    found = check_serving(QUANTIZATION | {"ignore": ["re:(a?){28}a{28}$"]}, {}, Served((), {}))
    assert found.outcome(VLLM) == REFUSES
    assert "may take for ever" in found.notes[0]


def test_groups_of_a_row_are_not_written_in_autoawqs_format(
    make_model: MakeModel, tmp_path: Path
) -> None:
    model = open_model(str(make_model("llama")))
    recipe = make_recipe("", model.family, model.blocks, 4)
    with pytest.raises(InputError, match="this run has one group a row: write it as compressed"):
        write_checkpoint(
            tmp_path / "out", model, recipe, tmp_path, {4: Scheme(4, -1, False)}, fmt="awq"
        )
    assert not list(tmp_path.iterdir())
