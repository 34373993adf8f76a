"""A GGUF file is read as the model that it holds: its weights are those of the package gguf, rows
in transformers' order, and its text is cut as before."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from awqscope.app.words.verdict import write_verdict
from awqscope.diagnose.inputs.load import note_weights
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.gguf.origin import ORIGIN
from awqscope.mixedprec.gguf.unpack import drop_tokens
from awqscope.mixedprec.models.opening import open_model
from tests.help.packed import write_gguf
from tests.help.runs import parse_run, read_sample
from tests.help.tiny import TEXT

KINDS = [GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q8_0, GGMLQuantizationType.F16]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "awqscope" / "gguf"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_it_holds_what_the_package_reads(
    make_model: Callable[..., Path], tmp_path: Path, cache: Path, kind: GGMLQuantizationType
) -> None:
    source, path = make_model("llama"), tmp_path / "tiny.gguf"
    expected = write_gguf(path, source, kind)
    model = open_model(str(path))
    assert model.name == str(path) and model.path.parent == cache
    stored = load_file(model.path / "model.safetensors")
    assert len([name for name in expected if ".layers." in name]) == 14
    for name, weight in expected.items():
        assert torch.equal(stored[name], torch.from_numpy(weight).half()), name
    said = None if kind is GGMLQuantizationType.F16 else f"GGUF {kind.name}"
    assert model.quantized_before == said
    assert bool(note_weights(model)) == bool(said)


def test_it_computes_what_the_model_computes(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    """A wrong order of rows would leave the weights alone and change this."""
    source, path = make_model("llama"), tmp_path / "tiny.gguf"
    write_gguf(path, source, GGMLQuantizationType.F16)
    unpacked = open_model(str(path)).path
    tokenizers = [AutoTokenizer.from_pretrained(each) for each in (source, unpacked)]
    ids = [each(TEXT[:200], return_tensors="pt").input_ids for each in tokenizers]
    assert torch.equal(*ids)
    with torch.no_grad():
        logits = [
            AutoModelForCausalLM.from_pretrained(each, dtype=torch.float32)(ids[0]).logits
            for each in (source, unpacked)
        ]
    assert torch.allclose(*logits, rtol=1e-5, atol=1e-5)


def test_its_tokenizer_knows_no_token_that_the_model_does_not(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    """transformers adds <|endoftext|>, which the file does not list, behind the last one."""
    source, path = make_model("llama"), tmp_path / "tiny.gguf"
    write_gguf(path, source, GGMLQuantizationType.F16)
    added = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    ours = AutoTokenizer.from_pretrained(open_model(str(path)).path)
    rows = AutoConfig.from_pretrained(source).vocab_size
    assert max(added.get_vocab().values()) >= rows > max(ours.get_vocab().values())
    text = f"{TEXT[:50]}<|endoftext|>{TEXT[50:100]}"
    assert ours(text)["input_ids"] == AutoTokenizer.from_pretrained(source)(text)["input_ids"]


def test_tokens_without_a_row_are_dropped_whatever_else_the_settings_hold(tmp_path: Path) -> None:
    """Settings may be lists and objects."""
    added = [{"id": 1, "content": "<s>"}, {"id": 9, "content": "<new>"}]
    settings = {"bos_token": "<s>", "eos_token": "<new>", "extra": ["<new>"], "decoder": {"9": {}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    drop_tokens(tmp_path, 9)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["added_tokens"] == added[:1]
    kept = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert kept == {**settings, "eos_token": None}


def test_it_is_unpacked_once(
    make_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, make_model("llama"), GGMLQuantizationType.F16)
    first = open_model(str(path))
    monkeypatch.setattr("awqscope.mixedprec.gguf.unpack._unpack", None)
    moved = path.rename(tmp_path / "other.gguf")
    again = open_model(str(moved))
    assert (again.path, again.hash()) == (first.path, first.hash())


@pytest.mark.parametrize("lost", [ORIGIN, "model.safetensors"])
def test_it_is_made_again_where_something_is_lost(
    make_model: Callable[..., Path], tmp_path: Path, cache: Path, lost: str
) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, make_model("llama"), GGMLQuantizationType.F16)
    folder = open_model(str(path)).path
    (folder / lost).unlink()
    assert (open_model(str(path)).path / "model.safetensors").is_file()
    assert sorted(cache.iterdir()) == [folder]


def test_other_files_are_refused_in_a_line(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "text.gguf"
    path.write_text("no weights here")
    with pytest.raises(InputError, match="is no GGUF file"):
        open_model(str(path))
    path.write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(InputError, match="cannot be read as a model"):
        open_model(str(path))
    assert not list(cache.iterdir())


def test_the_verdict_says_it() -> None:
    record = parse_run(read_sample())
    assert "quantized before" not in write_verdict(record, ())
    lossy = record.changed(source=record.source.changed(quantized_before="GGUF Q4_1"))
    assert "weights were quantized before (GGUF Q4_1)" in write_verdict(lossy, ())
