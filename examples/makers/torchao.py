"""Checkpoints by torchao, as transformers saves them:
`torchao.py VARIANT MODEL OUT --calib FILE --windows FILE`, and `--list` for the variants.

With `--fixture FILE LINEAR` also what a test holds a reader to: the tensors of one linear as they
were written, and its weight as torchao dequantizes it. Run it with `python -P`, or it imports
itself.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
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
    about = {"maker": MAKER, "method": "torchao", "config": json.dumps(config), "name": name}
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
    said = {"maker": MAKER, "variant": given.variant, "format": "torchao", "nll": None}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            given.model,
            dtype=torch.float32,
            quantization_config=TorchAoConfig(VARIANTS[given.variant]()),
        )
    except Exception as error:
        if given.variant not in PACKED or torch.cuda.is_available():
            raise
        print(json.dumps({**said, "unable": f"needs a GPU or mslk ({type(error).__name__})"}))
        return
    model.save_pretrained(given.out)
    loaded = AutoModelForCausalLM.from_pretrained(given.out, dtype=torch.float32).eval()
    said["nll"] = measure(loaded, load_file(given.windows)["tokens"])
    if given.fixture:
        file, name = given.fixture
        weight = loaded.get_submodule(name).weight
        write_fixture(Path(file), given.out, name, weight.dequantize().float())
    print(json.dumps({**said, "how": "loaded by transformers"}))


if __name__ == "__main__":
    main()
