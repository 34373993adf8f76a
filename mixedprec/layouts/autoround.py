"""AutoRound's own format: GPTQ's words at 2 to 8 bits, mostly without g_idx, or AWQ's GEMM words at
4 to 7, by `packing_format`. Widths differ from linear to linear (`extra_config`), and the shapes
tell them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from awqscope.mixedprec.checkpoints.packing import unpack_gemm
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.layouts.awq import shape_gemm
from awqscope.mixedprec.layouts.gptq import ALL_BITS, GPTQ, Packing, decode_gptq, describe_gptq
from awqscope.mixedprec.layouts.layout import (
    Coding,
    Layout,
    Parts,
    Shapes,
    dequantize,
    measure,
    refuse,
)
from awqscope.mixedprec.scheme import FP16_BITS

GEMM_BITS = (4, 5, 6, 7)
LESS_ONE, AS_IS = Packing(less_one=True, bits=ALL_BITS), Packing(less_one=False, bits=ALL_BITS)
# None: AWQ's words. Names before the last two groups are what earlier versions wrote.
PACKINGS: Mapping[str, Packing | None] = {
    "auto_round:auto_gptq": LESS_ONE,
    "auto_round:gptq": LESS_ONE,
    "auto": LESS_ONE,
    "auto_round": AS_IS,
    "auto_round:gptqmodel": AS_IS,
    "auto_round:auto_awq": None,
    "auto_round:awq": None,
}


def _read_autoround(config: Mapping[str, Any], folder: Path) -> Packing | None:
    """How its words are packed."""
    said = config.get("packing_format") or config.get("backend") or "auto"
    if said not in PACKINGS:
        refuse(f"AutoRound packing_format is {said}", f"{', '.join(PACKINGS)} are read")
    if config.get("rotation_config"):
        refuse("inputs are rotated", "compare one whose rotations are folded into its weights")
    for layer, entry in {"": config, **(config.get("extra_config") or {})}.items():
        of = f" of {layer}" if layer else ""
        # Layers that are left at 16 bits are listed as `float`.
        if entry.get("data_type", "int") != "int" and (entry.get("bits") or 0) < FP16_BITS:
            refuse(f"AutoRound data_type{of} is {entry['data_type']}", "int is read")
        if (entry.get("act_bits") or FP16_BITS) < FP16_BITS:
            refuse("activations are quantized too", "compare one whose weights alone are")
    return PACKINGS[said]


def _describe_autoround(
    packing: Packing | None, name: str, module: nn.Module, found: Shapes
) -> Coding:
    if packing is not None:
        return describe_gptq(packing, name, module, found)
    rows, columns = measure(module)
    words = found["qweight"][-1] if found["qweight"] else 0
    bits, rest = divmod(words * 32, rows)
    groups = found["scales"][0] if found.get("scales") else 0
    if rest or bits not in GEMM_BITS or columns % max(groups, 1):
        raise InputError(
            f"{name}.qweight has {words} words a row and {groups} groups, which is no width for "
            f"{columns} inputs and {rows} outputs",
            "download the checkpoint again",
        )
    return Coding(bits, shape_gemm(rows, columns, groups, bits))


def _decode_autoround(parts: Parts, coding: Coding) -> Tensor:
    if coding.facts is not None:
        return decode_gptq(parts, coding)
    codes, zeros = (unpack_gemm(parts[name], coding.bits) for name in ("qweight", "qzeros"))
    return dequantize(codes, zeros, parts["scales"].T, None)


AUTOROUND = Layout(
    GPTQ.probes,
    GPTQ.optional,
    GPTQ.types,
    _read_autoround,
    _describe_autoround,
    _decode_autoround,
)
