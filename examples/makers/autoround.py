"""AutoRound 0.16: its own format and those of other tools, on the CPU.

`python -P autoround.py VARIANT MODEL OUT --calib FILE --windows FILE [--fixture FILE LINEAR]`; the
last line that it prints is JSON. --fixture: also one linear as it stands on disk, beside what the
tool has in memory before it packs it.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Variant:
    """A way to quantize and to write it. layers: pattern -> options of those layers alone."""

    format: str
    bits: int = 4
    sym: bool = True
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


EIGHT = {"model.layers.1.self_attn.q_proj": {"bits": 8}, "model.layers.1.mlp.up_proj": {"bits": 8}}
# auto_round:llm_compressor writes nothing for integers that llm_compressor does not.
VARIANTS: Mapping[str, Variant] = {
    "auto-awq": Variant("auto_awq"),
    "auto-awq-asym": Variant("auto_awq", sym=False),
    "auto-gptq": Variant("auto_gptq"),
    "auto-gptq-asym": Variant("auto_gptq", sym=False),
    "llm-compressor-asym": Variant("llm_compressor", sym=False),
    **{f"auto-round-{bits}": Variant("auto_round", bits) for bits in (2, 3, 4, 8)},
    "auto-round-4-asym": Variant("auto_round", sym=False),
    # At 5 to 7 bits symmetric ones are refused: "auto_gptq format support … but got bits=5".
    **{f"auto-round-{bits}-asym": Variant("auto_round", bits, sym=False) for bits in (3, 5)},
    "auto-round-6-awq": Variant("auto_round:auto_awq", 6, sym=False),
    "auto-round-dynamic": Variant("auto_round", layers=EIGHT),
    "auto-round-dynamic-asym": Variant("auto_round", sym=False, layers=EIGHT),
}


def read_tokens(path: Path) -> Tensor:
    """The windows of a file, int64 [n, length]."""
    return load_file(path)["tokens"]


@torch.inference_mode()
def measure(model: nn.Module, windows: Tensor) -> float:
    """The mean negative log likelihood of every token of a window but its first, in nats."""
    model, total = model.float().eval(), 0.0
    for window in windows:
        logits = model(input_ids=window[None], use_cache=False).logits[0, :-1]
        total += nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
    return total / windows[:, 1:].numel()


def write_fixture(path: Path, made: Path, linear: str, expected: Tensor, maker: str) -> None:
    """One linear as it stands on disk, and the weight [N, K] that it was written from."""
    tensors = {"expected": expected}
    for file in made.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():
                if name.startswith(f"{linear}."):
                    part = name.removeprefix(f"{linear}.")
                    tensors[f"stored.{part}"] = opened.get_tensor(name)
    config = json.loads((made / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    about = {"maker": maker, "method": config["quant_method"], "name": linear}
    # Scales are rounded to float16 as they are written.
    save_file(tensors, path, about | {"config": json.dumps(config), "tolerance": "1e-3"})


def prepare(given: argparse.Namespace, variant: Variant) -> Any:
    """The tool, with the model and all that it is asked for."""
    from auto_round import AutoRound
    from transformers import AutoModelForCausalLM, AutoTokenizer

    calib = read_tokens(given.calib)
    return AutoRound(
        AutoModelForCausalLM.from_pretrained(given.model),
        AutoTokenizer.from_pretrained(given.model),
        bits=variant.bits,
        group_size=given.group,
        sym=variant.sym,
        layer_config={name: dict(options) for name, options in variant.layers.items()},
        # Rows of tokens: a text goes through a hasher that fails on pyarrow 26.
        dataset=[row[None] for row in calib],
        nsamples=len(calib),
        seqlen=calib.shape[1],
        batch_size=4,
        iters=given.iters,
        device_map="cpu",
        enable_torch_compile=False,
    )


def main() -> None:
    """Quantize, measure, save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--calib", type=Path, required=True)
    parser.add_argument("--windows", type=Path, required=True)
    parser.add_argument("--group", type=int, default=128, help="inputs that share a scale")
    parser.add_argument("--iters", type=int, default=10, help="steps of the search a block")
    parser.add_argument("--fixture", nargs=2, metavar=("FILE", "LINEAR"))
    given = parser.parse_args()
    variant = VARIANTS[given.variant]
    # Layers that are to be saved are packed, and leave memory, block by block: what they are
    # rounded to is measured on another model, rounded with the same seed.
    rounded, _ = prepare(given, variant).quantize()
    nll = measure(rounded, read_tokens(given.windows))
    kept = None
    if given.fixture:
        kept = rounded.get_submodule(given.fixture[1]).weight.detach().float().clone()
    with tempfile.TemporaryDirectory(dir=given.out.parent) as folder:
        prepare(given, variant).quantize_and_save(folder, format=variant.format)
        written = next(Path(folder).rglob("config.json")).parent
        shutil.copytree(written, given.out)
    maker = f"auto-round {version('auto-round')}"
    if given.fixture and kept is not None:
        write_fixture(Path(given.fixture[0]), given.out, given.fixture[1], kept, maker)
    said = {"maker": maker, "variant": given.variant, "format": variant.format}
    print(json.dumps(said | {"nll": nll, "how": "in memory before export"}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print("\n".join(VARIANTS))
    else:
        main()
