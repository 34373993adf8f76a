"""Recipes in other tools' dialects, read back here by each tool's rule of matching."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import FAMILIES
from awqscope.mixedprec.recipes.emitters import EMITTERS, check_selectors, emit
from awqscope.mixedprec.recipes.emitters.selectors import Selector
from awqscope.mixedprec.recipes.recipe import Recipe, RecipeUnit, make_recipe
from awqscope.mixedprec.scheme import Grouped, Scheme
from tests.help.root import ROOT
from tests.help.tiny import tiny_config

LLAMA = FAMILIES["llama"]
SCHEMES = {4: Scheme(4, 128, False), 8: Scheme(8, 128, True)}
SYMMETRIC = {bits: replace(scheme, symmetric=True) for bits, scheme in SCHEMES.items()}
SERVED = ("llm-compressor", "gptqmodel", "autoround", "modelopt")
FUSED_NAMES = {"qkv_proj": "q_proj", "gate_up_proj": "up_proj"}
GGUF = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "qkv_proj": "attn_qkv",
    "query_key_value": "attn_qkv",
    "o_proj": "attn_output",
    "dense": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "gate_up_proj": "ffn_up",
    "c_fc": "ffn_up",
    "dense_h_to_4h": "ffn_up",
    "down_proj": "ffn_down",
    "c_proj": "ffn_down",
    "dense_4h_to_h": "ffn_down",
}


@lru_cache(maxsize=1)
def load_yaml(text: str) -> Any:
    return yaml.safe_load(text)


def read_llm_compressor(text: str, name: str) -> object:
    config = load_yaml(text)["default_stage"]["default_modifiers"]["QuantizationModifier"]
    assert all(t.startswith("re:") for g in config["config_groups"].values() for t in g["targets"])
    found = [
        group["weights"]
        for group in config["config_groups"].values()
        for target in group["targets"]
        if re.match(target[3:], name)
    ]
    kept = [target for target in config["ignore"] if re.match(target[3:], name)]
    if not found and not kept:
        return None
    if kept:
        assert not found
        return 16
    (weights,) = found
    strategy = "channel" if weights.get("group_size") is None else "group"
    assert weights["type"] == "int" and weights["strategy"] == strategy
    return Scheme(weights["num_bits"], weights.get("group_size", -1), weights["symmetric"])


def read_gptqmodel(text: str, name: str) -> object:
    for pattern, changes in json.loads(text)["dynamic"].items():
        if re.match(pattern[2:], name):
            if pattern.startswith("-:"):
                return 16
            assert pattern.startswith("+:")
            return Scheme(changes["bits"], changes["group_size"], changes["sym"])
    return None


def read_autoround(text: str, name: str) -> object:
    config = json.loads(text)["layer_config"]
    settings = config.get(name)
    if settings is None:
        assert not any(re.search(key, name) for key in config)
        return None
    if settings["bits"] == 16:
        return 16
    return Scheme(settings["bits"], settings["group_size"], settings["sym"])


def read_modelopt(text: str, name: str) -> object:
    held: object = "untouched"
    for entry in load_yaml(text)["quant_cfg"]:
        if fnmatchcase(name + ".weight_quantizer", entry["quantizer_name"]):
            held = entry.get("cfg", 16)
    if not isinstance(held, dict):
        return held
    if held["num_bits"] == 8:
        assert held["axis"] == 0 and "block_sizes" not in held
        return Scheme(8, -1, True)
    return Scheme(held["num_bits"], held["block_sizes"][-1], True)


def read_mlx_lm(text: str, name: str) -> object:
    path = re.sub(r"^gpt_neox\.layers\.", "model.h.", name)
    settings = json.loads(text)["quantization"].get(path)
    if not isinstance(settings, dict):
        return 16 if settings is False else None
    return settings["bits"], settings["group_size"]


def read_llama_cpp(text: str, name: str) -> object:
    block, last = re.search(r"\.(\d+)\..*?(\w+)$", name).groups() if "." in name else ("", name)
    tensor = f"blk.{block}.{GGUF[last]}.weight" if block else "output.weight"
    words = shlex.split(text, comments=True)
    for option, value in pairwise(words):
        if option == "--tensor-type":
            pattern, _, kind = value.partition("=")
            if re.search(pattern.lower(), tensor):
                return {"f16": 16, "q8_0": 8}.get(kind) or int(re.fullmatch(r"q(\d)_K", kind)[1])
    return None


READERS: dict[str, Callable[[str, str], object]] = {
    "llm-compressor": read_llm_compressor,
    "gptqmodel": read_gptqmodel,
    "autoround": read_autoround,
    "modelopt": read_modelopt,
    "mlx-lm": read_mlx_lm,
    "llama.cpp": read_llama_cpp,
}


def expected(target: str, scheme: Scheme) -> object:
    """What a reader is to find for a scheme."""
    if target == "llama.cpp":
        return scheme.bits
    if target == "mlx-lm":
        return scheme.bits, scheme.group_size
    if target == "modelopt":
        return Scheme(scheme.bits, -1 if scheme.bits == 8 else scheme.group_size, True)
    return scheme


def split(recipe: Recipe, changed: Mapping[str, int] = {}) -> Recipe:
    """Every linear a unit of its own, as recipes for tools that fuse nothing may be."""
    units = tuple(
        RecipeUnit(name, (name,), changed.get(name, bits))
        for name, bits in recipe.linear_widths().items()
    )
    return replace(recipe, units=units)


@st.composite
def choices(draw: st.DrawFn, target: str) -> tuple[Recipe, dict[int, Scheme]]:
    """A recipe of any family and widths that the target holds, and its schemes."""
    holds = sorted(EMITTERS[target].holds, key=lambda s: (s.bits, s.group_size, s.symmetric))
    by_bits: dict[int, list[Scheme]] = {}
    for scheme in holds:
        by_bits.setdefault(scheme.bits, []).append(scheme)
    schemes = {bits: draw(st.sampled_from(held)) for bits, held in by_bits.items()}
    family = FAMILIES[draw(st.sampled_from(["llama", "phi3", "starcoder2", "gpt_neox"]))]
    blocks = draw(st.sampled_from([1, 3, 13]))
    recipe = make_recipe("m", family, blocks, draw(st.sampled_from(sorted(schemes))))
    widths = st.sampled_from([*sorted(schemes), 16])
    if target in SERVED:
        names = [entry.unit for entry in recipe.units]
        changed = draw(st.dictionaries(st.sampled_from(names), widths, max_size=len(names) - 1))
        return make_recipe("m", family, blocks, recipe.units[0].bits, changed=changed), schemes
    names = list(recipe.linear_widths())
    changed = draw(st.dictionaries(st.sampled_from(names), widths, max_size=len(names) - 1))
    return split(recipe, changed), schemes


@pytest.mark.parametrize("target", EMITTERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_texts_read_back_as_the_recipe(target: str, data: st.DataObject) -> None:
    recipe, schemes = data.draw(choices(target))
    text = emit(target, recipe, schemes)
    read = READERS[target]
    for name, bits in recipe.linear_widths().items():
        assert read(text, name) == (16 if bits == 16 else expected(target, schemes[bits])), name
    for other in ("lm_head", "embed_out"):
        assert read(text, other) in (None, 16)


@pytest.mark.parametrize("target", EMITTERS)
def test_groups_of_several_sizes(target: str) -> None:
    """Said for each linear where the tool can; llama.cpp's text says that they are lost."""
    fine, symmetric = Grouped(4, 32), target in ("gptqmodel", "modelopt")
    changed = {"0.qkv": fine, "1.gate_up": 8, "1.down": fine, "2.o": 16}
    recipe = make_recipe("m", LLAMA, 3, 4, changed=changed)
    schemes = dict(SYMMETRIC if symmetric else SCHEMES)
    schemes = {**schemes, fine: replace(schemes[4], group_size=32)}
    text = emit(target, recipe, schemes)
    for name, width in recipe.linear_widths().items():
        wanted = 16 if width == 16 else expected(target, schemes[width])
        assert READERS[target](text, name) == wanted, name
    assert ("sizes of groups are lost" in text) == (target == "llama.cpp")


