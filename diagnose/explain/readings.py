"""What a model's predictions along a continuation say: where it leaves the reference's tokens, how
close that was, and how far it follows. Pure: logits in, plain data out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from awqscope.diagnose.explain.cheapest import Outcome
from awqscope.diagnose.explain.explanation import Followed, Piece, Rival, Rivals
from awqscope.diagnose.statistics.likelihood import Reference, prepare_reference, score

# Logits of the same text computed in another order differ by less, in float32.
ROUNDING = 1e-4


@dataclass(frozen=True)
class Reading:
    """A model on a text, beside the reference. kl [tokens − 1]: of what it predicts in the place of
    each token but the first. For each token of the continuation: `wins`, whether it is the
    likeliest; `chosen`, its log-probability; `other`, the likeliest token but it, with its
    log-probability by this model (`other_here`) and by the reference (`other_there`)."""

    kl: Tensor
    wins: Tensor
    chosen: Tensor
    other: Tensor
    other_here: Tensor
    other_there: Tensor

    @property
    def margin(self) -> Tensor:
        """Of the continuation's tokens, in nats."""
        return self.chosen - self.other_here


def read_logits(reference: Tensor, logits: Tensor, targets: Tensor) -> Reading:
    """Logits [places, vocabulary] of both models in the places of the tokens `targets`."""
    expected = prepare_reference(reference)
    kl = score(expected, logits, targets)[1]
    mine, theirs = logits.log_softmax(-1), _log_probabilities(expected)
    chosen = mine.gather(-1, targets[:, None])
    rest = mine.scatter(-1, targets[:, None], -torch.inf)
    other = rest.argmax(-1, keepdim=True)
    return Reading(
        kl,
        logits.argmax(-1) == targets,
        chosen[:, 0],
        other[:, 0],
        mine.gather(-1, other)[:, 0],
        theirs.gather(-1, other)[:, 0],
    )


def _log_probabilities(reference: Reference) -> Tensor:
    return reference.logits - reference.log_sum[..., None]


def join_readings(parts: Sequence[Reading], prompt: int) -> Reading:
    """Readings of consecutive places, from a text's second token on; all but `kl` is kept for what
    comes after the `prompt` tokens of the prompt."""

    def join(name: str, skip: int) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])[skip:]

    names = ("wins", "chosen", "other", "other_here", "other_there")
    return Reading(join("kl", 0), *(join(name, prompt - 1) for name in names))


def judge(logits: Tensor, wanted: Sequence[int]) -> Outcome:
    """Whether the tokens `wanted` are the likeliest by logits [tokens, vocabulary]."""
    tokens = torch.tensor(wanted)[:, None]
    wins = logits.argmax(-1, keepdim=True) == tokens
    chosen = logits.gather(-1, tokens)[:, 0]
    margins = chosen - logits.scatter(-1, tokens, -torch.inf).amax(-1)
    return Outcome(
        repaired=bool(wins.all()),
        worst=float(margins.min()),
        wins=bool(wins[-1]),
        margin=float(margins[-1]),
        probability=float((chosen[-1] - logits[-1].logsumexp(-1)).exp()),
    )


def find_rivals(
    readings: Mapping[str, Reading],
    reference: Sequence[int],
    uniform: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[Rivals, bool]:
    """Where the continuations part, or else where uniform came closest to it; whether they part."""
    pairs = zip(reference, uniform, strict=False)
    apart = next((at for at, (a, b) in enumerate(pairs) if a != b), None)
    mine, theirs = readings["uniform"], readings["reference"]
    position = int(mine.margin.argmin()) if apart is None else apart
    token, other = reference[position], int(mine.other[position])

    def rival(token: int, there: Tensor, here: Tensor) -> Rival:
        probabilities = float(there[position].exp()), float(here[position].exp())
        return Rival(token, tokenizer.decode([token]), *probabilities)

    margins = float(theirs.margin[position]), float(mine.margin[position])
    rivals = Rivals(
        position,
        rival(token, theirs.chosen, mine.chosen),
        rival(other, mine.other_there, mine.other_here),
        *margins,
        tied=apart is not None and (margins[0] < ROUNDING or margins[1] > -ROUNDING),
    )
    return rivals, apart is not None


def follow(reading: Reading, position: int | None) -> Followed:
    """How far a model follows the continuation. position: where uniform parts from it, if it
    does."""
    lost = torch.nonzero(~reading.wins).flatten()
    parts_at = int(lost[0]) if len(lost) else None
    return Followed(
        None if position is None else parts_at is None or parts_at > position,
        parts_at,
        float(reading.kl[-len(reading.wins) :].mean()),
    )


def list_pieces(
    prompt: Sequence[int],
    continuation: Sequence[int],
    readings: Mapping[str, Reading],
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[Piece, ...]:
    """Every token of the text with its KL by each model there is a reading of."""

    def kl(name: str, position: int) -> float | None:
        return float(readings[name].kl[position - 1]) if name in readings and position else None

    return tuple(
        Piece(
            token,
            tokenizer.decode([token]),
            "prompt" if position < len(prompt) else "continuation",
            *(kl(name, position) for name in ("uniform", "mixed", "repaired")),
        )
        for position, token in enumerate([*prompt, *continuation])
    )
