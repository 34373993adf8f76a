"""Token likelihoods of a reference and a candidate over the same tokens.

KL is the steady signal, ΔPPL the familiar one; both are taken token by token, so that every
difference is paired: the text's own difficulty, which dwarfs quantization, cancels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LOGIT_BYTES = 8 * 2**20
FEWEST_POSITIONS = 64
LARGEST_EXPONENT = 60.0
LEAST_LEFT = 1e-3
TOP_TOKENS = 5


@dataclass(frozen=True)
class TokenScores:
    """Per scored token, float32 [n, length − 1] (a window's first token is context only).

    nll: −log q(token), nats. kl: KL(reference ‖ candidate) over the full vocabulary, nats.
    agree: whether both rank the same token first. top_tokens (int32), top_probabilities: what is
    likeliest in the token's place, [n, length − 1, TOP_TOKENS], likeliest first; the last
    dimension is 0 where that was not asked for.
    """

    nll: Tensor
    kl: Tensor
    agree: Tensor
    top_tokens: Tensor
    top_probabilities: Tensor


@dataclass(frozen=True)
class Reference:
    """The reference's side of a comparison for a run of positions: logits, probabilities, sums."""

    logits: Tensor
    probabilities: Tensor
    log_sum: Tensor
    top: Tensor


def prepare_reference(logits: Tensor) -> Reference:
    """What every candidate is compared with, from logits [..., vocabulary]."""
    log_sum = logits.logsumexp(-1)
    return Reference(logits, (logits - log_sum[..., None]).exp(), log_sum, logits.argmax(-1))


def score(reference: Reference, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """NLL, KL and top-1 agreement at each position, for candidate `logits` [..., vocabulary].

    With d = b − a for logits b and a, KL = log Σ p·eᵈ − Σ p·d. The first term is
    log1p(Σ p·(eᵈ − 1)): it keeps its digits where KL is far below the rounding of a log-sum-exp
    (8-bit layers), and is exactly zero for equal logits.
    """
    d = logits - reference.logits
    sums = (reference.probabilities * d.expm1()).sum(-1)
    # Where the exponential leaves float32's range, or hardly anything is left of 1, the digits do
    # not matter: the candidate is far from the reference.
    growth = torch.where(
        (d.amax(-1) < LARGEST_EXPONENT) & (sums > LEAST_LEFT - 1),
        sums.log1p(),
        logits.logsumexp(-1) - reference.log_sum,
    )
    kl = growth - (reference.probabilities * d).sum(-1)
    log_sum = reference.log_sum + growth
    nll = log_sum - logits.gather(-1, targets[..., None]).squeeze(-1)
    return nll, kl, logits.argmax(-1) == reference.top


def rank_tokens(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The TOP_TOKENS likeliest tokens at each position and their probabilities, likeliest first,
    from logits [..., vocabulary]."""
    values, tokens = logits.topk(TOP_TOKENS)
    return tokens, (values - logits.logsumexp(-1, keepdim=True)).exp()


def tokens_a_chunk(vocabulary: int) -> int:
    """How many positions' logits are held at once."""
    return max(FEWEST_POSITIONS, LOGIT_BYTES // (4 * vocabulary))


def empty_scores(windows: int, length: int, top: int = 0) -> TokenScores:
    """Scores to be filled, for `windows` windows of `length` tokens; room for `top` likeliest."""
    shape = (windows, length - 1)
    return TokenScores(
        torch.zeros(shape),
        torch.zeros(shape),
        torch.zeros(shape, dtype=torch.bool),
        torch.zeros(*shape, top, dtype=torch.int32),
        torch.zeros(*shape, top),
    )
