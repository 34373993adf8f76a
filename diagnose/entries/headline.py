"""The headline of a run and of a comparison: its numbers by model.

A run has a reference, a uniform and, once proved, a mixed model; a comparison a reference and a
candidate. `quantized` is the one that the blocks are taken from: uniform, or the candidate.
"""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from pydantic import Field

from awqscope.diagnose.entries.part import Bounded, Interval, Part
from awqscope.diagnose.entries.served_type import MeasuredType

T = TypeVar("T")
# What the numbers by model are of, in the names of their types.
KINDS = {float: "Number", int: "Count", Bounded: "Bounded", Interval: "Interval"}


class _Named(Part):
    """Numbers by model, told apart by name."""

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        """What the JSON Schema calls these numbers of one kind."""
        return f"{KINDS.get(params[0], 'Any')}{cls.__name__}"


class ByModel(_Named, Generic[T]):
    """A number of each model of a run, against its reference."""

    uniform: T = Field(description="Of the model with every unit at the low width.")
    mixed: T | None = Field(default=None, description="Of the checkpoint; null until it is proved.")

    @property
    def quantized(self) -> T:
        """The number of the model that the blocks are taken from."""
        return self.uniform

    def of(self, model: str) -> T | None:
        """The number of a model by its name; None where there is none."""
        return getattr(self, model, None) if model in type(self).model_fields else None


class WithReference(ByModel[T], Generic[T]):
    """A number of each model of a run, the reference included."""

    reference: T = Field(description="Of the 16-bit model.")


class Compared(_Named, Generic[T]):
    """A number of a comparison's candidate, against its reference."""

    candidate: T = Field(description="Of the checkpoint that was made elsewhere.")

    @property
    def quantized(self) -> T:
        """The number of the model that the blocks are taken from."""
        return self.candidate

    @property
    def mixed(self) -> None:
        """None: a comparison has no such model."""
        return None

    def of(self, model: str) -> T | None:
        """The number of a model by its name; None where there is none."""
        return getattr(self, model, None) if model in type(self).model_fields else None


class ComparedWithReference(Compared[T], Generic[T]):
    """A number of a comparison's two models."""

    reference: T = Field(description="Of the 16-bit model.")


class Largest(Part):
    """The largest value that went into or came out of a module, anywhere in a model."""

    largest: float = Field(description="Its |value|, in float32.")
    block: int | None = Field(description="The block it is in; null outside of the blocks.")
    site: str = Field(description="The module, by its name in the block.")
    part: str = Field(description="`input` or `output`.")
    window: int | None = Field(
        default=None, description="The window with the largest value anywhere."
    )

    def say_where(self) -> str:
        """Where it is, in words."""
        inside = "" if self.block is None else f" of block {self.block}"
        if not self.site:
            return f"the {self.part}{inside}"
        return f"the {self.part} of {self.site}" + inside.replace(" of ", " in ")


class Ranges(Part):
    """Where the largest values are, in the reference and in the uniform model."""

    reference: Largest = Field(description="Of the 16-bit model.")
    uniform: Largest = Field(description="Of the uniform model, as it is served.")

    @property
    def quantized(self) -> Largest:
        """Of the model that the blocks are taken from."""
        return self.uniform


class ComparedRanges(Part):
    """Where the largest values are, in the reference and in the candidate."""

    reference: Largest = Field(description="Of the 16-bit model.")
    candidate: Largest = Field(description="Of the candidate, as it is served.")

    @property
    def quantized(self) -> Largest:
        """Of the model that the blocks are taken from."""
        return self.candidate


class Headline(Part):
    """The numbers of a run that a release is decided on. KL and NLL are in nats a token."""

    ppl: WithReference[float] = Field(description="Perplexity.")
    delta_ppl: ByModel[Bounded] = Field(
        description="Perplexity less the reference's: [value, low, high], paired by token."
    )
    kl: ByModel[float] = Field(description="Mean KL from the reference.")
    kl_interval: ByModel[Interval] = Field(description="The 95% bounds of the mean: [low, high].")
    kl_p99: ByModel[float] = Field(description="KL that 1% of the tokens exceed.")
    kl_p999: ByModel[float] = Field(description="KL that 0.1% of the tokens exceed.")
    top1_agreement: ByModel[float] = Field(
        description="Share of tokens whose likeliest next token is the reference's."
    )
    bytes: WithReference[int] = Field(description="Bytes of all weights.")
    flagged: Sequence[int] = Field(description="The blocks that stand out, by number.")
    range: Ranges | None = Field(
        default=None, description="Where the largest activation is. Earlier versions lack it."
    )
    recovered: float | None = Field(
        default=None,
        description="1 − KL of mixed / KL of uniform; null until the checkpoint is proved.",
    )
    additivity: float | None = Field(
        default=None,
        description="The isolated KL of all blocks, summed, of uniform's; null if that is 0.",
    )
    predicted_recovered: float | None = Field(
        default=None,
        description="What the sweep predicts of `recovered`, before there is a checkpoint.",
    )
    recovered_interval: Interval | None = Field(
        default=None, description="The 95% bounds of `recovered`: [low, high]."
    )
    proved: bool | None = Field(
        default=None, description="Whether the proof passed; null before it."
    )
    reasons: Sequence[str] = Field(
        default=(), description="Why the proof did not pass. Earlier versions lack it."
    )
    served: MeasuredType | None = Field(
        default=None, description="The checkpoint in its 16-bit type. Earlier versions lack it."
    )

    def find_largest(self) -> float | None:
        """The largest activation of the model that the blocks are taken from; None where it was
        not measured."""
        return None if self.range is None else self.range.quantized.largest


class ComparedHeadline(Part):
    """The numbers of a candidate. KL and NLL are in nats a token."""

    ppl: ComparedWithReference[float] = Field(description="Perplexity.")
    delta_ppl: Compared[Bounded] = Field(
        description="Perplexity less the reference's: [value, low, high], paired by token."
    )
    kl: Compared[float] = Field(description="Mean KL from the reference.")
    kl_interval: Compared[Interval] = Field(description="The 95% bounds of the mean: [low, high].")
    kl_p99: Compared[float] = Field(description="KL that 1% of the tokens exceed.")
    kl_p999: Compared[float] = Field(description="KL that 0.1% of the tokens exceed.")
    top1_agreement: Compared[float] = Field(
        description="Share of tokens whose likeliest next token is the reference's."
    )
    bytes: ComparedWithReference[int] = Field(
        description="Bytes of all weights; of the candidate, of all its tensors on disk."
    )
    flagged: Sequence[int] = Field(description="The blocks that stand out, by number.")
    range: ComparedRanges | None = Field(
        default=None, description="Where the largest activation is. Earlier versions lack it."
    )
    additivity: float | None = Field(
        default=None,
        description="The isolated KL of all blocks and places, summed, of the candidate's; null if "
        "that is 0.",
    )

    def find_largest(self) -> float | None:
        """The largest activation of the model that the blocks are taken from; None where it was
        not measured."""
        return None if self.range is None else self.range.quantized.largest
