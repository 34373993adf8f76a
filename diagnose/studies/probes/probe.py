"""What would help a block: every alternative to it searched for it alone, and measured in its place
with a finished run's model and texts."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch

from awqscope.diagnose.inputs.load import Inputs
from awqscope.diagnose.runs.directory import OnProgress
from awqscope.diagnose.studies.probes.alternatives import list_alternatives
from awqscope.diagnose.studies.probes.answer import BlockProbe, sort_measured
from awqscope.diagnose.studies.probes.asked import Asked, ask, choose_blocks, read_probe
from awqscope.diagnose.studies.probes.measuring import (
    Tried,
    build_probe_sweep,
    make_ready,
    measure_windows,
)
from awqscope.diagnose.studies.probes.searching import (
    Planned,
    plan_searches,
    search_alternatives,
)
from awqscope.diagnose.studies.probes.weighing import BlockSizes, Views, weigh_alternative
from awqscope.diagnose.studies.probes.windows import choose_windows
from awqscope.diagnose.sweep.swappable import uniform_widths
from awqscope.diagnose.trials.course import STREAM_SHARE, load_measured
from awqscope.diagnose.trials.finished import OpenedRun
from awqscope.mixedprec.awq.choices import load_searches
from awqscope.mixedprec.models.streams import CPU, StreamSpace
from awqscope.mixedprec.scheme import LinearWidths


def probe_blocks(
    opened: OpenedRun,
    blocks: Sequence[int] = (),
    *,
    windows: int | None = None,
    calib_also: Sequence[str] = (),
    progress: OnProgress = lambda stage, done, total: None,
) -> list[BlockProbe]:
    """What would help some blocks of a run, by default those that `choose_blocks` does; each answer
    is kept beside the run, and what is kept is not measured again.

    windows: of the run's text to measure on, None for as many as are done in a minute or two.
    calib_also: SPECs of further texts to calibrate on. progress: told what is done, the steps of
    it, and how many there are. InputError for what cannot be asked of the run, and for texts that
    are not what it measured."""
    asked, chosen = ask(opened.run, windows, calib_also), choose_blocks(opened.run, blocks)
    found = {block: read_probe(opened.run, block, asked) for block in chosen}
    inputs = load_measured(opened.run, opened.model) if None in found.values() else None
    for block, probe in found.items():
        if probe is None and inputs is not None:
            found[block] = _probe(opened, inputs, block, asked, progress)
    return [probe for probe in found.values() if probe is not None]


@torch.no_grad()
def _probe(
    opened: OpenedRun, inputs: Inputs, block: int, asked: Asked, progress: OnProgress
) -> BlockProbe:
    """Search and measure the alternatives to a block, and keep the answer."""
    run, spec, model = opened.run, opened.spec, opened.model
    study = asked.study(run, block)
    alternatives = list_alternatives(run.read_searched(), block, tuple(asked.also))
    planned = plan_searches(alternatives, spec, inputs)
    with study.hold():
        space = StreamSpace([(CPU, int(spec.max_memory * STREAM_SHARE))], study.parts)
        searching = partial(progress, f"searching for block {block}")
        found = search_alternatives(
            planned, spec, inputs, block, run.searches, study.parts, space, searching
        )
        own = load_searches(run.searches, block, tuple(spec.schemes))
        low = uniform_widths(model, spec.bits, frozenset(spec.keep_fp16), block)
        linears = {kind.name: kind.linears for kind in model.family.units}
        tried = {
            each.name: make_ready(each, found.get(each.name), own, spec, low, linears)
            for each in planned.taken
        }
        sweep = build_probe_sweep(spec, model, run, block, tried)
        most = asked.windows
        chosen = choose_windows(spec, model, inputs.windows, sweep, planned.windows, most)
        windows = inputs.windows[chosen]
        measuring = partial(progress, f"measuring block {block}")
        by_window = measure_windows(study, model, windows, sweep, space, measuring)
        views = Views(run, spec.seed, chosen, by_window)
        answer = _describe(opened, inputs, planned, tried, low, views, chosen, block)
        study.keep(answer.to_json())
    return answer


def _describe(
    opened: OpenedRun,
    inputs: Inputs,
    planned: Planned,
    tried: Mapping[str, Tried],
    low: LinearWidths,
    views: Views,
    chosen: Sequence[int],
    block: int,
) -> BlockProbe:
    """The answer. low: linear -> width of the block in the uniform model."""
    record, sizes = opened.run.read_searched(), BlockSizes(opened.model, opened.spec, block)
    measured = [
        weigh_alternative(each, tried[each.name].widths, views, sizes, low)
        for each in planned.taken
    ]
    count, length = inputs.windows.shape
    return BlockProbe(
        run=opened.run.path.resolve().name,
        model=opened.spec.model,
        block=block,
        flagged=block in record.measured.flagged,
        bits=opened.spec.bits,
        group_size=opened.spec.low.group_size,
        symmetric=opened.spec.symmetric,
        windows=list(chosen),
        of_windows=count,
        scored_tokens=len(chosen) * (length - 1),
        isolated=views.damage("isolated"),
        uniform=views.damage("restored"),
        bytes=sizes.count(low),
        bits_per_weight=8 * sizes.count(low) / sizes.weights,
        alternatives=sort_measured(measured),
        refused=list(planned.refused),
    )
