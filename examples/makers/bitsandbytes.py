"""Checkpoints by bitsandbytes, as transformers saves them:
`bitsandbytes.py VARIANT MODEL OUT --calib FILE --windows FILE`, and `--list` for the variants.

With `--fixture FILE LINEAR` also what a test holds a reader to: the tensors of one linear as they
were written, and its weight as bitsandbytes dequantizes it. Run it with `python -P`, or it imports
itself.
"""

import argparse
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from bitsandbytes import functional
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

MAKER = f"bitsandbytes {version('bitsandbytes')}, transformers {version('transformers')}"


def four(kind: str, double: bool = False, **more: Any) -> dict[str, Any]:
    """Arguments of a configuration of 4 bits."""
    chosen = {"bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": double}
    return {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float32, **chosen, **more}


VARIANTS: Mapping[str, dict[str, Any]] = {
    "nf4": four("nf4"),
    "nf4-double": four("nf4", double=True),
    "fp4": four("fp4"),
    "fp4-double": four("fp4", double=True),
    # As FSDP wants them: codes in words of a floating-point type.
    "nf4-bfloat16": four("nf4", bnb_4bit_quant_storage=torch.bfloat16),
    # Its inputs are rounded to 8 bits as well, which no checkpoint shows.
    "int8": {"load_in_8bit": True},
}


@torch.no_grad()
def unpack(linear: nn.Module) -> Tensor:
    """The weight [N, K] of a quantized linear in float32, by bitsandbytes."""
    weight = linear.weight
    if not hasattr(weight, "quant_state"):
        # The first forward moves the rows' maxima from the weight to the linear.
        return functional.int8_vectorwise_dequant(weight.data, linear.state.SCB)
    weight.quant_state.dtype = torch.float32
    return functional.dequantize_4bit(weight.data, weight.quant_state)


@torch.no_grad()
def measure(model: nn.Module, windows: Tensor) -> float:
    """Mean negative log likelihood of the windows."""
    losses = [model(input_ids=w[None], labels=w[None]).loss.item() for w in windows]
    return sum(losses) / len(losses)


def write_fixture(path: Path, out: Path, name: str, expected: Tensor) -> None:
    """What a test holds a reader to."""
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    stored = {
        f"stored.{key.removeprefix(f'{name}.')}": value
        for key, value in load_file(out / "model.safetensors").items()
        if key.startswith(f"{name}.")
    }
    about = {"maker": MAKER, "method": "bitsandbytes", "config": json.dumps(config), "name": name}
    about["tolerance"] = "1e-6"
    save_file({**stored, "expected": expected.clone().contiguous()}, path, metadata=about)


def main() -> None:
    """Make one variant, and say what it is in a line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--list", action="version", version="\n".join(VARIANTS))
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--calib", type=Path, help="not used: nothing is calibrated")
    parser.add_argument("--windows", type=Path, required=True)
    parser.add_argument("--fixture", nargs=2, metavar=("FILE", "LINEAR"))
    given = parser.parse_args()
    AutoModelForCausalLM.from_pretrained(
        given.model,
        quantization_config=BitsAndBytesConfig(**VARIANTS[given.variant]),
        device_map="cpu",
    ).save_pretrained(given.out)
    loaded = AutoModelForCausalLM.from_pretrained(
        given.out, dtype=torch.float32, device_map="cpu"
    ).eval()
    nll = measure(loaded, load_file(given.windows)["tokens"])
    if given.fixture:
        file, name = given.fixture
        write_fixture(Path(file), given.out, name, unpack(loaded.get_submodule(name)))
    said = {"maker": MAKER, "variant": given.variant, "format": "bitsandbytes", "nll": nll}
    print(json.dumps({**said, "how": "loaded by transformers"}))


if __name__ == "__main__":
    main()
