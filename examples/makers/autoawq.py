"""autoawq 0.2.9: its words in every version that it packs, on the CPU.

`python -P autoawq.py VARIANT MODEL OUT --calib FILE --windows FILE [--fixture FILE LINEAR]`; the
last line that it prints is JSON. --fixture: also one linear as it stands on disk, beside what it
was written from.

The search for scales and `save_quantized` ask for a transformers that is years old. Rounding and
packing do not: every linear of a block is rounded to nearest by autoawq's own quantizer and packed
by its own classes, and config.json says what its `AwqConfig` does. Calibration has no part in it.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

sys.path.append(str(Path(__file__).with_name("shared")))
from making import measure, parse_arguments, read_tokens, say, write_fixture

MAKER = "autoawq 0.2.9"
# By version; llm-awq has gemv_fast's words, and autoawq cannot write them.
VARIANTS: Mapping[str, str] = {"gemm": "gemm", "gemv": "gemv", "gemv-fast": "gemv_fast"}


def find_class(form: str) -> Any:
    """The class that packs words of a version."""
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.modules.linear.gemv import WQLinear_GEMV
    from awq.modules.linear.gemv_fast import WQLinear_GEMVFast

    return {"gemm": WQLinear_GEMM, "gemv": WQLinear_GEMV, "gemv_fast": WQLinear_GEMVFast}[form]


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
    given = parse_arguments(VARIANTS, group=128)
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
    if given.fixture:
        file, linear = given.fixture
        # What gemv_fast adds to code · scale is rounded to float16.
        about = {"method": "awq", "tolerance": "1e-3" if form == "gemv_fast" else "1e-6"}
        write_fixture(file, given.out, linear, expected[linear], maker=MAKER, **about)
    nll = measure(model, read_tokens(given.windows))
    say(given, MAKER, form, nll=nll, how="in memory, rounded")


if __name__ == "__main__":
    main()
