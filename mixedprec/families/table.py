"""Model families as tables of data: where the blocks are, which linears a server fuses, and how AWQ
scales them where autoawq's registry does not say, or says it of other modules than transformers 5
has.

Scales go into what comes before a linear. A norm with a weight takes them; so does a linear, where
nothing but products and sums of single channels is in between. Left out are therefore the inputs of
linears after an activation function, of blocks that norm their outputs and not their inputs (OLMo 2
and 3, EXAONE 4), and of an output projection whose value rows are not the last ones of a fused
projection, or are fewer (grouped heads).
"""

from dataclasses import replace

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.family import (
    EXPERTS,
    ExpertLayout,
    Family,
    Refusal,
    ScaleGroup,
    ScaleVariant,
    Unit,
    UnitKind,
    fit_family,
    list_units,
)
from awqscope.mixedprec.families.refused import REFUSED

__all__ = [
    "EXPERTS",
    "FAMILIES",
    "Family",
    "ScaleGroup",
    "Unit",
    "UnitKind",
    "find_family",
    "fit_family",
    "list_units",
]


def _lone(name: str, linear: str) -> UnitKind:
    return UnitKind(name, (linear,), linear)


Q, K, V = "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"
O_LINEAR, GATE, UP = "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj"

QKV = UnitKind("qkv", (Q, K, V), "self_attn.qkv_proj")
O_PROJ = _lone("o", O_LINEAR)
GATE_UP = UnitKind("gate_up", (GATE, UP), "mlp.gate_up_proj")
GATE_UP_FUSED = _lone("gate_up", "mlp.gate_up_proj")
DOWN = _lone("down", "mlp.down_proj")
# All linears of the experts of a block; as many as the model has, see `fit_family`.
ALL_EXPERTS = UnitKind(EXPERTS, (), "mlp.experts", symmetric=True, site="mlp")

QKV_SCALES = ScaleGroup("input_layernorm", (Q, K, V), "self_attn", mixes_tokens=True)
O_SCALES = ScaleGroup(V, (O_LINEAR,))
DOWN_SCALES = ScaleGroup(UP, ("mlp.down_proj",))


def _gate_up_scales(norm: str) -> ScaleGroup:
    return ScaleGroup(norm, (GATE, UP), "mlp")


GATE_UP_SCALES = _gate_up_scales("post_attention_layernorm")
PRE_NORM = (QKV_SCALES, O_SCALES, GATE_UP_SCALES, DOWN_SCALES)
POST_NORM = (O_SCALES, DOWN_SCALES)

