"""Large tensors lie in large pages where the system has them, unless the user has it otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from awqscope.diagnose.machine import pages as pages_module
from awqscope.diagnose.machine.pages import HUGE_PAGES, use_huge_pages

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# How many pages the system gives for a tensor of 256 MiB, after one that is freed again.
COUNTED = """
import resource
from awqscope.diagnose.machine.pages import use_huge_pages
use_huge_pages()
import torch
torch.zeros(2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(2**26)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, str] = {}
    monkeypatch.setattr(pages_module.os, "environ", told)
    use_huge_pages()
    assert told == {HUGE_PAGES: "1"}
    told[HUGE_PAGES] = "0"
    use_huge_pages()
    assert told == {HUGE_PAGES: "0"}


@pytest.mark.skipif(
    not ENABLED.exists() or "[never]" in ENABLED.read_text(encoding="utf-8"),
    reason="this system gives no huge pages",
)
def test_torch_asks_for_large_pages() -> None:
    """The name of the variable is torch's own, and says nothing when it is wrong."""

    def count(**variables: str) -> int:
        kept = {key: value for key, value in os.environ.items() if key != HUGE_PAGES}
        ran = subprocess.run(
            [sys.executable, "-c", COUNTED],
            env=kept | variables,
            capture_output=True,
            text=True,
            check=True,
        )
        return int(ran.stdout)

    # The system may have few to give, but of 65,536 pages some thousands are spared.
    small, large = count(**{HUGE_PAGES: "0"}), count()
    if "[always]" in ENABLED.read_text(encoding="utf-8"):
        assert large < 40_000
    else:
        assert large < 0.8 * small
