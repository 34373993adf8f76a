"""The dashboard's times and memory on a directory of many large runs.

`python -m examples.benchmarks.dashboard [--runs 200] [--tokens 500000]` writes runs of 80 blocks of
seven units, one of them with as many tokens as given, serves them from a process of its own, and
asks for every page as a browser does. With Chromium and playwright there, it also opens pages.
"""

import argparse
import contextlib
import gzip
import http.client
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from awqscope.app.dashboard.urls import link
from awqscope.diagnose.runs.tables import ACTIVATIONS, BLOCKS, TOKENS, UNITS
from awqscope.mixedprec.files.atomic import write_json

SAMPLE = Path(__file__).parent.parent.parent / "reports" / "sample"
CHROMIUM = "/usr/bin/chromium"
BLOCK_COUNT = 80
KINDS = ("q", "k", "v", "o", "gate", "up", "down")
FLAGGED = (5, 40)
# Of a unit, for each bit of its weights.
UNIT_BYTES = 8_000_000
CHANNELS = 4096
SEQ_LEN = 2048
ROW_GROUP = 16_384
PROFILED_WINDOWS = 8
VISITS = 5
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
VISITED = 40
PATIENCE = 20.0
SERVER_TARGET, PAINT_TARGET, START_TARGET = 0.5, 2.0, 2.0
BYTES_TARGET, SHIFT_TARGET = 2_000_000, 0.1
MB = 2**20


def block_rows(rng: np.random.Generator) -> list[dict[str, Any]]:
    """blocks.parquet of a model in which FLAGGED stand out."""
    alone = rng.lognormal(-6, 0.4, BLOCK_COUNT)
    alone[list(FLAGGED)] *= 60
    views = {
        "isolated": alone,
        "cumulative": alone.cumsum(),
        "restored": alone.sum() - alone,
    }
    rows = []
    for view, values in views.items():
        for block, kl in enumerate(values.tolist()):
            row: dict[str, Any] = {"block": block, "view": view, "top1_agreement": 0.9}
            for name, factor in (("kl", 1.0), ("delta_nll", 1.1), ("delta_ppl", 9.0)):
                value = kl * factor
                row |= {name: value, f"{name}_low": value * 0.9, f"{name}_high": value * 1.1}
            flagged = block in FLAGGED
            rows.append(row | {"flagged": flagged, "z": 4.0 if flagged else 0.5, "reason": "KL"})
    return rows


def unit_rows(rng: np.random.Generator) -> list[dict[str, Any]]:
    """units.parquet at two widths and unquantized; every seventh unit was measured."""
    rows = []
    for block in range(BLOCK_COUNT):
        for at, kind in enumerate(KINDS):
            for bits in (4, 8, 16):
                kl = float(rng.lognormal(-7 if bits == 4 else -13, 1.0)) * (bits < 16)
                row = {"unit": f"{block}.{kind}", "block": block, "kind": kind, "bits": bits}
                row |= {"bytes": UNIT_BYTES * bits}
                for name, value in (("estimated", kl), ("exact", kl if at == block % 7 else None)):
                    bounds = (None, None) if value is None else (value * 0.9, value * 1.1)
                    row |= {f"{name}_kl": value}
                    row |= dict(zip((f"{name}_kl_low", f"{name}_kl_high"), bounds, strict=True))
                rows.append(row)
    return rows


def activation_rows(rng: np.random.Generator) -> list[dict[str, Any]]:
    """activations.parquet: a row a block, site and model."""
    rows = []
    for block in range(BLOCK_COUNT):
        for site in (*KINDS, "output"):
            for model in ("reference", "uniform"):
                row = {name: float(rng.normal()) for name in ACTIVATIONS.names}
                outliers = rng.choice(CHANNELS, 8, replace=False).tolist()
                rows.append(
                    row
                    | {"block": block, "site": site, "model": model}
                    | {"outlier_channels": outliers, "outlier_values": [9.0] * 8}
                    | {"channel_median": 1.5, "sqnr": 30 - block / 8, "cosine": 0.999}
                )
    return rows


