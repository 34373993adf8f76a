"""Checkpoints by llm-compressor: `llmcompressor.py VARIANT MODEL OUT --calib FILE --windows FILE`,
and `--list` for the variants.

With `--fixture FILE LINEAR` also what a test holds a reader to: the tensors of one linear as they
were written, and its weight as compressed-tensors, which llm-compressor writes by, unpacks it.
"""

import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
)
from compressed_tensors.utils import match_named_modules
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from loguru import logger
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForCausalLM

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

MAKER = f"llm-compressor {version('llmcompressor')}, compressed-tensors "
MAKER += version("compressed-tensors")
FOUR = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group"}
EIGHT = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
FP8 = {"num_bits": 8, "type": "float", "symmetric": True}
HEAD = {"ignore": ["lm_head"]}


def group(targets: str, **weights: Any) -> QuantizationScheme:
    """A config group whose weights alone are quantized."""
    return QuantizationScheme(targets=[targets], weights=QuantizationArgs(**weights))


def round_to(scheme: str) -> list[Any]:
    """To the nearest, by one of llm-compressor's own schemes."""
    return [QuantizationModifier(targets="Linear", scheme=scheme, **HEAD)]


def round_groups(*groups: QuantizationScheme) -> list[Any]:
    """To the nearest, by config groups."""
    named = {f"group_{number}": each for number, each in enumerate(groups)}
    return [QuantizationModifier(config_groups=named, **HEAD)]


def list_modifiers(variant: str, size: int) -> list[Any]:
    """What a variant does to a model. size: of its groups, where they have a size."""
    four = {**FOUR, "group_size": size}
    symmetric = {**four, "symmetric": True}
    block = {"strategy": "block", "block_structure": [size, size]}
    return {
        "awq-asym": lambda: [AWQModifier(), *round_groups(group("Linear", **four))],
        "rtn-sym": lambda: round_groups(group("Linear", **symmetric)),
        "mixed-4-8": lambda: round_groups(
            group("re:.*self_attn.*", **{**EIGHT, "strategy": "group", "group_size": size}),
            group("re:.*mlp.*", **four),
        ),
        "w8a16": lambda: round_groups(group("Linear", **EIGHT)),
        "w3a16": lambda: round_groups(group("Linear", **{**four, "num_bits": 3})),
        # Activation order by groups, with weight_g_idx, is what this version no longer has.
        "gptq-static": lambda: [
            GPTQModifier(
                config_groups={"group_0": group("Linear", **symmetric)}, actorder="static", **HEAD
            )
        ],
        "w8a8": lambda: round_to("W8A8"),
        "w4a8": lambda: [
            QuantizationModifier(
                config_groups={
                    "group_0": QuantizationScheme(
                        targets=["Linear"],
                        weights=QuantizationArgs(**symmetric),
                        input_activations=QuantizationArgs(
                            num_bits=8, type="int", strategy="token", dynamic=True
                        ),
                    )
                },
                **HEAD,
            )
        ],
        "fp8-dynamic": lambda: round_to("FP8_DYNAMIC"),
        "fp8-static": lambda: round_to("FP8"),
        "fp8-weights": lambda: round_groups(group("Linear", **FP8, strategy="tensor")),
        "fp8-block": lambda: round_groups(group("Linear", **FP8, **block)),
        "fp8-and-4": lambda: round_groups(
            group("re:.*self_attn.*", **FP8, strategy="channel"), group("re:.*mlp.*", **four)
        ),
    }[variant]()


VARIANTS: Mapping[str, str] = {
    "awq-asym": "pack-quantized",
    "rtn-sym": "pack-quantized",
    "mixed-4-8": "pack-quantized",
    "w8a16": "pack-quantized",
    "w3a16": "pack-quantized",
    "gptq-static": "pack-quantized",
    "w8a8": "int-quantized",
    "w4a8": "int-quantized",
    "fp8-dynamic": "float-quantized",
    "fp8-static": "float-quantized",
    "fp8-weights": "naive-quantized",
    "fp8-block": "naive-quantized",
    "fp8-and-4": "mixed-precision",
}


def make(variant: str, source: Path, out: Path, windows: Tensor, size: int) -> None:
    """Quantize a model and write it."""
    logger.remove()
    if not torch.cuda.is_available():
        # It pins pages for an accelerator even where there is none.
        IntermediatesCache._pin_intermediate = staticmethod(lambda value: None)
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    # A loader of its own: its way through datasets' hashing fails with newer pyarrow.
    batches = DataLoader([{"input_ids": window} for window in windows], batch_size=1)
    oneshot(model=model, recipe=list_modifiers(variant, size), dataset=batches)
    model.save_pretrained(out, save_compressed=True)


def unpack(out: Path, names: list[str]) -> dict[str, Tensor]:
    """The weights that linears stand for, by compressed-tensors itself, from scales in float32."""
    quantization = QuantizationConfig.model_validate(read_config(out))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(out))
    found = {}
    for scheme in quantization.config_groups.values():
        compressor = BaseCompressor.get_value_from_registry(scheme.format or quantization.format)
        for name, _ in match_named_modules(model, scheme.targets, quantization.ignore):
            if name not in names:
                continue
            parts = read_linear(out, name)
            parts["weight_scale"] = parts["weight_scale"].float()
            found[name] = compressor.decompress(parts, scheme)["weight"]
    return found


def load_unpacked(source: Path, out: Path) -> nn.Module:
    """The checkpoint with the weights as `unpack` has them, in float32: activations stay as they
    are, and AWQ's scales come with the other tensors."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    tensors = load_file(out / "model.safetensors")
    names = [name for name, each in model.named_modules() if isinstance(each, nn.Linear)]
    state = {name: tensors[name].float() for name in model.state_dict() if name in tensors}
    weights = {f"{name}.weight": weight for name, weight in unpack(out, names).items()}
    model.load_state_dict(state | weights, strict=False)
    return model


def main() -> None:
    """Make one variant, and say what it is in a line."""
    given = parse_arguments(VARIANTS, group_size=128)
    calib = read_tokens(given.calib)
    make(given.variant, given.model, given.out, calib, given.group_size)
    if given.fixture:
        file, name = given.fixture
        weight = unpack(given.out, [name])[name]
        write_fixture(file, given.out, name, weight, maker=MAKER, method="compressed-tensors")
    nll = measure(load_unpacked(given.model, given.out), read_tokens(given.windows))
    form = f"compressed-tensors {VARIANTS[given.variant]}"
    say(given, MAKER, form, nll=nll, how="unpacked by compressed-tensors, weights alone")


if __name__ == "__main__":
    main()
