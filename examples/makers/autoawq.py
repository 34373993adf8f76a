"""autoawq 0.2.9: its words in every version that it packs, on the CPU.

`python -P autoawq.py VARIANT MODEL OUT --calib FILE --windows FILE [--fixture FILE LINEAR]`; the
last line that it prints is JSON. --fixture: also one linear as it stands on disk, beside what it
was written from.

The search for scales and `save_quantized` ask for a transformers that is years old. Rounding and
packing do not: every linear of a block is rounded to nearest by autoawq's own quantizer and packed
by its own classes, and config.json says what its `AwqConfig` does. Calibration has no part in it.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

# By version; llm-awq has gemv_fast's words, and autoawq cannot write them.
VARIANTS: Mapping[str, str] = {"gemm": "gemm", "gemv": "gemv", "gemv-fast": "gemv_fast"}


def find_class(form: str) -> Any:
    """The class that packs words of a version."""
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.modules.linear.gemv import WQLinear_GEMV
    from awq.modules.linear.gemv_fast import WQLinear_GEMVFast

    return {"gemm": WQLinear_GEMM, "gemv": WQLinear_GEMV, "gemv_fast": WQLinear_GEMVFast}[form]


def read_tokens(path: Path) -> Tensor:
    """The windows of a file, int64 [n, length]."""
    return load_file(path)["tokens"]


@torch.inference_mode()
def measure(model: nn.Module, windows: Tensor) -> float:
    """The mean negative log likelihood of every token of a window but its first, in nats."""
    total = 0.0
    for window in windows:
        logits = model(input_ids=window[None], use_cache=False).logits[0, :-1]
        total += nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
    return total / windows[:, 1:].numel()


def pack(linear: nn.Linear, form: str, group: int) -> dict[str, Tensor]:
    """Round a linear in place, and the tensors that autoawq packs it to."""
    from awq.quantize.quantizer import AwqQuantizer

    settings = SimpleNamespace(group_size=group, zero_point=True, w_bit=4)
    round_weight: Callable = AwqQuantizer.pseudo_quantize_tensor
    # The classes round once more, by scales in the type that they store.
    _, scales, zeros = round_weight(settings, linear.weight.data)
    scales = scales.half().float()
    spread = [values.repeat_interleave(group, dim=1) for values in (scales, zeros)]
    codes = (torch.round(linear.weight.data / spread[0]) + spread[1]).clamp(0, 15)
    linear.weight.data = (codes - spread[1]) * spread[0]
    if form == "gemm":
        scales, zeros = scales.T.contiguous(), zeros.T.contiguous()
    packed = find_class(form).from_linear(linear, 4, group, False, scales, zeros)
    return {name: values.contiguous() for name, values in packed.state_dict().items()}


def main() -> None:
    """Round, pack, measure, save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--calib", type=Path, required=True)
    parser.add_argument("--windows", type=Path, required=True)
    parser.add_argument("--group", type=int, default=128, help="inputs that share a scale")
    parser.add_argument("--fixture", nargs=2, metavar=("FILE", "LINEAR"))
    given = parser.parse_args()
    from transformers import AutoModelForCausalLM

    form = VARIANTS[given.variant]
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32).eval()
    tensors, expected = {}, {}
    for name, module in model.model.layers.named_modules(prefix="model.layers"):
        if isinstance(module, nn.Linear):
            for part, values in pack(module, form, given.group).items():
                tensors[f"{name}.{part}"] = values
            expected[name] = module.weight.data
    for name, values in model.state_dict().items():
        tied = name == "lm_head.weight" and model.config.tie_word_embeddings
        if name.removesuffix(".weight") not in expected and not tied:
            tensors[name] = values.half().contiguous()
    config = {"quant_method": "awq", "version": form, "bits": 4, "group_size": given.group}
    config |= {"zero_point": True, "modules_to_not_convert": None}
    model.config.quantization_config = config
    given.out.mkdir(parents=True)
    model.config.save_pretrained(given.out)
    save_file(tensors, given.out / "model.safetensors", {"format": "pt"})
    maker = "autoawq 0.2.9"
    if given.fixture:
        file, linear = given.fixture
        stored = {n: v for n, v in tensors.items() if n.startswith(f"{linear}.")}
        found = {f"stored.{n.removeprefix(f'{linear}.')}": v for n, v in stored.items()}
        about = {"maker": maker, "method": "awq", "config": json.dumps(config), "name": linear}
        # What gemv_fast adds to code · scale is rounded to float16.
        about["tolerance"] = "1e-3" if form == "gemv_fast" else "1e-6"
        save_file(found | {"expected": expected[linear]}, file, about)
    said = {"maker": maker, "variant": given.variant, "format": form, "how": "in memory, rounded"}
    print(json.dumps(said | {"nll": measure(model, read_tokens(given.windows))}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print("\n".join(VARIANTS))
    else:
        main()
