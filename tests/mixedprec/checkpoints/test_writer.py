"""Checkpoints: what transformers loads is what was simulated, on every family."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from awq.utils.packing_utils import dequantize_gemm
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from awqscope.diagnose.inputs.sizes import model_bytes
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.mixedprec.awq.arithmetic import Quantized
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.checkpoints.reader import checkpoint_bytes, open_checkpoint
from awqscope.mixedprec.checkpoints.writer import realise_block, write_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import list_units
from awqscope.mixedprec.models.forward import run_block
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.served import read_ends
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.recipes.recipe import Recipe, make_recipe
from awqscope.mixedprec.scheme import FP16_BITS, Scheme
from tests.help.tiny import STOCK

SCHEMES = {4: Scheme(4, 64, False), 8: Scheme(8, 64, True)}
Searched = Callable[..., tuple[SourceModel, Path, torch.Tensor]]


@pytest.fixture(scope="module")
def searched(
    make_model: Callable[..., Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Searched:
    """A model of a family with its searches at 4 and 8 bits, and windows to run it on."""
    made: dict[str, tuple[SourceModel, Path, torch.Tensor]] = {}

    def search(family: str, **changes: object) -> tuple[SourceModel, Path, torch.Tensor]:
        key = family + repr(changes)
        if key not in made:
            path = make_model(family, **changes)
            model = open_model(str(path))
            corpus, tokenizer = load_corpus(str(text_file)), load_tokenizer(path)
            windows = cut_windows(corpus, tokenizer, 64, 6)
            folder = tmp_path_factory.mktemp("awq")
            search_model(model, windows, list(SCHEMES.values()), folder)
            made[key] = model, folder, windows
        return made[key]

    return search


def mixed_recipe(model: SourceModel) -> Recipe:
    """Two units of block 1 at 8 bits, the last one of block 0 kept at 16."""
    names = [unit.name for unit in list_units(model.family, model.blocks)]
    kinds = len(model.family.units)
    changed = {names[kinds - 1]: FP16_BITS, names[kinds]: 8, names[kinds + 2]: 8}
    return make_recipe("tiny", model.family, model.blocks, 4, changed=changed)


@torch.no_grad()
def simulate(
    model: SourceModel, recipe: Recipe, searches: Path, windows: torch.Tensor
) -> torch.Tensor:
    """Logits with every block's effective weights in the reference's basis."""
    ends = read_ends(model)
    entrance = ends.entrances[True]
    all_kwargs = entrance.block_kwargs(windows.shape[1])
    hidden = entrance.enter(windows)
    for number in range(model.blocks):
        block = model.read_block(number)
        realised = realise_block(model, recipe, searches, number, model.dtype)
        for name, weight in realised.effective().items():
            block.get_parameter(name).data = weight
        hidden = run_block(block, hidden, all_kwargs[number])
    return ends.heads[True](hidden)


@pytest.mark.parametrize("family", STOCK)
def test_transformers_loads_what_was_simulated(
    family: str, searched: Searched, tmp_path: Path
) -> None:
    model, searches, windows = searched(family)
    recipe = mixed_recipe(model)
    write_checkpoint(tmp_path / "out", model, recipe, searches, SCHEMES)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    with torch.no_grad():
        logits = loaded(windows, use_cache=False).logits
        reference = simulate(model, make_recipe("", model.family, 2, 16), searches, windows)
    simulated = simulate(model, recipe, searches, windows)
    damage = (simulated - reference).abs().mean()
    # Float32's roundings are all that differs.
    assert (logits - simulated).abs().mean() < 1e-4 * damage
    stored = open_checkpoint(tmp_path / "out")
    widths = recipe.linear_widths()
    for number in range(model.blocks):
        realised = realise_block(model, recipe, searches, number, model.dtype)
        for name, linear in realised.linears.items():
            full = f"{model.prefix(number)}.{name}"
            on_disk = stored.linear(full)
            assert on_disk is not None
            if isinstance(on_disk, Quantized):
                assert on_disk.scheme == SCHEMES[widths[full]]
                on_disk = on_disk.dequantize()
            else:
                assert widths[full] == FP16_BITS
            assert torch.equal(on_disk.float(), linear.served())
            assert torch.equal(loaded.get_submodule(full).weight.float(), linear.served())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_stored_types_round_trip(
    dtype: torch.dtype, make_model: Callable[..., Path], searched: Searched, tmp_path: Path
) -> None:
    model, searches, windows = searched("llama", dtype=dtype)
    recipe = mixed_recipe(model)
    write_checkpoint(tmp_path / "out", model, recipe, searches, SCHEMES)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    with torch.no_grad():
        logits = loaded(windows, use_cache=False).logits
    simulated = simulate(model, recipe, searches, windows)
    expected = torch.bfloat16 if dtype == torch.bfloat16 else torch.float16
    assert model.dtype == expected
    assert (logits - simulated).abs().mean() < 1e-5 * simulated.std()


def test_targets_are_disjoint_anchored_and_complete(searched: Searched, tmp_path: Path) -> None:
    model, searches, _ = searched("llama")
    recipe = mixed_recipe(model)
    write_checkpoint(tmp_path / "out", model, recipe, searches, SCHEMES)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    lists = [g["targets"] for g in config["config_groups"].values()] + [config["ignore"]]
    fused = {"model.layers.0.self_attn.qkv_proj", "model.layers.1.mlp.gate_up_proj"}
    for name in set(recipe.linear_widths()) | fused:
        hits = [
            any(re.fullmatch(t.removeprefix("re:"), name) for t in targets) for targets in lists
        ]
        assert sum(hits) == 1, name
    patterns = [t for targets in lists for t in targets if t.startswith("re:")]
    assert all(t.endswith("$") and "Linear" not in t for t in patterns)
    assert config["format"] == "pack-quantized"


def test_predicted_bytes_are_the_bytes_on_disk(searched: Searched, tmp_path: Path) -> None:
    model, searches, _ = searched("llama")
    recipe = mixed_recipe(model)
    write_checkpoint(tmp_path / "out", model, recipe, searches, SCHEMES)
    spec = RunSpec(model="tiny", calib="", valid="", group_size=64)
    changed = {name: bits for name, bits in recipe.bits.items() if bits != 4}
    predicted, _ = model_bytes(model, spec, changed)
    assert predicted == checkpoint_bytes(tmp_path / "out")


def test_gemm_format_is_what_autoawq_reads(searched: Searched, tmp_path: Path) -> None:
    model, searches, _ = searched("llama")
    recipe = make_recipe("", model.family, model.blocks, 4, changed={"0.o": FP16_BITS})
    write_checkpoint(tmp_path / "out", model, recipe, searches, SCHEMES, fmt="awq")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    realised = realise_block(model, recipe, searches, 1, torch.float16)
    for name, linear in realised.linears.items():
        parts = [tensors[f"model.layers.1.{name}.{p}"] for p in ("qweight", "qzeros", "scales")]
        read = dequantize_gemm(*parts, 4, 64).T.float()
        assert torch.allclose(read, linear.served(), rtol=2e-3, atol=1e-6), name
    assert "model.layers.0.self_attn.o_proj.weight" in tensors
    stored = open_checkpoint(tmp_path / "out")
    assert all(stored.linear(name) is not None for name in recipe.linear_widths())
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config["version"] == "gemm"
    assert config["modules_to_not_convert"] == ["model.layers.0.self_attn.o_proj"]


def test_gemm_refuses_other_widths_and_leaves_nothing(searched: Searched, tmp_path: Path) -> None:
    model, searches, _ = searched("llama")
    with pytest.raises(InputError, match="holds 4 and 16 bits"):
        write_checkpoint(tmp_path / "out", model, mixed_recipe(model), searches, SCHEMES, fmt="awq")
    assert not list(tmp_path.iterdir())


def test_large_models_are_split_into_shards(
    searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, searches, windows = searched("llama")
    monkeypatch.setattr("awqscope.mixedprec.checkpoints.writer.SHARD_BYTES", 100_000)
    recipe = mixed_recipe(model)
    write_checkpoint(tmp_path / "out", model, recipe, searches, SCHEMES)
    assert len(list((tmp_path / "out").glob("*-of-*.safetensors"))) > 1
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    with torch.no_grad():
        logits = loaded(windows, use_cache=False).logits
    simulated = simulate(model, recipe, searches, windows)
    assert torch.allclose(logits, simulated, atol=1e-3 * simulated.std().item())
