"""The proof: the checkpoint as a user would load it, against the recipe, the simulation and the
16-bit model.

`python -m awqscope.diagnose.proof.prove RUN` runs in a process of its own and trusts nothing that
the run computed but the recipe, the searches and the tokens. With --recipe, --checkpoint, --model
and --out it proves another checkpoint made from the run's searches. transformers loads the
checkpoint, block by block where all of it does not fit in --max-memory; then

* every linear's realised width is the recipe's, by the codes on disk and by config.json;
* every tensor on disk is what recipe and searches say, and dequantized weights equal the simulated
  ones bit for bit, as read by us and as transformers holds them;
* the reference, run again, gives the NLL of the sweep, to within the run's noise floor;
* PPL, KL and agreement are measured on transformers' own logits, and the KL is as simulated;
* a few windows are measured in the 16-bit type that the checkpoint names, where all must be finite.

All else is computed in float32, whatever the run's precision: two ways to store one model round
otherwise, and in a lower precision nothing could be told from that.
"""

import _thread
import argparse
import os
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from awqscope.diagnose.entries.served_type import UNLIKE, explain_type
from awqscope.diagnose.machine.memory import (
    held_bytes,
    peak_bytes,
    return_freed_heap,
    return_freed_tensors,
)
from awqscope.diagnose.machine.signals import leave_to_parent
from awqscope.diagnose.machine.threads import choose_threads, read_cores
from awqscope.diagnose.plan.demand import count_proof, count_whole_proof
from awqscope.diagnose.plan.memory import MIB, with_slack
from awqscope.diagnose.plan.room import loads_whole, read_shape
from awqscope.diagnose.proof.load import How, Loaded, load_checkpoint
from awqscope.diagnose.proof.on_disk import check_tensors
from awqscope.diagnose.proof.served_type import choose_windows, measure_type
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import Record
from awqscope.diagnose.statistics.bootstrap import Resampler, perplexity
from awqscope.diagnose.statistics.likelihood import (
    empty_scores,
    prepare_reference,
    score,
    tokens_a_chunk,
)
from awqscope.diagnose.sweep.branches import REFERENCE
from awqscope.diagnose.sweep.scoring import score_streams
from awqscope.diagnose.sweep.swappable import read_swappable
from awqscope.mixedprec.checkpoints.reader import open_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.atomic import write_json
from awqscope.mixedprec.files.shortage import explain_shortage
from awqscope.mixedprec.models.dtypes import FLOAT32, WIDE
from awqscope.mixedprec.models.forward import advance, enter_blocks
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.served import name_dtype, served_outside
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import CPU, Stream, StreamSpace
from awqscope.mixedprec.recipes.recipe import Recipe, load_recipe
from awqscope.mixedprec.scheme import list_quantized

# Float32 sums of a forward in another order, here and on another kind of device; of all tokens the
# largest, and far below any damage worth speaking of.
NLL_TOLERANCE, OTHER_DEVICES_TOLERANCE = 1e-3, 1e-2
# How many times the noise floor, which a few windows give, the reference of a sweep in another
# precision may be off by the mean over all tokens.
NOISE_TIMES = 4
# Float32 sums in another order: on tiny models of every family a hundredth of this at most.
KL_TOLERANCE = 1e-3
SMALLEST_KL = 1e-4
INPUT_ERROR = 2


@dataclass(frozen=True)
class Subject:
    """What is proved: that the directory `checkpoint` holds the model of the file `recipe`, made
    from `model` (directory or hub id) by a run's searches, in the type `dtype`; None for the run's
    own."""

    model: str
    recipe: Path
    checkpoint: Path
    dtype: str | None = None


