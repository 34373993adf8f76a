"""Candidates of every format against what was written, what transformers loads, and what must be
refused."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from awq.modules.act import ScaledActivation
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.checkpoints.writer import realise_block, write_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import list_units
from awqscope.mixedprec.foreign.candidate import open_candidate
from awqscope.mixedprec.foreign.differences import differing_places, rebased_blocks
from awqscope.mixedprec.models.forward import enter_blocks, run_block
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.recipes.recipe import make_recipe
from awqscope.mixedprec.scheme import FP16_BITS, Scheme
from tests.mixedprec.layouts.test_layouts import GROUP, make_gptq

SCHEMES = {4: Scheme(4, 64, False), 8: Scheme(8, 64, True)}
MakeModel = Callable[..., Path]


@pytest.fixture(scope="module")
def searched(
    make_model: MakeModel, text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[SourceModel, Path, Tensor]]:
    """A model of a family, its searches, and windows to run it on."""
    made: dict[str, tuple[SourceModel, Path, Tensor]] = {}

    def search(family: str) -> tuple[SourceModel, Path, Tensor]:
        if family not in made:
            path = make_model(family)
            model, folder = open_model(str(path)), tmp_path_factory.mktemp("awq")
            windows = cut_windows(load_corpus(str(text_file)), load_tokenizer(path), 64, 3)
            search_model(model, windows, list(SCHEMES.values()), folder)
            made[family] = model, folder, windows
        return made[family]

    return search


@torch.no_grad()
def forward(model: SourceModel, windows: Tensor) -> Tensor:
    """Logits of a model read block by block."""
    stream, all_kwargs = enter_blocks(model, windows)
    hidden = stream.read(slice(None))
    for number in range(model.blocks):
        hidden = run_block(model.read_block(number), hidden, all_kwargs[number])
    return model.read_head()(hidden)


@torch.no_grad()
def forward_transformers(path: Path, windows: Tensor) -> Tensor:
    """Logits of the same checkpoint as transformers loads it."""
    loaded = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    return loaded(windows, use_cache=False).logits


@pytest.mark.parametrize("fmt", ["awq", "compressed-tensors"])
@pytest.mark.parametrize("family", ["llama", "phi3", "gpt_neox"])
def test_our_own_checkpoints_are_read_as_simulated(
    family: str, fmt: str, searched: Callable, tmp_path: Path
) -> None:
    model, searches, _ = searched(family)
    units = [unit.name for unit in list_units(model.family, model.blocks)]
    changed = {units[1]: FP16_BITS} | ({} if fmt == "awq" else {units[2]: 8, units[4]: 8})
    recipe = make_recipe("", model.family, model.blocks, 4, changed=changed)
    write_checkpoint(tmp_path / "out", model, recipe, searches, SCHEMES, fmt=fmt)
    candidate = open_candidate(str(tmp_path / "out"), model)
    for name, bits in recipe.linear_widths().items():
        assert candidate.width(name) == bits
    for number in range(model.blocks):
        realised = realise_block(model, recipe, searches, number, torch.float16)
        block = candidate.read_block(number)
        parameters = dict(block.named_parameters())
        for name, linear in realised.linears.items():
            assert torch.equal(parameters.pop(f"{name}.weight"), linear.served()), name
            if linear.bias is not None:
                assert torch.equal(parameters.pop(f"{name}.bias"), linear.bias.float()), name
        for name, values in realised.others.items():
            assert torch.equal(parameters.pop(name), values.float()), name
        assert not parameters
    assert rebased_blocks(model, candidate) == set(range(model.blocks))
    assert differing_places(model, candidate) == ()
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert candidate.catalogue.bytes == sum(tensor.nbytes for tensor in stored.values())
    linear = next(iter(recipe.linear_widths()))
    parts = [t.nbytes for n, t in stored.items() if n.startswith(f"{linear}.") and "bias" not in n]
    assert candidate.linear_bytes(linear) == sum(parts)


@pytest.mark.parametrize("family", ["llama", "cohere"])
def test_compressed_tensors_computes_what_transformers_does(
    family: str, searched: Callable, tmp_path: Path
) -> None:
    model, searches, windows = searched(family)
    recipe = make_recipe("", model.family, model.blocks, 4, changed={"0.o": 8, "1.down": 16})
    write_checkpoint(tmp_path / "out", model, recipe, searches, SCHEMES)
    candidate = open_candidate(str(tmp_path / "out"), model)
    torch.testing.assert_close(
        forward(candidate, windows),
        forward_transformers(tmp_path / "out", windows),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "phi3", "gpt_neox", "stablelm"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_plain_weights_compute_what_transformers_does(
    family: str, dtype: torch.dtype, make_model: MakeModel, tmp_path: Path
) -> None:
    """Every parameter moved, norms, biases, embedding and head too."""
    model = open_model(str(make_model(family)))
    path = copy_model(model.path, tmp_path)
    torch.manual_seed(5)
    change_tensors(path, lambda name, t: ((1 + 0.1 * torch.randn(t.shape)) * t).to(dtype))
    candidate = open_candidate(str(path), model)
    windows = torch.randint(0, 300, (2, 48))
    torch.testing.assert_close(
        forward(candidate, windows), forward_transformers(path, windows), rtol=1e-4, atol=1e-4
    )
    assert differing_places(model, candidate) == ("embeddings", "head")


def copy_model(source: Path, folder: Path) -> Path:
    return Path(shutil.copytree(source, folder / "candidate"))


def change_tensors(path: Path, change: Callable[[str, Tensor], Tensor | None]) -> None:
    """Rewrite a checkpoint's one file, tensor by tensor; None drops one."""
    tensors = load_file(path / "model.safetensors")
    changed = {name: change(name, tensor) for name, tensor in tensors.items()}
    kept = {name: tensor for name, tensor in changed.items() if tensor is not None}
    save_file(kept, path / "model.safetensors", metadata={"format": "pt"})