def activation_arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The arrays of the blocks that are looked at."""
    side = np.geomspace(1e-3, 1e3, 385)
    arrays = {"histogram_edges": np.concatenate([-side[::-1], side]).astype(np.float32)}
    for block in (0, *FLAGGED):
        for site in (*KINDS, "output"):
            for model in ("reference", "uniform"):
                tail = f"{block}.{site}.{model}"
                arrays[f"histogram.{tail}"] = rng.integers(0, 10_000, 769)
                arrays[f"channel_max.{tail}"] = rng.lognormal(0, 1, CHANNELS).astype(np.float32)
    return arrays


def token_table(rng: np.random.Generator, count: int) -> pa.Table:
    """tokens.parquet of `count` tokens; the first windows have every block's KL."""
    first = np.arange(count) % SEQ_LEN == 0
    window = np.arange(count) // SEQ_LEN

    def scores(scale: float) -> pa.Array:
        return pa.array(rng.exponential(scale, count).astype(np.float32), mask=first)

    def agreement(share: float) -> pa.Array:
        return pa.array(rng.random(count) < share, mask=first)

    profiled = min(count, PROFILED_WINDOWS * SEQ_LEN)
    by_block = rng.exponential(0.003, (profiled, BLOCK_COUNT)).astype(np.float32).tolist()
    nothing = [None] * (count - profiled)
    words = [f" word{number}" for number in range(5000)]
    ids = rng.integers(0, len(words), count)

    def known(rows: list[Any]) -> list[Any]:
        return [None if skip else row for row, skip in zip([*rows, *nothing], first, strict=True)]

    tops = [
        [
            {"token": int(token), "text": words[token], "probability": 0.2}
            for token in rng.integers(0, len(words), 5)
        ]
        for _ in range(profiled)
    ]
    columns = {
        "window": window,
        "position": np.arange(count) % SEQ_LEN,
        "token": ids,
        "text": [words[token] for token in ids],
        "nll_reference": scores(3.0),
        "nll_uniform": scores(3.1),
        "nll_mixed": scores(3.0),
        "kl_uniform": scores(0.2),
        "kl_mixed": scores(0.02),
        "agree_uniform": agreement(0.7),
        "agree_mixed": agreement(0.9),
        "block_kl": known(by_block),
        "restored_kl": known(by_block),
        "top_reference": known(tops),
        "top_uniform": known(tops),
    }
    return pa.table(columns, schema=TOKENS)


def write_runs(root: Path, runs: int, tokens: int) -> list[str]:
    """Write the runs; returns their names, the one with all the tokens first."""
    rng = np.random.default_rng(0)
    record = json.loads((SAMPLE / "run.json").read_text(encoding="utf-8"))
    record["source"] |= {"blocks": BLOCK_COUNT, "units": list(KINDS)}
    quantized = len(KINDS) * BLOCK_COUNT * UNIT_BYTES * 4
    sizes = {"reference": 4 * quantized, "uniform": quantized, "mixed": quantized}
    record["headline"] |= {"flagged": list(FLAGGED), "bytes": sizes}
    recipe = json.loads((SAMPLE / "recipe.json").read_text(encoding="utf-8"))
    recipe["units"] = [
        {
            "unit": f"{block}.{kind}",
            "linears": [f"model.layers.{block}.{kind}_proj"],
            "bits": 8 if block in FLAGGED and kind in ("v", "o") else 4,
        }
        for block in range(BLOCK_COUNT)
        for kind in KINDS
    ]
    names = [f"run-{number:03}" for number in range(runs)]
    first = root / names[0]
    shutil.copytree(SAMPLE, first, ignore=shutil.ignore_patterns("awq"))
    write_json(first / "recipe.json", recipe)
    pq.write_table(pa.Table.from_pylist(block_rows(rng), BLOCKS), first / "blocks.parquet")
    pq.write_table(pa.Table.from_pylist(unit_rows(rng), UNITS), first / "units.parquet")
    rows = activation_rows(rng)
    pq.write_table(pa.Table.from_pylist(rows, ACTIVATIONS), first / "activations.parquet")
    save_file(activation_arrays(rng), first / "activations.safetensors")
    few = token_table(rng, 2 * SEQ_LEN)
    pq.write_table(few, first / "tokens.parquet", row_group_size=ROW_GROUP)
    for number, name in enumerate(names):
        if number:
            shutil.copytree(first, root / name)
        created = f"2026-01-01T{number // 60:02}:{number % 60:02}:00+00:00"
        write_json(root / name / "run.json", record | {"created": created, "model": f"m{number}"})
    pq.write_table(token_table(rng, tokens), first / "tokens.parquet", row_group_size=ROW_GROUP)
    return names


@dataclass(frozen=True)
class Server:
    """A dashboard in a process of its own. started: seconds from its start to its first answer."""

    port: int
    pid: int
    started: float

    def ask(self, address: str) -> tuple[float, int]:
        """Seconds and bytes on the wire of the page at an address, asked for as a browser does."""
        path, _, search = address.partition("?")
        body = {
            "output": "..page.children...live.disabled...seen.data..",
            "outputs": [
                {"id": "page", "property": "children"},
                {"id": "live", "property": "disabled"},
                {"id": "seen", "property": "data"},
            ],
            "inputs": [
                {
                    "id": "address",
                    "property": "data",
                    "value": {"path": path, "search": search and f"?{search}"},
                }
            ],
            "state": [],
            "changedPropIds": ["address.data"],
        }
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip"}
        connection.request("POST", "/_dash-update-component", json.dumps(body), headers)
        answer = connection.getresponse()
        sent = answer.read()
        took = time.perf_counter() - began
        connection.close()
        is_packed = answer.headers["Content-Encoding"] == "gzip"
        content = gzip.decompress(sent) if is_packed else sent
        if answer.status != 200 or b"cannot be shown" in content:
            raise RuntimeError(f"{address}: {answer.status} {content[:300]!r}")
        return took, len(sent)

    def write(self, address: str) -> str:
        """An address in full."""
        return f"http://127.0.0.1:{self.port}{address}"

    def memory(self) -> int:
        """Bytes held."""
        return psutil.Process(self.pid).memory_info().rss


