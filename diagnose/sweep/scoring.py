"""Scores of final hidden states: each stream's logits against the reference's, part by part.

Where many streams are close to a few trunks and the vocabulary is large, only the trunks have all
their logits made (`likely_rows.py`).
"""

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from awqscope.diagnose.statistics.likelihood import (
    TOP_TOKENS,
    TokenScores,
    empty_scores,
    prepare_reference,
    rank_tokens,
    score,
    tokens_a_chunk,
)
from awqscope.diagnose.sweep.branches import REFERENCE
from awqscope.diagnose.sweep.likely_rows import (
    FEWEST_BRANCHES,
    HeadLog,
    LinearHead,
    Scores,
    Trunk,
    prepare_trunk,
    score_branches,
    take_apart,
)
from awqscope.diagnose.sweep.ranges import EndWatch
from awqscope.mixedprec.models.ends import Head
from awqscope.mixedprec.models.streams import CPU, Stream, are_equal, as_stream
from awqscope.mixedprec.ranking import least_at

# Positions on which a head is seen to be a product or not.
SEEN = 8


@dataclass(frozen=True)
class _Positions:
    """Some positions of one window, and the tokens that come next."""

    window: int
    here: slice
    targets: Tensor


@dataclass(frozen=True)
class _Finals:
    """Final streams by name, and the head of each. ends: watches while the logits of those in
    `watched` are made, which are the streams of the trunks that it names."""

    streams: Mapping[str, Stream]
    heads: Mapping[str, Head]
    device: torch.device
    ends: EndWatch | None
    watched: Mapping[str, Sequence[str]]

    def read(self, name: str, at: _Positions) -> Tensor:
        """Final states [1, n, d]."""
        return self.streams[name].read(slice(at.window, at.window + 1), at.here).to(self.device)

    def logits(self, name: str, at: _Positions) -> Tensor:
        """Logits [n, vocabulary]."""
        with self._watching(name, at.window):
            return self.heads[name](self.read(name, at))[0].float()

    def _watching(self, name: str, window: int) -> contextlib.AbstractContextManager[None]:
        if self.ends is None or name not in self.watched:
            return contextlib.nullcontext()
        return self.ends.watching(self.watched[name], self.heads[name], window)


@torch.no_grad()
def score_streams(
    head: Head,
    windows: Tensor,
    finals: Mapping[str, Stream | Tensor],
    vocabulary: int,
    *,
    ranked: Collection[str] = (),
    heads: Mapping[str, Head] = {},
    trunks: Collection[str] = (),
    log: HeadLog | None = None,
    ends: EndWatch | None = None,
    on_window: Callable[[int], None] = lambda done: None,
    device: torch.device = CPU,
) -> dict[str, TokenScores]:
    """Scores of final hidden states [n, length, d] by name, against the one named "reference".
    Those named in `ranked` come with their likeliest tokens; those in `heads` have that head. The
    heads are on `device`, the scores on the CPU. trunks: the streams, the reference among them,
    that all others are close to; where none are named, every stream is scored in full. log: takes
    in how exact the scores of the others are, by the first positions of the first window. ends:
    watches the head of the trunks at every position, that after which nothing is scored included.
    on_window: told the windows scored.

    Streams that are one object under several names are scored once a head; so is one that equals
    the reference's to the last bit (the control should).
    """
    count, length = windows.shape
    streams = {name: as_stream(stream) for name, stream in finals.items()}
    used = {name: heads.get(name, head) for name in finals}
    keys = {name: (id(stream), name in heads) for name, stream in finals.items()}
    owners: dict[tuple[int, bool], str] = {keys[REFERENCE]: REFERENCE}
    for name, stream in streams.items():
        known = keys[name] in owners or name in heads
        equal = not known and are_equal(stream, streams[REFERENCE])
        owners.setdefault(keys[name], REFERENCE if equal else name)
    top = {owners[keys[name]] for name in ranked}
    names = list(dict.fromkeys(owners.values()))
    scores = {name: empty_scores(count, length, TOP_TOKENS if name in top else 0) for name in names}
    watched: dict[str, list[str]] = {}
    for name in trunks if ends else ():
        watched.setdefault(owners[keys[name]], []).append(name)
    final = _Finals(streams, used, device, ends, watched)
    apart = _take_apart(final, {owners[keys[name]] for name in trunks}, len(names))
    near = [name for name in names if apart and name not in apart.keys() | top]
    whole = [name for name in names if name not in near]
    step = tokens_a_chunk(vocabulary)
    for window in range(count):
        for start in range(0, length - 1, step):
            here = slice(start, min(start + step, length - 1))
            targets = windows[window, here.start + 1 : here.stop + 1].to(device)
            at = _Positions(window, here, targets)
            reference = prepare_reference(final.logits(REFERENCE, at))
            prepared: dict[str, Trunk] = {}
            for name in whole:
                logits = reference.logits if name == REFERENCE else final.logits(name, at)
                found = score(reference, logits, targets)
                _keep(scores[name], at, found)
                if name in top:
                    tokens, probabilities = rank_tokens(logits)
                    scores[name].top_tokens[window, here] = tokens.int().cpu()
                    scores[name].top_probabilities[window, here] = probabilities.cpu()
                if name in apart:
                    own = reference if name == REFERENCE else prepare_reference(logits)
                    states = final.read(name, at)
                    prepared[name] = prepare_trunk(apart[name], states, own, reference, found[1])
            close = _assign(final, near, prepared, at)
            for name, found in score_branches(prepared, REFERENCE, close, targets, start).items():
                _keep(scores[name], at, found)
                if log is not None and not (window or start):
                    whole_scores = score(reference, final.logits(name, at), targets)
                    log.note(name, found[1], whole_scores[1])
            if log is not None and near and not (window or start):
                log.positions += len(targets)
        for name in watched:
            final.logits(name, _Positions(window, slice(length - 1, length), windows[window, :0]))
        on_window(window + 1)
    return {name: scores[owners[key]] for name, key in keys.items()}


def _keep(scores: TokenScores, at: _Positions, found: Scores) -> None:
    for kept, values in zip((scores.nll, scores.kl, scores.agree), found, strict=True):
        kept[at.window, at.here] = values.cpu()


def _take_apart(final: _Finals, trunks: Collection[str], count: int) -> dict[str, LinearHead]:
    """The trunks' heads as products by name; none where they are no products, or where so few
    streams are set against them that this saves nothing. count: of all streams."""
    if not trunks or count - len(trunks) < FEWEST_BRANCHES:
        return {}
    first = _Positions(0, slice(0, SEEN), torch.empty(0))
    found: dict[str, LinearHead] = {}
    made: dict[int, LinearHead | None] = {}
    for name in sorted(trunks):
        key = id(final.heads[name])
        if key not in made:
            made[key] = take_apart(final.heads[name], final.read(name, first))
        head = made[key]
        if head is None:
            return {}
        found[name] = head
    return found


def _assign(
    final: _Finals, names: Collection[str], trunks: Mapping[str, Trunk], at: _Positions
) -> dict[str, dict[str, Tensor]]:
    """The final states of the streams `names`, by the nearest trunk of the same head."""
    origins = {name: final.read(name, at) for name in trunks}
    assigned: dict[str, dict[str, Tensor]] = {name: {} for name in trunks}
    for name in names:
        states = final.read(name, at)
        able = [trunk for trunk in trunks if final.heads[trunk] is final.heads[name]]
        distances = [(states - origins[trunk]).square().sum().item() for trunk in able]
        assigned[able[least_at(distances)]][name] = states
    return assigned
