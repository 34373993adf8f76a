"""Everything that only a GPU can show, in less than eight minutes: `make bench-gpu`.

`python -m examples.benchmarks.gpu [--device cuda:0] [--out FOLDER]` writes gpu.json and gpu.md:
whether the demo gives the CPU's numbers, what rounding costs, the search beside stock autoawq and
the sweep beside its floor at real shapes, memory beside the plan, and a checkpoint in vLLM. Shapes
are random models; what is measured of a part of the blocks says so beside every number.

Each part has a process of its own and a share of the time. One that would pass the time is left
out, one that fails or is stopped leaves its reason, and the others go on. The exit code is 0 where
every part was done or left out for a reason, 1 where one failed or was stopped, and 2 without a
GPU. `--device cpu --tiny` tries every part on tiny shapes; its numbers say nothing.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from awqscope.mixedprec.files.atomic import replace_file, write_json
from examples.benchmarks.on_gpu.aims import judge, list_aims, write_table
from examples.benchmarks.on_gpu.parts import MACHINE, PARTS, SECONDS, run_parts
from examples.benchmarks.on_gpu.process import DONE, FAILED, STOPPED, Outcome, run_limited
from examples.benchmarks.on_gpu.setting import Setting

# Hidden, so that the dashboard takes nothing in it for a run of its own.
OUT = Path("reports/.benchmarks/gpu")


def write_report(
    out: Path,
    setting: Setting,
    machine: Mapping[str, Any],
    outcomes: Mapping[str, Outcome],
    seconds: float,
) -> None:
    """What is known so far, after so many seconds, in both files."""
    rows = [judge(aim, outcomes.get(aim.part)) for aim in list_aims()]
    if setting.is_dry:
        rows = [replace(row, met=None) for row in rows]
    out.mkdir(parents=True, exist_ok=True)
    record = {
        "device": setting.device,
        "is_dry": setting.is_dry,
        **machine,
        "seconds": round(seconds, 1),
        "parts": {name: asdict(outcome) for name, outcome in outcomes.items()},
        "aims": [asdict(row) for row in rows],
    }
    write_json(out / "gpu.json", record)
    page = ["# awqscope on a GPU", ""]
    if setting.is_dry:
        page += ["A rehearsal on tiny shapes: no number here says anything of a GPU.", ""]
    name = machine.get("device_name", setting.device)
    page += [
        f"- {machine['day']}, commit {machine['commit']}, {name}",
        f"- {machine['machine']}",
        f"- {machine['versions']}",
        f"- {seconds:.0f} s; again: `make bench-gpu`",
        "",
        *write_table(rows),
        "",
        "| part | state | seconds | reason |",
        "|---|---|---|---|",
    ]
    page += [
        f"| {name} | {one.state} | {one.seconds:.0f} | {one.reason or '–'} |"
        for name, one in outcomes.items()
    ]
    with replace_file(out / "gpu.md") as temporary:
        temporary.write_text("\n".join(page) + "\n", encoding="utf-8")


def measure(setting: Setting, out: Path, seconds: float) -> int:
    """Carry out all parts and write what they found; the exit code."""
    began, stretch = time.monotonic(), seconds / SECONDS
    machine = run_limited(MACHINE, setting, stretch * MACHINE.seconds)
    if machine.state != DONE:
        print(f"the machine cannot be described: {machine.reason}", file=sys.stderr)
        return 1
    if setting.on_gpu and not machine.figures["has_gpu"]:
        print(
            "bench-gpu needs an NVIDIA GPU, and torch finds none here; `python -m "
            "examples.benchmarks.gpu --device cpu --tiny` tries every part without one",
            file=sys.stderr,
        )
        return 2
    outcomes: dict[str, Outcome] = {}

    def on_part(name: str, outcome: Outcome) -> None:
        outcomes[name] = outcome
        write_report(out, setting, machine.figures, outcomes, time.monotonic() - began)
        reason = f": {outcome.reason}" if outcome.reason else ""
        print(f"{name} {outcome.state} in {outcome.seconds:.0f} s{reason}", flush=True)

    run_parts(PARTS, setting, began + seconds, stretch, on_part)
    print((out / "gpu.md").read_text(encoding="utf-8"))
    print(f"written to {out}")
    return int(any(one.state in (FAILED, STOPPED) for one in outcomes.values()))


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m examples.benchmarks.gpu")
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu with --tiny")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to try every part")
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write to")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="for all parts, in their shares"
    )
    given = parser.parse_args()
    if given.device == "cpu" and not given.tiny:
        parser.error("--device cpu is for a trial alone: give --tiny too")
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(given.device, given.tiny, Path(folder))
        sys.exit(measure(setting, given.out, given.seconds))


if __name__ == "__main__":
    main()
