"""Emitted recipes given to the tools they are written for, on tiny models: what each tool makes of
every linear is the recipe's width. `make test-targets` installs the tools; each test is skipped
where its tool is missing."""

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
from awqscope.mixedprec.recipes.emitters import emit
from awqscope.mixedprec.recipes.recipe import Recipe, make_recipe
from awqscope.mixedprec.scheme import Scheme
from tests.help.tiny import TEXT, tiny_config

pytestmark = pytest.mark.targets

SHAPES = ("llama", "phi3", "gpt_neox", "starcoder2")
SCHEMES = {4: Scheme(4, 32, False), 8: Scheme(8, 64, True)}
SYMMETRIC = {3: Scheme(3, 128, True), 4: Scheme(4, 32, True), 8: Scheme(8, 64, True)}


def mixed(family: str, blocks: int = 2, **changed: int) -> Recipe:
    """Blocks at 4 bits but for a first unit at 8, a last one kept, and `changed`."""
    kinds = [kind.name for kind in FAMILIES[family].units]
    units = {f"1.{kinds[0]}": 8, f"0.{kinds[-1]}": 16, f"{blocks - 1}.{kinds[1]}": 8}
    return make_recipe("m", FAMILIES[family], blocks, 4, changed={**units, **changed})


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


@pytest.mark.parametrize("last", [4, 16])
@pytest.mark.parametrize("family", FAMILIES)
def test_llm_compressor(
    family: str,
    last: int,
    make_model: Callable[..., Path],
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """oneshot runs the recipe, and its checkpoint holds the recipe's widths."""
    llmcompressor = tool("llmcompressor")
    from datasets import Dataset
    from llmcompressor.pipelines.cache import IntermediatesCache

    # It pins pages for an accelerator even where there is none.
    monkeypatch.setattr(IntermediatesCache, "_pin_intermediate", staticmethod(lambda value: None))
    recipe = mixed(family, **{f"0.{FAMILIES[family].units[-1].name}": last})
    # It searches what shares a norm, in Cohere all but o and down, at the last linear's group size.
    schemes = {**SCHEMES, 4: Scheme(4, 64, False)} if family == "cohere" else SCHEMES
    (workplace / "recipe.yaml").write_text(emit("llm-compressor", recipe, schemes))
    source = make_model(family, dtype=torch.float32)
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
        pipeline="basic",
    )
    model.save_pretrained(workplace / "out", save_compressed=True)
    config = json.loads((workplace / "out/config.json").read_text())["quantization_config"]
    widths = recipe.linear_widths()
    kept = {name for name, bits in widths.items() if bits == 16}
    assert kept <= set(config["ignore"])
    with safe_open(workplace / "out/model.safetensors", framework="pt") as file:
        stored = set(file.keys())
        for name, bits in widths.items():
            assert (f"{name}.weight" in stored) == (bits == 16), name
            if bits != 16:
                columns = file.get_tensor(f"{name}.weight_shape")[1]
                assert file.get_tensor(f"{name}.weight_packed").shape[1] * 32 == columns * bits
                groups = file.get_tensor(f"{name}.weight_scale").shape[1]
                assert columns == groups * schemes[bits].group_size
                assert (f"{name}.weight_zero_point" in stored) != schemes[bits].symmetric


@pytest.mark.parametrize("family", SHAPES)
def test_gptqmodel(family: str, workplace: Path) -> None:
    gptqmodel = tool("gptqmodel")
    recipe = mixed(family, blocks=12, **{"11.o": 3})
    text = emit("gptqmodel", recipe, SYMMETRIC)
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


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_autoround(family: str, make_model: Callable[..., Path], workplace: Path) -> None:
    auto_round = tool("auto_round")
    schemes = {**SCHEMES, 3: Scheme(3, 128, True)}
    recipe = mixed(family, **{"1.o": 3})
    arguments = json.loads(emit("autoround", recipe, schemes))
    arguments.pop("awqscope")
    source = make_model(family)
    model = AutoModelForCausalLM.from_pretrained(source)
    tokenizer = AutoTokenizer.from_pretrained(source)
    rounding = auto_round.AutoRound(model, tokenizer, iters=0, disable_opt_rtn=True, **arguments)
    _, resolved = rounding.quantize()
    widths = recipe.linear_widths()
    assert set(resolved) == set(widths)
    for name, bits in widths.items():
        found = resolved[name]
        assert found["bits"] == bits and found["act_bits"] == 16, name
        if bits != 16:
            assert Scheme(found["bits"], found["group_size"], found["sym"]) == schemes[bits]


