"""The measuring stages of a run, from the AWQ search to the units worth promoting. Each reads and
writes the run directory; what it decides is decided by pure functions elsewhere."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from diagnose.activations import ActivationLog
from diagnose.bootstrap import Resampler
from diagnose.estimator import estimate_units, sampling_error
from diagnose.inputs import Inputs
from diagnose.measure import (
    TOKENS_A_ROW_GROUP,
    block_rows,
    join_chunks,
    reduce_chunk,
    token_table,
)
from diagnose.refine import (
    Promotion,
    choose_promotion,
    pick_for_verification,
    promotion_branches,
    rank_correlation,
    unit_branch,
)
from diagnose.rundir import OnProgress, RunDirectory
from diagnose.sizes import linear_bytes, model_bytes, unit_bytes
from diagnose.spec import RunSpec
from diagnose.spikes import Thresholds
from diagnose.sweep import (
    CONTROL,
    REFERENCE,
    UNIFORM,
    Branch,
    Plan,
    Sweepable,
    block_branches,
    count_streams,
    list_chunks,
    run_sweep,
    windows_a_chunk,
)
from diagnose.tables import ACTIVATIONS, BLOCKS, LINEARS, PROMOTIONS, UNITS, WEIGHTS
from diagnose.weights import WeightLog, weight_rows
from mixedprec.block_search import search_model
from mixedprec.families import Unit, list_units
from mixedprec.model import SourceModel
from mixedprec.scheme import FP16_BITS
from mixedprec.searches import read_uncalibrated, search_path


class Options(Protocol):
    """What a sweep is asked, by a run or a comparison."""

    @property
    def seed(self) -> int: ...

    @property
    def max_memory(self) -> int: ...

    @property
    def thresholds(self) -> Thresholds: ...


class Subject(Protocol):
    """What a sweep works on."""

    @property
    def model(self) -> SourceModel: ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    @property
    def windows(self) -> Tensor: ...


# Half of the memory budget is for streams; blocks, the head and the search use the rest.
STREAM_SHARE = 0.5
# What the sampling of tokens may add to the estimates' error (95%), and the most samples for it.
ESTIMATE_ERROR = 0.1
MOST_DRAWS = 4
ESTIMATED = ("estimated_kl", "estimated_kl_low", "estimated_kl_high")
EXACT = ("exact_kl", "exact_kl_low", "exact_kl_high")


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
    low = spec.bits
    paths = {number: search_path(run.searches, number, low) for number in range(blocks)}
    found = {str(number): read_uncalibrated(path) for number, path in paths.items()}
    uncalibrated = {number: list(experts) for number, experts in found.items() if experts}
    if uncalibrated:
        run.update(uncalibrated=uncalibrated)


def _steps_of(progress: OnProgress, stage: str, before: int, total: int) -> Callable[[int], None]:
    """Reports steps of one chunk as steps of the whole stage."""
    return lambda done: progress(stage, before + done, total)


def _swept_chunks(
    name: str,
    spec: Options,
    inputs: Subject,
    run: RunDirectory,
    plan: Sweepable,
    progress: OnProgress,
    reduce: Callable[[dict], dict[str, Tensor]],
    *,
    group: Callable[[int], int] | None = None,
) -> list[dict[str, Tensor]]:
    """Run the plan chunk by chunk, keeping each chunk's result in work/ until the run is done.

    group: keep `activations.…` of every chunk too, and `weights.…`, which are the same for all, of
    the first; it gives the size of the weight groups for a number of inputs.
    """
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
        activations, weights = ActivationLog(), WeightLog(group or int)
        scores = run_sweep(
            model,
            windows[chunk],
            plan,
            observe=activations.observe if group else None,
            inspect=weights.observe if group and number == 0 else None,
            on_block=_steps_of(progress, name, number * steps, total),
        )
        state = {f"activations.{key}": value for key, value in activations.state().items()}
        state |= {f"weights.{key}": value for key, value in weights.state().items()}
        run.write_arrays(file, reduce(scores) | state)
    return [read_tensors(run, f"work/{name}-{n:04d}.safetensors") for n in range(len(chunks))]


def read_tensors(run: RunDirectory, name: str) -> dict[str, Tensor]:
    """A safetensors file of a run as tensors."""
    return {key: torch.from_numpy(array) for key, array in run.read_arrays(name).items()}


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
    """What a sweep found: the joined scores, the rows of blocks.parquet, what flowed, and the
    errors of the weights."""

    scores: dict[str, Tensor]
    rows: list[dict[str, Any]]
    activations: ActivationLog
    weights: dict[str, Tensor]

    @property
    def isolated_kl(self) -> float:
        """The isolated KL of all blocks, summed."""
        return sum(row["kl"] for row in self.rows if row["view"] == "isolated")


def sweep_views(
    spec: Options,
    inputs: Subject,
    run: RunDirectory,
    plan: Sweepable,
    progress: OnProgress,
    group: Callable[[int], int],
) -> Sweep:
    """Measure every block in its three views; write blocks, tokens and what flowed.

    group: inputs of a linear -> inputs of a weight group.
    """
    model = inputs.model
    chunks = _swept_chunks(
        "sweep",
        spec,
        inputs,
        run,
        plan,
        progress,
        lambda scores: reduce_chunk(scores, model.blocks),
        group=group,
    )
    log = ActivationLog()
    for chunk in chunks:
        log.merge(_part(chunk, "activations."))
    logged = ("activations.", "weights.")
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
    texts = token_texts(inputs.tokenizer, model.config.vocab_size)
    run.write_arrow(
        "tokens", token_table(inputs.windows, texts, scores), row_group=TOKENS_A_ROW_GROUP
    )
    run.update(
        plan={
            "streams": count_streams(model, plan),
            "chunk_windows": run.read()["chunks"]["sweep"],
            "control_kl": control,
        },
    )
    return Sweep(scores, rows, log, _part(chunks[0], "weights."))


def sweep_stage(spec: RunSpec, inputs: Inputs, run: RunDirectory, progress: OnProgress) -> None:
    """Measure every block in its three views; write blocks, activations, weights and tokens."""
    model, kept = inputs.model, frozenset(spec.keep_fp16)
    plan = _plan(spec, model, run, block_branches(model, spec.bits, kept))
    swept = sweep_views(spec, inputs, run, plan, progress, spec.low.group)
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
        "recovered": None,
        "additivity": isolated_kl / float(kl.mean()) if kl.mean() > 0 else None,
    }


def unquantized_row(model: SourceModel, unit: Unit, spec: RunSpec) -> dict[str, Any]:
    """The row of units.parquet of a unit at 16 bits: it is the reference, so its KL is 0."""
    return {
        "unit": unit.name,
        "block": unit.block,
        "kind": unit.kind.name,
        "bits": FP16_BITS,
        "bytes": unit_bytes(model, unit, FP16_BITS, spec),
        **dict.fromkeys(ESTIMATED + EXACT, 0.0),
    }


def _draw_estimates(
    spec: RunSpec, inputs: Inputs, run: RunDirectory, progress: OnProgress
) -> tuple[dict[tuple[str, int], Tensor], dict[tuple[str, int], Tensor]]:
    """Estimates of units and of linears by window, with as many samples of every token as keep
    what sampling adds to their error within ESTIMATE_ERROR."""
    model = inputs.model
    stream = inputs.windows.shape[1] * model.config.hidden_size * 4
    size = max(1, int(spec.max_memory * STREAM_SHARE) // (stream * (model.blocks + 4)))
    chunks = list_chunks(len(inputs.windows), size)
    steps = 2 * model.blocks
    units: dict[tuple[str, int], list[Tensor]] = {}
    linears: dict[tuple[str, int], list[Tensor]] = {}
    for draw in range(MOST_DRAWS):
        before = draw * len(chunks)
        found = [
            estimate_units(
                model,
                inputs.windows[chunk],
                run.searches,
                (spec.bits, spec.rescue_bits),
                seed=spec.seed,
                draw=draw,
                first=chunk.start,
                on_block=_steps_of(
                    progress, "estimate", (before + number) * steps, (before + len(chunks)) * steps
                ),
            )
            for number, chunk in enumerate(chunks)
        ]
        for key in found[0].units:
            units.setdefault(key, []).append(torch.cat([part.units[key] for part in found]))
        for key in found[0].linears:
            linears.setdefault(key, []).append(torch.cat([part.linears[key] for part in found]))
        low = [torch.stack(draws) for (_, bits), draws in units.items() if bits == spec.bits]
        error = sampling_error(torch.stack(low, 1).double())
        if error <= ESTIMATE_ERROR:
            break
    run.update(estimator={"draws": draw + 1, "sampling_error": error})
    return (
        {key: torch.stack(draws).mean(0) for key, draws in units.items()},
        {key: torch.stack(draws).mean(0) for key, draws in linears.items()},
    )


def estimate_stage(spec: RunSpec, inputs: Inputs, run: RunDirectory, progress: OnProgress) -> None:
    """Estimate every unit and every linear at both widths, and say what a unit is at 16 bits; write
    units and linears."""
    model = inputs.model
    resampler = Resampler(len(inputs.windows), spec.seed)
    by_unit, by_linear = _draw_estimates(spec, inputs, run, progress)

    def estimated(by_window: Tensor) -> dict[str, float]:
        estimate = resampler.mean(by_window.double().numpy())
        values = (estimate.value, estimate.low, estimate.high)
        return dict(zip(ESTIMATED, values, strict=True))

    rows, linear_rows = [], []
    for unit in list_units(model.family, model.blocks):
        where = {"unit": unit.name, "block": unit.block}
        names = {linear: f"{model.prefix(unit.block)}.{linear}" for linear in unit.linears}
        for width in (spec.bits, spec.rescue_bits):
            rows.append(
                {
                    **where,
                    "kind": unit.kind.name,
                    "bits": width,
                    "bytes": unit_bytes(model, unit, width, spec),
                    **estimated(by_unit[unit.name, width]),
                    **dict.fromkeys(EXACT),
                }
            )
            linear_rows += [
                {
                    **where,
                    "linear": name,
                    "bits": width,
                    "bytes": linear_bytes(model, unit.block, linear, width, spec),
                    **estimated(by_linear[name, width]),
                }
                for linear, name in names.items()
            ]
        rows.append(unquantized_row(model, unit, spec))
        linear_rows += [
            {
                **where,
                "linear": name,
                "bits": FP16_BITS,
                "bytes": linear_bytes(model, unit.block, linear, FP16_BITS, spec),
                **dict.fromkeys(ESTIMATED, 0.0),
            }
            for linear, name in names.items()
        ]
    run.write_table("linears", linear_rows, LINEARS)
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
        estimator={
            **run.read()["estimator"],
            "spearman": correlation,
            "verified_units": len(exact),
        },
        headline={**run.read()["headline"], "predicted_recovered": min(1.0, given_back)},
    )
