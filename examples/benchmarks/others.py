"""Everything against the others, in one command: ratios side by side on the same model and tokens.

`python -m examples.benchmarks.others [--run RUN] [-o FILE.md]`, or `make bench-others`, which
installs the other tools first. Stock autoawq and llm-compressor (search), ModelOpt and AutoRound
(scoring), whole-model forwards (sweep); on a machine with an accelerator a model of a real shape
too (`shapes.py`). The page says what machine it was, when, with which versions, and how to repeat
it. RUN: a finished run to score; the make target runs the bundled model first, by the project's own
environment: what the other tools bring of compressed-tensors loads no checkpoint of ours. What is
measured is kept in `reports/.benchmarks`, so that the command can be stopped and given again;
`--fresh` begins anew.
"""

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from examples.benchmarks import scoring, search, shapes, sweep
from examples.benchmarks.pieces import Kept, Measured

PACKAGES = (
    "torch",
    "transformers",
    "autoawq",
    "llmcompressor",
    "nvidia-modelopt",
    "auto-round",
)
PAGE = Path("reports/benchmarks.md")
# Hidden, so that the dashboard takes nothing in it for a run of its own.
KEPT = PAGE.parent / ".benchmarks"


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


def write_page(title_lines: Mapping[str, Sequence[Measured]], command: str) -> str:
    """The page of what is measured so far."""
    found = [one for lines in title_lines.values() for one in lines]
    days = sorted({one.day for one in found})
    commits = list(dict.fromkeys(one.commit for one in found))
    page = [
        "# awqscope beside other tools",
        "",
        f"- {' to '.join(dict.fromkeys((days[0], days[-1])))}, commit {', '.join(commits)}",
        f"- {describe_machine()}",
        f"- {list_versions()}",
        f"- again: `make bench-others`, which runs `{command}`",
        "",
        "Ratios are of times taken in one process, one after the other. Above 1x, ours is the",
        "faster one. Behind each line is the load average as it began.",
        "",
        "What only a GPU can show is measured by `make bench-gpu`. It never ran on a GPU so far.",
    ]
    for title, lines in title_lines.items():
        page += ["", f"## {title}", ""]
        page += [f"- {one.line} (load {one.load:.1f})" for one in lines]
    return "\n".join(page) + "\n"


def main() -> None:
    """Measure piece by piece, printing as it goes and writing the page after each."""
    parser = argparse.ArgumentParser(prog="python -m examples.benchmarks.others")
    parser.add_argument("--run", type=Path, default=KEPT / "demo", help="finished run to score")
    parser.add_argument("-o", "--out", type=Path, default=PAGE, help="page to write")
    parser.add_argument("--fresh", action="store_true", help="measure all of it anew")
    given = parser.parse_args()
    commit = read_commit()
    if given.fresh:
        shutil.rmtree(KEPT, ignore_errors=True)
    kept = Kept(KEPT / "pieces.json", f"{describe_machine()}; {list_versions()}")
    sections = {
        "Scoring every unit, and choosing": scoring.list_pieces([given.run]),
        "The three-view sweep": sweep.list_pieces(),
        "The AWQ search": search.list_pieces(),
    }
    if torch.cuda.is_available():
        sections["At a real shape"] = shapes.list_pieces("1b", "cuda")
    command = shlex.join(["python", "-m", "examples.benchmarks.others", *sys.argv[1:]])
    given.out.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Measured]] = {}
    for title, pieces in sections.items():
        print(title, flush=True)
        for piece in pieces:
            found.setdefault(title, []).append(kept.get(piece, commit))
            print(f"  {found[title][-1].line}", flush=True)
            given.out.write_text(write_page(found, command), encoding="utf-8")
    print(f"written to {given.out}")


if __name__ == "__main__":
    main()
