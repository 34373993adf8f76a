"""The files that are taken for a model's weights, against transformers: the same, or both refuse.

Every directory of the table holds real files; what transformers makes of it is asked of
`from_pretrained` itself.
"""

import io
import json
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from awqscope.app.terminal.run import show_run
from awqscope.app.words.provenance import provenance_facts
from awqscope.diagnose.inputs.load import describe_source, note_weights
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import AnyRecord
from awqscope.mixedprec.checkpoints.reader import checkpoint_bytes
from awqscope.mixedprec.checkpoints.served_files import check_files
from awqscope.mixedprec.checkpoints.serving import REFUSES, SGLANG, VLLM, WRONG
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.weight_files import (
    choose_weight_files,
    find_weight_files,
    write_aside,
)

MakeModel = Callable[..., Path]
Tensors = Mapping[str, Tensor]
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
PICKLE = b"\x80\x04crun\nboom\n."


def halves(tensors: Tensors) -> tuple[Tensors, Tensors]:
    names = sorted(tensors)
    return tuple({n: tensors[n] for n in part} for part in (names[::2], names[1::2]))  # type: ignore[return-value]


def other(tensors: Tensors) -> Tensors:
    """Weights of another model, under the same names."""
    return {name: (0.3 * value).to(value.dtype) for name, value in tensors.items()}


class Directory:
    """A model's directory that is put together file by file."""

    def __init__(self, folder: Path, tensors: Tensors):
        self.folder, self.tensors = folder, tensors

    def save(self, name: str, tensors: Tensors | None = None) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        save_file(dict(self.tensors if tensors is None else tensors), path, {"format": "pt"})

    def shards(self, names: Collection[str] = SHARDS, tensors: Tensors | None = None) -> None:
        for name, part in zip(names, halves(tensors or self.tensors), strict=True):
            self.save(name, part)

    def index(self, named: Collection[str] = SHARDS, name: str = INDEX, **changes: Any) -> None:
        parts = zip(named, halves(self.tensors), strict=False)
        weight_map = {tensor: file for file, part in parts for tensor in part}
        index = {"metadata": {"total_size": 1}, "weight_map": weight_map, **changes}
        kept = {key: value for key, value in index.items() if value is not None}
        (self.folder / name).write_text(json.dumps(kept))

    def write(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)

    def config(self, **changes: Any) -> None:
        path = self.folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def single(made: Directory) -> None:
    made.save(SINGLE)


def stray(made: Directory) -> None:
    made.save(SINGLE)
    made.save("model_ema.safetensors", other(made.tensors))


def stray_first_by_name(made: Directory) -> None:
    made.save(SINGLE)
    made.save("best.safetensors", other(made.tensors))


def sharded(made: Directory) -> None:
    made.shards()
    made.index()


def stale_shards(made: Directory) -> None:
    sharded(made)
    made.shards([f"model-0000{n}-of-00003.safetensors" for n in (1, 2)], other(made.tensors))


def both(made: Directory) -> None:
    """A single file and an index: the file counts."""
    made.save(SINGLE)
    made.shards(tensors=other(made.tensors))
    made.index()


def both_and_the_index_is_damaged(made: Directory) -> None:
    made.save(SINGLE)
    made.write(INDEX, b"{")


def consolidated(made: Directory) -> None:
    sharded(made)
    made.save("consolidated.safetensors", other(made.tensors))


def variant(made: Directory) -> None:
    made.save(SINGLE)
    made.save("model.fp16.safetensors", other(made.tensors))


def variant_only(made: Directory) -> None:
    made.save("model.fp16.safetensors")


def odd_name_only(made: Directory) -> None:
    made.save("weights.safetensors")


def odd_names_only(made: Directory) -> None:
    made.shards(["attention.safetensors", "rest.safetensors"])


def shards_without_index(made: Directory) -> None:
    made.shards()


def consolidated_only(made: Directory) -> None:
    made.save("consolidated.safetensors")


