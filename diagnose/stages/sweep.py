"""The stage `sweep`: every block in its three views, what flows, and what is rounded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from awqscope.diagnose.entries.headline import Headline
from awqscope.diagnose.entries.stages import SweepPlan
from awqscope.diagnose.inputs.load import Inputs
from awqscope.diagnose.inputs.sizes import model_bytes
from awqscope.diagnose.inside.activations import ActivationLog
from awqscope.diagnose.inside.weights import weight_rows
from awqscope.diagnose.passes.chunks import Options, Subject, build_sweep
from awqscope.diagnose.passes.setting import Setting
from awqscope.diagnose.passes.views import describe_looks, measure_views
from awqscope.diagnose.runs.record import MIXED
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.runs.tables import ACTIVATIONS, BLOCKS, RANGES, WEIGHTS
from awqscope.diagnose.stages.noise import find_floor
from awqscope.diagnose.statistics.bootstrap import perplexity
from awqscope.diagnose.sweep.branches import (
    CONTROL,
    REFERENCE,
    UNIFORM,
    Sweepable,
    block_branches,
    count_streams,
)
from awqscope.diagnose.sweep.likely_rows import join_errors
from awqscope.diagnose.sweep.ranges import join_ranges
from awqscope.diagnose.sweep.results import (
    TOKENS_A_ROW_GROUP,
    block_rows,
    token_table,
)
from awqscope.diagnose.sweep.surveys import Surveys

# Entries of the headline that uniform and mixed both have, and all that tell models apart.
PAIRED = ("ppl", "delta_ppl", "kl", "kl_interval", "kl_p99", "kl_p999", "top1_agreement")
MEASURED_OF_MIXED = (*PAIRED, "bytes")


def token_texts(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> list[str]:
    """What each token id reads as on its own."""
    known = min(len(tokenizer), vocabulary)
    texts = tokenizer.batch_decode([[token] for token in range(known)])
    return texts + [""] * (vocabulary - known)


def _part(chunk: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What a chunk holds under names that begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in chunk.items() if k.startswith(prefix)}


@dataclass(frozen=True)
class Sweep:
    """What a sweep found: the scores by window and their means, the rows of blocks.parquet, what
    flowed, the errors of the weights, and the headline's `range`, None where a chunk did not keep
    it."""

    scores: dict[str, Tensor]
    surveys: Surveys
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
    at: Setting,
    sweep: Sweepable,
    group: Callable[[int], int],
) -> Sweep:
    """Measure every block in its three views; write blocks, tokens and what flowed.

    group: inputs of a linear -> inputs of a weight group.
    """
    model, run, floor = inputs.model, at.run, find_floor(inputs, at)
    found = measure_views(spec, inputs, at, sweep, group, floor.kl)
    scores, log = found.scores, ActivationLog()
    for _, kept in found.logs:
        log.merge(_part(kept, "activations."))
    flowed = [(numbers, _part(kept, "ranges.")) for numbers, kept in found.logs if numbers]
    ranges, largest = join_ranges(flowed)
    checked = join_errors([_part(kept, "head.") for _, kept in found.logs])
    control = float(scores[f"kl.{CONTROL}"].abs().max())
    if control != 0.0:
        raise AssertionError(f"a block swapped with itself gives KL {control:.2e}, not 0")
    run.write_arrays("work/sweep.safetensors", scores)
    run.write_arrays("activations.safetensors", log.arrays())
    surveys = Surveys(scores, spec.seed)
    rows = block_rows(surveys, model.blocks, spec.thresholds, floor.kl)
    run.write_table("blocks", rows, BLOCKS)
    run.write_table("ranges", ranges, RANGES)
    texts = token_texts(inputs.tokenizer, model.config.vocab_size)
    run.write_arrow(
        "tokens", token_table(inputs.windows, texts, scores), row_group=TOKENS_A_ROW_GROUP
    )
    run.update(
        sweep=SweepPlan(
            streams=count_streams(model, sweep),
            chunk_windows=run.read().chunks["sweep"],
            control_kl=control,
            head_positions=None if checked is None else checked[0],
            head_error=None if checked is None else checked[1],
            noise_floor=floor,
            **describe_looks(found, surveys, sweep.branches),
        )
    )
    weights = _part(found.logs[0][1], "weights.")
    return Sweep(scores, surveys, rows, log, weights, largest)


def sweep_stage(spec: RunSpec, inputs: Inputs, at: Setting) -> None:
    """Measure every block in its three views; write blocks, activations, weights and tokens."""
    model, kept, run = inputs.model, frozenset(spec.keep_fp16), at.run
    sweep = build_sweep(spec, model, run, block_branches(model, spec.bits, kept))
    swept = sweep_views(spec, inputs, at, sweep, spec.low.group)
    run.write_table("activations", swept.activations.rows(), ACTIVATIONS)
    run.write_table("weights", weight_rows(model, spec.bits, kept, swept.weights), WEIGHTS)
    low_bytes, reference = model_bytes(model, spec, {})
    sizes: dict[str, int] = {REFERENCE: reference, UNIFORM: low_bytes}
    found = list_numbers(swept, UNIFORM, sizes, swept.isolated_kl)
    found |= {entry: {**found[entry], MIXED: None} for entry in MEASURED_OF_MIXED}
    found["recovered"] = None
    # Where the sweep is repeated, what later stages have found stays.
    before = run.read_searched().headline
    headline = Headline(**found) if before is None else before.changed(**found)
    run.update(headline=headline)


def list_numbers(
    swept: Sweep, quantized: str, sizes: Mapping[str, int], isolated_kl: float
) -> dict[str, Any]:
    """The headline's entries that a sweep finds, of the reference and the model that its blocks
    were taken from.

    quantized: what that model is called in the headline. sizes: bytes of both, by name.
    isolated_kl: summed over everything that was swapped alone.
    """
    scores = swept.scores
    reference = scores[f"nll.{REFERENCE}"].numpy()
    uniform = scores[f"nll.{UNIFORM}"].numpy()
    kl = scores[f"kl.{UNIFORM}"].numpy()
    token_kl = scores["token.kl_uniform"].numpy()
    resampler = swept.surveys.resampler
    delta, spread = resampler.ppl_difference(reference, uniform), resampler.mean(kl)
    largest = None
    if swept.range is not None:
        largest = {REFERENCE: swept.range[REFERENCE], quantized: swept.range[UNIFORM]}
    return {
        "ppl": {REFERENCE: perplexity(reference), quantized: perplexity(uniform)},
        "delta_ppl": {quantized: (delta.value, delta.low, delta.high)},
        "kl": {quantized: float(kl.mean())},
        "kl_interval": {quantized: (spread.low, spread.high)},
        "kl_p99": {quantized: float(np.quantile(token_kl, 0.99))},
        "kl_p999": {quantized: float(np.quantile(token_kl, 0.999))},
        "top1_agreement": {quantized: float(scores[f"agree.{UNIFORM}"].mean())},
        "bytes": sizes,
        "flagged": [r["block"] for r in swept.rows if r["view"] == "isolated" and r["flagged"]],
        "range": largest,
        "additivity": isolated_kl / float(kl.mean()) if kl.mean() > 0 else None,
    }
