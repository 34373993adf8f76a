"""Reading a model piece by piece gives the model; what cannot be read is refused in one line."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.forward import run_block
from awqscope.mixedprec.models.opening import open_model
from tests.help.tiny import FAMILIES

MakeModel = Callable[..., Path]


@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_add_up_to_transformers_model(family: str, make_model: MakeModel) -> None:
    path = make_model(family)
    model = open_model(str(path))
    whole = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    windows = torch.randint(0, 384, (3, 48), generator=torch.Generator().manual_seed(0))
    entrance = model.read_entrance()
    all_kwargs = entrance.block_kwargs(48)
    hidden = entrance.enter(windows)
    with torch.no_grad():
        for number in range(model.blocks):
            hidden = run_block(model.read_block(number), hidden, all_kwargs[number])
        expected = whole(windows, use_cache=False).logits
        torch.testing.assert_close(model.read_head()(hidden), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["bloom", "opt", "mixtral"])
def test_a_body_alone_is_the_same_model(family: str, make_model: MakeModel, tmp_path: Path) -> None:
    """BLOOM's own checkpoints name their tensors without "transformer."."""
    path = make_model(family)
    bare = Path(shutil.copytree(path, tmp_path / "bare"))
    tensors = load_file(bare / "model.safetensors")
    names = {n: n if n.startswith("lm_head.") else n.partition(".")[2] for n in tensors}
    save_file({names[n]: tensor for n, tensor in tensors.items()}, bare / "model.safetensors")
    whole, body = open_model(str(path)), open_model(str(bare))
    assert body.other_tensors() == whole.other_tensors()
    assert body.dtype == whole.dtype
    expected = dict(whole.read_whole().named_parameters())
    for name, parameter in body.read_whole().named_parameters():
        assert torch.equal(parameter, expected[name]), name


def test_sliding_windows_reach_the_blocks(make_model: MakeModel) -> None:
    """Longer than Gemma 2's window: its even and odd blocks need different masks."""
    path = make_model("gemma2", sliding_window=16)
    model = open_model(str(path))
    whole = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    windows = torch.randint(0, 384, (2, 48), generator=torch.Generator().manual_seed(0))
    entrance = model.read_entrance()
    hidden = entrance.enter(windows)
    with torch.no_grad():
        for number, kwargs in enumerate(entrance.block_kwargs(48)):
            hidden = run_block(model.read_block(number), hidden, kwargs)
        expected = whole(windows, use_cache=False).logits
        torch.testing.assert_close(model.read_head()(hidden), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def damaged(make_model: MakeModel, tmp_path: Path) -> Path:
    """A copy of a good model, to be damaged."""
    return Path(shutil.copytree(make_model("llama"), tmp_path / "model"))


def test_missing_weights(damaged: Path) -> None:
    (damaged / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no safetensors file"):
        open_model(str(damaged))


def test_truncated_weights(damaged: Path) -> None:
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(InputError, match="truncated or damaged"):
        open_model(str(damaged))


def test_missing_shard(damaged: Path) -> None:
    (damaged / "model.safetensors").rename(damaged / "one.safetensors")
    index = {"metadata": {}, "weight_map": {"a": "one.safetensors", "b": "other.safetensors"}}
    (damaged / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"other\.safetensors is missing"):
        open_model(str(damaged))


def test_pickles_are_never_loaded(damaged: Path) -> None:
    (damaged / "model.safetensors").unlink()
    # Unpickling this would raise; it must not even be tried.
    (damaged / "pytorch_model.bin").write_bytes(b"\x80\x04crun\nboom\n.")
    with pytest.raises(InputError, match="pickle, which is never loaded"):
        open_model(str(damaged))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_odd_weights_are_named(damaged: Path, value: float) -> None:
    tensors = load_file(damaged / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name][3, 5] = value
    save_file(tensors, damaged / "model.safetensors")
    with pytest.raises(InputError, match=f"tensor {name} .* NaN or infinity"):
        open_model(str(damaged)).read_block(1)


def test_missing_tensor_is_named(damaged: Path) -> None:
    tensors = load_file(damaged / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, damaged / "model.safetensors")
    with pytest.raises(InputError, match=r"no tensor model\.layers\.0\.mlp\.up_proj\.weight"):
        open_model(str(damaged))


def test_other_shapes_and_odd_configs(damaged: Path) -> None:
    config = json.loads((damaged / "config.json").read_text())
    for change, wanted in (
        ({"intermediate_size": 192}, "has shape .* where config.json means"),
        ({"hidden_act": "nonsense"}, "does not describe a model"),
        ({"pad_token_id": 2**31}, "does not describe a model"),
    ):
        (damaged / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(InputError, match=wanted):
            open_model(str(damaged))


def test_unsupported_architecture_names_the_supported(damaged: Path) -> None:
    config = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps({**config, "model_type": "mamba"}))
    with pytest.raises(InputError, match=r"'mamba' is not supported: use one of bloom, cohere"):
        open_model(str(damaged))


def test_quantized_models_are_refused(damaged: Path) -> None:
    config = json.loads((damaged / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq"}
    (damaged / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="already quantized"):
        open_model(str(damaged))


@pytest.mark.parametrize("name", ["no/such/directory/here", "nobody/nothing-of-that-name"])
def test_unknown_models(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"(check the path|give the directory of a model)$"):
        open_model(name)


def test_a_hub_id_is_known_by_the_hubs_own_folder(make_model: MakeModel) -> None:
    model = open_model(str(make_model("llama")))
    assert model.hub_id is None
    cache = Path("/cache/hub/models--org--a--b.c/snapshots/0123abc")
    assert replace(model, path=cache).hub_id == "org/a--b.c"
    assert replace(model, path=cache.parent).hub_id is None
    assert replace(model, path=Path("snapshots/x")).hub_id is None


def test_values_beyond_float16_are_told_from_damage(make_model: MakeModel, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(make_model("llama", torch.float32), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] = 70_000.0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model = open_model(str(folder))
    assert model.dtype == torch.float16
    with pytest.raises(InputError, match=r"model\.norm\.weight .* above 65,504"):
        model.read(["model.norm.weight"], model.dtype)
    assert model.read(["model.norm.weight"])["model.norm.weight"][3] == 70_000
    tensors["model.norm.weight"][3] = float("inf")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="holds NaN or infinity"):
        open_model(str(folder)).read(["model.norm.weight"], model.dtype)
