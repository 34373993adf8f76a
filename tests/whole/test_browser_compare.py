"""Comparing two models in the browser: which model of each run is chosen, and what is said then."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.help.browsing import copy_sample
from tests.help.runs import write_comparison

sync_api = pytest.importorskip("playwright.sync_api")
if TYPE_CHECKING:
    from playwright import sync_api

pytestmark = pytest.mark.browser


def test_sides_are_chosen_and_stay_in_the_address(page: "sync_api.Page", runs: Path) -> None:
    write_comparison(runs)
    copy_sample(runs, "other")
    verdict = page.locator(".verdict")
    page.goto("/compare?a=demo&b=candidate")
    sync_api.expect(verdict).to_contain_text("A and B are the same model")
    # The models that it shows are those it is compared by anyway, and go into no address.
    assert "model_" not in page.url
    group = page.get_by_role("radiogroup", name="Model of run A")
    group.get_by_text("uniform 4-bit").click()
    sync_api.expect(page).to_have_url(re.compile("model_a=uniform"))
    sync_api.expect(verdict).to_contain_text("B is better than A: KL −0.2215")
    # ΔPPL by block is of the uniform model and of a candidate; a choice of runs keeps the measure.
    measure = page.get_by_role("radiogroup", name="Measure")
    measure.get_by_text("ΔPPL").click()
    sync_api.expect(page.locator("#differences-card .ytitle")).to_have_text("ΔPPL, B − A")
    page.reload()
    sync_api.expect(verdict).to_contain_text("B is better than A")
    group.get_by_text("mixed").click()
    sync_api.expect(verdict).to_contain_text("A and B are the same model")
    sync_api.expect(page).to_have_url(re.compile("measure=delta_ppl"))
    sync_api.expect(page.locator("#differences-card")).to_contain_text("of the uniform model only")
    page.go_back()
    sync_api.expect(verdict).to_contain_text("B is better than A")
    page.locator("#compare-b").click()
    page.get_by_role("option", name="other").click()
    sync_api.expect(page).to_have_url(re.compile("b=other"))
    sync_api.expect(page.get_by_role("radiogroup", name="Model of run B")).to_be_visible()


def test_a_comparison_has_no_pages_that_lead_nowhere(page: "sync_api.Page", runs: Path) -> None:
    write_comparison(runs)
    for name, pages in (
        ("candidate", ["Overview", "Tokens"]),
        ("demo", ["Overview", "Tokens", "Recipe", "Explain"]),
    ):
        page.goto(f"/run/{name}")
        links = page.get_by_role("navigation", name="Pages of this run").get_by_role("link")
        sync_api.expect(links).to_have_text(pages)
