"""Scores of final hidden states: each stream's logits against the reference's, part by part."""

from collections.abc import Collection, Mapping

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
from awqscope.mixedprec.models.ends import Head
from awqscope.mixedprec.models.streams import CPU, Stream, are_equal, as_stream


@torch.no_grad()
def score_streams(
    head: Head,
    windows: Tensor,
    finals: Mapping[str, Stream | Tensor],
    vocabulary: int,
    *,
    ranked: Collection[str] = (),
    heads: Mapping[str, Head] = {},
    device: torch.device = CPU,
) -> dict[str, TokenScores]:
    """Scores of final hidden states [n, length, d] by name, against the one named "reference".
    Those named in `ranked` come with their likeliest tokens; those in `heads` have that head. The
    heads are on `device`, the scores on the CPU.

    Streams that are one object under several names are scored once a head; so is one that equals
    the reference's to the last bit (the control should).
    """
    count, length = windows.shape
    streams = {name: as_stream(stream) for name, stream in finals.items()}
    keys = {name: (id(stream), name in heads) for name, stream in finals.items()}
    owners: dict[tuple[int, bool], str] = {keys[REFERENCE]: REFERENCE}
    for name, stream in finals.items():
        known = keys[name] in owners or name in heads
        equal = not known and are_equal(as_stream(stream), streams[REFERENCE])
        owners.setdefault(keys[name], REFERENCE if equal else name)
    top = {owners[keys[name]] for name in ranked}
    scores = {
        name: empty_scores(count, length, TOP_TOKENS if name in top else 0)
        for name in dict.fromkeys(owners.values())
    }
    step = tokens_a_chunk(vocabulary)
    for window in range(count):
        for start in range(0, length - 1, step):
            here = slice(start, min(start + step, length - 1))
            targets = windows[window, here.start + 1 : here.stop + 1].to(device)

            def read(name: str, window: int = window, here: slice = here) -> Tensor:
                states = streams[name].read(slice(window, window + 1), here)
                return heads.get(name, head)(states.to(device))[0].float()

            reference = prepare_reference(read(REFERENCE))
            for name, found in scores.items():
                logits = reference.logits if name == REFERENCE else read(name)
                nll, kl, agree = score(reference, logits, targets)
                found.nll[window, here] = nll.cpu()
                found.kl[window, here] = kl.cpu()
                found.agree[window, here] = agree.cpu()
                if name in top:
                    tokens, probabilities = rank_tokens(logits)
                    found.top_tokens[window, here] = tokens.int().cpu()
                    found.top_probabilities[window, here] = probabilities.cpu()
    return {name: scores[owners[key]] for name, key in keys.items()}
