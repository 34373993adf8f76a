"""Whether a dashboard that is used all day grows: a thousand page visits, and fifty runs that are
started and cancelled from its pages.

`python -m examples.benchmarks.soak [--visits 1000] [--starts 50]`, or `make soak`. One dashboard in
a process of its own serves ROOMY runs of 80 blocks. Every visit asks for the page, its layout and
its contents, one tick, and every switch of the page turned; one in OPENED is by Chromium, which
also fills in the form, starts a run of the bundled model and cancels it as soon as it can be. In
between, with nobody on a page, the server's resident memory, open files, threads, child processes
and zombies are read. It fails where, past the first WARM_UP of the visits, memory rises by more
than MOST_BYTES in a thousand visits (the median of the slopes between any two readings), or files
or threads are more in the last readings than in the first, or a process is left behind.
"""

import argparse
import contextlib
import itertools
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright

from awqscope.app.dashboard.urls import link
from awqscope.app.demo import find_demo
from awqscope.diagnose.runs.directory import RunDirectory
from examples.benchmarks.dashboard import Server, list_pages, start_server
from examples.benchmarks.first_visits import CHROMIUM, FLAGS, SCREEN, USEFUL
from examples.benchmarks.large_runs import write_runs
from examples.benchmarks.visitor import Visitor

ROOMY, TOKENS = 12, 100_000
OPENED = 10
# The pages kept in memory, and what the allocator holds for them, reach their bounds by then: of
# 1,000 visits the first 500 took it from 360 to 500 MB, where it stayed.
WARM_UP = 0.5
# Readings scatter by some 12 MB; from 25 of them a slope is known to about half of this.
MOST_BYTES = 20e6
# Readings at either end whose files and threads are compared.
ENDS = 5
PATIENCE_MS = 600_000


@dataclass(frozen=True)
class Reading:
    """What the server's process holds after so many visits and starts."""

    visits: int
    starts: int
    memory: int
    files: int
    threads: int
    children: int
    zombies: int
    milliseconds: float

    def __str__(self) -> str:
        cells = (f"{value / 1e6:.1f}" if value > 1e6 else f"{value:.0f}" for value in astuple(self))
        return "".join(f"{cell:>13}" for cell in cells)


HEADINGS = "".join(f"{field.name:>13}" for field in fields(Reading))


def read_process(server: Server, visits: int, starts: int, milliseconds: float) -> Reading:
    """How the server's process stands, once what it had to do is done."""
    process = psutil.Process(server.pid)
    deadline = time.monotonic() + PATIENCE_MS / 1e3
    # A cancelled run lets go of its directory first and ends then; and whoever waits for it looks a
    # few times a second.
    while (children := process.children(recursive=True)) and time.monotonic() < deadline:
        time.sleep(0.5)
    time.sleep(1)
    return Reading(
        visits,
        starts,
        process.memory_info().rss,
        process.num_fds(),
        process.num_threads(),
        len(children),
        sum(is_zombie(child) for child in children),
        milliseconds,
    )


