"""The noise floor: what rounding alone does to the reference.

A few windows go through the reference's blocks twice, in the precision of the run and in a higher
one. Their KL is what a block would seem to cost that costs nothing: damage below it is noise. The
head and the KL are left out of it, as they are in float32 at least whatever the precision.
"""

from typing import Any

import torch
from torch import Tensor

from awqscope.diagnose.machine.memory import return_freed_heap
from awqscope.diagnose.statistics.likelihood import prepare_reference, score, tokens_a_chunk
from awqscope.mixedprec.models.dtypes import FLOAT32, FLOAT64, HIGHER
from awqscope.mixedprec.models.forward import advance, computing_in
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import CPU, batch_size, list_slices

MOST_WINDOWS = 4


def choose_windows(count: int) -> list[int]:
    """Which of `count` windows the floor is measured on: MOST_WINDOWS at most, spread over all."""
    some = min(count, MOST_WINDOWS)
    return [number * count // some for number in range(some)]


@torch.no_grad()
def measure_noise(
    model: SourceModel, windows: Tensor, precision: str, *, device: torch.device = CPU
) -> dict[str, Tensor]:
    """`kl`, and `nll_difference` in absolute values, [n, length − 1]: of the reference with its
    blocks in a precision, against itself in the next higher one."""
    stream, all_kwargs = _enter(model, windows, torch.float32)
    if HIGHER[precision] == FLOAT64:
        exact, exact_kwargs = _enter(model, windows, torch.float64)
    else:
        exact, exact_kwargs = stream.clone(), all_kwargs
    for number in range(model.blocks):
        block = model.read_block(number, device)
        with computing_in(precision):
            advance(block, stream, all_kwargs[number])
        with computing_in(FLOAT32):
            advance(block.to(exact.dtype), exact, exact_kwargs[number])
        del block  # before the next is read: one at a time
        return_freed_heap()
    head, count = model.read_head(device), len(windows)
    found = {name: torch.zeros(count, windows.shape[1] - 1) for name in ("kl", "nll_difference")}
    # Logits in float64 take twice the room.
    step = max(1, tokens_a_chunk(model.config.vocab_size) // 2)
    for window in range(count):
        for here in list_slices(windows.shape[1] - 1, step):
            targets = windows[window, here.start + 1 : here.stop + 1].to(device)
            # In float64, because what is looked for is near float32's own rounding.
            expected, logits = (
                head(states[None, window, here].float().to(device))[0].double()
                for states in (exact, stream)
            )
            reference = prepare_reference(expected)
            nll, kl, _ = score(reference, logits, targets)
            ours = score(reference, expected, targets)[0]
            found["kl"][window, here] = kl.float().cpu()
            found["nll_difference"][window, here] = (nll - ours).abs().float().cpu()
    return found


def _enter(
    model: SourceModel, windows: Tensor, dtype: torch.dtype
) -> tuple[Tensor, list[dict[str, Any]]]:
    """What enters the first block [n, length, d] in a type, and every block's keyword arguments."""
    count, length = windows.shape
    entrance = model.read_entrance(windows.unique())
    for parameter in entrance.module.parameters():
        if not parameter.is_meta:
            parameter.data = parameter.data.to(dtype)
    all_kwargs = entrance.block_kwargs(length)
    parts = [entrance.enter(windows[part]) for part in list_slices(count, batch_size(length))]
    return torch.cat(parts).to(dtype), all_kwargs
