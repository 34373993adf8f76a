"""What is counted of a model, against transformers' own count and the bytes on disk."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from awqscope.app.demo import find_demo
from awqscope.diagnose.explain.greedy import fits_in_memory
from awqscope.diagnose.inputs.load import describe_source
from awqscope.diagnose.inputs.sizes import reference_bytes
from awqscope.diagnose.plan.room import read_shape
from awqscope.mixedprec.checkpoints.reader import checkpoint_bytes
from awqscope.mixedprec.models.opening import open_model
from tests.help.tiny import FAMILIES

MakeModel = Callable[..., Path]
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def count_in_transformers(path: Path) -> int:
    return int(AutoModelForCausalLM.from_pretrained(path).num_parameters())


def count_on_disk(path: Path) -> int:
    return sum(value.numel() for value in load_file(path / "model.safetensors").values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [None, True, False])
def test_parameters_are_counted_as_transformers_does(
    family: str, tied: bool | None, make_model: MakeModel
) -> None:
    """Experts that it stacks and embeddings of positions included."""
    changes = {} if tied is None else {"tie_word_embeddings": tied}
    path = make_model(family, **changes)
    model = open_model(str(path))
    count = count_in_transformers(path)
    assert describe_source(model).parameters == model.count_parameters() == count
    assert read_shape(model).parameters == count
    assert reference_bytes(model) == 2 * count == checkpoint_bytes(path)
    assert count == count_on_disk(path)


@pytest.mark.parametrize("equal", [True, False])
def test_a_tied_head_that_is_stored_all_the_same(
    equal: bool, make_model: MakeModel, tmp_path: Path
) -> None:
    """transformers ties it where it is equal, and leaves it alone where it is another."""
    path = tmp_path / "model"
    tied = AutoModelForCausalLM.from_pretrained(make_model("llama", tie_word_embeddings=True))
    tied.half().save_pretrained(path)
    tensors = load_file(path / "model.safetensors")
    assert HEAD not in tensors
    tensors[HEAD] = tensors[EMBEDDING].clone()
    if not equal:
        tensors[HEAD][-1, -1] += 1
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    model = open_model(str(path))
    assert model.count_parameters() == count_in_transformers(path)
    # Both are on disk, and both are read.
    assert reference_bytes(model) == checkpoint_bytes(path)
    loaded = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    assert torch.equal(model.read_whole().lm_head.weight, loaded.lm_head.weight)


def test_the_bundled_model_is_as_large_as_it_is() -> None:
    path = find_demo()
    model = open_model(str(path))
    assert model.tied
    assert model.count_parameters() == count_in_transformers(path) == count_on_disk(path)


def test_what_fits_in_memory_counts_a_tied_head_once(make_model: MakeModel) -> None:
    model = open_model(str(make_model("llama", tie_word_embeddings=True)))
    block = sum(parameter.numel() for parameter in model.block_shell(0).parameters())
    needed = 4 * (model.count_parameters() + 4 * block)
    assert fits_in_memory(model, needed)
    assert not fits_in_memory(model, needed - 1)
