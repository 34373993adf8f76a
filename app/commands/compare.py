"""`awqscope compare`: checkpoints that other tools made, block by block against their reference."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from awqscope.app.command_line.common import (
    INPUT_ERROR,
    examples,
    read_placement,
    refuse_run,
    tell,
    warn_of_code,
)
from awqscope.app.command_line.options import read_given, takes
from awqscope.app.commands.rank import print_ranking
from awqscope.app.commands.show import print_run
from awqscope.diagnose.runs.naming import default_out, default_outs
from awqscope.diagnose.runs.spec import CompareSpec
from awqscope.mixedprec.errors import InputError

if TYPE_CHECKING:
    from awqscope.diagnose.machine.tasks import Placement


@examples(
    "awqscope compare ./my-model ./my-model-awq --valid held-out.txt",
    "awqscope compare org/model org/model-gptq --windows 64 --out reports/gptq",
    "awqscope compare ./my-model ./awq ./gptq ./q4_k_m.gguf --out reports/release",
)
@takes(CompareSpec, several=("candidate",))
def compare(**given: Any) -> None:
    """Measure checkpoints that were made elsewhere, block by block.

    REFERENCE is the 16-bit model that each CANDIDATE was made from. CANDIDATE is a GGUF file, a
    checkpoint of autoawq, GPTQModel, AutoRound, compressed-tensors, ModelOpt, Quark, bitsandbytes,
    MLX, HQQ or torchao, or a model that is not quantized but has other weights. The result is a run
    directory like that of `run`, without a recipe; of several candidates one each, below --out or
    reports/, and a table over all as `rank` prints it. Run again with the same options, what
    stopped goes on where it was.

    SPEC is wikitext2[:SPLIT], a .txt, .jsonl or .parquet file by its name as it stands, or
    hub:NAME[:CONFIG]:SPLIT:COLUMN. SIZE is like 8GiB or 500MB.
    """
    candidates: list[str] = given["candidate"]
    spec, how = read_given(CompareSpec, {**given, "candidate": candidates[0]})
    for model in (spec.reference, *candidates):
        refuse_run(model)
    outs = _choose_outs(candidates, how.out)
    placement = read_placement(how.device, how.workers, how.ray)
    warn_of_code(spec.trust_remote_code, spec.reference)
    specs = {out: spec.change(candidate=candidate) for out, candidate in outs.items()}
    if how.plan:
        print_plans(specs, placement, how.as_json)
        return
    failed = carry_out(specs, placement)
    if len(specs) == 1:
        print_run(next(iter(specs)), how.as_json)
        return
    _print_table([out for out in specs if out not in failed], how.as_json)
    if failed:
        raise typer.Exit(INPUT_ERROR)


def _choose_outs(candidates: Sequence[str], out: Path | None) -> dict[Path, str]:
    """The run directory of each candidate. InputError for one that is given twice, and for a
    directory in a run."""
    from awqscope.diagnose.runs.directory import RunDirectory

    twice = [each for each in candidates if candidates.count(each) > 1]
    if twice:
        raise InputError(f"{twice[0]} is given twice", "give each candidate once")
    if len(candidates) == 1:
        return {out or default_out(candidates[0]): candidates[0]}
    outs = default_outs(candidates, out)
    for each in outs:
        RunDirectory(each).check_above()
    return outs


def print_plans(specs: Mapping[Path, CompareSpec], placement: "Placement", as_json: bool) -> None:
    """Print what each comparison would take; as JSON of several by the name of its run."""
    from awqscope.app.terminal.progress import list_plan, show_note
    from awqscope.diagnose.stages.comparison import plan_comparison, share_reference

    shared = share_reference()
    found = {
        out.name: plan_comparison(spec, out, placement, show_note, shared)
        for out, spec in specs.items()
    }
    if as_json:
        told = {name: plan.to_json() for name, plan in found.items()}
        print(json.dumps(told if len(told) > 1 else next(iter(told.values())), indent=2))
        return
    for name, plan in found.items():
        print("\n".join([*([f"{name}:"] if len(found) > 1 else []), *list_plan(plan)]))


def carry_out(specs: Mapping[Path, CompareSpec], placement: "Placement") -> list[Path]:
    """Carry out comparisons one after another; returns the run directories of those of several
    whose input could not be used, which is said of each. Of one alone InputError is raised."""
    from awqscope.app.terminal.progress import show_note, show_plan, show_progress
    from awqscope.diagnose.stages.comparison import run_comparison, share_reference

    shared, failed = share_reference(), []
    for out, spec in specs.items():
        if len(specs) > 1:
            show_note(f"{spec.candidate} → {out}")
        began = time.monotonic()
        try:
            with show_progress() as on_progress:
                run_comparison(spec, out, on_progress, placement, show_plan, show_note, shared)
        except InputError as error:
            if len(specs) == 1:
                raise
            # The others are measured all the same: a night's work must not end with the first.
            tell(error)
            failed.append(out)
            continue
        sys.stderr.write(f"done in {time.monotonic() - began:.0f} s\n")
    return failed


def _print_table(done: Sequence[Path], as_json: bool) -> None:
    """The table over the comparisons that were carried out."""
    from awqscope.diagnose.compared.choosing import open_side

    if done:
        print_ranking([open_side(str(out)) for out in done], as_json)
