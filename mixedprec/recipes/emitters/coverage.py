"""Which model families the tools take, as their releases were seen to behave, and which linears of
a family read one input, where some tools want more of a recipe.

A family that is not in a tool's GAPS is taken. `make test-targets` tries both on tiny models; of
GPTQModel and llama.cpp it tries settings and tensor names only. No tool is given mixtures of
experts: each names experts in its own way.
"""

from collections.abc import Iterable

from awqscope.mixedprec.families.table import FAMILIES
from awqscope.mixedprec.recipes.emitters.selectors import split_linear

# Target -> the Python package and the release that was tried; llama.cpp's is that of its names.
RELEASES = {
    "llm-compressor": ("llmcompressor", "0.14.0.1"),
    "gptqmodel": ("gptqmodel", "7.7.0"),
    "autoround": ("auto-round", "0.16.1"),
    "modelopt": ("nvidia-modelopt", "0.47.0"),
    "mlx-lm": ("mlx-lm", "0.32.2"),
    "llama.cpp": ("gguf", "0.19.0"),
}

_NO_MLX_MODEL = "it has no such model"
_NO_CONVERTER = "its convert_hf_to_gguf.py does not read them"
# Target -> family that it does not take -> why. What llama.cpp converts is listed in its
# conversion/__init__.py (TEXT_MODEL_MAP).
GAPS: dict[str, dict[str, str]] = {
    "llm-compressor": {
        "falcon": "its AWQ has no mapping for them, and their norms differ from size to size",
    },
    "autoround": {"falcon": "it passes over their linears, which are of a class of their own"},
    "modelopt": {
        "bloom": "its quantize fails on their attention",
        "olmo": "its export wants weights in their norms, which have none",
    },
    "mlx-lm": {
        "bloom": _NO_MLX_MODEL,
        "falcon": _NO_MLX_MODEL,
        "mpt": _NO_MLX_MODEL,
        "olmo": "it reads them in the older form of ai2-olmo only",
        "opt": _NO_MLX_MODEL,
    },
    "llama.cpp": {"gptj": _NO_CONVERTER, "opt": _NO_CONVERTER},
}

# Family -> kinds of its units that read one norm's output, or the block's input, together. Falcons
# of one norm are not here: that depends on their size.
SHARED_INPUTS = {
    "cohere": ("qkv", "gate_up"),
    "cohere2": ("qkv", "gate_up"),
    "gptj": ("qkv", "up"),
    "minicpm3": ("q_a", "kv_a"),
}


def find_gap(target: str, family: str | None) -> str | None:
    """Why `target` takes no models of `family`; None where it does, or where it is not known."""
    return GAPS.get(target, {}).get(family or "")


def find_shared(family: str | None) -> tuple[str, ...]:
    """Names inside a block of linears from several units that read one input; mostly none."""
    if family not in SHARED_INPUTS:
        return ()
    kinds = SHARED_INPUTS[family]
    units = FAMILIES[family].units
    return tuple(linear for kind in units if kind.name in kinds for linear in kind.linears)


def guess_family(linears: Iterable[str]) -> str | None:
    """The only family whose blocks and linears are named as these are; None where there are none,
    or several, as for llama's names."""
    split = [split_linear(name) for name in linears]
    found = {(at.blocks, at.tail) for at in split if at}
    named = [
        name
        for name, family in FAMILIES.items()
        if found <= {(family.blocks, linear) for kind in family.units for linear in kind.linears}
    ]
    return named[0] if len(named) == 1 and found and None not in split else None
