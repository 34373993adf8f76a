"""What would help a block, on its page: started, stopped, drawn, and made a recipe."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from awqscope.app.words.studies.probe import write_finding
from awqscope.diagnose.runs.directory import RunDirectory
from tests.help.probed import keep_probe, make_probe

if TYPE_CHECKING:
    from playwright import sync_api

pytestmark = pytest.mark.browser
expected = pytest.importorskip("playwright.sync_api").expect


def find_card(page: "sync_api.Page") -> "sync_api.Locator":
    page.goto("/run/demo/block/5")
    title = page.get_by_role("heading", name="What would help", exact=True)
    return page.locator("section.card", has=title)


def test_it_is_started_and_stopped(page: "sync_api.Page", runs: Path) -> None:
    card = find_card(page)
    card.get_by_role("textbox", name="Windows").fill("2")
    card.get_by_role("button", name="Try what would help").click()
    expected(card).to_contain_text("searching for block 5")
    card.get_by_role("button", name="Stop").click()
    expected(card).to_contain_text("This was not measured")
    assert (runs / "demo" / "studies" / "probe-5" / "asked.json").exists()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_answer_is_drawn_at_every_width(page: "sync_api.Page", runs: Path, scheme: str) -> None:
    keep_probe(RunDirectory(runs / "demo"), make_probe(5))
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    for width in (1440, 800, 390):
        page.set_viewport_size({"width": width, "height": 900})
        card = find_card(page)
        expected(card).to_contain_text(write_finding(make_probe(5)))
        chart = card.locator(".chart")
        chart.scroll_into_view_if_needed()
        expected(chart.locator(".main-svg").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert axe.run(page).response["violations"] == []


def test_a_recipe_is_one_click_away(page: "sync_api.Page", runs: Path) -> None:
    """The run's recipe has 5.qkv and 5.o at 8 bits; what helps most a byte has 5.o alone."""
    keep_probe(RunDirectory(runs / "demo"), make_probe(5))
    card = find_card(page)
    card.get_by_role("row", name="o-8 in words").get_by_role("link", name="Make a recipe").click()
    for unit, bits in (("5.qkv", "4"), ("5.o", "8")):
        name = re.compile(rf"^Bits of {re.escape(unit)}: {bits}, ")
        expected(page.get_by_role("gridcell", name=name)).to_have_count(1)