def change_config(path: Path, **changes: Any) -> None:
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    (path / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")


def linears_of(model: SourceModel) -> Iterator[tuple[str, nn.Linear]]:
    """The linears of every block, by full name."""
    for unit in list_units(model.family, model.blocks):
        for name in unit.linears:
            full = f"{model.prefix(unit.block)}.{name}"
            yield full, model.shell.get_submodule(full)


@pytest.fixture
def gptq(make_model: MakeModel, tmp_path: Path) -> tuple[SourceModel, Path, dict[str, Tensor]]:
    """A GPTQ checkpoint of a llama whose blocks have widths of their own, as GPTQModel's `dynamic`
    gives them, and the weight of each linear."""
    model = open_model(str(make_model("llama")))
    path = copy_model(model.path, tmp_path)
    tensors, weights = load_file(path / "model.safetensors"), {}
    for number, (name, linear) in enumerate(linears_of(model)):
        bits = (2, 3, 4, 8)[number % 4]
        shape = (linear.in_features, linear.out_features)
        parts, weights[name] = make_gptq(bits, v2=False, shuffled=True, shape=shape)
        del tensors[f"{name}.weight"]
        tensors |= {f"{name}.{part}": value for part, value in parts.items()}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    quantization = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": True}
    change_config(path, quantization_config=quantization)
    return model, path, weights


def test_gptq_of_several_widths(gptq: tuple[SourceModel, Path, dict[str, Tensor]]) -> None:
    model, path, weights = gptq
    candidate = open_candidate(str(path), model)
    reference = dict(model.read_block(1).named_parameters())
    for number in range(model.blocks):
        for name, values in candidate.read_block(number).named_parameters():
            full = f"{model.prefix(number)}.{name}".removesuffix(".weight")
            if full in weights:
                assert torch.equal(values, weights[full]), full
            elif number == 1:
                assert torch.equal(values, reference[name]), full
    assert {candidate.width(name) for name in weights} == {2, 3, 4, 8}
    assert rebased_blocks(model, candidate) == set()
    assert differing_places(model, candidate) == ()


def test_an_idle_bias_is_no_parameter(
    gptq: tuple[SourceModel, Path, dict[str, Tensor]],
) -> None:
    """Some writers give every linear a bias of zeros; one that adds something is refused."""
    model, path, weights = gptq
    tensors, name = load_file(path / "model.safetensors"), next(iter(weights))
    tensors[f"{name}.bias"] = torch.zeros(128)
    save_file(tensors, path / "model.safetensors")
    open_candidate(str(path), model)
    tensors[f"{name}.bias"][3] = 0.5
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(InputError, match=rf"{name}\.bias belongs to no parameter"):
        open_candidate(str(path), model)


def test_old_gptq_says_so_in_a_file_of_its_own(
    gptq: tuple[SourceModel, Path, dict[str, Tensor]],
) -> None:
    model, path, weights = gptq
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    quantization = config.pop("quantization_config")
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(InputError, match=r"packs model\.layers\.0\.self_attn\.q_proj in a way"):
        open_candidate(str(path), model)
    del quantization["quant_method"]
    (path / "quantize_config.json").write_text(json.dumps(quantization), encoding="utf-8")
    assert open_candidate(str(path), model).codings.keys() == weights.keys()


def test_modelopt_says_so_in_a_file_of_its_own(make_model: MakeModel, tmp_path: Path) -> None:
    """INT8 weights of servers that quantize activations too, with a factor for each input."""
    model = open_model(str(make_model("llama")))
    path = copy_model(model.path, tmp_path)
    tensors, weights = load_file(path / "model.safetensors"), {}
    for name, linear in linears_of(model):
        codes = torch.randint(-128, 128, linear.weight.shape).to(torch.int8)
        scales, factors = torch.rand(linear.out_features), torch.rand(linear.in_features)
        parts = {"weight": codes, "weight_scale": scales, "pre_quant_scale": factors}
        tensors |= {f"{name}.{part}": each for part, each in parts.items()}
        tensors[f"{name}.input_scale"] = torch.tensor(0.5)
        weights[name] = codes.float() * scales[:, None] * factors
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    said = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "W8A8_SQ_PER_CHANNEL"}}
    (path / "hf_quant_config.json").write_text(json.dumps(said), encoding="utf-8")
    candidate = open_candidate(str(path), model)
    assert candidate.method == "modelopt"
    assert candidate.quantizes_inputs
    for name, weight in weights.items():
        found = candidate.read([f"{name}.weight"])[f"{name}.weight"]
        torch.testing.assert_close(found, weight)
        assert candidate.width(name) == 8


