"""The scales of linears that are judged together, through attention or the MLP, by a race.

Their loss needs the module's output, for each scaling on every token. The scalings race over
growing parts of the tokens instead, and those that cannot win any more drop out (`survivors`). The
winner is the one that autoawq finds by judging all of them on everything.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from awqscope.mixedprec.awq.losses import scaled_round_trip
from awqscope.mixedprec.models.streams import Stream, as_stream, batch_size, list_batches
from awqscope.mixedprec.ranking import NONE_FINITE, least_at
from awqscope.mixedprec.scheme import Scheme

# A race's first share of the rows, and its caution in standard errors, by whether rows are whole
# sequences (True), whose parts err more alike than tokens drawn one by one do.
RACE_START = {True: 1 / 8, False: 1 / 16}
RACE_ERRORS = {True: 6.0, False: 4.0}
RACE_GROWTH = 1.3
RACE_FEWEST = 16
HEAVY_SHARE = 1 / 64
SEGMENT = 64
KEPT_ELEMENTS = 2**24


def survivors(heavy: Tensor, losses: Tensor, seen: float, errors: float) -> list[int]:
    """The scalings that may still win a race, as positions in `heavy` and `losses`.

    heavy: [scalings], the loss of each on rows that are seen in any case. losses: [scalings,
    parts], on parts drawn at random of all others; seen: the share of those they are. The totals
    are estimated as heavy + Σ losses / seen. With r the ratio of a scaling's to the leader's, the
    residuals l − r·l_leader of m parts give the standard error of r, √(m·(1 − seen))·sd / seen /
    total (sampling without replacement: none in the end). A scaling stays while r is within
    `errors` standard errors of 1. Fewer than RACE_FEWEST parts drop only scalings without a
    finite loss.
    """
    totals = heavy + losses.sum(1) / seen
    finite = torch.isfinite(totals)
    if not finite.any():
        return []
    parts = losses.shape[1]
    leader = int(totals.nan_to_num(nan=float("inf")).argmin())
    if parts < RACE_FEWEST or totals[leader] <= 0:
        return finite.nonzero().flatten().tolist()
    ratios = totals / totals[leader]
    residuals = losses - ratios[:, None] * losses[leader]
    spread = residuals.std(1) * (parts * (1 - seen)) ** 0.5 / seen / totals[leader]
    return (finite & (ratios - 1 <= errors * spread)).nonzero().flatten().tolist()


def judge_jointly(
    linears: Sequence[nn.Linear],
    inputs: Stream | Tensor,
    reference: Stream | Tensor,
    run: Callable[[Tensor], Tensor],
    scalings: Tensor,
    scheme: Scheme,
    *,
    mixes_tokens: bool,
    batches: int = 1,
) -> int:
    """Index of the scaling whose quantized `linears` change the output of a module least.

    inputs: [n, length, K]. run: the forward, on a batch of such inputs, of the module that holds
    `linears`. reference: its output on all of them, [n, length, d]. Equal losses go to the lower
    index, as in autoawq. batches: how many of the usual ones go through at once; a mixture of
    experts hands each of them a few tokens of a batch only. The weights of `linears` are put back
    before this returns.
    """
    inputs, reference = as_stream(inputs), as_stream(reference)
    if not mixes_tokens:
        tokens = inputs.shape[0] * inputs.shape[1]
        inputs, reference = inputs.reshape(tokens, 1), reference.reshape(tokens, 1)
    size, device = batches * batch_size(inputs.shape[1]), scalings.device
    # A few tokens can hold most of a loss (massive activations): no sample may leave them out.
    norms = [
        torch.linalg.vector_norm(reference.read(part).flatten(1), dim=1)
        for part in list_batches(reference)
    ]
    by_size = torch.cat(norms).cpu().argsort(descending=True)
    heaviest, rest = by_size.tensor_split([int(len(by_size) * HEAVY_SHARE)])
    rows = rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(0))]
    originals = [linear.weight.data for linear in linears]

    is_small = len(scalings) * sum(weight.numel() for weight in originals) <= KEPT_ELEMENTS
    trials: dict[int, list[Tensor]] = {}

    def losses_of(scaling: int, some: Tensor) -> Tensor:
        trial = trials.get(scaling) or [
            scaled_round_trip(weight.float(), scalings[scaling], scheme).to(weight.dtype)
            for weight in originals
        ]
        if is_small:
            trials[scaling] = trial
        for linear, weight in zip(linears, trial, strict=True):
            linear.weight.data = weight
        parts = [torch.zeros(0, device=device)]
        for batch in some.split(size) if len(some) else ():
            expected = reference.gather(batch).to(device)
            found = run(inputs.gather(batch).to(device))
            by_token = (found - expected).float().square().sum(-1)
            # Neighbouring tokens err alike: longer parts are closer to independent.
            parts += [part.sum(1) for part in by_token.split(SEGMENT, dim=1)]
        return torch.cat(parts).double().cpu()

    alive = list(range(len(scalings)))
    seen, end = 0, max(1, int(len(rows) * RACE_START[mixes_tokens]))
    try:
        heavy = torch.stack([losses_of(index, heaviest).sum() for index in alive])
        losses = torch.empty(len(alive), 0, dtype=torch.float64)
        while seen < len(rows) and len(alive) > 1:
            new = torch.stack([losses_of(index, rows[seen:end]) for index in alive])
            losses = torch.cat([losses, new], dim=1)
            seen, end = end, min(len(rows), max(end + 1, int(end * RACE_GROWTH)))
            kept = survivors(heavy, losses, seen / len(rows), RACE_ERRORS[mixes_tokens])
            alive, heavy, losses = [alive[index] for index in kept], heavy[kept], losses[kept]
    finally:
        for linear, weight in zip(linears, originals, strict=True):
            linear.weight.data = weight
    if not alive:
        raise FloatingPointError(NONE_FINITE)
    return alive[least_at((heavy + losses.sum(1)).tolist())]
