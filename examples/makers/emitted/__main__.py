"""Recipes given to the tools that they are emitted for, to the end, in one command.

`python -m examples.makers.emitted [TARGET…] [--fresh] [-o FILE.md]`, or `make test-makers`. Runs
awqscope on the bundled model, symmetric and not, with one unit kept at 16 bits; emits each run's
recipe for the targets that take it; has `carry_out.py` quantize by that text in the tool's own
environment, as `python -m examples.makers` has made it; and gives what came out to `awqscope
compare`. Exits with 1 where a tool fails, or a linear has not the recipe's width. Runs and
checkpoints are kept in `reports/.makers`: what did not fail is carried out again where the text,
the script or the tool's pins have changed since, or with `--fresh`.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from awqscope.app.demo import find_demo
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.foreign.candidate import open_candidate
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.recipes.emitters import EMITTERS
from awqscope.mixedprec.recipes.recipe import load_recipe
from examples.makers.emitted.outcome import (
    Outcome,
    count_widths,
    find_other_text,
    find_stray,
    from_json,
    list_cells,
    read_run,
    to_json,
    write_part,
)
from examples.makers.shared.page import update_page
from examples.makers.shared.workplace import (
    HERE,
    KEPT,
    PAGE,
    compare,
    describe_place,
    last_line,
    make_environment,
    run_awqscope,
    run_script,
    write_tokens,
)

SCRIPT = Path(__file__).with_name("carry_out.py")
OUTCOMES = KEPT / "emitted"
LENGTH, WINDOWS, CALIBRATION = 128, 8, 16
# A unit that stays at 16 bits: tools leave one out by other words than they set widths by.
PLAIN_UNIT = "0.down"
SYMMETRIC, ASYMMETRIC = "symmetric", "asymmetric"
# Target -> the runs whose recipes it is given. GPTQModel takes no zero points; ModelOpt's integers
# have none and MLX's always, whatever a recipe says.
RUNS = {
    "llm-compressor": (ASYMMETRIC, SYMMETRIC),
    "gptqmodel": (SYMMETRIC,),
    "autoround": (ASYMMETRIC, SYMMETRIC),
    "modelopt": (SYMMETRIC,),
    "mlx-lm": (ASYMMETRIC,),
}
# Target -> its tool, by its pins, where that has another name.
TOOLS = {"llm-compressor": "llmcompressor", "mlx-lm": "mlx"}
UNABLE = {
    "llama.cpp": "not run here: llama-quantize is a program and no Python package; "
    "`make test-targets` runs the script where one is on the PATH",
}


def find_run(scheme: str, model: Path) -> Path:
    """A finished run of the model, made, or ended, where there is none."""
    run = KEPT / f"run-{scheme}"
    record = run / "run.json"
    if record.exists() and read_json(record)["state"] == "done":
        return run
    texts = ["--calib", model / "calib.txt", "--valid", model / "valid.txt"]
    sizes = ["--seq-len", LENGTH, "--windows", WINDOWS, "--calib-windows", CALIBRATION]
    widths = ["--keep-fp16", PLAIN_UNIT, "--symmetric" if scheme == SYMMETRIC else "--no-symmetric"]
    run_awqscope("run", model, *texts, *sizes, *widths, "--out", run)
    return run


def carry_out(target: str, scheme: str, text: Path, run: Path, model: Path, calib: Path) -> Outcome:
    """Have a tool quantize by an emitted text, and measure what it made beside the text."""
    made = text.with_name("checkpoint")
    ours = read_run(read_json(run / "run.json"))
    outcome = Outcome(target, scheme, ours=ours)
    try:
        python = make_environment(TOOLS.get(target, target))
        said = run_script(python, SCRIPT, target, text, model, made, "--calib", calib)
        outcome = replace(outcome, tool=last_line(said))
        packed = {
            name: coding.bits
            for name, coding in open_candidate(str(made), open_model(str(model))).codings.items()
        }
        recipe = load_recipe(run / "recipe.json").linear_widths()
        beside = text.with_name("run")
        theirs = compare(model, made, beside, length=LENGTH, windows=WINDOWS)
    except (InputError, RuntimeError, subprocess.SubprocessError) as error:
        return replace(outcome, fault=last_line(str(error)))
    return replace(
        outcome,
        found=count_widths(recipe, packed),
        theirs=theirs,
        fault=find_stray(recipe, packed) or find_other_text(theirs, ours),
    )


def read_json(path: Path) -> dict[str, Any]:
    """A file of JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_kept(target: str, scheme: str, text: str) -> Outcome | None:
    """The outcome that was kept; None where there is none, it is a fault, or the text, the script
    or the tool's pins have changed since."""
    folder = OUTCOMES / f"{target}-{scheme}"
    kept, before = folder / "row.json", folder / f"recipe{EMITTERS[target].suffix}"
    sources = (SCRIPT, HERE / f"{TOOLS.get(target, target)}.txt")
    if not kept.exists() or before.read_text(encoding="utf-8") != text:
        return None
    if kept.stat().st_mtime < max(path.stat().st_mtime for path in sources):
        return None
    outcome = from_json(read_json(kept))
    return None if outcome.fault else outcome


