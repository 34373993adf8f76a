"""The recipe page as a visitor has it: the grid by mouse and keys, its numbers, and budgets."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from awqscope.app.dashboard.sections.recipe.editing import Editing, open_editing
from awqscope.app.store import Store
from awqscope.app.words.predict import write_changes
from awqscope.mixedprec.words import write_number, write_share, write_size
from examples.benchmarks.large_runs import BLOCK_COUNT, KINDS, write_runs

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")

RECIPE = "/run/demo/recipe"


@pytest.fixture
def editing(runs: Path) -> Editing:
    found = open_editing(Store(runs), "demo")
    assert found is not None
    return found


def cell(page: "sync_api.Page", unit: str) -> "sync_api.Locator":
    return page.get_by_role("gridcell", name=re.compile(rf"^Bits of {re.escape(unit)}:"))


def tile(page: "sync_api.Page", label: str) -> "sync_api.Locator":
    return page.locator("#recipe-tiles .tile", has_text=label).locator(".value")


def wait_for_bits(page: "sync_api.Page", changes: str) -> None:
    """Until the address says what differs from the run's own recipe."""
    wanted = changes.replace(":", "%3A").replace(",", "%2C")
    page.wait_for_url(lambda url: url.partition("bits=")[2] == wanted)


def check_numbers(page: "sync_api.Page", editing: Editing, changes: str) -> None:
    """What the browser computes is what `words.predict` and the command's scores do."""
    mine, widths = editing.predict(changes), editing.read(changes)
    assert editing.scores is not None
    said = {
        "Not at": str(sum(width != 4 for width in widths.values())),
        "Bits per weight": f"{editing.scores.predict(widths).bits_per_weight:.3f}",
        "Size": write_size(mine.bytes),
        "KL": write_number(mine.kl, ".4f"),
        "Perplexity": write_number(mine.ppl, ".3f"),
        "Recovered": write_share(mine.recovered),
    }
    for label, value in said.items():
        sync_api.expect(tile(page, label)).to_have_text(value)


def test_the_browser_predicts_as_the_command_does(page: "sync_api.Page", editing: Editing) -> None:
    draw = random.Random(3)
    for share in (0.0, 0.1, 0.5, 1.0):
        widths = {
            unit: draw.choice(editing.allowed) if draw.random() < share else width
            for unit, width in editing.own.widths.items()
        }
        changes = write_changes(widths, editing.own.widths)
        page.goto(f"{RECIPE}?bits={changes}" if changes else RECIPE)
        check_numbers(page, editing, changes)


