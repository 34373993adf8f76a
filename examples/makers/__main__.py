"""Every checkpoint that other tools make, against what those tools say of it, in one command.

`python -m examples.makers [TOOL…] [--model DIR] [--fresh] [-o FILE.md]`, or `make test-makers`.
Each `TOOL.py` beside this file is run in `.venv-makers/TOOL`, an environment of its own that is
made from `TOOL.txt`; what it writes is given to `awqscope compare`, and the perplexity of that is
held to the tool's own. Exits with 1 where a tool fails, a checkpoint is not read, or the two differ
by more than `table.py` allows. What was made is kept in `reports/.makers`, so that the command can
be stopped and given again: a variant that did not fail is made again where its script or its pins
have changed since, or with `--fresh`. The page has every variant that is kept.

A script is run as `python -P TOOL.py VARIANT MODEL OUT --calib FILE --windows FILE` and as
`python -P TOOL.py --list`, which prints its variants. Without -P its own folder comes first among
those that are searched, and a script called as the tool it imports would import itself. A line
`# --no-deps` in TOOL.txt says that the list is whole and pip is to add nothing to it.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import torch
from safetensors.torch import save_file

from awqscope.app.demo import find_demo
from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from examples.benchmarks.others import describe_machine, read_commit
from examples.makers.table import (
    Measured,
    Row,
    Said,
    from_json,
    judge,
    list_cells,
    read_last,
    read_measured,
    to_json,
    write_page,
)

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ENVIRONMENTS = ROOT / ".venv-makers"
PAGE = ROOT / "reports" / "makers.md"
# Hidden, so that the dashboard takes nothing in it for a run of its own.
KEPT = PAGE.parent / ".makers"
LENGTH, WINDOWS, CALIBRATION = 256, 8, 16
# A tool that takes longer than this for one variant of the bundled model hangs.
LONGEST = 3600


def list_tools() -> list[str]:
    """The tools that have a script, by its pins."""
    return sorted(path.stem for path in HERE.glob("*.txt") if path.with_suffix(".py").exists())


def make_environment(tool: str) -> Path:
    """The python of a tool's own environment, made where there is none by the present pins."""
    folder, pins = ENVIRONMENTS / tool, HERE / f"{tool}.txt"
    wanted, ready = pins.read_text(encoding="utf-8"), folder / ".ready"
    python = folder / "bin" / "python"
    if ready.exists() and ready.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # torch first, by itself: a machine that offers a CPU build of it then keeps it.
    first = [line for line in wanted.splitlines() if line.startswith("torch==")]
    subprocess.run([*install, *first], check=True)
    whole = ["--no-deps"] if "# --no-deps" in wanted.splitlines() else []
    subprocess.run([*install, *whole, "--requirement", pins], check=True)
    ready.write_text(wanted, encoding="utf-8")
    return python


