"""The study of a run's calibration on its page: started and stopped, and its answer drawn."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from awqscope.app.words.studies.calibration import write_advice
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.calibration.searching import folder_of
from awqscope.diagnose.studies.study import Study
from tests.help.calibrated import make_advice

if TYPE_CHECKING:
    from playwright import sync_api

pytestmark = pytest.mark.browser
expected = pytest.importorskip("playwright.sync_api").expect


def find_card(page: "sync_api.Page") -> "sync_api.Locator":
    page.goto("/run/demo")
    title = page.get_by_role("heading", name="Calibration", exact=True)
    return page.locator("section.card", has=title)


def test_it_is_started_and_stopped(page: "sync_api.Page", runs: Path) -> None:
    card = find_card(page)
    card.get_by_role("textbox", name="Calibration windows").fill("2")
    card.get_by_role("button", name="Search and measure").click()
    expected(card).to_contain_text("◐ Measuring")
    expected(card).to_contain_text("AWQ search")
    card.get_by_role("button", name="Stop").click()
    expected(card).to_contain_text("This was not measured")
    expected(card).to_contain_text("the same command again goes on from here")
    assert list(folder_of(RunDirectory(runs / "demo")).rglob("*.safetensors"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_answer_is_drawn_at_every_width(page: "sync_api.Page", runs: Path, scheme: str) -> None:
    study = Study(RunDirectory(runs / "demo"), "calibrate", {})
    with study.hold():
        study.keep(make_advice().to_json())
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    for width in (1440, 800, 390):
        page.set_viewport_size({"width": width, "height": 900})
        card = find_card(page)
        for sentence in write_advice(make_advice()):
            expected(card).to_contain_text(sentence)
        for number in range(3):
            chart = card.locator(".chart").nth(number)
            chart.scroll_into_view_if_needed()
            expected(chart.locator(".main-svg").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert axe.run(page).response["violations"] == []
