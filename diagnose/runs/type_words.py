"""What is said of a checkpoint in the 16-bit type that serves it. Records in, records and words
out."""

from collections.abc import Mapping
from typing import Any

from awqscope.mixedprec.models.dtypes import LARGEST, WIDE

# Why a proof fails where what is stored, or what it computes in float32, is not as it should be.
UNLIKE = "the checkpoint on disk is not what the recipe says"


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


def write_measured_type(served: Mapping[str, Any]) -> str:
    """What a finite `measure_type` gave, in a sentence. served: with the `windows` it took."""
    count = len(served["windows"])
    return (
        f"In {served['dtype']}, on {count} window{'s' * (count > 1)}: perplexity "
        f"{served['ppl']:.3f} ({served['ppl_float32']:.3f} in float32), KL {served['kl']:.2g} from "
        f"float32, {served['top1_agreement']:.1%} the same top token."
    )


def describe_type(
    dtype: str, headline: Mapping[str, Any], proof: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What is known of serving a checkpoint in its type, as `write_type` takes it. headline: of its
    run; the uniform model's largest activation stands for any recipe's. proof: where there is
    one."""
    found = (headline.get("range") or {}).get("uniform") or {}
    largest, most = found.get("largest"), LARGEST[dtype]
    measured, other = ((proof or {}).get(key) or {} for key in ("served", "instead"))
    finite = measured.get("finite")
    over = largest is not None and largest > most
    # Where another type was measured it has to be finite; where none was, it holds the range.
    mends = other["finite"] if other else over and finite is not False
    return {
        "dtype": dtype,
        "finite": finite,
        "largest": largest,
        "most": most,
        "instead": WIDE if mends and dtype != WIDE else None,
    }


def name_place(place: Mapping[str, Any]) -> str:
    """Where a largest value is, in words. place: an entry of the headline's `range`."""
    inside = "" if place["block"] is None else f" of block {place['block']}"
    if not place["site"]:
        return f"the {place['part']}{inside}"
    return f"the {place['part']} of {place['site']}" + inside.replace(" of ", " in ")
