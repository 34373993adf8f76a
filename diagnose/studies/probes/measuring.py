"""A block's alternatives measured: each in place of the block in the reference (isolated) and in
the uniform model (restored), all in one pass over the weights a chunk of windows."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from awqscope.diagnose.passes.chunks import count_work
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.studies.probes.alternatives import Alternative
from awqscope.diagnose.studies.study import Study
from awqscope.diagnose.sweep.branches import REFERENCE, UNIFORM, Branch, Sweep, view_name
from awqscope.diagnose.sweep.one_pass import run_sweep
from awqscope.diagnose.sweep.swappable import (
    SwappableBlock,
    list_linears,
    read_swappable,
    uniform_widths,
)
from awqscope.mixedprec.awq.choices import BlockSearch, load_searches
from awqscope.mixedprec.awq.realise import Searches, realise
from awqscope.mixedprec.models.served import served_outside
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import CPU, StreamSpace, batch_size, list_slices
from awqscope.mixedprec.scheme import LinearWidths, list_quantized

# The block as the uniform model has it, among the alternatives to it.
AS_RUN = "as the run has it"
# Measuring that was stopped goes on with the first of so many parts that is not done.
PARTS = 2

OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Tried:
    """An alternative that is ready to be measured: the searches of its widths, and the width of
    each linear of the block."""

    searches: Searches
    widths: LinearWidths

    @property
    def is_reference(self) -> bool:
        """Whether it leaves the block as the reference has it."""
        return not self.searches

    def weights(self, block: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
        """What it puts in the reference's place, in the basis of the reference."""
        return realise(block, self.searches, self.widths, dtype).effective()


def make_ready(
    alternative: Alternative,
    found: BlockSearch | None,
    own: Searches,
    spec: RunSpec,
    uniform: LinearWidths,
    linears: Mapping[str, Sequence[str]],
) -> Tried:
    """An alternative with its searches. found: its own at the low width, None where it takes the
    run's, `own` by width. uniform: linear -> width of the block in the uniform model. linears: of
    each kind of unit."""
    low = found or own[spec.bits]
    if not alternative.clipped:
        low = replace(low, clips={})
    if not alternative.scaled:
        low = replace(low, scales=(), clips={})
    widths = dict(uniform)
    for kind, width in alternative.widths.items():
        widths |= dict.fromkeys(linears[kind], width)
    searches = {**own, alternative.groups or spec.bits: low}
    return Tried({width: searches[width] for width in list_quantized(widths.values())}, widths)


class ProbedBlock(SwappableBlock):
    """A block with alternatives beside the widths of the run's own searches. An alternative is
    asked for by its name, in a linear's place."""

    def __init__(
        self,
        block: nn.Module,
        searches: Searches,
        model: SourceModel,
        tried: Mapping[str, Tried],
    ):
        super().__init__(block, searches, model.dtype, list_linears(model.family))
        self._tried, self._served = tried, model.dtype
        self._last: tuple[str, dict[str, Tensor]] = ("", {})

    def weights(self, widths: LinearWidths) -> dict[str, Tensor]:
        """The parameters that `widths`, or the alternative in its place, puts in the
        reference's."""
        name = next(iter(widths), "")
        if name not in self._tried:
            return super().weights(widths)
        # The two views of an alternative are asked for one after the other.
        if name != self._last[0]:
            self.use({})
            self._last = name, self._tried[name].weights(self.block, self._served)
        return self._last[1]


@dataclass(frozen=True, kw_only=True)
class ProbeSweep(Sweep):
    """The uniform model of a run, and branches with alternatives to one of its blocks."""

    probed: int
    tried: Mapping[str, Tried]

    def read(self, model: SourceModel, block: int, device: torch.device = CPU) -> SwappableBlock:
        """Block `block` with its searches, and with the alternatives where they are to it."""
        if block != self.probed:
            return read_swappable(model, block, self.searches, self.bits, device)
        found = load_searches(self.searches, block, self.bits)
        own = {width: search.to(device) for width, search in found.items()}
        return ProbedBlock(model.read_block(block, device), own, model, self.tried)


def build_probe_sweep(
    spec: RunSpec, model: SourceModel, run: RunDirectory, block: int, tried: Mapping[str, Tried]
) -> ProbeSweep:
    """The sweep of a block's alternatives, and of the block as the run has it."""
    kept = frozenset(spec.keep_fp16)
    low = tuple(sorted(uniform_widths(model, spec.bits, kept, block).items()))
    branches = [Branch(view_name("isolated", AS_RUN), block, REFERENCE, low, REFERENCE)]
    for name, each in tried.items():
        # The reference's own block in the reference is the reference, which is there already.
        own = () if each.is_reference else ((name, 0),)
        branches += [
            Branch(view_name("isolated", name), block, REFERENCE, own, REFERENCE),
            Branch(view_name("restored", name), block, UNIFORM, own, UNIFORM),
        ]
    return ProbeSweep(
        low=spec.bits,
        bits=(spec.bits,),
        kept=kept,
        searches=run.searches,
        branches=tuple(branches),
        outside=served_outside(model),
        probed=block,
        tried=tried,
    )


def measure_windows(
    study: Study,
    model: SourceModel,
    windows: Tensor,
    sweep: ProbeSweep,
    space: StreamSpace,
    on_step: OnStep = lambda done, total: None,
) -> dict[str, list[float]]:
    """Mean KL of each of the windows [n, length], by view and alternative (`view_name`). What an
    earlier process measured of a part of them is taken from the study. space: where streams are
    kept. on_step: told the work done, in forwards of a window through a block, and all of it."""
    work = count_work(model, sweep, windows.shape[1])
    batch = batch_size(windows.shape[1])
    # Whole batches: a window is in one with the same others whatever the parts.
    chunks = list_slices(len(windows), math.ceil(len(windows) / PARTS / batch) * batch)
    found: dict[str, list[float]] = {}
    for number, chunk in enumerate(chunks):

        def report(done: int, before: int = chunk.start * work[-1]) -> None:
            on_step(before + done, len(windows) * work[-1])

        measure = partial(_measure, model, windows[chunk], sweep, space, work, report)
        for name, values in study.part(f"measured-{number}", measure).items():
            found.setdefault(name, []).extend(values)
        report((chunk.stop - chunk.start) * work[-1])
    return found


def _measure(
    model: SourceModel,
    windows: Tensor,
    sweep: ProbeSweep,
    space: StreamSpace,
    work: Sequence[int],
    report: Callable[[int], None],
) -> dict[str, list[float]]:
    """Mean KL of each of the windows; the block as the run has it, restored, is the uniform
    model. work: of a window, up to each block and up to the end of the head. report: told the work
    done."""
    blocks, head = work[-2], work[-1] - work[-2]
    scores = run_sweep(
        model,
        windows,
        sweep,
        space=space,
        on_block=lambda done: report(len(windows) * work[done - 1]),
        on_head=lambda done: report(len(windows) * blocks + head * done),
    )
    names = {branch.name: branch.name for branch in sweep.branches}
    names[view_name("restored", AS_RUN)] = UNIFORM
    return {name: scores[scored].kl.double().mean(1).tolist() for name, scored in names.items()}