@pytest.mark.parametrize("family", FAMILIES)
def test_modelopt(family: str, make_model: Callable[..., Path], workplace: Path) -> None:
    """mtq.quantize applies the widths, and ModelOpt's export holds them."""
    mtq = tool("modelopt.torch.quantization")
    yaml = tool("yaml")
    from modelopt.torch.export import export_hf_checkpoint

    # Cohere's attention and MLP share their input, so ModelOpt's export wants them alike.
    recipe = mixed(family, **({"1.gate_up": 8} if family == "cohere" else {}))
    config = yaml.safe_load(emit("modelopt", recipe, SCHEMES))
    model = AutoModelForCausalLM.from_pretrained(make_model(family))
    tokens = torch.arange(64).reshape(2, 32)
    model = mtq.quantize(model, config, lambda held: held(tokens))
    widths = recipe.linear_widths()
    for name, module in linears(model):
        quantizer = module.weight_quantizer
        assert not module.input_quantizer.is_enabled
        assert (quantizer.num_bits if quantizer.is_enabled else 16) == widths.get(name, 16), name
        if widths.get(name) == 4:
            assert quantizer.block_sizes[-1] == 32
    export_hf_checkpoint(model, export_dir=str(workplace))
    exported = json.loads((workplace / "hf_quant_config.json").read_text())["quantization"]
    assert exported["quant_algo"] == "MIXED_PRECISION"
    layers = exported["quantized_layers"]
    names = {"W4A16_AWQ": 4, "W8A16": 8}
    found = {name: names[layer["quant_algo"]] for name, layer in layers.items()}
    assert found == {name: bits for name, bits in widths.items() if bits != 16}


# What mlx-lm wants in config.json and hub models have, but transformers 5 no longer writes.
HUB_NAMES = {
    "gpt_neox": {"rotary_emb_base": 10000, "rotary_pct": 0.25},
    "stablelm": {"rope_theta": 10000, "partial_rotary_factor": 0.25},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_mlx_lm(family: str, make_model: Callable[..., Path], workplace: Path) -> None:
    """mlx_lm.convert by the text, and the converted model as mlx-lm loads it."""
    mlx_lm = tool("mlx_lm")
    from mlx_lm.utils import load_model

    schemes = {**SCHEMES, 3: Scheme(3, 128, True)}
    recipe = mixed(family, **{"1.o": 3})
    layers = json.loads(emit("mlx-lm", recipe, schemes))["quantization"]
    source = workplace / "source"
    shape = {"intermediate_size": 512} if family == "gpt_neox" else {}
    shutil.copytree(make_model(family, **shape), source)
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
    assert found == {
        name.replace("gpt_neox.layers", "model.h"): (bits, schemes[bits].group_size)
        for name, bits in recipe.linear_widths().items()
        if bits != 16
    }


GGUF_NAMES = {"cohere": "COMMAND_R", "gpt_neox": "GPTNEOX", "mistral": "LLAMA"}


@pytest.mark.parametrize("family", FAMILIES)
def test_gguf_names(family: str) -> None:
    """Every linear is found under the name that llama.cpp's converter gives it."""
    gguf = tool("gguf")
    architecture = gguf.MODEL_ARCH[GGUF_NAMES.get(family, family.upper())]
    names = gguf.get_tensor_name_map(architecture, 12)
    recipe = mixed(family, blocks=12)
    text = emit("llama.cpp", recipe, SCHEMES)
    options = re.findall(r"--tensor-type '(.*)=(\w+)'", text)
    types = {4: "q4_K", 8: "q8_0", 16: "f16"}
    for linear, bits in recipe.linear_widths().items():
        tensor = names.get_name(linear) + ".weight"
        assert [kind for pattern, kind in options if re.search(pattern, tensor)] == [types[bits]]


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
