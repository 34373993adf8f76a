"""How far a run is, and how its stages were carried out."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from awqscope.diagnose.entries.part import Part


class Stage(Part):
    """How far one stage of a run is."""

    state: Literal["running", "done", "skipped", "stopped"] = Field(
        description="`stopped` is what a running stage is called once no process holds the run; no "
        "file says so."
    )
    started: str | None = Field(default=None, description="When it began: UTC, ISO 8601.")
    finished: str | None = Field(default=None, description="When it was done.")
    seconds: float | None = Field(default=None, description="How long it took, at its last start.")
    peak_bytes: int | None = Field(
        default=None, description="The most memory that the run's process held meanwhile."
    )
    device_peak_bytes: int | None = Field(
        default=None, description="The most memory held of a CUDA device; null without one."
    )
    proof_process_peak_bytes: int | None = Field(
        default=None, description="Of the proof: the most memory that its own process held."
    )
    reason: str | None = Field(default=None, description="Why it was skipped.")


class Fault(Part):
    """Why a run failed."""

    message: str = Field(description="What went wrong.")
    remedy: str = Field(default="", description="What mends it; empty where that is not known.")


class NoiseFloor(Part):
    """What rounding alone does to the reference: the reference as the sweep computes it against
    itself at higher precision, on a few windows. Damage below it is called noise."""

    precision: str = Field(description="What blocks computed in: `float32`, `tf32` or `bfloat16`.")
    against: str = Field(description="The higher precision: `float32`, or `float64` of float32.")
    kl: float = Field(description="Mean KL(reference there ‖ reference of the sweep).")
    nll_difference: float = Field(
        description="By how much the NLL of a token differs, as a mean of absolute values."
    )
    windows: Sequence[int] = Field(description="The windows, spread over the text.")
    tokens: int = Field(description="Tokens that were scored in them.")


class SweepPlan(Part):
    """How the sweep was carried out."""

    streams: int | None = Field(default=None, description="Streams alive at its end.")
    chunk_windows: int | None = Field(default=None, description="Windows in a chunk of the text.")
    control_kl: float = Field(description="KL of a block swapped with itself: 0.")
    looks: list[int] | None = Field(
        default=None,
        description="After how many windows it was told which blocks must be measured on more; "
        "null where they were measured on every window.",
    )
    isolated_error: float | None = Field(
        default=None,
        description="Half the 95% interval of the isolated KL of all blocks, relative to it, for "
        "the rest of this text.",
    )
    narrowed: float | None = Field(
        default=None,
        description="How many times narrower the uniform model's KL by window made that interval.",
    )
    head_positions: int | None = Field(
        default=None,
        description="Positions at which all logits of every branch were made too; null where they "
        "were made everywhere.",
    )
    head_error: float | None = Field(
        default=None,
        description="Largest error there of a branch's mean KL, relative to it.",
    )
    noise_floor: NoiseFloor | None = Field(
        default=None, description="What rounding alone does. Earlier versions lack it."
    )


class Estimator(Part):
    """How well the one-pass estimates of units agree with what was measured."""

    draws: int | None = Field(default=None, description="Samples that were drawn of every token.")
    sampling_error: float | None = Field(
        default=None,
        description="What sampling adds to the estimates: 95%, relative, weighed by damage.",
    )
    spearman: float | None = Field(
        default=None,
        description="Rank correlation of estimated and exact KL; null where none is defined.",
    )
    verified_units: int | None = Field(default=None, description="Units that it was told from.")
