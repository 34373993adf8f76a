"""What was measured, and on what: the reference, a candidate, and texts."""

from collections.abc import Mapping, Sequence

from pydantic import Field

from awqscope.diagnose.entries.part import Part


class Source(Part):
    """The reference: the model that a run is of."""

    architecture: str = Field(description="The model type that its config.json names.")
    blocks: int = Field(description="How many decoder layers it has.")
    units: Sequence[str] = Field(description="The kinds of units in a block, in order.")
    parameters: int = Field(
        description="How many it has, as transformers counts them: a head that is the embedding is "
        "none of its own."
    )
    dtype: str = Field(description="The type that it is served in.")
    hashes: Mapping[str, str] = Field(
        description="SHA-256 by file, of config.json and those that the weights are read from."
    )
    left_aside: Sequence[str] = Field(
        default=(),
        description="Files beside them that hold weights too and that transformers does not load "
        "either. Earlier versions lack it.",
    )
    quantized_before: str | None = Field(
        default=None,
        description="How its weights were quantized before, such as `GGUF Q4_1`, where that is "
        "known. Earlier versions lack it.",
    )


def write_quantized_before(how: str) -> str:
    """What it means for a run that the reference's weights were quantized before."""
    return (
        f"the reference's weights were quantized before ({how}): what 4 bits cost it is no measure "
        "of what they cost the model that it was made from"
    )


class Candidate(Part):
    """A checkpoint that was made elsewhere."""

    path: str = Field(description="As it was given.")
    format: str = Field(
        description="`plain`, `gguf`, or the quantization method its config.json names."
    )
    bits: Mapping[str, int] = Field(
        description="Width -> linears of the blocks that have it; 16 is not quantized."
    )
    tokenizer: bool = Field(description="Whether it has one; else the reference's was used.")
    hashes: Mapping[str, str] = Field(description="SHA-256 by file that its weights are read from.")
    left_aside: Sequence[str] = Field(
        default=(), description="Files beside them that hold weights too. Earlier versions lack it."
    )
    padding: int = Field(
        default=0,
        description="Tokens by which its vocabulary was rounded up, which are left out: its "
        "probabilities are over the reference's tokens. Earlier versions lack it.",
    )
    weights_alone: bool = Field(
        default=False,
        description="Whether its activations are quantized too when it is served, and its weights "
        "alone were measured. Earlier versions lack it.",
    )
    unit_weights: int | None = Field(
        default=None,
        description="Weights of the linears of all blocks, which bits a weight are of. Earlier "
        "versions lack it.",
    )


class Place(Part):
    """What a candidate changes outside the blocks, and what that alone costs."""

    place: str = Field(description="`embeddings`, or `head`, the final norm included.")
    delta_nll: float = Field(description="Mean NLL with it alone swapped in, less the reference's.")
    delta_nll_low: float = Field(description="Its lower 95% bound.")
    delta_nll_high: float = Field(description="Its upper 95% bound.")
    delta_ppl: float = Field(description="The same difference in perplexity.")
    delta_ppl_low: float = Field(description="Its lower 95% bound.")
    delta_ppl_high: float = Field(description="Its upper 95% bound.")
    kl: float = Field(description="KL from the reference with it alone swapped in.")
    kl_low: float = Field(description="Its lower 95% bound.")
    kl_high: float = Field(description="Its upper 95% bound.")
    top1_agreement: float = Field(
        description="Share of tokens whose likeliest next token is then the reference's."
    )
    restored_kl: float = Field(
        description="KL of the candidate with the reference's in this place alone."
    )


class Slice(Part):
    """The windows of one of several texts."""

    text: str = Field(description="The text, as it was given.")
    sha256: str = Field(description="SHA-256 of the text.")
    first_window: int = Field(description="The number of its first window.")
    windows: int = Field(description="How many windows it has; texts follow one another.")


class CutText(Part):
    """A text, cut into windows of tokens."""

    text: str = Field(description="The text as it was given; of several, all their names.")
    text_sha256: str = Field(
        description="SHA-256 of the text; of several, of their SHA-256s (hexadecimal, joined)."
    )
    tokens_sha256: str | None = Field(
        default=None,
        description="SHA-256 of the token ids as 32-bit integers: runs with the same one were "
        "measured on the same tokens. Earlier versions lack it.",
    )
    windows: int = Field(description="How many windows there are.")
    seq_len: int = Field(description="Tokens in a window.")
    searched: int | None = Field(
        default=None,
        description="Of a calibration text, how many windows the search reads. Earlier versions "
        "lack it: all.",
    )


class PplDefinition(CutText):
    """What perplexity is of: the text, its windows, and which of their tokens are scored."""

    sentence: str = Field(description="How perplexity is defined, in words.")
    scored_tokens: int = Field(description="Tokens that are scored: all but each window's first.")
    slices: Sequence[Slice] = Field(
        default=(), description="One for each text, where there are several."
    )
