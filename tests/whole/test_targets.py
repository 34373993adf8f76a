"""Emitted recipes given to the tools they are written for, on tiny models: what each tool makes of
every linear is the recipe's width, and what `coverage` says that a tool does not take it fails on.
`make test-targets` installs the tools; each test is skipped where its tool is missing."""

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from awqscope.mixedprec.families.table import FAMILIES
from awqscope.mixedprec.recipes.emitters import EMITTERS, emit
from awqscope.mixedprec.recipes.emitters.coverage import GAPS, RELEASES, SHARED_INPUTS
from awqscope.mixedprec.recipes.recipe import Recipe, make_recipe
from awqscope.mixedprec.scheme import Scheme
from tests.help.tiny import TEXT, tiny_config

pytestmark = pytest.mark.targets

PLAIN = [name for name, family in FAMILIES.items() if family.experts is None]
SCHEMES = {4: Scheme(4, 32, False), 8: Scheme(8, 64, True)}
SYMMETRIC = {3: Scheme(3, 128, True), 4: Scheme(4, 32, True), 8: Scheme(8, 64, True)}


def mixed(family: str, blocks: int = 2, **changed: int) -> Recipe:
    """Blocks at 4 bits but for a first unit at 8, a last one kept, and `changed`."""
    kinds = [kind.name for kind in FAMILIES[family].units]
    units = {f"1.{kinds[0]}": 8, f"0.{kinds[-1]}": 16, f"{blocks - 1}.{kinds[1]}": 8}
    return make_recipe("m", FAMILIES[family], blocks, 4, changed={**units, **changed})


def taken(target: str) -> list[str]:
    """The families that `target` takes."""
    return [family for family in PLAIN if family not in GAPS.get(target, {})]


def force(target: str, recipe: Recipe) -> str:
    """The text that is refused for the recipe's family: written as if it were a llama's."""
    return emit(target, recipe, SCHEMES, "llama")


def tool(name: str) -> Any:
    """A tool's module. Skips the test where the tool is not installed; one that is there and does
    not import fails it."""
    if importlib.util.find_spec(name.split(".")[0]) is None:
        pytest.skip(f"{name} is not installed")
    return importlib.import_module(name)


