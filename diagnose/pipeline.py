"""A run from MODEL to checkpoint/, stage by stage, each leaving its result in the run directory.

    search      the AWQ search of every block at both widths            awq/
    sweep       isolated, cumulative, restored; activations             blocks, tokens, activations
    estimate    every unit at both widths                               units
    refine      exact units; promotions inside flagged blocks           units, promotions
    recipe      the flagged recipe                                      recipe.json
    requantize  the mixed checkpoint                                    checkpoint/
    proof       the checkpoint measured from disk in a fresh process    proof.json, tokens

A stage that is done is not repeated; within search and sweep what is done of them is kept too. A
run killed anywhere and started again with the same options ends with the same numbers.
"""

import hashlib
import json
import math
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from diagnose.activations import ActivationLog
from diagnose.bootstrap import Resampler
from diagnose.corpora import Corpus, cut_windows, load_corpus, load_tokenizer, parse_spec
from diagnose.estimator import estimate_units
from diagnose.measure import (
    TOKENS_A_ROW_GROUP,
    block_rows,
    join_chunks,
    reduce_chunk,
    token_table,
)
from diagnose.memory import return_freed_tensors
from diagnose.proof import INPUT_ERROR
from diagnose.refine import (
    Promotion,
    choose_promotion,
    pick_for_verification,
    promotion_branches,
    rank_correlation,
    unit_branch,
)
from diagnose.rundir import STAGES, OnProgress, ProgressLog, RunDirectory, now
from diagnose.spec import DEFAULT_SEQ_LEN, RunSpec
from diagnose.sweep import (
    CONTROL,
    REFERENCE,
    UNIFORM,
    Branch,
    Plan,
    block_branches,
    count_streams,
    list_chunks,
    run_sweep,
    windows_a_chunk,
)
from diagnose.tables import ACTIVATIONS, BLOCKS, PROMOTIONS, UNITS
from mixedprec.block_search import check_schemes, search_model
from mixedprec.checkpoint import SERVED_WIDTHS, checkpoint_bytes, write_checkpoint
from mixedprec.errors import InputError
from mixedprec.families import Unit, list_units
from mixedprec.model import SourceModel, get_linear, open_model, stored_name
from mixedprec.realise import stored_bytes
from mixedprec.recipe import check_names, load_recipe, make_recipe, save_recipe
from mixedprec.scheme import FP16_BITS

VERSIONED = ("awqscope", "torch", "transformers", "autoawq", "compressed-tensors", "safetensors")
# Half of the memory budget is for streams; blocks, the head and the search use the rest.
STREAM_SHARE = 0.5


@dataclass(frozen=True)
class Inputs:
    """What a run works on, loaded and checked."""

    model: SourceModel
    tokenizer: PreTrainedTokenizerBase
    calib: Corpus
    valid: Corpus
    calib_windows: Tensor
    windows: Tensor


def load_inputs(spec: RunSpec) -> Inputs:
    """Open the model and the texts. InputError for anything that a run could not use."""
    parse_spec(spec.calib)
    parse_spec(spec.valid)
    model = open_model(spec.model)
    check_schemes(model, list(spec.schemes.values()))
    check_names(list(spec.keep_fp16), list_units(model.family, model.blocks))
    tokenizer = load_tokenizer(model.path)
    calib, valid = load_corpus(spec.calib), load_corpus(spec.valid)
    limit = getattr(model.config, "max_position_embeddings", DEFAULT_SEQ_LEN)
    seq_len = spec.seq_len or min(DEFAULT_SEQ_LEN, limit)
    if seq_len > limit:
        raise InputError(
            f"--seq-len {seq_len} is longer than the model's {limit} positions",
            f"give at most {limit}",
        )
    calib_windows = cut_windows(
        calib, tokenizer, min(spec.calib_seq_len, limit), spec.calib_windows
    )
    windows = cut_windows(valid, tokenizer, seq_len, spec.windows)
    largest = max(int(calib_windows.max()), int(windows.max()))
    if largest >= model.config.vocab_size:
        raise InputError(
            f"the tokenizer gives token {largest}, the model knows {model.config.vocab_size}",
            "use the tokenizer that came with the model",
        )
    return Inputs(model, tokenizer, calib, valid, calib_windows, windows)


def hash_tokens(windows: Tensor) -> str:
    """SHA-256 of token ids as 32-bit integers: what text, tokenizer and cutting came to."""
    return hashlib.sha256(windows.int().numpy().tobytes()).hexdigest()


