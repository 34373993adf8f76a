"""The scales of linears that are judged together, through attention or the MLP, by a race.

Their loss needs the module's output, for each scaling on every token. The scalings race over
growing parts of the tokens instead, and those that cannot win any more drop out (`survivors`). The
winner is the one that autoawq finds by judging all of them on everything.
"""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn

from awqscope.mixedprec.awq.losses import STRIDES, choose_favoured, descend, scaled_round_trip
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
# Of a search that need not be exact: the first rows that scalings are tried on and the most, by
# whether rows are whole sequences; how much worse than the best the winner may be, and by how many
# standard errors that must hold. Where it does not hold on the most rows, further ones are read
# while the winner may be LOOSE worse.
NEARLY_ROWS = {True: (1, 8), False: (256, 2048)}
TOLERANCE, LOOSE = 5e-3, 1e-2
NEARLY_ERRORS = 3.0
KEPT_ELEMENTS = 2**24


def survivors(
    heavy: Tensor, losses: Tensor, seen: float, errors: float, tolerance: float = 0.0
) -> list[int]:
    """The scalings that may still win a race, as positions in `heavy` and `losses`.

    heavy: [scalings], the loss of each on rows that are seen in any case. losses: [scalings,
    parts], on parts drawn at random of all others; seen: the share of those they are. The totals
    are estimated as heavy + Σ losses / seen. With r the ratio of a scaling's to the leader's, the
    residuals l − r·l_leader of m parts give the standard error of r, √(m·(1 − seen))·sd / seen /
    total (sampling without replacement: none in the end). A scaling stays while r, less `errors`
    standard errors, is below 1 by at least `tolerance`; the leader always stays. Fewer than
    RACE_FEWEST parts drop only scalings without a finite loss.
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
    stays = finite & (ratios - 1 + tolerance <= errors * spread)
    stays[leader] = True
    return stays.nonzero().flatten().tolist()


class _Judge:
    """Tries scalings on `linears` and sees by how much the output of a module changes.

    The weights of the linears are put back when it is left."""

    def __init__(
        self,
        linears: Sequence[nn.Linear],
        inputs: Stream,
        reference: Stream,
        run: Callable[[Tensor], Tensor],
        scalings: Tensor,
        scheme: Scheme,
        size: int,
    ):
        self._linears, self._inputs, self._reference, self._run = linears, inputs, reference, run
        self._scalings, self._scheme, self._size = scalings, scheme, size
        self._originals = [linear.weight.data for linear in linears]
        self._most = KEPT_ELEMENTS // sum(weight.numel() for weight in self._originals)
        self._trials: dict[int, list[Tensor]] = {}

    def __enter__(self) -> "_Judge":
        return self

    def __exit__(self, *error: object) -> None:
        for linear, weight in zip(self._linears, self._originals, strict=True):
            linear.weight.data = weight

    def keep(self, scalings: Collection[int]) -> None:
        """Drop the weights of all other scalings: they will not be tried again."""
        self._trials = {n: trial for n, trial in self._trials.items() if n in scalings}

    def losses(self, scaling: int, rows: Tensor) -> Tensor:
        """The loss of a scaling on these rows of the inputs, part by part, float64."""
        scales = self._scalings[scaling]
        trial = self._trials.get(scaling) or [
            scaled_round_trip(weight.float(), scales, self._scheme).to(weight.dtype)
            for weight in self._originals
        ]
        if len(self._trials) < self._most:
            self._trials[scaling] = trial
        for linear, weight in zip(self._linears, trial, strict=True):
            linear.weight.data = weight
        device = self._scalings.device
        parts = [torch.zeros(0, device=device)]
        for batch in rows.split(self._size) if len(rows) else ():
            expected = self._reference.gather(batch).to(device)
            found = self._run(self._inputs.gather(batch).to(device))
            by_token = (found - expected).float().square().sum(-1)
            # Neighbouring tokens err alike: longer parts are closer to independent.
            parts += [part.sum(1) for part in by_token.split(SEGMENT, dim=1)]
        return torch.cat(parts).double().cpu()


def _draw_rows(reference: Stream, fewest: int) -> tuple[Tensor, Tensor]:
    """The rows of a module's outputs: the heaviest, HEAVY_SHARE of them but no fewer than `fewest`,
    and all others in a random order."""
    norms = [
        torch.linalg.vector_norm(reference.read(part).flatten(1), dim=1)
        for part in list_batches(reference)
    ]
    by_size = torch.cat(norms).cpu().argsort(descending=True)
    heavy = min(len(by_size), max(fewest, int(len(by_size) * HEAVY_SHARE)))
    heaviest, rest = by_size.tensor_split([heavy])
    return heaviest, rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(0))]


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
    exact: bool = True,
) -> int:
    """Index of the scaling whose quantized `linears` change the output of a module least.

    inputs: [n, length, K]. run: the forward, on a batch of such inputs, of the module that holds
    `linears`. reference: its output on all of them, [n, length, d]. Equal losses go to the lower
    index, as in autoawq. batches: how many of the usual ones go through at once; a mixture of
    experts hands each of them a few tokens of a batch only. exact: whether it must be the one that
    all rows choose; otherwise one that is about as good will do (`_search_nearly`). The weights of
    `linears` are put back before this returns.
    """
    inputs, reference = as_stream(inputs), as_stream(reference)
    if not mixes_tokens:
        tokens = inputs.shape[0] * inputs.shape[1]
        inputs, reference = inputs.reshape(tokens, 1), reference.reshape(tokens, 1)
    size = batches * batch_size(inputs.shape[1])
    # A few tokens can hold most of a loss (massive activations): no sample may leave them out.
    heaviest, rows = _draw_rows(reference, 0 if exact else 1)
    with _Judge(linears, inputs, reference, run, scalings, scheme, size) as judge:
        if exact:
            return _race(judge, heaviest, rows, len(scalings), mixes_tokens)
        return _search_nearly(judge, heaviest, rows, len(scalings), mixes_tokens)


def _race(judge: _Judge, heaviest: Tensor, rows: Tensor, count: int, mixes_tokens: bool) -> int:
    """The scaling of `count` that all rows choose."""
    alive = list(range(count))
    seen, end = 0, max(1, int(len(rows) * RACE_START[mixes_tokens]))
    heavy = torch.stack([judge.losses(index, heaviest).sum() for index in alive])
    losses = torch.empty(len(alive), 0, dtype=torch.float64)
    while seen < len(rows) and len(alive) > 1:
        new = torch.stack([judge.losses(index, rows[seen:end]) for index in alive])
        losses = torch.cat([losses, new], dim=1)
        seen, end = end, min(len(rows), max(end + 1, int(end * RACE_GROWTH)))
        kept = survivors(heavy, losses, seen / len(rows), RACE_ERRORS[mixes_tokens])
        alive, heavy, losses = [alive[index] for index in kept], heavy[kept], losses[kept]
        judge.keep(alive)
    if not alive:
        raise FloatingPointError(NONE_FINITE)
    return alive[least_at((heavy + losses.sum(1)).tolist())]


class _Seen:
    """What is known of the loss of one scaling: on the heaviest rows, and on the first of all
    others, stretch by stretch."""

    def __init__(self, heavy: Tensor):
        self.heavy = heavy
        self.stretches: list[Tensor] = []


def _search_nearly(
    judge: _Judge, heaviest: Tensor, rows: Tensor, count: int, mixes_tokens: bool
) -> int:
    """A scaling of `count` that is about as good as the one that all rows choose.

    Every other one is of a ratio that autoawq tries; of the rest few are tried (`descend`). They
    race on a few rows and then on twice as many, until whoever leads is at most TOLERANCE worse
    than any other can be by NEARLY_ERRORS standard errors.
    """
    first, most = NEARLY_ROWS[mixes_tokens]
    ends = [first << step for step in range(max(1, len(rows) // first).bit_length() + 1)]
    known: dict[int, _Seen] = {}

    def race(numbers: Sequence[int], favourite: int | None = None) -> int:
        alive = list(numbers)
        for index in alive:
            known.setdefault(index, _Seen(judge.losses(index, heaviest).sum()))
        for stretch, end in enumerate(min(end, len(rows)) for end in ends):
            start = min(ends[stretch - 1], len(rows)) if stretch else 0
            for index in alive:
                seen = known[index].stretches
                if len(seen) == stretch:
                    seen.append(judge.losses(index, rows[start:end]))
            heavy = torch.stack([known[index].heavy for index in alive])
            losses = torch.stack(
                [torch.cat(known[index].stretches[: stretch + 1]) for index in alive]
            )
            share = end / len(rows) if len(rows) else 1.0
            tolerance = TOLERANCE if end < most else LOOSE
            kept = survivors(heavy, losses, share, NEARLY_ERRORS, tolerance)
            if not kept:
                raise FloatingPointError(NONE_FINITE)
            if favourite in alive:
                kept = sorted({*kept, alive.index(favourite)})
            alive, heavy, losses = [alive[i] for i in kept], heavy[kept], losses[kept]
            judge.keep(alive)
            if len(alive) == 1 or end == len(rows):
                break
        totals = (heavy + losses.sum(1) / share).tolist()
        return choose_favoured(alive, totals, favourite)

    return descend(race, count, STRIDES[False])
