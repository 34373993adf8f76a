"""A checkpoint in the 16-bit type that serves it: what was measured, and what is said of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from awqscope.diagnose.entries.part import Part
from awqscope.mixedprec.models.dtypes import LARGEST, WIDE

# Why a proof fails where what is stored, or what it computes in float32, is not as it should be.
UNLIKE = "the checkpoint on disk is not what the recipe says"


class ServedType(Part):
    """What is known of serving a checkpoint in its 16-bit type."""

    dtype: str = Field(description="The type that it names.")
    finite: bool | None = Field(
        description="Whether it answers in that type; null where that was not measured."
    )
    largest: float | None = Field(
        description="The quantized model's largest activation; null where it was not measured."
    )
    most: float = Field(description="The type's largest number.")
    instead: str | None = Field(description="The type to serve it in, where that is another.")


class Serving(Part):
    """What servers make of a checkpoint, by the rules by which they match and fuse linears: for
    each that is known `loads`, `loads wrongly` or `refuses`."""

    vllm: str | None = Field(default=None, description="What vLLM makes of it.")
    sglang: str | None = Field(default=None, description="What SGLang makes of it.")
    transformers: str | None = Field(default=None, description="What transformers makes of it.")
    notes: Sequence[str] = Field(description="Why, in sentences.")
    type: ServedType | None = Field(
        default=None, description="Whether its 16-bit type holds it. Earlier versions lack it."
    )


class MeasuredType(Part):
    """A checkpoint in its 16-bit type on a few windows, against itself in float32."""

    dtype: str = Field(description="The type.")
    windows: Sequence[int] = Field(
        description="The windows: the first, the one with the largest activation, and the worst."
    )
    finite: bool = Field(description="Whether every output is a finite number.")
    place: str | None = Field(description="The first part whose output is not; null if all are.")
    ppl: float | None = Field(
        default=None, description="Perplexity in that type, where it is finite."
    )
    ppl_float32: float | None = Field(default=None, description="Perplexity in float32.")
    kl: float | None = Field(default=None, description="KL from float32.")
    top1_agreement: float | None = Field(
        default=None,
        description="Share of tokens whose likeliest next token is the same in float32.",
    )


def explain_type(served: Mapping[str, Any], instead: Mapping[str, Any] | None) -> str:
    """Why a checkpoint cannot be served in its type, and what to do. served, instead: what
    `measure_type` (diagnose/proof/served_type.py) gave in that type, and in WIDE; None where WIDE
    was not tried."""
    what = (
        f"in {served['dtype']}, the type that the checkpoint names, {served['place']} overflows "
        "and the answer is NaN"
    )
    if instead is None:
        return what
    if not instead["finite"]:
        return f"{what}, and so it is in {instead['dtype']}: no 16-bit type serves it"
    return (
        f"{what}; in {instead['dtype']} it is finite, KL {instead['kl']:.2g} from float32: serve "
        f"it with --dtype {instead['dtype']}, or make it again with that option"
    )


def write_measured_type(served: MeasuredType) -> str:
    """What was measured in a type that holds a checkpoint, in a sentence."""
    count = len(served.windows)
    return (
        f"In {served.dtype}, on {count} window{'s' * (count > 1)}: perplexity "
        f"{served.ppl:.3f} ({served.ppl_float32:.3f} in float32), KL {served.kl:.2g} from "
        f"float32, {served.top1_agreement:.1%} the same top token."
    )


def describe_type(
    dtype: str, largest: float | None, proof: Mapping[str, Any] | None = None
) -> ServedType:
    """What is known of serving a checkpoint in its type. largest: the largest activation of the
    quantized model, which stands for any recipe's; None where it was not measured. proof: where
    there is one."""
    most = LARGEST[dtype]
    measured, other = ((proof or {}).get(key) or {} for key in ("served", "instead"))
    finite = measured.get("finite")
    over = largest is not None and largest > most
    # Where another type was measured it has to be finite; where none was, it holds the range.
    mends = other["finite"] if other else over and finite is not False
    return ServedType(
        dtype=dtype,
        finite=finite,
        largest=largest,
        most=most,
        instead=WIDE if mends and dtype != WIDE else None,
    )