def linears(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    return [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, because some tools leave folders there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("target", EMITTERS)
def test_releases_are_those_that_are_seen(target: str) -> None:
    package, version = RELEASES[target]
    try:
        installed = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    assert installed == version


@pytest.fixture
def run_llm_compressor(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path, str], Path]:
    """oneshot with a recipe's text on a saved model, to the checkpoint it makes."""
    llmcompressor = tool("llmcompressor")
    from datasets import Dataset
    from llmcompressor.core import reset_session
    from llmcompressor.pipelines.cache import IntermediatesCache

    # It pins pages for an accelerator even where there is none.
    monkeypatch.setattr(IntermediatesCache, "_pin_intermediate", staticmethod(lambda value: None))

    def run(source: Path, text: str) -> Path:
        # What failed before would go on with this recipe.
        reset_session()
        (workplace / "recipe.yaml").write_text(text)
        model = AutoModelForCausalLM.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(source)
        tokens = tokenizer(TEXT)["input_ids"]
        rows = [{"input_ids": tokens[at : at + 64]} for at in range(0, 256, 64)]
        llmcompressor.oneshot(
            model=model,
            processor=tokenizer,
            recipe=str(workplace / "recipe.yaml"),
            dataset=Dataset.from_list(rows),
            num_calibration_samples=len(rows),
            max_seq_length=64,
            pipeline="sequential",
        )
        model.save_pretrained(workplace / "out", save_compressed=True)
        return workplace / "out"

    return run


@pytest.mark.parametrize("last", [4, 16])
@pytest.mark.parametrize("family", taken("llm-compressor"))
def test_llm_compressor(
    family: str,
    last: int,
    make_model: Callable[..., Path],
    run_llm_compressor: Callable[[Path, str], Path],
) -> None:
    """oneshot runs the recipe, and its checkpoint holds the recipe's widths."""
    recipe = mixed(family, **{f"0.{FAMILIES[family].units[-1].name}": last})
    schemes = {**SCHEMES, 4: Scheme(4, 64, False)} if family in SHARED_INPUTS else SCHEMES
    text = emit("llm-compressor", recipe, schemes, family)
    out = run_llm_compressor(make_model(family, dtype=torch.float32), text)
    config = json.loads((out / "config.json").read_text())["quantization_config"]
    widths = recipe.linear_widths()
    kept = {name for name, bits in widths.items() if bits == 16}
    assert kept <= set(config["ignore"])
    with safe_open(out / "model.safetensors", framework="pt") as file:
        stored = set(file.keys())
        for name, bits in widths.items():
            assert (f"{name}.weight" in stored) == (bits == 16), name
            if bits != 16:
                columns = file.get_tensor(f"{name}.weight_shape")[1]
                assert file.get_tensor(f"{name}.weight_packed").shape[1] * 32 == columns * bits
                groups = file.get_tensor(f"{name}.weight_scale").shape[1]
                assert columns == groups * schemes[bits].group_size
                assert (f"{name}.weight_zero_point" in stored) != schemes[bits].symmetric


def test_llm_compressor_has_no_awq_for_falcon(
    make_model: Callable[..., Path], run_llm_compressor: Callable[[Path, str], Path]
) -> None:
    """It fails on blocks as those of 7B, and of those of 40B it silently scales no norm."""
    assert set(GAPS["llm-compressor"]) == {"falcon"}
    text = force("llm-compressor", mixed("falcon"))
    with pytest.raises(ValueError, match="Found a final incomplete set"):
        run_llm_compressor(
            make_model("falcon", torch.float32, new_decoder_architecture=False), text
        )
    source = make_model("falcon", torch.float32)
    out = run_llm_compressor(source, text)
    norms = [
        f"transformer.h.{block}.{norm}.weight" for block in (0, 1) for norm in ("ln_attn", "ln_mlp")
    ]
    for name in norms:
        before, after = (read_tensor(path, name) for path in (source, out))
        assert torch.equal(before, after), name


def read_tensor(checkpoint: Path, name: str) -> torch.Tensor:
    with safe_open(checkpoint / "model.safetensors", framework="pt") as file:
        return file.get_tensor(name)


def test_llm_compressor_wants_groups_of_one_size_behind_a_norm(
    make_model: Callable[..., Path], run_llm_compressor: Callable[[Path, str], Path]
) -> None:
    source = make_model("cohere2", torch.float32)
    with pytest.raises(RuntimeError, match="size"):
        run_llm_compressor(source, force("llm-compressor", mixed("cohere2")))


@pytest.mark.parametrize("family", taken("gptqmodel"))
def test_gptqmodel(family: str, workplace: Path) -> None:
    gptqmodel = tool("gptqmodel")
    recipe = mixed(family, blocks=12, **{"11.o": 3})
    text = emit("gptqmodel", recipe, SYMMETRIC, family)
    config = gptqmodel.QuantizeConfig(**json.loads(text))
    # As it would be read again from the quantized model's directory.
    config.save_pretrained(str(workplace))
    again = gptqmodel.QuantizeConfig.from_pretrained(str(workplace))
    for held in (config, again):
        assert held.lm_head is False and held.desc_act is False
        for name, bits in recipe.linear_widths().items():
            found = held.dynamic_get(name)
            if bits == 16:
                assert found is False
            else:
                scheme = Scheme(found["bits"], found["group_size"], found["sym"])
                assert scheme == SYMMETRIC[bits], name
    if family == "llama":
        assert config.dynamic_get("model.layers.1.self_attn.qkv_proj", "bits") == 8
        assert config.dynamic_get("model.layers.10.self_attn.qkv_proj", "bits") == 4


# It leaves linears at 16 bits whose rows or columns are no multiple of 32.
ROUND_SHAPES = {"minicpm3": {"qk_rope_head_dim": 32}}


def run_autoround(source: Path, text: str) -> dict[str, Any]:
    """AutoRound with a recipe's text on a saved model, to what it makes of each linear."""
    auto_round = tool("auto_round")
    arguments = json.loads(text)
    arguments.pop("awqscope")
    model = AutoModelForCausalLM.from_pretrained(source)
    tokenizer = AutoTokenizer.from_pretrained(source)
    rounding = auto_round.AutoRound(model, tokenizer, iters=0, disable_opt_rtn=True, **arguments)
    return rounding.quantize()[1]


@pytest.mark.parametrize("family", taken("autoround"))
def test_autoround(family: str, make_model: Callable[..., Path], workplace: Path) -> None:
    schemes = {**SCHEMES, 3: Scheme(3, 128, True)}
    recipe = mixed(family, **{"1.o": 3})
    source = make_model(family, **ROUND_SHAPES.get(family, {}))
    resolved = run_autoround(source, emit("autoround", recipe, schemes, family))
    widths = recipe.linear_widths()
    assert set(resolved) == set(widths)
    for name, bits in widths.items():
        found = resolved[name]
        assert found["bits"] == bits and found["act_bits"] == 16, name
        if bits != 16:
            assert Scheme(found["bits"], found["group_size"], found["sym"]) == schemes[bits]


@pytest.mark.parametrize("family", GAPS["autoround"])
def test_autoround_quantizes_nothing_of(
    family: str, make_model: Callable[..., Path], workplace: Path
) -> None:
    assert run_autoround(make_model(family), force("autoround", mixed(family))) == {}


def run_modelopt(family: str, text: str, source: Path, out: Path) -> torch.nn.Module:
    """mtq.quantize with a recipe's text on a saved model, exported to `out`."""
    mtq = tool("modelopt.torch.quantization")
    yaml = tool("yaml")
    from modelopt.torch.export import export_hf_checkpoint

    tokens = torch.arange(64).reshape(2, 32)
    model = AutoModelForCausalLM.from_pretrained(source)
    model = mtq.quantize(model, yaml.safe_load(text), lambda held: held(tokens))
    export_hf_checkpoint(model, export_dir=str(out))
    return model


@pytest.mark.parametrize("family", taken("modelopt"))
def test_modelopt(family: str, make_model: Callable[..., Path], workplace: Path) -> None:
    """mtq.quantize applies the widths, and ModelOpt's export holds them."""
    recipe = mixed(family, **{f"1.{kind}": 8 for kind in SHARED_INPUTS.get(family, ())})
    text = emit("modelopt", recipe, SCHEMES, family)
    model = run_modelopt(family, text, make_model(family), workplace)
    widths = recipe.linear_widths()
    for name, module in linears(model):
        quantizer = module.weight_quantizer
        assert not module.input_quantizer.is_enabled
        assert (quantizer.num_bits if quantizer.is_enabled else 16) == widths.get(name, 16), name
        if widths.get(name) == 4:
            assert quantizer.block_sizes[-1] == 32
    exported = json.loads((workplace / "hf_quant_config.json").read_text())["quantization"]
    assert exported["quant_algo"] == "MIXED_PRECISION"
    layers = exported["quantized_layers"]
    names = {"W4A16_AWQ": 4, "W8A16": 8}
    found = {name: names[layer["quant_algo"]] for name, layer in layers.items()}
    assert found == {name: bits for name, bits in widths.items() if bits != 16}


MODELOPT_FAILS = {
    "bloom": (IndexError, "list index out of range"),
    "olmo": (AttributeError, "'OlmoLayerNorm' object has no attribute 'weight'"),
    **dict.fromkeys(SHARED_INPUTS, (AssertionError, "different quantization formats")),
}


@pytest.mark.parametrize("family", [*GAPS["modelopt"], *SHARED_INPUTS])
def test_modelopt_does_not_take(
    family: str, make_model: Callable[..., Path], workplace: Path
) -> None:
    """A family, or other widths for linears that read one input."""
    kind, message = MODELOPT_FAILS[family]
    text = force("modelopt", mixed(family))
    with pytest.raises(kind, match=message):
        run_modelopt(family, text, make_model(family), workplace)


# What mlx-lm wants in config.json and hub models have, but transformers 5 no longer writes.
LONGROPE = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [1.0] * 8}
HUB_NAMES = {
    "exaone4": {
        "rope_theta": 10000,
        "head_dim": 32,
        "rope_scaling": None,
        "sliding_window_pattern": "LG",
    },
    "glm4": {"rope_theta": 10000, "partial_rotary_factor": 0.5},
    "gpt_neox": {"rotary_emb_base": 10000, "rotary_pct": 0.25},
    "granite": {"rope_theta": 10000},
    "minicpm3": {"rope_scaling": {**LONGROPE, "original_max_position_embeddings": 128}},
    "olmo3": {"rope_theta": 10000},
    "stablelm": {"rope_theta": 10000, "partial_rotary_factor": 0.25},
}
# It takes the middle of these to be four times as wide as the rest, without asking config.json.
MLX_SHAPES = {"gpt_neox": {"intermediate_size": 512}, "gptj": {"n_inner": 512}}


