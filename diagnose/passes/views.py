"""The three views of every block, measured on as many windows as the verdict needs.

The trunks go through the whole text. The views are measured on windows in random order: all of them
on the first few, then, after each look, the isolated views of those blocks whose flag is not sure
(of all blocks, as long as their isolated damage together is not known well enough).
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from awqscope.diagnose.passes.chunks import Options, Pass, Passes, Subject, read_tensors
from awqscope.diagnose.passes.setting import Setting
from awqscope.diagnose.plan.demand import TRUNKS
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.statistics.bootstrap import Estimate, Floats
from awqscope.diagnose.statistics.looks import Drawn, draw_order, find_unsure, is_known, list_looks
from awqscope.diagnose.statistics.spikes import Thresholds
from awqscope.diagnose.statistics.survey import Survey
from awqscope.diagnose.sweep.branches import (
    REFERENCE,
    UNIFORM,
    Branch,
    Sweepable,
    count_streams,
    view_name,
)
from awqscope.diagnose.sweep.results import (
    block_rows,
    join_chunks,
    list_damages,
    reduce_chunk,
    reduce_trunks,
    reduce_views,
)
from awqscope.diagnose.sweep.surveys import Surveys, TextScores

STAGE = "sweep"
ISOLATED = view_name("isolated", "")


def list_sampled(spec: Options, windows: Tensor) -> list[int]:
    """The windows of a text [n, length] that all views are measured on, in the text's order."""
    count, length = windows.shape
    first = list_looks(count, length, spec.sweep_windows)[0] if spec.is_sampled else count
    return sorted(draw_order(count, spec.seed)[:first].tolist())


@dataclass(frozen=True)
class Sample:
    """The windows that units are measured on, of a text whose uniform KL is known for all of them:
    their numbers, and the means that they give of the text."""

    windows: list[int]
    survey: Survey
    # The uniform model's KL by window [n].
    control: Floats

    def mean(self, by_window: Tensor) -> Estimate:
        """The mean over the text of KL that was measured on these windows [m]."""
        values = np.zeros(len(self.control))
        values[self.windows] = by_window.double().numpy()
        return self.survey.mean(values, self.control)


def read_sample(spec: Options, windows: Tensor, run: RunDirectory) -> Sample:
    """The sample of a run's text [n, length], once it has been swept."""
    sampled, surveys = list_sampled(spec, windows), Surveys(read_sweep(run), spec.seed)
    measured = np.zeros(len(windows), dtype=bool)
    measured[sampled] = True
    return Sample(sampled, surveys.on(measured), surveys.values("kl", UNIFORM))


def read_sweep(run: RunDirectory) -> dict[str, Tensor]:
    """The joined results of the sweep, kept until the run is done."""
    return read_tensors(run, "work/sweep.safetensors")


@dataclass(frozen=True)
class Found:
    """What the passes of a sweep found.

    scores: by window, as `TextScores` has them. logs: what the chunks kept besides, with the
    numbers of their windows. looks: the windows that there was a look after."""

    scores: dict[str, Tensor]
    logs: list[tuple[list[int], dict[str, Tensor]]]
    looks: list[int]


LOGGED = ("activations.", "weights.", "ranges.", "head.")


def _without_logs(chunk: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: values for name, values in chunk.items() if not name.startswith(LOGGED)}


def _only_logs(chunk: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: values for name, values in chunk.items() if name.startswith(LOGGED)}


@dataclass(frozen=True)
class _Part:
    """A pass over windows of these numbers."""

    numbers: list[int]
    carry: Pass


def _plan_first(
    spec: Options, inputs: Subject, at: Setting, sweep: Sweepable, group: Callable[[int], int]
) -> list[_Part]:
    """The passes before the first look: of everything over the first windows, and of the trunks
    over all others."""
    model, windows = inputs.model, inputs.windows
    first = list_sampled(spec, windows)
    rest = sorted(set(range(len(windows))).difference(first))
    views = Pass(
        name=STAGE,
        model=model,
        windows=windows[first],
        sweep=sweep,
        reduce=partial(reduce_chunk, blocks=model.blocks),
        group=group,
        with_weights=True,
    )
    if not rest:
        return [_Part(first, views)]
    trunks = Pass(
        name="sweep-trunks",
        model=model,
        windows=windows[rest],
        sweep=sweep.only(()),
        reduce=reduce_trunks,
        group=group,
        most=_count_windows(at, sweep, inputs, TRUNKS),
    )
    return [_Part(first, views), _Part(rest, trunks)]


def _plan_more(
    look: int,
    numbers: list[int],
    unsure: tuple[Branch, ...],
    inputs: Subject,
    at: Setting,
    sweep: Sweepable,
) -> _Part:
    """The pass before a later look, over windows of these numbers."""
    carry = Pass(
        name=f"sweep-{look}",
        model=inputs.model,
        windows=inputs.windows[numbers],
        sweep=sweep.only(unsure),
        reduce=reduce_views,
        with_uniform=any(UNIFORM in (branch.prefix, branch.suffix) for branch in unsure),
        most=_count_windows(at, sweep, inputs, TRUNKS + len(unsure)),
    )
    return _Part(numbers, carry)


