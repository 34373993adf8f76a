"""On a screen as narrow as a phone's, and where a table is nearly too wide, nothing is cut off and
what names a thing stays in sight."""

import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.notes import Change, change_notes
from tests.help.browsing import copy_sample
from tests.help.releases import write_release
from tests.help.root import ROOT

sync_api = pytest.importorskip("playwright.sync_api")
if TYPE_CHECKING:
    from playwright import sync_api

pytestmark = pytest.mark.browser
PHONE: Any = {"width": 390, "height": 844}
# The texts of a chart that are not wholly inside of it, once it is drawn for this window.
CUT = """async (chart) => {
  const plot = chart.querySelector('.js-plotly-plot');
  const box = plot.getBoundingClientRect();
  return [...plot.querySelectorAll('.main-svg text')]
    .map((text) => [text.textContent, text.getBoundingClientRect()])
    .filter(([, at]) => at.width && (at.left < box.left - 1 || at.right > box.right + 1))
    .map(([text]) => text);
}"""


@pytest.fixture
def deep(runs: Path) -> str:
    """A run of thirty blocks of which the last is flagged."""
    shutil.copytree(ROOT / "reports" / "sample-smollm2", runs / "deep")
    return "/run/deep"


def find_card(page: "sync_api.Page", title: str) -> "sync_api.Locator":
    return page.locator("section.card").filter(
        has=page.get_by_role("heading", name=title, exact=True)
    )


def find_overflow(table: "sync_api.Locator") -> int:
    return int(table.evaluate("(box) => box.scrollWidth - box.clientWidth"))


def test_charts_of_thirty_blocks_are_legible(page: "sync_api.Page", deep: str) -> None:
    page.set_viewport_size(PHONE)
    page.goto(deep)
    for title in ("Where the damage is", "Which units"):
        card = find_card(page, title)
        card.scroll_into_view_if_needed()
        ticks = card.locator(".xtick text")
        sync_api.expect(ticks.first).to_be_visible()
        assert card.evaluate(CUT) == []
        boxes = [box for tick in ticks.all() if (box := tick.bounding_box())]
        assert len(boxes) == 10
        # Level, and none on the next.
        assert all(box["width"] < 20 for box in boxes) and len({box["y"] for box in boxes}) == 1
        ends = [(box["x"], box["x"] + box["width"]) for box in boxes]
        assert all(end < begin for (_, end), (begin, _) in itertools.pairwise(ends))
    said = page.locator(".annotation-text").filter(has_text="flagged ▲")
    sync_api.expect(said).to_be_visible()


def test_commands_and_places_are_not_broken(page: "sync_api.Page", deep: str) -> None:
    page.set_viewport_size(PHONE)
    page.goto(deep)
    command = find_card(page, "What more bytes would buy").locator("td code").first
    box = command.bounding_box()
    assert box and box["height"] < 70
    first, second = command.inner_text().split("\n")
    assert first.startswith("awqscope recipe") and first.endswith(" &&")
    assert second.startswith("awqscope requantize")
    page.goto(f"{deep}/tokens")
    where = find_card(page, "Worst tokens").locator("tbody a").first
    sync_api.expect(where).to_have_text("window 7, token 426")
    box = where.bounding_box()
    assert box and box["height"] < 30 and box["x"] + box["width"] < PHONE["width"]


def test_the_columns_of_a_recipe_stay_named(page: "sync_api.Page", deep: str) -> None:
    page.set_viewport_size(PHONE)
    page.goto(f"{deep}/recipe")
    heads, tiles = page.locator(".unit-grid .heads"), page.locator(".tiles.live")
    row = page.locator(".unit-grid .row[data-row='20']")
    row.evaluate("(row) => window.scrollTo(0, row.getBoundingClientRect().top + scrollY - 300)")
    sync_api.expect(row).to_be_in_viewport()

    def find_places() -> tuple[float, float, float]:
        boxes = [each.bounding_box() for each in (heads, tiles, row)]
        tops = [box["y"] if box else -1.0 for box in boxes]
        assert boxes[1]
        return tops[0], tops[1] + boxes[1]["height"], tops[2]

    top, under, below = find_places()
    assert under - 4 <= top < below and top < under + 4
    # Where there are more columns than have room they scroll below the tiles, under their names.
    frame = page.locator(".unit-frame")
    frame.evaluate("(frame) => frame.classList.add('wide')")
    frame.evaluate("(frame) => frame.querySelector('.unit-grid').style.setProperty('--kinds', 9)")
    row.evaluate("(row) => row.scrollIntoView({ block: 'center' })")
    top, _, below = find_places()
    box = frame.bounding_box()
    assert box and abs(top - box["y"]) < 2 and top < below
    assert find_overflow(frame) > 100
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_the_list_begins_where_its_title_does(page: "sync_api.Page", runs: Path) -> None:
    page.set_viewport_size(PHONE)
    page.goto("/")
    button, title = page.locator("#compare-button"), page.locator("h1")
    sync_api.expect(button).to_be_visible()
    at, begin = button.bounding_box(), title.bounding_box()
    assert at and begin and abs(at["x"] - begin["x"]) < 1


def test_the_list_says_that_nothing_is_found_only_where_that_is_so(
    page: "sync_api.Page", runs: Path
) -> None:
    copy_sample(runs, "old")
    change_notes(RunDirectory(runs / "old"), Change(archived=True))
    page.goto("/")
    rows = page.locator(".ag-center-cols-container .ag-row")
    found = page.locator("#runs-found")
    sync_api.expect(rows).to_have_count(1)
    # Longer than the grid waits before it says anything.
    page.wait_for_timeout(800)
    sync_api.expect(page.locator(".ag-aria-description-container")).to_be_empty()
    sync_api.expect(found).to_be_empty()
    search = page.get_by_label("Filter the runs")
    search.fill("no such words")
    sync_api.expect(found).to_have_text("No run is like that; 1 archived is not looked at.")
    sync_api.expect(found).to_have_attribute("role", "status")
    search.fill("")
    sync_api.expect(rows).to_have_count(1)
    sync_api.expect(found).to_be_empty()


def test_the_table_of_releases_fits_a_screen(page: "sync_api.Page", runs: Path) -> None:
    for at, scale in enumerate((1.0, 1.3)):
        write_release(runs, f"release-2026-0{at}-candidate", scale, day=at + 1)
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto("/trend")
    card = find_card(page, "Releases")
    sync_api.expect(card).to_contain_text("valid.txt")
    assert find_overflow(card.locator(".scroll")) == 0


def test_legends_fit_a_phone(page: "sync_api.Page", runs: Path) -> None:
    for at, scale in enumerate((1.0, 1.3)):
        write_release(runs, f"v{at}", scale, day=at + 1)
    page.set_viewport_size(PHONE)
    page.goto("/compare?runs=demo/v0/v1")
    card = find_card(page, "Size against damage")
    card.scroll_into_view_if_needed()
    sync_api.expect(card.locator(".legendtext").filter(has_text="the baseline")).to_be_visible()
    assert card.evaluate(CUT) == []


def test_the_name_of_a_linear_is_clear_of_the_rule_below(page: "sync_api.Page") -> None:
    page.goto("/run/demo/block/5/weights?linear=self_attn.o_proj")
    name = page.get_by_role("heading", name="5.o: self_attn.o_proj")
    sync_api.expect(name).to_be_visible()
    below = "(name) => name.nextElementSibling.getBoundingClientRect().top"
    assert name.evaluate(f"{below} - name.getBoundingClientRect().bottom") >= 8
