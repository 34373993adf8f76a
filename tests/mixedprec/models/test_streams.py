"""Streams in files are what streams in memory are, and results do not depend on which they are."""

import errno
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from awqscope.diagnose.inside.activations import ActivationLog
from awqscope.diagnose.machine.memory import forget_peak, peak_bytes
from awqscope.diagnose.statistics.likelihood import TokenScores
from awqscope.diagnose.sweep.branches import Sweep, block_branches
from awqscope.diagnose.sweep.estimator import estimate_units
from awqscope.diagnose.sweep.one_pass import run_sweep
from awqscope.diagnose.sweep.results import join_chunks, reduce_chunk
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import CPU, StreamSpace, as_stream, in_memory, list_slices
from awqscope.mixedprec.scheme import Scheme

MakeModel = Callable[..., Path]
LENGTH = 64
BATCH = 4
BITS = (4, 8)
SCHEMES = [Scheme(4, 64, False), Scheme(8, 64, True)]


def on_disk(folder: Path, room: int = 0) -> StreamSpace:
    """A space with `room` bytes of memory."""
    return StreamSpace([(CPU, room)], folder)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_file_gives_what_a_tensor_gives(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 5)] * 3))
    windows, length, channels = shape
    expected = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    stream = on_disk(tmp_path_factory.mktemp("streams")).copy(as_stream(expected))
    for _ in range(3):
        start, first = data.draw(st.tuples(st.integers(0, windows - 1), st.integers(0, length - 1)))
        rows = slice(start, data.draw(st.integers(start + 1, windows)))
        tokens = slice(first, data.draw(st.integers(first + 1, length)))
        assert torch.equal(stream.read(rows, tokens), expected[rows, tokens])
        values = torch.randn(expected[rows, tokens].shape)
        stream.write(rows, values, tokens)
        expected[rows, tokens] = values
        chosen = torch.tensor(data.draw(st.lists(st.integers(0, windows - 1), min_size=1)))
        assert torch.equal(stream.gather(chosen), expected[chosen])
    flat = stream.reshape(windows * length, 1)
    assert torch.equal(flat.read(slice(None)), expected.view(-1, 1, channels))


def test_what_does_not_fit_is_spilled_and_room_comes_back(tmp_path: Path) -> None:
    size = 2 * 3 * 4 * 4
    space = StreamSpace([(CPU, 2 * size)], tmp_path / "work")
    first, second = space.empty(2, 3, 4), space.empty(2, 3, 4)
    third = space.empty(2, 3, 4)
    assert space.spilled_bytes == size
    # Another cut of it holds the memory as well as the stream itself.
    view = first.reshape(6, 1)
    del first
    gc.collect()
    space.empty(2, 3, 4)
    assert space.spilled_bytes == 2 * size
    del view
    fourth = space.empty(2, 3, 4)
    assert space.spilled_bytes == 2 * size
    # No file has a name, so none can be left behind.
    assert list((tmp_path / "work").iterdir()) == []
    del second, third, fourth


def test_a_full_disk_is_said_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    stream = on_disk(tmp_path).empty(1, 4, 4)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(InputError, match="the disk is full"):
        stream.write(slice(1), torch.zeros(1, 4, 4))


def test_files_are_not_held_in_memory(tmp_path: Path) -> None:
    stream = on_disk(tmp_path).empty(64, 64, 4096)
    forget_peak()
    before = peak_bytes()
    for window in range(64):
        stream.write(slice(window, window + 1), torch.full((1, 64, 4096), float(window)))
    assert float(stream.read(slice(63, 64)).min()) == 63
    # 64 MiB went through, a MiB at a time.
    assert peak_bytes() - before < 24 * 2**20


@pytest.fixture(scope="module")
def model(make_model: MakeModel) -> SourceModel:
    return open_model(str(make_model("llama", num_hidden_layers=3)))


@pytest.fixture(scope="module")
def windows() -> Tensor:
    """Several batches, the last of them not full."""
    return torch.randint(0, 384, (10, LENGTH), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def searches(
    model: SourceModel, windows: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("awq")
    search_model(model, windows[:6], SCHEMES, folder)
    yield folder


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "cohere"])
def test_the_search_does_not_depend_on_where_streams_are(
    make_model: MakeModel, windows: Tensor, tmp_path: Path, family: str
) -> None:
    tiny = open_model(str(make_model(family)))
    for name, space in (("held", in_memory()), ("spilled", on_disk(tmp_path / "streams"))):
        search_model(tiny, windows[:6], SCHEMES, tmp_path / name, space=space)
    held = sorted((tmp_path / "held").iterdir())
    assert len(held) == tiny.blocks * len(SCHEMES)
    for path in held:
        ours, theirs = load_file(path), load_file(tmp_path / "spilled" / path.name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def sweep(
    model: SourceModel, windows: Tensor, searches: Path, space: StreamSpace
) -> tuple[dict[str, TokenScores], ActivationLog]:
    """Every view of every block, and what flows."""
    sweep = Sweep(4, BITS, frozenset(), searches, block_branches(model, 4, frozenset()))
    log = ActivationLog()
    return run_sweep(model, windows, sweep, observe=log.observe, space=space), log


def test_the_sweep_depends_neither_on_where_streams_are_nor_on_chunks(
    model: SourceModel, windows: Tensor, searches: Path, tmp_path: Path
) -> None:
    whole, log = sweep(model, windows, searches, in_memory())
    # Room for a few streams: some are in memory, some in files.
    space = on_disk(tmp_path, 4 * BATCH * LENGTH * 128 * 4)
    parts, merged = [], ActivationLog()
    for chunk in list_slices(len(windows), BATCH):
        scores, part = sweep(model, windows[chunk], searches, space)
        parts.append(reduce_chunk(scores, model.blocks))
        merged.merge(part.state())
    assert space.spilled_bytes > 0
    expected, found = join_chunks([reduce_chunk(whole, model.blocks)]), join_chunks(parts)
    assert expected.keys() == found.keys()
    for key in expected:
        assert torch.equal(expected[key], found[key]), key
    assert merged.rows() == log.rows()
    arrays, others = log.arrays(), merged.arrays()
    assert all(torch.equal(arrays[key], others[key]) for key in arrays)


def test_estimates_depend_neither_on_where_streams_are_nor_on_chunks(
    model: SourceModel, windows: Tensor, searches: Path, tmp_path: Path
) -> None:
    whole = estimate_units(model, windows, searches, BITS, seed=1)
    parts = [
        estimate_units(
            model,
            windows[chunk],
            searches,
            BITS,
            seed=1,
            numbers=range(chunk.start, chunk.stop),
            space=on_disk(tmp_path),
        )
        for chunk in list_slices(len(windows), BATCH)
    ]
    for key, values in (whole.units | whole.linears).items():
        found = [(part.units | part.linears)[key] for part in parts]
        assert torch.equal(values, torch.cat(found)), key


def test_the_entrance_of_some_tokens_is_that_of_all(make_model: MakeModel, windows: Tensor) -> None:
    for family in ("llama", "gemma2", "gpt_neox"):
        tiny = open_model(str(make_model(family)))
        some = tiny.read_entrance(windows[:2].unique())
        assert torch.equal(some.enter(windows[:2]), tiny.read_entrance().enter(windows[:2]))
        held = [p for p in some.module.parameters() if isinstance(p, nn.Parameter)]
        assert max(len(p) for p in held) < tiny.config.vocab_size
