"""What a button does uses what the page shows, and what it will do is shown first: in a browser."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from awqscope.app.dashboard.jobs.starts import LOGS, Start, note
from tests.help.browsing import ROOT, change_record, copy_sample

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")

DEMO = ROOT / "examples" / "demo"
# Types into a field and presses a button in one step of the browser: nothing else comes between.
AT_ONCE = """([field, text, button]) => {
  const isList = field.tagName === "SELECT";
  Object.getOwnPropertyDescriptor(field.constructor.prototype, "value").set.call(field, text);
  field.dispatchEvent(new Event(isList ? "change" : "input", { bubbles: true }));
  button.click();
}"""


def press_at_once(page: "sync_api.Page", label: Any, text: str, button: str) -> None:
    """Type into a field and press a button at once."""
    field = label.element_handle()
    page.evaluate(AT_ONCE, [field, text, page.locator(button).element_handle()])


def fill_in(page: "sync_api.Page", **fields: str) -> None:
    for name, text in fields.items():
        page.locator(f"form [name={name}]").fill(text)


def started(runs: Path, name: str) -> str:
    """The command of a run's log, once it is there."""
    log = runs / LOGS / f"{name}.log"
    deadline = time.monotonic() + 30
    while not (log.exists() and log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return log.read_text().splitlines()[0]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_start_takes_what_the_page_shows(
    no_network: None, page: "sync_api.Page", runs: Path
) -> None:
    page.goto("/new")
    page.locator("#new-preview li").first.wait_for()
    fill_in(page, model=str(DEMO), calib=str(DEMO / "calib.txt"), windows="3", name="mine")
    valid = page.locator("form [name=valid]")
    press_at_once(page, valid, f"{DEMO / 'valid.txt'}\n{DEMO / 'calib.txt'}", "#new-start")
    page.wait_for_url("**/run/mine")
    said = started(runs, "mine")
    assert f"--valid={DEMO / 'valid.txt'} --valid={DEMO / 'calib.txt'} --windows=3" in said
    # From the first moment it is at its own address and in the list, with a way to stop it.
    sync_api.expect(page.locator(".notice h2")).to_have_text(re.compile("Starting"))
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto("/")
    row = page.locator(".ag-center-cols-container .ag-row", has_text="mine")
    sync_api.expect(row).to_contain_text("starting")
    row.get_by_role("button", name="Cancel mine").click()
    sync_api.expect(page.locator("#runs-said")).to_contain_text("mine was asked to stop")
    sync_api.expect(row).to_have_count(0)


def test_the_command_follows_the_fields_and_enter_starts_it(
    no_network: None, page: "sync_api.Page", runs: Path
) -> None:
    page.goto("/new")
    shown = page.locator("#new-preview")
    sync_api.expect(shown).to_contain_text("a model is needed", ignore_case=True)
    texts = {"calib": str(DEMO / "calib.txt"), "valid": str(DEMO / "valid.txt")}
    fill_in(page, model="/nowhere", name="mine", **texts)
    page.locator("form [name=model]").press("Enter")
    error = page.locator(".mantine-InputWrapper-error")
    sync_api.expect(error).to_have_text(re.compile("no model directory /nowhere"))
    sync_api.expect(page.locator("#new-said")).to_contain_text("See Model")
    fill_in(page, model=str(DEMO))
    sync_api.expect(error).to_have_count(0)
    sync_api.expect(page.locator("#new-said")).to_be_empty()
    page.get_by_role("textbox", name=re.compile("^Bits$")).click()
    page.get_by_role("option", name="5 bits").click()
    sync_api.expect(shown).to_contain_text("No checkpoint will be written: no server loads")
    command = shown.locator("code").inner_text()
    assert "--bits=5" in command
    page.locator("form [name=name]").press("Enter")
    page.wait_for_url("**/run/mine")
    assert started(runs, "mine") == f"$ {command}"
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    sync_api.expect(page.locator("h1")).to_have_text("No such run")


def test_the_plan_is_shown_beside_start(no_network: None, page: "sync_api.Page") -> None:
    page.goto("/new")
    page.locator("#new-preview li").first.wait_for()
    texts = {"calib": str(DEMO / "calib.txt"), "valid": str(DEMO / "valid.txt")}
    fill_in(page, model=str(DEMO), seq_len="64", **texts)
    press_at_once(page, page.locator("form [name=windows]"), "4", "#plan-ask")
    plan = page.locator("#new-plan")
    sync_api.expect(plan).to_contain_text("GiB")
    sync_api.expect(plan.locator("tbody tr")).to_have_count(6)
    fill_in(page, windows="5")
    sync_api.expect(plan).to_be_empty()


def test_a_comparison_is_asked_for(no_network: None, page: "sync_api.Page", runs: Path) -> None:
    page.goto("/new")
    page.get_by_role("link", name="A checkpoint made elsewhere").click()
    page.locator("form [name=candidate]").wait_for()
    fill_in(page, reference=str(DEMO), valid=str(DEMO / "valid.txt"), name="two")
    press_at_once(page, page.locator("form [name=candidate]"), str(DEMO), "#new-start")
    page.wait_for_url("**/run/two")
    assert started(runs, "two").endswith(f"/two -- {DEMO} {DEMO}")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    sync_api.expect(page.locator("h1")).to_have_text("No such run")


def test_explain_takes_the_prompt_that_is_shown_and_keeps_it(
    page: "sync_api.Page", runs: Path
) -> None:
    page.goto("/run/demo/explain")
    prompt = page.locator("#explain-prompt")
    prompt.wait_for()
    prompt.fill("the prompt before")
    page.locator("#explain-tokens").fill("2")
    press_at_once(page, prompt, "why is\nthis so?", "#explain-start")
    page.wait_for_url("**shown=prompt-1")
    asked = runs / "demo" / "explained" / "prompt-1.jsonl"
    assert json.loads(asked.read_text()) == {"prompt": "why is\nthis so?", "tokens": 2}
    sync_api.expect(prompt).to_have_value("why is\nthis so?")


def test_a_recipe_s_buttons_take_the_widths_that_are_shown(page: "sync_api.Page") -> None:
    page.goto("/run/demo/recipe")
    page.get_by_role("gridcell", name="Bits of 0.down").click()
    width = page.get_by_role("menuitemradio", name="8 bit")
    width.wait_for()
    with page.expect_download() as download:
        width.evaluate(
            "(one) => { one.click(); document.querySelector('#recipe-download').click(); }"
        )
    made = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert {unit["unit"]: unit["bits"] for unit in made["units"]}["0.down"] == 8


def test_compare_takes_the_runs_that_are_ticked(page: "sync_api.Page", runs: Path) -> None:
    for name in ("b", "c"):
        copy_sample(runs, name)
    page.goto("/")
    boxes = page.locator(".ag-row input[type=checkbox]")
    hint = page.locator("#compare-hint")
    sync_api.expect(boxes).to_have_count(3)
    names = page.locator(".ag-row a.grid-link").all_inner_texts()
    boxes.nth(0).click()
    sync_api.expect(hint).to_have_text("Tick one more")
    boxes.nth(1).click()
    sync_api.expect(hint).to_be_empty()
    boxes.nth(2).click()
    sync_api.expect(hint).to_be_empty()
    sync_api.expect(page.locator("#compare-button")).to_be_enabled()
    # As many as a chart tells apart.
    comparable = "(count) => dash_clientside.awqscope.comparable(Array(count).fill({}))"
    assert page.evaluate(comparable, 12) == [False, ""]
    assert page.evaluate(comparable, 14) == [True, "14 are ticked: untick 2"]
    boxes.nth(2).click()
    # A tick more and one less, and the button before dash is told of either.
    press = "() => { const b = [...document.querySelectorAll('.ag-row input[type=checkbox]')];"
    press += " b[0].click(); b[2].click(); document.getElementById('compare-button').click(); }"
    page.evaluate(press)
    page.wait_for_url("**/compare?*")
    shown = page.url
    assert f"={names[0]}" not in shown.replace("&", " ").split()
    assert all(f"={name}" in shown for name in names[1:])


@pytest.mark.parametrize("width", [1440, 800, 390])
def test_nothing_of_the_list_is_cut(page: "sync_api.Page", runs: Path, width: int) -> None:
    long = "/srv/models/of/the/whole/team/llama-3.1-8b-instruct"
    change_record(copy_sample(runs, "a-run-with-a-name-that-is-long"), model=long)
    failed = {"message": f"{long}/model-00001-of-00004.safetensors is truncated", "remedy": ""}
    change_record(copy_sample(runs, "failed"), state="failed", error=failed, model=f"{long}-v2")
    start = Start("waiting", {"model": "org/m"}, "auto", None, time.time_ns(), os.getpid())
    (runs / LOGS).mkdir()
    (runs / LOGS / "waiting.log").write_text("$ awqscope\nawqscope: it is not there: look again\n")
    note(runs, start)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto("/")
    rows = page.locator(".ag-center-cols-container .ag-row")
    sync_api.expect(rows).to_have_count(4)
    sync_api.expect(page.locator(".run-card")).to_have_count(0 if width > 1280 else 4)
    page.wait_for_timeout(500)
    cut = """() => [...document.querySelectorAll('.ag-cell, .ag-header-cell-text, .run-card *')]
      .filter((cell) => cell.scrollWidth > cell.clientWidth + 1 && cell.clientWidth
        || cell.scrollHeight > cell.clientHeight + 1 && cell.classList.contains('ag-cell'))
      .map((cell) => cell.innerText)"""
    assert page.evaluate(cut) == []
    wide = "[document.documentElement, document.querySelector('.ag-center-cols-viewport')]"
    assert page.evaluate(f"{wide}.every((part) => part.scrollWidth <= part.clientWidth)")
    row = rows.filter(has_text="a-run-with-a-name")
    for said in ("llama-3.1-8b-instruct", "May ship", "94.9% recovered, proved", "4 and 8, groups"):
        sync_api.expect(row).to_contain_text(said)
    assert "/srv/models" not in row.inner_text()
    sync_api.expect(rows.filter(has_text="waiting")).to_contain_text("t is not there: look again")
    page.get_by_role("button", name="Dismiss waiting").click()
    sync_api.expect(rows).to_have_count(3)
    page.locator("#runs-filter").fill("team")
    sync_api.expect(rows).to_have_count(2)


def test_a_model_that_moved_is_asked_for_in_place(page: "sync_api.Page", runs: Path) -> None:
    change_record(runs / "demo", model="/gone/demo")
    page.goto("/run/demo/recipe?bits=0.down:8")
    sync_api.expect(page.locator("#recipe-make")).to_be_disabled()
    path = page.get_by_label("Directory of the model")
    press_at_once(page, path, "/nowhere", "#location-use")
    sync_api.expect(page.locator("#location-said")).to_contain_text(
        "there is no directory /nowhere"
    )
    path.fill(str(DEMO))
    path.press("Enter")
    sync_api.expect(page.locator("#recipe-make")).to_be_enabled()
    sync_api.expect(page.get_by_role("gridcell", name="Bits of 0.down: 8")).to_have_count(1)
    page.goto("/run/demo/explain")
    sync_api.expect(page.locator("#explain-start")).to_be_enabled()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_forms(page: "sync_api.Page", scheme: str, runs: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    change_record(runs / "demo", model="/gone/demo")
    (runs / LOGS).mkdir()
    (runs / LOGS / "waiting.log").write_text("$ awqscope\nawqscope: it is not there: look again\n")
    note(runs, Start("waiting", {"model": "org/m"}, "auto", None, time.time_ns(), os.getpid()))
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    serious = []
    pages = ("/", "/new", "/new?kind=compare", "/run/waiting", "/run/demo/recipe")
    for path, width in [(path, 1280) for path in pages] + [("/", 390), ("/new", 390)]:
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(path)
        page.locator("h1").wait_for()
        page.wait_for_timeout(900)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        serious += [
            f"{path}: {found['id']} {found['nodes'][0]['target']} {found['nodes'][0]['html'][:160]}"
            for found in axe.run(page).response["violations"]
            if found["impact"] in ("serious", "critical")
        ]
    assert not serious, "\n".join(serious)