def last_line(text: str) -> str:
    """The last line of what a process said."""
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def run_script(python: Path, tool: str, *arguments: str | Path) -> str:
    """What a tool's script prints. RuntimeError, with the last line of its errors, where it
    fails."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Tools start processes of their own, which are to look in the same folders.
    clean |= {"PYTHONSAFEPATH": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [python, HERE / f"{tool}.py", *arguments],
        env=clean,
        # Some leave logs where they are started.
        cwd=KEPT,
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )
    if done.returncode:
        raise RuntimeError(f"{tool}.py: {last_line(done.stderr)}")
    return done.stdout


def compare(model: Path, made: Path, run: Path) -> Measured:
    """Measure a checkpoint with `awqscope compare` in the directory `run`. RuntimeError, with its
    last words, where that refuses it."""
    command = [sys.executable, "-m", "awqscope", "compare", model, made, "--out", run]
    options = ["--valid", model / "valid.txt", "--windows", WINDOWS, "--seq-len", LENGTH]
    done = subprocess.run(
        [str(part) for part in [*command, *options]], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"compare: {last_line(done.stderr)}")
    return read_measured(json.loads((run / "run.json").read_text(encoding="utf-8")))


def write_tokens(model: Path, folder: Path) -> tuple[Path, Path]:
    """The windows to calibrate on and those to measure, each as a file with one tensor `tokens`
    [n, length]; the latter are those that `awqscope compare` cuts."""
    tokenizer = load_tokenizer(model)
    paths = []
    for name, count in (("calib", CALIBRATION), ("valid", WINDOWS)):
        text = load_corpus(str(model / f"{name}.txt"))
        tokens = cut_windows(text, tokenizer, LENGTH, count).to(torch.int64).contiguous()
        paths.append(folder / f"{name}.safetensors")
        save_file({"tokens": tokens}, paths[-1])
    return paths[0], paths[1]


def make_row(python: Path, tool: str, variant: str, model: Path, tokens: Sequence[Path]) -> Row:
    """Make one variant and measure it. tokens: the files to calibrate on and to measure."""
    folder = KEPT / tool / variant
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = folder / "checkpoint"
    options = [part for pair in zip(("--calib", "--windows"), tokens, strict=True) for part in pair]
    said = Said(tool, variant, "–")
    try:
        said = read_last(run_script(python, tool, variant, model, made, *options))
        if said.unable is not None:
            return Row(said)
        return judge(said, compare(model, made, folder / "run"))
    except (RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
        return Row(said, fault=str(error))


def read_kept(tool: str, variant: str) -> Row | None:
    """The row that was kept of a variant; None where there is none, and where the tool's script or
    pins have changed since."""
    kept = KEPT / tool / variant / "row.json"
    sources = (HERE / f"{tool}.py", HERE / f"{tool}.txt")
    if not kept.exists() or kept.stat().st_mtime < max(path.stat().st_mtime for path in sources):
        return None
    return from_json(json.loads(kept.read_text(encoding="utf-8")))


def take_rows(tools: Sequence[str], model: Path, fresh: bool) -> Iterator[Row]:
    """A row a variant of the tools, made now unless one without a fault is kept."""
    KEPT.mkdir(parents=True, exist_ok=True)
    tokens = write_tokens(model, KEPT)
    for tool in tools:
        python = make_environment(tool)
        for variant in run_script(python, tool, "--list").split():
            row = None if fresh else read_kept(tool, variant)
            if row is None or row.fault is not None:
                row = make_row(python, tool, variant, model, tokens)
                kept = KEPT / tool / variant / "row.json"
                kept.write_text(json.dumps(to_json(row)), encoding="utf-8")
            yield row


def list_rows() -> list[Row]:
    """Every row that is kept and still true, of all tools."""
    found = ((path.parts[-3], path.parts[-2]) for path in sorted(KEPT.glob("*/*/row.json")))
    rows = [read_kept(tool, variant) for tool, variant in found if tool in list_tools()]
    return [row for row in rows if row is not None]


def main() -> int:
    """Make and measure, printing a line a variant, and write the page after each."""
    parser = argparse.ArgumentParser(prog="python -m examples.makers")
    parser.add_argument("tools", nargs="*", metavar="TOOL", help="all that have a script")
    parser.add_argument("--model", type=Path, default=find_demo(), help="a 16-bit model")
    parser.add_argument("-o", "--out", type=Path, default=PAGE, help="page to write")
    parser.add_argument("--fresh", action="store_true", help="make all of it anew")
    given = parser.parse_args()
    unknown = sorted(set(given.tools) - set(list_tools()))
    if unknown:
        parser.error(f"no script makes {', '.join(unknown)}: there are {', '.join(list_tools())}")
    about = (
        f"{date.today()}, commit {read_commit()}",
        describe_machine(),
        f"Python {platform.python_version()}; {WINDOWS} windows of {LENGTH} tokens of the bundled "
        "model's held-out text",
        "again: `make test-makers`",
    )
    failed = 0
    for row in take_rows(given.tools or list_tools(), given.model.resolve(), given.fresh):
        print(" | ".join(list_cells(row)), flush=True)
        failed += row.fault is not None
        given.out.write_text(write_page(list_rows(), about), encoding="utf-8")
    print(f"{failed} failed; written to {given.out}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