@pytest.mark.parametrize("family", taken("mlx-lm"))
def test_mlx_lm(family: str, make_model: Callable[..., Path], workplace: Path) -> None:
    """mlx_lm.convert by the text, and the converted model as mlx-lm loads it."""
    mlx_lm = tool("mlx_lm")
    from mlx_lm.utils import load_model

    schemes = {**SCHEMES, 3: Scheme(3, 128, True)}
    recipe = mixed(family, **{"1.o": 3})
    layers = json.loads(emit("mlx-lm", recipe, schemes, family))["quantization"]
    source = workplace / "source"
    shutil.copytree(make_model(family, **MLX_SHAPES.get(family, {})), source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, **HUB_NAMES.get(family, {})}))
    mlx_lm.convert(
        str(source),
        str(workplace / "out"),
        quantize=True,
        q_group_size=layers["group_size"],
        q_bits=layers["bits"],
        quant_predicate=lambda path, module: layers.get(path, False),
    )
    model, _ = load_model(workplace / "out")
    found = {
        path: (module.bits, module.group_size)
        for path, module in model.named_modules()
        if hasattr(module, "bits")
    }
    start = "transformer.h" if family == "gptj" else "gpt_neox.layers"
    assert found == {
        name.replace(start, "model.h"): (bits, schemes[bits].group_size)
        for name, bits in recipe.linear_widths().items()
        if bits != 16
    }


