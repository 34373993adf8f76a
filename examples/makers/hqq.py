"""Checkpoints by HQQ: `hqq.py VARIANT MODEL OUT --calib FILE --windows FILE`, and `--list` for the
variants.

With `--fixture FILE LINEAR` also what a test holds a reader to: the tensors of one linear as they
were written, and its weight as hqq dequantizes it. Run it with `python -P`, or it imports itself.
transformers 5 quantizes nothing by HQQ ("is not available yet"), which is why an older one is
pinned; hqq's own pickles become safetensors by either.
"""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from hqq.core.quantize import BaseQuantizeConfig
from hqq.models.hf.base import AutoHQQHFModel
from torch import nn
from transformers import AutoModelForCausalLM, HqqConfig

sys.path.append(str(Path(__file__).with_name("shared")))
from making import measure, parse_arguments, read_tokens, say, write_fixture

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


def main() -> None:
    """Make one variant, and say what it is in a line."""
    given = parse_arguments(VARIANTS)
    model = make(VARIANTS[given.variant], given.model).eval()
    nll = measure(model, read_tokens(given.windows))
    model.save_pretrained(given.out)
    if given.fixture:
        file, name = given.fixture
        weight = model.get_submodule(name).dequantize()
        about = {"maker": MAKER, "method": "hqq", "tolerance": "0"}
        write_fixture(file, given.out, name, weight, **about)
    say(given, MAKER, "hqq", nll=nll, how="in memory before export")


if __name__ == "__main__":
    main()
