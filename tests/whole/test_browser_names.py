"""A run's page opens whatever the run's directory is called, and says what a stopped one is."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.help.browsing import change_record, copy_sample

if TYPE_CHECKING:
    from playwright import sync_api

pytestmark = pytest.mark.browser
NAME = "a[1] #?%41 & 'q' {b}*"


def test_a_run_of_any_name_is_opened(page: "sync_api.Page", runs: Path) -> None:
    from playwright.sync_api import expect

    copy_sample(runs, NAME)
    page.goto("/")
    page.get_by_role("link", name=NAME, exact=True).first.click()
    expect(page.locator("h1")).to_contain_text(NAME)
    expect(page.locator(".verdict")).to_contain_text("Block 5 stands out")
    again = shlex.join(["awqscope", "show", str(runs / NAME)])
    expect(page.get_by_text(again, exact=True)).to_be_visible()
    page.get_by_role("link", name="Tokens", exact=True).click()
    expect(page.locator("#window-card")).to_be_visible()


def test_a_stopped_run_is_called_that_everywhere(page: "sync_api.Page", runs: Path) -> None:
    from playwright.sync_api import expect

    run = copy_sample(runs, "stopped")
    stages = {"search": {"state": "done", "seconds": 1.0}, "sweep": {"state": "running"}}
    change_record(run, state="running", stages=stages, headline={})
    page.goto("/run/stopped")
    expect(page.locator("main")).to_contain_text("It was stopped before its end")
    expect(page.locator(".stages")).to_contain_text("sweepstopped")
    expect(page.locator("main")).not_to_contain_text("running")
