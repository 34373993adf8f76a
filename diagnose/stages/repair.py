"""The repairing stages of a run: recipe, checkpoint, proof."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from awqscope.diagnose.entries.served_type import UNLIKE, Serving, describe_type
from awqscope.diagnose.inputs.load import Inputs
from awqscope.diagnose.machine.memory import private_bytes, return_freed_heap
from awqscope.diagnose.passes.chunks import read_tensors
from awqscope.diagnose.passes.setting import Setting
from awqscope.diagnose.passes.views import read_sweep
from awqscope.diagnose.proof.card import CardSubject, write_card
from awqscope.diagnose.proof.prove import INPUT_ERROR, Subject
from awqscope.diagnose.runs.directory import OnProgress, RunDirectory
from awqscope.diagnose.runs.scores import score_units
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages.sweep import PAIRED, token_texts
from awqscope.diagnose.sweep.results import TOKENS_A_ROW_GROUP, token_table
from awqscope.diagnose.sweep.swappable import uniform_bits
from awqscope.mixedprec.checkpoints.destinations import read_kind
from awqscope.mixedprec.checkpoints.reader import checkpoint_bytes
from awqscope.mixedprec.checkpoints.writer import write_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.atomic import write_text
from awqscope.mixedprec.models.served import name_dtype
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.recipes.recipe import Recipe, load_recipe, make_recipe, save_recipe
from awqscope.mixedprec.recipes.solver import limit_widths, solve
from awqscope.mixedprec.scheme import FP16_BITS

PROOF = (sys.executable, "-P", "-m", "awqscope.diagnose.proof.prove")
# Its own name: the directory is the user's, and other tools put files there too.
PROOF_NAME = "awqscope-proof.json"


def recipe_stage(spec: RunSpec, inputs: Inputs, at: Setting) -> None:
    """The flagged recipe: the chosen promotions at the rescue width, the rest at the low one. Where
    the spec has a budget, the best recipe for that."""
    model, run = inputs.model, at.run
    record = run.read_searched()
    promotions = [row for row in run.read_table("promotions").to_pylist() if row["chosen"]]
    changed = {name: spec.rescue_bits for row in promotions for name in row["units"]}
    changed |= dict.fromkeys(spec.keep_fp16, FP16_BITS)
    provenance = {
        "run": run.path.name,
        "rule": record.spec.to_json()
        | {"chosen_by": "whole blocks" if spec.whole_blocks else "fewest units, 95% of the block"},
        "flagged": list(record.measured.flagged),
        "predicted_recovered": record.measured.predicted_recovered,
        "source_sha256": dict(record.source.hashes),
    }
    recipe = make_recipe(
        spec.model,
        model.family,
        model.blocks,
        spec.bits,
        changed=changed,
        kind="flagged" if promotions else "uniform",
        provenance=provenance,
    )
    if spec.budget:
        scores = limit_widths(score_units(run, recipe), (spec.bits, spec.rescue_bits))
        found = solve(scores, **spec.budget)
        added = {name: provenance[name] for name in ("run", "flagged", "source_sha256")}
        recipe = replace(found, provenance={**found.provenance, **added})
        predicted = scores.predict(recipe.widths).recovered
        run.update(headline=record.measured.changed(predicted_recovered=min(1.0, predicted)))
    save_recipe(run.path / "recipe.json", recipe)
    at.progress("recipe", 1, 1)


def requantize_stage(spec: RunSpec, inputs: Inputs, at: Setting) -> None:
    """Write the recipe's model to checkpoint/; keep what servers make of it."""
    blocks, run = inputs.model.blocks, at.run
    recipe = load_recipe(run.path / "recipe.json")
    written = write_checkpoint(
        run.checkpoint,
        inputs.model,
        recipe,
        run.searches,
        spec.schemes_at(recipe.widths.values()),
        on_block=lambda done: at.progress("requantize", done, blocks),
    )
    largest = run.read_searched().measured.find_largest()
    kind = describe_type(name_dtype(inputs.model.dtype), largest)
    run.update(serving=Serving(**written.serving.to_json(), type=kind))


def _run_proof(run: RunDirectory, *options: str, budget: int | None = None) -> int:
    """Carry out a proof in a fresh process within `budget` bytes, None for the run's own; returns
    the most bytes that the process held. InputError for what a user can mend, too little memory
    included; RuntimeError with the end of its stderr for anything else."""
    command = [*PROOF, str(run.path.resolve()), *options, "--until-stdin-closes"]
    if budget is None:
        plan = run.read().memory_plan
        budget = None if plan is None else plan.budget
    if budget is not None:
        return_freed_heap()
        command += ["--max-memory", str(budget), "--resting", str(private_bytes())]
    # However this process ends, the system closes its end of the pipe, and the proof ends too.
    ours, theirs = os.pipe()
    try:
        finished = subprocess.run(command, stdin=ours, capture_output=True, text=True, check=False)
    finally:
        os.close(ours)
        os.close(theirs)
    if finished.returncode == INPUT_ERROR:
        what, _, remedy = finished.stderr.strip().splitlines()[-1].partition(": ")
        raise InputError(what, remedy)
    if finished.returncode < 0:
        raise InputError(
            f"the proof's process was ended by signal {-finished.returncode}",
            "free some memory, or give a smaller --max-memory, and run again",
        )
    if finished.returncode:
        raise RuntimeError(f"the proof's process failed:\n{finished.stderr[-4000:]}")
    return int(finished.stdout.split()[-1])


