"""Everything against the others, in one command: ratios side by side on the same model and tokens.

`python -m examples.benchmarks.others [--run RUN] [-o FILE.md]`, or `make bench-others`, which
installs the other tools first. Stock autoawq and llm-compressor (search), ModelOpt and AutoRound
(scoring), whole-model forwards (sweep); on a machine with an accelerator a model of a real shape
too (`shapes.py`). The page says what machine it was, when, with which versions, and how to repeat
it. RUN: a finished run to score; without one, the bundled model is run first.
"""

import argparse
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from app.demo import demo_spec
from diagnose.pipeline import run_pipeline
from examples.benchmarks import scoring, search, shapes, sweep

PACKAGES = (
    "torch",
    "transformers",
    "autoawq",
    "llmcompressor",
    "nvidia-modelopt",
    "auto-round",
)
PAGE = Path("reports/benchmarks.md")


def describe_machine() -> str:
    """Processor, cores, threads, memory and accelerators, in a line."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    devices = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return (
        f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, {memory:.0f} GiB, {', '.join(devices) or 'no GPU'}"
    )


def list_versions() -> str:
    """The versions that matter, of those installed."""
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def read_commit() -> str:
    """The commit that is measured."""
    command = ["git", "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def score_run(run: Path | None) -> Iterator[str]:
    """`scoring` of a finished run, or of the bundled model's."""
    if run is not None:
        yield from scoring.measure([str(run)])
        return
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        run_pipeline(demo_spec(0), out, lambda *event: None)
        yield from scoring.measure([str(out)])


def main() -> None:
    """Measure section by section, printing as it goes and writing the page."""
    parser = argparse.ArgumentParser(prog="python -m examples.benchmarks.others")
    parser.add_argument("--run", type=Path, help="finished run to score [default: a new one]")
    parser.add_argument("-o", "--out", type=Path, default=PAGE, help="page to write")
    given = parser.parse_args()
    sections: dict[str, Callable[[], Iterator[str]]] = {
        "Scoring every unit, and choosing": lambda: score_run(given.run),
        "The three-view sweep": sweep.measure,
        "The AWQ search": search.measure,
    }
    if torch.cuda.is_available():
        sections["At a real shape"] = lambda: shapes.measure("1b", "cuda")
    command = shlex.join(["python", "-m", "examples.benchmarks.others", *sys.argv[1:]])
    page = [
        "# awqscope beside other tools",
        "",
        f"- {datetime.now(UTC):%Y-%m-%d}, commit {read_commit()}",
        f"- {describe_machine()}; load average at the start {os.getloadavg()[0]:.1f}",
        f"- {list_versions()}",
        f"- again: `make bench-others`, which runs `{command}`",
        "",
        "Ratios are of times taken in one process, one after the other. Above 1x, ours is the",
        "faster one.",
    ]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    for title, measure in sections.items():
        print(title, flush=True)
        page += ["", f"## {title}", ""]
        for line in measure():
            print(f"  {line}", flush=True)
            page.append(f"- {line}")
            # After every line: a measurement that is stopped leaves what it has found.
            given.out.write_text("\n".join(page) + "\n", encoding="utf-8")
    print(f"written to {given.out}")


if __name__ == "__main__":
    main()