@pytest.mark.parametrize("family", GAPS["mlx-lm"])
def test_mlx_lm_does_not_take(
    family: str, make_model: Callable[..., Path], workplace: Path
) -> None:
    """It says so, but of OLMo, where it ends the process."""
    mlx_lm = tool("mlx_lm")
    failure = SystemExit if family == "olmo" else ValueError
    message = "1" if family == "olmo" else f"Model type {family} not supported"
    with pytest.raises(failure, match=message):
        mlx_lm.convert(str(make_model(family)), str(workplace / "out"))


GGUF_NAMES = {
    "cohere": "COMMAND_R",
    "gemma3_text": "GEMMA3",
    "gpt_bigcode": "STARCODER",
    "gpt_neox": "GPTNEOX",
    "mistral": "LLAMA",
    "olmo3": "OLMO2",
}


@pytest.mark.parametrize("family", taken("llama.cpp"))
def test_gguf_names(family: str) -> None:
    """Every linear is found under the name that llama.cpp's converter gives it."""
    gguf = tool("gguf")
    architecture = gguf.MODEL_ARCH[GGUF_NAMES.get(family, family.upper())]
    names = gguf.get_tensor_name_map(architecture, 12)
    recipe = mixed(family, blocks=12)
    text = emit("llama.cpp", recipe, SCHEMES, family)
    options = re.findall(r"--tensor-type '(.*)=(\w+)'", text)
    types = {4: "q4_K", 8: "q8_0", 16: "f16"}
    for linear, bits in recipe.linear_widths().items():
        tensor = names.get_name(linear) + ".weight"
        assert [kind for pattern, kind in options if re.search(pattern, tensor)] == [types[bits]]


def test_gguf_names_no_tensors_of_opt() -> None:
    """Those of GPT-J it names, but no converter makes them."""
    gguf = tool("gguf")
    assert set(GAPS["llama.cpp"]) == {"opt", "gptj"}
    assert not hasattr(gguf.MODEL_ARCH, "OPT") and hasattr(gguf.MODEL_ARCH, "GPTJ")


def test_llama_quantize(workplace: Path) -> None:
    """llama-quantize itself, where one is on the PATH or named in LLAMA_QUANTIZE."""
    gguf = tool("gguf")
    program = os.environ.get("LLAMA_QUANTIZE") or shutil.which("llama-quantize")
    if not program:
        pytest.skip("no llama-quantize")
    blocks, wide, middle, vocabulary = 12, 256, 512, 64
    config = tiny_config(
        "llama",
        num_hidden_layers=blocks,
        hidden_size=wide,
        intermediate_size=middle,
        vocab_size=vocabulary,
        num_key_value_heads=4,
    )
    model = AutoModelForCausalLM.from_config(config)
    write_gguf(gguf, workplace / "f16.gguf", model, config)
    recipe = mixed("llama", blocks=blocks, **{"11.gate_up": 6})
    (workplace / "quantize.sh").write_text(
        emit("llama.cpp", recipe, {**SCHEMES, 6: Scheme(6, 32, True)})
    )
    done = subprocess.run(
        ["sh", "quantize.sh", "f16.gguf", "out.gguf"],
        env={**os.environ, "LLAMA_QUANTIZE": program},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {t.name: t.tensor_type.name for t in gguf.GGUFReader("out.gguf").tensors}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, blocks)
    types = {4: "Q4_K", 6: "Q6_K", 8: "Q8_0", 16: "F16"}
    for linear, bits in recipe.linear_widths().items():
        assert found[names.get_name(linear) + ".weight"] == types[bits], linear
    assert found["token_embd.weight"] == found["output.weight"] == "F16"


def write_gguf(gguf: Any, path: Path, model: torch.nn.Module, config: Any) -> None:
    """A llama as GGUF at 16 bits, with a vocabulary of its token numbers."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(128)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{number}>".encode() for number in range(config.vocab_size)])
    writer.add_token_scores([0.0] * config.vocab_size)
    writer.add_token_types([1] * config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, value in model.state_dict().items():
        data = value.numpy().astype(np.float16 if value.ndim > 1 else np.float32)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
