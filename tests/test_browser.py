"""The dashboard as a visitor has it: Debian's Chromium on pages that the real command serves."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlparse

import pytest

from tests.explained import RIVALS, make_asked, make_entry

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")

ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>"


def copy_sample(folder: Path, name: str) -> Path:
    """A run made of the committed sample."""
    shutil.copytree(ROOT / "reports" / "sample", folder / name)
    return folder / name


def change_record(run: Path, **changes: object) -> None:
    """Change top-level entries of a run's record."""
    path = run / "run.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(record | changes), encoding="utf-8")


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


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    copy_sample(folder, "demo")
    return folder


@pytest.fixture
def address(runs: Path) -> Iterator[str]:
    """Where the dashboard on `runs` answers."""
    command = [sys.executable, "-m", "app.cli", "dashboard", str(runs), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr is not None
        found = re.search(r"http://\S+?/", process.stderr.readline())
        assert found
        try:
            yield found.group().rstrip("/")
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    sync_api.expect.set_options(timeout=20_000)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "sync_api.Browser", address: str) -> Iterator["sync_api.Page"]:
    """A page whose console must stay clean, and which must ask nobody else for anything."""
    context = browser.new_context(base_url=address, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(20_000)
    troubles: list[str] = []
    page.on("console", lambda m: m.type in ("error", "warning") and troubles.append(m.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    own = (urlparse(address).netloc, "")
    page.on(
        "request", lambda r: urlparse(r.url).netloc not in own and troubles.append(f"asked {r.url}")
    )
    yield page
    context.close()
    assert troubles == []


def test_every_page_opens_by_its_link(page: "sync_api.Page") -> None:
    titles = {
        "/": "Runs",
        "/run/demo": "demo",
        "/run/demo/block/5": "Block 5",
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
    assert "metric=delta_ppl" in page.url and "scale=log" in page.url
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


def test_a_live_run_fills_in(page: "sync_api.Page", runs: Path) -> None:
    run = copy_sample(runs, "live")
    done = json.loads((run / "run.json").read_text(encoding="utf-8"))
    stages = {"search": done["stages"]["search"], "sweep": {"state": "running"}}
    early = {"state": "running", "stages": stages, "headline": {}}
    change_record(run, **early)
    (run / "progress.jsonl").write_text(
        json.dumps({"time": "", "stage": "sweep", "done": 3, "total": 8, "eta": 40.0}) + "\n"
    )
    holder = "import fcntl, os, sys, time\nfile = open(sys.argv[1], 'a+')\n"
    holder += "fcntl.flock(file, fcntl.LOCK_EX)\nfile.write(str(os.getpid()))\nfile.flush()\n"
    holder += "print('held', flush=True)\ntime.sleep(120)\n"
    command = [sys.executable, "-c", holder, str(run / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        page.goto("/run/live")
        sync_api.expect(page.locator("#progress-panel")).to_contain_text("sweep 3 of 8, 40 s left")
        with open(run / "progress.jsonl", "a", encoding="utf-8") as file:
            event = {"time": "", "stage": "sweep", "done": 5, "total": 8, "eta": 20.0}
            file.write(json.dumps(event) + "\n")
        sync_api.expect(page.locator("#progress-panel")).to_contain_text("sweep 5 of 8")
        change_record(run, **{**done, "updated": "later"})
        sync_api.expect(page.locator(".verdict")).to_contain_text("Block 5 stands out")
        process.kill()


def test_tokens_are_chosen_by_mouse_and_by_keys(page: "sync_api.Page") -> None:
    page.goto("/run/demo/tokens?window=5&position=10")
    sync_api.expect(page.locator("#token-card h2")).to_contain_text("Token 10:")
    page.locator(".t[data-position='20']").click()
    sync_api.expect(page.locator("#token-card h2")).to_contain_text("Token 20:")
    assert "position=20" in page.url
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


def test_widths_are_switched_downloaded_and_requantized(page: "sync_api.Page", runs: Path) -> None:
    page.goto("/run/demo/recipe")
    tile = page.locator("#recipe-tiles .tile").first
    sync_api.expect(tile).to_contain_text("2")
    page.get_by_label("Bits of 0.down").select_option("8")
    sync_api.expect(tile).to_contain_text("3")
    assert "bits=0.down%3A8" in page.url
    with page.expect_download() as download:
        page.locator("#recipe-download").click()
    made = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    widths = {entry["unit"]: entry["bits"] for entry in made["units"]}
    assert (widths["0.down"], widths["5.qkv"], widths["0.qkv"]) == (8, 8, 4)
    page.reload()
    sync_api.expect(tile).to_contain_text("3")
    page.locator("#recipe-make").click()
    result = page.locator("#recipe-result")
    sync_api.expect(result).to_contain_text("The proof passed", timeout=120_000)
    assert list((runs / "demo" / "recipes").rglob("config.json"))


def test_a_prompt_is_explained(page: "sync_api.Page") -> None:
    page.goto("/run/demo/explain")
    prompt = f"Optional SAX2 handler for lexical events.\n{HOSTILE}"
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Tokens").fill("4")
    page.locator("#explain-start").click()
    sync_api.expect(page.locator(".verdict")).to_contain_text("part", timeout=120_000)
    assert "shown=prompt-1" in page.url
    page.reload()
    sync_api.expect(page.locator(".verdict")).to_contain_text("part")
    sync_api.expect(page.get_by_role("link", name="Optional SAX2")).to_have_count(1)
    page.get_by_text("The same as a table").last.click()
    sync_api.expect(page.locator("#explain-body details[open] table")).to_contain_text("handler")
    assert page.title() == "awqscope"


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
    sync_api.expect(page.get_by_text(HOSTILE).first).to_be_visible()
    page.goto(f"/run/{quote(name)}/tokens")
    sync_api.expect(page.locator("#text-view .t").first).to_have_text(HOSTILE)
    assert page.title() == "awqscope"
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: "sync_api.Page", scheme: str, runs: Path) -> None:
    keep_explanation(runs / "demo", make_entry())
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    serious = []
    tails = ("/block/5", "/tokens", "/recipe", "/explain")
    compare = "/compare?a=demo&b=demo"
    for path in ("/", "/run/demo", *[f"/run/demo{tail}" for tail in tails], compare, "/new"):
        page.goto(path)
        page.locator("h1").wait_for()
        page.wait_for_timeout(700)
        serious += [
            f"{path}: {found['id']} {found['nodes'][0]['target']} {found['nodes'][0]['html'][:160]}"
            for found in axe.run(page).response["violations"]
            if found["impact"] in ("serious", "critical")
        ]
    assert not serious, "\n".join(serious)