@pytest.mark.parametrize("strategy", ["tensor", "channel"])
def test_eight_bit_floats_of_compressed_tensors(
    strategy: str, make_model: MakeModel, tmp_path: Path
) -> None:
    model = open_model(str(make_model("llama")))
    path = copy_model(model.path, tmp_path)
    tensors, weights = load_file(path / "model.safetensors"), {}
    for name, linear in linears_of(model):
        values = torch.randn(linear.weight.shape).to(torch.float8_e4m3fn)
        scales = torch.rand(1 if strategy == "tensor" else (linear.out_features, 1))
        tensors |= {f"{name}.weight": values, f"{name}.weight_scale": scales}
        weights[name] = values.float() * scales
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    group = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float"}}
    group["weights"] |= {"strategy": strategy, "symmetric": True}
    quantization = {"quant_method": "compressed-tensors", "format": "naive-quantized"}
    quantization |= {"config_groups": {"group_0": group}, "ignore": ["lm_head"]}
    change_config(path, quantization_config=quantization)
    candidate = open_candidate(str(path), model)
    assert not candidate.quantizes_inputs
    for name, weight in weights.items():
        assert torch.equal(candidate.read([f"{name}.weight"])[f"{name}.weight"], weight)
    windows = torch.randint(0, 300, (1, 16))
    assert forward(candidate, windows).isfinite().all()
    name = next(iter(weights))
    tensors[f"{name}.weight"].view(torch.uint8)[0, 0] = 0x7F
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="NaN or infinity"):
        open_candidate(str(path), model).read([f"{name}.weight"])


LINEAR = "model.layers.1.mlp.up_proj"


@pytest.mark.parametrize(
    ("part", "change", "wanted"),
    [
        ("scales", lambda t: None, rf"has no tensor {LINEAR}.scales"),
        ("scales", lambda t: t[:, :-1].contiguous(), rf"{LINEAR}.scales has shape"),
        ("qweight", lambda t: t[:-1].contiguous(), "no width for 128 inputs"),
        ("qzeros", lambda t: t[1:].contiguous(), rf"{LINEAR}.qzeros has shape"),
    ],
)
def test_damaged_parts_are_named(
    part: str,
    change: Callable[[Tensor], Tensor | None],
    wanted: str,
    gptq: tuple[SourceModel, Path, dict[str, Tensor]],
) -> None:
    model, path, _ = gptq
    change_tensors(path, lambda name, t: change(t) if name == f"{LINEAR}.{part}" else t)
    with pytest.raises(InputError, match=wanted):
        open_candidate(str(path), model)


