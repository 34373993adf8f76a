"""The AWQ search of one block: which scales and which clipping lose least, found fast.

The choices are those of autoawq 0.2.9 (Lin et al., 2023, "AWQ: Activation-aware Weight
Quantization"): 20 scale ratios a scale group, 10 clipping levels a weight group, the same losses.
Only the way there differs:

* the loss of a lone linear, Σ over tokens of |x·ΔWᵀ|², is tr(ΔW·G·ΔWᵀ) with the Gram matrix
  G = XᵀX: one matrix for all candidates, tokens read once;
* the clipping loss of a weight group is dᵀ·G_g·d with the group's own Gram matrix;
* linears judged together through attention or the MLP need the module's output. Their candidates
  race over growing parts of the tokens, and those that cannot win any more drop out (see
  `survivors`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from awqscope.mixedprec.awq.arithmetic import fake_quantize
from awqscope.mixedprec.families.family import ScaleGroup
from awqscope.mixedprec.models.streams import CPU, Stream, as_stream, batch_size, list_batches
from awqscope.mixedprec.ranking import NONE_FINITE, least_at
from awqscope.mixedprec.scheme import Scheme

RATIOS = 20
CLIP_LEVELS = 10
CLIP_STEP = 1 / 20
CLIP_TOKENS = 512
# A race's first share of the rows, and its caution in standard errors, by whether rows are whole
# sequences (True), whose parts err more alike than tokens drawn one by one do.
RACE_START = {True: 1 / 8, False: 1 / 16}
RACE_ERRORS = {True: 6.0, False: 4.0}
RACE_GROWTH = 1.3
RACE_FEWEST = 16
HEAVY_SHARE = 1 / 64
SEGMENT = 64
ELEMENTS_A_CHUNK = 2**18
KEPT_ELEMENTS = 2**24


@dataclass(frozen=True)
class ScaleChoice:
    """The search's answer for a scale group: `ratio` (0 to 0.95) and its scales [K], float32."""

    group: ScaleGroup
    ratio: float
    scales: Tensor


@dataclass(frozen=True)
class BlockSearch:
    """All choices for one block at one scheme.

    clips: linear -> largest weight kept, float32 [N, G], once all of this search's scales are in
    the weight (those of its inputs, and those its rows take for the linear after it). Linears
    without an entry are not clipped. symmetric: the linears that are quantized without zero points
    whatever the scheme. uncalibrated: experts that saw too few tokens to be searched.
    """

    scheme: Scheme
    scales: tuple[ScaleChoice, ...]
    clips: dict[str, Tensor]
    symmetric: frozenset[str] = frozenset()
    uncalibrated: tuple[str, ...] = ()

    def scheme_of(self, linear: str) -> Scheme:
        """The scheme of one of the block's linears."""
        return replace(self.scheme, symmetric=True) if linear in self.symmetric else self.scheme

    def choice_for(self, linear: str) -> ScaleChoice | None:
        """The scale choice of the group `linear` is in, if its input is scaled at all."""
        return next((c for c in self.scales if linear in c.group.linears), None)

    def to(self, device: torch.device) -> "BlockSearch":
        """The same search with its tensors on `device`."""
        choices = tuple(replace(c, scales=c.scales.to(device)) for c in self.scales)
        clips = {name: clip.to(device) for name, clip in self.clips.items()}
        return replace(self, scales=choices, clips=clips)

    def row_scales(self, linear: str, rows: int) -> Tensor:
        """What the rows of `linear` are divided by for the linear after it, [rows]."""
        found = [*(choice.scales for choice in self.scales), *self.clips.values()]
        scales = torch.ones(rows, device=found[0].device if found else CPU)
        for choice in self.scales:
            if choice.group.previous == linear:
                scales[-len(choice.scales) :] = choice.scales
        return scales


