"""`awqscope run` and `demo`: from a 16-bit model to a proved mixed checkpoint."""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import typer

from awqscope.app.command_line.common import examples, read_placement, refuse_run, warn_of_code
from awqscope.app.command_line.options import read_given, takes
from awqscope.app.commands.show import print_run
from awqscope.diagnose.runs.naming import default_out
from awqscope.diagnose.runs.spec import RunSpec


@examples(
    "awqscope run ./my-model --valid held-out.txt --out reports/my-model",
    "awqscope run org/model --plan",
    "awqscope run ./my-model --calib ours.jsonl --valid a.txt --valid b.txt",
)
@takes(RunSpec)
def run(**given: Any) -> None:
    """Quantize MODEL, measure every block, repair what stands out.

    Ends with a mixed-width checkpoint proved from disk, in a directory with every number behind it.
    Run again with the same options, a stopped run goes on where it was.

    SPEC is wikitext2[:SPLIT], a .txt, .jsonl or .parquet file by its name as it stands, or
    hub:NAME[:CONFIG]:SPLIT:COLUMN. SIZE is like 8GiB or 500MB.
    """
    spec, how = read_given(RunSpec, given)
    refuse_run(spec.model)
    placement = read_placement(how.device, how.workers, how.ray)
    warn_of_code(spec.trust_remote_code, spec.model)
    out = how.out or default_out(spec.model)
    if how.plan:
        print_plan(spec, out, how.as_json, placement)
    else:
        carry_out(spec, out, how.as_json, placement)


@examples("awqscope demo", "awqscope demo --out /tmp/demo --json")
@takes(RunSpec, only=("out", "seed", "as_json"))
def demo(out: Path | None, seed: int, as_json: bool) -> None:
    """The same on the bundled model, which has one planted fault."""
    from awqscope.app.demo import demo_spec

    placement = read_placement("auto", None, None)
    carry_out(demo_spec(seed), out or Path("reports/demo"), as_json, placement)


def print_plan(spec: Any, out: Path, as_json: bool, placement: Any) -> None:
    """Print what a run would take."""
    from awqscope.app.terminal.progress import list_plan, show_note
    from awqscope.diagnose.stages.pipeline import plan_pipeline

    found, without = plan_pipeline(spec, out, placement, show_note), spec.no_checkpoint
    if as_json:
        print(json.dumps({**found.to_json(), "no_checkpoint": without}, indent=2))
    else:
        print("\n".join(list_plan(found, without)))


def carry_out(spec: Any, out: Path, as_json: bool, placement: Any) -> None:
    from awqscope.app.terminal.progress import show_note, show_plan, show_progress
    from awqscope.diagnose.stages.pipeline import run_pipeline

    began = time.monotonic()
    with show_progress() as on_progress:
        on_plan = partial(show_plan, no_checkpoint=spec.no_checkpoint)
        run = run_pipeline(spec, out, on_progress, placement, on_plan, show_note)
    sys.stderr.write(f"done in {time.monotonic() - began:.0f} s\n")
    print_run(run.path, as_json)
    headline = run.read_searched().headline
    if headline is not None and headline.proved is False:
        raise typer.Exit(1)
