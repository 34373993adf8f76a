"""The catalogue of a model's files against what safetensors' own readers find in them."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from awqscope.app.demo import find_demo
from awqscope.diagnose.proof.load import load_checkpoint
from awqscope.diagnose.proof.on_disk import check_tensors
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.checkpoints.reader import open_checkpoint
from awqscope.mixedprec.checkpoints.writer import examine_serving, write_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.experts import find_part
from awqscope.mixedprec.families.table import find_family
from awqscope.mixedprec.files.header import Header, read_header
from awqscope.mixedprec.foreign.candidate import open_candidate
from awqscope.mixedprec.models import catalogue, weights
from awqscope.mixedprec.models.catalogue import find_stored, open_catalogue
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.served import check_range, served_outside
from awqscope.mixedprec.models.streams import CPU, StreamSpace
from awqscope.mixedprec.models.weights import TYPES, read_parts, read_tensor
from awqscope.mixedprec.recipes.recipe import make_recipe
from awqscope.mixedprec.scheme import Scheme

MakeModel = Callable[..., Path]


def draw(dtype: torch.dtype, *shape: int) -> Tensor:
    """Values of a type; bytes by bytes, so that each of them may be anything."""
    size = torch.tensor([], dtype=dtype).element_size()
    generator = torch.Generator().manual_seed(size)
    raw = torch.randint(0, 256, (*shape, size), generator=generator).to(torch.uint8)
    return raw.remainder(2).bool()[..., 0] if dtype == torch.bool else raw.view(dtype)[..., 0]


@pytest.fixture
def typed(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A directory with a tensor of every type, none where whole words begin, and odd shapes."""
    tensors = {f"of.{dtype}": draw(dtype, 7, 3, 5) for dtype in TYPES.values()}
    tensors |= {"one": torch.tensor(2.5), "none": torch.zeros(0, 7), "odd": draw(torch.uint8, 3)}
    (tmp_path / "config.json").write_text("{}")
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path, tensors


def test_the_catalogue_says_what_the_library_says(typed: tuple[Path, dict[str, Tensor]]) -> None:
    folder, tensors = typed
    made = open_catalogue(folder)
    assert made.bytes == sum(tensor.nbytes for tensor in tensors.values())
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert made.tensors.keys() == set(file.keys())
        for name, stored in made.tensors.items():
            piece = file.get_slice(name)
            assert (stored.dtype, list(stored.shape)) == (piece.get_dtype(), piece.get_shape())


@pytest.mark.parametrize("at_once", [1, 100, weights.BYTES_A_READ])
def test_values_are_what_was_saved(
    typed: tuple[Path, dict[str, Tensor]], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "BYTES_A_READ", at_once)
    folder, tensors = typed
    for name, stored in open_catalogue(folder).tensors.items():
        saved = tensors[name]
        found = read_tensor(stored)
        assert (found.dtype, found.shape) == (saved.dtype, saved.shape)
        assert torch.equal(found.reshape(-1).view(torch.uint8), saved.reshape(-1).view(torch.uint8))
        if saved.dtype.is_floating_point:
            wide = read_tensor(stored, torch.float64)
            torch.testing.assert_close(wide, saved.double(), rtol=0, atol=0, equal_nan=True)
        parts = list(read_parts(stored))
        if at_once == 1:
            assert [first for first, _ in parts] == list(range(len(saved) if saved.ndim else 1))
        if saved.ndim:
            joined = torch.cat([part for _, part in parts]) if parts else saved
            assert torch.equal(joined.view(torch.uint8), saved.view(torch.uint8))


def test_a_file_that_has_become_shorter(typed: tuple[Path, dict[str, Tensor]]) -> None:
    folder, _ = typed
    path = folder / "model.safetensors"
    stored = open_catalogue(folder).tensors
    last = max(stored.values(), key=lambda each: each.begin + each.size)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="has become shorter"):
        read_tensor(last)


