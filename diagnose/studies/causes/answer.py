"""What the study of causes answers, as it is kept and printed."""

from collections.abc import Sequence

from pydantic import Field, ValidationError

from awqscope.diagnose.entries.part import Bounded, Interval, Part
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.study import Study, name_study

STUDY = "why"
# What AWQ does to a linear, in the order in which it does it.
SWITCHES = ("rounding", "scale", "clip")
# What a head computes with.
ROLES = ("q", "k", "v", "o")


class Split(Part):
    """What each of AWQ's steps does to an error. The three add up to the total: see
    `switches.py`."""

    rounding: Bounded = Field(
        description="The error of rounding alone, neither scaled nor clipped."
    )
    scale: Bounded = Field(description="What AWQ's scales add to that; below 0, they help.")
    clip: Bounded = Field(description="What clipping adds to both; below 0, it helps.")
    total: Bounded = Field(description="The error as it is served.")


class HeadCauses(Part):
    """The rows of q, k or v, or the columns of o, of one head."""

    role: str = Field(description="`q`, `k`, `v` or `o`.")
    head: int = Field(description="A query head for q and o, a key-value head for k and v.")
    serves: Sequence[int] = Field(description="The query heads that compute with it.")
    error: float = Field(description="Its share of the error of the linear's output.")
    rounding: float = Field(description="The part of that share which rounding alone causes.")
    scale: float = Field(description="What AWQ's scales add to it.")
    clip: float = Field(description="What clipping adds to it.")
    arrived: float = Field(
        description="The error of the block's output with these weights alone quantized, as a "
        "share of that with all of the block quantized; means over tokens of |Δ|²/|x|²."
    )
    condition: float = Field(description="The condition number of these weights.")


class Channel(Part):
    """An input channel of a linear."""

    channel: int
    activation: float = Field(description="Mean |x| on the validation windows.")
    largest: float = Field(description="Largest |x| on the validation windows.")
    calibrated: float = Field(description="Mean |x| on the calibration windows.")
    weight: float = Field(description="Mean |w| of its column.")
    scale: float | None = Field(description="AWQ's scale; null where the linear is not scaled.")
    clipped: float = Field(description="The share of its column's weights that clipping cuts.")
    group: int = Field(description="The weight group that it is in, from 0.")
    error: float = Field(
        description="Its part of the error of the linear's output; the parts of all channels add "
        "up to 1, one that makes up for others is below 0."
    )


class Carrier(Part):
    """A token that carries a massive activation into a linear: one input channel is far larger at
    it than any is at other tokens."""

    channel: int
    size: float = Field(description="|x| of that channel there.")
    times: float = Field(description="How many times the median token's largest |x| that is.")
    window: int = Field(description="The window's number in the run's validation text.")
    position: int = Field(description="The token's place in the window, from 0.")
    text: str = Field(description="The token.")
    source: str = Field(description="The validation text that the window is of.")
    kind: str = Field(description="`first`, `delimiter` or `word`.")


class TokenShare(Part):
    """How much of a linear's output error tokens of a kind hold."""

    kind: str
    tokens: float = Field(description="Their share of the tokens.")
    error: float = Field(description="Their share of the error of the linear's output.")


class LinearLook(Part):
    """A linear of the block; of a mixture of experts, all experts as one, which are not split."""

    linear: str
    unit: str
    bits: int
    arrived: float = Field(description="As of a head.")
    split: Split | None = Field(
        description="Error of its output, Σ|ΔW·x|² / Σ|W·x|², on the validation windows."
    )
    calibrated: Split | None = Field(description="The same on calibration windows.")
    by_text: Sequence[Split] = Field(description="The same on each validation text, if several.")
    clip_alone: float | None = Field(description="The error of clipping alone, nothing rounded.")
    heads: Sequence[HeadCauses]
    channels: Sequence[Channel] = Field(
        description="Those with the largest parts of the error, largest first, and others spread "
        "evenly over the rest."
    )
    channel_count: int
    carriers: Sequence[Carrier]
    tokens: Sequence[TokenShare]


class LinearCauses(LinearLook):
    """The same, and what it costs."""

    kl: Bounded = Field(description="KL with this linear alone quantized.")
    share: Bounded = Field(description="That KL as a share of the whole block's.")


class Point(Part):
    """A point inside the block: the quantized block against the reference on the same input."""

    name: str = Field(description="The module.")
    side: str = Field(description="`in` or `out`: its input or its output.")
    kind: str = Field(description="`residual`, the unit's kind, or `output`.")
    error: Bounded = Field(description="Σ|Δ|² / Σ|x|².")


class HeadAttention(Part):
    """What a query head attends to, in the reference and in the quantized block."""

    head: int
    entropy: Interval = Field(description="Nats, mean over queries but the first.")
    first: Interval = Field(description="Share on the first token, the same mean.")
    moved: float = Field(description="Share of the attention that is on other tokens than before.")


class Finding(Part):
    """A cause that was found. What `numbers` and `tokens` hold depends on the cause: see
    `rules.py`."""

    cause: str
    linear: str | None = None
    role: str | None = None
    heads: Sequence[int] = ()
    channel: int | None = None
    text: str | None = Field(default=None, description="The validation text it holds on, if one.")
    step: str | None = Field(default=None, description="Which of AWQ's steps does it.")
    share: Bounded = Field(description="Its measured share of the block's KL.")
    numbers: dict[str, float] = Field(default_factory=dict)
    tokens: Sequence[str] = ()


class Causes(Part):
    """Why a block is hurt."""

    block: int
    bits: int
    windows: Sequence[int] = Field(description="Which windows of the run's text it was asked on.")
    seq_len: int
    texts: Sequence[str]
    calibration: str
    floor: float | None = Field(description="The run's noise floor, nats; null where unmeasured.")
    kl: Bounded = Field(description="KL with the whole block quantized and nothing else.")
    by_window: Sequence[float] = Field(description="That KL by window.")
    damage: Split = Field(description="The same in parts: with steps switched off, one at a time.")
    heads: int | None = Field(description="Query heads; null where weights cannot be told by head.")
    kv_heads: int | None
    linears: Sequence[LinearCauses] = Field(description="In order of computation.")
    growth: Sequence[Point] = Field(description="In order of computation.")
    attention: Sequence[HeadAttention] = Field(description="Empty where the model shows none.")
    usual: dict[str, float] = Field(
        description="Role -> median condition number of its heads in other blocks."
    )
    findings: Sequence[Finding] = Field(description="The largest share first; empty if none.")
    kept: Sequence[str] = Field(description="Linears at 16 bits, which are not looked at.")
    lacking: Sequence[str] = Field(
        description="What could not be asked: `heads`, `experts` (one by one), `attention`."
    )


def study_of(run: RunDirectory, block: int, windows: int | None) -> Study:
    """The study of a block's causes."""
    return Study(run, name_study(STUDY, block), {"windows": windows})


def read_causes(run: RunDirectory, block: int, windows: int | None = None) -> Causes | None:
    """The answer that a run keeps to this question, if it does."""
    kept = study_of(run, block, windows).read()
    try:
        return None if kept is None else Causes.model_validate(kept)
    except ValidationError:
        # Of another version, or changed: it is measured again.
        return None
