"""Recipes measured in full, side by side: each is a whole model on the run's text.

A recipe's damage is predicted from its units one by one; whether it is the better choice is only
known once the models themselves have been measured. All go through one pass over the weights,
as in the sweep; recipes that agree up to a block share what is computed up to there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from awqscope.diagnose.statistics.bootstrap import Estimate, Resampler
from awqscope.diagnose.statistics.likelihood import TokenScores
from awqscope.diagnose.sweep.branches import REFERENCE
from awqscope.diagnose.sweep.scoring import score_streams
from awqscope.diagnose.sweep.swappable import freeze_widths, read_swappable
from awqscope.mixedprec.models.forward import advance, enter_blocks
from awqscope.mixedprec.models.served import served_outside
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import Stream, in_memory, list_slices
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.scheme import Width, list_quantized


@dataclass(frozen=True)
class RaceResult:
    """A recipe's measured KL, nats a token, and how much more it is than another's: both with
    intervals over windows, the second paired."""

    kl: Estimate
    behind: Estimate


@torch.no_grad()
def measure_recipes(
    model: SourceModel,
    windows: Tensor,
    searches: Path,
    recipes: Mapping[str, Recipe],
    on_block: Callable[[int], None] = lambda done: None,
) -> dict[str, TokenScores]:
    """Scores of every recipe's model on `windows` [n, length], by name, against the reference."""
    reference, all_kwargs = enter_blocks(model, windows)
    space, outside = in_memory(), served_outside(model)
    hidden = enter_blocks(outside, windows)[0] if outside else space.copy(reference)
    # Recipes that were equal so far -> their stream.
    streams: dict[tuple[str, ...], Stream] = {tuple(recipes): hidden} if recipes else {}
    for number in range(model.blocks):
        widths = {
            name: freeze_widths(recipe.block_widths(model.prefix(number)))
            for name, recipe in recipes.items()
        }
        used = list_quantized(width for chosen in widths.values() for _, width in chosen)
        swappable = read_swappable(model, number, searches, used)
        parted: dict[tuple[str, ...], Stream] = {}
        for names, stream in streams.items():
            groups: dict[tuple[tuple[str, Width], ...], list[str]] = {}
            for name in names:
                groups.setdefault(widths[name], []).append(name)
            for i, (chosen, members) in enumerate(groups.items()):
                # The last group may have the stream itself: no other needs it any more.
                mine = stream if i == len(groups) - 1 else space.copy(stream)
                swappable.use(swappable.weights(dict(chosen)))
                advance(swappable.block, mine, all_kwargs[number])
                parted[tuple(members)] = mine
        streams = parted
        swappable.use({})
        advance(swappable.block, reference, all_kwargs[number])
        del swappable
        on_block(number + 1)
    finals: dict[str, Stream] = {REFERENCE: reference}
    finals |= {name: stream for names, stream in streams.items() for name in names}
    heads = dict.fromkeys(recipes, outside.read_head()) if outside else {}
    scores = score_streams(model.read_head(), windows, finals, model.config.vocab_size, heads=heads)
    on_block(model.blocks + 1)
    del scores[REFERENCE]
    return scores


def measure_kl(
    model: SourceModel,
    windows: Tensor,
    searches: Path,
    recipes: Mapping[str, Recipe],
    budget: int,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, np.ndarray]:
    """Mean token KL by window [n] of every recipe's model; streams take about `budget` bytes."""
    stream = windows.shape[1] * model.config.hidden_size * 4
    chunks = list_slices(len(windows), max(1, budget // (stream * (len(recipes) + 2))))
    steps = model.blocks + 1
    parts: dict[str, list[np.ndarray]] = {name: [] for name in recipes}
    for number, chunk in enumerate(chunks):

        def report(done: int, before: int = number * steps) -> None:
            on_step(before + done, len(chunks) * steps)

        scores = measure_recipes(model, windows[chunk], searches, recipes, report)
        for name, found in scores.items():
            parts[name].append(found.kl.double().mean(1).numpy())
    return {name: np.concatenate(found) for name, found in parts.items()}


def judge_race(
    by_window: Mapping[str, np.ndarray], against: str, seed: int
) -> dict[str, RaceResult]:
    """Every contestant's result beside that of `against`, from mean KL by window."""
    resampler = Resampler(len(by_window[against]), seed)
    return {
        name: RaceResult(resampler.mean(kl), resampler.mean(kl - by_window[against]))
        for name, kl in by_window.items()
    }
