"""The dashboard's pages, as a visitor has them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.notes import Change, change_notes
from tests.help.browsing import change_record, copy_sample
from tests.help.caused import keep_causes
from tests.help.explained import RIVALS, make_asked, make_entry
from tests.help.weighed import keep_weights

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")

OPEN_ALL = "document.querySelectorAll('main details').forEach((one) => (one.open = true))"
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>"


def keep_explanation(run: Path, entry: dict[str, Any], text: str | None = None) -> None:
    """Put an explanation into a run; every token says `text` where that is given."""
    if text is not None:
        for piece in entry["pieces"]:
            piece["text"] = text
        for rival in ("reference", "other"):
            entry["parting"] = {**entry["parting"], rival: {**RIVALS[rival], "text": text}}
        entry["uniform"]["pieces"] = [text] * 3
    (run / "explained").mkdir()
    (run / "explained" / "kept.json").write_text(json.dumps(make_asked(entry)), encoding="utf-8")


def test_every_page_opens_by_its_link(page: "sync_api.Page") -> None:
    titles = {
        "/": "Runs",
        "/run/demo": "demo",
        "/run/demo/block/5": "Block 5",
        "/run/demo/block/5/weights": "Weights of block 5",
        "/run/demo/tokens": "Tokens",
        "/run/demo/recipe": "Recipe",
        "/run/demo/explain": "Explain",
        "/compare": "Compare",
        "/new": "New run",
        "/run/nobody": "No such run",
        "/nowhere": "No such page",
    }
    for path, title in titles.items():
        page.goto(path)
        sync_api.expect(page.locator("h1")).to_have_text(title)


def test_a_chosen_view_survives_a_reload(page: "sync_api.Page") -> None:
    page.goto("/run/demo")
    page.get_by_text("ΔPPL", exact=True).locator("visible=true").first.click()
    page.get_by_text("log", exact=True).click()
    sync_api.expect(page.locator("#profile-card .ytitle")).to_have_text("ΔPPL")
    sync_api.expect(page).to_have_url(re.compile(re.escape("metric=delta_ppl")))
    sync_api.expect(page).to_have_url(re.compile(re.escape("scale=log")))
    page.reload()
    sync_api.expect(page.locator("#profile-card .ytitle")).to_have_text("ΔPPL")


def test_grid_opens_and_compares_by_keyboard(page: "sync_api.Page", runs: Path) -> None:
    copy_sample(runs, "other")
    page.goto("/")
    sync_api.expect(page.locator(".ag-center-cols-container .ag-row")).to_have_count(2)
    sync_api.expect(page.locator("#compare-button")).to_be_disabled()
    page.locator(".ag-center-cols-container .ag-row .ag-cell[col-id=name]").first.click()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    sync_api.expect(page.locator("#compare-button")).to_be_enabled()
    page.locator("#compare-button").click()
    page.wait_for_url("**/compare?*")
    sync_api.expect(
        page.get_by_text("None: same model, texts, options and versions.")
    ).to_be_visible()
    page.go_back()
    page.locator(".ag-row .ag-cell[col-id=name] a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/run/*")


def test_the_list_is_found_again_as_it_was_left(page: "sync_api.Page", runs: Path) -> None:
    for name in ("other", "third"):
        copy_sample(runs, name)
    (runs / "third" / "policy.toml").write_text("[limits]\nmax_kl = 0.001\n")
    page.goto("/")
    rows = page.locator(".ag-center-cols-container .ag-row")
    sync_api.expect(rows.filter(has_text="May")).to_have_count(3)
    filtered = page.locator("#runs-filter")
    # Words anywhere, a phrase as it stands, and a number as it is shown.
    for text, count in (("may ship", 3), ('"may ship"', 2), ('third "not ship"', 1), ("64.315", 3)):
        filtered.fill(text)
        sync_api.expect(rows).to_have_count(count)
    filtered.fill('"may ship"')
    sync_api.expect(rows).to_have_count(2)
    for row in (0, 1):
        rows.nth(row).get_by_role("checkbox").check()
    sync_api.expect(page.locator("#compare-button")).to_be_enabled()
    rows.first.locator("a").click()
    page.wait_for_url("**/run/*")
    page.go_back()
    sync_api.expect(rows).to_have_count(2)
    sync_api.expect(filtered).to_have_value('"may ship"')
    sync_api.expect(page.locator("#compare-button")).to_be_enabled()
    sync_api.expect(page.locator("#runs-archived")).to_be_hidden()
    # What is archived elsewhere leaves the list, which offers it then.
    change_notes(RunDirectory(runs / "other"), Change(archived=True))
    sync_api.expect(rows).to_have_count(1)
    page.get_by_role("switch", name="1 archived too").check()
    sync_api.expect(rows).to_have_count(2)


def test_options_that_are_the_defaults_stay_out_of_the_address(page: "sync_api.Page") -> None:
    for path in ("/run/demo", "/run/demo/tokens"):
        page.goto(path)
        page.locator("main h1").wait_for()
        page.wait_for_timeout(1000)
        assert "?" not in page.url
    page.get_by_text("Mixed", exact=True).first.click()
    page.wait_for_url("**model=mixed*")
    page.get_by_text("Uniform", exact=True).first.click()
    page.wait_for_function("!window.location.search.includes('model')")


def test_a_live_run_fills_in(page: "sync_api.Page", runs: Path) -> None:
    run = copy_sample(runs, "live")
    done = json.loads((run / "run.json").read_text(encoding="utf-8"))
    stages = {"search": done["stages"]["search"], "sweep": {"state": "running"}}
    early = {"state": "running", "stages": stages, "headline": {}}
    change_record(run, **early)
    (run / "progress.jsonl").write_text(
        json.dumps({"time": "", "stage": "sweep", "done": 3, "total": 8, "eta": 40.0}) + "\n"
    )
    holder = "import fcntl, os, sys\nfile = open(sys.argv[1], 'a+')\n"
    holder += "fcntl.flock(file, fcntl.LOCK_EX)\nfile.write(str(os.getpid()))\nfile.flush()\n"
    holder += "print('held', flush=True)\nsys.stdin.read()\n"
    command = [sys.executable, "-c", holder, str(run / ".lock")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        page.goto("/run/live")
        sync_api.expect(page.locator("#progress-panel")).to_contain_text("sweep 38%, 40 s left")
        with open(run / "progress.jsonl", "a", encoding="utf-8") as file:
            event = {"time": "", "stage": "sweep", "done": 5, "total": 8, "eta": 20.0}
            file.write(json.dumps(event) + "\n")
        sync_api.expect(page.locator("#progress-panel")).to_contain_text("sweep 62%")
        change_record(run, **{**done, "updated": "later"})
        sync_api.expect(page.locator(".verdict")).to_contain_text("Block 5 stands out")
        process.kill()


def test_the_list_notices_that_a_run_begins(page: "sync_api.Page", runs: Path) -> None:
    page.goto("/")
    rows = page.locator(".ag-center-cols-container .ag-row")
    sync_api.expect(rows).to_have_count(1)
    run = copy_sample(runs, "live")
    change_record(run, state="running")
    with RunDirectory(run).lock():
        sync_api.expect(rows).to_have_count(2)
        sync_api.expect(rows.filter(has_text="running")).to_have_count(1)
        event = {"time": "", "stage": "sweep", "done": 5, "total": 8, "eta": 20.0}
        (run / "progress.jsonl").write_text(json.dumps(event) + "\n")
        sync_api.expect(rows.filter(has_text="sweep 62%")).to_have_count(1)
    change_record(run, state="done")
    sync_api.expect(rows.filter(has_text="running")).to_have_count(0)


def test_the_table_of_a_chart_is_opened_by_keys(page: "sync_api.Page") -> None:
    page.goto("/run/demo")
    card = page.locator("#profile-card")
    card.locator("summary").focus()
    assert card.locator("table").count() == 0
    page.keyboard.press("Enter")
    sync_api.expect(card.locator("tbody tr")).to_have_count(8)
    sync_api.expect(card.locator("tr.flagged")).to_have_text(re.compile("^Block 5▲ flagged"))
    before = card.locator("tbody").inner_text()
    card.get_by_text("ΔPPL", exact=True).locator("visible=true").first.click()
    sync_api.expect(card.locator(".ytitle")).to_have_text("ΔPPL")
    card.locator("summary").click()
    sync_api.expect(card.locator("th").nth(2)).to_have_text("ΔPPL alone")
    assert card.locator("tbody").inner_text() != before
    card.get_by_role("link", name="Block 5").focus()
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("h1")).to_have_text("Block 5")


@pytest.mark.parametrize("chart", ["profile", "units"])
def test_a_click_on_a_chart_opens_the_block(page: "sync_api.Page", chart: str) -> None:
    page.goto("/run/demo")
    layer = page.locator(f"[id*='\"{chart}\"'] .nsewdrag").first
    layer.scroll_into_view_if_needed()
    box = layer.bounding_box()
    assert box is not None
    # The lowest tenth of the plot is in every bar of block 5, the sixth of eight.
    page.mouse.click(box["x"] + box["width"] * 5.5 / 8, box["y"] + box["height"] * 0.95)
    sync_api.expect(page.locator("h1")).to_have_text("Block 5")
    page.go_back()
    sync_api.expect(page.locator("h1")).to_have_text("demo")


def test_the_ways_to_the_present_page_say_so(page: "sync_api.Page") -> None:
    header = page.locator("header.top nav a[aria-current=page]")
    for path, name in (("/", "Runs"), ("/compare", "Compare"), ("/new", "New run")):
        page.goto(path)
        sync_api.expect(header).to_have_text(name)
    page.get_by_role("link", name="Runs", exact=True).first.click()
    sync_api.expect(header).to_have_text("Runs")
    page.goto("/run/demo/tokens")
    sync_api.expect(page.locator("main a[aria-current=page]")).to_have_text("Tokens")
    sync_api.expect(header).to_have_count(0)


def test_tokens_are_chosen_by_mouse_and_by_keys(page: "sync_api.Page") -> None:
    page.goto("/run/demo/tokens?window=5&position=10")
    sync_api.expect(page.locator("#token-card h2")).to_contain_text("Token 10:")
    page.locator(".t[data-position='20']").click()
    sync_api.expect(page.locator("#token-card h2")).to_contain_text("Token 20:")
    sync_api.expect(page).to_have_url(re.compile(re.escape("position=20")))
    page.locator("#text-view").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("#token-card h2")).to_contain_text("Token 21:")
    page.reload()
    sync_api.expect(page.locator("#token-card h2")).to_contain_text("Token 21:")
    page.locator(".t[data-position='30']").click()
    sync_api.expect(page.locator("#token-card h2")).to_contain_text("Token 30:")
    page.get_by_role("link", name="Tokens", exact=True).click()
    sync_api.expect(page.locator("#token-card h2")).to_contain_text("Token 145:")


def choose_width(page: "sync_api.Page", unit: str, width: str) -> None:
    """Give a unit of the recipe page another width."""
    page.get_by_role("gridcell", name=re.compile(rf"^Bits of {re.escape(unit)}:")).click()
    page.get_by_role("menuitemradio", name=re.compile(f"^{width} bit")).click()


def test_widths_are_switched_downloaded_and_requantized(page: "sync_api.Page", runs: Path) -> None:
    page.goto("/run/demo/recipe")
    tile = page.locator("#recipe-tiles .tile").first
    sync_api.expect(tile).to_contain_text("2")
    choose_width(page, "0.down", "8")
    sync_api.expect(tile).to_contain_text("3")
    sync_api.expect(page).to_have_url(re.compile(re.escape("bits=0.down%3A8")))
    with page.expect_download() as download:
        page.locator("#recipe-download").click()
    made = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    widths = {entry["unit"]: entry["bits"] for entry in made["units"]}
    assert (widths["0.down"], widths["5.qkv"], widths["0.qkv"]) == (8, 8, 4)
    page.reload()
    sync_api.expect(tile).to_contain_text("3")
    page.locator("#recipe-make").click()
    result = page.locator("#recipe-result")
    sync_api.expect(result).to_contain_text("The proof passed")
    assert list((runs / "demo" / "recipes").rglob("config.json"))


def test_the_best_recipe_of_the_size_is_taken(page: "sync_api.Page") -> None:
    page.goto("/run/demo/recipe")
    kl = page.locator("#recipe-tiles .tile", has_text="KL").first
    for unit in ("5.qkv", "5.o"):
        choose_width(page, unit, "4")
    for unit in ("0.qkv", "0.o"):
        choose_width(page, unit, "8")
    page.wait_for_url(lambda url: "0.o%3A8" in url)
    by_hand = kl.inner_text()
    page.get_by_role("button", name="Best at this size").click()
    # The run's own recipe is the best of its size: the address says nothing of it.
    page.wait_for_url(lambda url: "bits=" not in url)
    for unit, bits in (("5.qkv", "8"), ("5.o", "8"), ("0.qkv", "4"), ("0.o", "4")):
        name = re.compile(rf"^Bits of {re.escape(unit)}: {bits}, ")
        sync_api.expect(page.get_by_role("gridcell", name=name)).to_have_count(1)
    assert kl.inner_text() != by_hand
    choose_width(page, "7.down", "8")
    page.wait_for_url(lambda url: "7.down%3A8" in url)
    page.get_by_role("button", name="Best at this size").click()
    page.wait_for_url(lambda url: "bits=" in url and "7.down" not in url)
    found, shown = page.url, page.locator("#recipe-tiles").inner_text()
    page.reload()
    sync_api.expect(page.locator("#recipe-tiles")).to_have_text(shown, use_inner_text=True)
    assert page.url == found


def test_a_prompt_is_explained(page: "sync_api.Page") -> None:
    page.goto("/run/demo/explain")
    prompt = f"Optional SAX2 handler for lexical events.\n{HOSTILE}"
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Tokens").fill("4")
    page.locator("#explain-start").click()
    sync_api.expect(page.locator(".verdict")).to_contain_text("part")
    sync_api.expect(page).to_have_url(re.compile(re.escape("shown=prompt-1")))
    page.reload()
    sync_api.expect(page.locator(".verdict")).to_contain_text("part")
    sync_api.expect(page.get_by_role("link", name="Optional SAX2")).to_have_count(1)
    page.get_by_text("The same as a table").last.click()
    sync_api.expect(page.locator("#explain-body details[open] table")).to_contain_text("handler")
    assert page.title() == "Explain · demo · awqscope"


def test_nothing_a_run_holds_becomes_markup(page: "sync_api.Page", runs: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = "<b>bold & bad<b>"
    run = copy_sample(runs, name)
    change_record(run, model=HOSTILE)
    tokens = pq.read_table(run / "tokens.parquet")
    hostile = pa.array([HOSTILE] * len(tokens), type=pa.string())
    pq.write_table(tokens.set_column(3, "text", hostile), run / "tokens.parquet")
    keep_explanation(run, make_entry(HOSTILE), HOSTILE)
    for tail in ("", "/tokens", "/block/5", "/recipe", "/explain"):
        page.goto(f"/run/{quote(name)}{tail}")
        page.locator("h1").wait_for()
    sync_api.expect(page.locator("#explain-body h2").first).to_contain_text(HOSTILE[:60])
    page.locator("#explain-body .js-plotly-plot .main-svg").first.wait_for()
    page.goto("/")
    # Of a model's path its end is shown.
    sync_api.expect(page.get_by_text(HOSTILE.rpartition("/")[2]).first).to_be_visible()
    page.goto(f"/run/{quote(name)}/tokens")
    sync_api.expect(page.locator("#text-view .t").first).to_have_text(HOSTILE)
    assert page.title() == f"Tokens · {name} · awqscope"
    assert page.locator("main script, main img[src=x]").count() == 0


def test_damage_shows_on_its_own_page_only(page: "sync_api.Page", runs: Path) -> None:
    (copy_sample(runs, "torn") / "run.json").write_text('{"schema": 1, ')
    change_record(copy_sample(runs, "newer"), schema=99)
    (copy_sample(runs, "holes") / "blocks.parquet").write_bytes(b"PAR1 nothing")
    failed = {"message": "model.safetensors is truncated", "remedy": "fetch it again"}
    change_record(copy_sample(runs, "failed"), state="failed", error=failed)
    says = {"torn": "cannot be read", "newer": "schema 99", "holes": "cannot be read"}
    says |= {"failed": "fetch it again"}
    for name, words in says.items():
        page.goto(f"/run/{name}")
        sync_api.expect(page.locator(".notice.bad")).to_contain_text(words)
    page.goto("/")
    sync_api.expect(page.locator(".ag-center-cols-container .ag-row")).to_have_count(5)


def test_dark_and_light(page: "sync_api.Page") -> None:
    page.emulate_media(color_scheme="dark")
    page.goto("/run/demo")
    ground = "getComputedStyle(document.body).backgroundColor"
    page.locator(".verdict").wait_for()
    dark = page.evaluate(ground)
    page.locator("header.top button").click()
    page.wait_for_function(f"{ground} !== '{dark}'")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page: "sync_api.Page", scheme: str, width: int, runs: Path) -> None:
    keep_explanation(runs / "demo", make_entry())
    keep_weights(runs / "demo")
    keep_causes(runs / "demo")
    page.set_viewport_size({"width": width, "height": 900})
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    found_in = []
    tails = ("/block/5", "/block/5/weights", "/block/4/weights", "/tokens", "/recipe", "/explain")
    compared = ("?a=demo&b=demo", "?runs=demo/demo:uniform")
    many = [f"/compare{search}" for search in compared] + ["/trend?runs=demo/demo:uniform"]
    for path in ("/", "/run/demo", *[f"/run/demo{tail}" for tail in tails], *many, "/new"):
        page.goto(path)
        page.locator("h1").wait_for()
        page.wait_for_timeout(700)
        # What is folded is there for some, and tables in it come a moment later.
        page.evaluate(OPEN_ALL)
        page.wait_for_timeout(300)
        found_in += [
            f"{path}: {found['id']} {found['nodes'][0]['target']} {found['nodes'][0]['html'][:160]}"
            for found in axe.run(page).response["violations"]
        ]
    assert not found_in, "\n".join(found_in)
