"""What a first visit takes: less than 2 MB on the wire, no page that jumps, and something to see
until the charts are there."""

import shutil
from pathlib import Path

import pytest

from awqscope.diagnose.compared.ranking import MOST_RANKED
from examples.benchmarks.dashboard import list_pages
from examples.benchmarks.first_visits import load_cold
from examples.benchmarks.large_runs import write_runs
from tests.help.browsing import copy_sample

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")

MOST_BYTES = 2_000_000
MOST_SHIFT = 0.03
# Each page says that it is there by one of these.
SHOWN = "main h1"
CHARTED = ("run", "block", "recipe", "compare")


def test_a_first_visit_is_light_and_still(
    browser: "sync_api.Browser", address: str, runs: Path
) -> None:
    """Of lists of twenty and a hundred runs, of runs of eighty blocks of seven units, of twelve."""
    names = write_runs(runs, 100, 4096)
    pages = list_pages(names[0], names[-1], names[:MOST_RANKED])
    found = {name: load_cold(browser, address + path, SHOWN) for name, path in pages.items()}
    for name in names[20:]:
        shutil.rmtree(runs / name)
    found["short list"] = load_cold(browser, address, SHOWN)
    assert {name: load.bytes for name, load in found.items() if load.bytes >= MOST_BYTES} == {}
    assert {name: load.shift for name, load in found.items() if load.shift >= MOST_SHIFT} == {}
    # Charts are drawn by the small bundle.
    assert max(load.bytes for load in found.values()) > 1_000_000


def test_a_chart_is_awaited_in_its_place(
    browser: "sync_api.Browser", address: str, runs: Path
) -> None:
    copy_sample(runs, "other")
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    held: list[sync_api.Route] = []
    page.route("**/plotly.min.js", lambda route: held.append(route))
    for name in CHARTED:
        held.clear()
        page.goto(address + list_pages("demo", "other")[name], wait_until="commit")
        # Before any script: the page's own.
        page.locator("h1").wait_for()
        chart = page.locator("main .chart").first
        chart.scroll_into_view_if_needed()
        sync_api.expect(chart.locator(".waits")).to_have_count(1)
        box = chart.bounding_box()
        while not held:
            page.wait_for_timeout(50)
        for route in held:
            route.continue_()
        chart.locator(".main-svg").first.wait_for()
        sync_api.expect(chart.locator(".waits")).to_have_count(0)
        after = chart.bounding_box()
        assert box is not None and after is not None and abs(after["height"] - box["height"]) < 2
    context.close()
