"""Checkpoints by AMD Quark: `quark.py VARIANT MODEL OUT --calib FILE --windows FILE`, and `--list`
for the variants.

With `--fixture FILE LINEAR` also what a test holds a reader to: the tensors of one linear as they
were written, and its weight as Quark's own quantizer rounds it.
"""

import copy
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from quark.torch import LLMTemplate, ModelQuantizer, export_safetensors
from quark.torch.quantization import Int8PerChannelSpec
from quark.torch.quantization.config.config import QConfig, QLayerConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

sys.path.append(str(Path(__file__).with_name("shared")))
from making import measure, parse_arguments, read_tokens, say, write_fixture

MAKER = f"amd-quark {version('amd-quark')}"


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


def without_inputs(model: nn.Module) -> nn.Module:
    """The model with its weights alone quantized."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if getattr(module, "_input_quantizer", None) is not None:
            module._input_quantizer = nn.Identity()
    return model


def round_weight(model: nn.Module, name: str) -> Tensor:
    """The weight [N, K] that a quantized linear multiplies its input with."""
    linear = model.get_submodule(name)
    with torch.no_grad():
        return linear.get_quant_weight(linear.weight).detach().float()


def main() -> None:
    """Make one variant, and say what it is in a line."""
    given = parse_arguments(VARIANTS, group_size=128)
    variant = VARIANTS[given.variant]
    model = quantize(given.model, variant, read_tokens(given.calib), given.group_size)
    if given.fixture:
        file, name = given.fixture
        expected = round_weight(model, name)
    nll = measure(without_inputs(model), read_tokens(given.windows))
    export_safetensors(model, given.out, pack_method=variant.packing)
    if given.fixture:
        write_fixture(file, given.out, name, expected, maker=MAKER, method="quark")
    say(given, MAKER, "quark", nll=nll, how="in memory before export")


if __name__ == "__main__":
    main()