def test_the_grid_is_worked_by_keys(page: "sync_api.Page", editing: Editing) -> None:
    page.goto(RECIPE)
    cell(page, "0.qkv").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    sync_api.expect(cell(page, "1.o")).to_be_focused()
    page.keyboard.press("Enter")
    menu = page.get_by_role("menu")
    sync_api.expect(menu.get_by_role("menuitemradio", checked=True)).to_be_focused()
    page.keyboard.press("Escape")
    sync_api.expect(menu).to_have_count(0)
    sync_api.expect(cell(page, "1.o")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    sync_api.expect(cell(page, "1.o")).to_be_focused()
    check_numbers(page, editing, "1.o:8")
    wait_for_bits(page, "1.o:8")
    # From a block's number and a column's name, all of theirs; End and Home go to the sides.
    page.keyboard.press("Home")
    sync_api.expect(page.get_by_role("rowheader", name="Block 1")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_role("menuitemradio", name=re.compile("^8 bit")).click()
    check_numbers(page, editing, "1.qkv:8,1.o:8,1.gate_up:8,1.down:8")
    for _ in range(2):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("End")
    sync_api.expect(page.get_by_role("columnheader", name="down")).to_be_focused()
    assert page.locator("[role=grid] [tabindex='0']").count() == 1


def test_a_choice_gets_a_width_together(page: "sync_api.Page", editing: Editing) -> None:
    page.goto(RECIPE)
    bulk = page.locator("form.bulk")
    for blocks, kind, units in (
        ("flagged", "", [f"5.{kind}" for kind in ("gate_up", "down")]),
        ("range", "down", ["2.down", "3.down"]),
    ):
        bulk.get_by_label("Blocks").select_option(blocks)
        if blocks == "range":
            bulk.get_by_label("From block").fill("2")
            bulk.get_by_label("To block").fill("3")
        bulk.get_by_label("Units").select_option(kind)
        bulk.get_by_label("Width").select_option(label="8 bit")
        bulk.get_by_role("button", name="Set together").click()
        changes = ",".join(f"{unit}:8" for unit in units)
        check_numbers(page, editing, changes)
        wait_for_bits(page, changes)
        page.get_by_role("button", name="Back to the run's recipe").click()
        check_numbers(page, editing, "")
    only = page.get_by_label("Only blocks with units not at 4 bits")
    only.check()
    sync_api.expect(page.get_by_role("rowheader")).to_have_text(["5 ▲"])
    only.uncheck()
    sync_api.expect(page.get_by_role("rowheader")).to_have_count(8)


def test_recipes_are_taken_along_the_frontier(page: "sync_api.Page", editing: Editing) -> None:
    page.goto(RECIPE)
    assert editing.scores is not None
    slider = page.get_by_label("Budget along the frontier")
    slider.focus()
    page.keyboard.press("Home")
    uniform = write_changes(editing.scores.uniform, editing.own.widths)
    check_numbers(page, editing, uniform)
    page.keyboard.press("ArrowRight")
    wait_for_bits(page, "5.qkv:4")
    sync_api.expect(slider).to_have_attribute("aria-valuetext", re.compile("bits per weight"))
    # A click on a point of the line takes its recipe.
    plot = page.locator("#recipe-figure .js-plotly-plot")
    plot.locator(".main-svg").first.wait_for()
    spot = plot.evaluate(
        """(plot) => {
          const line = plot.data.find((trace) => trace.meta === "frontier");
          const { xaxis, yaxis } = plot._fullLayout;
          const box = plot.querySelector(".nsewdrag").getBoundingClientRect();
          const at = line.x.length - 2;
          plot.scrollIntoView({ block: "center" });
          const there = plot.querySelector(".nsewdrag").getBoundingClientRect();
          return [at, there.left + xaxis.d2p(line.x[at]), there.top + yaxis.d2p(line.y[at])];
        }"""
    )
    page.mouse.move(spot[1] - 3, spot[2])
    page.mouse.move(spot[1], spot[2])
    page.mouse.click(spot[1], spot[2])
    sync_api.expect(slider).to_have_value(str(spot[0]))
    before = tile(page, "Size").inner_text()
    page.get_by_label("Budget", exact=True).fill("4.5")
    page.keyboard.press("Enter")
    found = write_changes(editing.solve("bits", 4.5), editing.own.widths)
    check_numbers(page, editing, found)
    assert tile(page, "Size").inner_text() != before
    sync_api.expect(page.locator("#recipe-said")).to_contain_text("changed:")
    page.get_by_label("Budget", exact=True).fill("1")
    page.get_by_role("button", name="Take the best").click()
    sync_api.expect(page.locator("#recipe-said")).to_contain_text("no recipe is as small as")
    page.get_by_label("Unit of the budget").select_option("mb")
    page.get_by_label("Budget", exact=True).fill("5.3")
    page.keyboard.press("Enter")
    found = write_changes(editing.solve("mb", 5.3), editing.own.widths)
    check_numbers(page, editing, found)


def test_the_budget_of_a_recipe_that_is_shown_has_room_for_it(
    page: "sync_api.Page", editing: Editing
) -> None:
    """Nothing worse comes of asking for the best in the number that the page wrote itself."""
    page.goto(RECIPE)
    slider, kl = page.get_by_label("Budget along the frontier"), tile(page, "KL")
    for place in (None, 3, 9, 14):
        for unit in ("bits", "mb"):
            if place is not None:
                slider.fill(str(place))
            page.get_by_label("Unit of the budget").select_option(unit)
            before = float(kl.inner_text())
            page.get_by_role("button", name="Take the best").click()
            sync_api.expect(page.locator("#recipe-said")).not_to_have_text("")
            assert float(kl.inner_text()) <= before
            # What was said is of that recipe alone.
            slider.fill("1")
            sync_api.expect(page.locator("#recipe-said")).to_have_text("")
            page.goto(RECIPE)


def test_the_file_is_written_for_a_tool(page: "sync_api.Page") -> None:
    page.goto(f"{RECIPE}?bits=0.down:8")
    page.get_by_role("textbox", name="Written for").click()
    page.get_by_role("option", name="modelopt").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download recipe").click()
    assert download.value.suggested_filename == "modelopt.yaml"
    assert "down_proj" in Path(download.value.path()).read_text()
    sync_api.expect(page.locator("#recipe-said")).to_have_text("modelopt.yaml is written.")


def test_eighty_blocks_are_as_light_as_eight(page: "sync_api.Page", runs: Path) -> None:
    write_runs(runs, 1, 4096)
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto("/run/run-000/recipe")
    cells = page.get_by_role("gridcell")
    sync_api.expect(cells).to_have_count(BLOCK_COUNT * len(KINDS))
    assert page.locator("main select").count() < 10
    page.locator(".unit-grid .row").last.scroll_into_view_if_needed()
    # The numbers are in sight down there, and follow at once.
    numbers = page.locator("#recipe-tiles")
    box = numbers.bounding_box()
    assert box is not None and 0 <= box["y"] < 5 and box["height"] < 110
    count = tile(page, "Not at")
    sync_api.expect(count).to_have_text("4")
    cell(page, "79.down").click()
    page.get_by_role("menuitemradio", name=re.compile("^8 bit")).click()
    sync_api.expect(count).to_have_text("5")
    wait_for_bits(page, "79.down:8")
    for width in (1440, 800, 390):
        page.set_viewport_size({"width": width, "height": 900})
        # A chart follows its page a moment later.
        page.wait_for_function("() => document.documentElement.scrollWidth <= innerWidth")


CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const over = ([r, g, b, a = 1], under) => [r, g, b].map((v, i) => v * a + under[i] * (1 - a));
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) =>
      v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const cell = document.querySelector("[role=gridcell]");
  const ground = parse(getComputedStyle(document.body).backgroundColor);
  return [...Array(9).keys()].map((heat) => {
    cell.className = `cell h${heat}`;
    const style = getComputedStyle(cell);
    const srgb = style.backgroundColor.startsWith("color(srgb");
    const back = parse(style.backgroundColor).map((v, i) => (srgb && i < 3 ? v * 255 : v));
    const [a, b] = [light(over(back, ground)), light(parse(style.color))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_shade_can_be_read(page: "sync_api.Page", scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.goto(RECIPE)
    cell(page, "0.o").wait_for()
    found = page.evaluate(CONTRAST)
    assert len(set(found)) == 9 and min(found) >= 4.5, found


def test_the_own_recipe_is_the_best_of_its_size(page: "sync_api.Page") -> None:
    page.goto(RECIPE)
    page.get_by_role("button", name="Best at this size").click()
    sync_api.expect(page.locator("#recipe-said")).to_contain_text("it is the best already")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download recipe").click()
    assert json.loads(Path(download.value.path()).read_text())["kind"] == "flagged"