LLAMA_PATHS = ("model.layers", "model.embed_tokens", "model.norm")
LLAMA_UNITS = (QKV, O_PROJ, GATE_UP, DOWN)
LLAMA_LIKE = Family(*LLAMA_PATHS, LLAMA_UNITS)
STABLELM = Family(
    *LLAMA_PATHS,
    LLAMA_UNITS,
    refusals=(
        Refusal(
            lambda config: getattr(config, "use_parallel_residual", False),
            "is a StableLM with parallel residuals, which autoawq would scale wrongly",
            "use a model whose blocks have two norms",
        ),
    ),
)
# Llama's names and norms, which autoawq's registry lacks under theirs.
NEWER_LLAMA_LIKE = Family(*LLAMA_PATHS, LLAMA_UNITS, PRE_NORM)
GEMMA3 = Family(
    *LLAMA_PATHS,
    LLAMA_UNITS,
    (QKV_SCALES, O_SCALES, _gate_up_scales("pre_feedforward_layernorm"), DOWN_SCALES),
)
# The norms before OLMo's first linears have no weights; clamped values do not take scales.
OLMO = Family(
    *LLAMA_PATHS,
    LLAMA_UNITS,
    POST_NORM,
    refusals=(
        Refusal(
            lambda config: config.clip_qkv is not None,
            "clamps its queries, keys and values (clip_qkv), which AWQ's scales would change",
            "use a model without clip_qkv",
        ),
    ),
)
NORMED_AFTER = Family(*LLAMA_PATHS, LLAMA_UNITS, POST_NORM)
# Attention and MLP of a Cohere block read one norm.
COHERE2 = Family(
    *LLAMA_PATHS,
    LLAMA_UNITS,
    (
        ScaleGroup("input_layernorm", (Q, K, V, GATE, UP), "", mixes_tokens=True),
        O_SCALES,
        DOWN_SCALES,
    ),
)
PHI3 = Family(*LLAMA_PATHS, (_lone("qkv", "self_attn.qkv_proj"), O_PROJ, GATE_UP_FUSED, DOWN))
GLM4 = Family(
    *LLAMA_PATHS,
    (QKV, O_PROJ, GATE_UP_FUSED, DOWN),
    (
        QKV_SCALES,
        O_SCALES,
        ScaleGroup("post_attention_layernorm", ("mlp.gate_up_proj",)),
        ScaleGroup("mlp.gate_up_proj", ("mlp.down_proj",)),
    ),
)
MINICPM3 = Family(
    *LLAMA_PATHS,
    (
        _lone("q_a", "self_attn.q_a_proj"),
        _lone("q_b", "self_attn.q_b_proj"),
        _lone("kv_a", "self_attn.kv_a_proj_with_mqa"),
        _lone("kv_b", "self_attn.kv_b_proj"),
        O_PROJ,
        GATE_UP,
        DOWN,
    ),
)
STARCODER2 = Family(
    *LLAMA_PATHS, (QKV, O_PROJ, _lone("up", "mlp.c_fc"), _lone("down", "mlp.c_proj"))
)
GPT_NEOX = Family(
    "gpt_neox.layers",
    "gpt_neox.embed_in",
    "gpt_neox.final_layer_norm",
    (
        _lone("qkv", "attention.query_key_value"),
        _lone("o", "attention.dense"),
        _lone("up", "mlp.dense_h_to_4h"),
        _lone("down", "mlp.dense_4h_to_h"),
    ),
)
OPT = Family(
    "model.decoder.layers",
    "model.decoder.embed_tokens",
    "model.decoder.final_layer_norm",
    (
        QKV,
        _lone("o", "self_attn.out_proj"),
        _lone("up", "fc1"),
        _lone("down", "fc2"),
    ),
    activations=(("fc1", "activation_fn"),),
    refusals=(
        Refusal(
            lambda config: not config.do_layer_norm_before or config._remove_final_layer_norm,
            "is an OPT that norms after its linears (do_layer_norm_before), as OPT-350m does",
            "use another size of OPT",
        ),
        Refusal(
            lambda config: config.word_embed_proj_dim != config.hidden_size,
            "projects its embeddings (word_embed_proj_dim)",
            "use another size of OPT",
        ),
    ),
)
OF_BLOOM = (
    _lone("qkv", "self_attention.query_key_value"),
    _lone("o", "self_attention.dense"),
    _lone("up", "mlp.dense_h_to_4h"),
    _lone("down", "mlp.dense_4h_to_h"),
)
BLOOM = Family(
    "transformer.h",
    "transformer.word_embeddings",
    "transformer.ln_f",
    OF_BLOOM,
    returns_tuple=True,
    refusals=(
        Refusal(
            lambda config: config.apply_residual_connection_post_layernorm,
            "adds what comes out of its norms (apply_residual_connection_post_layernorm)",
            "use a BLOOM without it",
        ),
    ),
)
FALCON_QKV, FALCON_UP = "self_attention.query_key_value", "mlp.dense_h_to_4h"
# transformers initialises weights of Falcon and GPTBigCode that packed linears do not have.
# Falcon 40B's blocks; those of 7B and 11B have one norm, those of RW one after the other.
FALCON = Family(
    "transformer.h",
    "transformer.word_embeddings",
    "transformer.ln_f",
    OF_BLOOM,
    (
        ScaleGroup("ln_attn", (FALCON_QKV,), "", mixes_tokens=True),
        ScaleGroup("ln_mlp", (FALCON_UP,), "", mixes_tokens=True),
    ),
    returns_tuple=True,
    loads_packed=False,
    variants=(
        ScaleVariant(
            lambda config: not config.parallel_attn,
            (
                ScaleGroup("input_layernorm", (FALCON_QKV,), "self_attention", mixes_tokens=True),
                ScaleGroup("post_attention_layernorm", (FALCON_UP,)),
            ),
        ),
        ScaleVariant(
            lambda config: (
                not config.new_decoder_architecture or config.num_ln_in_parallel_attn == 1
            ),
            (ScaleGroup("input_layernorm", (FALCON_UP, FALCON_QKV), "", mixes_tokens=True),),
        ),
    ),
)
MPT = Family(
    "transformer.blocks",
    "transformer.wte",
    "transformer.norm_f",
    (
        _lone("qkv", "attn.Wqkv"),
        _lone("o", "attn.out_proj"),
        _lone("up", "ffn.up_proj"),
        _lone("down", "ffn.down_proj"),
    ),
    (
        ScaleGroup("norm_1", ("attn.Wqkv",), "attn", mixes_tokens=True),
        ScaleGroup("attn.Wqkv", ("attn.out_proj",)),
        ScaleGroup("norm_2", ("ffn.up_proj",)),
    ),
    returns_tuple=True,
    refusals=(
        Refusal(
            lambda config: config.attn_config.clip_qkv,
            "clamps its queries, keys and values (clip_qkv), which AWQ's scales would change",
            "use an MPT without clip_qkv",
        ),
    ),
)
GPTJ = Family(
    "transformer.h",
    "transformer.wte",
    "transformer.ln_f",
    (
        UnitKind("qkv", ("attn.q_proj", "attn.k_proj", "attn.v_proj"), "attn.qkv_proj"),
        _lone("o", "attn.out_proj"),
        _lone("up", "mlp.fc_in"),
        _lone("down", "mlp.fc_out"),
    ),
    returns_tuple=True,
)
GPT_BIGCODE = Family(
    "transformer.h",
    "transformer.wte",
    "transformer.ln_f",
    (
        _lone("qkv", "attn.c_attn"),
        _lone("o", "attn.c_proj"),
        _lone("up", "mlp.c_fc"),
        _lone("down", "mlp.c_proj"),
    ),
    loads_packed=False,
)

