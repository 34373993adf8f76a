"""One process at a time, and nobody after it has ended."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from awqscope.mixedprec.files.locks import TRIES, is_locked, take_lock

HOLD = (
    "import sys; from awqscope.mixedprec.files.locks import take_lock; "
    "file = open(sys.argv[1]); take_lock(file); print('held', flush=True); sys.stdin.read()"
)


def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    assert not is_locked(path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert is_locked(path)
    with open(path) as file, pytest.raises(BlockingIOError):
        take_lock(file)
    holder.kill()
    holder.communicate()
    assert not is_locked(path)
    with open(path) as file:
        take_lock(file)
        assert is_locked(path)


def test_a_folder_is_locked_by_its_number(tmp_path: Path) -> None:
    numbers = [os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY) for _ in range(2)]
    try:
        take_lock(numbers[0])
        with pytest.raises(BlockingIOError):
            take_lock(numbers[1])
    finally:
        for number in numbers:
            os.close(number)


def test_a_glance_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("awqscope.mixedprec.files.locks.PAUSE", 0.5)
    path = tmp_path / "file"
    path.touch()
    first = open(path)  # noqa: SIM115
    take_lock(first)

    def close_soon() -> None:
        time.sleep(0.2)
        first.close()

    closing = threading.Thread(target=close_soon)
    closing.start()
    with open(path) as second:
        take_lock(second)
    closing.join()
    assert TRIES > 1


def test_what_is_not_there_is_not_locked(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "none")
    assert not is_locked(tmp_path)
