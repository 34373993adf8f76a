"""What `awqscope alternatives` answers: a row an alternative, with intervals over windows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from awqscope.diagnose.entries.part import Bounded, Part
from awqscope.diagnose.statistics.bootstrap import Floats, Resampler, bounds, perplexity

# Whose method an alternative is, a checkpoint of another tool among them.
AWQ, RTN, NF4, GGUF, ADDED = "AWQ", "RTN", "NF4", "GGUF", "added"
# The run's own model with every unit at the rescue width.
RESCUE = "rescue"


class ByWindow(Part):
    """Means over the tokens of each window, in the order of the text."""

    nll: Sequence[float] = Field(description="Negative log likelihood, nats a token.")
    kl: Sequence[float] = Field(description="KL against the reference, nats a token.")
    agreement: Sequence[float] = Field(
        description="Share of tokens whose likeliest next token is the reference's."
    )


class Alternative(Part):
    """One way to quantize the model, as it was measured."""

    name: str = Field(description="As `--only` and `--add` have it.")
    title: str = Field(description="What it is called in tables.")
    kind: str = Field(description="Whose method it is: `AWQ`, `RTN`, `NF4`, `GGUF` or `added`.")
    stamp: Mapping[str, Any] = Field(description="What it was made with: measured again for other.")
    bytes: int = Field(
        description="Of all tensors; embeddings and head are at 16 bits but for "
        "an added checkpoint's."
    )
    bits_per_weight: float = Field(
        description="Of the linears of all blocks, scales and zero points counted."
    )
    seconds: float | None = Field(
        description="How long making it took: searching, or rounding; of the run's own, its "
        "search, and of its recipe all stages that it was chosen by. Null where that is not known."
    )
    places: Sequence[str] = Field(
        description="Where it differs from the reference outside the blocks: `embeddings`, `head`."
    )
    weights_alone: bool = Field(
        description="Whether servers quantize its activations too: its weights alone were measured."
    )
    ppl: float = Field(description="Perplexity on the run's text.")
    delta_ppl: Bounded = Field(description="Over the reference's, with bounds.")
    kl: Bounded = Field(description="KL against the reference, nats a token, with bounds.")
    agreement: Bounded = Field(description="Share of tokens with the reference's top token.")
    kl_over_uniform: Bounded = Field(
        description="KL less that of the run's uniform model, paired by token, with bounds."
    )
    ppl_over_uniform: Bounded = Field(
        description="Perplexity less that of the run's uniform model, paired by token."
    )
    blocks: Sequence[Bounded] | None = Field(
        default=None,
        description="KL of each block alone in the reference, with bounds; null where that was "
        "not measured.",
    )
    by_window: ByWindow = Field(description="What the numbers are means of.")

    @property
    def standing(self) -> int:
        """−1 where its KL is surely below that of the run's uniform model, 1 where it is surely
        above, 0 where the interval holds zero."""
        _, low, high = self.kl_over_uniform
        return (low > 0) - (high < 0)


class Alternatives(Part):
    """Alternatives to a run's uniform model, measured on its text."""

    run: str = Field(description="The run's name.")
    model: str = Field(description="The reference, as the run was given it.")
    text: str = Field(description="What was measured on.")
    windows: int = Field(description="Windows of the text.")
    seq_len: int = Field(description="Tokens in a window.")
    block_windows: int = Field(description="Windows that blocks are measured on alone.")
    reference_ppl: float = Field(description="Perplexity of the reference.")
    reference_bytes: int = Field(description="Bytes of all its tensors in 16 bits.")
    quantized_before: str | None = Field(
        description="How the reference's weights were quantized before the run, where that is "
        "known: what is measured is then kind to that grid."
    )
    reference_nll: Sequence[float] = Field(description="NLL of the reference by window.")
    rows: Sequence[Alternative] = Field(description="The alternatives, the least KL first.")
    left_out: Mapping[str, str] = Field(
        description="Alternatives that were not measured: name -> why."
    )

    def find(self, name: str) -> Alternative | None:
        """The row of this name."""
        return next((row for row in self.rows if row.name == name), None)


def weigh(
    by_window: ByWindow, uniform: ByWindow, reference: Sequence[float], resampler: Resampler
) -> dict[str, Any]:
    """The numbers of a row from means by window: its own, uniform's, and the reference's NLL."""
    nll, kl, agreement = (_floats(getattr(by_window, n)) for n in ("nll", "kl", "agreement"))
    return {
        "ppl": perplexity(nll),
        "delta_ppl": bounds(resampler.ppl_difference(_floats(reference), nll)),
        "kl": bounds(resampler.mean(kl)),
        "agreement": bounds(resampler.mean(agreement)),
        "kl_over_uniform": bounds(resampler.mean(kl - _floats(uniform.kl))),
        "ppl_over_uniform": bounds(resampler.ppl_difference(_floats(uniform.nll), nll)),
    }


def _floats(values: Sequence[float]) -> Floats:
    return np.asarray(values, dtype=np.float64)
