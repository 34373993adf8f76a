"""What a process holds, against the system's own account of it."""

import re
from pathlib import Path

import pytest
import torch

from awqscope.diagnose.machine.memory import held_bytes, peak_bytes, private_bytes

MIB = 2**20
STATUS = Path("/proc/self/status")


def read_status(name: str) -> int:
    """A line of Linux's account of this process, in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text(encoding="utf-8"))
    assert found
    return int(found[1]) * 1024


@pytest.mark.skipif(not STATUS.exists(), reason="the system keeps no such account")
def test_what_is_held_is_what_the_system_says() -> None:
    for measure, name in ((held_bytes, "VmRSS"), (private_bytes, "RssAnon")):
        assert measure() == pytest.approx(read_status(name), abs=4 * MIB)


def test_a_tensor_is_held_private_and_in_the_peak() -> None:
    held, private = held_bytes(), private_bytes()
    tensor = torch.ones(64 * MIB, dtype=torch.uint8)
    for measure, before in ((held_bytes, held), (private_bytes, private)):
        assert measure() - before == pytest.approx(tensor.nbytes, abs=8 * MIB)
    assert peak_bytes() >= held_bytes() - 4 * MIB