def test_groups_that_a_tool_cannot_hold_are_refused() -> None:
    recipe = make_recipe("m", LLAMA, 1, 4, changed={"0.o": Grouped(4, -1)})
    schemes = {**SCHEMES, Grouped(4, -1): Scheme(4, -1, False)}
    with pytest.raises(InputError, match=r"mlx-lm cannot hold unit 0\.o \(4 bits, asymmetric, one"):
        emit("mlx-lm", recipe, schemes)
    with pytest.raises(InputError, match=r"0\.o is at 4x-1 bits, for which no scheme is given"):
        emit("mlx-lm", recipe, SCHEMES)


@pytest.mark.parametrize("target", ["llm-compressor", "gptqmodel"])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_fused_names_have_their_parts_width(target: str, data: st.DataObject) -> None:
    """vLLM and SGLang look the fused linear up by a name that the model does not have."""
    recipe, schemes = data.draw(choices(target))
    text = emit(target, recipe, schemes)
    for name in recipe.linear_widths():
        for fused, part in FUSED_NAMES.items():
            if name.endswith(f".{part}"):
                whole = name.removesuffix(part) + fused
                assert READERS[target](text, whole) == READERS[target](text, name)


def test_the_emitted_script_passes_its_arguments_on(tmp_path: Path) -> None:
    recipe = make_recipe("it's $(touch x)\n`touch x` \\", LLAMA, 12, 4, changed={"1.o": 8})
    script = tmp_path / "quantize.sh"
    script.write_text(emit("llama.cpp", recipe, SCHEMES), encoding="utf-8")
    stub = tmp_path / "llama-quantize"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    environment = {"LLAMA_QUANTIZE": str(stub), "PATH": "/usr/bin:/bin"}
    shown = subprocess.run(
        ["sh", str(script), "in f16.gguf", "out.gguf"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert shown[-3:] == ["in f16.gguf", "out.gguf", "Q4_K_S"]
    assert r"^blk\.(1)\.attn_output\.weight$=q8_0" in shown
    assert shown[:4] == ["--token-embedding-type", "f16", "--output-tensor-type", "f16"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llama-quantize", "quantize.sh"]


def test_yaml_reads_as_people_write_it() -> None:
    recipe = make_recipe("m", LLAMA, 1, 4, changed={"0.qkv": 16})
    text = emit("llm-compressor", recipe, SCHEMES)
    assert "# group_0: 4 bits, asymmetric, groups of 128\ndefault_stage:\n" in text
    assert (
        r"""
        group_0:
          targets:
            - re:^model\.layers\.(0)\.self_attn\.o_proj$
"""
        in text
    )
    lines = emit("modelopt", recipe, SCHEMES).splitlines()
    assert lines[-8] == "  - {quantizer_name: '*', enable: false}"
    assert lines[-1] == (
        "  - {quantizer_name: model.layers.0.mlp.down_proj.weight_quantizer, "
        "cfg: {num_bits: 4, block_sizes: {-1: 128, type: static}}}"
    )
    # What is there twice is written twice.
    assert "&" not in text + "".join(lines)


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt_neox", "starcoder2"])
def test_compressed_tensors_applies_the_groups(family: str) -> None:
    kinds = [kind.name for kind in FAMILIES[family].units]
    changed = {f"1.{kinds[0]}": 8, f"0.{kinds[1]}": 16, f"1.{kinds[-1]}": 16}
    recipe = make_recipe("m", FAMILIES[family], 2, 4, changed=changed)
    text = emit("llm-compressor", recipe, SCHEMES)
    parsed = yaml.safe_load(text)["default_stage"]["default_modifiers"]["QuantizationModifier"]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_config(family))
    apply_quantization_config(model, QuantizationConfig(**parsed))
    widths = recipe.linear_widths()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            scheme = getattr(module, "quantization_scheme", None)
            found = scheme.weights.num_bits if scheme else 16
            assert found == widths.get(name, 16), name
            if scheme:
                assert scheme.weights.symmetric == SCHEMES[found].symmetric
                assert scheme.weights.group_size == SCHEMES[found].group_size


def test_awq_is_told_what_would_stop_it() -> None:
    def modifier(family: str, changed: Mapping[str, int] = {}) -> Any:
        recipe = make_recipe("m", FAMILIES[family], 2, 4, changed=changed)
        text = emit("llm-compressor", recipe, SCHEMES, family)
        return yaml.safe_load(text)["default_stage"]["default_modifiers"]["AWQModifier"]

    assert modifier("llama") == {"duo_scaling": True}
    assert modifier("llama", {"0.down": 16}) == {"duo_scaling": False}
    assert modifier("gpt_neox")["mappings"][0] == {
        "smooth_layer": r"re:.*\.input_layernorm$",
        "balance_layers": [r"re:.*\.query_key_value$"],
    }
    # OLMo 2's linears are named as llama's, and its norms are elsewhere.
    assert [entry["smooth_layer"] for entry in modifier("olmo2")["mappings"]] == [
        r"re:.*\.v_proj$",
        r"re:.*\.up_proj$",
    ]


@pytest.mark.parametrize("target", EMITTERS)
def test_split_units_are_for_tools_that_fuse_nothing(target: str) -> None:
    recipe = split(make_recipe("m", LLAMA, 2, 4), {"model.layers.1.self_attn.v_proj": 8})
    if target in SERVED:
        schemes = SYMMETRIC if target == "gptqmodel" else SCHEMES
        message = r"q_proj \(4 bits\) and .*v_proj \(8 bits\) differ, but .*vLLM, SGLang .*mlx-lm"
        with pytest.raises(InputError, match=message):
            emit(target, recipe, schemes)
    else:
        text = emit(target, recipe, SCHEMES)
        bits = 8 if target == "llama.cpp" else (8, 128)
        assert READERS[target](text, "model.layers.1.self_attn.v_proj") == bits


@pytest.mark.parametrize("target", SERVED)
def test_split_units_of_one_width_are_fused_again(target: str) -> None:
    recipe = make_recipe("m", LLAMA, 2, 4, changed={"1.qkv": 8})
    schemes = SYMMETRIC if target == "gptqmodel" else SCHEMES
    assert emit(target, split(recipe), schemes) == emit(target, recipe, schemes)


@pytest.mark.parametrize(
    ("target", "scheme", "able"),
    [
        ("llm-compressor", Scheme(3, 128, False), "autoround, mlx-lm, llama.cpp"),
        ("gptqmodel", Scheme(4, 128, False), "llm-compressor, autoround, modelopt, mlx-lm"),
        ("autoround", Scheme(8, 32, False), "llm-compressor, modelopt, mlx-lm, llama.cpp"),
        ("modelopt", Scheme(4, -1, True), "llm-compressor, gptqmodel, autoround, llama.cpp"),
        ("mlx-lm", Scheme(8, -1, True), "llm-compressor, gptqmodel, autoround, modelopt"),
        ("llama.cpp", Scheme(7, 64, True), "gptqmodel, autoround"),
    ],
)
def test_what_a_target_cannot_hold(target: str, scheme: Scheme, able: str) -> None:
    recipe = make_recipe("m", LLAMA, 2, scheme.bits, changed={"0.qkv": 16})
    message = rf"{target} cannot hold unit 0\.o \({scheme.bits} bits, .*emit for {able}"
    with pytest.raises(InputError, match=message) as refused:
        emit(target, recipe, {scheme.bits: scheme})
    assert ("make it symmetric" in refused.value.remedy) == (target in ("gptqmodel", "autoround"))


@pytest.mark.parametrize("target", EMITTERS)
def test_schemes_of_unused_widths_do_not_matter(target: str) -> None:
    recipe = make_recipe("m", LLAMA, 2, 8, changed={"0.qkv": 16})
    schemes = {8: Scheme(8, 128, True)} if target != "modelopt" else {8: Scheme(8, -1, True)}
    if target == "mlx-lm":
        schemes = {8: Scheme(8, 64, True)}
    text = emit(target, recipe, schemes)
    assert text == emit(target, recipe, {**schemes, 3: Scheme(3, 32, False), 4: SCHEMES[4]})


def test_recipes_that_cannot_be_emitted() -> None:
    recipe = make_recipe("m", LLAMA, 2, 4)
    with pytest.raises(InputError, match="unknown target 'exllama': choose from llm-compressor"):
        emit("exllama", recipe, SCHEMES)
    with pytest.raises(InputError, match=r"unit 0\.qkv is at 4 bits, .* no scheme is given: use 8"):
        emit("llama.cpp", recipe, {8: SCHEMES[8]})
    with pytest.raises(InputError, match="every unit at 16 bits"):
        emit("mlx-lm", make_recipe("m", LLAMA, 2, 16), SCHEMES)
    empty = replace(recipe, units=(replace(recipe.units[0], linears=()), *recipe.units[1:]))
    with pytest.raises(InputError, match=r"unit 0\.qkv of the recipe holds no linear"):
        emit("llm-compressor", empty, SCHEMES)
    again = replace(recipe.units[0], unit="0.again", width=8)
    with pytest.raises(InputError, match=r"names model\.layers\.0\.self_attn\.q_proj twice"):
        emit("llm-compressor", replace(recipe, units=(*recipe.units, again)), SCHEMES)
    other = replace(recipe, units=(RecipeUnit("0.x", ("model.layers.0.mixer.x",), 4),))
    with pytest.raises(InputError, match=r"the name of model\.layers\.0\.mixer\.x in GGUF"):
        emit("llama.cpp", other, SCHEMES)


@pytest.mark.parametrize("target", [name for name in EMITTERS if name != "llama.cpp"])
def test_odd_names_are_told_apart_or_refused(target: str) -> None:
    """Names that mean something in a pattern language never widen a selector."""
    units = (RecipeUnit("a", ("proj[ab].c*",), 4), RecipeUnit("b", ("proja.cc", "it's"), 8))
    recipe = Recipe("m", "uniform", units, {})
    schemes = SYMMETRIC if target == "gptqmodel" else SCHEMES
    if target == "modelopt":
        with pytest.raises(InputError, match=r"'proj\[ab\]\.c\*\.weight_quantizer' does not find"):
            emit(target, recipe, schemes)
        return
    text = emit(target, recipe, schemes)
    for name, bits in recipe.linear_widths().items():
        assert READERS[target](text, name) == expected(target, schemes[bits])


def test_check_selectors() -> None:
    names = ["layers.1.v_proj", "layers.11.v_proj", "layers.1.qkv_proj"]

    def check(*selectors: tuple[str, str, tuple[str, ...]]) -> None:
        check_selectors([Selector(*entry, width=4) for entry in selectors], names)

    exact = [(name, "exact", (name,)) for name in names]
    check(*exact)
    check((r"^layers\.(1|11)\.v_proj$", "search", tuple(names[:2])), exact[2])
    check(("layers.*.v_proj", "glob", tuple(names[:2])), exact[2])
    with pytest.raises(InputError, match=r"'layers\\\\.1' also finds layers\.11"):
        check((r"layers\.1", "match", (names[0], names[2])), exact[1])
    with pytest.raises(InputError, match=r"also finds layers\.1\.qkv_proj"):
        check((".*v_proj", "match", tuple(names[:2])), exact[2])
    with pytest.raises(InputError, match="finds no linear"):
        check(("layers.2.v_proj", "exact", ("layers.2.v_proj",)), *exact)
    with pytest.raises(InputError, match=r"does not find layers\.11\.v_proj"):
        check((r"^layers\.1\.v_proj$", "match", tuple(names[:2])), *exact[1:])
    with pytest.raises(InputError, match=r"layers\.1\.v_proj is found by .* and by"):
        check(exact[0], *exact)
    with pytest.raises(InputError, match=r"no selector finds layers\.1\.qkv_proj"):
        check(*exact[:2])


def test_emitting_needs_no_torch() -> None:
    program = "import awqscope.mixedprec.recipes.emitters, sys; sys.exit('torch' in sys.modules)"
    root = ROOT
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0