def test_a_linear_inside_a_stacked_tensor(tmp_path: Path) -> None:
    experts = "model.layers.0.mlp.experts"
    stacked = {
        f"{experts}.gate_up_proj": torch.rand(3, 8, 5),
        f"{experts}.down_proj": torch.rand(3, 5, 4),
    }
    (tmp_path / "config.json").write_text("{}")
    save_file(stacked, tmp_path / "model.safetensors")
    tensors, family = open_catalogue(tmp_path).tensors, find_family("qwen3_moe")
    gate_up, down = stacked.values()
    expected = {"gate_proj": gate_up[:, :4], "up_proj": gate_up[:, 4:], "down_proj": down}
    for linear, values in expected.items():
        for number in range(3):
            name = f"{experts}.{number}.{linear}.weight"
            assert find_part(name, family.experts, tensors) is not None
            assert torch.equal(read_tensor(find_stored(name, family, tensors)), values[number])


def count_headers(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """How often the header of each file is read from now on."""
    counts: Counter[Path] = Counter()

    def counted(path: Path) -> Header:
        counts[path.resolve()] += 1
        return read_header(path)

    monkeypatch.setattr(catalogue, "read_header", counted)
    return counts


@torch.no_grad()
def test_headers_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the demo's model: opened, searched, written, compared and read again as for a proof."""
    counts = count_headers(monkeypatch)
    source = Path(shutil.copytree(find_demo(), tmp_path / "model"))
    scheme = Scheme(4, 64, False)
    model = open_model(str(source))
    check_range(model)
    assert served_outside(model) is None
    windows = torch.randint(0, 300, (2, 32), generator=torch.Generator().manual_seed(0))
    search_model(model, windows, [scheme], tmp_path / "searches")
    recipe = make_recipe("demo", model.family, model.blocks, 4)
    write_checkpoint(tmp_path / "out", model, recipe, tmp_path / "searches", {4: scheme})
    model.read_whole()
    model.hash()
    # It got its final name after it was looked at.
    partial = tmp_path / ".out.partial" / "model.safetensors"
    assert counts == {source / "model.safetensors": 1, partial: 1}
    counts.clear()
    candidate = open_candidate(str(tmp_path / "out"), model)
    examine_serving(candidate.catalogue, candidate)
    candidate.read_block(0)
    assert counts == {tmp_path / "out" / "model.safetensors": 1}
    counts.clear()
    stored = open_checkpoint(tmp_path / "out")
    space = StreamSpace([(CPU, 0)], tmp_path)
    loaded = load_checkpoint(stored, "by block", space)
    list(loaded.logits(windows))
    found = check_tensors(model, recipe, tmp_path / "searches", stored, loaded)
    assert not found["differing_on_disk"]
    assert counts == {tmp_path / "out" / "model.safetensors": 1}


def test_a_file_beside_the_weights_is_looked_at_once(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers would read it, and each is asked what is in it."""
    folder = Path(shutil.copytree(make_model("llama"), tmp_path / "model"))
    shutil.copyfile(folder / "model.safetensors", folder / "model_ema.safetensors")
    model = open_model(str(make_model("llama")))
    counts = count_headers(monkeypatch)
    made = open_catalogue(folder)
    assert (
        made.list_tensors("model_ema.safetensors")
        == load_file(folder / "model_ema.safetensors").keys()
    )
    counts.clear()
    examine_serving(made, model)
    assert set(counts.values()) <= {1}


def test_a_tensor_of_a_type_that_nobody_reads(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file({"a": torch.zeros(4, dtype=torch.uint8)}, tmp_path / "model.safetensors")
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"U8"', b'"F4"').replace(b"[4]", b"[8]"))
    stored = open_catalogue(tmp_path).tensors["a"]
    assert stored.dtype == "F4"
    with pytest.raises(InputError, match="cannot be read"), weights.report_unreadable(path):
        read_tensor(stored)
