"""The AWQ search of one block: which scales and which clipping lose least, found fast.

The choices are those of autoawq 0.2.9 (Lin et al., 2023, "AWQ: Activation-aware Weight
Quantization"): 20 scale ratios a scale group, 10 clipping levels a weight group, the same losses.
Only the way there differs:

* the loss of a lone linear, Σ over tokens of |x·ΔWᵀ|², is tr(ΔW·G·ΔWᵀ) with the Gram matrix
  G = XᵀX: one matrix for all candidates, tokens read once;
* the clipping loss of a weight group is dᵀ·G_g·d with the group's own Gram matrix;
* linears judged together through attention or the MLP need the module's output. Their candidates
  race: the likeliest goes first, over all tokens; each other is dropped as soon as it cannot win
  any more (see `_is_beaten`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mixedprec.arithmetic import fake_quantize
from mixedprec.scheme import Scheme

RATIOS = 20
CLIP_LEVELS = 10
CLIP_STEP = 1 / 20
CLIP_TOKENS = 512
TOKENS_A_BATCH = 256
RACE_ROWS = 8
RACE_ERRORS = 8.0
RACE_MARGIN = 0.01
ELEMENTS_A_CHUNK = 2**18


@dataclass(frozen=True)
class ScaleGroup:
    """Linears that share one input, and with it one vector of scales.

    previous: the module whose output takes the inverse scales. inspect: the module through whose
    output the linears are judged; None for a lone linear. mixes_tokens: whether that module is
    attention (needs whole sequences) rather than token-wise.
    """

    previous: str
    linears: tuple[str, ...]
    inspect: str | None
    mixes_tokens: bool


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
    without an entry are not clipped.
    """

    scheme: Scheme
    scales: tuple[ScaleChoice, ...]
    clips: dict[str, Tensor]

    def choice_for(self, linear: str) -> ScaleChoice | None:
        """The scale choice of the group `linear` is in, if its input is scaled at all."""
        return next((c for c in self.scales if linear in c.group.linears), None)

    def row_scales(self, linear: str, rows: int) -> Tensor:
        """What the rows of `linear` are divided by for the linear after it, [rows]."""
        scales = torch.ones(rows)
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
    """The second moment of inputs [T, K] at hand."""
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


def rank_candidates(
    weights: Sequence[Tensor], power: Tensor, candidates: Tensor, scheme: Scheme
) -> list[int]:
    """Candidates, likeliest first: by the squared error of the weights under inputs of that power
    (Σ x² by channel, [K]) as if channels were uncorrelated."""
    losses = [
        sum(
            (scaled_round_trip(rows, scales, scheme) - rows).square().sum(0).dot(power).item()
            for weight in weights
            for rows in split_rows(weight)
        )
        for scales in candidates
    ]
    return sorted(range(len(losses)), key=lambda index: (losses[index], index))


def _is_beaten(losses: Tensor, leader: Tensor, leader_total: float) -> bool:
    """Whether a candidate, seen on the first rows, can be dropped.

    losses [m]: its loss on those rows, which are a random sample; leader [n ≥ m]: the best
    candidate's on all of them. To win, it would have to lose on the rest only a certain share of
    what the leader loses there. It is dropped if that share is below zero (its partial sum passes
    the best total: exact), or so far below the ratio on the rows seen that RACE_ERRORS standard
    errors of that ratio do not span it. One within RACE_MARGIN of the leader runs to the end.
    """
    seen = leader[: len(losses)]
    partial, leader_partial = losses.sum().item(), seen.sum().item()
    if partial > leader_total:
        return True
    rest = leader_total - leader_partial
    if len(losses) < RACE_ROWS or leader_partial <= 0 or rest <= 0:
        return False
    ratio = partial / leader_partial
    if ratio < 1 + RACE_MARGIN:
        return False
    spread = (losses - ratio * seen).square().sum().item() * len(losses) / (len(losses) - 1)
    error = spread**0.5 / leader_partial
    return ratio - (leader_total - partial) / rest > RACE_ERRORS * error


def judge_jointly(
    module: nn.Module,
    linears: Sequence[nn.Linear],
    inputs: Tensor,
    run: Callable[[Tensor], Tensor],
    candidates: Tensor,
    scheme: Scheme,
    *,
    order: Sequence[int],
    mixes_tokens: bool,
) -> int:
    """Index of the candidate whose quantized `linears` change the output of `module` least.

    inputs: [n, tokens, K]. run: the module's forward on a batch of such inputs, giving its output.
    order: candidates, likeliest first. Equal losses go to the lower index, as in autoawq. The
    weights of `linears` are put back before this returns.
    """
    if mixes_tokens:
        size = max(1, TOKENS_A_BATCH // inputs.shape[1])
    else:
        inputs = inputs.reshape(1, -1, inputs.shape[-1]).transpose(0, 1)
        size = TOKENS_A_BATCH
    reference = torch.cat([run(batch) for batch in inputs.split(size)])
    originals = [linear.weight.data for linear in linears]
    rows = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    leader, leader_losses, leader_total = -1, torch.empty(0), float("inf")
    try:
        for index in order:
            for linear, weight in zip(linears, originals, strict=True):
                trial = scaled_round_trip(weight.float(), candidates[index], scheme)
                linear.weight.data = trial.to(weight.dtype)
            losses = torch.empty(0, dtype=torch.float64)
            for batch in rows.split(size):
                error = (run(inputs[batch]) - reference[batch]).float()
                losses = torch.cat([losses, error.square().flatten(1).sum(1).double()])
                if leader >= 0 and _is_beaten(losses, leader_losses, leader_total):
                    break
            else:
                total = losses.sum().item()
                if (total, index) < (leader_total, leader):
                    leader, leader_losses, leader_total = index, losses, total
    finally:
        for linear, weight in zip(linears, originals, strict=True):
            linear.weight.data = weight
    if leader < 0:
        raise FloatingPointError("no AWQ candidate has a finite loss")
    return leader


def group_grams(inputs: Tensor, group: int) -> Tensor:
    """Gram matrix of each run of `group` channels over tokens [T, K]: [K / group, group, group]."""
    by_group = inputs.reshape(len(inputs), -1, group).permute(1, 0, 2)
    return by_group.transpose(1, 2) @ by_group


def sample_for_clipping(inputs: Tensor) -> Tensor:
    """The tokens [≤ 1023, K] of [..., K] inputs that autoawq judges clipping on: every n-th."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    return flat[:: max(1, len(flat) // CLIP_TOKENS)]


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
