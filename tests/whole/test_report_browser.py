"""A report as whoever it was sent to opens it: one file, in a browser or on paper."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.help.browsing import ROOT

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report's file, as it lies on a disk."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    command = [sys.executable, "-m", "awqscope.app.cli", "report", str(ROOT / "reports" / "sample")]
    subprocess.run([*command, "-o", str(out)], check=True, capture_output=True, cwd=ROOT)
    return out.as_uri()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 800)])
def test_a_report_needs_its_file_alone(
    browser: "sync_api.Browser", report: str, scheme: str, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    troubles: list[str] = []
    page.on("console", lambda m: troubles.append(m.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda r: r.url not in (report, "data:,") and troubles.append(r.url))
    page.goto(report)
    drawings = page.locator(".chart .main-svg:first-child")
    sync_api.expect(drawings).to_have_count(4)
    assert page.locator("#units .heatmaplayer image").count() == 1
    assert page.locator("#damage .bars path").count() >= 16
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    sync_api.expect(page.get_by_role("region", name="KL by block", exact=True)).to_be_visible()
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    found = axe.run(page).response["violations"]
    context.close()
    assert troubles == []
    assert not [f"{one['id']} {one['nodes'][0]['html'][:160]}" for one in found]


def test_a_report_asks_nobody_even_where_it_is_told_to(
    browser: "sync_api.Browser", report: str
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(report)
    refused = page.evaluate(
        "fetch('https://example.org').then(() => 'asked', error => error.message)"
    )
    context.close()
    assert "asked" not in refused


def test_a_report_reads_without_scripts_and_on_paper(
    browser: "sync_api.Browser", report: str
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report)
    sync_api.expect(page.get_by_text("The charts need JavaScript")).to_be_visible()
    sync_api.expect(page.locator(".chart").first).to_be_hidden()
    page.locator("summary").first.click()
    sync_api.expect(page.get_by_role("region", name="KL by block", exact=True)).to_be_visible()
    context.close()
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme="dark")
    page = context.new_page()
    page.goto(report)
    page.locator(".chart .main-svg").first.wait_for()
    page.emulate_media(media="print", color_scheme="dark")
    # The width of an A4 sheet between its margins.
    page.set_viewport_size({"width": 688, "height": 1009})
    ground = page.evaluate(
        "getComputedStyle(document.documentElement).getPropertyValue('--ground')"
    )
    assert ground.strip() == "#ffffff"
    for box in page.locator(".chart .main-svg").all():
        place = box.bounding_box()
        assert place is not None and place["x"] + place["width"] <= 689
    context.close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed runs as a directory of reports."""
    out = tmp_path_factory.mktemp("reports") / "site"
    command = [sys.executable, "-m", "awqscope.app.cli", "report", str(ROOT / "reports")]
    subprocess.run([*command, "-o", str(out)], check=True, capture_output=True, cwd=ROOT)
    return out


@pytest.fixture
def served(bundle: Path) -> Iterator[str]:
    """Where a web server that knows nothing of it hands the directory out."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(bundle))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("place", ["disk", "server"])
@pytest.mark.parametrize("width", [1440, 390])
def test_a_bundle_works_from_disk_and_from_a_server(
    browser: "sync_api.Browser", bundle: Path, served: str, place: str, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    address = bundle.as_uri() if place == "disk" else served
    scheme = "light" if place == "disk" else "dark"
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    troubles: list[str] = []
    page.on("console", lambda m: troubles.append(m.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "request",
        lambda r: r.url.startswith((address, "data:")) or troubles.append(r.url),
    )
    page.goto(f"{address}/index.html")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    found = axe.run(page).response["violations"]
    page.get_by_role("link", name="sample", exact=True).click()
    sync_api.expect(page.locator(".chart .main-svg:first-child")).to_have_count(4)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.get_by_role("link", name="All runs").click()
    page.get_by_role("link", name="sample-smollm2").click()
    page.locator(".chart .main-svg").first.wait_for()
    context.close()
    assert troubles == []
    assert not [f"{one['id']} {one['nodes'][0]['html'][:160]}" for one in found]
