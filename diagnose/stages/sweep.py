"""The stage `sweep`: every block in its three views, what flows, and what is rounded."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from awqscope.diagnose.inputs.load import Inputs
from awqscope.diagnose.inputs.sizes import model_bytes
from awqscope.diagnose.machine.tasks import Workers
from awqscope.diagnose.runs.directory import OnProgress, RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.runs.tables import ACTIVATIONS, BLOCKS, RANGES, WEIGHTS
from awqscope.diagnose.stages.chunks import (
    Options,
    Subject,
    build_sweep,
    read_tensors,
    swept_chunks,
)
from awqscope.diagnose.statistics.bootstrap import Resampler
from awqscope.diagnose.sweep.activations import ActivationLog
from awqscope.diagnose.sweep.branches import (
    CONTROL,
    REFERENCE,
    UNIFORM,
    Sweepable,
    block_branches,
    count_streams,
)
from awqscope.diagnose.sweep.ranges import join_ranges
from awqscope.diagnose.sweep.results import (
    TOKENS_A_ROW_GROUP,
    block_rows,
    join_chunks,
    reduce_chunk,
    token_table,
)
from awqscope.diagnose.sweep.weights import weight_rows


def token_texts(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> list[str]:
    """What each token id reads as on its own."""
    known = min(len(tokenizer), vocabulary)
    texts = tokenizer.batch_decode([[token] for token in range(known)])
    return texts + [""] * (vocabulary - known)


def read_sweep(run: RunDirectory) -> dict[str, Tensor]:
    """The joined results of the sweep, kept until the run is done."""
    return read_tensors(run, "work/sweep.safetensors")


def _part(chunk: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What a chunk holds under names that begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in chunk.items() if k.startswith(prefix)}


@dataclass(frozen=True)
class Sweep:
    """What a sweep found: the joined scores, the rows of blocks.parquet, what flowed, the errors of
    the weights, and the headline's `range`, None where a chunk did not keep it."""

    scores: dict[str, Tensor]
    rows: list[dict[str, Any]]
    activations: ActivationLog
    weights: dict[str, Tensor]
    range: dict[str, Any] | None

    @property
    def isolated_kl(self) -> float:
        """The isolated KL of all blocks, summed."""
        return sum(row["kl"] for row in self.rows if row["view"] == "isolated")


def sweep_views(
    spec: Options,
    inputs: Subject,
    run: RunDirectory,
    sweep: Sweepable,
    workers: Workers,
    progress: OnProgress,
    group: Callable[[int], int],
) -> Sweep:
    """Measure every block in its three views; write blocks, tokens and what flowed.

    group: inputs of a linear -> inputs of a weight group.
    """
    model = inputs.model
    chunks = swept_chunks(
        "sweep",
        inputs,
        run,
        sweep,
        workers,
        progress,
        partial(reduce_chunk, blocks=model.blocks),
        group=group,
    )
    log = ActivationLog()
    for chunk in chunks:
        log.merge(_part(chunk, "activations."))
    ranges, largest = join_ranges([_part(chunk, "ranges.") for chunk in chunks])
    logged = ("activations.", "weights.", "ranges.")
    scores = join_chunks(
        [{k: v for k, v in chunk.items() if not k.startswith(logged)} for chunk in chunks]
    )
    control = float(scores[f"kl.{CONTROL}"].abs().max())
    if control != 0.0:
        raise AssertionError(f"a block swapped with itself gives KL {control:.2e}, not 0")
    run.write_arrays("work/sweep.safetensors", scores)
    run.write_arrays("activations.safetensors", log.arrays())
    rows = block_rows(scores, model.blocks, spec.thresholds, spec.seed)
    run.write_table("blocks", rows, BLOCKS)
    run.write_table("ranges", ranges, RANGES)
    texts = token_texts(inputs.tokenizer, model.config.vocab_size)
    run.write_arrow(
        "tokens", token_table(inputs.windows, texts, scores), row_group=TOKENS_A_ROW_GROUP
    )
    run.update(
        plan={
            "streams": count_streams(model, sweep),
            "chunk_windows": run.read()["chunks"]["sweep"],
            "control_kl": control,
        },
    )
    return Sweep(scores, rows, log, _part(chunks[0], "weights."), largest)


def sweep_stage(
    spec: RunSpec, inputs: Inputs, run: RunDirectory, workers: Workers, progress: OnProgress
) -> None:
    """Measure every block in its three views; write blocks, activations, weights and tokens."""
    model, kept = inputs.model, frozenset(spec.keep_fp16)
    sweep = build_sweep(spec, model, run, block_branches(model, spec.bits, kept))
    swept = sweep_views(spec, inputs, run, sweep, workers, progress, spec.low.group)
    run.write_table("activations", swept.activations.rows(), ACTIVATIONS)
    run.write_table("weights", weight_rows(model, spec.bits, kept, swept.weights), WEIGHTS)
    low_bytes, reference = model_bytes(model, spec, {})
    sizes = {"reference": reference, "uniform": low_bytes, "mixed": None}
    headline = sweep_headline(swept, spec.seed, sizes, swept.isolated_kl)
    run.update(headline={**run.read()["headline"], **headline})


def sweep_headline(
    swept: Sweep, seed: int, sizes: dict[str, int | None], isolated_kl: float
) -> dict[str, Any]:
    """The headline numbers of the reference and the uniform model.

    sizes: their bytes. isolated_kl: summed over everything that was swapped alone.
    """
    scores = swept.scores
    reference = scores[f"nll.{REFERENCE}"].numpy()
    uniform = scores[f"nll.{UNIFORM}"].numpy()
    kl = scores[f"kl.{UNIFORM}"].numpy()
    token_kl = scores["token.kl_uniform"].numpy()
    resampler = Resampler(len(kl), seed)
    delta, spread = resampler.ppl_difference(reference, uniform), resampler.mean(kl)
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
        "bytes": sizes,
        "flagged": [r["block"] for r in swept.rows if r["view"] == "isolated" and r["flagged"]],
        "range": swept.range,
        "recovered": None,
        "additivity": isolated_kl / float(kl.mean()) if kl.mean() > 0 else None,
    }
