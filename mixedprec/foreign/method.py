"""By which method a checkpoint says that it was quantized, and the layout that reads that:
config.json says so, or a file of its maker's own, or nothing but the names of its tensors."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.untrusted import read_json
from awqscope.mixedprec.layouts.autoround import AUTOROUND
from awqscope.mixedprec.layouts.awq import AWQ
from awqscope.mixedprec.layouts.bitsandbytes import BITSANDBYTES
from awqscope.mixedprec.layouts.compressed import COMPRESSED
from awqscope.mixedprec.layouts.gptq import GPTQ
from awqscope.mixedprec.layouts.hqq import HQQ
from awqscope.mixedprec.layouts.layout import Layout
from awqscope.mixedprec.layouts.mlx import MLX
from awqscope.mixedprec.layouts.modelopt import MODELOPT
from awqscope.mixedprec.layouts.quark import QUARK
from awqscope.mixedprec.layouts.torchao import TORCHAO

# By the quantization method that config.json names.
LAYOUTS: Mapping[str, Layout] = {
    "awq": AWQ,
    "gptq": GPTQ,
    "auto-round": AUTOROUND,
    "compressed-tensors": COMPRESSED,
    "modelopt": MODELOPT,
    "quark": QUARK,
    "bitsandbytes": BITSANDBYTES,
    "mlx": MLX,
    "hqq": HQQ,
    "torchao": TORCHAO,
}
PLAIN = "plain"
# Files of old versions of AutoGPTQ and of ModelOpt, which wrote nothing into config.json.
INSTEAD = {"quantize_config.json": "gptq", "hf_quant_config.json": "modelopt"}
# hqq's own saving names no method in config.json.
HQQ_CODES = ".W_q"


def read_quantization(
    path: Path, raw: Mapping[str, Any], tensors: Iterable[str]
) -> tuple[str, Mapping[str, Any]]:
    """The quantization method of a checkpoint, PLAIN for none, and what is said of it. raw: its
    config.json as it stands. tensors: the names of what is stored. InputError where what is said
    cannot be read."""
    found = _find_said(path, raw)
    if found is None:
        return ("hqq" if any(name.endswith(HQQ_CODES) for name in tensors) else PLAIN), {}
    if not isinstance(found, dict):
        raise InputError(f"the quantization of {path} is no JSON object", "repair its config.json")
    return str(found.get("quant_method", "unknown")), found


def _find_said(path: Path, raw: Mapping[str, Any]) -> Any:
    """An entry of config.json, or the content of a file beside it; None for neither."""
    found = raw.get("quantization_config") or raw.get("compression_config")
    # MLX's entry has a name of its own, and may have a copy.
    mlx = raw.get("quantization")
    if isinstance(mlx, dict) and found in (None, mlx) and "quant_method" not in mlx:
        return {**mlx, "quant_method": "mlx"}
    for name, method in INSTEAD.items():
        if found is None and (path / name).exists():
            try:
                found = {"quant_method": method, **read_json(path / name)}
            except (OSError, ValueError, TypeError) as error:
                raise InputError(
                    f"{path / name} cannot be read", "download the checkpoint again"
                ) from error
    return found
