"""Models of a real shape, as large as the device and the disk have room for, and what the plan says
of them."""

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from awqscope.diagnose.plan.demand import Flow
from awqscope.diagnose.plan.memory import Machine, Rates, plan_run
from awqscope.diagnose.plan.room import read_shape
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from examples.benchmarks.on_gpu.process import SkipError
from examples.benchmarks.on_gpu.setting import Setting
from examples.benchmarks.shapes import SHAPES, Shape, save_model

# Of what is free, what a part may plan with.
SHARE = 0.9
# A real shape's place in a dry run.
DRY = Shape(128, 256, 4, 2, 4096, 6, (4, 64), (4, 64))
# Of the models of these names; the shapes' own are of what is swept whole.
BLOCKS = {"1b": 16, "8b": 32}
# Blocks of the model that a sweep is measured on; all others are extrapolated from them.
SWEPT_BLOCKS = 6
BYTES_IN_16_BITS = 2


def choose_shape(name: str, setting: Setting) -> Shape:
    """A shape by its name, or what stands for it."""
    return DRY if setting.is_dry else replace(SHAPES[name], blocks=BLOCKS[name])


def count_parameters(shape: Shape, blocks: int) -> int:
    """Parameters of a llama's matrices; its head is its embedding."""
    width = shape.hidden // shape.heads * shape.key_value_heads
    block = 2 * shape.hidden * (shape.hidden + width) + 3 * shape.hidden * shape.intermediate
    return blocks * block + shape.vocabulary * shape.hidden


def make_model(shape: Shape, blocks: int, folder: Path, device: torch.device) -> SourceModel:
    """A random llama of this shape; SkipError where the disk has no room for it."""
    needed = BYTES_IN_16_BITS * count_parameters(shape, blocks)
    free = shutil.disk_usage(folder.parent).free
    if needed > SHARE * free:
        raise SkipError(
            f"the model takes {needed / 2**30:.1f} GiB of disk, and {free / 2**30:.1f} are free"
        )
    # Drawn where that takes no time.
    with device:
        save_model(shape, blocks, folder)
    return open_model(str(folder))


def plan_bytes(
    stage: str, model: SourceModel, calib: torch.Tensor, valid: tuple[int, int], streams: int
) -> int:
    """Bytes of the device that a run would plan for a stage. calib: windows that the search reads.
    valid: windows that the sweep measures, and the tokens of each. streams: of the sweep."""
    tokens = max(calib.numel(), valid[0] * valid[1])
    shape = read_shape(model)
    distinct = min(shape.vocabulary, tokens)
    flow = Flow((len(calib), calib.shape[1]), valid, distinct, sampled=valid[0], exact=False)
    # A machine that has enough of everything: what a device holds does not hang on the rest.
    machine = Machine(2**62, 0, Rates(1.0, 1.0, 1.0), on_device=True)
    plan = plan_run(shape, flow, machine, sweep_streams=streams, exact_streams=0, stages=(stage,))
    return plan.stage(stage).device_bytes


def free_bytes(device: torch.device) -> int | None:
    """What is free of a device's memory; None where it has none of its own."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def refuse_unfitting(what: str, needed: int, device: torch.device) -> None:
    """SkipError where the device has not so many bytes free."""
    free = free_bytes(device)
    if free is not None and needed > SHARE * free:
        raise SkipError(
            f"{what} takes {needed / 2**30:.1f} GiB of the device, and {free / 2**30:.1f} are free"
        )


def stock_bytes(shape: Shape, blocks: int, tokens: int) -> int:
    """About what stock autoawq holds of a device: the model in float16, and of all calibration
    tokens at once some activations of a block, the MLP's widest among them."""
    wide = 3 * shape.intermediate + 6 * shape.hidden
    return BYTES_IN_16_BITS * (2 * count_parameters(shape, blocks) + tokens * wide)


def fit_calibration(shape: Shape, blocks: int, device: torch.device) -> Shape:
    """The shape with as many of its calibration windows as stock autoawq has room for; SkipError
    where it has none for any."""
    free, (count, length) = free_bytes(device), shape.calibration
    while free is not None and stock_bytes(shape, blocks, count * length) > SHARE * free:
        count //= 2
        if not count:
            raise SkipError(f"the device has {free / 2**30:.1f} GiB free, too little for a block")
    return replace(shape, calibration=(count, length))
