"""The repairing stages of a run: recipe, checkpoint, proof."""

import json
import subprocess
import sys

from diagnose.inputs import Inputs
from diagnose.measure import (
    TOKENS_A_ROW_GROUP,
    token_table,
)
from diagnose.proof import INPUT_ERROR
from diagnose.rundir import OnProgress, RunDirectory
from diagnose.spec import RunSpec
from diagnose.stages import read_sweep, read_tensors, token_texts
from mixedprec.checkpoint import checkpoint_bytes, write_checkpoint
from mixedprec.errors import InputError
from mixedprec.recipe import load_recipe, make_recipe, save_recipe
from mixedprec.scheme import FP16_BITS


def recipe_stage(spec: RunSpec, inputs: Inputs, run: RunDirectory, progress: OnProgress) -> None:
    """The flagged recipe: the chosen promotions at the rescue width, the rest at the low one."""
    model = inputs.model
    record = run.read()
    promotions = [row for row in run.read_table("promotions").to_pylist() if row["chosen"]]
    changed = {name: spec.rescue_bits for row in promotions for name in row["units"]}
    changed |= dict.fromkeys(spec.keep_fp16, FP16_BITS)
    provenance = {
        "run": run.path.name,
        "rule": record["spec"]
        | {"chosen_by": "whole blocks" if spec.whole_blocks else "fewest units, 95% of the block"},
        "flagged": record["headline"]["flagged"],
        "predicted_recovered": record["headline"]["predicted_recovered"],
        "source_sha256": record["source"]["hashes"],
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
    save_recipe(run.path / "recipe.json", recipe)
    progress("recipe", 1, 1)


def requantize_stage(
    spec: RunSpec, inputs: Inputs, run: RunDirectory, progress: OnProgress
) -> None:
    """Write the recipe's model to checkpoint/."""
    blocks = inputs.model.blocks
    write_checkpoint(
        run.checkpoint,
        inputs.model,
        load_recipe(run.path / "recipe.json"),
        run.searches,
        spec.schemes,
        on_block=lambda done: progress("requantize", done, blocks),
    )


def proof_stage(spec: RunSpec, inputs: Inputs, run: RunDirectory, progress: OnProgress) -> None:
    """Measure the checkpoint from disk in a fresh process; complete the headline and tokens."""
    progress("proof", 0, 1)
    command = [sys.executable, "-m", "diagnose.proof", str(run.path.resolve())]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode == INPUT_ERROR:
        raise InputError(*finished.stderr.strip().splitlines()[-1].split(": ", 1))
    if finished.returncode < 0:
        raise InputError(
            f"the proof's process was ended by signal {-finished.returncode}",
            "it loads the whole checkpoint in float32: free some memory and run again",
        )
    if finished.returncode:
        raise RuntimeError(f"the proof's process failed:\n{finished.stderr[-4000:]}")
    proof = json.loads((run.path / "proof.json").read_text(encoding="utf-8"))
    mixed = read_tensors(run, "work/proof.safetensors")
    scores = read_sweep(run)
    texts = token_texts(inputs.tokenizer, inputs.model.config.vocab_size)
    run.write_arrow(
        "tokens", token_table(inputs.windows, texts, scores, mixed), row_group=TOKENS_A_ROW_GROUP
    )
    headline = run.read()["headline"]
    for name in ("ppl", "delta_ppl", "kl", "kl_interval", "kl_p99", "kl_p999", "top1_agreement"):
        headline[name]["mixed"] = proof["measured"][name]
    headline["bytes"]["mixed"] = checkpoint_bytes(run.checkpoint)
    headline["recovered"] = proof["measured"]["recovered"]
    headline["recovered_interval"] = proof["measured"]["recovered_interval"]
    headline["proved"] = proof["passed"]
    run.update(headline=headline)
    progress("proof", 1, 1)