@torch.no_grad()
def final_streams(
    model: SourceModel, windows: Tensor, recipe: Recipe, searches: Path, space: StreamSpace
) -> tuple[Stream, Stream]:
    """Final hidden states [n, length, d] of the reference and of the recipe's model, simulated
    block by block with effective weights."""
    reference, all_kwargs = enter_blocks(model, windows, space)
    outside = served_outside(model)
    mixed = enter_blocks(outside, windows, space)[0] if outside else space.copy(reference)
    for number in range(model.blocks):
        widths = recipe.block_widths(model.prefix(number))
        swappable = read_swappable(model, number, searches, list_quantized(widths.values()))
        advance(swappable.block, reference, all_kwargs[number])
        swappable.use(swappable.weights(widths))
        advance(swappable.block, mixed, all_kwargs[number])
        del swappable
        return_freed_heap()
    return reference, mixed


@torch.no_grad()
def measure(
    model: SourceModel,
    loaded: Loaded,
    windows: Tensor,
    recipe: Recipe,
    searches: Path,
    space: StreamSpace,
) -> tuple[dict[str, Tensor], Tensor, float]:
    """nll, kl, agree [n, length − 1] of the loaded model; the reference's NLL; the mean KL of the
    simulated model."""
    reference_stream, mixed_stream = final_streams(model, windows, recipe, searches, space)
    streams = {REFERENCE: reference_stream, "mixed": mixed_stream}
    vocabulary = model.config.vocab_size
    outside = served_outside(model)
    heads = {"mixed": outside.read_head()} if outside else {}
    simulated = score_streams(model.read_head(), windows, streams, vocabulary, heads=heads)
    del heads
    found = empty_scores(*windows.shape)
    step = tokens_a_chunk(vocabulary)
    head = None
    for number, logits in enumerate(loaded.logits(windows)):
        # Read once the blocks of the checkpoint are through.
        head = head or model.read_head()
        window = windows[number]
        for start in range(0, len(window) - 1, step):
            here = slice(start, min(start + step, len(window) - 1))
            states = reference_stream.read(slice(number, number + 1), here)
            reference = prepare_reference(head(states)[0].float())
            targets = window[here.start + 1 : here.stop + 1]
            nll, kl, agree = score(reference, logits[here], targets)
            found.nll[number, here], found.kl[number, here] = nll, kl
            found.agree[number, here] = agree
    tokens = {"nll": found.nll, "kl": found.kl, "agree": found.agree}
    return tokens, simulated[REFERENCE].nll, float(simulated["mixed"].kl.mean())


def is_same_reference(record: Record, differences: Tensor) -> bool:
    """Whether the reference is that of the run's sweep, by how much the NLL of each token differs.
    In float32 no token may; in another precision they do by as much as the noise floor says."""
    floor = None if record.sweep is None else record.sweep.noise_floor
    if floor is not None and floor.precision != FLOAT32:
        return float(differences.abs().mean()) <= NOISE_TIMES * floor.nll_difference
    alike = record.device in (None, "cpu")
    tolerance = NLL_TOLERANCE if alike else OTHER_DEVICES_TOLERANCE
    return float(differences.abs().max()) < tolerance


def summarise(
    mixed: dict[str, Tensor], reference_nll: Tensor, uniform_kl: np.ndarray, seed: int
) -> dict[str, Any]:
    """The measured numbers of proof.json, with intervals."""
    resampler = Resampler(len(reference_nll), seed)
    nll = mixed["nll"].double().mean(1).numpy()
    kl = mixed["kl"].double().mean(1).numpy()
    delta = resampler.ppl_difference(reference_nll.double().mean(1).numpy(), nll)
    spread = resampler.mean(kl)
    # Where uniform loses nothing there is nothing to give back.
    left = resampler.ratio(kl, uniform_kl) if uniform_kl.any() else None
    return {
        "ppl": perplexity(nll),
        "delta_ppl": [delta.value, delta.low, delta.high],
        "kl": spread.value,
        "kl_interval": [spread.low, spread.high],
        "kl_p99": float(np.quantile(mixed["kl"].numpy(), 0.99)),
        "kl_p999": float(np.quantile(mixed["kl"].numpy(), 0.999)),
        "top1_agreement": float(mixed["agree"].double().mean()),
        "recovered": 1 - left.value if left else None,
        "recovered_interval": [1 - left.high, 1 - left.low] if left else None,
    }


