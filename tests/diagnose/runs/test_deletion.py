"""A run deleted: all of its directory, nothing else, and never while something is at work in it."""

import os
from pathlib import Path

import pytest

from awqscope.diagnose.runs.deletion import delete_run, plan_deletion
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.locks import take_lock
from tests.help.runs import write_run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A run with a checkpoint, beside other things."""
    path = write_run(tmp_path)
    (path / "checkpoint").mkdir()
    (path / "checkpoint" / "model.safetensors").write_bytes(bytes(5000))
    return path


def test_the_directory_goes_and_what_it_links_to_stays(path: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.safetensors").write_bytes(b"weights")
    (path / "linked").symlink_to(outside)
    (path / "checkpoint" / "one").symlink_to(outside / "model.safetensors")
    other = write_run(tmp_path, "other")
    files = [Path(root, name) for root, _, names in os.walk(path) for name in names]
    sizes = sum(file.stat().st_size for file in files if not file.is_symlink())
    deletion = plan_deletion(path)
    assert deletion.bytes == sizes
    assert dict(deletion.entries)["checkpoint"] == 5000
    # Both links are files here, and so is the one that os.walk takes for a folder.
    assert deletion.files == len(files) + 1
    assert path.exists()
    delete_run(deletion)
    assert not path.exists()
    assert (outside / "model.safetensors").read_bytes() == b"weights"
    assert RunDirectory(other).exists()


@pytest.mark.parametrize("name", [".lock", "studies/.why-5.lock", "studies/why-5.log"])
def test_a_run_that_is_worked_on_stays(path: Path, name: str) -> None:
    deletion = plan_deletion(path)
    held = path / name
    held.parent.mkdir(exist_ok=True)
    with open(held, "a+") as file:
        take_lock(file)
        with pytest.raises(InputError, match="works on"):
            plan_deletion(path)
        # One that was begun after it was asked for, too.
        with pytest.raises(InputError, match="works on"):
            delete_run(deletion)
        assert (path / "run.json").exists() and (path / "tokens.parquet").exists()
    delete_run(plan_deletion(path))
    assert not path.exists()


def test_only_the_directory_of_a_run_is_deleted(path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        plan_deletion(tmp_path)
    with pytest.raises(InputError, match="holds no run"):
        plan_deletion(path / "checkpoint")
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(InputError, match="is a link"):
        plan_deletion(link)
    inner = write_run(path / "recipes", "inner")
    with pytest.raises(InputError, match="holds another run"):
        plan_deletion(path)
    delete_run(plan_deletion(inner))
    (path / ".git").mkdir()
    with pytest.raises(InputError, match="holds a repository"):
        plan_deletion(path)
    assert (path / "run.json").exists()


def test_the_directory_that_one_is_in_is_deleted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path)
    delete_run(plan_deletion(Path(".")))
    monkeypatch.undo()
    assert not path.exists()


def test_one_that_cannot_go_whole_is_left_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(asked: Path, mode: int) -> bool:
        return asked != path.parent

    monkeypatch.setattr("os.access", refuse)
    with pytest.raises(InputError, match="does not let you"):
        plan_deletion(path)
    assert (path / "run.json").exists()


def test_a_damaged_run_can_be_deleted(path: Path) -> None:
    (path / "run.json").write_text("{")
    delete_run(plan_deletion(path))
    assert not path.exists()


def test_one_that_was_interrupted_is_deleted_by_the_same_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink

    def stop(name: str, **options: object) -> None:
        if str(name).endswith("tokens.parquet"):
            raise OSError(1, "Operation not permitted", str(name))
        unlink(name, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as broken:
        broken.setattr(os, "unlink", stop)
        with pytest.raises(InputError, match=r"tokens\.parquet cannot be removed"):
            delete_run(plan_deletion(path))
    assert (path / "run.json").exists()
    delete_run(plan_deletion(path))
    assert not path.exists()