def adapter_file(made: Directory) -> None:
    made.save(SINGLE)
    made.save("adapter_model.safetensors", {"base_model.model.lora_A.weight": torch.ones(2, 2)})


def shard_in_a_folder(made: Directory) -> None:
    names = [f"shards/{name}" for name in SHARDS]
    made.shards(names)
    made.index(names)


def missing_shard(made: Directory) -> None:
    sharded(made)
    (made.folder / SHARDS[1]).unlink()


def index_without_metadata(made: Directory) -> None:
    made.shards()
    made.index(metadata=None)


def index_without_map(made: Directory) -> None:
    made.shards()
    made.index(weight_map=None)


def empty_index(made: Directory) -> None:
    made.shards()
    made.index(weight_map={})


def map_that_names_other_files(made: Directory) -> None:
    """What counts is which files are named, not which tensor is said to be where."""
    made.shards()
    made.index((SHARDS[1], SHARDS[0]))


def map_that_lacks_tensors(made: Directory) -> None:
    made.shards()
    made.index(weight_map={"a": SHARDS[0], "b": SHARDS[1]})


def named_in_the_config(made: Directory) -> None:
    made.save("ours.safetensors")
    made.save(SINGLE, other(made.tensors))
    made.config(transformers_weights="ours.safetensors")


def index_named_in_the_config(made: Directory) -> None:
    sharded(made)
    (made.folder / INDEX).rename(made.folder / "ours.safetensors.index.json")
    made.config(transformers_weights="ours.safetensors.index.json")


def outside_named_in_the_config(made: Directory) -> None:
    made.save(SINGLE)
    shutil.copyfile(made.folder / SINGLE, made.folder.parent / "outside.safetensors")
    made.config(transformers_weights="../outside.safetensors")


def missing_named_in_the_config(made: Directory) -> None:
    made.save(SINGLE)
    made.config(transformers_weights="ours.safetensors")


def pickle_named_in_the_config(made: Directory) -> None:
    made.save(SINGLE)
    made.write("ours.bin", PICKLE)
    made.config(transformers_weights="ours.bin")


def pickles_beside(made: Directory) -> None:
    made.save(SINGLE)
    made.write("pytorch_model.bin", PICKLE)
    made.write("training_args.bin", PICKLE)


def checkpoint_in_a_folder(made: Directory) -> None:
    made.save(SINGLE)
    made.save("checkpoint-500/model.safetensors", other(made.tensors))


def a_folder_of_that_name(made: Directory) -> None:
    sharded(made)
    (made.folder / SINGLE).mkdir()


def nothing(made: Directory) -> None:
    pass


# What is done, what is left aside, and what a refusal names where transformers loads nothing.
TAKEN: Mapping[Callable[[Directory], None], tuple[str, ...]] = {
    single: (),
    stray: ("model_ema.safetensors",),
    stray_first_by_name: ("best.safetensors",),
    sharded: (),
    stale_shards: ("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"),
    both: (*SHARDS, INDEX),
    both_and_the_index_is_damaged: (INDEX,),
    consolidated: ("consolidated.safetensors",),
    variant: ("model.fp16.safetensors",),
    adapter_file: ("adapter_model.safetensors",),
    shard_in_a_folder: (),
    map_that_names_other_files: (),
    map_that_lacks_tensors: (),
    named_in_the_config: (SINGLE,),
    index_named_in_the_config: (),
    pickles_beside: ("pytorch_model.bin",),
    checkpoint_in_a_folder: (),
    a_folder_of_that_name: (),
}
REFUSED: Mapping[Callable[[Directory], None], str] = {
    variant_only: "there is model.fp16.safetensors: if it holds",
    odd_name_only: r"there is weights\.safetensors: .* name it model\.safetensors",
    odd_names_only: r"there is attention\.safetensors, rest\.safetensors: if one of them",
    shards_without_index: r"the shards model-00001-of-00002\.safetensors, .*: download model",
    consolidated_only: r"there is consolidated\.safetensors",
    missing_shard: r"model-00002-of-00002\.safetensors is missing",
    index_without_metadata: r'no entry metadata.*: add "metadata"',
    index_without_map: "is damaged",
    empty_index: "names no file",
    outside_named_in_the_config: r"'\.\./outside\.safetensors': take the entry",
    missing_named_in_the_config: r"ours\.safetensors is missing",
    pickle_named_in_the_config: r"'ours\.bin': take the entry",
    nothing: "holds no safetensors file",
}


