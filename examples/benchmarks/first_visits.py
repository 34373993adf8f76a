"""First visits of the dashboard's pages in Chromium: when a page is of use, how much it loads, and
how far it jumps meanwhile."""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

CHROMIUM = "/usr/bin/chromium"
# What a visitor comes to each page for, all of which must be there in the first screen.
USEFUL = {
    "list of runs": ("main .ag-center-cols-container .ag-row a",),
    "run": ("main .verdict", "main .tiles", "main .barlayer .point path"),
    "block": ("main .tiles", "main tbody tr"),
    "tokens": ("main .t", "#token-card table"),
    "recipe": ("main .tiles", "main [role=gridcell]", "main .scatterlayer path"),
    "compare": ("main tbody tr",),
    "new run": ("main form, main .form",),
}
SCREEN = {"width": 1440, "height": 900}
# With a debugger attached, as playwright is, V8 looks up the place of every error that a script
# catches, and for that parses plotly twice more; a visitor's does not. This makes it keep them.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--js-flags=--no-enable-lazy-source-positions",
]
# Calls back in the frame after the last of them is in the page.
WATCH = """(wanted) => {
  const look = () => {
    if (window.usefulAt || !wanted.every((one) => document.querySelector(one))) return;
    window.usefulAt = -1;
    requestAnimationFrame(() => setTimeout(() => (window.usefulAt = performance.now())));
  };
  new MutationObserver(look).observe(document, { childList: true, subtree: true });
}"""
# How far what is shown has been moved by what came later, unless someone has just pressed a key.
SHIFTS = """
window.shifted = 0;
new PerformanceObserver((list) =>
  list.getEntries().forEach((one) => (window.shifted += one.hadRecentInput ? 0 : one.value))
).observe({ type: "layout-shift", buffered: true });
"""
LOADS = 3
PATIENCE = 20.0


@contextlib.contextmanager
def start_browser() -> Iterator[Any]:
    """Chromium until the block is left; None without it or playwright."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        yield None
        return
    if not os.path.exists(CHROMIUM):
        yield None
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def measure_paint(browser: Any, addresses: dict[str, str]) -> dict[str, float]:
    """Seconds from asking for a page to the frame that shows what is useful of it, in a browser
    that has nothing in its cache, the best of LOADS; infinite where nothing came. addresses: in
    full, by the page's name in USEFUL."""
    return {
        name: min(open_page(browser, address, USEFUL[name]) for _ in range(LOADS))
        for name, address in addresses.items()
    }


def open_page(browser: Any, address: str, wanted: Sequence[str]) -> float:
    """Seconds until all that is wanted of a page can be seen."""
    page = browser.new_context(viewport=SCREEN).new_page()
    page.add_init_script(f"({WATCH})({json.dumps(wanted)})")
    page.goto(address, wait_until="commit")
    deadline = time.perf_counter() + PATIENCE
    seconds = math.inf
    while time.perf_counter() < deadline:
        time.sleep(0.1)
        if (at := page.evaluate("() => window.usefulAt")) and at > 0:
            seconds = at / 1e3
            break
    page.context.close()
    return seconds


@dataclass(frozen=True)
class Load:
    """A first visit of a page. bytes: on the wire, headers included. shift: by how much it jumped
    (the sum of Chromium's layout shifts; below 0.1 is called good)."""

    bytes: int
    shift: float


def load_cold(browser: Any, address: str, shown: str, settled: float = 1.0) -> Load:
    """Open a page with nothing in the cache, and wait until nothing is asked for any more.

    shown: what is there once the page is. settled: seconds without any further byte or chart on
    the way.
    """
    context = browser.new_context(viewport=SCREEN)
    page = context.new_page()
    page.add_init_script(SHIFTS)
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    taken: list[float] = []
    session.on("Network.loadingFinished", lambda event: taken.append(event["encodedDataLength"]))
    page.goto(address)
    page.locator(shown).first.wait_for()
    page.locator("main .waits").first.wait_for(state="detached")
    before = -1
    while before != len(taken):
        before = len(taken)
        page.wait_for_timeout(settled * 1e3)
    found = Load(round(sum(taken)), float(page.evaluate("() => window.shifted")))
    context.close()
    return found
