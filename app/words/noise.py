"""What is said of the noise floor, and of blocks below it."""

from collections.abc import Mapping, Sequence
from typing import Any

from awqscope.diagnose.runs.record import AnyRecord
from awqscope.diagnose.statistics.spikes import is_noise
from awqscope.mixedprec.models.dtypes import AUTO, FLOAT32
from awqscope.mixedprec.words import write_ranges

NOISE = "noise"


def find_floor(record: AnyRecord | None) -> float | None:
    """The KL below which a run calls damage noise; None of runs that did not measure it."""
    sweep = None if record is None else record.sweep
    return None if sweep is None or sweep.noise_floor is None else sweep.noise_floor.kl


def name_precision(record: AnyRecord) -> str:
    """What the blocks of a run computed in. Where that was left to a cluster, the floor says."""
    floor = None if record.sweep is None else record.sweep.noise_floor
    asked = record.spec.precision
    return floor.precision if floor is not None else FLOAT32 if asked == AUTO else asked


def write_floor(record: AnyRecord) -> str:
    """The noise floor, and what it was measured of; empty for runs that did not measure it."""
    floor = None if record.sweep is None else record.sweep.noise_floor
    if floor is None:
        return ""
    windows = len(floor.windows)
    return (
        f"KL {floor.kl:.2g}, the reference in {floor.precision} against itself in {floor.against} "
        f"on {windows} window{'s' * (windows != 1)} ({floor.tokens:,} tokens)"
    )


def list_noise(rows: Sequence[Mapping[str, Any]], floor: float | None) -> list[int]:
    """The blocks whose isolated KL is below the floor. rows: of blocks.parquet."""
    isolated = (row for row in rows if row["view"] == "isolated")
    return [row["block"] for row in isolated if is_noise(row["kl"], floor)]


def write_noise(rows: Sequence[Mapping[str, Any]], floor: float | None) -> str:
    """Which blocks are below the floor, in a sentence; empty where none is. rows: of
    blocks.parquet."""
    blocks = sorted(list_noise(rows, floor))
    if not blocks:
        return ""
    if len(blocks) == 1:
        return f"Block {blocks[0]} is below the noise floor: what it costs may be rounding alone."
    named = f"Blocks {write_ranges(blocks)}"
    return f"{named} are below the noise floor: what they cost may be rounding alone."
