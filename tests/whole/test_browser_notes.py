"""What people say of runs, and numbers by text, as a visitor has them."""

import os
from pathlib import Path

import pytest

from awqscope.diagnose.runs.notes import FILE, read_notes
from tests.help.browsing import copy_sample
from tests.help.runs import cut_texts

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")


def test_a_run_is_noted_on_its_page_and_found_in_the_list(
    page: "sync_api.Page", runs: Path
) -> None:
    copy_sample(runs, "other")
    page.goto("/run/demo")
    page.get_by_label("Name", exact=True).fill("second try")
    page.get_by_label("Tags").fill("release, 4 bit")
    page.get_by_label("Add a note").fill("see <b>block 5</b>\nagain")
    page.get_by_role("button", name="Keep").click()
    sync_api.expect(page.locator("#notes-said")).to_contain_text("Kept")
    sync_api.expect(page.locator(".notes-line")).to_contain_text("second try")
    sync_api.expect(page.locator(".notes-list li")).to_contain_text("see <b>block 5</b>\nagain")
    sync_api.expect(page.get_by_label("Add a note")).to_have_value("")
    kept = read_notes(runs / "demo")
    assert (kept.name, tuple(kept.tags)) == ("second try", ("release", "4 bit"))
    # What another said meanwhile stays: the form asks for its own changes alone.
    page.goto("/run/other")
    page.get_by_label("Tags").fill("a, b")
    page.get_by_role("switch", name="Archived").focus()
    page.keyboard.press("Space")
    page.get_by_label("Tags").press("Enter")
    sync_api.expect(page.locator("#notes-said")).to_contain_text("Kept")
    sync_api.expect(page.locator(".notes-line")).to_contain_text("archived")
    page.get_by_label("Tags").fill("a, b, c" + "c" * 40)
    page.get_by_role("button", name="Keep").click()
    sync_api.expect(page.locator("#notes-said")).to_contain_text("Not kept: the tag has 41 char")
    assert list(read_notes(runs / "other").tags) == ["a", "b"]
    page.goto("/")
    rows = page.locator(".ag-center-cols-container .ag-row")
    sync_api.expect(rows).to_have_count(1)
    sync_api.expect(rows).to_contain_text("second try")
    page.get_by_role("switch", name="1 archived too").focus()
    page.keyboard.press("Space")
    sync_api.expect(rows).to_have_count(2)
    page.get_by_role("textbox", name="Only runs with these tags").click()
    page.get_by_role("option", name="b", exact=True).click()
    sync_api.expect(rows).to_have_count(1)
    sync_api.expect(rows).to_contain_text("other")
    page.reload()
    page.get_by_label("Filter the runs").fill("4 bit")
    sync_api.expect(rows).to_contain_text("demo")


def test_damaged_notes_are_said(page: "sync_api.Page", runs: Path) -> None:
    (runs / "demo" / FILE).write_text("{", encoding="utf-8")
    page.goto("/run/demo")
    said = page.locator("#notes-card")
    sync_api.expect(said).to_contain_text("The notes cannot be read")
    sync_api.expect(page.get_by_role("button", name="Keep")).to_have_count(0)
    assert os.path.getsize(runs / "demo" / FILE) == 1


@pytest.mark.parametrize("width", [1440, 800, 390])
def test_texts_fit_their_page(page: "sync_api.Page", runs: Path, width: int) -> None:
    cut_texts(runs / "demo", prose=22, code=18)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto("/run/demo")
    card = page.locator("section.card", has=page.get_by_role("heading", name="By text"))
    sync_api.expect(card.locator("table").first.locator("tbody tr")).to_have_count(9)
    sync_api.expect(card).to_contain_text("Of 2 texts")
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) == 0
