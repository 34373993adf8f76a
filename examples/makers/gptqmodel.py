"""GPTQModel 7.7: AWQ and GPTQ in its formats, on the CPU.

`python -P gptqmodel.py VARIANT MODEL OUT --calib FILE --windows FILE [--fixture FILE LINEAR]`; the
last line that it prints is JSON. --fixture: also one linear as it stands on disk, beside what the
tool dequantizes it to.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Variant:
    """A way to quantize. method, format, bits, options: of QuantizeConfig."""

    method: str
    format: str
    bits: int
    options: Mapping[str, Any] = field(default_factory=dict)


EIGHT = {r"+:model\.layers\.1\.self_attn\.": {"bits": 8}}
# AWQ's gemv, gemv_fast and llm-awq are refused without a GPU ("does not support device:
# DEVICE.CPU"), although their packing takes none.
VARIANTS: Mapping[str, Variant] = {
    "awq-gemm": Variant("awq", "gemm", 4),
    "awq-gemm-asym": Variant("awq", "gemm", 4, {"sym": False}),
    "awq-gemm-3-asym": Variant("awq", "gemm", 3, {"sym": False}),
    **{f"gptq-{bits}": Variant("gptq", "gptq", bits) for bits in (2, 3, 4, 8)},
    "gptq-3-asym": Variant("gptq", "gptq", 3, {"sym": False}),
    "gptq-4-asym-desc-act": Variant("gptq", "gptq", 4, {"sym": False, "desc_act": True}),
    "gptq-4-dynamic": Variant("gptq", "gptq", 4, {"dynamic": EIGHT}),
    "gptq-v2-3": Variant("gptq", "gptq_v2", 3),
    "gptq-v2-4-asym": Variant("gptq", "gptq_v2", 4, {"sym": False}),
    **{f"gptq-p-{bits}": Variant("gptq", "gptq_p", bits) for bits in (3, 5, 6, 7)},
    "gptq-p-5-asym": Variant("gptq", "gptq_p", 5, {"sym": False}),
}


def read_tokens(path: Path) -> Tensor:
    """The windows of a file, int64 [n, length]."""
    return load_file(path)["tokens"]


@torch.inference_mode()
def measure(model: nn.Module, windows: Tensor) -> float:
    """The mean negative log likelihood of every token of a window but its first, in nats."""
    total = 0.0
    for window in windows:
        logits = model(input_ids=window[None], use_cache=False).logits[0, :-1].float()
        total += nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
    return total / windows[:, 1:].numel()


def read_linear(made: Path, linear: str) -> dict[str, Tensor]:
    """The tensors of one linear of a checkpoint, by what their names have after the linear's."""
    found = {}
    for file in made.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():
                if name.startswith(f"{linear}."):
                    found[name.removeprefix(f"{linear}.")] = opened.get_tensor(name)
    return found


def dequantize(module: nn.Module) -> Tensor:
    """What the tool makes of a linear's words, [K, N]."""
    if hasattr(module, "dequantize_weight"):
        return module.dequantize_weight()
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm

    words = module.qweight, module.qzeros, module.scales
    return dequantize_gemm(*words, bits=module.bits, group_size=module.group_size)


def write_fixture(path: Path, made: Path, linear: str, module: nn.Module, maker: str) -> None:
    """One linear as it stands on disk, and the weight [N, K] that the tool makes of it."""
    stored = read_linear(made, linear)
    # Its kernels have 16 bits at most: with the scales in 32, what they dequantize has none of
    # their rounding.
    module.scales = stored["scales"].float()
    expected = dequantize(module).T.float().contiguous()
    config = json.loads((made / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    # Its notes on how it was made, paths among them, decide nothing.
    config.pop("meta")
    about = {"maker": maker, "method": config["quant_method"], "name": linear}
    about |= {"config": json.dumps(config), "tolerance": "1e-6"}
    tensors = {f"stored.{part}": values for part, values in stored.items()}
    save_file({"expected": expected} | tensors, path, about)


def main() -> None:
    """Quantize, save, load again, measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--calib", type=Path, required=True)
    parser.add_argument("--windows", type=Path, required=True)
    parser.add_argument("--group", type=int, default=128, help="inputs that share a scale")
    parser.add_argument("--fixture", nargs=2, metavar=("FILE", "LINEAR"))
    given = parser.parse_args()
    # Its pool of threads has half as many as there are cores, and it asks for two of them.
    os.cpu_count = lambda: 4
    # It compiles every kernel it loads, which takes longer than all else that is done here.
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
    from gptqmodel.quantization import FORMAT, METHOD

    variant = VARIANTS[given.variant]
    config = QuantizeConfig(
        method=METHOD(variant.method),
        format=FORMAT(variant.format),
        bits=variant.bits,
        group_size=given.group,
        device="cpu",
        **variant.options,
    )
    model = GPTQModel.load(given.model, config)
    calib = read_tokens(given.calib)
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in calib]
    model.quantize(rows, batch_size=1)
    model.save(str(given.out))
    loaded = GPTQModel.load(
        str(given.out), device="cpu", backend=BACKEND.TORCH, dtype=torch.float16
    )
    maker = f"gptqmodel {version('gptqmodel')}"
    said = {"maker": maker, "variant": given.variant, "format": variant.format}
    said |= {"nll": measure(loaded.model, read_tokens(given.windows)), "how": "loaded by gptqmodel"}
    if given.fixture:
        file, linear = given.fixture
        module = loaded.model.get_submodule(linear)
        write_fixture(Path(file), given.out, linear, module, maker)
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print("\n".join(VARIANTS))
    else:
        main()
