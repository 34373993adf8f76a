"""What the scripts of all tools share: arguments, measuring, fixtures, and the last line.

It runs in each tool's own environment, so that it needs torch and safetensors alone, and nothing of
ours. A script puts this file's folder last among those that are searched.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def parse_arguments(
    variants: Iterable[str], about: str | None = None, **sizes: int
) -> argparse.Namespace:
    """What a script is asked for; `--list` prints the variants and ends it. sizes: options of the
    tool's own, with what they are unless they are given."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--list", action="version", version="\n".join(variants))
    parser.add_argument("variant", choices=list(variants))
    parser.add_argument("model", type=Path, help="directory of a 16-bit model")
    parser.add_argument("out", type=Path, help="directory for the checkpoint")
    parser.add_argument("--calib", type=Path, help="windows to calibrate on")
    parser.add_argument("--windows", type=Path, required=True, help="windows to measure on")
    parser.add_argument(
        "--fixture", nargs=2, metavar=("FILE", "LINEAR"), help="what a test holds a reader to"
    )
    for name, size in sizes.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=size)
    return parser.parse_args()


def read_tokens(path: Path) -> Tensor:
    """The windows of a file, int64 [n, length]."""
    return load_file(path)["tokens"]


@torch.no_grad()
def measure(model: nn.Module, windows: Tensor) -> float:
    """The mean negative log likelihood of every token of a window but its first, in nats."""
    total = 0.0
    for window in windows:
        logits = model(input_ids=window[None], use_cache=False).logits[0, :-1].float()
        total += nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
    return total / windows[:, 1:].numel()


def read_config(made: Path) -> dict[str, Any]:
    """The `quantization_config` of a checkpoint, empty where it has none."""
    config = json.loads((made / "config.json").read_text(encoding="utf-8"))
    return config.get("quantization_config", {})


def read_linear(made: Path, linear: str) -> dict[str, Tensor]:
    """The tensors of one linear of a checkpoint, by what their names have after the linear's."""
    tensors = {
        name: t for file in made.glob("*.safetensors") for name, t in load_file(file).items()
    }
    start = f"{linear}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def write_fixture(
    file: str,
    made: Path,
    linear: str,
    expected: Tensor,
    *,
    maker: str,
    method: str,
    tolerance: str = "1e-6",
    config: dict[str, Any] | None = None,
    **about: str,
) -> None:
    """What a test holds a reader to: the tensors of one linear as they stand on disk, and the
    weight [N, K] that they are. tolerance: how far a reader may be from it. config: what is said of
    them, that of config.json unless it is given. about: further entries."""
    config = read_config(made) if config is None else config
    stored = {f"stored.{part}": values for part, values in read_linear(made, linear).items()}
    said = {"maker": maker, "method": method, "name": linear, "tolerance": tolerance}
    said |= {"config": json.dumps(config), **about}
    save_file({**stored, "expected": expected.float().clone().contiguous()}, file, metadata=said)


def say(given: argparse.Namespace, maker: str, form: str, **found: Any) -> None:
    """The script's last line. found: `nll` and `how`, or why the tool is `unable`."""
    said = {"maker": maker, "variant": given.variant, "format": form, "nll": None}
    print(json.dumps(said | found), flush=True)