@pytest.fixture
def made(make_model: MakeModel, tmp_path: Path) -> Directory:
    """A copy of a tiny model without its weights."""
    folder = Path(shutil.copytree(make_model("llama"), tmp_path / "model"))
    tensors = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    return Directory(folder, tensors)


def load_in_transformers(folder: Path) -> dict[str, Tensor]:
    loaded = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
    )
    return dict(loaded.named_parameters())


@pytest.mark.parametrize("build", TAKEN, ids=lambda build: build.__name__)
def test_the_weights_are_those_that_transformers_loads(
    build: Callable[[Directory], None], made: Directory
) -> None:
    build(made)
    model = open_model(str(made.folder))
    expected = load_in_transformers(made.folder)
    assert expected.keys() == dict(model.shell.named_parameters()).keys()
    for name, value in model.read_whole().named_parameters():
        assert torch.equal(value, expected[name]), name
        assert torch.equal(value, made.tensors[name].float()), name
    assert model.aside == find_weight_files(made.folder).aside == TAKEN[build]
    assert checkpoint_bytes(made.folder) == sum(t.nbytes for t in made.tensors.values())


@pytest.mark.parametrize("build", REFUSED, ids=lambda build: build.__name__)
def test_what_transformers_does_not_load_is_refused(
    build: Callable[[Directory], None], made: Directory
) -> None:
    build(made)
    with pytest.raises((OSError, ValueError, LookupError)):
        load_in_transformers(made.folder)
    with pytest.raises(InputError, match=REFUSED[build]):
        open_model(str(made.folder))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("adapter_config.json", "adds to the weights only where peft is installed"),
        ("shard-00000-model-00001-of-00002.safetensors", "a distributed checkpoint"),
    ],
)
def test_what_transformers_loads_otherwise_is_refused(
    name: str, said: str, made: Directory
) -> None:
    """What it makes of these depends on what is installed, or is none of the named files."""
    made.save(SINGLE)
    made.write(name, b"{}")
    with pytest.raises(InputError, match=said):
        open_model(str(made.folder))


def test_an_adapter_alone_is_called_that(made: Directory) -> None:
    (made.folder / "config.json").unlink()
    made.write("adapter_config.json", b"{}")
    with pytest.raises(InputError, match="without the model that it is for: merge it"):
        open_model(str(made.folder))


def test_a_tensor_in_two_files_is_named(made: Directory) -> None:
    """transformers takes the last file's, whatever the index says of it."""
    first, last = halves(made.tensors)
    name = sorted(last)[0]
    made.save(SHARDS[0], {**first, name: last[name] * 2})
    made.save(SHARDS[1], last)
    made.index()
    with pytest.raises(InputError, match=rf"{name} is both in {SHARDS[0]} and in {SHARDS[1]}"):
        open_model(str(made.folder))
    saved = made.folder.parent / "saved"
    AutoModelForCausalLM.from_pretrained(made.folder).save_pretrained(saved)
    assert torch.equal(open_model(str(saved)).read([name])[name].half(), last[name])


def test_names_out_of_the_directory_are_never_read(made: Directory) -> None:
    made.save(SHARDS[0])
    for name in ("../x.safetensors", "/x.safetensors", "a/../../x.safetensors", ".x.safetensors"):
        made.index([name])
        with pytest.raises(InputError, match="outside of its directory, or a hidden one"):
            open_model(str(made.folder))
    made.index(["weights.bin"])
    with pytest.raises(InputError, match="no safetensors file: convert"):
        open_model(str(made.folder))


