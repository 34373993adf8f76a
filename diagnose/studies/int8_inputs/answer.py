"""What the study answers: plain data, read without torch."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from awqscope.diagnose.entries.part import Bounded, Part
from awqscope.diagnose.runs.directory import RunDirectory

INT8: Literal["int8"] = "int8"
LLM_INT8: Literal["llm.int8"] = "llm.int8"
SMOOTHQUANT: Literal["smoothquant"] = "smoothquant"
Method = Literal["int8", "llm.int8", "smoothquant"]
# In the order in which they are measured and shown.
METHODS: tuple[Method, ...] = (INT8, LLM_INT8, SMOOTHQUANT)
# From this size of an input on its channel stays at 16 bits with LLM.int8 (Dettmers et al. 2022).
THRESHOLD = 6.0


class Damage(Part):
    """What a model loses against the reference, with 95% intervals over windows."""

    kl: Bounded = Field(description="Mean KL, nats a token.")
    delta_ppl: Bounded = Field(description="ΔPPL.")
    top1_agreement: float = Field(description="Share of tokens with the same likeliest next token.")


class BlockDamage(Part):
    """What a block loses whose linears have weights and inputs at int8."""

    block: int
    isolated: Damage = Field(description="This block alone.")
    cumulative: Damage = Field(description="Block 0 up to this one.")
    restored: Damage = Field(description="Every block but this one.")
    refuses: bool = Field(
        description="Whether it is flagged, by the rule and thresholds of the run."
    )
    z: float = Field(description="Robust z-score of its log KL among the other blocks.")
    reason: str = Field(description="Why it is flagged or is not, in words.")


class Measured(Part):
    """What one method of rounding inputs costs."""

    method: Method
    whole: Damage = Field(description="Every block at int8.")
    blocks: list[BlockDamage]
    kept: Mapping[str, float] | None = Field(
        default=None,
        description="Of llm.int8: unit -> share of its input channels kept at 16 bits, a mean.",
    )
    alphas: Mapping[str, float] | None = Field(
        default=None,
        description="Of smoothquant: unit -> the α that was chosen, where scales have a place.",
    )

    @property
    def refusing(self) -> list[int]:
        """The blocks that refuse int8 inputs."""
        return [each.block for each in self.blocks if each.refuses]


class BlockWeights(Part):
    """What the run itself found of a block: its weights at the low width, its inputs at 16 bits."""

    block: int
    kl: Bounded = Field(description="Isolated, nats a token.")
    refuses: bool = Field(description="Whether the run flagged it.")


class Activations(Part):
    """The answer: every method that was measured, beside the run's own weights."""

    windows: list[int] = Field(description="Windows of the run's text that it was measured on.")
    tokens: int = Field(description="Tokens that were scored in them.")
    bits: int = Field(description="The run's low width.")
    weights: list[BlockWeights]
    methods: list[Measured] = Field(description="In the order of METHODS.")

    def find(self, method: str) -> Measured | None:
        """What was found of a method; None for one that was not measured."""
        return next((each for each in self.methods if each.method == method), None)


def parse_answer(kept: Mapping[str, Any] | None) -> Activations | None:
    """An answer as a study keeps it; None for none, and for one that is not whole."""
    if kept is None:
        return None
    try:
        return Activations.model_validate(kept)
    except ValueError:
        return None


def read_weights(run: RunDirectory) -> list[BlockWeights]:
    """What a run found of its blocks alone. InputError where its table is missing or damaged."""
    return [
        BlockWeights(block=row["block"], kl=read_bounded(row, "kl"), refuses=row["flagged"])
        for row in run.read_table("blocks").to_pylist()
        if row["view"] == "isolated"
    ]


def read_bounded(row: Mapping[str, Any], column: str) -> Bounded:
    """A value of a row of blocks.parquet with its bounds."""
    return row[column], row[f"{column}_low"], row[f"{column}_high"]
