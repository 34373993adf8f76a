"""The 16-bit types that a model can be served in, by the names that config.json and servers use;
and what blocks can compute their products in while they are measured."""

from collections.abc import Mapping
from typing import Any

from awqscope.mixedprec.errors import InputError

AUTO = "auto"
# The largest number of each.
LARGEST: Mapping[str, float] = {"float16": 65504.0, "bfloat16": 2.0**128 - 2.0**120}
# What holds every value that float32 does.
WIDE = "bfloat16"
# How many times below the largest number of a type the largest activation should be.
SCANT_MARGIN = 2
# tf32 rounds the factors of a product to 10 bits of mantissa, bfloat16 to 7; float32 has 23. All
# sum in float32.
FLOAT32, TF32, BFLOAT16 = "float32", "tf32", "bfloat16"
PRECISIONS = (FLOAT32, TF32, BFLOAT16)
FLOAT64 = "float64"
# What the rounding of each is measured against.
HIGHER: Mapping[str, str] = {FLOAT32: FLOAT64, TF32: FLOAT32, BFLOAT16: FLOAT32}


def check_dtype(asked: str) -> None:
    """Raise InputError unless `asked` is a type to serve in."""
    if asked not in (AUTO, *LARGEST):
        raise InputError(
            f"--dtype {asked} is no type to serve in", f"give {AUTO} or {' or '.join(LARGEST)}"
        )


def write_type(served: Mapping[str, Any] | None) -> str:
    """What goes wrong where a checkpoint is served in its type, in a sentence; empty where nothing
    is known to. served: `dtype`; `finite`, whether it answers in it, None where that was not
    measured; `largest`, the largest activation in float32, and `most`, the largest number of the
    type; `instead`, the type that serves it, where another does. None where nothing is known."""
    if served is None:
        return ""
    dtype, largest, most = served["dtype"], served["largest"], served["most"]
    use = f": serve it with --dtype {served['instead']}" if served["instead"] else ""
    if served["finite"] is False:
        return f"In {dtype}, the type that it names, it answers NaN{use}"
    if largest is None or largest <= 0 or most / largest >= SCANT_MARGIN:
        return ""
    reach = f"its activations reach {largest:,.0f}"
    if largest > most:
        held = "" if served["finite"] is None else ", though the windows measured in it are finite"
        return f"In {dtype}, the type that it names, {reach}, past its {most:,.0f}{held}{use}"
    return f"In {dtype}, {reach}, only {most / largest:.1f} times below its {most:,.0f}"


def check_precision(asked: str) -> None:
    """Raise InputError for a precision that there is none of."""
    if asked not in (AUTO, *PRECISIONS):
        raise InputError(
            f"--precision {asked} is not known", f"give {', '.join((AUTO, *PRECISIONS))}"
        )


def choose_precision(asked: str, kind: str) -> str:
    """The precision of blocks on a kind of device, `cpu` or `cuda`. InputError where there is no
    such thing on it."""
    if asked == AUTO:
        return TF32 if kind == "cuda" else FLOAT32
    if asked == TF32 and kind != "cuda":
        raise InputError(
            f"--precision {TF32} is of CUDA devices, and blocks compute on {kind} here",
            f"give --precision {FLOAT32} or {BFLOAT16}",
        )
    return asked
