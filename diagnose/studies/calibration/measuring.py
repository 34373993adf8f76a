"""Uniform models of several searches, measured in one pass over the weights: against the reference,
whose stream they share, and against one another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from awqscope.diagnose.statistics.bootstrap import Floats
from awqscope.diagnose.sweep.branches import REFERENCE
from awqscope.diagnose.sweep.scoring import score_streams
from awqscope.diagnose.sweep.swappable import SwappableBlock, list_linears, uniform_widths
from awqscope.mixedprec.awq.choices import load_searches
from awqscope.mixedprec.awq.search import check_finite
from awqscope.mixedprec.models.forward import advance, enter_blocks
from awqscope.mixedprec.models.served import served_outside
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import CPU, Stream, in_memory

Pair = tuple[str, str]


@dataclass(frozen=True, eq=False)
class Measured:
    """Means over the tokens of each window. nll: of every model by name, the reference among them;
    kl: KL(reference ‖ model); apart: KL(one ‖ other) of pairs of models."""

    nll: Mapping[str, Floats]
    kl: Mapping[str, Floats]
    apart: Mapping[Pair, Floats]

    def cut(self, windows: slice) -> Self:
        """Some of the windows."""
        return type(self)(
            {name: values[windows] for name, values in self.nll.items()},
            {name: values[windows] for name, values in self.kl.items()},
            {pair: values[windows] for pair, values in self.apart.items()},
        )

    def to_json(self) -> dict[str, Any]:
        """In the types of JSON, to the last bit."""
        return {
            "nll": {name: values.tolist() for name, values in self.nll.items()},
            "kl": {name: values.tolist() for name, values in self.kl.items()},
            "apart": [[*pair, values.tolist()] for pair, values in self.apart.items()],
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(
            {name: np.asarray(values) for name, values in found["nll"].items()},
            {name: np.asarray(values) for name, values in found["kl"].items()},
            {(one, other): np.asarray(values) for one, other, values in found["apart"]},
        )


def join_windows(parts: Sequence[Measured]) -> Measured:
    """Parts of the windows one after another."""
    first = parts[0]
    return Measured(
        {name: np.concatenate([part.nll[name] for part in parts]) for name in first.nll},
        {name: np.concatenate([part.kl[name] for part in parts]) for name in first.kl},
        {pair: np.concatenate([part.apart[pair] for part in parts]) for pair in first.apart},
    )


@torch.no_grad()
def measure_uniforms(
    model: SourceModel,
    windows: Tensor,
    folders: Mapping[str, Path],
    pairs: Sequence[Pair],
    *,
    bits: int,
    kept: frozenset[str],
    on_block: Callable[[int], None] = lambda done: None,
    device: torch.device = CPU,
) -> Measured:
    """The uniform model of every search, by name, on `windows` [n, length]; those of one folder are
    one. pairs: models by name, to be set against each other. bits: the width of all units but those
    `kept` at 16. on_block is told the blocks done, and one more for the head."""
    space, outside = in_memory(), served_outside(model)
    reference, all_kwargs = enter_blocks(model, windows, space)
    entered = enter_blocks(outside, windows, space)[0] if outside else reference
    streams = {folder: space.copy(entered) for folder in dict.fromkeys(folders.values())}
    linears = list_linears(model.family)
    for number in range(model.blocks):
        block = model.read_block(number, device)
        widths = uniform_widths(model, bits, kept, number)
        for folder, stream in streams.items():
            searches = {
                width: search.to(device)
                for width, search in load_searches(folder, number, (bits,)).items()
            }
            swappable = SwappableBlock(block, searches, model.dtype, linears)
            swappable.use(swappable.weights(widths))
            advance(block, stream, all_kwargs[number])
            swappable.use({})
            check_finite(stream, f"the output of {model.prefix(number)} (searched in {folder})")
        advance(block, reference, all_kwargs[number])
        on_block(number + 1)
    named = {name: streams[folder] for name, folder in folders.items()}
    found = _score(model, outside, windows, reference, named, pairs, device)
    on_block(model.blocks + 1)
    return found


def _score(
    model: SourceModel,
    outside: SourceModel | None,
    windows: Tensor,
    reference: Stream,
    named: Mapping[str, Stream],
    pairs: Sequence[Pair],
    device: torch.device,
) -> Measured:
    """Scores of final streams. outside: the model whose head the uniform models have, None for the
    reference's."""
    head = model.read_head(device)
    served = outside.read_head(device) if outside else head
    vocabulary = model.config.vocab_size
    scores = score_streams(
        head,
        windows,
        {REFERENCE: reference, **named},
        vocabulary,
        heads=dict.fromkeys(named, served) if outside else {},
        device=device,
    )
    apart: dict[Pair, Floats] = {}
    for one in dict.fromkeys(first for first, _ in pairs):
        others = [other for first, other in pairs if first == one]
        finals = {REFERENCE: named[one], **{other: named[other] for other in others}}
        found = score_streams(served, windows, finals, vocabulary, device=device)
        apart |= {(one, other): _by_window(found[other].kl) for other in others}
    return Measured(
        nll={name: _by_window(found.nll) for name, found in scores.items()},
        kl={name: _by_window(found.kl) for name, found in scores.items() if name != REFERENCE},
        apart=apart,
    )


def _by_window(values: Tensor) -> Floats:
    """Means of [n, tokens]."""
    means: Floats = values.double().mean(1).numpy()
    return means
