"""How many windows of a run's text a probe measures on, and which."""

from torch import Tensor

from awqscope.diagnose.passes.chunks import count_work
from awqscope.diagnose.passes.views import list_sampled
from awqscope.diagnose.plan.room import read_shape
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.statistics.looks import draw_order
from awqscope.diagnose.sweep.branches import Sweep
from awqscope.mixedprec.models.source import SourceModel

# FLOP that a probe takes unless it is told how many windows to measure on: a minute and a half of
# two cores. Of few windows hardly anything is sure: some are measured on whatever they take.
ENOUGH_FLOPS = 1.1e13
LEAST_WINDOWS = 4


def choose_windows(
    spec: RunSpec,
    model: SourceModel,
    windows: Tensor,
    sweep: Sweep,
    calibration: Tensor,
    asked: int | None,
) -> list[int]:
    """The numbers of the windows [n, length] of a run's text that a probe measures `sweep` on:
    `asked` of them, or as many as ENOUGH_FLOPS allow, but no more than the run measured its blocks
    on. They are the first of the run's own random order. calibration: windows [m, length] that are
    brought to the block to search on."""
    count = asked
    if count is None:
        shape = read_shape(model)
        block, length = sweep.branches[0].block, windows.shape[1]
        brought = calibration.numel() * block * shape.count_token_flops(calibration.shape[1])
        each = count_work(model, sweep, length)[-1] * length * shape.count_token_flops(length)
        most = len(list_sampled(spec, windows))
        count = min(most, max(LEAST_WINDOWS, int((ENOUGH_FLOPS - brought) / each)))
    return sorted(draw_order(len(windows), spec.seed)[:count].tolist())