def split_rows(weight: Tensor) -> tuple[Tensor, ...]:
    """Views of a few rows each, small enough for their temporaries to stay in the cache."""
    return weight.split(max(1, ELEMENTS_A_CHUNK // weight.shape[1]))


def weight_means(weights: Sequence[Tensor], scheme: Scheme) -> Tensor:
    """Mean over rows of |w| relative to its weight group's largest, [K]: AWQ's weight salience."""
    # One mean over all rows, as autoawq takes it: another order of summation moves scales by a
    # rounding, and that moves ties between clipping levels.
    relative = torch.cat(list(weights), dim=0).abs_()
    for rows in split_rows(relative):
        grouped = rows.view(-1, scheme.group(rows.shape[1]))
        grouped /= grouped.amax(dim=1, keepdim=True) + 1e-6
    return relative.mean(0)


def candidate_scales(x_mean: Tensor, w_mean: Tensor | None) -> Tensor:
    """The 20 candidate scale vectors [20, K] from mean |x| [K] and, for duo scaling, `w_mean`."""
    candidates = []
    for step in range(RATIOS):
        ratio = step / RATIOS
        scales = x_mean.pow(ratio)
        if w_mean is not None:
            scales = scales / (w_mean.pow(1 - ratio) + 1e-4)
        scales = scales.clamp(min=1e-4)
        scales = scales / (scales.max() * scales.min()).sqrt()
        scales[torch.isinf(scales) | torch.isnan(scales)] = 1
        candidates.append(scales)
    return torch.stack(candidates)


def scaled_round_trip(weight: Tensor, scales: Tensor, scheme: Scheme) -> Tensor:
    """Q(W·s)/s: the weight that acts on unscaled inputs when W·s is quantized."""
    result = torch.empty_like(weight)
    for rows, out in zip(split_rows(weight), split_rows(result), strict=True):
        torch.div(fake_quantize(rows * scales, scheme), scales, out=out)
    return result


@dataclass(frozen=True)
class SecondMoment:
    """Σ xᵀx over tokens x, as the Gram matrix [K, K] or, where tokens are fewer than channels, as
    the tokens [T, K] themselves: whichever makes the loss cheaper."""

    matrix: Tensor
    is_gram: bool

    def squared_error(self, delta: Tensor) -> float:
        """Σ over tokens of |x·δᵀ|² for an error δ [N, K] of a weight."""
        if self.is_gram:
            return ((delta @ self.matrix) * delta).sum().item()
        return (delta @ self.matrix.T).square().sum().item()


def second_moment(inputs: Tensor) -> SecondMoment:
    """The second moment of the inputs [T, K]."""
    is_gram = inputs.shape[0] >= inputs.shape[1]
    return SecondMoment(inputs.T @ inputs if is_gram else inputs, is_gram)


def lone_losses(
    weight: Tensor, moment: SecondMoment, candidates: Tensor, scheme: Scheme
) -> list[float]:
    """Σ over tokens and outputs of the squared error of a lone linear under each candidate."""
    return [
        moment.squared_error(scaled_round_trip(weight, scales, scheme).sub_(weight))
        for scales in candidates
    ]


def survivors(heavy: Tensor, losses: Tensor, seen: float, errors: float) -> list[int]:
    """The candidates that may still win a race, as positions in `heavy` and `losses`.

    heavy: [candidates], the loss of each on rows that are seen in any case. losses: [candidates,
    parts], on parts drawn at random of all others; seen: the share of those they are. The totals
    are estimated as heavy + Σ losses / seen. With r the ratio of a candidate's to the leader's, the
    residuals l − r·l_leader of m parts give the standard error of r, √(m·(1 − seen))·sd / seen /
    total (sampling without replacement: none in the end). A candidate stays while r is within
    `errors` standard errors of 1. Fewer than RACE_FEWEST parts drop only candidates without a
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
    candidates: Tensor,
    scheme: Scheme,
    *,
    mixes_tokens: bool,
    batches: int = 1,
) -> int:
    """Index of the candidate whose quantized `linears` change the output of a module least.

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
    size, device = batches * batch_size(inputs.shape[1]), candidates.device
    # A few tokens can hold most of a loss (massive activations): no sample may leave them out.
    norms = [
        torch.linalg.vector_norm(reference.read(part).flatten(1), dim=1)
        for part in list_batches(reference)
    ]
    by_size = torch.cat(norms).cpu().argsort(descending=True)
    heaviest, rest = by_size.tensor_split([int(len(by_size) * HEAVY_SHARE)])
    rows = rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(0))]
    originals = [linear.weight.data for linear in linears]

    is_small = len(candidates) * sum(weight.numel() for weight in originals) <= KEPT_ELEMENTS
    trials: dict[int, list[Tensor]] = {}

    def losses_of(candidate: int, some: Tensor) -> Tensor:
        trial = trials.get(candidate) or [
            scaled_round_trip(weight.float(), candidates[candidate], scheme).to(weight.dtype)
            for weight in originals
        ]
        if is_small:
            trials[candidate] = trial
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

    alive = list(range(len(candidates)))
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


def group_grams(inputs: Tensor, group: int) -> Tensor:
    """Gram matrix of each run of `group` channels over tokens [T, K]: [K / group, group, group]."""
    by_group = inputs.reshape(len(inputs), -1, group).permute(1, 0, 2)
    return by_group.transpose(1, 2) @ by_group


def sample_for_clipping(inputs: Tensor) -> Tensor:
    """The tokens [≤ 1023, K] of [..., K] inputs that autoawq judges clipping on: every n-th."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    return flat[:: max(1, len(flat) // CLIP_TOKENS)]


def choose_clip(name: str, weight: Tensor, inputs: Tensor, search: BlockSearch) -> Tensor:
    """The clipping maximum [N, G] of each weight group of the linear `name`, once all scales of
    `search` are in its weight [N, K]. inputs: the tokens [T, K] it is judged on."""
    choice = search.choice_for(name)
    if choice is not None:
        weight, inputs = weight * choice.scales, inputs / choice.scales
    weight = weight / search.row_scales(name, len(weight))[:, None]
    scheme = search.scheme_of(name)
    return best_clip(weight, group_grams(inputs, scheme.group(weight.shape[1])), scheme)


def best_clip(weight: Tensor, grams: Tensor, scheme: Scheme) -> Tensor:
    """The clipping maximum [N, G] of each weight group that loses least.

    weight: [N, K], inputs already scaled. grams: `group_grams` of the scaled inputs.
    """
    group = scheme.group(weight.shape[1])
    best = []
    for rows in split_rows(weight):
        grouped = rows.reshape(len(rows), -1, group)
        largest = grouped.abs().amax(dim=-1, keepdim=True)
        chosen = largest.clone()
        lowest = torch.full_like(largest, 1e9)
        for level in range(CLIP_LEVELS):
            maximum = largest * (1 - level * CLIP_STEP)
            clipped = grouped.clamp(-maximum, maximum)
            delta = fake_quantize(clipped.view(rows.shape), scheme).view_as(grouped) - grouped
            by_group = delta.transpose(0, 1)
            loss = ((by_group @ grams) * by_group).sum(-1).transpose(0, 1)[:, :, None]
            better = loss < lowest
            lowest = torch.where(better, loss, lowest)
            chosen = torch.where(better, maximum, chosen)
        best.append(chosen.squeeze(-1))
    return torch.cat(best)
