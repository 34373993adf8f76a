"""Checkpoints whose tensors are there under other names, or once for two: run with transformers'
numbers, or refused with a remedy that is followed here and leads on."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from awqscope.diagnose.stages.comparison import describe_candidate, note_activations, note_padding
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.foreign.candidate import open_candidate
from awqscope.mixedprec.foreign.differences import differing_places
from awqscope.mixedprec.foreign.padding import count_padding
from awqscope.mixedprec.models.lacking import WRAPPERS
from awqscope.mixedprec.models.opening import open_model
from tests.mixedprec.foreign.test_candidate import change_config, forward, forward_transformers

MakeModel = Callable[..., Path]
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
WINDOWS = torch.randint(0, 384, (2, 24), generator=torch.Generator().manual_seed(0))


def rename(path: Path, target: Path, names: Callable[[str], str]) -> Path:
    """A copy of a model with its tensors under other names."""
    shutil.copytree(path, target)
    tensors = load_file(target / "model.safetensors")
    renamed = {names(name): value for name, value in tensors.items()}
    save_file(renamed, target / "model.safetensors", metadata={"format": "pt"})
    return target


def same_logits(path: Path) -> None:
    found = forward(open_model(str(path)), WINDOWS)
    torch.testing.assert_close(found, forward_transformers(path, WINDOWS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma", "gpt_neox", "bloom"])
def test_a_tied_model_that_stores_its_head_only(
    family: str, make_model: MakeModel, tmp_path: Path
) -> None:
    whole = open_model(str(make_model(family, tie_word_embeddings=True)))
    embedding = f"{whole.family.embedding}.weight"
    head = "embed_out.weight" if family == "gpt_neox" else HEAD
    path = rename(whole.path, tmp_path / "m", lambda n: head if n == embedding else n)
    model = open_model(str(path))
    assert embedding in model.tensors and head not in model.tensors
    assert torch.equal(forward(model, WINDOWS), forward(whole, WINDOWS))
    same_logits(path)
    read = dict(model.read_whole().named_parameters())
    assert torch.equal(read[embedding], whole.read([embedding], torch.float32)[embedding])
    assert model.other_tensors() == whole.other_tensors()
    assert model.count_parameters() == whole.count_parameters()


def test_a_body_alone_that_stores_its_head_only(make_model: MakeModel, tmp_path: Path) -> None:
    whole = make_model("llama", tie_word_embeddings=True)

    def bare(name: str) -> str:
        return HEAD if name == EMBEDDING else name.removeprefix("model.")

    same_logits(rename(whole, tmp_path / "m", bare))


@pytest.mark.parametrize("prefix", [*WRAPPERS, "language_model."])
@pytest.mark.parametrize("shards", [1, 3])
def test_prefixes_are_named_and_the_remedy_takes_them_off(
    prefix: str, shards: int, make_model: MakeModel, tmp_path: Path
) -> None:
    path = tmp_path / "a model's"
    tensors = AutoModelForCausalLM.from_pretrained(make_model("llama"), dtype="auto")
    shutil.copytree(make_model("llama"), path)
    if shards > 1:
        (path / "model.safetensors").unlink()
        tensors.save_pretrained(path, max_shard_size="200KB")
    for file in path.glob("*.safetensors"):
        save_file({prefix + n: t for n, t in load_file(file).items()}, file, {"format": "pt"})
    assert len(list(path.glob("*.safetensors"))) == 1 or shards > 1
    with pytest.raises(InputError, match=re.escape(repr(prefix))) as refused:
        open_model(str(path))
    assert WRAPPERS.get(prefix, "") in refused.value.what
    assert "\n" not in str(refused.value)
    command = refused.value.remedy.removeprefix("take it off: ")
    python = f"{sys.executable} {command.removeprefix('python ')}"
    subprocess.run(python, shell=True, check=True, timeout=120)
    same_logits(path)
    expected = forward(open_model(str(make_model("llama"))), WINDOWS)
    assert torch.equal(forward(open_model(str(path)), WINDOWS), expected)


def test_prefixes_inside_of_names(make_model: MakeModel, tmp_path: Path) -> None:
    """As of a model whose blocks were compiled one by one."""

    def inside(name: str) -> str:
        return re.sub(r"(layers\.\d+\.)", r"\1_orig_mod.", name)

    path = rename(make_model("llama"), tmp_path / "m", inside)
    with pytest.raises(InputError, match=r"'_orig_mod\.' in them, put there by torch\.compile"):
        open_model(str(path))


def test_an_adapter_that_is_not_merged(make_model: MakeModel, tmp_path: Path) -> None:
    def wrapped(name: str) -> str:
        name = name.replace("q_proj.weight", "q_proj.base_layer.weight")
        return f"base_model.model.{name}"

    path = rename(make_model("llama"), tmp_path / "m", wrapped)
    with pytest.raises(InputError, match=r"an adapter of peft that is not merged.*merge_and_unl"):
        open_model(str(path))


@pytest.mark.parametrize(("lacks", "other"), [(HEAD, "embedding"), (EMBEDDING, "head")])
def test_untied_without_one_of_the_two(
    lacks: str, other: str, make_model: MakeModel, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(make_model("llama"), tmp_path / "m"))
    tensors = load_file(path / "model.safetensors")
    del tensors[lacks]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    remedy = rf'if its {other} is meant to serve as both, write "tie_word_embeddings": true'
    with pytest.raises(InputError, match=rf"no tensor {lacks}.*: {remedy}"):
        open_model(str(path))
    change_config(path, tie_word_embeddings=True)
    same_logits(path)


def test_rows_for_more_tokens_than_the_config_says(make_model: MakeModel, tmp_path: Path) -> None:
    path = Path(shutil.copytree(make_model("llama", tie_word_embeddings=True), tmp_path / "m"))
    pad_vocabulary(path, 64)
    change_config(path, vocab_size=384)
    with pytest.raises(InputError, match=r'"vocab_size": 448 into it'):
        open_model(str(path))
    change_config(path, vocab_size=448)
    same_logits(path)


def pad_vocabulary(path: Path, rows: int) -> None:
    """Round a model's vocabulary up, with rows of values that would be noticed."""
    tensors = load_file(path / "model.safetensors")
    for name in {EMBEDDING, HEAD} & tensors.keys():
        more = torch.randn(rows, tensors[name].shape[1]).to(tensors[name].dtype)
        tensors[name] = torch.cat([tensors[name], more])
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    change_config(path, vocab_size=384 + rows)


