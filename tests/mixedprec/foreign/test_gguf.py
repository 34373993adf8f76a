"""GGUF files as candidates: every weight is exactly what the package gguf reads, at the width and
size that the file has it in, and what the file says of its architecture is held against the
reference."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from transformers import AutoConfig

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.foreign.differences import differing_places
from awqscope.mixedprec.foreign.gguf import GgufCandidate, check_stated
from awqscope.mixedprec.foreign.opening import open_alone, open_beside
from awqscope.mixedprec.gguf.origin import find_width
from awqscope.mixedprec.models.opening import open_model
from tests.help.packed import SCALES, write_gguf

KINDS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", *SCALES]
F32, Q8_0 = GGMLQuantizationType.F32, GGMLQuantizationType.Q8_0
# Of a weight, by the format's definition: bytes of a block over its weights.
BITS_A_WEIGHT = {
    "Q4_0": 4.5,
    "Q4_1": 5,
    "Q5_0": 5.5,
    "Q5_1": 6,
    "Q8_0": 8.5,
    "Q2_K": 2.625,
    "Q3_K": 3.4375,
    "Q4_K": 4.5,
    "Q5_K": 5.5,
    "Q6_K": 6.5625,
}
MakeModel = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "awqscope" / "gguf"


def make_llama(make_model: MakeModel) -> Path:
    """A tiny llama whose rows are whole blocks of every type."""
    return make_model("llama", hidden_size=256, num_hidden_layers=1, tie_word_embeddings=False)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_exactly_what_the_package_reads(
    kind: str, make_model: MakeModel, tmp_path: Path
) -> None:
    source, path = make_llama(make_model), tmp_path / "tiny.gguf"
    expected = write_gguf(path, source, GGMLQuantizationType[kind], Q8_0)
    candidate = open_beside(str(path), open_model(str(source)))
    assert isinstance(candidate, GgufCandidate) and candidate.method == "gguf"
    names = {name for name, _ in candidate.list_parameters() if "norm" not in name}
    assert names == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(candidate.read([name])[name], torch.from_numpy(weight)), name
        if ".layers." in name:
            linear = name.removesuffix(".weight")
            assert candidate.width(linear) == int(kind[1])
            assert candidate.linear_bytes(linear) * 8 == BITS_A_WEIGHT[kind] * weight.size
    sizes = [BITS_A_WEIGHT["Q8_0" if ".layers." not in n else kind] for n in expected]
    packed = sum(bits * weight.size for bits, weight in zip(sizes, expected.values(), strict=True))
    assert candidate.bytes == packed / 8 + 3 * 256 * 4
    places = differing_places(open_model(str(source)), candidate)
    assert places == ("embeddings", "head")


def test_norms_of_gemma_are_those_of_the_reference(make_model: MakeModel, tmp_path: Path) -> None:
    """llama.cpp stores 1 + weight. Untouched, norms would differ in every block."""
    source, path = make_model("gemma3_text"), tmp_path / "tiny.gguf"
    expected = write_gguf(path, source, Q8_0)
    model = open_model(str(source))
    candidate = open_beside(str(path), model)
    for name, weight in expected.items():
        assert torch.equal(candidate.read([name])[name], torch.from_numpy(weight)), name
    norms = [name for name, _ in model.list_parameters() if "norm" in name]
    assert len(norms) == 13
    ours, theirs = model.read(norms, torch.float32), candidate.read(norms)
    for name in norms:
        assert torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-7), name
    assert {candidate.width(f"model.layers.1.{n}") for n in ("mlp.up_proj",)} == {8}


def test_a_model_and_its_float_file_are_equal(make_model: MakeModel, tmp_path: Path) -> None:
    source, path = make_llama(make_model), tmp_path / "tiny.gguf"
    write_gguf(path, source, F32)
    model = open_model(str(source))
    candidate = open_beside(str(path), model)
    assert differing_places(model, candidate) == ()
    assert candidate.width("model.layers.0.mlp.up_proj") == 16
    alone = open_alone(str(path))
    assert alone.shell.config.hidden_size == 256
    assert alone.hash() == candidate.hash()


@pytest.mark.parametrize(
    ("kind", "bits"),
    [("Q4_K", 4), ("IQ2_XXS", 2), ("TQ1_0", 1), ("MXFP4", 4), ("Q8_0", 8), ("BF16", 16)],
)
def test_widths_of_types(kind: str, bits: int) -> None:
    assert find_width(kind) == bits


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"hidden_size": 512}, "hidden_size is 256, the reference's 512"),
        ({"num_hidden_layers": 3}, "num_hidden_layers is 1, the reference's 3"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps is "),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}}, "rope_theta is 10000"),
        ({"vocab_size": 400}, "vocab_size is 384, the reference's 400"),
    ],
)
def test_another_architecture_is_refused(
    changes: dict, wanted: str, make_model: MakeModel, tmp_path: Path
) -> None:
    source, path = make_llama(make_model), tmp_path / "tiny.gguf"
    write_gguf(path, source, F32)
    folder = open_alone(str(path)).path
    stated = json.loads((folder / "origin.json").read_text(encoding="utf-8"))["stated"]
    config = AutoConfig.from_pretrained(source)
    check_stated(stated, config)
    config.update(changes)
    with pytest.raises(InputError, match=wanted):
        check_stated(stated, config)


def test_mistral_is_stored_as_llama(make_model: MakeModel, tmp_path: Path) -> None:
    source, path = make_model("mistral", sliding_window=None), tmp_path / "tiny.gguf"
    expected = write_gguf(path, source, Q8_0)
    candidate = open_beside(str(path), open_model(str(source)))
    name = "model.layers.1.self_attn.q_proj.weight"
    assert torch.equal(candidate.read([name])[name], torch.from_numpy(expected[name]))


def test_scaled_rotary_embeddings_are_known_from_a_reference_alone(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in Llama 3.1 and later: transformers reads the factors of no GGUF file."""
    source, path = make_llama(make_model), tmp_path / "tiny.gguf"
    add = GGUFWriter.write_header_to_file

    def add_factors(writer: GGUFWriter) -> None:
        writer.add_tensor("rope_freqs.weight", np.linspace(1, 8, 32, dtype=np.float32))
        add(writer)

    monkeypatch.setattr(GGUFWriter, "write_header_to_file", add_factors)
    write_gguf(path, source, F32)
    open_beside(str(path), open_model(str(source)))
    for open_it in (open_alone, open_model):
        with pytest.raises(InputError, match=r"scales its rotary embeddings \(rope_freqs.weight\)"):
            open_it(str(path))
