"""What is printed is the whole page: every chart drawn and within the sheet, every row."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.help.browsing import copy_sample

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")

# An A4 sheet between its margins.
SHEET = {"width": 688, "height": 1009}
PAGES = {
    "/run/demo": 2,
    "/run/demo/block/5": 3,
    "/run/demo/tokens": 1,
    "/run/demo/recipe": 1,
    "/compare?a=demo&b=other": 1,
}
DRAWN = "document.querySelectorAll('main .chart .main-svg:first-child').length"
WIDE = """() => [...document.querySelectorAll('main .chart .main-svg, main table, main .text')]
  .map((one) => one.getBoundingClientRect()).filter((one) => one.right > innerWidth + 1).length"""
HIDDEN = """() => [...document.querySelectorAll('main *')].filter((one) => {
  const style = getComputedStyle(one);
  const scrolls = ['auto', 'scroll'].includes(style.overflowY) && !one.closest('.ag-root-wrapper');
  return scrolls && one.offsetParent && one.scrollHeight > one.clientHeight + 1;
}).map((one) => one.className)"""


@pytest.fixture
def printed(page: "sync_api.Page", runs: Path) -> Iterator["sync_api.Page"]:
    """A page in a dark theme whose charts are drawn on demand alone, as just before they are."""
    copy_sample(runs, "other")
    page.add_init_script(
        "window.requestIdleCallback = () => 0; window.cancelIdleCallback = () => 0"
    )
    page.set_viewport_size({"width": 1440, "height": 500})
    page.emulate_media(color_scheme="dark")
    yield page


def to_paper(page: "sync_api.Page") -> None:
    """As a browser does that is about to print."""
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.set_viewport_size(SHEET)
    page.emulate_media(media="print", color_scheme="dark")


@pytest.mark.parametrize(("path", "charts"), PAGES.items())
def test_every_chart_is_drawn_and_nothing_is_cut(
    printed: "sync_api.Page", path: str, charts: int
) -> None:
    page = printed
    # plotly is there once a chart was drawn; on a page without one in sight, bring one there.
    page.goto(path)
    page.locator("main .chart").first.wait_for(state="attached")
    page.locator("main .chart").first.scroll_into_view_if_needed()
    page.locator("main .chart .main-svg").first.wait_for()
    page.evaluate("window.scrollTo(0, 0)")
    # At once: a browser waits for nothing.
    drawn = page.evaluate(f"window.dispatchEvent(new Event('beforeprint')); {DRAWN}")
    assert drawn == charts == page.locator("main .chart").count()
    to_paper(page)
    assert page.evaluate(WIDE) == 0
    assert page.evaluate(HIDDEN) == []
    assert page.evaluate("document.documentElement.scrollWidth") == SHEET["width"]
    ground = "getComputedStyle(document.documentElement).getPropertyValue('--ground').trim()"
    assert page.evaluate(ground) == "#ffffff"
    page.emulate_media(media="screen", color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    page.set_viewport_size({"width": 1440, "height": 500})
    chart = page.locator("main .chart").first
    box = chart.bounding_box()
    assert box is not None
    wide = "([one, width]) => Math.abs(one.getBoundingClientRect().width - width) < 2"
    drawing: Any = chart.locator(".main-svg").first.element_handle()
    page.wait_for_function(wide, arg=[drawing, box["width"]])


def test_every_row_is_printed(printed: "sync_api.Page") -> None:
    page = printed
    page.goto("/run/demo/tokens")
    rows = page.locator("#token-lists .card").first.locator("tbody tr")
    sync_api.expect(rows).to_have_count(15)
    to_paper(page)
    sync_api.expect(rows).to_have_count(40)
    sync_api.expect(page.locator(".turns")).to_have_count(0)
    page.emulate_media(media="screen")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    sync_api.expect(rows).to_have_count(15)


def test_the_list_of_runs_is_printed_from_a_narrow_screen(printed: "sync_api.Page") -> None:
    page = printed
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto("/")
    page.locator(".run-card").first.wait_for()
    to_paper(page)
    table = page.locator("table.on-paper")
    sync_api.expect(table.locator("th")).to_contain_text(["May it ship?", "Run", "Found", "Bits"])
    sync_api.expect(table).to_contain_text("94.9% recovered")


def test_every_row_of_a_grid_is_printed(printed: "sync_api.Page", runs: Path) -> None:
    for number in range(60):
        copy_sample(runs, f"run-{number}")
    page = printed
    page.goto("/")
    page.locator(".ag-center-cols-container .ag-row").first.wait_for()
    to_paper(page)
    table = page.locator("table.on-paper")
    sync_api.expect(table.locator("tbody tr")).to_have_count(62)
    sync_api.expect(page.locator("main .grid")).to_be_hidden()
    assert page.evaluate(WIDE) == 0
    sync_api.expect(table).to_contain_text("run-59")
    sync_api.expect(table).to_contain_text("94.9% recovered")
    page.emulate_media(media="screen")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    sync_api.expect(table).to_have_count(0)
    sync_api.expect(page.locator("main .grid")).to_be_visible()


def test_a_browser_prints_it(page: "sync_api.Page") -> None:
    page.goto("/run/demo/block/5")
    sync_api.expect(page.locator("main .chart .main-svg:first-child")).to_have_count(3)
    made = page.pdf(prefer_css_page_size=True, print_background=True)
    assert made.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", made)) >= 2
    assert page.evaluate(f"{DRAWN}") == 3
