"""The checkpoint in the 16-bit type that it names: a few windows by transformers' own modules in
that type, beside the same modules in float32.

All else is measured in float32. A model whose activations pass what the type holds answers there,
and nothing where it is served.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from awqscope.diagnose.proof.load import Loaded, load_checkpoint
from awqscope.diagnose.statistics.likelihood import (
    empty_scores,
    prepare_reference,
    score,
    tokens_a_chunk,
)
from awqscope.mixedprec.checkpoints.reader import StoredCheckpoint
from awqscope.mixedprec.models.served import DTYPES
from awqscope.mixedprec.models.streams import StreamSpace

MOST_WINDOWS = 4


def choose_windows(uniform_kl: np.ndarray, widest: int | None) -> list[int]:
    """The windows to measure, MOST_WINDOWS at most, in order: the first, the one with the largest
    activation where that is known, and those with the most uniform KL [n]."""
    ranked = np.argsort(-uniform_kl, kind="stable").tolist()
    known = [] if widest is None or not 0 <= widest < len(ranked) else [widest]
    return sorted(list(dict.fromkeys([0, *known, *ranked]))[:MOST_WINDOWS])


@torch.no_grad()
def measure_type(
    checkpoint: StoredCheckpoint,
    loaded: Loaded,
    windows: Tensor,
    dtype: str,
    vocabulary: int,
    space: StreamSpace,
    *,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """The checkpoint in `dtype`, a block at a time, against itself `loaded` in float32, on
    `windows` [n, length]: `dtype`, `finite`, `place` (the first whose output is not, None where all
    are), and, where they are finite, `ppl`, `ppl_float32`, `kl` and `top1_agreement`."""
    served = load_checkpoint(
        checkpoint, "by block", space, dtype=DTYPES[dtype], trust_remote_code=trust_remote_code
    )
    found = empty_scores(*windows.shape)
    wide = torch.zeros(found.nll.shape)
    finite = True
    step = tokens_a_chunk(vocabulary)
    pairs = zip(loaded.logits(windows), served.logits(windows), strict=True)
    for number, (expected, logits) in enumerate(pairs):
        finite = finite and bool(logits.isfinite().all())
        scored = len(expected) - 1
        for start in range(0, scored, step):
            here = slice(start, min(start + step, scored))
            reference = prepare_reference(expected[here])
            targets = windows[number, here.start + 1 : here.stop + 1]
            wide[number, here] = score(reference, reference.logits, targets)[0]
            nll, kl, agree = score(reference, logits[here], targets)
            found.nll[number, here], found.kl[number, here] = nll, kl
            found.agree[number, here] = agree
    measured: dict[str, float | None] = dict.fromkeys(
        ("ppl", "ppl_float32", "kl", "top1_agreement")
    )
    if finite:
        measured = {
            "ppl": math.exp(found.nll.double().mean()),
            "ppl_float32": math.exp(wide.double().mean()),
            "kl": float(found.kl.double().mean()),
            "top1_agreement": float(found.agree.double().mean()),
        }
    place = None if finite else (served.overflowed or "the head")
    return {"dtype": dtype, "finite": finite, "place": place, **measured}
