"""Who may read what is written: whoever may read any new file of the same user, so that a server
under another user can load a checkpoint."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages.pipeline import run_pipeline
from awqscope.mixedprec.checkpoints.writer import write_checkpoint
from awqscope.mixedprec.files.atomic import replace_file, share_files
from awqscope.mixedprec.files.sealed import save_sealed
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.recipes.recipe import load_recipe
from awqscope.mixedprec.scheme import Scheme
from examples.plant_fault import plant_fault
from tests.help.searched import write_searched_run

MakeModel = Callable[..., Path]
UMASKS = (0o022, 0o027, 0o077, 0o002)


@pytest.fixture(params=UMASKS, ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes_of(folder: Path) -> dict[str, int]:
    """The permissions of everything below a folder, by its path."""
    found = [path for path in folder.rglob("*") if not path.name.startswith(".")]
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in found}


def assert_usual(folder: Path, umask: int) -> None:
    modes = modes_of(folder)
    assert modes
    for name, mode in modes.items():
        whole = 0o777 if (folder / name).is_dir() else 0o666
        assert mode == whole & ~umask, name


def test_safetensors_itself_keeps_files_to_the_user(tmp_path: Path) -> None:
    """Why anything has to be done about it; where this fails, nothing has any more."""
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    assert modes_of(tmp_path) == {"a.safetensors": 0o600}


def test_checkpoints_searches_and_arrays(
    umask: int,
    make_model: MakeModel,
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("awqscope.mixedprec.checkpoints.writer.SHARD_BYTES", 100_000)
    run = write_searched_run(
        tmp_path / "w" / "run", make_model("llama"), text_file, changed={"0.o": 8}
    )
    run.write_arrays("work/scores.safetensors", {"a": np.ones(3)})
    model, recipe = open_model(str(make_model("llama"))), load_recipe(run.path / "recipe.json")
    schemes = {4: Scheme(4, 64, False), 8: Scheme(8, 64, True)}
    write_checkpoint(run.checkpoint, model, recipe, run.searches, schemes)
    names = modes_of(run.path)
    assert sum(name.startswith("checkpoint/model-") for name in names) > 2
    assert "awq/block-0001.w8.safetensors" in names and "work/scores.safetensors" in names
    assert_usual(tmp_path / "w", umask)


def test_a_whole_run_at_every_moment(
    make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    """What is in work/ too, which is gone in the end."""
    spec = RunSpec(
        model=str(make_model("llama")),
        calib=str(text_file),
        valid=str(text_file),
        group_size=64,
        seq_len=64,
        windows=4,
        calib_windows=4,
        calib_seq_len=64,
        verify_units=1,
    )
    seen: dict[str, int] = {}
    out = tmp_path / "run"
    before = os.umask(0o027)
    try:
        run: RunDirectory = run_pipeline(spec, out, lambda *_: seen.update(modes_of(out)))
    finally:
        os.umask(before)
    assert_usual(run.path, 0o027)
    assert any(name.startswith("work/") and name.endswith(".safetensors") for name in seen)
    assert {mode for name, mode in seen.items() if "." in Path(name).name} == {0o640}


def test_what_examples_and_libraries_write(
    umask: int, make_model: MakeModel, tmp_path: Path
) -> None:
    plant_fault(make_model("llama"), tmp_path / "faulted", block=0, condition=4.0, seed=0)
    save_file({"a": torch.ones(1)}, tmp_path / "faulted" / "other.safetensors")
    share_files(tmp_path / "faulted")
    assert_usual(tmp_path / "faulted", umask)


def test_the_mode_that_a_killed_process_left_is_forgotten(tmp_path: Path) -> None:
    left = tmp_path / f".a.safetensors.{os.getpid()}.tmp"
    left.touch(0o600)
    before = os.umask(0o022)
    try:
        with replace_file(tmp_path / "a.safetensors") as temporary:
            save_sealed(temporary, {"a": np.ones(2)})
    finally:
        os.umask(before)
    assert modes_of(tmp_path) == {"a.safetensors": 0o644}


def test_a_file_system_without_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every file has the same, none is changed."""

    def refuse(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    with replace_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "a.txt").read_text() == "x"
