"""Checkpoints by NVIDIA ModelOpt: `modelopt.py VARIANT MODEL OUT --calib FILE --windows FILE`,
and `--list` for the variants.

With `--fixture FILE LINEAR` also what a test holds a reader to: the tensors of one linear as they
were written, and its weight as ModelOpt's own quantizers round it.
"""

import argparse
import copy
import json
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.export import export_hf_checkpoint
from modelopt.torch.export.convert_hf_config import convert_hf_quant_config_format
from modelopt.torch.export.quant_utils import (
    from_quantized_weight,
    process_layer_quant_config,
)
from modelopt.torch.export.unified_export_hf import requantize_resmooth_fused_llm_layers
from modelopt.torch.quantization.qtensor import NVFP4QTensor
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

sys.path.append(str(Path(__file__).with_name("shared")))
from making import measure, parse_arguments, read_tokens, say, write_fixture

MAKER = f"nvidia-modelopt {version('nvidia-modelopt')}"
HOW = "in memory before export, after what the export makes common to q/k/v and gate/up"
BESIDE, WEIGHTS = "hf_quant_config.json", "model.safetensors"
Config = dict[str, Any]


def resize(config: Config, size: int) -> Config:
    """A configuration of ModelOpt's with INT4 groups of `size`."""
    changed = copy.deepcopy(config)
    for entry in changed["quant_cfg"]:
        cfg = entry.get("cfg")
        if isinstance(cfg, dict) and cfg.get("num_bits") == 4 and cfg.get("block_sizes"):
            cfg["block_sizes"] = {**cfg["block_sizes"], -1: size}
    return changed


def mix(size: int) -> Config:
    """FP8 in attention, INT4 in the MLPs."""
    off = {"quantizer_name": "*", "enable": False}
    eight = {"num_bits": (4, 3), "axis": None}
    four = {"num_bits": 4, "block_sizes": {-1: size}}
    return {
        "quant_cfg": [
            off,
            {"quantizer_name": "*self_attn*weight_quantizer", "cfg": eight},
            {"quantizer_name": "*self_attn*_proj.input_quantizer", "cfg": eight},
            {"quantizer_name": "*mlp*weight_quantizer", "cfg": four},
        ],
        "algorithm": "max",
    }


# ModelOpt 0.47 rounds to FP4 by kernels of its own, which run on CUDA devices alone. Without one
# its packing is called by itself, for the tests' sake.
CUDA_ONLY = ("nvfp4", "w4a16-nvfp4")
# What ModelOpt's own unpacking calls the format; where it simulates INT8, ties go the other way.
UNPACKED = {"int8-weights": "int8_wo", "int8-smoothquant": "int8_sq"}
VARIANTS: Mapping[str, Callable[[int], Config]] = {
    "int4-awq": lambda size: resize(mtq.INT4_AWQ_CFG, size),
    "int4-rtn": lambda size: resize(mtq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG, size),
    "fp8": lambda size: mtq.FP8_DEFAULT_CFG,
    "fp8-channel": lambda size: mtq.FP8_PER_CHANNEL_PER_TOKEN_CFG,
    "int8-weights": lambda size: mtq.INT8_WEIGHT_ONLY_CFG,
    "int8-smoothquant": lambda size: mtq.INT8_SMOOTHQUANT_CFG,
    "nvfp4": lambda size: mtq.NVFP4_DEFAULT_CFG,
    "w4a16-nvfp4": lambda size: mtq.W4A16_NVFP4_CFG,
    "mixed": mix,
}


def load(source: Path) -> nn.Module:
    """The model in float32: in 16 bits the export rounds once more."""
    return AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()


def quantize(model: nn.Module, config: Config, windows: Tensor) -> None:
    """Quantize a model in memory, as its export will have it."""

    def calibrate(model: nn.Module) -> None:
        with torch.no_grad():
            for window in windows:
                model(window[None])

    mtq.quantize(model, config, calibrate)
    requantize_resmooth_fused_llm_layers(model)


@torch.no_grad()
def round_weight(linear: nn.Module) -> Tensor:
    """The weight [N, K] that a quantized linear multiplies its input with, the factor of each input
    included."""
    weight = linear.weight_quantizer(linear.weight)
    factor = getattr(linear.input_quantizer, "pre_quant_scale", None)
    return weight if factor is None else weight * factor


def measure_weights(model: nn.Module, windows: Tensor) -> float:
    """Mean negative log likelihood with the weights alone quantized."""
    linears = [each for each in model.modules() if isinstance(each, nn.Linear)]
    inputs = [each.input_quantizer for each in linears if hasattr(each, "input_quantizer")]
    for quantizer in inputs:
        quantizer.disable_quant()
    nll = measure(model, windows)
    for quantizer in inputs:
        quantizer.enable_quant()
    return nll


def unpack(out: Path, name: str, kind: str) -> Tensor:
    """The weight [N, K] of a written linear by ModelOpt's own unpacking, the factor of each input
    included."""
    tensors = load_file(out / WEIGHTS)
    stored, scale = tensors[f"{name}.weight"], tensors[f"{name}.weight_scale"]
    weight = from_quantized_weight(stored, scale, kind, torch.float32)
    factor = tensors.get(f"{name}.pre_quant_scale")
    return weight if factor is None else weight * factor


def pack_fp4(linear: nn.Linear, name: str, out: Path) -> Tensor:
    """Write one linear as ModelOpt packs NVFP4, into a checkpoint of nothing else; its weight as
    ModelOpt unpacks that."""
    packed, scale, second = NVFP4QTensor.quantize(linear.weight.data, 16)
    parts = {"weight": packed._quantized_data, "weight_scale": scale, "weight_scale_2": second}
    said = process_layer_quant_config({f"{name}.quantization": "w4a16_nvfp4"})
    said = {"producer": {"name": "modelopt"}, "quantization": {**said, "group_size": 16}}
    config = {"quantization_config": convert_hf_quant_config_format(said)}
    out.mkdir()
    save_file({f"{name}.{part}": each for part, each in parts.items()}, out / WEIGHTS)
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (out / BESIDE).write_text(json.dumps(said), encoding="utf-8")
    sizes = {-1: 16}
    return packed.dequantize(torch.float32, scale=scale, double_scale=second, block_sizes=sizes)


def keep(given: argparse.Namespace, expected: Tensor) -> None:
    """What a test holds a reader to."""
    file, name = given.fixture
    beside = json.dumps({BESIDE: (given.out / BESIDE).read_text(encoding="utf-8")})
    about = {"maker": MAKER, "method": "modelopt", "files": beside}
    write_fixture(file, given.out, name, expected, **about)


def main() -> None:
    """Make one variant, and say what it is in a line."""
    given = parse_arguments(VARIANTS, group_size=128)
    model = load(given.model)
    if given.variant in CUDA_ONLY and not torch.cuda.is_available():
        if given.fixture:
            name = given.fixture[1]
            keep(given, pack_fp4(model.get_submodule(name), name, given.out))
        say(given, MAKER, "modelopt", unable="it rounds to FP4 on CUDA devices alone")
        return
    quantize(model, VARIANTS[given.variant](given.group_size), read_tokens(given.calib))
    nll = measure_weights(model, read_tokens(given.windows))
    if given.fixture:
        expected = round_weight(model.get_submodule(given.fixture[1]))
    export_hf_checkpoint(model, export_dir=given.out)
    if given.fixture:
        if given.variant in UNPACKED:
            expected = unpack(given.out, given.fixture[1], UNPACKED[given.variant])
        keep(given, expected)
    say(given, MAKER, "modelopt", nll=nll, how=HOW)


if __name__ == "__main__":
    main()
