"""The dashboard's times and memory on a directory of many large runs.

`python -m examples.benchmarks.dashboard [--runs 200] [--tokens 500000]` writes runs of 80 blocks of
seven units, twelve of them with as many tokens as given, serves them from a process of its own, and
asks for every page as a browser does. With Chromium and playwright there, it also opens pages.
"""

import argparse
import contextlib
import gzip
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from awqscope.app.dashboard.urls import BETWEEN, link
from awqscope.diagnose.compared.ranking import MOST_RANKED
from examples.benchmarks.first_visits import (
    USEFUL,
    Load,
    load_cold,
    measure_paint,
    start_browser,
)
from examples.benchmarks.large_runs import BLOCK_COUNT, FLAGGED, write_runs

VISITS = 5
VISITED = 40
SERVER_TARGET, PAINT_TARGET, START_TARGET = 0.5, 2.0, 2.0
BYTES_TARGET, SHIFT_TARGET = 2_000_000, 0.1
MB = 2**20


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


def list_pages(name: str, other: str, several: Sequence[str] = ()) -> dict[str, str]:
    """Every page, by what it is called in the table. several: runs that are set side by side."""
    among = {"runs": BETWEEN.join(several)}
    together = {
        f"compare of {len(several)}": link("compare", **among),
        f"trend of {len(several)}": link("trend", **among),
    }
    return {
        "list of runs": link("runs"),
        "run": link("run", name),
        "block": link("block", name, FLAGGED[0]),
        "tokens": link("tokens", name),
        "tokens, a window": link("tokens", name, window=3, position=7),
        "tokens, asked": link("tokens", name, model="mixed", which="still", text="word1 w"),
        "recipe": link("recipe", name),
        "compare": link("compare", a=name, b=other),
        **(together if several else {}),
        "new run": link("new"),
    }


def visit_all(server: Server, names: list[str]) -> int:
    """Ask for each page of each run; returns the memory then held."""
    for name in names:
        for address in list_pages(name, names[-1]).values():
            if name in address:
                server.ask(address)
    return server.memory()


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
        names = write_runs(root, options.runs, options.tokens, MOST_RANKED)
        pages = list_pages(names[0], names[-1], names[:MOST_RANKED])
        starts = []
        for _ in range(2):
            with start_server(root) as server:
                starts.append(server.started)
        print(f"{options.runs} runs of {BLOCK_COUNT} blocks")
        print(f"{min(MOST_RANKED, options.runs)} of them have {options.tokens:,} tokens")
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
                useful = {name: server.write(pages[name]) for name in USEFUL}
                painted = measure_paint(browser, useful)
                print(f"{'first visit of':20}{'useful after':>14}{'bytes':>10}{'shift':>8}")
                for name, seconds in painted.items():
                    load = load_cold(browser, server.write(pages[name]), "main h1")
                    line = f"{name:20}{seconds:12.2f} s{load.bytes / 1e6:7.2f} MB{load.shift:8.3f}"
                    print(line + judge(seconds, PAINT_TARGET) + judge_load(load))


if __name__ == "__main__":
    main()