MIXTURE_UNITS = (QKV, O_PROJ, ALL_EXPERTS)
MIXTURE_SCALES = (QKV_SCALES, O_SCALES)
MIXTRAL = Family(
    *LLAMA_PATHS,
    MIXTURE_UNITS,
    MIXTURE_SCALES,
    experts=ExpertLayout(
        module="block_sparse_moe",
        count="num_local_experts",
        attribute="mlp",
        gate="w1",
        up="w3",
        down="w2",
        aliases=("gate_proj", "up_proj", "down_proj"),
    ),
)
QWEN3_MOE = Family(
    *LLAMA_PATHS,
    MIXTURE_UNITS,
    MIXTURE_SCALES,
    experts=ExpertLayout(module="mlp", count="num_experts", attribute="mlp"),
)

OLMOE = replace(QWEN3_MOE, refusals=OLMO.refusals)

FAMILIES = {
    "bloom": BLOOM,
    "cohere": LLAMA_LIKE,
    "cohere2": COHERE2,
    "exaone4": NORMED_AFTER,
    "falcon": FALCON,
    "gemma": LLAMA_LIKE,
    "gemma2": LLAMA_LIKE,
    "gemma3_text": GEMMA3,
    "glm4": GLM4,
    "gpt_bigcode": GPT_BIGCODE,
    "gpt_neox": GPT_NEOX,
    "gptj": GPTJ,
    "granite": NEWER_LLAMA_LIKE,
    "llama": LLAMA_LIKE,
    "minicpm3": MINICPM3,
    "mistral": LLAMA_LIKE,
    "mixtral": MIXTRAL,
    "mpt": MPT,
    "olmo": OLMO,
    "olmo2": NORMED_AFTER,
    "olmo3": NORMED_AFTER,
    "olmoe": OLMOE,
    "opt": OPT,
    "phi3": PHI3,
    "qwen2": LLAMA_LIKE,
    "qwen3": LLAMA_LIKE,
    "qwen3_moe": QWEN3_MOE,
    "seed_oss": NEWER_LLAMA_LIKE,
    "smollm3": NEWER_LLAMA_LIKE,
    "stablelm": STABLELM,
    "starcoder2": STARCODER2,
}


def find_family(model_type: str) -> Family:
    """The family of a config's `model_type`; InputError names the supported ones, or says why not.

    What depends on more of the config is fitted by `fit_family`.
    """
    if model_type in REFUSED:
        what, remedy = REFUSED[model_type]
        raise InputError(f"a model of type {model_type} {what}", remedy)
    if model_type not in FAMILIES:
        raise InputError(
            f"the architecture {model_type!r} is not supported",
            f"use one of {', '.join(sorted(FAMILIES))}",
        )
    return FAMILIES[model_type]
