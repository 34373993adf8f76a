"""Streams on their way through a model's blocks, on whatever device a block is, in the precision
that is asked for."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.mixedprec.families.table import list_units
from awqscope.mixedprec.models.dtypes import BFLOAT16, FLOAT32, TF32
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import (
    Stream,
    StreamSpace,
    as_stream,
    batch_size,
    in_memory,
    list_batches,
    list_slices,
)

_precision: ContextVar[str] = ContextVar("precision", default=FLOAT32)


@contextlib.contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Until this ends, `run_block` computes a block's products in a precision. What enters and
    leaves a block stays as it is, and nothing outside of blocks changes."""
    before = _precision.set(precision)
    try:
        yield
    finally:
        _precision.reset(before)


def current_precision() -> str:
    """What `run_block` computes in here."""
    return _precision.get()


@contextlib.contextmanager
def products_in(precision: str, device: torch.device) -> Iterator[None]:
    """Until this ends, products of float32 matrices on a device are computed in a precision. What
    tf32 changes is the whole process's, and is put back."""
    if precision == BFLOAT16:
        with torch.autocast(device.type, torch.bfloat16):
            yield
    elif precision == TF32:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
    else:
        yield


def get_linear(block: nn.Module, name: str) -> nn.Linear:
    """The linear called `name` inside a block."""
    linear = block.get_submodule(name)
    assert isinstance(linear, nn.Linear), name
    return linear


def count_unit_weights(model: SourceModel) -> int:
    """Weights of the linears of all blocks, which bits a weight are of."""
    return sum(
        get_linear(model.block_shell(unit.block), linear).weight.numel()
        for unit in list_units(model.family, model.blocks)
        for linear in unit.linears
    )


@torch.no_grad()
def enter_blocks(
    model: SourceModel, windows: Tensor, space: StreamSpace | None = None
) -> tuple[Stream, list[dict[str, Any]]]:
    """The stream [n, length, d] before the first block, and every block's keyword arguments.

    space: where the stream is kept; None for memory."""
    count, length = windows.shape
    entrance = model.read_entrance(windows.unique())
    all_kwargs = entrance.block_kwargs(length)
    stream = None
    for part in list_slices(count, batch_size(length)):
        hidden = entrance.enter(windows[part])
        stream = stream or (space or in_memory()).empty(count, length, hidden.shape[-1])
        stream.write(part, hidden)
    assert stream is not None
    return stream, all_kwargs


def move(value: Any, device: torch.device) -> Any:
    """Keyword arguments of a block with their tensors on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: move(each, device) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(move(each, device) for each in value)
    return value


def device_of(module: nn.Module) -> torch.device:
    """Where a module computes."""
    return next(module.parameters()).device


@torch.no_grad()
def advance(block: nn.Module, stream: Stream | Tensor, kwargs: dict[str, Any]) -> None:
    """Push a stream [windows, length, d] through a block, in place. A batch goes to the device of
    the block and comes back to where the stream is kept."""
    stream, device = as_stream(stream), device_of(block)
    there = move(kwargs, device)
    for part in list_batches(stream):
        stream.write(part, run_block(block, stream.read(part).to(device), there))


def run_block(block: nn.Module, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
    """A block's output for a stream [n, length, d], its products in the precision that
    `computing_in` asked for."""
    precision = current_precision()
    with products_in(precision, hidden.device):
        output = block(hidden, **fit_kwargs(kwargs, len(hidden)))
    output = output[0] if isinstance(output, tuple) else output
    # A block that ends with a product gives it in the type of that.
    return output if precision == FLOAT32 else output.to(hidden.dtype)


def fit_kwargs(kwargs: dict[str, Any], count: int) -> dict[str, Any]:
    """A block's keyword arguments, known for one window, for a batch of `count`: biases of
    positions (ALiBi) have a row a head and window, everything else is broadcast."""
    alibi = kwargs.get("alibi")
    if alibi is None:
        return kwargs
    return {**kwargs, "alibi": alibi.repeat(count, *[1] * (alibi.ndim - 1))}
