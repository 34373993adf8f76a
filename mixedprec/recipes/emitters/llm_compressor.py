"""llm-compressor: a recipe in YAML for `oneshot(model, recipe=FILE, dataset=…)`.

The AWQ modifier only rescales weights, and a QuantizationModifier after it says what is quantized
(an older AWQModifier did both), so both are written. Widths are compressed-tensors config groups,
whose targets are regular expressions (`re:`) that `re.match` reads; the `Linear` catch-all is never
used. Fused names are listed because vLLM and SGLang look those up in the checkpoint's config.
16-bit units are in `ignore`; the head is in no group, so it stays as it is.

Its AWQ is its own, with another grid than autoawq's and no clipping. Models that its registry of
mappings lacks are taken for llamas, which fails for starcoder2 and gpt_neox: their mappings are
written. Where units stay at 16 bits its duo scaling would divide by zero, and is switched off. It
searches all linears behind one norm at the last one's scheme, so in Cohere's parallel blocks their
groups must be of one size. Checked with llmcompressor 0.14.0.1 on compressed-tensors 0.19.0, from
recipe to checkpoint on tiny models, and with the parser of compressed-tensors 0.17.1.
"""

from collections.abc import Iterable, Mapping

from awqscope.mixedprec.recipes.emitters.emitter import (
    Emitter,
    combine,
    comment,
    describe_scheme,
    describe_source,
    quantized_widths,
)
from awqscope.mixedprec.recipes.emitters.selectors import (
    Selector,
    check_selectors,
    make_patterns,
    split_linear,
)
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.scheme import FP16_BITS, Scheme

# A linear that gives the architecture away -> norm and the linears that its output enters, for
# architectures that llm-compressor's registry lacks and that are not named as llama is.
MAPPINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "mlp.c_fc": {
        "input_layernorm": ("q_proj", "k_proj", "v_proj"),
        "post_attention_layernorm": ("c_fc",),
    },
    "mlp.dense_h_to_4h": {
        "input_layernorm": ("query_key_value",),
        "post_attention_layernorm": ("dense_h_to_4h",),
    },
}


def write(recipe: Recipe, schemes: Mapping[int, Scheme]) -> str:
    """The recipe as llm-compressor's YAML."""
    widths = recipe.linear_widths()
    selectors = make_patterns(widths, fused=True)
    check_selectors(selectors, widths)
    text = comment(
        [
            describe_source(recipe),
            "For llm-compressor: oneshot(model, recipe=THIS_FILE, dataset=..., ...).",
            "It runs AWQ anew, its own way; measure what comes out.",
        ]
    )
    duo_scaling = str(FP16_BITS not in widths.values()).lower()
    text += "default_stage:\n  default_modifiers:\n    AWQModifier:\n"
    text += f"      duo_scaling: {duo_scaling}\n"
    text += _mappings(widths)
    text += "    QuantizationModifier:\n      config_groups:\n"
    for number, (bits, scheme) in enumerate(quantized_widths(recipe, schemes).items()):
        text += f"        # {describe_scheme(scheme)}\n"
        text += f"        group_{number}:\n          targets:\n"
        text += _items(selectors, bits, " " * 12)
        text += "          weights:\n"
        text += f"            num_bits: {bits}\n            type: int\n"
        text += f"            symmetric: {str(scheme.symmetric).lower()}\n"
        if scheme.group_size == -1:
            text += "            strategy: channel\n"
        else:
            text += f"            strategy: group\n            group_size: {scheme.group_size}\n"
    kept = _items(selectors, FP16_BITS, " " * 8)
    return text + (f"      ignore:\n{kept}" if kept else "      ignore: []\n")


def _mappings(linears: Iterable[str]) -> str:
    """The AWQ modifier's mappings, where its own registry would fail."""
    tails = {at.tail for name in linears if (at := split_linear(name))}
    known = [mapping for tail, mapping in MAPPINGS.items() if tail in tails]
    text = "      mappings:\n" if known else ""
    for norm, balanced in [entry for mapping in known for entry in mapping.items()]:
        names = ", ".join(rf"'re:.*\.{name}$'" for name in balanced)
        text += f"        - smooth_layer: 're:.*\\.{norm}$'\n          balance_layers: [{names}]\n"
    return text


def _items(selectors: list[Selector], bits: int, indent: str) -> str:
    """The targets of one width as YAML list items; single quotes keep backslashes as they are."""
    patterns = [s.pattern.replace("'", "''") for s in selectors if s.bits == bits]
    return "".join(f"{indent}- 're:{pattern}'\n" for pattern in patterns)


EMITTER = Emitter(
    name="llm-compressor",
    purpose="a recipe that llm-compressor's oneshot runs: AWQ, then a config group a width",
    suffix=".yaml",
    write=write,
    holds=combine((4, 8)),
    fused_by=("vLLM", "SGLang"),
)
