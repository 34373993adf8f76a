"""What a look at a block's weights answers, as it is kept and printed."""

from collections.abc import Sequence

from pydantic import Field

from awqscope.diagnose.entries.part import Part

# Shares of a group's range that the clip cuts are counted in steps of this, 0 first.
CUT_STEP = 0.05


class StoredPart(Part):
    """A tensor that a linear's weight is stored in."""

    name: str = Field(description="Its suffix, such as `weight_packed`.")
    dtype: str = Field(description="Its type, as safetensors calls it.")
    shape: Sequence[int]
    bytes: int


class ChannelSize(Part):
    """An input channel of a linear."""

    channel: int
    scale: float | None = Field(description="AWQ's scale; null where the linear is not scaled.")
    activation: float | None = Field(
        description="Largest |x| on the validation windows; null where it was not kept."
    )
    weight: float | None = Field(description="Mean |w| of its column in 16 bits.")


class Clipping(Part):
    """What the clip cuts of a linear."""

    groups: int = Field(description="How many groups the weight has.")
    clipped: int = Field(description="How many of them are cut: by half a step or more.")
    weights: float = Field(description="The share of all weights that are cut.")
    steps: Sequence[int] = Field(
        description="Groups by the share of their range that is cut: none; 5%; 10% …"
    )


class GroupValues(Part):
    """A weight group: a run of input channels of one output. 16 bits beside what is stored, which
    is dequantized and in the basis of the reference: AWQ's scales are taken back out."""

    row: int
    group: int
    role: str | None = Field(description="`q`, `k`, `v` or `o`; null where there are no heads.")
    heads: Sequence[int] = Field(description="Query heads of q and o, key-value heads of k and v.")
    serves: Sequence[int] = Field(description="The query heads that compute with it.")
    error: float | None = Field(
        description="‖ΔW_g‖ over the larger of ‖W_g‖ and the root mean square of all ‖W_g‖."
    )
    reach: float | None = Field(
        description="The most by which its error can move its output: Σ|Δw|·(largest |x|)."
    )
    cut: float | None = Field(description="The share of its range that the clip cuts.")
    scale: float | None = Field(description="The scale stored with its codes.")
    zero: int | None = Field(description="Its zero point.")
    channels: Sequence[int] = Field(
        description="Its input channels; of groups of more than 256 those with the largest |Δw|."
    )
    reference: Sequence[float] = Field(description="Their weights in 16 bits.")
    stored: Sequence[float] = Field(description="What is stored, dequantized.")
    codes: Sequence[int] = Field(description="Their codes; empty where there are none.")


class LinearWeights(Part):
    """One linear: what is stored of it, beside its 16 bits."""

    linear: str
    unit: str
    bits: int
    rows: int
    columns: int
    group: int = Field(description="Input channels that share a scale.")
    symmetric: bool
    ratio: float | None = Field(description="The ratio AWQ chose; null where it is not scaled.")
    tensors: Sequence[StoredPart]
    bytes: int
    bits_per_weight: float = Field(description="Scales and zero points counted.")
    range: tuple[float, float] = Field(strict=False, description="Of the 16-bit weights.")
    rms: float = Field(description="Root mean square of the 16-bit weights.")
    relative_error: float | None = Field(description="‖ΔW‖ / ‖W‖.")
    sqnr: float | None = Field(description="−20 log10 of that, in dB; null for no error at all.")
    channels: Sequence[ChannelSize] = Field(
        description="Where there are more than 1,024: the largest by scale, activation and weight, "
        "and others spread evenly over the rest. Empty for what is not looked at closely."
    )
    clipping: Clipping | None = Field(description="Null where the clip does not apply.")
    codes: Sequence[int] = Field(description="How many weights have each code, from 0.")
    zeros: Sequence[int] = Field(description="How many groups have each zero point; empty if none.")
    unused: int = Field(description="Codes that no weight has.")
    used_in_group: float | None = Field(description="Different codes in a group, the mean.")
    saturated: float | None = Field(description="Share of weights with the least or largest code.")
    groups: Sequence[GroupValues] = Field(
        description="The 24 with the largest error, then the 24 with the largest reach besides, "
        "then the 8 that are cut most besides."
    )


class BlockWeights(Part):
    """The weights of a block."""

    block: int
    made_of: str = Field(
        description="Where the codes are from: `checkpoint`, the run's on disk, or `searches`, "
        "rebuilt from them."
    )
    recipe: str = Field(description="The kind of the recipe that they are of.")
    heads: int | None = Field(description="Query heads; null where weights cannot be told by head.")
    kv_heads: int | None
    linears: Sequence[LinearWeights] = Field(description="In order of computation.")
    brief: Sequence[str] = Field(
        description="Linears that are not looked at closely, where there are more than 16: of "
        "experts, those with the least error."
    )
