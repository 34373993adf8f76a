"""NVIDIA ModelOpt: the configuration of `modelopt.torch.quantization.quantize`, in YAML.

`quant_cfg` is a list whose later entries win; names are globs of quantizers. The first entry turns
all off, then every linear's weight quantizer is named in full; 16-bit linears are named too, as
off. Read it as

    mtq.quantize(model, yaml.safe_load(file), forward_loop)

It is YAML because `block_sizes` has integers for keys, which JSON has not.

ModelOpt's integers have no zero points, and it exports 4 bits only in groups (W4A16_AWQ) and 8 bits
only with one scale a row (W8A16; groups quantize, but their export fails), so that is what is
written, and the comments say where the recipe's schemes differ. Its export also insists on one
width for linears that share an input (in Cohere's parallel blocks q/k/v and gate/up together), so
other recipes are refused; of a Falcon, whose linears share one in some sizes, it would refuse them
itself. What it exports at these widths is for TensorRT-LLM; vLLM and SGLang read its FP8 and NVFP4.
Checked with nvidia-modelopt 0.47.0.
"""

from collections.abc import Mapping
from typing import Any

from awqscope.mixedprec.recipes.emitters.emitter import (
    Emitter,
    OneLine,
    combine,
    describe_scheme,
    describe_source,
    quantized_widths,
    to_yaml,
)
from awqscope.mixedprec.recipes.emitters.selectors import Selector, check_selectors
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.scheme import FP16_BITS, GROUP_SIZES, Scheme, Width

QUANTIZER = ".weight_quantizer"
EXPORTED_8 = Scheme(8, -1, True)


def write(recipe: Recipe, schemes: Mapping[Width, Scheme], family: str | None) -> str:
    """The recipe as ModelOpt's quantization configuration."""
    widths = {name + QUANTIZER: width for name, width in recipe.linear_widths().items()}
    check_selectors([Selector(n, "glob", (n,), width) for n, width in widths.items()], widths)
    used = quantized_widths(recipe, schemes)
    entries = [OneLine(quantizer_name="*", enable=False)]
    for name, width in widths.items():
        setting = {"enable": False} if width == FP16_BITS else {"cfg": _attributes(used[width])}
        entries.append(OneLine(quantizer_name=name, **setting))
    comments = [
        describe_source(recipe),
        "For NVIDIA ModelOpt: mtq.quantize(model, yaml.safe_load(THIS_FILE), forward_loop).",
        "It runs AWQ (awq_lite) anew, its own way; measure what comes out.",
        *_differences(used),
    ]
    algorithm = {"method": "awq_lite", "alpha_step": 0.1}
    return to_yaml({"algorithm": algorithm, "quant_cfg": entries}, comments)


def _attributes(scheme: Scheme) -> dict[str, Any]:
    """A scheme as attributes of a quantizer."""
    if scheme.bits == EXPORTED_8.bits:
        return {"num_bits": 8, "axis": 0}
    return {"num_bits": scheme.bits, "block_sizes": {-1: scheme.group_size, "type": "static"}}


def _differences(used: Mapping[Width, Scheme]) -> list[str]:
    """Lines on every scheme that ModelOpt's format changes."""
    lines = []
    for scheme in used.values():
        groups = EXPORTED_8.group_size if scheme.bits == EXPORTED_8.bits else scheme.group_size
        written = Scheme(scheme.bits, groups, True)
        if written != scheme:
            lines.append(
                f"The recipe's {describe_scheme(scheme)} become {describe_scheme(written)}."
            )
    return lines


EMITTER = Emitter(
    name="modelopt",
    purpose="the configuration of NVIDIA ModelOpt's mtq.quantize (symmetric; 8 bits a row)",
    suffix=".yaml",
    write=write,
    holds=combine((4,), [size for size in GROUP_SIZES if size != -1]) | combine((8,)),
    fused_by=("TensorRT-LLM", "vLLM", "SGLang"),
    alike="width",
)
