"""The study: every block with weights and inputs at int8, in the three views of a run's sweep."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from awqscope.diagnose.passes.chunks import choose_size, count_work
from awqscope.diagnose.passes.views import list_sampled
from awqscope.diagnose.runs.directory import OnProgress, RunDirectory
from awqscope.diagnose.runs.record import Record
from awqscope.diagnose.studies.int8_inputs.answer import (
    LLM_INT8,
    METHODS,
    SMOOTHQUANT,
    Activations,
    BlockDamage,
    Damage,
    Measured,
    Method,
    read_bounded,
)
from awqscope.diagnose.studies.int8_inputs.asked import ask, list_missing, read_known
from awqscope.diagnose.studies.int8_inputs.rounded_block import InputSweep
from awqscope.diagnose.studies.int8_inputs.rounding import BITS, find_outliers
from awqscope.diagnose.studies.int8_inputs.smoothing import search_smoothing
from awqscope.diagnose.studies.study import Study
from awqscope.diagnose.sweep.branches import CONTROL, UNIFORM, block_branches, count_streams
from awqscope.diagnose.sweep.one_pass import run_sweep
from awqscope.diagnose.sweep.results import VIEWS, block_rows, join_chunks, reduce_views
from awqscope.diagnose.sweep.surveys import Surveys, TextScores
from awqscope.diagnose.trials.course import STREAM_SHARE, load_measured
from awqscope.diagnose.trials.finished import OpenedRun
from awqscope.mixedprec.awq.search import stream_inputs
from awqscope.mixedprec.models.dtypes import FLOAT32
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import CPU, FLOAT_BYTES, StreamSpace, list_slices

OUTLIERS = "outliers."


def measure_activations(
    opened: OpenedRun,
    methods: Collection[str],
    on_progress: OnProgress = lambda stage, done, total: None,
    *,
    windows: int | None = None,
) -> Activations:
    """What int8 inputs cost every block of a run, by each of `methods` (of METHODS), beside what
    its weights at the low width do.

    A method that was measured before is not measured again, and stays in the answer; a study that
    was stopped goes on where it was. on_progress(stage, done, total). windows: how many of those
    that the run measured its blocks on, None for all; the answer for another number gives way.
    InputError for a method or a number that makes no sense, for texts that have changed since the
    run, and where another process works on the study.
    """
    study = ask(opened.run, methods, windows)
    known = read_known(study)
    missing = list_missing(known, methods)
    if not missing:
        return known
    with study.hold():
        # Another process may have kept a method since.
        known = read_known(study)
        missing = list_missing(known, missing)
        inputs = load_measured(opened.run, opened.model)
        numbers = list_spread(list_sampled(opened.spec, inputs.windows), windows)
        measured = inputs.windows[numbers]
        bench = _Bench(study, opened, measured, inputs.search_windows, on_progress)
        found = {each.method: each for each in known.methods}
        found |= {method: bench.measure(method) for method in missing}
        answer = known.changed(
            windows=numbers,
            tokens=len(measured) * (measured.shape[1] - 1),
            methods=[found[method] for method in METHODS if method in found],
        )
        study.keep(answer.to_json())
    return answer


def list_spread(numbers: Sequence[int], most: int | None) -> list[int]:
    """At most so many of the windows of these numbers, spread over all of them."""
    count = len(numbers) if most is None else min(most, len(numbers))
    return [numbers[place * len(numbers) // count] for place in range(count)]


def find_noise(record: Record) -> float:
    """The KL up to which damage is noise: the run's floor where it computed in float32, as here."""
    floor = None if record.sweep is None else record.sweep.noise_floor
    return floor.kl if floor is not None and floor.precision == FLOAT32 else 0.0


