"""torchao's plain integers, as transformers 5 saves them: _weight_qdata int8 [N, K], codes of up to
8 bits in a byte each; _weight_scale and _weight_zero_point [N, G]; with AWQ
_weight_act_pre_scale [K], which multiplies the inputs.

How many bits a linear's codes have stands in config.json: of all linears, or by their names.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.layouts.layout import (
    SCALES,
    Coding,
    Layout,
    Parts,
    Shapes,
    dequantize,
    measure,
    refuse,
)
from awqscope.mixedprec.scheme import BITS

CODES, SCALE = "_weight_qdata", "_weight_scale"
ZERO, INPUTS = "_weight_zero_point", "_weight_act_pre_scale"
PATTERN, OTHERS = "re:", "_default"
READ = "Int8WeightOnlyConfig and IntxWeightOnlyConfig unpacked to int8 are read"

# The bits of a linear by its name, a pattern for its name, or `_default`.
Widths = Mapping[str, int]


def _read_torchao(config: Mapping[str, Any], folder: Path) -> Widths:
    """The widths of its linears."""
    said = config.get("quant_type")
    if not isinstance(said, dict):
        raise InputError(f"the candidate's torchao quant_type is {str(said)[:40]}", READ)
    chosen = said["default"]
    if chosen["_type"] not in ("FqnToConfig", "ModuleFqnToConfig"):
        return {OTHERS: _read_width(chosen)}
    entries = chosen["_data"]
    named = entries.get("fqn_to_config") or entries["module_fqn_to_config"]
    return {name: _read_width(entry) for name, entry in named.items() if entry is not None}


def _read_width(entry: Mapping[str, Any]) -> int:
    """Bits of the codes that a configuration makes."""
    kind, data = entry["_type"], entry["_data"]
    if kind == "Int8WeightOnlyConfig":
        return 8
    packing = (data.get("intx_packing_format") or {}).get("_data")
    if kind != "IntxWeightOnlyConfig" or packing != "UNPACKED_TO_INT8":
        refuse(f"torchao weights are by {kind}" + (f", {packing}" if packing else ""), READ)
    bits = int(data["weight_dtype"]["_data"].removeprefix("int"))
    if bits not in BITS:
        refuse(f"weights are of {bits} bits")
    return bits


def _find_width(widths: Widths, name: str) -> int | None:
    """By torchao's order: a name before the first pattern that fits before all others. A weight's
    own name goes before its linear's."""
    names = (f"{name}.weight", name)
    fitting = (
        bits
        for key, bits in widths.items()
        if key.startswith(PATTERN) and any(re.fullmatch(key[len(PATTERN) :], n) for n in names)
    )
    named = [widths[n] for n in names if n in widths]
    return next(iter(named), None) or next(fitting, widths.get(OTHERS))


def _describe_torchao(widths: Widths, name: str, module: nn.Module, found: Shapes) -> Coding:
    rows, columns = measure(module)
    bits = _find_width(widths, name)
    if bits is None:
        raise InputError(
            f"the candidate's config.json says nothing of {name}, which is packed",
            "repair its config.json",
        )
    scale = found.get(SCALE, [])
    groups = scale[1] if len(scale) == 2 and scale[1] and columns % scale[1] == 0 else 1
    each = [rows, groups]
    return Coding(bits, {CODES: [rows, columns], SCALE: each, ZERO: each, INPUTS: [columns]})


def _decode_torchao(parts: Parts, coding: Coding) -> Tensor:
    weight = dequantize(parts[CODES], parts[ZERO], parts[SCALE], None)
    return weight.mul_(parts[INPUTS]) if INPUTS in parts else weight


TORCHAO = Layout(
    (CODES,),
    (INPUTS,),
    {CODES: ("I8",), SCALE: SCALES, ZERO: ("I8", *SCALES), INPUTS: SCALES},
    _read_torchao,
    _describe_torchao,
    _decode_torchao,
)