def describe(spec: RunSpec, inputs: Inputs) -> dict[str, Any]:
    """The part of run.json that is known before anything is measured."""
    model, windows = inputs.model, inputs.windows
    count, length = windows.shape
    return {
        "model": spec.model,
        "spec": spec.to_json(),
        "source": {
            "architecture": model.config.model_type,
            "blocks": model.blocks,
            "units": [kind.name for kind in model.family.units],
            "parameters": sum(p.numel() for p in model.shell.parameters()),
            "dtype": str(model.dtype).removeprefix("torch."),
            "hashes": model.hash(),
        },
        "ppl_definition": {
            "sentence": (
                f"exp of the mean token NLL over {count} non-overlapping windows of {length} "
                f"tokens; every token is scored but each window's first"
            ),
            "text": inputs.valid.spec,
            "text_sha256": inputs.valid.hash,
            "tokens_sha256": hash_tokens(windows),
            "windows": count,
            "seq_len": length,
            "scored_tokens": count * (length - 1),
        },
        "calibration": {
            "text": inputs.calib.spec,
            "text_sha256": inputs.calib.hash,
            "tokens_sha256": hash_tokens(inputs.calib_windows),
            "windows": len(inputs.calib_windows),
            "seq_len": inputs.calib_windows.shape[1],
        },
        "versions": {name: version(name) for name in VERSIONED}
        | {"python": platform.python_version()},
        "stages": {},
        "headline": {},
        "error": None,
    }


def _plan(
    spec: RunSpec, model: SourceModel, run: RunDirectory, branches: tuple[Branch, ...]
) -> Plan:
    return Plan(
        spec.bits, (spec.bits, spec.rescue_bits), frozenset(spec.keep_fp16), run.searches, branches
    )


def search_stage(spec: RunSpec, inputs: Inputs, run: RunDirectory, progress: OnProgress) -> None:
    """The AWQ search of every block at both widths."""
    blocks = inputs.model.blocks
    search_model(
        inputs.model,
        inputs.calib_windows,
        list(spec.schemes.values()),
        run.searches,
        lambda done: progress("search", done, blocks),
    )


def _steps_of(progress: OnProgress, stage: str, before: int, total: int) -> Callable[[int], None]:
    """Reports steps of one chunk as steps of the whole stage."""
    return lambda done: progress(stage, before + done, total)


def _swept_chunks(
    name: str,
    spec: RunSpec,
    inputs: Inputs,
    run: RunDirectory,
    plan: Plan,
    progress: OnProgress,
    reduce: Callable[[dict], dict[str, Tensor]],
    *,
    log_activations: bool = False,
) -> list[dict[str, Tensor]]:
    """Run the plan chunk by chunk, keeping each chunk's result in work/ until the run is done."""
    model, windows = inputs.model, inputs.windows
    record = run.read()
    sizes = record.get("chunks", {})
    if name not in sizes:
        budget = int(spec.max_memory * STREAM_SHARE)
        sizes = {**sizes, name: windows_a_chunk(model, plan, windows.shape[1], budget)}
        run.update(chunks=sizes)
    chunks = list_chunks(len(windows), sizes[name])
    steps = model.blocks + 1
    total = len(chunks) * steps
    for number, chunk in enumerate(chunks):
        file = f"work/{name}-{number:04d}.safetensors"
        if (run.path / file).exists():
            continue
        log = ActivationLog()
        scores = run_sweep(
            model,
            windows[chunk],
            plan,
            observe=log.observe if log_activations else None,
            on_block=_steps_of(progress, name, number * steps, total),
        )
        state = {f"activations.{key}": value for key, value in log.state().items()}
        run.write_arrays(file, reduce(scores) | state)
    return [read_tensors(run, f"work/{name}-{n:04d}.safetensors") for n in range(len(chunks))]


def read_tensors(run: RunDirectory, name: str) -> dict[str, Tensor]:
    """A safetensors file of a run as tensors."""
    return {key: torch.from_numpy(array) for key, array in run.read_arrays(name).items()}