@dataclass(frozen=True)
class _Bench:
    """What every method is measured with. windows [n, length]: of the run's text; calibration: the
    windows that its search read."""

    study: Study
    opened: OpenedRun
    windows: Tensor
    calibration: Tensor
    on_progress: OnProgress

    @property
    def run(self) -> RunDirectory:
        return self.opened.run

    @property
    def model(self) -> SourceModel:
        return self.opened.model

    @property
    def budget(self) -> int:
        """Bytes that streams may take in memory; more goes to files."""
        return int(self.opened.spec.max_memory * STREAM_SHARE)

    def open_space(self) -> StreamSpace:
        return StreamSpace(((CPU, self.budget),), self.study.parts / "streams")

    def measure(self, method: Method) -> Measured:
        """Every block in its three views."""
        spec, alphas = self.opened.spec, None
        if method == SMOOTHQUANT:
            alphas = self._smooth()
        kept = frozenset(spec.keep_fp16)
        branches = block_branches(self.model, BITS, kept)
        scales = self._read_scales if method == SMOOTHQUANT else _no_scales
        chunks = self._sweep(InputSweep(method, kept, branches, scales))
        scores = TextScores(len(self.windows))
        scores.put(join_chunks(chunks), range(len(self.windows)))
        found = scores.arrays()
        control = float(found[f"kl.{CONTROL}"].abs().max())
        if control != 0.0:
            raise AssertionError(f"a block swapped with itself gives KL {control:.2e}, not 0")
        surveys = Surveys(found, spec.seed)
        floor = find_noise(self.run.read_searched())
        return Measured(
            method=method,
            whole=read_damage(surveys.damage(UNIFORM)),
            blocks=list_blocks(block_rows(surveys, self.model.blocks, spec.thresholds, floor)),
            kept=_mean_outliers(found) if method == LLM_INT8 else None,
            alphas=alphas,
        )

    def _sweep(self, sweep: InputSweep) -> list[dict[str, Tensor]]:
        """What is kept of every chunk of windows, each a part of the study."""
        count, length = self.windows.shape
        stream = length * self.model.config.hidden_size * FLOAT_BYTES
        most = max(1, self.budget // (stream * count_streams(self.model, sweep)))
        chunks = list_slices(count, choose_size(count, length, most, 1))
        work = count_work(self.model, sweep, length)
        found = []
        for number, chunk in enumerate(chunks):
            report = partial(self._report, sweep.method, work, chunk)
            sweep_chunk = partial(self._sweep_chunk, sweep, self.windows[chunk], report)
            kept = self.study.part(f"{sweep.method}-{number}", sweep_chunk)
            found.append({n: torch.tensor(v, dtype=torch.float64) for n, v in kept.items()})
            report(blocks=0, windows=chunk.stop - chunk.start)
        return found

    def _report(
        self, method: str, work: Sequence[int], chunk: slice, *, blocks: int, windows: int
    ) -> None:
        """Say how far a method is. blocks: those done of a chunk; windows: those scored after."""
        size = chunk.stop - chunk.start
        done = work[blocks - 1] * size if blocks else work[-2] * size
        done += (work[-1] - work[-2]) * windows
        total = work[-1] * len(self.windows)
        self.on_progress(f"{method} inputs", work[-1] * chunk.start + done, total)

    def _sweep_chunk(
        self, sweep: InputSweep, windows: Tensor, report: Callable[..., None]
    ) -> dict[str, list[float]]:
        """By window, what every model of the sweep scores, and of llm.int8 the share of channels
        that stay at 16 bits."""
        log = _OutlierLog(windows.shape[1])
        scores = run_sweep(
            self.model,
            windows,
            sweep,
            observe=log.observe if sweep.method == LLM_INT8 else None,
            on_block=lambda done: report(blocks=done, windows=0),
            on_head=lambda done: report(blocks=0, windows=done),
            space=self.open_space(),
        )
        kept = reduce_views(scores) | log.state()
        return {name: values.tolist() for name, values in kept.items()}

    def _smooth(self) -> dict[str, float]:
        """Search the scales of every block; give the α of its units."""
        run, blocks = self.run, range(self.model.blocks)
        missing = [number for number in blocks if not run.holds(self._name_scales(number))]
        streams = stream_inputs(self.model, self.calibration, missing, space=self.open_space())
        for number, stream, kwargs in streams:
            found = search_smoothing(self.model, number, stream, kwargs)
            arrays = {f"alpha.{name}": torch.tensor(value) for name, value in found.alphas.items()}
            arrays |= {f"scales.{name}": each for name, each in found.scales.items()}
            # A block without a place for any scale still has a file.
            arrays["searched"] = torch.ones(1)
            run.write_arrays(self._name_scales(number), arrays)
            self.on_progress("smoothquant scales", number + 1, len(blocks))
        kinds = [kind.name for kind in self.model.family.units]
        return {
            f"{number}.{kind}": round(float(arrays[f"alpha.{kind}"]), 1)
            for number in blocks
            for arrays in (run.read_arrays(self._name_scales(number)),)
            for kind in kinds
            if f"alpha.{kind}" in arrays
        }

    def _name_scales(self, number: int) -> str:
        """The file of a block's scales, as a path in the run."""
        return f"{self.study.parts.relative_to(self.run.path)}/scales-{number}.safetensors"

    def _read_scales(self, number: int) -> dict[str, Tensor]:
        arrays = self.run.read_arrays(self._name_scales(number))
        return {
            name.removeprefix("scales."): torch.from_numpy(values)
            for name, values in arrays.items()
            if name.startswith("scales.")
        }


def _no_scales(number: int) -> Mapping[str, Tensor]:
    return {}


class _OutlierLog:
    """The share of channels with an outlier in the reference, by unit and window: an observer of a
    sweep."""

    def __init__(self, length: int) -> None:
        """length: tokens of a window."""
        self._length = length
        self._shares: dict[str, list[Tensor]] = {}

    def observe(self, block: int, site: str, reference: Tensor, rounded: Tensor) -> None:
        """Take in a batch of what flows into a unit, as `run_sweep` gives it."""
        if site == "output":
            return
        inputs = reference.reshape(-1, self._length, reference.shape[-1])
        share = find_outliers(inputs).double().mean((1, 2))
        self._shares.setdefault(f"{OUTLIERS}{block}.{site}", []).append(share)

    def state(self) -> dict[str, Tensor]:
        """By unit, a share a window."""
        return {name: torch.cat(shares) for name, shares in self._shares.items()}


def _mean_outliers(scores: Mapping[str, Tensor]) -> dict[str, float]:
    """By unit, the mean share of channels that stay at 16 bits."""
    return {
        name.removeprefix(OUTLIERS): float(shares.mean())
        for name, shares in scores.items()
        if name.startswith(OUTLIERS)
    }


def read_damage(row: Mapping[str, Any]) -> Damage:
    """What a model loses, of a row of blocks.parquet."""
    return Damage(
        kl=read_bounded(row, "kl"),
        delta_ppl=read_bounded(row, "delta_ppl"),
        top1_agreement=row["top1_agreement"],
    )


def list_blocks(rows: Sequence[Mapping[str, Any]]) -> list[BlockDamage]:
    """Every block in its three views, of rows of blocks.parquet."""
    by_view = {view: [row for row in rows if row["view"] == view] for view in VIEWS}
    return [
        BlockDamage(
            block=isolated["block"],
            isolated=read_damage(isolated),
            cumulative=read_damage(cumulative),
            restored=read_damage(restored),
            refuses=isolated["flagged"],
            z=isolated["z"],
            reason=isolated["reason"],
        )
        for isolated, cumulative, restored in zip(*by_view.values(), strict=True)
    ]