def is_zombie(child: psutil.Process) -> bool:
    """Whether a process has ended and nobody has asked how."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return child.status() == psutil.STATUS_ZOMBIE
    return False


def rise(readings: Sequence[Reading]) -> float:
    """Bytes of memory in a thousand visits: the median of the slopes between any two readings."""
    pairs = itertools.combinations(readings, 2)
    return 1000 * statistics.median((b.memory - a.memory) / (b.visits - a.visits) for a, b in pairs)


def judge(readings: Sequence[Reading]) -> list[str]:
    """What grew, of readings past the warm-up."""
    found = []
    if (slope := rise(readings)) > MOST_BYTES:
        found.append(f"memory rises by {slope / 1e6:.1f} MB in a thousand visits")
    first, last = readings[:ENDS], readings[-ENDS:]
    for name in ("files", "threads"):
        before, after = (
            statistics.median_high(getattr(reading, name) for reading in end)
            for end in (first, last)
        )
        if after > before:
            found.append(f"{name} rose from {before} to {after}")
    if sum(reading.children + reading.zombies for reading in readings):
        found.append("a process that ended, or was to end, was still there")
    return found


def visit_by_browser(page: Page, address: str, wanted: Sequence[str]) -> None:
    """Open a page and wait for what a visitor comes for."""
    page.goto(address)
    for one in wanted:
        page.locator(one).first.wait_for(state="attached")


def start_and_cancel(page: Page, root: Path, name: str) -> None:
    """Fill in the form, start a run of the bundled model, and cancel it on its page."""
    demo = find_demo()
    page.goto(link("new"))
    texts = {
        "Model": demo,
        "Name of the run": name,
        "Calibration text": demo / "calib.txt",
        "Validation texts": demo / "valid.txt",
    }
    for label, value in texts.items():
        # A field that must be filled in has a star behind its label.
        page.get_by_label(re.compile(rf"^{label}[ *]*$")).fill(str(value))
    page.get_by_role("button", name="Start", exact=True).click()
    cancel = page.get_by_role("button", name="Cancel", exact=True)
    refused = page.get_by_text("It did not begin")
    cancel.or_(refused).first.wait_for()
    if refused.count():
        raise RuntimeError(page.locator("main").inner_text())
    cancel.click()
    run, deadline = RunDirectory(root / name), time.monotonic() + PATIENCE_MS / 1e3
    while run.holder() is not None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} did not stop")
        time.sleep(0.1)


@contextlib.contextmanager
def open_browser(server: Server) -> Iterator[Any]:
    """Something that gives a fresh window on the dashboard each time it is asked."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)

        @contextlib.contextmanager
        def window() -> Iterator[Page]:
            context = browser.new_context(
                base_url=f"http://127.0.0.1:{server.port}", viewport=SCREEN
            )
            page = context.new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.on("dialog", lambda dialog: dialog.accept())
            yield page
            context.close()

        yield window
        browser.close()


def visit_all(
    server: Server, root: Path, names: list[str], visits: int, starts: int
) -> Iterator[Reading]:
    """Visit page after page, with the starts spread among them; a reading after each start."""
    around = itertools.cycle(
        (page, address)
        for at, name in enumerate(names)
        for page, address in list_pages(name, names[at - 1]).items()
    )
    begun = 0
    with open_browser(server) as window:
        spent = []
        for number in range(1, visits + 1):
            page, address = next(around)
            if number % OPENED == 0:
                with window() as opened:
                    visit_by_browser(opened, address, USEFUL.get(page, ("main h1",)))
            else:
                began = time.perf_counter()
                visitor = Visitor(server.port)
                asked = visitor.visit(address) + visitor.tick()
                visitor.turn_options()
                visitor.close()
                assert asked, address
                spent.append(time.perf_counter() - began)
            if number * starts // visits > begun:
                with window() as opened:
                    start_and_cancel(opened, root, f"soak-{begun:03}")
                begun += 1
                yield read_process(server, number, begun, 1e3 * statistics.median(spent))
                spent = []


def main() -> None:
    """Print the readings as they come, and what grew."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--visits", type=int, default=1000)
    parser.add_argument("--starts", type=int, default=50)
    options = parser.parse_args()
    print(HEADINGS, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = write_runs(root, ROOMY, TOKENS)
        with start_server(root) as server:
            readings = []
            for reading in visit_all(server, root, names, options.visits, options.starts):
                print(reading, flush=True)
                readings.append(reading)
            warm = [one for one in readings if one.visits > WARM_UP * options.visits]
            grown = judge(warm)
            print(f"memory: {rise(warm) / 1e6:+.2f} MB in a thousand visits, from {warm[0].visits}")
            left = [
                process.pid
                for process in psutil.process_iter(["cmdline"])
                if str(root) in " ".join(process.info["cmdline"] or ())
                and process.pid != server.pid
            ]
            if left:
                grown.append(f"processes {left} are left")
    if grown:
        sys.exit("; ".join(grown))
    print("nothing grows")


if __name__ == "__main__":
    main()