def _token_texts(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> list[str]:
    """What each token id reads as on its own."""
    known = min(len(tokenizer), vocabulary)
    texts = tokenizer.batch_decode([[token] for token in range(known)])
    return texts + [""] * (vocabulary - known)


def _read_sweep(run: RunDirectory) -> dict[str, Tensor]:
    """The joined results of the sweep, kept until the run is done."""
    return read_tensors(run, "work/sweep.safetensors")


def sweep_stage(spec: RunSpec, inputs: Inputs, run: RunDirectory, progress: OnProgress) -> None:
    """Measure every block in its three views; write blocks, activations and tokens."""
    model = inputs.model
    plan = _plan(spec, model, run, block_branches(model, spec.bits, frozenset(spec.keep_fp16)))
    chunks = _swept_chunks(
        "sweep",
        spec,
        inputs,
        run,
        plan,
        progress,
        lambda scores: reduce_chunk(scores, model.blocks),
        log_activations=True,
    )
    log = ActivationLog()
    prefix = "activations."
    for chunk in chunks:
        log.merge({k.removeprefix(prefix): v for k, v in chunk.items() if k.startswith(prefix)})
    scores = join_chunks(
        [{k: v for k, v in chunk.items() if not k.startswith(prefix)} for chunk in chunks]
    )
    control = float(scores[f"kl.{CONTROL}"].abs().max())
    if control != 0.0:
        raise AssertionError(f"a block swapped with itself gives KL {control:.2e}, not 0")
    run.write_arrays("work/sweep.safetensors", scores)
    run.write_table("activations", log.rows(), ACTIVATIONS)
    run.write_arrays("activations.safetensors", log.arrays())
    rows = block_rows(scores, model.blocks, spec.thresholds, spec.seed)
    run.write_table("blocks", rows, BLOCKS)
    texts = _token_texts(inputs.tokenizer, model.config.vocab_size)
    run.write_arrow(
        "tokens", token_table(inputs.windows, texts, scores), row_group=TOKENS_A_ROW_GROUP
    )
    run.update(
        headline={**run.read()["headline"], **_sweep_headline(scores, rows, spec, inputs)},
        plan={
            "streams": count_streams(model, plan),
            "chunk_windows": run.read()["chunks"]["sweep"],
            "control_kl": control,
        },
    )


def _sweep_headline(
    scores: dict[str, Tensor], rows: list[dict[str, Any]], spec: RunSpec, inputs: Inputs
) -> dict[str, Any]:
    reference = scores[f"nll.{REFERENCE}"].numpy()
    uniform = scores[f"nll.{UNIFORM}"].numpy()
    kl = scores[f"kl.{UNIFORM}"].numpy()
    token_kl = scores["token.kl_uniform"].numpy()
    resampler = Resampler(len(kl), spec.seed)
    isolated = [row["kl"] for row in rows if row["view"] == "isolated"]
    delta, spread = resampler.ppl_difference(reference, uniform), resampler.mean(kl)
    low_bytes, reference_bytes = model_bytes(inputs.model, spec, {})
    return {
        "ppl": {
            "reference": math.exp(reference.mean()),
            "uniform": math.exp(uniform.mean()),
            "mixed": None,
        },
        "delta_ppl": {"uniform": [delta.value, delta.low, delta.high], "mixed": None},
        "kl": {"uniform": float(kl.mean()), "mixed": None},
        "kl_interval": {"uniform": [spread.low, spread.high], "mixed": None},
        "kl_p99": {"uniform": float(np.quantile(token_kl, 0.99)), "mixed": None},
        "kl_p999": {"uniform": float(np.quantile(token_kl, 0.999)), "mixed": None},
        "top1_agreement": {
            "uniform": float(scores[f"agree.{UNIFORM}"].mean()),
            "mixed": None,
        },
        "bytes": {"reference": reference_bytes, "uniform": low_bytes, "mixed": None},
        "flagged": [row["block"] for row in rows if row["view"] == "isolated" and row["flagged"]],
        "recovered": None,
        "additivity": sum(isolated) / float(kl.mean()) if kl.mean() > 0 else None,
    }


def unit_bytes(model: SourceModel, unit: Unit, bits: int, spec: RunSpec) -> int:
    """Bytes of a unit's weights on disk at `bits`."""
    scheme = spec.schemes.get(bits, spec.low)
    shell = model.block_shell(unit.block)
    linears = [get_linear(shell, name) for name in unit.linears]
    return sum(stored_bytes(m.out_features, m.in_features, bits, scheme) for m in linears)


def model_bytes(model: SourceModel, spec: RunSpec, changed: dict[str, int]) -> tuple[int, int]:
    """Bytes of the tensors of a model with every unit at the low width but those `changed`, and of
    the reference in 16 bits."""
    units = list_units(model.family, model.blocks)
    reference = 0
    for name, parameter in model.shell.named_parameters():
        tied = name == "lm_head.weight" and stored_name(name, model.files) not in model.files
        reference += 0 if tied else parameter.numel() * 2
    kept = dict.fromkeys(spec.keep_fp16, FP16_BITS)
    widths = {unit.name: spec.bits for unit in units} | kept | changed
    saved = sum(
        unit_bytes(model, unit, FP16_BITS, spec) - unit_bytes(model, unit, widths[unit.name], spec)
        for unit in units
    )
    return reference - saved, reference


def estimate_stage(spec: RunSpec, inputs: Inputs, run: RunDirectory, progress: OnProgress) -> None:
    """Estimate every unit at both widths; write units."""
    model = inputs.model
    resampler = Resampler(len(inputs.windows), spec.seed)
    bits = (spec.bits, spec.rescue_bits)
    stream = inputs.windows.shape[1] * model.config.hidden_size * 4
    size = max(1, int(spec.max_memory * STREAM_SHARE) // (stream * (model.blocks + 4)))
    chunks = list_chunks(len(inputs.windows), size)
    steps = 2 * model.blocks
    parts: dict[tuple[str, int], list[Tensor]] = {}
    for number, chunk in enumerate(chunks):
        found = estimate_units(
            model,
            inputs.windows[chunk],
            run.searches,
            bits,
            seed=spec.seed,
            first=chunk.start,
            on_block=_steps_of(progress, "estimate", number * steps, len(chunks) * steps),
        )
        for key, values in found.items():
            parts.setdefault(key, []).append(values)
    rows = []
    for unit in list_units(model.family, model.blocks):
        for width in bits:
            by_window = torch.cat(parts[unit.name, width]).double().numpy()
            estimate = resampler.mean(by_window)
            rows.append(
                {
                    "unit": unit.name,
                    "block": unit.block,
                    "kind": unit.kind.name,
                    "bits": width,
                    "bytes": unit_bytes(model, unit, width, spec),
                    "estimated_kl": estimate.value,
                    "estimated_kl_low": estimate.low,
                    "estimated_kl_high": estimate.high,
                    "exact_kl": None,
                    "exact_kl_low": None,
                    "exact_kl_high": None,
                }
            )
    run.write_table("units", rows, UNITS)


def refine_stage(spec: RunSpec, inputs: Inputs, run: RunDirectory, progress: OnProgress) -> None:
    """Measure units exactly: those of flagged blocks, and enough others to check the estimator."""
    model = inputs.model
    kept = frozenset(spec.keep_fp16)
    rows = run.read_table("units").to_pylist()
    units = {u.name: u for u in list_units(model.family, model.blocks) if u.name not in kept}
    promotable = {unit.block for unit in units.values()}
    flagged = [block for block in run.read()["headline"]["flagged"] if block in promotable]
    estimates = {
        r["unit"]: r["estimated_kl"] for r in rows if r["bits"] == spec.bits and r["unit"] in units
    }
    verified = pick_for_verification(estimates, spec.verify_units)
    inside = [name for name, unit in units.items() if unit.block in flagged]
    measured = [(name, spec.bits) for name in dict.fromkeys([*inside, *verified])]
    measured += [(name, spec.rescue_bits) for name in inside]
    promotions = {
        branch: (block, names)
        for block in flagged
        for branch, names in promotion_branches(
            model, block, spec.bits, spec.rescue_bits, kept
        ).items()
    }
    branches = [unit_branch(model, units[name], bits) for name, bits in measured]
    plan = _plan(spec, model, run, (*branches, *promotions))
    chunks = _swept_chunks(
        "refine",
        spec,
        inputs,
        run,
        plan,
        progress,
        lambda scores: {f"kl.{name}": s.kl.double().mean(1) for name, s in scores.items()},
    )
    by_window = {name: torch.cat([c[name] for c in chunks]).numpy() for name in chunks[0]}
    resampler = Resampler(len(inputs.windows), spec.seed)
    index = {(row["unit"], row["bits"]): row for row in rows}
    for name, bits in measured:
        estimate = resampler.mean(by_window[f"kl.unit.{name}.{bits}"])
        index[name, bits] |= {
            "exact_kl": estimate.value,
            "exact_kl_low": estimate.low,
            "exact_kl_high": estimate.high,
        }
    uniform_kl = float(by_window[f"kl.{UNIFORM}"].mean())
    found = [
        Promotion(block, names, float(by_window[f"kl.{branch.name}"].mean()))
        for branch, (block, names) in promotions.items()
    ]
    extra = {
        name: unit_bytes(model, unit, spec.rescue_bits, spec)
        - unit_bytes(model, unit, spec.bits, spec)
        for name, unit in units.items()
    }
    chosen = set()
    for block in flagged:
        of_block = [p for p in found if p.block == block]
        whole = max(of_block, key=lambda p: len(p.units))
        chosen.add(whole if spec.whole_blocks else choose_promotion(of_block, uniform_kl, extra))
    run.write_table("units", rows, UNITS)
    run.write_table(
        "promotions",
        [
            {
                "block": p.block,
                "units": list(p.units),
                "kl": p.kl,
                "given_back": 1 - p.kl / uniform_kl if uniform_kl > 0 else None,
                "extra_bytes": sum(extra[name] for name in p.units),
                "chosen": p in chosen,
            }
            for p in found
        ],
        PROMOTIONS,
    )
    exact = [index[name, spec.bits] for name in dict.fromkeys([*inside, *verified])]
    correlation = rank_correlation(
        [row["estimated_kl"] for row in exact], [row["exact_kl"] for row in exact]
    )
    given_back = sum(1 - p.kl / uniform_kl for p in chosen) if uniform_kl > 0 else 0.0
    run.update(
        estimator={"spearman": correlation, "verified_units": len(exact)},
        headline={**run.read()["headline"], "predicted_recovered": min(1.0, given_back)},
    )


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
    scores = _read_sweep(run)
    texts = _token_texts(inputs.tokenizer, inputs.model.config.vocab_size)
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


ACTIONS = {
    "search": search_stage,
    "sweep": sweep_stage,
    "estimate": estimate_stage,
    "refine": refine_stage,
    "recipe": recipe_stage,
    "requantize": requantize_stage,
    "proof": proof_stage,
}


def _skip_reason(stage: str, spec: RunSpec) -> str | None:
    """Why a stage does not apply to this spec, if it does not."""
    widths = set(spec.schemes)
    if stage in ("requantize", "proof") and not widths <= set(SERVED_WIDTHS):
        return (
            f"no server loads checkpoints with {min(widths.difference(SERVED_WIDTHS))}-bit layers"
        )
    return None


def run_pipeline(spec: RunSpec, out: Path, on_progress: OnProgress) -> RunDirectory:
    """Carry out `spec` in the directory `out`, going on where an earlier process stopped.

    on_progress(stage, done, total). InputError for unusable input, another run in `out`, a process
    that is already at it, or a full disk; the run directory then says so too.
    """
    return_freed_tensors()
    run = RunDirectory(out)
    if run.exists():
        run.check_spec(spec.to_json())
    else:
        run.check_free()
    inputs = load_inputs(spec)
    description = describe(spec, inputs)
    with run.lock():
        if not run.exists():
            run.create(description)
        begun = run.read()
        parts = {
            "versions": "the set of installed libraries",
            "source": spec.model,
            "calibration": spec.calib,
            "ppl_definition": spec.valid,
        }
        for part, what in parts.items():
            if begun[part] != description[part]:
                raise InputError(
                    f"{what} has changed since {out} was begun", "choose another --out"
                )
        _carry_out(spec, inputs, run, ProgressLog(run, on_progress))
    return run


def _carry_out(spec: RunSpec, inputs: Inputs, run: RunDirectory, progress: OnProgress) -> None:
    if run.read()["state"] == "done":
        return
    run.update(state="running", error=None)
    try:
        for stage in STAGES:
            if run.is_done(stage):
                continue
            reason = _skip_reason(stage, spec)
            if reason:
                run.mark(stage, "skipped", reason=reason)
                continue
            run.mark(stage, "running", started=now())
            began = time.monotonic()
            ACTIONS[stage](spec, inputs, run, progress)
            run.mark(stage, "done", finished=now(), seconds=round(time.monotonic() - began, 2))
    except InputError as error:
        _record_failure(run, {"message": error.what, "remedy": error.remedy})
        raise
    except KeyboardInterrupt:
        _record_failure(
            run, {"message": "interrupted", "remedy": "run the same command again: it resumes"}
        )
        raise
    except Exception as error:
        _record_failure(run, {"message": f"{type(error).__name__}: {error}", "remedy": ""})
        raise
    shutil.rmtree(run.work, ignore_errors=True)
    run.update(state="done")


def _record_failure(run: RunDirectory, error: dict[str, str]) -> None:
    """Leave the reason in run.json; on a full disk the record that is there has to do."""
    try:
        run.update(state="failed", error=error)
    except (InputError, OSError):
        sys.stderr.write("the reason could not be written to run.json\n")
