"""Checkpoints by AMD Quark: `quark.py VARIANT MODEL OUT --calib FILE --windows FILE`.

With `--fixture FILE LINEAR` also what a test holds a reader to: the tensors of one linear as they
were written, and its weight as Quark's own quantizer rounds it.
"""

import argparse
import copy
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from quark.torch import LLMTemplate, ModelQuantizer, export_safetensors
from quark.torch.quantization import Int8PerChannelSpec
from quark.torch.quantization.config.config import QConfig, QLayerConfig
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

MAKER = f"amd-quark {version('amd-quark')}"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Variant:
    """What Quark is told. scheme: of its own names, with {} for the size of groups. algorithm: None
    for rounding to the nearest. layers: schemes by patterns of names. packing: of the values of a
    word."""

    scheme: str
    algorithm: str | None = None
    layers: Mapping[str, str] = field(default_factory=dict)
    packing: str = "reorder"


EIGHT = "int8-channel"
VARIANTS: Mapping[str, Variant] = {
    "uint4-rtn": Variant("uint4_wo_{}"),
    "uint4-order": Variant("uint4_wo_{}", packing="order"),
    # On the bundled model half a minute a block and more.
    "uint4-awq": Variant("uint4_wo_{}", "awq"),
    "int4-rtn": Variant("int4_wo_{}"),
    "int8": Variant(EIGHT),
    "fp8": Variant("fp8"),
    "ptpc-fp8": Variant("ptpc_fp8"),
    "mixed-4-8": Variant("uint4_wo_{}", layers={"*self_attn*": EIGHT}),
}


def configure(variant: Variant, size: int) -> QConfig:
    """Quark's configuration of a variant, for a llama."""
    eight = Int8PerChannelSpec(
        symmetric=True, scale_type="float", round_method="half_even", ch_axis=0, is_dynamic=False
    ).to_quantization_spec()
    LLMTemplate.register_scheme(EIGHT, config=QLayerConfig(weight=eight))
    return LLMTemplate.get("llama").get_config(
        scheme=variant.scheme.format(size),
        algorithm=variant.algorithm,
        layer_config={name: scheme.format(size) for name, scheme in variant.layers.items()},
        exclude_layers=["lm_head"],
    )


def quantize(source: Path, variant: Variant, windows: Tensor, size: int) -> nn.Module:
    """The quantized model, in float32: in 16 bits its scales are rounded once more."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    quantizer = ModelQuantizer(configure(variant, size))
    model = quantizer.quantize_model(model, DataLoader(windows, batch_size=1))
    return quantizer.freeze(model)


@torch.no_grad()
def measure(model: nn.Module, windows: Tensor) -> float:
    """Mean negative log likelihood with the weights alone quantized."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if getattr(module, "_input_quantizer", None) is not None:
            module._input_quantizer = nn.Identity()
    losses = [model(input_ids=w[None], labels=w[None]).loss.item() for w in windows]
    return sum(losses) / len(losses)


def round_weight(model: nn.Module, name: str) -> Tensor:
    """The weight [N, K] that a quantized linear multiplies its input with."""
    linear = model.get_submodule(name)
    with torch.no_grad():
        return linear.get_quant_weight(linear.weight).detach().float()


def write_fixture(path: Path, out: Path, name: str, expected: Tensor) -> None:
    """What a test holds a reader to."""
    tensors = load_file(out / WEIGHTS)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    stored = {
        f"stored.{key.removeprefix(f'{name}.')}": value
        for key, value in tensors.items()
        if key.startswith(f"{name}.")
    }
    about = {"maker": MAKER, "method": "quark", "config": json.dumps(config), "name": name}
    about["tolerance"] = "1e-6"
    save_file({**stored, "expected": expected.contiguous().clone()}, path, metadata=about)


def main() -> None:
    """Make one variant, and say what it is in a line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--calib", type=Path, required=True)
    parser.add_argument("--windows", type=Path, required=True)
    parser.add_argument("--group-size", type=int, default=128)
    parser.add_argument("--fixture", nargs=2, metavar=("FILE", "LINEAR"))
    given = parser.parse_args()
    variant = VARIANTS[given.variant]
    calib = load_file(given.calib)["tokens"]
    model = quantize(given.model, variant, calib, given.group_size)
    if given.fixture:
        expected = round_weight(model, given.fixture[1])
    nll = measure(model, load_file(given.windows)["tokens"])
    export_safetensors(model, given.out, pack_method=variant.packing)
    if given.fixture:
        write_fixture(Path(given.fixture[0]), given.out, given.fixture[1], expected)
    said = {"maker": MAKER, "variant": given.variant, "format": "quark", "nll": nll}
    print(json.dumps(said | {"how": "in memory before export"}))


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print("\n".join(VARIANTS))
    else:
        main()