@pytest.mark.parametrize(
    ("part", "value", "wanted"),
    [("scales", float("nan"), "NaN"), ("g_idx", 99, rf"{LINEAR}: a g_idx holds groups out of")],
)
def test_damage_inside_a_tensor_is_named_when_it_is_read(
    part: str, value: float, wanted: str, gptq: tuple[SourceModel, Path, dict[str, Tensor]]
) -> None:
    model, path, _ = gptq

    def damage(name: str, tensor: Tensor) -> Tensor:
        if name == f"{LINEAR}.{part}":
            tensor.view(-1)[0] = value
        return tensor

    change_tensors(path, damage)
    candidate = open_candidate(str(path), model)
    candidate.read_block(0)
    with pytest.raises(InputError, match=wanted):
        candidate.read_block(1)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"num_hidden_layers": 3}, "num_hidden_layers is 3, the reference's 2"),
        ({"hidden_size": 256}, "hidden_size is 256, the reference's 128"),
        ({"vocab_size": 401}, "vocab_size is 401, the reference's 384"),
        ({"num_key_value_heads": 4}, "num_key_value_heads is 4"),
        ({"rms_norm_eps": 1e-3}, "rms_norm_eps is 0.001"),
        ({"rope_theta": 5.0, "rope_parameters": None}, "rope_parameters is"),
        ({"model_type": "mistral"}, "model_type is mistral, the reference's llama"),
        ({"model_type": "mamba"}, "'mamba' is not supported"),
        ({"quantization_config": {"quant_method": "fp8"}}, "'fp8' is not read: .*awq, gptq, auto"),
        ({"quantization_config": {"bits": 4}}, "'unknown' is not read"),
        ({"quantization_config": [4]}, "config.json cannot be used"),
    ],
)
def test_other_architectures_and_methods_are_refused(
    changes: dict[str, Any], wanted: str, make_model: MakeModel, tmp_path: Path
) -> None:
    model = open_model(str(make_model("llama")))
    path = copy_model(model.path, tmp_path)
    change_config(path, **changes)
    with pytest.raises(InputError, match=wanted):
        open_candidate(str(path), model)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda name, t: None if "1.mlp.up_proj" in name else t, rf"no tensor {LINEAR}.weight"),
        (lambda name, t: t[:-1] if "up_proj" in name else t, "has shape"),
        (lambda name, t: t.to(torch.float8_e4m3fn) if "up" in name else t, "as F8_E4M3"),
        (lambda name, t: t.char() if "up_proj" in name else t, "as I8"),
    ],
)
def test_plain_tensors_that_are_not_as_they_must_be(
    change: Callable[[str, Tensor], Tensor | None],
    wanted: str,
    make_model: MakeModel,
    tmp_path: Path,
) -> None:
    model = open_model(str(make_model("llama")))
    path = copy_model(model.path, tmp_path)
    change_tensors(path, change)
    with pytest.raises(InputError, match=wanted):
        open_candidate(str(path), model)


def test_notes_of_other_tools_in_config_json_are_no_difference(
    make_model: MakeModel, tmp_path: Path
) -> None:
    model = open_model(str(make_model("llama")))
    path = copy_model(model.path, tmp_path)
    change_config(path, made_with="a tool", transformers_version="4.1", torch_dtype="float32")
    change_config(path, use_cache=False, bos_token_id=7, attention_dropout=0.1)
    assert open_candidate(str(path), model).codings == {}


@pytest.mark.parametrize("family", ["gpt_neox", "starcoder2"])
def test_scales_that_autoawq_leaves_after_an_activation(
    family: str, searched: Callable, tmp_path: Path
) -> None:
    """Against transformers' model with autoawq's own module in place of its activation."""
    model, searches, windows = searched(family)
    units = [unit.name for unit in list_units(model.family, model.blocks)]
    recipe = make_recipe("", model.family, model.blocks, 4, changed={units[7]: FP16_BITS})
    path = tmp_path / "out"
    write_checkpoint(path, model, recipe, searches, SCHEMES, fmt="awq")
    before = open_candidate(str(path), model)
    unscaled = forward(before, windows)
    loaded = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32).eval()
    tensors = load_file(path / "model.safetensors")
    torch.manual_seed(7)
    for number in range(model.blocks):
        block = loaded.get_submodule(model.prefix(number))
        block.load_state_dict(before.read_block(number).state_dict())
        scales = 0.5 + torch.rand(256)
        tensors[f"{model.prefix(number)}.mlp.act.scales"] = scales
        block.mlp.act = ScaledActivation(block.mlp.act, scales)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with torch.no_grad():
        expected = loaded(windows, use_cache=False).logits
    found = forward(open_candidate(str(path), model), windows)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - unscaled).abs().max() > 0.1