def prove_checkpoint(
    run: RunDirectory, subject: Subject, progress: OnProgress, budget: int | None = None
) -> dict[str, Any]:
    """Prove another checkpoint made from a run's searches, measured from disk in a fresh process;
    returns the proof, which is written to the checkpoint's directory too. The subject's model must
    be a directory. budget: bytes that may be had, None for as many as the run has.

    InputError where it cannot be carried out, KeyboardInterrupt where it is stopped: both say that
    the checkpoint is whole, and how to prove it later.
    """
    out = subject.checkpoint / PROOF_NAME
    options: dict[str, Path | str] = {
        "--model": Path(subject.model),
        "--recipe": subject.recipe,
        "--checkpoint": subject.checkpoint,
        "--out": out,
    }
    if subject.dtype is not None:
        options["--dtype"] = subject.dtype
    arguments = [
        part
        for name, value in options.items()
        for part in (name, str(value.resolve()) if isinstance(value, Path) else value)
    ]
    unproved = f"{subject.checkpoint} is complete but not proved"
    later = f"prove it with {shlex.join([*PROOF, str(run.path.resolve()), *arguments])}"
    try:
        progress("proving", 0, 1)
        _run_proof(run, *arguments, budget=budget)
    except (InputError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"{unproved} ({reason})", later) from error
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"{unproved}: {later}") from error
    progress("proving", 1, 1)
    return json.loads(out.read_text(encoding="utf-8"))


def proof_stage(spec: RunSpec, inputs: Inputs, at: Setting) -> None:
    """Measure the checkpoint from disk in a fresh process; complete the headline and tokens."""
    run = at.run
    at.progress("proof", 0, 1)
    peak = _run_proof(run, budget=at.plan.budget)
    run.mark("proof", "running", proof_process_peak_bytes=peak)
    proof = json.loads((run.path / "proof.json").read_text(encoding="utf-8"))
    mixed = read_tensors(run, "work/proof.safetensors")
    scores = read_sweep(run)
    texts = token_texts(inputs.tokenizer, inputs.model.config.vocab_size)
    run.write_arrow(
        "tokens", token_table(inputs.windows, texts, scores, mixed), row_group=TOKENS_A_ROW_GROUP
    )
    headline = run.read_searched().measured
    recipe = load_recipe(run.path / "recipe.json")
    uniform = uniform_bits(inputs.model, spec.bits, spec.keep_fp16)
    measured = proof["measured"]
    if recipe.widths == uniform and UNLIKE not in proof["reasons"]:
        # It is the uniform model, to within float32's rounding as proved: one set of numbers.
        measured |= {name: getattr(headline, name).uniform for name in PAIRED}
        if measured["recovered"] is not None:
            measured |= {"recovered": 0.0, "recovered_interval": (0.0, 0.0)}
    size = checkpoint_bytes(run.checkpoint)
    headline = headline.changed(
        **{name: getattr(headline, name).changed(mixed=measured[name]) for name in PAIRED},
        bytes=headline.bytes.changed(mixed=size),
        recovered=measured["recovered"],
        recovered_interval=measured["recovered_interval"],
        proved=proof["passed"],
        reasons=proof["reasons"],
        served=proof["served"],
    )
    kind = describe_type(proof["served"]["dtype"], headline.find_largest(), proof)
    serving = (run.read().serving or Serving(notes=[])).changed(type=kind)
    run.update(headline=headline, serving=serving)
    write_model_card(run, inputs.model, recipe, run.checkpoint, size, proof, serving.to_json())
    at.progress("proof", 1, 1)


def write_model_card(
    run: RunDirectory,
    model: SourceModel,
    recipe: Recipe,
    checkpoint: Path,
    size: int,
    proof: dict[str, Any] | None,
    serving: dict[str, Any] | None,
    *,
    fmt: str = "compressed-tensors",
    dtype: str | None = None,
    requantized: bool = False,
    weights: str | None = None,
    uncalibrated: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write the checkpoint's README.md: awqscope's part of it, with the rest of the card that is
    there, else of the source model's. size: bytes of its tensors. proof: None if it was not proved.
    serving: what servers make of the checkpoint, None where that is not known. fmt, dtype,
    requantized, weights: of `CardSubject`. uncalibrated: of the search of other weights."""
    record = run.read_searched()
    if weights is not None:
        record = record.changed(uncalibrated=uncalibrated or {})
    subject = CardSubject(
        record=record,
        recipe=recipe,
        proof=proof,
        serving=serving,
        bytes=size,
        fmt=fmt,
        dtype=dtype,
        base_model=model.hub_id,
        requantized=requantized,
        kind=read_kind(checkpoint),
        weights=weights,
    )
    cards = [folder / "README.md" for folder in (checkpoint, model.path)]
    existing = next((card for card in cards if card.is_file()), None)
    text = existing.read_text(encoding="utf-8", errors="replace") if existing else ""
    write_text(checkpoint / "README.md", write_card(subject, text))
