"""What a probe found, typed: the answer that is kept and printed. Imports no torch."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from awqscope.diagnose.entries.part import Bounded, Part
from awqscope.mixedprec.ranking import as_cost
from awqscope.mixedprec.scheme import Width, parse_width

Verdict = Literal["helps", "unsure", "worse"]
HELPS: Verdict = "helps"
UNSURE: Verdict = "unsure"
WORSE: Verdict = "worse"
MEGABYTE = 1e6


class Measured(Part):
    """An alternative in the block's place."""

    name: str = Field(description="As `--apply` takes it.")
    what: str = Field(description="The same in words.")
    isolated: Bounded = Field(description="KL of the reference with it, with its bounds.")
    restored: Bounded = Field(description="KL of the uniform model with it, with its bounds.")
    isolated_gain: Bounded = Field(
        description="KL that it gives back alone: of the block as the run has it, minus its own, "
        "paired, with its bounds."
    )
    restored_gain: Bounded = Field(
        description="KL that it gives back in the uniform model, paired, with its bounds."
    )
    extra_bytes: int = Field(description="Bytes on disk that it adds to the block.")
    bits_per_weight: float = Field(description="Of the block, scales and zero points counted.")
    gain_per_megabyte: float | None = Field(
        description="`restored_gain` for a million bytes; null where it adds none."
    )
    verdict: Verdict = Field(
        description="`helps` or `worse` where all of the interval of `restored_gain` is above or "
        "below zero, else `unsure`."
    )
    widths: Mapping[str, str] | None = Field(
        description="unit -> width, as `recipe --options` takes it, of every unit of the block, "
        "where a recipe can hold it."
    )
    options: str = Field(
        description="The options of `awqscope run` that make it of every block; empty where there "
        "are none."
    )

    @property
    def unit_widths(self) -> dict[str, Width]:
        """unit -> width; nothing where no recipe can hold it."""
        return {unit: parse_width(width) for unit, width in (self.widths or {}).items()}


class Refused(Part):
    """An alternative that the model or its texts cannot take."""

    name: str = Field(description="As `--apply` would take it.")
    what: str = Field(description="The same in words.")
    why: str = Field(description="Why not.")


class BlockProbe(Part):
    """What would help a block."""

    run: str = Field(description="The run's name.")
    model: str = Field(description="The run's model.")
    block: int = Field(description="Its number.")
    flagged: bool = Field(description="Whether the run flagged it.")
    bits: int = Field(description="The low width, which the alternatives are set against.")
    group_size: int = Field(description="Its groups; -1 for one a row.")
    symmetric: bool = Field(description="Whether it has no zero points.")
    windows: Sequence[int] = Field(description="The windows of the run's text measured on.")
    of_windows: int = Field(description="How many the text has.")
    scored_tokens: int = Field(description="Tokens scored in them.")
    isolated: Bounded = Field(description="KL of the block as the run has it, alone.")
    uniform: Bounded = Field(description="KL of the uniform model.")
    bytes: int = Field(description="On disk, of the block's units as the run has them.")
    bits_per_weight: float = Field(description="Of the same, scales and zero points counted.")
    alternatives: Sequence[Measured] = Field(
        description="By KL given back a byte: those that help and cost no bytes first, by what "
        "they give back; those that give back nothing last."
    )
    refused: Sequence[Refused] = Field(description="What could not be tried.")

    def find(self, name: str) -> Measured | None:
        """The alternative of that name, where it was measured."""
        return next((each for each in self.alternatives if each.name == name), None)


def judge(gain: Bounded) -> Verdict:
    """What is sure of a gain with its bounds."""
    _, low, high = gain
    return HELPS if low > 0 else WORSE if high < 0 else UNSURE


def per_megabyte(gain: float, extra_bytes: int) -> float | None:
    """KL given back for a million bytes; None where none are added."""
    return gain / extra_bytes * MEGABYTE if extra_bytes > 0 else None


def sort_measured(alternatives: Sequence[Measured]) -> list[Measured]:
    """By KL given back a byte in the uniform model: first those that give something back for no
    bytes, by how much; then those that cost bytes; last, by how little they harm, those that give
    back nothing."""

    def place(each: Measured) -> tuple[int, float]:
        gain, price = each.restored_gain[0], each.gain_per_megabyte
        if not gain > 0:
            return 2, as_cost(-gain)
        return (0, -gain) if price is None else (1, -price)

    return sorted(alternatives, key=place)