def choose_loading(
    model: SourceModel, windows: Tensor, budget: int | None, resting: int = 0
) -> tuple[How, int]:
    """How to load the checkpoint of a model within `budget` bytes (None for any amount), of which
    another process keeps `resting`, and what that leaves for streams. InputError where not even a
    block at a time fits. Families that `loads_whole` excludes are always loaded by block."""
    takes_whole = loads_whole(model.family)
    if budget is None:
        return "whole" if takes_whole else "by block", 2**62
    shape, (count, length) = read_shape(model), windows.shape
    room = {
        how: budget - resting - held_bytes() - with_slack(working, count * length)
        for how, working in (
            ("whole", count_whole_proof(shape, length)),
            ("by block", count_proof(shape, length)),
        )
    }
    if room["whole"] >= 0 and takes_whole:
        return "whole", room["whole"]
    if room["by block"] < 0:
        short = -(-(budget - room["by block"]) // MIB)
        raise InputError(
            f"--max-memory {budget // MIB}MiB is too little for the proof, which needs {short}MiB",
            f"give --max-memory {short}MiB or more",
        )
    return "by block", room["by block"]


def examine(
    run: RunDirectory,
    subject: Subject,
    predicted: float | None,
    *,
    budget: int | None = None,
    resting: int = 0,
    how: How | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Carry out a proof by a run's tokens and searches: the content of proof.json, and nll, kl and
    agree [n, length − 1] of the checkpoint.

    predicted: the recovered share that was expected, if any. budget: bytes that may be had, None
    for any amount; resting: of them, what a process that waits keeps. how: the way to load the
    checkpoint, None for whole where that fits.
    InputError for files of the run, the recipe or the model that cannot be read.
    """
    record = run.read_searched()
    spec = record.spec
    model = open_model(
        subject.model,
        revision=spec.revision if subject.model == spec.model else None,
        trust_remote_code=spec.trust_remote_code,
        dtype=subject.dtype or spec.dtype,
    )
    recipe = load_recipe(subject.recipe).in_own_groups(spec.low.group_size)
    tokens = run.read_table("tokens")
    shape = (record.ppl_definition.windows, record.ppl_definition.seq_len)
    windows = torch.tensor(tokens["token"].to_numpy()).long().view(shape)

    def by_window(column: str) -> Tensor:
        values = tokens[column].to_numpy(zero_copy_only=False).reshape(shape)[:, 1:]
        return torch.tensor(values.astype(np.float32))

    # Refuses what no library should open.
    stored = open_checkpoint(subject.checkpoint)
    fitting, room = choose_loading(model, windows, budget, resting)
    space = StreamSpace([(CPU, room)], run.path)
    loaded = load_checkpoint(
        stored, how or fitting, space, trust_remote_code=spec.trust_remote_code
    )
    # transformers unpacks compressed weights at the first forward: measure before looking at them.
    mixed, reference_nll, simulated_kl = measure(
        model, loaded, windows, recipe, run.searches, space
    )
    uniform_kl = by_window("kl_uniform").double().mean(1).numpy()
    ranges = record.measured.range
    chosen = choose_windows(uniform_kl, None if ranges is None else ranges.uniform.window)

    def measure_in(dtype: str) -> dict[str, Any]:
        found = measure_type(
            stored,
            loaded,
            windows[chosen],
            dtype,
            model.config.vocab_size,
            space,
            trust_remote_code=spec.trust_remote_code,
        )
        return {**found, "windows": chosen}

    served = measure_in(name_dtype(model.dtype))
    instead = None if served["finite"] or served["dtype"] == WIDE else measure_in(WIDE)
    checks = check_tensors(model, recipe, run.searches, stored, loaded)
    measured_kl = float(mixed["kl"].mean())
    differences = reference_nll - by_window("nll_reference")
    checks |= {
        "reference_nll_difference": float(differences.abs().max()),
        "simulated_kl": simulated_kl,
        "measured_kl": measured_kl,
    }
    as_said = (
        is_same_reference(record, differences)
        and abs(measured_kl - simulated_kl) <= KL_TOLERANCE * (simulated_kl + SMALLEST_KL)
        and not any(checks[name] for name in checks if isinstance(checks[name], list))
    )
    reasons = [] if as_said else [UNLIKE]
    reasons += [] if served["finite"] else [explain_type(served, instead)]
    proof = {
        "schema": 1,
        "passed": not reasons,
        "reasons": reasons,
        "checks": checks,
        "served": served,
        "instead": instead,
        "measured": summarise(mixed, reference_nll, uniform_kl, spec.seed),
        "predicted_recovered": predicted,
        "loaded_with": f"transformers {version('transformers')}",
        "loaded": loaded.how,
    }
    return proof, mixed


def prove(
    run: RunDirectory, *, budget: int | None = None, resting: int = 0, how: How | None = None
) -> dict[str, Any]:
    """Carry out the proof of a run; write proof.json and the mixed model's token scores. `examine`
    describes budget, resting and how."""
    record = run.read_searched()
    subject = Subject(record.spec.model, run.path / "recipe.json", run.checkpoint)
    proof, mixed = examine(
        run,
        subject,
        record.measured.predicted_recovered,
        budget=budget,
        resting=resting,
        how=how,
    )
    run.write_arrays("work/proof.safetensors", mixed)
    write_json(run.path / "proof.json", proof)
    return proof


def prove_other(
    run: RunDirectory,
    subject: Subject,
    out: Path,
    *,
    budget: int | None = None,
    resting: int = 0,
    how: How | None = None,
) -> dict[str, Any]:
    """Carry out the proof of another checkpoint made from a run's searches; write it to the file
    `out` and leave the run as it is. Nothing was predicted for it. `examine` describes budget,
    resting and how."""
    proof, _ = examine(run, subject, None, budget=budget, resting=resting, how=how)
    write_json(out, proof)
    return proof


def _end_with_stdin() -> None:
    """End this process when standard input ends: whoever asked for the proof has gone."""
    # Not through sys.stdin, whose lock would be held when the interpreter shuts down.
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> None:
    """Prove what the command line names; exit with 2 and one line for what a user can mend."""
    parser = argparse.ArgumentParser(prog="python -m awqscope.diagnose.proof.prove")
    parser.add_argument("run", type=Path, help="run directory")
    options = {
        "--model": (str, "directory or hub id of the model it was made from"),
        "--recipe": (Path, "recipe that it should hold"),
        "--checkpoint": (Path, "checkpoint to prove instead of the run's own"),
        "--out": (Path, "file for the result"),
    }
    for name, (kind, text) in options.items():
        parser.add_argument(name, type=kind, help=text)
    parser.add_argument("--dtype", help="type that it stores, where that is not the run's")
    parser.add_argument("--max-memory", type=int, help="bytes that may be had")
    parser.add_argument("--resting", type=int, default=0, help="of them, what others keep")
    parser.add_argument(
        "--until-stdin-closes", action="store_true", help="end as soon as standard input does"
    )
    given = parser.parse_args()
    if given.until_stdin_closes:
        # The process that asked for the proof gets the same signal, and closes the pipe as it ends.
        leave_to_parent()
        # A `Thread` that has no memory to start in is waited for without end.
        _thread.start_new_thread(_end_with_stdin, ())
    other = (given.model, given.recipe, given.checkpoint, given.out)
    if any(other) and not all(other):
        parser.error(f"give all of {', '.join(options)}, or none")
    run = RunDirectory(given.run)
    budget = {"budget": given.max_memory, "resting": given.resting}
    return_freed_tensors()
    try:
        # A run's own proof goes on with the run; what is proved later is not bound to it.
        begun = None if any(other) else run.read().threads
        torch.set_num_threads((begun or choose_threads(read_cores())).alone)
        if any(other):
            prove_other(run, Subject(*other[:3], given.dtype), given.out, **budget)
        else:
            prove(run, **budget)
        sys.stdout.write(f"{peak_bytes()}\n")
    except Exception as error:
        told = explain_shortage(error)
        if told is None:
            raise
        sys.stderr.write(f"{' '.join(str(told).split())}\n")
        sys.exit(INPUT_ERROR)


if __name__ == "__main__":
    main()
