"""Where tools run, what they are given, and how `awqscope` is asked for what came out."""

import json
import os
import platform
import shutil
import subprocess
import sys
import venv
from datetime import date
from pathlib import Path

import torch
from safetensors.torch import save_file

from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from examples.benchmarks.others import describe_machine, read_commit
from examples.makers.shared.table import Measured, read_measured

HERE = Path(__file__).resolve().parents[1]
ROOT = HERE.parents[1]
# What the tools' scripts share.
MAKING = HERE / "shared" / "making.py"
ENVIRONMENTS = ROOT / ".venv-makers"
PAGE = ROOT / "reports" / "makers.md"
# Hidden, so that the dashboard takes nothing in it for a run of its own.
KEPT = PAGE.parent / ".makers"
LENGTH, WINDOWS, CALIBRATION = 256, 8, 16
# A tool that takes longer than this for one variant of the bundled model hangs.
LONGEST = 3600


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


def run_script(python: Path, script: Path, *arguments: str | Path) -> str:
    """What a script prints in a tool's environment. RuntimeError, with the last line of its errors,
    where it fails."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Tools start processes of their own, which are to look in the same folders.
    clean |= {"PYTHONSAFEPATH": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    KEPT.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [python, script, *arguments],
        env=clean,
        # Some leave logs where they are started.
        cwd=KEPT,
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )
    if done.returncode:
        raise RuntimeError(f"{script.name}: {last_line(done.stderr)}")
    return done.stdout


def run_awqscope(*arguments: object) -> None:
    """Run a command of awqscope. RuntimeError, with its last words, where it refuses."""
    command = [sys.executable, "-m", "awqscope", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{arguments[0]}: {last_line(done.stderr)}")


def compare(
    model: Path, made: Path, run: Path, *, length: int = LENGTH, windows: int = WINDOWS
) -> Measured:
    """Measure a checkpoint with `awqscope compare` in the directory `run`. RuntimeError, with its
    last words, where that refuses it."""
    options = ["--valid", model / "valid.txt", "--windows", windows, "--seq-len", length]
    run_awqscope("compare", model, made, "--out", run, *options)
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


def describe_place() -> list[str]:
    """When, of which commit and on which machine something is measured, in lines."""
    return [
        f"{date.today()}, commit {read_commit()}",
        f"{describe_machine()}, Python {platform.python_version()}",
    ]
