"""The dashboard as a visitor has it, for tests: Debian's Chromium on pages that the real command
serves, from runs that are copies of the committed sample."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import pytest

from tests.help.root import ROOT

if TYPE_CHECKING:
    from playwright import sync_api

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
# Waited for what must come: as long as a machine that is busy with all else may take for it.
PATIENCE_MS = 120_000
# What Chromium says where a machine takes seconds to come to the chart that a script is for.
SLOW = "was preloaded using link preload but not used"

NOT_FOUND = "the server responded with a status of 404"


def copy_sample(folder: Path, name: str) -> Path:
    """A run made of the committed sample."""
    shutil.copytree(ROOT / "reports" / "sample", folder / name)
    return folder / name


def change_record(run: Path, **changes: object) -> None:
    """Change top-level entries of a run's record."""
    path = run / "run.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(record | changes), encoding="utf-8")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    copy_sample(folder, "demo")
    return folder


@pytest.fixture
def address(runs: Path) -> Iterator[str]:
    """Where the dashboard on `runs` answers."""
    command = [sys.executable, "-m", "awqscope.app.cli", "dashboard", str(runs), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr is not None
        found = re.search(r"http://\S+?/", process.stderr.readline())
        assert found
        try:
            yield found.group().rstrip("/")
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    sync_api.expect.set_options(timeout=PATIENCE_MS)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "sync_api.Browser", address: str) -> Iterator["sync_api.Page"]:
    """A page whose console must stay clean, and which must ask nobody else for anything."""
    context = browser.new_context(base_url=address, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    troubles: list[str] = []

    def listen(said: "sync_api.ConsoleMessage") -> None:
        # A page that is not there is told as one; a file of a page that is not there is a fault.
        is_own = NOT_FOUND in said.text and said.location["url"] == page.url
        if said.type in ("error", "warning") and SLOW not in said.text and not is_own:
            troubles.append(said.text)

    page.on("console", listen)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    own = (urlparse(address).netloc, "")
    page.on(
        "request", lambda r: urlparse(r.url).netloc not in own and troubles.append(f"asked {r.url}")
    )
    yield page
    context.close()
    assert troubles == []
