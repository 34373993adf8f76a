"""Mixtures of experts in GGUF files: read right, or refused in a line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType
from transformers import AutoModelForCausalLM

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.foreign.differences import differing_places
from awqscope.mixedprec.foreign.opening import open_beside
from awqscope.mixedprec.models.opening import open_model
from tests.help.packed_experts import write_mixture

F32, Q8_0 = GGMLQuantizationType.F32, GGMLQuantizationType.Q8_0
MakeModel = Callable[..., Path]
# The size of its experts is in no entry that transformers reads of a GGUF file: 768 always.
SIZES = {"hidden_size": 64, "moe_intermediate_size": 768, "head_dim": 16}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_every_expert_is_what_the_package_reads(make_model: MakeModel, tmp_path: Path) -> None:
    source, path = make_model("qwen3_moe", **SIZES), tmp_path / "tiny.gguf"
    expected = write_mixture(path, source, Q8_0)
    model = open_model(str(source))
    candidate = open_beside(str(path), model)
    layout = model.family.experts
    assert layout is not None
    roles = {"gate": layout.gate, "up": layout.up, "down": layout.down}
    for block, stacked in expected.items():
        for role, experts in stacked.items():
            for number, weight in enumerate(experts):
                linear = f"{model.prefix(int(block))}.{layout.expert(number)}.{roles[role]}"
                name = f"{linear}.weight"
                assert torch.equal(candidate.read([name])[name], torch.from_numpy(weight)), name
                assert candidate.width(linear) == 8
                assert candidate.linear_bytes(linear) * 8 == 8.5 * weight.size
    assert differing_places(model, candidate) == ()


def test_it_computes_what_the_model_computes(make_model: MakeModel, tmp_path: Path) -> None:
    """As a run takes it, which knows of the model what the file says alone."""
    source, path = make_model("qwen3_moe", **SIZES), tmp_path / "tiny.gguf"
    write_mixture(path, source, F32)
    unpacked = open_model(str(path)).path
    ids = torch.randint(0, 300, (2, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = (
            AutoModelForCausalLM.from_pretrained(each, dtype=torch.float32)(ids).logits
            for each in (source, unpacked)
        )
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("alone", [True, False])
def test_a_mixture_stored_as_a_llama_is_refused(
    alone: bool, make_model: MakeModel, tmp_path: Path
) -> None:
    """transformers would make a llama of it, with random weights where it has none."""
    source, path = make_model("mixtral"), tmp_path / "tiny.gguf"
    write_mixture(path, source, Q8_0)
    with pytest.raises(InputError, match=r"has no model\.layers\.0\.mlp\.down_proj\.weight"):
        open_model(str(path)) if alone else open_beside(str(path), open_model(str(source)))
    assert not list((tmp_path / "cache").glob("*/*/*"))


def test_experts_of_another_size_are_refused(make_model: MakeModel, tmp_path: Path) -> None:
    source, path = make_model("qwen3_moe"), tmp_path / "tiny.gguf"
    write_mixture(path, source, F32)
    with pytest.raises(InputError, match="cannot be read as a model"):
        open_model(str(path))
