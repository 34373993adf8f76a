"""Comparing two models in the browser: which model of each run is chosen, and what is said then."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.help.browsing import copy_sample
from tests.help.releases import write_release
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


def test_many_are_chosen_and_stay_in_the_address(page: "sync_api.Page", runs: Path) -> None:
    write_release(runs, "worse", 1.4, day=2)
    write_comparison(runs)
    page.goto("/")
    boxes = page.locator(".ag-row input[type=checkbox]")
    sync_api.expect(boxes).to_have_count(3)
    for box in boxes.all():
        box.check()
    page.get_by_role("button", name="Compare", exact=True).click()
    sync_api.expect(page).to_have_url(re.compile("compare.runs="))
    verdict = page.locator(".verdict")
    sync_api.expect(verdict).to_contain_text("lose")
    sync_api.expect(page.locator(".small-chart")).to_have_count(3)
    # A model that was not among them, and which the others are held against.
    page.get_by_role("textbox", name="Runs to compare").click()
    page.get_by_role("option", name="demo:uniform").click()
    sync_api.expect(page.locator(".small-chart")).to_have_count(4)
    page.get_by_role("textbox", name="Held against").click()
    page.get_by_role("option", name="demo:uniform").click()
    sync_api.expect(page).to_have_url(re.compile("baseline=demo%3Auniform"))
    sync_api.expect(page.locator("main")).to_contain_text("Each less demo:uniform")
    group = page.get_by_role("radiogroup", name="Axis of KL")
    group.get_by_text("Log").click()
    sync_api.expect(page).to_have_url(re.compile("axis=log"))
    page.reload()
    sync_api.expect(page.locator(".small-chart")).to_have_count(4)
    sync_api.expect(page.locator("main")).to_contain_text("Each less demo:uniform")
    sync_api.expect(group.get_by_role("radio", name="Log")).to_be_checked()
    page.get_by_role("link", name="side by side").first.click()
    sync_api.expect(page.get_by_role("radiogroup", name="Model of run A")).to_be_visible()


def test_releases_are_chosen_and_tokens_lead_to_the_text(page: "sync_api.Page", runs: Path) -> None:
    write_release(runs, "next", 1.4, day=30)
    page.goto("/trend")
    sync_api.expect(page.locator(".verdict")).to_contain_text("Surely")
    assert "runs=" not in page.url
    page.get_by_text("Tokens newly broken: ").first.click()
    page.locator("details[open] td a").first.click()
    sync_api.expect(page).to_have_url(re.compile(r"/run/[^/]+/tokens\?model=mixed&window="))
    page.locator("main .t").first.wait_for()
    page.go_back()
    sync_api.expect(page.locator(".verdict")).to_contain_text("Surely")
    page.get_by_role("textbox", name="Releases").click()
    page.get_by_role("option", name="demo:uniform").click()
    sync_api.expect(page).to_have_url(re.compile("trend.runs="))
    sync_api.expect(page.locator("main h2", has_text="→")).to_have_count(2)
    page.reload()
    sync_api.expect(page.locator("main h2", has_text="→")).to_have_count(2)
