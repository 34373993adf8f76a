"""The search and the sweep on a real language model, SmolLM2-135M, against the ways that take
everything in: `python -m examples.benchmarks.llm`.

Both sides of a ratio are timed in one process, in turns. The search is that of the first blocks at
both widths, on up to 128 calibration windows of 512 tokens of the bundled text. The head scores the
three views of every block, rounded to nearest without AWQ, on one window. The sweep's time is the
processor's.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from awqscope.app.demo import find_demo
from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from awqscope.diagnose.statistics.likelihood import TokenScores
from awqscope.diagnose.statistics.looks import list_looks
from awqscope.diagnose.sweep.branches import (
    REFERENCE,
    UNIFORM,
    Sweep,
    block_branches,
    view_name,
)
from awqscope.diagnose.sweep.one_pass import run_sweep
from awqscope.diagnose.sweep.scoring import score_streams
from awqscope.mixedprec.awq.arithmetic import fake_quantize
from awqscope.mixedprec.awq.choices import (
    BlockSearch,
    load_search,
    save_search,
    search_path,
)
from awqscope.mixedprec.awq.search import search_from, take_enough
from awqscope.mixedprec.models.forward import advance, enter_blocks
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.scheme import Scheme
from examples.benchmarks.pieces import Piece, print_all
from examples.demo_llm import fetch

SCHEMES = [Scheme(4, 64, False), Scheme(8, 64, True)]
CALIB, SEARCHED_BLOCKS = (128, 512), 2
LENGTH = 256
TRUNKS = (REFERENCE, UNIFORM)
# Windows of a text that is swept.
SWEPT = 64


def compare_searches(model: SourceModel) -> str:
    """Times of the exact search over the fast one, and how many scale groups chose alike."""
    tokenizer = load_tokenizer(model.path)
    corpus = load_corpus(str(find_demo() / "calib.txt"))
    whole = cut_windows(corpus, tokenizer, CALIB[1], CALIB[0])
    texts = {True: whole, False: take_enough(whole)}
    entered = {exact: enter_blocks(model, windows) for exact, windows in texts.items()}
    ratios, alike, groups = [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(SEARCHED_BLOCKS):
            seconds, chosen = {}, {}
            for exact, (hidden, kwargs) in entered.items():
                out = Path(folder) / str(exact)
                began = time.perf_counter()
                search_from(model, number, hidden, kwargs[number], SCHEMES, out, exact=exact)
                seconds[exact] = time.perf_counter() - began
                chosen[exact] = load_search(search_path(out, number, 4)).scales
            ratios.append(seconds[True] / seconds[False])
            for one, other in zip(chosen[True], chosen[False], strict=True):
                groups += 1
                alike += one.ratio == other.ratio
    said = ", ".join(f"{ratio:.1f}x" for ratio in ratios)
    return (
        f"search, blocks 0 to {SEARCHED_BLOCKS - 1}, {len(whole)} windows of {CALIB[1]}: exact / "
        f"fast {said}; {alike} of {groups} scale groups at the same ratio"
    )


@torch.no_grad()
def make_finals(model: SourceModel, windows: Tensor) -> dict[str, Tensor]:
    """The final states of both trunks and of every view of every block, rounded to nearest."""
    hidden, kwargs = enter_blocks(model, windows)
    start = hidden.read(slice(None))
    trunks, streams = {name: start.clone() for name in TRUNKS}, {}
    for number in range(model.blocks):
        block, rounded = model.read_block(number), model.read_block(number)
        for module in rounded.modules():
            if isinstance(module, nn.Linear):
                module.weight.data = fake_quantize(module.weight.data, SCHEMES[0])
        born = {
            view_name("isolated", number): (REFERENCE, rounded),
            view_name("cumulative", number): (UNIFORM, rounded),
            view_name("restored", number): (UNIFORM, block),
        }
        added = {name: trunks[trunk].clone() for name, (trunk, _) in born.items()}
        for name, (_, through) in born.items():
            advance(through, added[name], kwargs[number])
        for name, stream in streams.items():
            advance(rounded if name.startswith("restored") else block, stream, kwargs[number])
        advance(block, trunks[REFERENCE], kwargs[number])
        advance(rounded, trunks[UNIFORM], kwargs[number])
        streams |= added
    return trunks | streams


def compare_heads(model: SourceModel) -> str:
    """The time of all logits over that of the likely rows, and how far KL is off."""
    corpus = load_corpus(str(find_demo() / "valid.txt"))
    windows = cut_windows(corpus, load_tokenizer(model.path), LENGTH, 1)
    finals, head = make_finals(model, windows), model.read_head()
    found: dict[bool, dict[str, TokenScores]] = {}

    def take(near: bool) -> float:
        began = time.perf_counter()
        found[near] = score_streams(
            head,
            windows,
            finals,
            model.config.vocab_size,
            ranked=TRUNKS,
            trunks=TRUNKS if near else (),
        )
        return time.perf_counter() - began

    ratios = [take(False) / take(True) for _ in range(2)]
    errors = [
        abs(scores.kl.double().mean() / found[False][name].kl.double().mean() - 1).item()
        for name, scores in found[True].items()
        if name not in TRUNKS
    ]
    return (
        f"head, {len(finals)} streams, {LENGTH} tokens: all logits / likely rows "
        f"{statistics.mean(ratios):.1f}x; KL of a view off by {statistics.median(errors):.0e} of "
        f"itself (median), {max(errors):.0e} at most"
    )


def compare_sweeps(model: SourceModel) -> str:
    """The time of every view on every window of a text of SWEPT over that of a sweep whose first
    look is its last, told from one window of either kind."""
    corpus = load_corpus(str(find_demo() / "valid.txt"))
    windows = cut_windows(corpus, load_tokenizer(model.path), CALIB[1], 1)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(model.blocks):
            # Nothing scaled and nothing clipped: the sweep takes as long whatever was chosen.
            path = search_path(Path(folder), number, SCHEMES[0].bits)
            save_search(path, BlockSearch(SCHEMES[0], (), {}))
        bits, kept = SCHEMES[0].bits, frozenset[str]()
        views = block_branches(model, bits, kept)
        sweep = Sweep(bits, (bits,), kept, Path(folder), views)
        seconds = []
        for each in (sweep.only(()), sweep):
            began = time.process_time()
            run_sweep(model, windows, each)
            seconds.append(time.process_time() - began)
    trunks, everything = seconds
    first = list_looks(SWEPT, CALIB[1])[0]
    ratio = SWEPT * everything / (first * everything + (SWEPT - first) * trunks)
    return (
        f"sweep, {SWEPT} windows of {CALIB[1]}: every window / the {first} of the first look "
        f"{ratio:.1f}x; a window of all views / of the trunks {everything / trunks:.1f}x"
    )


def list_pieces() -> Iterator[Piece]:
    """The search, the head, then the sweep."""
    ways: dict[str, Callable[[SourceModel], str]] = {
        "search": compare_searches,
        "head": compare_heads,
        "sweep": compare_sweeps,
    }
    model = open_model(str(fetch()))
    for name, measure in ways.items():
        yield Piece(name, lambda measure=measure: measure(model))


if __name__ == "__main__":
    print_all(list_pieces())