@contextlib.contextmanager
def start_server(root: Path) -> Iterator[Server]:
    """Serve `root` until the block is left."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.perf_counter()
    command = [sys.executable, "-m", "awqscope", "dashboard", str(root), "--port", str(port)]
    process = subprocess.Popen(command)
    try:
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            try:
                connection.request("GET", "/")
                connection.getresponse().read()
                break
            except ConnectionError:
                if process.poll() is not None:
                    raise RuntimeError("the server did not start") from None
                time.sleep(0.01)
            finally:
                connection.close()
        yield Server(port, process.pid, time.perf_counter() - began)
    finally:
        process.terminate()
        process.wait()


def list_pages(name: str, other: str) -> dict[str, str]:
    """Every page, by what it is called in the table."""
    return {
        "list of runs": link("runs"),
        "run": link("run", name),
        "block": link("block", name, FLAGGED[0]),
        "tokens": link("tokens", name),
        "tokens, a window": link("tokens", name, window=3, position=7),
        "tokens, asked": link("tokens", name, model="mixed", which="still", text="word1 w"),
        "recipe": link("recipe", name),
        "compare": link("compare", a=name, b=other),
        "new run": link("new"),
    }


def visit_all(server: Server, names: list[str]) -> int:
    """Ask for each page of each run; returns the memory then held."""
    for name in names:
        for address in list_pages(name, names[-1]).values():
            if name in address:
                server.ask(address)
    return server.memory()


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


def measure_paint(browser: Any, server: Server, pages: dict[str, str]) -> dict[str, float]:
    """Seconds from asking for a page to the frame that shows what is useful of it, in a browser
    that has nothing in its cache, the best of LOADS; infinite where nothing came."""
    return {
        name: min(open_page(browser, server.write(pages[name]), USEFUL[name]) for _ in range(LOADS))
        for name in USEFUL
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


def judge(value: float, target: float) -> str:
    return "" if value <= target else f"  OVER {target:g} s"


def judge_load(load: Load) -> str:
    over = ["2 MB"] * (load.bytes >= BYTES_TARGET) + ["0.1"] * (load.shift >= SHIFT_TARGET)
    return "".join(f"  OVER {target}" for target in over)


def main() -> None:
    """Print every page's times, the memory and the start against the targets."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=500_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = write_runs(root, options.runs, options.tokens)
        pages = list_pages(names[0], names[-1])
        starts = []
        for _ in range(2):
            with start_server(root) as server:
                starts.append(server.started)
        print(f"{options.runs} runs of {BLOCK_COUNT} blocks, {options.tokens:,} tokens in one")
        print(f"start to first answer: {min(starts):.2f} s{judge(min(starts), START_TARGET)}")
        with start_server(root) as server:
            before = server.memory()
            print(f"{'page':20}{'first':>10}{'later':>10}{'size':>12}")
            for name, address in pages.items():
                first, size = server.ask(address)
                later = min(server.ask(address)[0] for _ in range(VISITS))
                line = f"{name:20}{first * 1e3:7.0f} ms{later * 1e3:7.0f} ms{size / 1e3:9.0f} kB"
                print(line + judge(later, SERVER_TARGET))
            many = names[:VISITED]
            held = [before, server.memory(), visit_all(server, many), visit_all(server, many)]
            said = ", ".join(f"{value / MB:.0f}" for value in held)
            print(f"memory at first, after the pages of a run, of {len(many)}, again: {said} MB")
            with start_browser() as browser:
                if browser is None:
                    print("first visits: not measured, playwright or Chromium is missing")
                    return
                painted = measure_paint(browser, server, pages)
                print(f"{'first visit of':20}{'useful after':>14}{'bytes':>10}{'shift':>8}")
                for name, seconds in painted.items():
                    load = load_cold(browser, server.write(pages[name]), "main h1")
                    line = f"{name:20}{seconds:12.2f} s{load.bytes / 1e6:7.2f} MB{load.shift:8.3f}"
                    print(line + judge(seconds, PAINT_TARGET) + judge_load(load))


if __name__ == "__main__":
    main()
