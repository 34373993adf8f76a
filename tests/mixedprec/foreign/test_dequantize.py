"""A plain model that was written from a checkpoint: the weights that the checkpoint stands for, as
transformers loads them, whatever format they were packed in."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.checkpoints.reader import open_checkpoint
from awqscope.mixedprec.checkpoints.writer import realise_block, write_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import list_units
from awqscope.mixedprec.files.shards import Planned, split_shards
from awqscope.mixedprec.foreign.candidate import Candidate
from awqscope.mixedprec.foreign.dequantize import Written, choose_stored, write_plain
from awqscope.mixedprec.foreign.opening import open_alone
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.recipes.recipe import Recipe, make_recipe
from awqscope.mixedprec.scheme import FP16_BITS, Scheme
from tests.help.packed import write_gguf
from tests.mixedprec.foreign.test_candidate import change_config, forward, forward_transformers

SCHEMES = {4: Scheme(4, 64, False), 8: Scheme(8, 64, True)}
MakeModel = Callable[..., Path]
WINDOWS = torch.randint(0, 300, (2, 24), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def write_ours(make_model: MakeModel, tmp_path: Path) -> Callable[..., tuple]:
    """Write a checkpoint of ours of a family; gives the model, recipe, searches and checkpoint."""

    def write(family: str, fmt: str = "compressed-tensors", **config: object) -> tuple:
        model = open_model(str(make_model(family, **config)))
        searches, out = tmp_path / "awq", tmp_path / "packed"
        search_model(model, WINDOWS, list(SCHEMES.values()), searches)
        units = [unit.name for unit in list_units(model.family, model.blocks)]
        changed = {units[1]: FP16_BITS} | ({} if fmt == "awq" else {units[2]: 8})
        recipe = make_recipe("", model.family, model.blocks, 4, changed=changed)
        write_checkpoint(out, model, recipe, searches, SCHEMES, fmt=fmt)
        return model, recipe, searches, out

    return write


def dequantize(candidate: Candidate, out: Path, dtype: str = "auto", **options: int) -> Path:
    stored = choose_stored(dtype, candidate)
    write_plain(out, candidate, stored, lambda written: f"{written.bytes}", **options)
    return out


def assert_same_function(candidate: Candidate, plain: Path) -> None:
    """transformers' forward of the plain model is ours of the candidate."""
    found, wanted = forward_transformers(plain, WINDOWS), forward(candidate, WINDOWS)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "bloom", "qwen3_moe", "mixtral"])
