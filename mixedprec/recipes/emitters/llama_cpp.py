"""llama.cpp: a shell script that runs llama-quantize with a `--tensor-type` for every tensor.

`sh FILE MODEL-F16.gguf OUT.gguf` quantizes a model that convert_hf_to_gguf.py made. llama-quantize
lower-cases the pattern before the first `=`, searches tensor names for it as an ECMAScript regular
expression, and takes the first that is found. Overrides count only where the type that closes the
command is a quantized one. A `--tensor-type-file` would be shorter but can hold no comments.

Names are GGUF's (`blk.3.attn_q.weight`). 4 bits are q4_K, 8 are q8_0, 16 are f16: other formats
than AWQ's, with groups of their own (q4_K: 32 weights in blocks of 256, with offsets; q8_0: 32
weights, without). A tensor whose rows are not a multiple of 256 gets a wider type, which
llama-quantize says.
Nothing in llama.cpp needs q/k/v or gate/up at one width. Checked with the tensor names of gguf
0.19.0 and the llama-quantize of the llama.cpp in llama-cpp-python 0.3.36.
"""

import shlex
from collections.abc import Mapping
from dataclasses import replace

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.emitters.emitter import (
    Emitter,
    combine,
    comment,
    describe_source,
    quantized_widths,
)
from awqscope.mixedprec.recipes.emitters.selectors import (
    check_selectors,
    make_patterns,
    rename,
    split_linear,
)
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.scheme import Grouped, Scheme, Width, bits_of

TYPES = {2: "q2_K", 3: "q3_K", 4: "q4_K", 5: "q5_K", 6: "q6_K", 8: "q8_0", 16: "f16"}
# The whole model's type, for a command to close with: it rules no tensor that is named.
MODEL_TYPES = {2: "Q2_K", 3: "Q3_K_S", 4: "Q4_K_S", 5: "Q5_K_S", 6: "Q6_K", 8: "Q8_0"}
LOST_GROUPS = "The recipe's sizes of groups are lost: GGUF's types of a width have one."
BLOCKS = ("model.layers", "gpt_neox.layers", "transformer.h", "transformer.blocks")
TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_b_proj": "attn_kv_b",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output",
    "self_attention.query_key_value": "attn_qkv",
    "self_attention.dense": "attn_output",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "attn.Wqkv": "attn_qkv",
    "attn.out_proj": "attn_output",
    "ffn.up_proj": "ffn_up",
    "ffn.down_proj": "ffn_down",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}


def write(recipe: Recipe, schemes: Mapping[Width, Scheme], family: str | None) -> str:
    """The recipe as a script around llama-quantize."""
    used = quantized_widths(recipe, schemes)
    # GGUF's types have groups of their own.
    widths = rename({n: bits_of(width) for n, width in recipe.linear_widths().items()}, _tensor)
    selectors = [replace(s, rule="search") for s in make_patterns(widths, fused=False)]
    check_selectors(selectors, widths)
    model_type = MODEL_TYPES[min(map(bits_of, used))]
    text = "#!/bin/sh\n" + comment(
        [
            describe_source(recipe),
            "For llama.cpp, with llama-quantize on the PATH: sh THIS_FILE MODEL-F16.gguf OUT.gguf",
            "GGUF's types are other formats than AWQ's, with groups and offsets of their own:",
            "the widths are the recipe's, the damage will differ; measure what comes out.",
            "Rows that are no multiple of 256 weights fall back to a wider type, with a warning.",
            *[LOST_GROUPS] * any(isinstance(width, Grouped) for width in used),
        ]
    )
    text += 'exec "${LLAMA_QUANTIZE:-llama-quantize}" \\\n'
    text += "  --token-embedding-type f16 \\\n  --output-tensor-type f16 \\\n"
    for selector in selectors:
        chosen = f"{selector.pattern}={TYPES[bits_of(selector.width)]}"
        text += f"  --tensor-type {shlex.quote(chosen)} \\\n"
    return text + f'  "$1" "$2" {model_type}\n'


def _tensor(linear: str) -> str:
    at = split_linear(linear)
    if at is None or at.blocks not in BLOCKS or at.tail not in TENSORS:
        raise InputError(
            f"the name of {linear} in GGUF is not known",
            "emit for a tool that reads the model's own names",
        )
    return f"blk.{at.block}.{TENSORS[at.tail]}.weight"


EMITTER = Emitter(
    name="llama.cpp",
    purpose="a script that runs llama-quantize with a --tensor-type for every tensor",
    suffix=".sh",
    write=write,
    holds=combine(MODEL_TYPES),
    fused_by=(),
)
