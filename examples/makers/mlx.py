"""Checkpoints by mlx-lm: `mlx.py VARIANT MODEL OUT --calib FILE --windows FILE`, and `--list` for
the variants.

With `--fixture FILE LINEAR` also what a test holds a reader to: the tensors of one linear as they
were written, and its weight as MLX dequantizes it. Run it with `python -P`, or it imports itself.
"""

import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import torch
from mlx import nn
from mlx_lm.convert import convert
from mlx_lm.utils import load
from torch import Tensor

sys.path.append(str(Path(__file__).with_name("shared")))
from making import parse_arguments, read_config, read_linear, read_tokens, say, write_fixture

MAKER = f"mlx-lm {version('mlx-lm')}, mlx {version('mlx-cpu')}"


def choose(path: str, module: nn.Module) -> bool | dict[str, int]:
    """How a module is quantized where they differ: downs at 8 bits, the first block not at all, and
    the embedding at 6."""
    if ".layers.0." in path:
        return False
    if "embed_tokens" in path:
        return {"bits": 6, "group_size": 32}
    return {"bits": 8, "group_size": 32} if "down_proj" in path else True


# Everything by number of bits, in groups, or by a recipe.
VARIANTS: Mapping[str, dict[str, Any]] = {
    **{f"{bits}-bit": {"q_bits": bits, "q_group_size": 64} for bits in (2, 3, 4, 5, 6, 8)},
    "4-bit-32": {"q_bits": 4, "q_group_size": 32},
    "4-bit-128": {"q_bits": 4, "q_group_size": 128},
    "mixed-4-6": {"q_bits": 4, "q_group_size": 64, "quant_predicate": "mixed_4_6"},
    "chosen": {"q_bits": 4, "q_group_size": 64, "quant_predicate": choose},
}


def measure(out: Path, windows: Tensor) -> float:
    """Mean negative log likelihood of the windows under the model that was written."""
    model, _ = load(str(out))
    # Its kernels for CPUs take minutes a window in 16 bits.
    model.set_dtype(mx.float32)
    losses = []
    for window in windows.tolist():
        logits = model(mx.array([window]))[0, :-1]
        losses.append(nn.losses.cross_entropy(logits, mx.array(window[1:])).mean().item())
    return sum(losses) / len(losses)


def unpack(stored: Mapping[str, Tensor], entry: Mapping[str, Any]) -> Tensor:
    """The weight [N, K] in float32, by MLX."""
    words, scales, biases = (
        mx.array(values.float().numpy() if values.is_floating_point() else values.numpy())
        for values in (stored["weight"], stored["scales"], stored["biases"])
    )
    kinds = {"bits": entry["bits"], "group_size": entry["group_size"]}
    return torch.tensor(mx.dequantize(words, scales, biases, **kinds).tolist())


def main() -> None:
    """Make one variant, and say what it is in a line."""
    given = parse_arguments(VARIANTS)
    convert(str(given.model), str(given.out), quantize=True, **VARIANTS[given.variant])
    nll = measure(given.out, read_tokens(given.windows))
    if given.fixture:
        file, name = given.fixture
        # It says the same twice, in the second place by the name that others use.
        config = read_config(given.out)
        weight = unpack(read_linear(given.out, name), {**config, **config.get(name, {})})
        write_fixture(file, given.out, name, weight, maker=MAKER, method="mlx")
    say(given, MAKER, "mlx", nll=nll, how="loaded by mlx-lm, in float32")


if __name__ == "__main__":
    main()