def test_a_tensor_too_many_is_named(make_model: MakeModel, tmp_path: Path) -> None:
    """Such as autoawq's activation scales in a checkpoint that does not say it is autoawq's."""
    model = open_model(str(make_model("starcoder2")))
    path = copy_model(model.path, tmp_path)
    tensors = load_file(path / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(16)
    save_file(tensors, path / "model.safetensors")
    open_candidate(str(path), model)
    tensors["model.layers.0.mlp.act.scales"] = torch.ones(256)
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(InputError, match=r"mlp\.act\.scales belongs to no parameter of a starcod"):
        open_candidate(str(path), model)


def test_heads_are_compared_as_they_are_used(make_model: MakeModel, tmp_path: Path) -> None:
    """A tied reference beside a candidate that stores the same head of its own, or another."""
    model = open_model(str(make_model("llama", tie_word_embeddings=True)))
    path = copy_model(model.path, tmp_path)
    tensors = load_file(path / "model.safetensors")
    assert "lm_head.weight" not in tensors
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, path / "model.safetensors")
    change_config(path, tie_word_embeddings=False)
    assert differing_places(model, open_candidate(str(path), model)) == ()
    tensors["lm_head.weight"][3] += 1
    save_file(tensors, path / "model.safetensors")
    candidate = open_candidate(str(path), model)
    assert differing_places(model, candidate) == ("head",)
    windows = torch.randint(0, 300, (1, 16))
    torch.testing.assert_close(
        forward(candidate, windows), forward_transformers(path, windows), rtol=1e-4, atol=1e-4
    )
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1].clone()
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(InputError, match=r"lm_head\.weight has shape"):
        open_candidate(str(path), model)


@pytest.mark.parametrize(
    ("fmt", "part", "dtype"),
    [
        ("awq", "qweight", torch.float16),
        ("awq", "qzeros", torch.int64),
        ("awq", "scales", torch.float8_e4m3fn),
        ("compressed-tensors", "weight_packed", torch.int64),
        ("compressed-tensors", "weight_scale", torch.float8_e4m3fn),
        ("compressed-tensors", "weight_zero_point", torch.float32),
    ],
)
def test_packed_tensors_of_other_types(
    fmt: str, part: str, dtype: torch.dtype, searched: Callable, tmp_path: Path
) -> None:
    model, searches, _ = searched("llama")
    recipe = make_recipe("", model.family, model.blocks, 4)
    path = tmp_path / "out"
    write_checkpoint(path, model, recipe, searches, SCHEMES, fmt=fmt)
    target = f"model.layers.1.mlp.down_proj.{part}"
    change_tensors(path, lambda name, t: t.to(dtype) if name == target else t)
    with pytest.raises(InputError, match=f"{target} as [A-Z0-9_]+, which"):
        open_candidate(str(path), model)


def test_zero_points_that_are_packed_bytes(searched: Callable, tmp_path: Path) -> None:
    """Bytes are one a zero point, words hold eight."""
    model, searches, _ = searched("llama")
    recipe = make_recipe("", model.family, model.blocks, 4)
    path = tmp_path / "out"
    write_checkpoint(path, model, recipe, searches, SCHEMES)
    target = "model.layers.1.mlp.down_proj.weight_zero_point"
    change_tensors(path, lambda name, t: t.to(torch.int8) if name == target else t)
    with pytest.raises(InputError, match=r"down_proj cannot be unpacked \(zero points are"):
        open_candidate(str(path), model).read_block(1)


