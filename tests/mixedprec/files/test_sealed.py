"""A sealed file tells of any bit of it that changed; a shortage is told in one line."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.atomic import report_full_disk
from awqscope.mixedprec.files.sealed import load_sealed, save_sealed
from awqscope.mixedprec.files.shortage import explain_shortage

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array(True),
    "empty": np.zeros((0, 4), np.int64),
}


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sealed") / "x.safetensors"
    save_sealed(path, ARRAYS, {"scheme": "{}"})
    return path


def test_round_trip(sealed: Path) -> None:
    arrays, texts = load_sealed(sealed)
    assert texts == {"scheme": "{}"}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        assert (arrays[name] == array).all()


@settings(deadline=None, derandomize=True, database=None, max_examples=300)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_any_bit_that_changes_is_told(sealed: Path, place: int, bit: int) -> None:
    """Or makes no difference: blanks at the end of the header pad it."""
    content = bytearray(sealed.read_bytes())
    content[place % len(content)] ^= 1 << bit
    changed = sealed.with_name("changed")
    changed.write_bytes(content)
    try:
        arrays, texts = load_sealed(changed)
    except ValueError:
        return
    assert texts == {"scheme": "{}"}
    assert all((arrays[name] == array).all() for name, array in ARRAYS.items())
    assert all(arrays[name].dtype == array.dtype for name, array in ARRAYS.items())


def test_files_without_a_seal_are_taken(tmp_path: Path) -> None:
    save_file(ARRAYS, tmp_path / "x")
    assert load_sealed(tmp_path / "x")[0].keys() == ARRAYS.keys()


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (MemoryError(), "not enough memory (MemoryError): give a smaller --max-memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), "give a smaller --max-m"),
        (RuntimeError("CUDA out of memory. Tried to"), "not enough memory (CUDA out of memory."),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory"),
        (OSError(errno.ENOSPC, "No space", "/x/y"), "the disk is full while writing /x/y: free"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "/x cannot be used (Read-only file"),
        (FileExistsError(errno.EEXIST, "File exists", "/x"), "/x is in the way: move it elsewhere"),
    ],
)
def test_what_the_machine_lacks(error: Exception, wanted: str) -> None:
    told = explain_shortage(error)
    assert told is not None and wanted in str(told)
    assert "the same command again" in told.remedy


@pytest.mark.parametrize(
    "error", [ValueError("x"), RuntimeError("shape mismatch"), BrokenPipeError(errno.EPIPE, "p")]
)
def test_what_is_nobodys_shortage(error: Exception) -> None:
    assert explain_shortage(error) is None


def test_an_error_in_a_librarys_words_is_the_systems(tmp_path: Path) -> None:
    with pytest.raises(PermissionError) as caught, report_full_disk(tmp_path / "x"):
        raise RuntimeError("Error while serializing: I/O error: Permission denied (os error 13)")
    assert caught.value.filename == str(tmp_path / "x")
    assert caught.value.strerror == os.strerror(errno.EACCES)
    with pytest.raises(InputError, match="disk is full"), report_full_disk(tmp_path / "x"):
        raise RuntimeError("No space left on device (os error 28)")
