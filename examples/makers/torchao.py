"""Checkpoints by torchao, as transformers saves them:
`torchao.py VARIANT MODEL OUT --calib FILE --windows FILE`, and `--list` for the variants.

With `--fixture FILE LINEAR` also what a test holds a reader to: the tensors of one linear as they
were written, and its weight as torchao dequantizes it. Run it with `python -P`, or it imports
itself.
"""

import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torchao.quantization import (
    FqnToConfig,
    Int4WeightOnlyConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    MappingType,
    PerAxis,
    PerGroup,
)
from transformers import AutoModelForCausalLM, TorchAoConfig

sys.path.append(str(Path(__file__).with_name("shared")))
from making import measure, parse_arguments, read_tokens, say, write_fixture

MAKER = f"torchao {version('torchao')}, transformers {version('transformers')}"


def plain(bits: int, groups: Any, asymmetric: bool = False) -> IntxWeightOnlyConfig:
    """Codes of so many bits, each in a byte."""
    mapping = MappingType.ASYMMETRIC if asymmetric else MappingType.SYMMETRIC
    dtype = getattr(torch, f"int{bits}")
    return IntxWeightOnlyConfig(weight_dtype=dtype, granularity=groups, mapping_type=mapping)


VARIANTS: Mapping[str, Callable[[], Any]] = {
    "int8": Int8WeightOnlyConfig,
    "int8-groups": lambda: Int8WeightOnlyConfig(granularity=PerGroup(32)),
    "int4-symmetric": lambda: plain(4, PerGroup(64)),
    "int4-asymmetric": lambda: plain(4, PerGroup(32), asymmetric=True),
    "int4-rows": lambda: plain(4, PerAxis(0)),
    "int3": lambda: plain(3, PerGroup(32), asymmetric=True),
    "mixed": lambda: FqnToConfig(
        {"re:.*self_attn.*": plain(8, PerGroup(64)), "re:.*mlp.*": plain(4, PerGroup(32))}
    ),
    # Packed codes: each asks for a GPU, or for mslk, of which there is no build for CPUs.
    "int4-packed": lambda: Int4WeightOnlyConfig(group_size=64),
    "int4-tiled": lambda: Int4WeightOnlyConfig(
        group_size=64, int4_packing_format="tile_packed_to_4d"
    ),
}
PACKED = ("int4-packed", "int4-tiled")


def main() -> None:
    """Make one variant, and say what it is in a line."""
    given = parse_arguments(VARIANTS)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            given.model,
            dtype=torch.float32,
            quantization_config=TorchAoConfig(VARIANTS[given.variant]()),
        )
    except Exception as error:
        if given.variant not in PACKED or torch.cuda.is_available():
            raise
        say(given, MAKER, "torchao", unable=f"needs a GPU or mslk ({type(error).__name__})")
        return
    model.save_pretrained(given.out)
    loaded = AutoModelForCausalLM.from_pretrained(given.out, dtype=torch.float32).eval()
    nll = measure(loaded, read_tokens(given.windows))
    if given.fixture:
        file, name = given.fixture
        weight = loaded.get_submodule(name).weight.dequantize()
        write_fixture(file, given.out, name, weight, maker=MAKER, method="torchao")
    say(given, MAKER, "torchao", nll=nll, how="loaded by transformers")


if __name__ == "__main__":
    main()