def test_checkpoints_of_the_body_alone(make_model: MakeModel, tmp_path: Path) -> None:
    """As BLOOM's own, which leave out the first part of each name."""
    model = open_model(str(make_model("bloom")))
    path = copy_model(model.path, tmp_path)
    tensors = load_file(path / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(bare, path / "model.safetensors")
    candidate = open_candidate(str(path), model)
    windows = torch.randint(0, 300, (2, 16), generator=torch.Generator().manual_seed(0))
    assert torch.equal(forward(candidate, windows), forward(model, windows))
    assert differing_places(model, candidate) == ()
    assert candidate.catalogue.bytes == sum(tensor.nbytes for tensor in tensors.values())


def test_a_bias_of_another_type_is_not_idle(searched: Callable, tmp_path: Path) -> None:
    model, searches, _ = searched("llama")
    recipe = make_recipe("", model.family, model.blocks, 4)
    path = tmp_path / "out"
    write_checkpoint(path, model, recipe, searches, SCHEMES)
    tensors = load_file(path / "model.safetensors")
    bias = "model.layers.0.mlp.down_proj.bias"
    tensors[bias] = torch.zeros(128).to(torch.float8_e4m3fn)
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(InputError, match=f"{bias} belongs to no parameter"):
        open_candidate(str(path), model)


def pack_mlx(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """A weight as MLX stores it, at 4 bits in groups of 32, and what that stands for."""
    grouped = weight.float().view(len(weight), -1, 32)
    low, high = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
    # A padding token's row is zeros.
    scales = ((high - low) / 15).clamp(min=1e-6)
    codes = ((grouped - low) / scales).round().clamp(0, 15)
    nibbles = codes.view(len(weight), -1, 8).long() << torch.arange(0, 32, 4)
    words = nibbles.sum(-1).to(torch.uint32)
    parts = {"weight": words, "scales": scales[..., 0], "biases": low[..., 0]}
    return parts, (codes * scales + low).view_as(weight)


@pytest.mark.parametrize("copied", [True, False])
def test_mlx_is_known_without_a_method(copied: bool, make_model: MakeModel, tmp_path: Path) -> None:
    """Its entry of config.json is `quantization`; newer versions copy it to quantization_config.
    One module is left as it was, and the embedding is packed."""
    model = open_model(str(make_model("llama")))
    path = copy_model(model.path, tmp_path)
    tensors, weights = load_file(path / "model.safetensors"), {}
    names = [name for name, _ in linears_of(model)]
    for name in ["model.embed_tokens", *names[1:]]:
        parts, weights[name] = pack_mlx(tensors.pop(f"{name}.weight"))
        tensors |= {f"{name}.{part}": values.contiguous() for part, values in parts.items()}
    save_file(tensors, path / "model.safetensors", metadata={"format": "mlx"})
    said = {"group_size": 64, "bits": 8, "mode": "affine", names[0]: False}
    said |= {name: {"group_size": 32, "bits": 4} for name in weights}
    change_config(path, quantization=said, **({"quantization_config": said} if copied else {}))
    candidate = open_candidate(str(path), model)
    assert candidate.method == "mlx"
    assert candidate.codings.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(candidate.read([f"{name}.weight"])[f"{name}.weight"], weight)
    tensors["model.layers.0.mlp.switch_mlp.up_proj.weight"] = torch.zeros(2, 4, 4)
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(InputError, match=r"switch_mlp\.up_proj\.weight was renamed or stacked"):
        open_candidate(str(path), model)


def test_hqq_is_known_by_its_tensors(make_model: MakeModel, tmp_path: Path) -> None:
    """What hqq saves by itself says nothing of quantization in config.json."""
    model = open_model(str(make_model("llama")))
    path = copy_model(model.path, tmp_path)
    tensors = load_file(path / "model.safetensors")
    name, linear = next(iter(linears_of(model)))
    del tensors[f"{name}.weight"]
    rows, columns = linear.weight.shape
    groups = rows * columns // 64
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 16, (groups, 64), generator=generator)
    scale, zero = (torch.rand(groups, 1, generator=generator) for _ in range(2))
    high, low = codes.byte().chunk(2)
    stored = {"W_q": high * 16 + low, "scale": scale, "zero": zero}
    stored |= {"axis": torch.tensor(1, dtype=torch.int32), "shape": torch.tensor([rows, columns])}
    stored["packing"] = torch.tensor(list(b"4bit_u8"), dtype=torch.uint8)
    tensors |= {f"{name}.{part}": values for part, values in stored.items()}
    save_file(tensors, path / "model.safetensors")
    candidate = open_candidate(str(path), model)
    assert candidate.method == "hqq" and candidate.width(name) == 4
    found = candidate.read([f"{name}.weight"])[f"{name}.weight"]
    assert torch.equal(found, ((codes - zero) * scale).view(rows, columns))
