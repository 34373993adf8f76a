"""Config groups drawn at random, for asking servers and us the same."""

from typing import Any

from hypothesis import strategies as st

from awqscope.mixedprec.checkpoints.matching import Layer, served_layers
from awqscope.mixedprec.families.table import LLAMA_LIKE

LAYERS = served_layers(LLAMA_LIKE, 2)
NAMES = [name for layer in LAYERS for name in dict.fromkeys((*layer.parts, layer.name))]
PATTERNS = [
    "re:.*",
    r"re:.*\.layers\.0\..*",
    r"re:.*v_proj",
    r"re:.*up_proj",
    r"re:.*\.1\.mlp\.(gate|up)_proj$",
    r"re:.*self_attn\.(q|k|v|qkv)_proj$",
    r"re:model\.layers\.1\.self_attn\.[qk]_proj",
    r"re:layers",
    r"re:.*[0-9]\.mlp\.gate_up_proj$",
    r"re:^lm_head",
    r"re:Merged.*",
]
CLASSES = ["Linear", "QKVParallelLinear", "RowParallel", "proj"]


@st.composite
def quantizations(draw: st.DrawFn) -> dict[str, Any]:
    """A `quantization_config` of up to three groups, each of another width."""
    target = st.one_of(st.sampled_from(NAMES), st.sampled_from(PATTERNS), st.sampled_from(CLASSES))
    groups = {}
    for number, bits in enumerate(draw(st.permutations([4, 8, 3]))[: draw(st.integers(1, 3))]):
        weights = {
            "num_bits": bits,
            "type": "int",
            "symmetric": draw(st.booleans()),
            "strategy": "group",
            "group_size": draw(st.sampled_from([32, 64, 128])),
        }
        targets = draw(st.lists(target, min_size=1, max_size=4))
        groups[f"group_{number}"] = {"targets": targets, "weights": weights}
    ignore = draw(st.lists(st.sampled_from([*NAMES, *PATTERNS[1:]]), max_size=3))
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": ignore,
    }


def layer_named(name: str) -> Layer:
    return next(layer for layer in LAYERS if layer.name == name)
