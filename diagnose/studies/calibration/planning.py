"""What a study of the calibration will take, from what the run's own search took."""

from collections.abc import Sequence
from dataclasses import dataclass

from awqscope.diagnose.plan.demand import (
    PRODUCT_FLOPS,
    Flow,
    Shape,
    count_end_flops,
    demand_search,
)
from awqscope.diagnose.plan.room import read_shape
from awqscope.diagnose.runs.record import Record
from awqscope.diagnose.studies.calibration.calibrations import Calibration
from awqscope.diagnose.trials.finished import OpenedRun


@dataclass(frozen=True)
class Plan:
    """What a study takes. searches: how many are yet to be made, and `tokens` that they read, from
    fewest to most. models: how many are measured, on so many `windows`. seconds: of all; None where
    the run does not say what its own search took."""

    searches: int
    tokens: tuple[int, int]
    models: int
    windows: int
    seconds: float | None


# Of an answer that is kept.
NOTHING = Plan(searches=0, tokens=(0, 0), models=0, windows=0, seconds=0.0)


def plan_study(
    opened: OpenedRun,
    unsearched: Sequence[Calibration],
    *,
    models: int,
    windows: tuple[int, int],
    exact: bool,
) -> Plan:
    """The plan of a study that still has to search `unsearched` and then measures so many models on
    validation `windows` (count, length)."""
    sizes = sorted(each.windows.numel() for each in unsearched) or [0]
    record, shape = opened.run.read_searched(), read_shape(opened.model)
    count, length = windows
    work = sum(
        count_search_flops(shape, (len(each.windows), each.windows.shape[1]), exact)
        for each in unsearched
    )
    work += count * length * (models + 1) * count_end_flops(shape, length)
    speed = _measure_speed(record, shape)
    return Plan(
        searches=len(unsearched),
        tokens=(sizes[0], sizes[-1]),
        models=models,
        windows=count,
        seconds=None if speed is None else work / speed,
    )


def count_search_flops(shape: Shape, windows: tuple[int, int], exact: bool) -> float:
    """FLOP of a search of all blocks on windows (count, length), the Gram matrices of lone linears
    counted, which grow with the tokens."""
    count, length = windows
    demand = demand_search(shape, Flow(windows, windows, 0, 0, exact))
    grams = PRODUCT_FLOPS * count * length * shape.blocks * sum(each**2 for each in shape.lone)
    return demand.flops * count + demand.pass_flops + grams


def _measure_speed(record: Record, shape: Shape) -> float | None:
    """FLOP a second of the run's own search, as they are counted here."""
    stage = record.stages.get("search")
    if stage is None or not stage.seconds:
        return None
    calib = record.calibration
    windows = (calib.searched or calib.windows, calib.seq_len)
    return count_search_flops(shape, windows, record.spec.is_exact) / stage.seconds
