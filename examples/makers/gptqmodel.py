"""GPTQModel 7.7: AWQ and GPTQ in its formats, on the CPU.

`python -P gptqmodel.py VARIANT MODEL OUT --calib FILE --windows FILE [--fixture FILE LINEAR]`; the
last line that it prints is JSON. --fixture: also one linear as it stands on disk, beside what the
tool dequantizes it to.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).with_name("shared")))
from making import (
    measure,
    parse_arguments,
    read_config,
    read_linear,
    read_tokens,
    say,
    write_fixture,
)


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


def dequantize(module: nn.Module) -> Tensor:
    """What the tool makes of a linear's words, [K, N]."""
    if hasattr(module, "dequantize_weight"):
        return module.dequantize_weight()
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm

    words = module.qweight, module.qzeros, module.scales
    return dequantize_gemm(*words, bits=module.bits, group_size=module.group_size)


def keep(given: argparse.Namespace, module: nn.Module, maker: str) -> None:
    """What a test holds a reader to: what the tool makes of a linear's words."""
    file, linear = given.fixture
    # Its kernels have 16 bits at most: with the scales in 32, what they dequantize has none of
    # their rounding.
    module.scales = read_linear(given.out, linear)["scales"].float()
    expected = dequantize(module).T
    config = read_config(given.out)
    # Its notes on how it was made, paths among them, decide nothing.
    config.pop("meta")
    about = {"maker": maker, "method": config["quant_method"], "config": config}
    write_fixture(file, given.out, linear, expected, **about)


def main() -> None:
    """Quantize, save, load again, measure."""
    given = parse_arguments(VARIANTS, group=128)
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
    model = GPTQModel.load(str(given.model), config)
    calib = read_tokens(given.calib)
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in calib]
    model.quantize(rows, batch_size=1)
    model.save(str(given.out))
    loaded = GPTQModel.load(
        str(given.out), device="cpu", backend=BACKEND.TORCH, dtype=torch.float16
    )
    maker = f"gptqmodel {version('gptqmodel')}"
    nll = measure(loaded.model, read_tokens(given.windows))
    if given.fixture:
        keep(given, loaded.model.get_submodule(given.fixture[1]), maker)
    say(given, maker, variant.format, nll=nll, how="loaded by gptqmodel")


if __name__ == "__main__":
    main()
