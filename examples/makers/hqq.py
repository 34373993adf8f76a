"""Checkpoints by HQQ: `hqq.py VARIANT MODEL OUT --calib FILE --windows FILE`, and `--list` for the
variants.

With `--fixture FILE LINEAR` also what a test holds a reader to: the tensors of one linear as they
were written, and its weight as hqq dequantizes it. Run it with `python -P`, or it imports itself.
transformers 5 quantizes nothing by HQQ ("is not available yet"), which is why an older one is
pinned; hqq's own pickles become safetensors by either.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from hqq.core.quantize import BaseQuantizeConfig
from hqq.models.hf.base import AutoHQQHFModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, HqqConfig

MAKER = f"hqq {version('hqq')}, transformers {version('transformers')}"


@dataclass(frozen=True)
class Variant:
    """How a model is quantized. own: by hqq alone, through its pickle, rather than by
    transformers."""

    bits: int
    group_size: int = 64
    axis: int = 1
    own: bool = False


VARIANTS: Mapping[str, Variant] = {
    "4-bit": Variant(4),
    "4-bit-columns": Variant(4, axis=0),
    "8-bit": Variant(8, group_size=128),
    "3-bit": Variant(3),
    "2-bit": Variant(2, group_size=32),
    "4-bit-own": Variant(4, own=True),
}


def make(variant: Variant, source: Path) -> nn.Module:
    """The quantized model."""
    kinds = {"nbits": variant.bits, "group_size": variant.group_size, "axis": variant.axis}
    if not variant.own:
        config = HqqConfig(**kinds)
        return AutoModelForCausalLM.from_pretrained(
            source, dtype=torch.float32, quantization_config=config, device_map="cpu"
        )
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    whole = {"compute_dtype": torch.float32, "device": "cpu"}
    AutoHQQHFModel.quantize_model(model, quant_config=BaseQuantizeConfig(**kinds), **whole)
    with tempfile.TemporaryDirectory() as folder:
        AutoHQQHFModel.save_quantized(model, folder)
        return AutoHQQHFModel.from_quantized(folder, **whole)


@torch.no_grad()
def measure(model: nn.Module, windows: Tensor) -> float:
    """Mean negative log likelihood of the windows."""
    losses = [model(input_ids=w[None], labels=w[None]).loss.item() for w in windows]
    return sum(losses) / len(losses)


def write_fixture(path: Path, out: Path, name: str, expected: Tensor) -> None:
    """What a test holds a reader to."""
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    stored = {
        f"stored.{key.removeprefix(f'{name}.')}": value
        for key, value in load_file(out / "model.safetensors").items()
        if key.startswith(f"{name}.")
    }
    said = config.get("quantization_config", {})
    about = {"maker": MAKER, "method": "hqq", "config": json.dumps(said), "name": name}
    about["tolerance"] = "0"
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
    model = make(VARIANTS[given.variant], given.model).eval()
    nll = measure(model, load_file(given.windows)["tokens"])
    model.save_pretrained(given.out)
    if given.fixture:
        file, name = given.fixture
        weight = model.get_submodule(name).dequantize().float()
        write_fixture(Path(file), given.out, name, weight)
    said = {"maker": MAKER, "variant": given.variant, "format": "hqq", "nll": nll}
    print(json.dumps({**said, "how": "in memory before export"}))


if __name__ == "__main__":
    main()
