"""Checkpoints by llm-compressor: `llmcompressor.py VARIANT MODEL OUT --calib FILE --windows FILE`.

With `--fixture FILE LINEAR` also what a test holds a reader to: the tensors of one linear as they
were written, and its weight as compressed-tensors, which llm-compressor writes by, unpacks it.
"""

import argparse
import json
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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForCausalLM

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
    tensors = load_file(out / "model.safetensors")
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    quantization = QuantizationConfig.model_validate(config["quantization_config"])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(out))
    found = {}
    for scheme in quantization.config_groups.values():
        compressor = BaseCompressor.get_value_from_registry(scheme.format or quantization.format)
        for name, _ in match_named_modules(model, scheme.targets, quantization.ignore):
            if name not in names:
                continue
            parts = {
                key.removeprefix(f"{name}."): value
                for key, value in tensors.items()
                if key.startswith(f"{name}.")
            }
            parts["weight_scale"] = parts["weight_scale"].float()
            found[name] = compressor.decompress(parts, scheme)["weight"]
    return found


@torch.no_grad()
def measure(source: Path, out: Path, windows: Tensor) -> float:
    """Mean negative log likelihood of the checkpoint with the weights as `unpack` has them, in
    float32: activations stay as they are, and AWQ's scales come with the other tensors."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    tensors = load_file(out / "model.safetensors")
    names = [name for name, each in model.named_modules() if isinstance(each, nn.Linear)]
    state = {name: tensors[name].float() for name in model.state_dict() if name in tensors}
    weights = {f"{name}.weight": weight for name, weight in unpack(out, names).items()}
    model.load_state_dict(state | weights, strict=False)
    losses = [model(input_ids=w[None], labels=w[None]).loss.item() for w in windows]
    return sum(losses) / len(losses)


def write_fixture(path: Path, out: Path, name: str) -> None:
    """What a test holds a reader to."""
    tensors = load_file(out / "model.safetensors")
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    stored = {
        f"stored.{key.removeprefix(f'{name}.')}": value
        for key, value in tensors.items()
        if key.startswith(f"{name}.")
    }
    about = {"maker": MAKER, "method": "compressed-tensors", "config": json.dumps(config)}
    about |= {"name": name, "tolerance": "1e-6"}
    save_file({**stored, "expected": unpack(out, [name])[name].float()}, path, metadata=about)


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
    calib = load_file(given.calib)["tokens"]
    make(given.variant, given.model, given.out, calib, given.group_size)
    if given.fixture:
        write_fixture(Path(given.fixture[0]), given.out, given.fixture[1])
    nll = measure(given.model, given.out, load_file(given.windows)["tokens"])
    said = {"maker": MAKER, "variant": given.variant, "nll": nll}
    said |= {"format": f"compressed-tensors {VARIANTS[given.variant]}"}
    print(json.dumps(said | {"how": "unpacked by compressed-tensors, weights alone"}))


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print("\n".join(VARIANTS))
    else:
        main()
