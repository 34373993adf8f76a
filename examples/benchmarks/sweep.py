"""The one-pass sweep against the naive way (swap one block, run the whole model, every view).

`python -m examples.benchmarks.sweep`; random weights. Both sides have the quantized weights of each
block at hand and compare with the same reference logits, so that what differs is the way alone.
"""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoModelForCausalLM

from awqscope.diagnose.statistics.likelihood import prepare_reference, score
from awqscope.diagnose.sweep.branches import UNIFORM, Sweep, block_branches, view_name
from awqscope.diagnose.sweep.one_pass import run_sweep
from awqscope.diagnose.sweep.swappable import read_swappable, uniform_widths
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.scheme import Scheme
from examples.benchmarks.pieces import Piece, print_all
from examples.benchmarks.random_llama import save_random_llama

WINDOWS, LENGTH, VOCABULARY = 8, 256, 4096
REPEATS = 5
T = TypeVar("T")


def make_model(blocks: int, folder: Path) -> SourceModel:
    """A random llama with the bundled model's shape and `blocks` blocks."""
    save_random_llama(
        folder,
        hidden=256,
        intermediate=640,
        blocks=blocks,
        heads=4,
        key_value_heads=2,
        vocabulary=VOCABULARY,
    )
    return open_model(str(folder))


@torch.no_grad()
def run_naive(model: SourceModel, sweep: Sweep, windows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every view by whole-model forwards: name -> KL [windows, tokens]."""
    whole = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32).eval()
    quantized, originals = [], []
    for number in range(model.blocks):
        swappable = read_swappable(model, number, sweep.searches, sweep.bits)
        weights = swappable.weights(uniform_widths(model, sweep.low, sweep.kept, number))
        quantized.append(weights)
        layer = whole.model.layers[number]
        originals.append({name: layer.get_parameter(name).data for name in weights})

    def logits(swapped: set[int]) -> torch.Tensor:
        for number, layer in enumerate(whole.model.layers):
            chosen = quantized if number in swapped else originals
            for name, weight in chosen[number].items():
                layer.get_parameter(name).data = weight
        return whole(windows, use_cache=False).logits[:, :-1]

    reference = prepare_reference(logits(set()))
    every = set(range(model.blocks))
    views = {UNIFORM: every}
    for block in range(model.blocks):
        views[view_name("isolated", block)] = {block}
        views[view_name("cumulative", block)] = set(range(block + 1))
        views[view_name("restored", block)] = every - {block}
    targets = windows[:, 1:]
    return {name: score(reference, logits(swapped), targets)[1] for name, swapped in views.items()}


def timed(measured: Callable[[], T]) -> tuple[float, T]:
    """Seconds of a call, and its result."""
    began = time.perf_counter()
    result = measured()
    return time.perf_counter() - began, result


@dataclass(frozen=True)
class Ways:
    """Both ways of measuring every view of a random model of so many blocks."""

    blocks: int
    ours: Callable[[], Mapping[str, Any]]
    naive: Callable[[], dict[str, torch.Tensor]]

    def seconds(self) -> float:
        """Of ours a block-forward: the median of REPEATS."""
        found = [timed(self.ours)[0] for _ in range(REPEATS)]
        return statistics.median(found) / (1.5 * self.blocks**2 + 4 * self.blocks)


@contextlib.contextmanager
def prepare(blocks: int) -> Iterator[Ways]:
    """A model that is searched already, for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(blocks, Path(folder) / "model")
        generator = torch.Generator().manual_seed(1)
        windows = torch.randint(0, VOCABULARY, (WINDOWS, LENGTH), generator=generator)
        searches = Path(folder) / "awq"
        search_model(model, windows[:2], [Scheme(4, 128, False)], searches)
        branches = block_branches(model, 4, frozenset())
        sweep = Sweep(4, (4,), frozenset(), searches, branches)
        ours = partial(run_sweep, model, windows, sweep)
        yield Ways(blocks, ours, partial(run_naive, model, sweep, windows))


def compare_ways(blocks: int) -> str:
    """How many times longer the naive way takes, and the largest difference in KL."""
    with prepare(blocks) as both:
        swept, naive = both.ours(), both.naive()
        # In turns, so that what else the machine does falls on both alike.
        ratios = [timed(both.naive)[0] / timed(both.ours)[0] for _ in range(REPEATS)]
        worst = max((swept[n].kl - kl).abs().max().item() for n, kl in naive.items())
    return (
        f"{blocks} blocks: naive / ours {statistics.median(ratios):.1f}x; largest |ΔKL| "
        f"{worst:.1e} (mean KL {naive[UNIFORM].mean():.1e})"
    )


def compare_depths(shallow: int, deep: int) -> str:
    """How the time a block-forward grows with depth."""
    with prepare(shallow) as few, prepare(deep) as many:
        for one in (few, many):
            one.ours()
        ratio = many.seconds() / few.seconds()
    return f"{deep} blocks: {ratio:.2f} of the time per block-forward at {shallow} blocks"


def list_pieces() -> Iterator[Piece]:
    """The naive way at two depths, and ours at larger ones."""
    for blocks in (4, 8):
        yield Piece(f"sweep, both ways, {blocks}", partial(compare_ways, blocks))
    for blocks in (8, 16):
        yield Piece(f"sweep, depth {blocks}", partial(compare_depths, 4, blocks))


if __name__ == "__main__":
    print_all(list_pieces())
