"""Search and sweep on random weights of a real model's shape, on any device.

`python -m examples.benchmarks.shapes [tiny|1b|8b] [cpu|cuda]`. The search is set against stock
autoawq in float16 on the same device, on two blocks. The sweep of all three views is set against
its floor: the floating-point operations of its matrix products at the rate that one product of
this shape, alone and in the sweep's own float32, is measured to reach on that device.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from awqscope.diagnose.sweep.branches import Sweep, block_branches
from awqscope.diagnose.sweep.one_pass import run_sweep
from awqscope.mixedprec.awq.autoawq import MendedQuantizer, quantize_with_autoawq
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.scheme import Scheme
from examples.benchmarks.pieces import Piece, print_all
from examples.benchmarks.random_llama import save_random_llama

SCHEME = Scheme(4, 128, False)
SEARCHED_BLOCKS = 2
PRODUCTS_IN_A_ROW = 10


@dataclass(frozen=True)
class Shape:
    """A llama's dimensions, and the windows of its two measurements (count, tokens)."""

    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    vocabulary: int
    blocks: int
    calibration: tuple[int, int]
    validation: tuple[int, int]


SHAPES = {
    "tiny": Shape(256, 640, 4, 2, 4096, 8, (8, 256), (8, 256)),
    "1b": Shape(2048, 8192, 32, 8, 128256, 32, (128, 512), (16, 2048)),
    "8b": Shape(4096, 14336, 32, 8, 128256, 32, (128, 512), (16, 2048)),
}


def save_model(shape: Shape, blocks: int, folder: Path) -> SourceModel:
    """A random llama of this shape in bfloat16."""
    save_random_llama(
        folder,
        hidden=shape.hidden,
        intermediate=shape.intermediate,
        blocks=blocks,
        heads=shape.heads,
        key_value_heads=shape.key_value_heads,
        vocabulary=shape.vocabulary,
        positions=shape.validation[1],
        dtype=torch.bfloat16,
    )
    return open_model(str(folder))


def draw_tokens(shape: Shape, count: int, length: int) -> torch.Tensor:
    """Windows [count, length] of random tokens."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, shape.vocabulary, (count, length), generator=generator)


def time_once(device: torch.device, measured: Callable[[], object]) -> float:
    """Seconds of a call, what it leaves running on the device included."""
    began = time.perf_counter()
    measured()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def matmul_rate(shape: Shape, device: torch.device) -> float:
    """Floating-point operations a second of the block's largest product: the best of five."""
    tokens = shape.validation[1]
    # Several in a row where starting one takes a share of it.
    products = PRODUCTS_IN_A_ROW if device.type == "cuda" else 1
    inputs = torch.randn(tokens, shape.hidden, device=device)
    weight = torch.randn(shape.hidden, shape.intermediate, device=device)

    def multiply() -> None:
        for _ in range(products):
            torch.mm(inputs, weight)

    best = min(time_once(device, multiply) for _ in range(5))
    return 2 * products * tokens * shape.hidden * shape.intermediate / best


def block_operations(shape: Shape) -> float:
    """Floating-point operations of the matrix products of a block, on all windows."""
    count, length = shape.validation
    width = shape.hidden // shape.heads * shape.key_value_heads
    weights = 2 * shape.hidden * (shape.hidden + width) + 3 * shape.hidden * shape.intermediate
    # Of attention's two products half is masked.
    return 2 * count * length * (weights + length * shape.hidden)


def count_forwards(blocks: int) -> int:
    """Block-forwards of a sweep of all three views of two blocks or more."""
    # Each block's three streams run from it to the end, but for those that equal another: one of
    # the first block, and two of the last. The cumulative ones begin behind their block, where they
    # are the uniform trunk. Then both trunks all the way, and the control half.
    views = 3 * blocks * (blocks + 1) // 2 - blocks - 2 - (blocks - 2)
    return views + 2 * blocks + blocks - blocks // 2


def count_scored(blocks: int) -> int:
    """Streams that such a sweep scores: both trunks and the views, but for the three that equal
    another; the control equals the reference."""
    return 2 + 3 * blocks - 3


def sweep_operations(shape: Shape) -> float:
    """Floating-point operations of the matrix products of a sweep of all three views, with all
    logits of every stream."""
    count, length = shape.validation
    head = 2 * count * length * shape.hidden * shape.vocabulary
    forwards = count_forwards(shape.blocks) * block_operations(shape)
    return forwards + count_scored(shape.blocks) * head


def compare_search(name: str, where: str) -> str:
    """The search of two blocks beside stock autoawq's."""
    shape, device = SHAPES[name], torch.device(where)
    windows = draw_tokens(shape, *shape.calibration)
    with tempfile.TemporaryDirectory() as folder:
        model = save_model(shape, SEARCHED_BLOCKS, Path(folder) / "model")
        ours = time_once(
            device,
            lambda: search_model(model, windows, [SCHEME], Path(folder) / "awq", device=device),
        )
        whole = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float16).to(device)
        stock = time_once(
            device, partial(quantize_with_autoawq, whole, "llama", windows, SCHEME, MendedQuantizer)
        )
    return (
        f"{name} shape on {device}, {SEARCHED_BLOCKS} blocks, {windows.numel()} tokens: "
        f"stock autoawq in float16 / ours {stock / ours:.1f}x"
    )


def compare_sweep(name: str, where: str) -> str:
    """The sweep beside its floor."""
    shape, device = SHAPES[name], torch.device(where)
    with tempfile.TemporaryDirectory() as folder:
        model = save_model(shape, shape.blocks, Path(folder) / "model")
        searches = Path(folder) / "awq"
        few = draw_tokens(shape, 2, 128)
        search_model(model, few, [SCHEME], searches, device=device)
        branches = block_branches(model, SCHEME.bits, frozenset())
        sweep = Sweep(SCHEME.bits, (SCHEME.bits,), frozenset(), searches, branches)
        tokens = draw_tokens(shape, *shape.validation)
        seconds = time_once(device, lambda: run_sweep(model, tokens, sweep, device=device))
    floor = sweep_operations(shape) / matmul_rate(shape, device)
    return (
        f"{name} shape on {device}, {shape.blocks} blocks, "
        f"{shape.validation[0]} windows of {shape.validation[1]} tokens: "
        f"the sweep takes {seconds / floor:.2f} of its floor"
    )


def list_pieces(name: str, where: str) -> Iterator[Piece]:
    """The search, then the sweep."""
    yield Piece(f"shapes, search, {name} on {where}", partial(compare_search, name, where))
    yield Piece(f"shapes, sweep, {name} on {where}", partial(compare_sweep, name, where))


if __name__ == "__main__":
    print_all(list_pieces(*(sys.argv[1:] + ["tiny", "cpu"][len(sys.argv) - 1 :])))
