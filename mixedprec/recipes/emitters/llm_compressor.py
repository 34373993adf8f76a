"""llm-compressor: a recipe in YAML for `oneshot(model, recipe=FILE, dataset=…)`.

The AWQ modifier only rescales weights, and a QuantizationModifier after it says what is quantized
(an older AWQModifier did both), so both are written. Widths are compressed-tensors config groups,
whose targets are regular expressions (`re:`) that `re.match` reads; the `Linear` catch-all is never
used. Fused names are listed because vLLM and SGLang look those up in the checkpoint's config.
16-bit units are in `ignore`; the head is in no group, so it stays as it is.

Its AWQ is its own, with another grid than autoawq's and no clipping. Models that its registry of
mappings lacks are taken for llamas, which fails where norms or linears are named otherwise: the
mappings of those families are written. Where units stay at 16 bits its duo scaling would divide by
zero, and is switched off. It searches all linears behind one norm at the last one's scheme, so
where several units are, as in Cohere's parallel blocks, their groups must be of one size. Its basic
pipeline judges scales by outputs that were quantized with numbers never set; its default runs AWQ
in the sequential one. Checked with llmcompressor 0.14.0.1 on compressed-tensors 0.19.0, from recipe
to checkpoint on tiny models, and with the parser of compressed-tensors 0.17.1.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from awqscope.mixedprec.recipes.emitters.emitter import (
    Emitter,
    combine,
    describe_scheme,
    describe_source,
    quantized_widths,
    to_yaml,
)
from awqscope.mixedprec.recipes.emitters.selectors import (
    Selector,
    check_selectors,
    make_patterns,
)
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.scheme import FP16_BITS, Scheme, Width

_QKV = ("q_proj", "k_proj", "v_proj")
# Family -> what takes the inverse scales (the end of its name, a regular expression) -> the linears
# that its output enters: of families that llm-compressor's registry lacks and that are not as llama
# is, and of BLOOM, of which it would scale the activation function. OLMo 2's blocks norm their
# outputs, so only linears are scaled into linears there.
MAPPINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "bloom": {
        "input_layernorm": ("query_key_value",),
        "post_attention_layernorm": ("dense_h_to_4h",),
    },
    "glm4": {
        "input_layernorm": _QKV,
        "v_proj": ("o_proj",),
        "post_attention_layernorm": ("gate_up_proj",),
        "gate_up_proj": ("down_proj",),
    },
    "gpt_bigcode": {"ln_1": ("c_attn",), "ln_2": ("c_fc",)},
    "gpt_neox": {
        "input_layernorm": ("query_key_value",),
        "post_attention_layernorm": ("dense_h_to_4h",),
    },
    "gptj": {"ln_1": (*_QKV, "fc_in"), "v_proj": ("out_proj",)},
    "minicpm3": {
        "input_layernorm": ("q_a_proj", "kv_a_proj_with_mqa"),
        "q_a_layernorm": ("q_b_proj",),
        "kv_a_layernorm": ("kv_b_proj",),
        "post_attention_layernorm": ("gate_proj", "up_proj"),
        "up_proj": ("down_proj",),
    },
    "mpt": {"norm_1": ("Wqkv",), "Wqkv": ("out_proj",), "norm_2": ("up_proj",)},
    "olmo2": {"v_proj": ("o_proj",), "up_proj": ("down_proj",)},
    "opt": {
        "self_attn_layer_norm": _QKV,
        "v_proj": ("out_proj",),
        # The model's last norm has this name too, and stands in no block.
        r"[0-9]+\.final_layer_norm": ("fc1",),
    },
    "starcoder2": {
        "input_layernorm": _QKV,
        "post_attention_layernorm": ("c_fc",),
    },
}


def write(recipe: Recipe, schemes: Mapping[Width, Scheme], family: str | None) -> str:
    """The recipe as llm-compressor's YAML."""
    widths = recipe.linear_widths()
    selectors = make_patterns(widths, fused=True)
    check_selectors(selectors, widths)
    used = quantized_widths(recipe, schemes)
    scaling: dict[str, Any] = {"duo_scaling": FP16_BITS not in widths.values()}
    if mappings := _list_mappings(family):
        scaling["mappings"] = mappings
    groups = {
        f"group_{number}": {
            "targets": _list_targets(selectors, width),
            "weights": _describe_weights(scheme),
        }
        for number, (width, scheme) in enumerate(used.items())
    }
    quantization = {"config_groups": groups, "ignore": _list_targets(selectors, FP16_BITS)}
    modifiers = {"AWQModifier": scaling, "QuantizationModifier": quantization}
    comments = [
        describe_source(recipe),
        "For llm-compressor: oneshot(model, recipe=THIS_FILE, dataset=..., ...).",
        "It runs AWQ anew, its own way; measure what comes out.",
        *(f"group_{n}: {describe_scheme(scheme)}" for n, scheme in enumerate(used.values())),
    ]
    return to_yaml({"default_stage": {"default_modifiers": modifiers}}, comments)


def _describe_weights(scheme: Scheme) -> dict[str, Any]:
    """A scheme as compressed-tensors' arguments."""
    weights = {"num_bits": scheme.bits, "type": "int", "symmetric": scheme.symmetric}
    if scheme.group_size == -1:
        return {**weights, "strategy": "channel"}
    return {**weights, "strategy": "group", "group_size": scheme.group_size}


def _list_mappings(family: str | None) -> list[dict[str, Any]]:
    """The AWQ modifier's mappings, where its own registry would fail."""
    return [
        {
            "smooth_layer": rf"re:.*\.{norm}$",
            "balance_layers": [rf"re:.*\.{name}$" for name in balanced],
        }
        for norm, balanced in MAPPINGS.get(family or "", {}).items()
    ]


def _list_targets(selectors: Iterable[Selector], width: Width) -> list[str]:
    """The targets of one width."""
    return [f"re:{selector.pattern}" for selector in selectors if selector.width == width]


EMITTER = Emitter(
    name="llm-compressor",
    purpose="a recipe that llm-compressor's oneshot runs: AWQ, then a config group a width",
    suffix=".yaml",
    write=write,
    holds=combine((4, 8)),
    fused_by=("vLLM", "SGLang"),
    alike="group size",
)