def test_the_same_choice_from_names_alone() -> None:
    names = {INDEX, *SHARDS, "other.safetensors", "config.json", "sub/x.safetensors"}
    index = {"metadata": {}, "weight_map": {"b": SHARDS[1], "a": SHARDS[0]}}
    found = choose_weight_files(Path("m"), names, None, {INDEX: index}.__getitem__)
    assert found.read == SHARDS
    assert found.aside == ("other.safetensors",)
    assert found.names == names
    assert found.indexes == {INDEX: {*SHARDS}}


@pytest.mark.parametrize(
    ("build", "vllm", "sglang"),
    [
        (single, None, None),
        (sharded, None, None),
        (stale_shards, None, None),
        (stray, (WRONG, "reads model_ema"), (WRONG, "reads model_ema")),
        (both, (WRONG, "instead of model.safetensors"), (WRONG, "instead of model.safetensors")),
        (adapter_file, (REFUSES, "adapter_model"), (REFUSES, "adapter_model")),
        (consolidated, (WRONG, "consolidated.safetensors instead of"), None),
        (shard_in_a_folder, (REFUSES, "itself only"), (REFUSES, "itself only")),
        (both_and_the_index_is_damaged, (REFUSES, "is damaged"), (REFUSES, "is damaged")),
        (named_in_the_config, (WRONG, "model.safetensors as well"), (WRONG, "as well")),
    ],
)
def test_servers_that_read_other_files(
    build: Callable[[Directory], None],
    vllm: tuple[str, str] | None,
    sglang: tuple[str, str] | None,
    made: Directory,
) -> None:
    """By vLLM's own rules, as written down in `make test-serving`'s version of it."""
    build(made)
    names = {p.relative_to(made.folder).as_posix() for p in made.folder.rglob("*") if p.is_file()}
    found = check_files(
        find_weight_files(made.folder).read,
        names,
        lambda name: json.loads((made.folder / name).read_text())["weight_map"].values(),
        lambda name: load_file(made.folder / name).keys(),
    )
    said = {finding.consumer: (finding.effect, finding.what) for finding in found}
    for consumer, expected in ((VLLM, vllm), (SGLANG, sglang)):
        if expected is None:
            assert consumer not in said
        else:
            effect, what = said[consumer]
            assert effect == expected[0] and expected[1] in what, said


def test_what_is_left_aside_is_said(made: Directory) -> None:
    stray(made)
    model = open_model(str(made.folder))
    assert describe_source(model).left_aside == ["model_ema.safetensors"]
    assert note_weights(model) == (
        f"{made.folder}: left aside, as transformers does: model_ema.safetensors",
    )
    assert write_aside([f"{n}.safetensors" for n in range(5)]).endswith("s and 2 more")
    assert write_aside([]) == ""


def test_what_was_left_aside_is_shown() -> None:
    """Of a run, and not of one that has no such entry."""
    sample = RunDirectory(Path("reports/sample"))
    record = sample.read()
    assert not record.source.left_aside and "Model's files" not in provenance_facts(record)
    changed = record.changed(source=record.source.changed(left_aside=["a.safetensors"]))
    assert provenance_facts(changed)["Model's files"].endswith("does: a.safetensors")
    shown = Console(file=io.StringIO(), width=200)
    show_run(Recorded(sample.path, changed), shown)
    assert "left aside, as transformers does: a.safetensors" in shown.file.getvalue()  # type: ignore[attr-defined]


class Recorded(RunDirectory):
    """A run with another record."""

    def __init__(self, path: Path, record: AnyRecord):
        super().__init__(path)
        self._record = record

    def read(self) -> AnyRecord:
        return self._record


def test_what_hqq_saves_by_itself_has_a_remedy_of_its_own(made: Directory) -> None:
    (made.folder / "qmodel.pt").write_bytes(b"never read")
    with pytest.raises(InputError, match=r'from_quantized\(DIR, device="cpu"\)'):
        find_weight_files(made.folder)