def test_our_own_checkpoints(family: str, write_ours: Callable, tmp_path: Path) -> None:
    """Mixed widths: the linears are those that the proof sees, bit for bit."""
    made: tuple[SourceModel, Recipe, Path, Path] = write_ours(family)
    model, recipe, searches, packed = made
    candidate = open_alone(str(packed))
    plain = dequantize(candidate, tmp_path / "plain", "float32")
    assert_same_function(candidate, plain)
    opened = open_model(str(plain))
    for number in range(model.blocks):
        realised = realise_block(model, recipe, searches, number, torch.float16)
        for name, linear in realised.linears.items():
            full = f"{model.prefix(number)}.{name}.weight"
            assert torch.equal(opened.read([full])[full], linear.served()), name
    stored = open_checkpoint(packed)
    assert {n for n, _ in opened.list_parameters()} == opened.tensors.keys()
    assert opened.catalogue.bytes > 2 * stored.catalogue.bytes
    config = json.loads((plain / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config and config["dtype"] == "float32"
    assert (plain / "README.md").read_text() == str(opened.catalogue.bytes)
    assert (plain / "tokenizer.json").read_bytes() == (packed / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(("dtype", "kind"), [("auto", "float16"), ("bfloat16", "bfloat16")])
def test_types(dtype: str, kind: str, write_ours: Callable, tmp_path: Path) -> None:
    """Each value is the nearest of its type to what it stands for."""
    *_, packed = write_ours("llama")
    candidate = open_alone(str(packed))
    plain = dequantize(candidate, tmp_path / "plain", dtype)
    wanted = getattr(torch, kind)
    for name, values in load_file(plain / "model.safetensors").items():
        assert values.dtype == wanted, name
        assert torch.equal(values, candidate.read([name], torch.float32)[name].to(wanted)), name
    loaded = AutoModelForCausalLM.from_pretrained(plain)
    assert loaded.dtype == wanted


def test_an_adapter_can_be_merged_into_it(write_ours: Callable, tmp_path: Path) -> None:
    """A packed linear has no weight to add to; the plain one's has, and what is saved is a model
    again."""
    *_, packed = write_ours("llama")
    plain = dequantize(open_alone(str(packed)), tmp_path / "plain", "float32")
    loaded = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32)
    name = "model.layers.1.mlp.up_proj"
    added = torch.randn(256, 4) @ torch.randn(4, 128)
    wanted = open_model(str(plain)).read([f"{name}.weight"])[f"{name}.weight"] + added
    with torch.no_grad():
        loaded.get_submodule(name).weight += added
    loaded.save_pretrained(tmp_path / "merged")
    merged = open_model(str(tmp_path / "merged"))
    assert torch.equal(merged.read([f"{name}.weight"])[f"{name}.weight"], wanted)


def test_scales_of_autoawq_after_an_activation(write_ours: Callable, tmp_path: Path) -> None:
    *_, packed = write_ours("starcoder2", "awq")
    tensors = load_file(packed / "model.safetensors")
    for number in range(2):
        tensors[f"model.layers.{number}.mlp.act.scales"] = 0.5 + torch.rand(256)
    save_file(tensors, packed / "model.safetensors", metadata={"format": "pt"})
    candidate = open_alone(str(packed))
    plain = dequantize(candidate, tmp_path / "plain", "float32")
    assert_same_function(candidate, plain)


def test_gguf(make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "tiny.gguf"
    q8 = GGMLQuantizationType.Q8_0
    weights = write_gguf(path, make_model("llama", tie_word_embeddings=True), q8, q8)
    candidate = open_alone(str(path))
    plain = dequantize(candidate, tmp_path / "plain", "float32")
    assert_same_function(candidate, plain)
    stored = load_file(plain / "model.safetensors")
    assert "lm_head.weight" not in stored
    for name in weights.keys() & stored.keys():
        assert torch.equal(stored[name], torch.from_numpy(weights[name])), name
    assert choose_stored("auto", candidate) == "float16"


def test_shards(write_ours: Callable, tmp_path: Path) -> None:
    """Several files with an index, none larger than it may be but for a tensor that is."""
    *_, packed = write_ours("llama")
    candidate = open_alone(str(packed))
    plain = dequantize(candidate, tmp_path / "plain", "float32", most=200_000)
    files = sorted(plain.glob("*.safetensors"))
    assert len(files) > 4
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((plain / "model.safetensors.index.json").read_text(encoding="utf-8"))
    held = {}
    for path in files:
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}
            held |= dict.fromkeys(file.keys(), path.name)
    assert index["weight_map"] == held
    assert index["metadata"]["total_size"] == open_model(str(plain)).catalogue.bytes
    assert_same_function(candidate, plain)


def test_where_shards_end() -> None:
    planned = {
        name: Planned("F16", (size,)) for name, size in zip("abcd", (4, 1, 1, 9), strict=True)
    }
    shards = split_shards(planned, 8)
    assert [list(shard) for shard in shards] == [["a"], ["b", "c"], ["d"]]


def test_a_padded_vocabulary_is_kept(write_ours: Callable, tmp_path: Path) -> None:
    *_, packed = write_ours("llama", tie_word_embeddings=False)
    tensors = load_file(packed / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.nn.functional.pad(tensors[name], (0, 0, 0, 16))
    save_file(tensors, packed / "model.safetensors", metadata={"format": "pt"})
    change_config(packed, vocab_size=400)
    plain = dequantize(open_alone(str(packed)), tmp_path / "plain", "float32")
    assert len(load_file(plain / "model.safetensors")["lm_head.weight"]) == 400
    assert_same_function(open_alone(str(packed)), plain)


def test_a_head_of_its_own_stays_one(write_ours: Callable, tmp_path: Path) -> None:
    """Where config.json says that it is the embedding."""
    *_, packed = write_ours("llama", tie_word_embeddings=True)
    tensors = load_file(packed / "model.safetensors")
    tensors["lm_head.weight"] = 2 * tensors["model.embed_tokens.weight"]
    save_file(tensors, packed / "model.safetensors", metadata={"format": "pt"})
    candidate = open_alone(str(packed))
    assert_same_function(candidate, dequantize(candidate, tmp_path / "plain", "float32"))


def test_nothing_half_written_is_left(
    write_ours: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, packed = write_ours("llama")
    candidate, out = open_alone(str(packed)), tmp_path / "plain"
    before = set(tmp_path.iterdir())

    def stop(done: int, total: int) -> None:
        assert not out.exists()
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_plain(out, candidate, "float16", lambda written: "", on_parameter=stop)
    assert set(tmp_path.iterdir()) == before
    # What a killed process leaves is cleared away by the next.
    (tmp_path / ".plain.partial").mkdir()
    (tmp_path / ".plain.partial" / "model-00007-of-00009.safetensors").write_bytes(b"half")
    dequantize(candidate, out)
    assert not list(out.glob("model-*"))
    assert not (tmp_path / ".plain.partial").exists()


def test_what_is_refused(write_ours: Callable, tmp_path: Path) -> None:
    model, *_, packed = write_ours("llama")

    def no_card(written: Written) -> str:
        raise AssertionError

    with pytest.raises(InputError, match="is not quantized: use it as it is"):
        write_plain(tmp_path / "plain", open_alone(str(model.path)), "float16", no_card)
    with pytest.raises(InputError, match="exists already"):
        write_plain(packed, open_alone(str(packed)), "float16", no_card)
    with pytest.raises(InputError, match="--dtype int8 is no type to store in: give auto, float16"):
        choose_stored("int8", open_alone(str(packed)))
    tensors = load_file(packed / "model.safetensors")
    name = "model.norm.weight"
    tensors[name] = torch.full_like(tensors[name], 1e6, dtype=torch.float32)
    save_file(tensors, packed / "model.safetensors")
    with pytest.raises(InputError, match=rf"{name} holds values .* --dtype bfloat16"):
        write_plain(tmp_path / "plain", open_alone(str(packed)), "float16", no_card)
    dequantize(open_alone(str(packed)), tmp_path / "plain", "bfloat16")
