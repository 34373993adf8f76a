"""Model families as tables of data: where the blocks are, and which linears a server fuses.

How AWQ scales a family comes from autoawq's own registry (`autoawq.py`); what is here is what that
registry does not say.
"""

from dataclasses import dataclass

from mixedprec.errors import InputError


@dataclass(frozen=True)
class UnitKind:
    """A unit of every block. `linears`: module names inside a block, in the order a server
    concatenates them; `fused`: the name the server gives the result."""

    name: str
    linears: tuple[str, ...]
    fused: str


@dataclass(frozen=True)
class Family:
    """Module paths of a causal language model, and the units of its blocks."""

    blocks: str
    embedding: str
    norm: str
    units: tuple[UnitKind, ...]


QKV = UnitKind(
    "qkv", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn.qkv_proj"
)
QKV_FUSED = UnitKind("qkv", ("self_attn.qkv_proj",), "self_attn.qkv_proj")
O_PROJ = UnitKind("o", ("self_attn.o_proj",), "self_attn.o_proj")
GATE_UP = UnitKind("gate_up", ("mlp.gate_proj", "mlp.up_proj"), "mlp.gate_up_proj")
GATE_UP_FUSED = UnitKind("gate_up", ("mlp.gate_up_proj",), "mlp.gate_up_proj")
DOWN = UnitKind("down", ("mlp.down_proj",), "mlp.down_proj")

LLAMA_LIKE = Family(
    "model.layers", "model.embed_tokens", "model.norm", (QKV, O_PROJ, GATE_UP, DOWN)
)
PHI3 = Family(
    "model.layers", "model.embed_tokens", "model.norm", (QKV_FUSED, O_PROJ, GATE_UP_FUSED, DOWN)
)
STARCODER2 = Family(
    "model.layers",
    "model.embed_tokens",
    "model.norm",
    (
        QKV,
        O_PROJ,
        UnitKind("up", ("mlp.c_fc",), "mlp.c_fc"),
        UnitKind("down", ("mlp.c_proj",), "mlp.c_proj"),
    ),
)
GPT_NEOX = Family(
    "gpt_neox.layers",
    "gpt_neox.embed_in",
    "gpt_neox.final_layer_norm",
    (
        UnitKind("qkv", ("attention.query_key_value",), "attention.query_key_value"),
        UnitKind("o", ("attention.dense",), "attention.dense"),
        UnitKind("up", ("mlp.dense_h_to_4h",), "mlp.dense_h_to_4h"),
        UnitKind("down", ("mlp.dense_4h_to_h",), "mlp.dense_4h_to_h"),
    ),
)

FAMILIES = {
    "llama": LLAMA_LIKE,
    "mistral": LLAMA_LIKE,
    "qwen2": LLAMA_LIKE,
    "qwen3": LLAMA_LIKE,
    "gemma": LLAMA_LIKE,
    "gemma2": LLAMA_LIKE,
    "stablelm": LLAMA_LIKE,
    "cohere": LLAMA_LIKE,
    "phi3": PHI3,
    "starcoder2": STARCODER2,
    "gpt_neox": GPT_NEOX,
}


@dataclass(frozen=True)
class Unit:
    """One unit of one block: the smallest thing that gets one bit-width.

    name: `BLOCK.KIND`, as in recipes and on the command line ("3.qkv").
    linears: module names inside the block.
    """

    block: int
    kind: UnitKind

    @property
    def name(self) -> str:
        return f"{self.block}.{self.kind.name}"

    @property
    def linears(self) -> tuple[str, ...]:
        return self.kind.linears


def find_family(model_type: str) -> Family:
    """The family of a config's `model_type`; InputError names the supported ones."""
    if model_type not in FAMILIES:
        raise InputError(
            f"the architecture {model_type!r} is not supported",
            f"use one of {', '.join(sorted(FAMILIES))}",
        )
    return FAMILIES[model_type]


def list_units(family: Family, blocks: int) -> tuple[Unit, ...]:
    """Every unit of a model with `blocks` blocks, in the order of computation."""
    return tuple(Unit(block, kind) for block in range(blocks) for kind in family.units)
