"""Checkpoints by bitsandbytes, as transformers saves them:
`bitsandbytes.py VARIANT MODEL OUT --calib FILE --windows FILE`, and `--list` for the variants.

With `--fixture FILE LINEAR` also what a test holds a reader to: the tensors of one linear as they
were written, and its weight as bitsandbytes dequantizes it. Run it with `python -P`, or it imports
itself.
"""

import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from bitsandbytes import functional
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

sys.path.append(str(Path(__file__).with_name("shared")))
from making import measure, parse_arguments, read_tokens, say, write_fixture

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


def main() -> None:
    """Make one variant, and say what it is in a line."""
    given = parse_arguments(VARIANTS)
    AutoModelForCausalLM.from_pretrained(
        given.model,
        quantization_config=BitsAndBytesConfig(**VARIANTS[given.variant]),
        device_map="cpu",
    ).save_pretrained(given.out)
    loaded = AutoModelForCausalLM.from_pretrained(
        given.out, dtype=torch.float32, device_map="cpu"
    ).eval()
    nll = measure(loaded, read_tokens(given.windows))
    if given.fixture:
        file, name = given.fixture
        weight = unpack(loaded.get_submodule(name))
        write_fixture(file, given.out, name, weight, maker=MAKER, method="bitsandbytes")
    say(given, MAKER, "bitsandbytes", nll=nll, how="loaded by transformers")


if __name__ == "__main__":
    main()