def take_outcome(
    target: str, scheme: str, run: Path, model: Path, calib: Path, fresh: bool
) -> Outcome:
    """The outcome of a target and a run, made now unless one without a fault is kept."""
    emitted = KEPT / f"emitted{EMITTERS[target].suffix}"
    run_awqscope("recipe", run, "--emit", target, "-o", emitted)
    written = emitted.read_text(encoding="utf-8")
    kept = None if fresh else read_kept(target, scheme, written)
    if kept is not None:
        return kept
    folder = OUTCOMES / f"{target}-{scheme}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    text = folder / f"recipe{EMITTERS[target].suffix}"
    text.write_text(written, encoding="utf-8")
    outcome = carry_out(target, scheme, text, run, model, calib)
    (folder / "row.json").write_text(json.dumps(to_json(outcome)), encoding="utf-8")
    return outcome


def take_outcomes(targets: Sequence[str], model: Path, fresh: bool) -> Iterator[Outcome]:
    """The outcomes of all targets that a tool can be had for."""
    KEPT.mkdir(parents=True, exist_ok=True)
    calib, _ = write_tokens(model, KEPT)
    runs: dict[str, Path] = {}
    for target in targets:
        for scheme in RUNS[target]:
            if scheme not in runs:
                runs[scheme] = find_run(scheme, model)
            yield take_outcome(target, scheme, runs[scheme], model, calib, fresh)


def list_outcomes() -> list[Outcome]:
    """Every outcome that is kept, of all targets, and why others have none."""
    paths = [
        OUTCOMES / f"{target}-{scheme}" / "row.json" for target in RUNS for scheme in RUNS[target]
    ]
    kept = [from_json(read_json(path)) for path in paths if path.exists()]
    return kept + [Outcome(target, "–", unable=why) for target, why in UNABLE.items()]


def main() -> int:
    """Carry out and measure, printing a line a recipe, and write the page after each."""
    parser = argparse.ArgumentParser(prog="python -m examples.makers.emitted")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all that run here")
    parser.add_argument("-o", "--out", type=Path, default=PAGE, help="page to write a part of")
    parser.add_argument("--fresh", action="store_true", help="carry out all of it anew")
    given = parser.parse_args()
    for target in given.targets:
        if target not in RUNS:
            parser.error(UNABLE.get(target, f"no {target}: there are {', '.join(RUNS)}"))
    about = (
        *describe_place(),
        f"{WINDOWS} windows of {LENGTH} tokens of the bundled model's held-out text; "
        f"unit {PLAIN_UNIT} kept at 16 bits",
        "again: `make test-makers`",
    )
    failed = 0
    for outcome in take_outcomes(given.targets or list(RUNS), find_demo(), given.fresh):
        print(" | ".join(list_cells(outcome)), flush=True)
        failed += outcome.fault is not None
        update_page(given.out, write_part(list_outcomes(), about))
    print(f"{failed} failed; written to {given.out}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