def _count_windows(at: Setting, sweep: Sweepable, inputs: Subject, streams: int) -> int:
    """Windows a chunk where so many streams flow: more than in the sweep as fewer streams do."""
    planned, most = at.plan.stage(STAGE).chunk_windows, count_streams(inputs.model, sweep)
    return planned * max(1, most // streams)


def measure_views(
    spec: Options,
    inputs: Subject,
    at: Setting,
    sweep: Sweepable,
    group: Callable[[int], int],
    floor: float,
) -> Found:
    """Carry out the sweep. group: inputs of a linear -> inputs of a weight group. floor: the KL up
    to which damage is noise."""
    count, length = inputs.windows.shape
    looks = list_looks(count, length, spec.sweep_windows) if spec.is_sampled else (count,)
    order = draw_order(count, spec.seed)
    passes, text = Passes(STAGE, at), TextScores(count)
    logs: list[tuple[list[int], dict[str, Tensor]]] = []
    parts = _plan_first(spec, inputs, at, sweep, group)
    results = passes.carry_out(*(part.carry for part in parts))
    for part, chunks in zip(parts, results, strict=True):
        text.put(join_chunks([_without_logs(chunk) for chunk in chunks]), part.numbers)
        left = iter(part.numbers)
        for chunk in chunks:
            some = list(itertools.islice(left, len(chunk[f"kl.{UNIFORM}"])))
            logs.append((some, _only_logs(chunk)))
    taken = [looks[0]]
    for look, (before, after) in enumerate(itertools.pairwise(looks), start=2):
        surveys = Surveys(text.arrays(), spec.seed)
        judged = (inputs.model.blocks, spec.thresholds, floor, len(looks))
        unsure = list_unsure(surveys, sweep.branches, *judged)
        if not unsure:
            break
        part = _plan_more(look, sorted(order[before:after].tolist()), unsure, inputs, at, sweep)
        [chunks] = passes.carry_out(part.carry)
        joined = join_chunks([_without_logs(chunk) for chunk in chunks])
        # The trunks are known there already.
        known = tuple(f".{trunk}" for trunk in (REFERENCE, UNIFORM))
        text.put({n: v for n, v in joined.items() if not n.endswith(known)}, part.numbers)
        logs += [([], _only_logs(chunk)) for chunk in chunks]
        taken.append(after)
    return Found(text.arrays(), logs, taken)


def list_unsure(
    surveys: Surveys,
    branches: Sequence[Branch],
    blocks: int,
    thresholds: Thresholds,
    floor: float,
    looks: int,
) -> tuple[Branch, ...]:
    """The isolated views that must be measured on more windows."""
    isolated = {b.name: b for b in branches if b.name.startswith(ISOLATED)}
    if not is_known(*sum_isolated(surveys, list(isolated))):
        return tuple(isolated.values())
    damages = list_damages(block_rows(surveys, blocks, thresholds, floor))
    drawn = {block: draw_damage(surveys, view_name("isolated", block)) for block in range(blocks)}
    unsure = find_unsure(damages, drawn, thresholds, looks, floor)
    return tuple(isolated[view_name("isolated", block)] for block in unsure)


def draw_damage(surveys: Surveys, name: str) -> Drawn:
    """What a model's KL and ΔPPL may be on the whole text."""
    survey = surveys.of(name)
    reference, uniform = surveys.values("nll", REFERENCE), surveys.values("nll", UNIFORM)
    nll = surveys.values("nll", name)
    _, kl = survey.of_text(surveys.values("kl", name), surveys.values("kl", UNIFORM))
    _, more = survey.of_text(nll - reference, uniform - reference)
    base = float(reference.mean())
    return Drawn(kl, np.exp(base + more) - np.exp(base))


def sum_isolated(surveys: Surveys, names: Sequence[str]) -> tuple[float, Floats]:
    """The isolated KL of all these views together, and what it may be on the whole text. Those that
    were measured on the same windows are summed first: together they follow the uniform KL more
    closely than one by one."""
    control, sums = surveys.values("kl", UNIFORM), dict[Survey, Floats]()
    for name in names:
        survey = surveys.of(name)
        sums[survey] = sums.get(survey, 0.0) + surveys.values("kl", name)
    found = [survey.of_text(summed, control) for survey, summed in sums.items()]
    return sum(value for value, _ in found), np.sum([drawn for _, drawn in found], axis=0)


def describe_looks(found: Found, surveys: Surveys, branches: Sequence[Branch]) -> dict[str, Any]:
    """The entries of the record's `sweep` that say how many windows the views were measured on."""
    if found.looks == [surveys.windows]:
        return {}
    names = [branch.name for branch in branches if branch.name.startswith(ISOLATED)]
    value, drawn = sum_isolated(surveys, names)
    low, high = np.quantile(drawn, [0.025, 0.975])
    first = surveys.of(view_name("cumulative", 0))
    summed = sum(surveys.values("kl", name) for name in names)
    return {
        "looks": found.looks,
        "isolated_error": float(high - low) / 2 / value if value > 0 else None,
        "narrowed": first.narrows(np.asarray(summed), surveys.values("kl", UNIFORM)),
    }