@pytest.mark.parametrize("tied", [False, True])
def test_candidates_with_a_padded_vocabulary(
    tied: bool, make_model: MakeModel, tmp_path: Path
) -> None:
    """Compared on the reference's tokens: transformers' logits of those, whatever the rest say."""
    reference = open_model(str(make_model("llama", tie_word_embeddings=tied)))
    path = Path(shutil.copytree(reference.path, tmp_path / "m"))
    pad_vocabulary(path, 64)
    candidate = open_candidate(str(path), reference)
    assert candidate.padding == 64
    found = forward(candidate, WINDOWS)
    assert torch.equal(found, forward(reference, WINDOWS))
    expected = forward_transformers(path, WINDOWS)
    assert expected.shape[-1] == 448
    torch.testing.assert_close(found, expected[..., :384], rtol=1e-4, atol=1e-4)
    assert differing_places(reference, candidate) == ()
    assert describe_candidate(candidate).padding == 64
    assert note_activations(candidate) == ()
    assert note_padding(candidate) == (
        f"{path}: its vocabulary has 64 tokens that the reference lacks, which are left out",
    )
    stored = load_file(path / "model.safetensors")
    assert candidate.catalogue.bytes == sum(value.nbytes for value in stored.values())


@pytest.mark.parametrize(
    ("candidate", "padding"), [(32000, 0), (32064, 64), (32001, 0), (31936, 0), (32512, 0)]
)
def test_what_counts_as_padding(candidate: int, padding: int) -> None:
    assert count_padding(32000, candidate) == padding


def test_a_vocabulary_of_other_tokens_can_be_cut_to_size(
    make_model: MakeModel, tmp_path: Path
) -> None:
    reference = open_model(str(make_model("llama")))
    path = Path(shutil.copytree(reference.path, tmp_path / "m"))
    pad_vocabulary(path, 1000)
    remedy = r"resize_token_embeddings\(384\), then save_pretrained"
    with pytest.raises(InputError, match=f"vocab_size is 1384.*{remedy}"):
        open_candidate(str(path), reference)
    loaded = AutoModelForCausalLM.from_pretrained(path, dtype="auto")
    loaded.resize_token_embeddings(384)
    loaded.save_pretrained(tmp_path / "cut")
    candidate = open_candidate(str(tmp_path / "cut"), reference)
    assert torch.equal(forward(candidate, WINDOWS), forward(reference, WINDOWS))


def test_candidates_names_are_told_as_models_are(make_model: MakeModel, tmp_path: Path) -> None:
    reference = open_model(str(make_model("llama")))
    path = rename(reference.path, tmp_path / "m", lambda name: f"_orig_mod.{name}")
    with pytest.raises(InputError, match=r"'_orig_mod\.' in them, put there by torch\.compile"):
        open_candidate(str(path), reference)
    tied = open_model(str(make_model("llama", tie_word_embeddings=True)))
    path = rename(tied.path, tmp_path / "t", lambda name: HEAD if name == EMBEDDING else name)
    candidate = open_candidate(str(path), tied)
    assert torch.equal(forward(candidate, WINDOWS), forward(tied, WINDOWS))
