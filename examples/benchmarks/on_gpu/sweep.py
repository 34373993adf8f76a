"""The sweep of all three views at a real shape, beside the floor of its matrix products.

A few blocks are swept; the rest is extrapolated. A block takes a time of its own, in which it is
read and quantized, and a time for each stream that goes through it: a line is laid through the
blocks' times. The head's time grows with the streams that it scores, which says too much rather
than too little: the trunks' part of it does not grow. The whole is told as one chunk: a run whose
memory does not hold all its streams reads and quantizes each block once a chunk. What a run notes
of activations meanwhile is left out.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import torch

from awqscope.diagnose.machine.memory import device_peak_bytes, forget_peak
from awqscope.diagnose.sweep.branches import (
    Branch,
    Sweep,
    block_branches,
    follows_uniform,
    share_streams,
)
from awqscope.diagnose.sweep.one_pass import run_sweep
from awqscope.mixedprec.awq.choices import BlockSearch, save_search, search_path
from awqscope.mixedprec.models.dtypes import AUTO, TF32, choose_precision
from awqscope.mixedprec.models.forward import computing_in
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import FLOAT_BYTES
from examples.benchmarks.on_gpu.process import Note
from examples.benchmarks.on_gpu.setting import Setting
from examples.benchmarks.on_gpu.shape import (
    SWEPT_BLOCKS,
    choose_shape,
    make_model,
    plan_bytes,
    refuse_unfitting,
)
from examples.benchmarks.shapes import (
    SCHEME,
    Shape,
    block_operations,
    count_forwards,
    count_scored,
    draw_tokens,
    matmul_rate,
    sweep_operations,
)

# What the measured part may take by its floor.
FLOOR_SECONDS = 20.0
# Of the free memory, what its streams may take.
STREAM_SHARE = 0.5


def count_passing(model: SourceModel, sweep: Sweep) -> list[int]:
    """How many streams go through each block."""
    unique = {s for s in share_streams(sweep, model).values() if isinstance(s, Branch)}
    begins = [branch.block + follows_uniform(sweep, model, branch) for branch in unique]
    return [2 + sum(begin <= number for begin in begins) for number in range(model.blocks)]


def fit_line(forwards: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Seconds of a block, and of each stream through it; the first block, in whose time the text
    enters and kernels are loaded, is left out. Neither is below 0."""
    x, y = np.array(forwards[1:], float), np.array(seconds[1:])
    slope, start = np.polyfit(x, y, 1)
    if start < 0 or slope < 0:
        return 0.0, float(y.sum() / x.sum())
    return float(start), float(slope)


def extrapolate(
    whole: Shape, windows: int, forwards: Sequence[int], blocks: Sequence[float], head: float
) -> tuple[float, float]:
    """Seconds of all blocks and of the head of a whole sweep, from those of a part. windows: of the
    part; forwards: its streams through each block; blocks, head: its seconds."""
    fixed, each = fit_line(forwards, blocks)
    more = whole.validation[0] / windows
    scored = count_scored(whole.blocks) / count_scored(len(blocks))
    passing = more * each * count_forwards(whole.blocks)
    return whole.blocks * fixed + passing, more * scored * head


def measure_sweep(name: str, setting: Setting, note: Note) -> None:
    """Seconds of a part of the sweep and its floor, in the default precision and in tf32."""
    device, whole = torch.device(setting.device), choose_shape(name, setting)
    folder = setting.folder / f"sweep-{name}"
    swept = min(SWEPT_BLOCKS, whole.blocks - 1)
    model = make_model(whole, swept, folder, device)
    searches = folder / "awq"
    for number in range(swept):
        # Nothing scaled and nothing clipped: the sweep takes as long whatever was chosen.
        save_search(search_path(searches, number, SCHEME.bits), BlockSearch(SCHEME, (), {}))
    branches = block_branches(model, SCHEME.bits, frozenset())
    sweep = Sweep(SCHEME.bits, (SCHEME.bits,), frozenset(), searches, branches)
    few = draw_tokens(whole, *whole.calibration)
    planned = plan_bytes("sweep", model, few, whole.validation, count_scored(swept))
    refuse_unfitting("the sweep", planned, device)
    part = replace(whole, blocks=swept)
    note("blocks", whole.blocks)
    note("measured_blocks", swept)
    note("windows", whole.validation[0])
    note("length", whole.validation[1])
    note("planned_bytes", planned)
    usual = choose_precision(AUTO, device.type)
    note("default", usual)
    for precision in dict.fromkeys((usual, TF32)):
        with computing_in(precision):
            note(precision, sweep_part(model, sweep, whole, part, device))


def sweep_part(
    model: SourceModel, sweep: Sweep, whole: Shape, part: Shape, device: torch.device
) -> dict[str, Any]:
    """The figures of a sweep. part: the shape with the blocks that are swept; of its windows as
    many are as its floor allows."""
    count, length = part.validation
    rate = matmul_rate(part, device)
    affordable = int(FLOOR_SECONDS * rate / (sweep_operations(part) / count))
    # The views, the trunks and the control.
    streams = FLOAT_BYTES * length * part.hidden * (count_scored(part.blocks) + 1)
    held = int(STREAM_SHARE * psutil.virtual_memory().available / streams)
    windows = max(1, min(count, affordable, held))
    tokens = draw_tokens(part, windows, length)
    ends = [time.perf_counter()]

    def on_block(done: int) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        ends.append(time.perf_counter())

    forget_peak()
    run_sweep(model, tokens, sweep, on_block=on_block, device=device)
    on_block(part.blocks + 1)
    *blocks, head = np.diff(ends).tolist()
    measured = replace(part, validation=(windows, length))
    forwards = count_passing(model, sweep)
    in_blocks, in_head = extrapolate(whole, windows, forwards, blocks, head)
    floor = sweep_operations(whole) / rate
    blocks_floor = count_forwards(whole.blocks) * block_operations(whole) / rate
    return {
        "rate": rate,
        "measured_windows": windows,
        "forwards": forwards,
        "block_seconds": blocks,
        "head_seconds": head,
        "measured_floor_seconds": sweep_operations(measured) / rate,
        "floor_seconds": floor,
        "extrapolated_seconds": in_blocks + in_head,
        "ratio": (in_blocks + in_head) / floor,
        "blocks_ratio": in_blocks / blocks_floor,
        "peak_bytes": device_peak_bytes() if device.type == "cuda" else None,
    }
