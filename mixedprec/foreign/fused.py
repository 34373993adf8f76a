"""Checkpoints whose linears a server or autoawq has fused: q, k and v are rows of one weight, gate
and up of another. They are read as the linears that the reference has.

vLLM and SGLang save a model as they hold it (`save_sharded_state`); autoawq's `fuse_layers` fuses
in memory, and what `save_quantized` writes after it has the names of autoawq's own modules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from awqscope.mixedprec.checkpoints.matching import Layer, list_fused, served_layers
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.header import FLOATS
from awqscope.mixedprec.models.catalogue import Stored
from awqscope.mixedprec.models.source import SourceModel

# Names of autoawq 0.2.9 (`LlamaLikeModel`, `LlamaLikeBlock`), which fuses q, k and v.
AUTOAWQ = {
    "model.embedding.": "model.embed_tokens.",
    "model.blocks.": "model.layers.",
    ".norm_1.": ".input_layernorm.",
    ".norm_2.": ".post_attention_layernorm.",
    ".attn.": ".self_attn.",
}
AUTOAWQ_FUSED = ".attn.qkv_proj."
# What servers keep besides weights: rotations, and scales of a cache.
BESIDES = (".attn.rope.freqs_cis", *(f".attn._{name}_scale" for name in ("q", "k", "v", "prob")))
# vLLM's names of stacked experts.
STACKED = (".experts.w13_", ".experts.w2_")

# The remedy where a packed weight of a fused checkpoint has not the shape that it was written with.
REPACKED = "a server repacks weights for its kernels: compare the checkpoint that it loaded"


@dataclass(frozen=True)
class Piece:
    """A linear that is rows of a fused one. whole: full name of that; begin, end: its rows, of
    `rows` in all."""

    whole: str
    begin: int
    end: int
    rows: int

    def share(self, size: int) -> int:
        """Its share of so many bytes; those of all pieces add up to them."""
        return size * self.end // self.rows - size * self.begin // self.rows


@dataclass(frozen=True)
class Unfused:
    """A checkpoint's tensors by the names of its reference. tensors: with the rows of fused weights
    and biases in floating point as tensors of their own. wholes: full name of a fused linear that
    is packed -> a linear of its shape, without weights. pieces: full name of a linear that is rows
    of one of these. fused: full names of all fused linears."""

    tensors: Mapping[str, Stored]
    wholes: Mapping[str, nn.Module]
    pieces: Mapping[str, Piece]
    fused: tuple[str, ...] = ()

    def parts(self, whole: str) -> tuple[str, ...]:
        """The linears that are fused in a packed one, by full names."""
        return tuple(name for name, piece in self.pieces.items() if piece.whole == whole)


def unfuse(tensors: Mapping[str, Stored], reference: SourceModel) -> Unfused:
    """Find the linears of `reference` in a checkpoint where they may be fused. InputError for one
    whose rows are not theirs, and for experts that are stacked as vLLM does."""
    found = _rename_autoawq(tensors)
    found = {name: stored for name, stored in found.items() if not name.endswith(BESIDES)}
    stacked = next((name for name in found if any(mark in name for mark in STACKED)), None)
    if stacked is not None:
        raise InputError(
            f"the candidate's tensor {stacked} holds experts as a server has stacked them, in an "
            "order that depends on its kernels",
            "compare the checkpoint that the server loaded",
        )
    wholes: dict[str, nn.Module] = {}
    pieces: dict[str, Piece] = {}
    layers = list_fused(served_layers(reference.family, reference.blocks), found)
    for layer in layers:
        sizes = {p: reference.shell.get_parameter(f"{p}.weight").shape for p in layer.parts}
        rows = sum(size[0] for size in sizes.values())
        cut, begin = {}, 0
        for part, size in sizes.items():
            cut[part] = Piece(layer.name, begin, begin + size[0], rows)
            begin += size[0]
        found = _cut_plain(layer, cut, found)
        if any(name.startswith(f"{layer.name}.") for name in found):
            pieces |= cut
            columns = next(iter(sizes.values()))[1]
            wholes[layer.name] = nn.Linear(columns, rows, bias=False, device="meta")
    return Unfused(found, wholes, pieces, tuple(layer.name for layer in layers))


def _rename_autoawq(tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """The tensors of what autoawq has fused by transformers' names; others as they are."""
    if not any(AUTOAWQ_FUSED in name and name.startswith("model.blocks.") for name in tensors):
        return dict(tensors)
    renamed = {}
    for name, stored in tensors.items():
        if name.endswith(BESIDES):
            continue
        for theirs, ours in AUTOAWQ.items():
            name = name.replace(theirs, ours)
        renamed[name] = stored
    return renamed


def _cut_plain(
    layer: Layer, pieces: Mapping[str, Piece], tensors: Mapping[str, Stored]
) -> dict[str, Stored]:
    """The tensors with weight and bias of a fused layer cut into those of its parts, where they are
    in floating point."""
    found = dict(tensors)
    for suffix in ("weight", "bias"):
        stored = found.get(f"{layer.name}.{suffix}")
        if stored is None or stored.dtype not in FLOATS:
            continue
        del found[f"{layer.name}.{suffix}"]
        rows = next(iter(pieces.values())).rows
        if not stored.shape or stored.shape[0] != rows:
            raise InputError(
                f"the candidate's tensor {layer.name}.{suffix} has shape {list(stored.shape)}, "
                f"where the {len(pieces)} linears of the reference that it fuses have {rows} rows",
                "compare what a server saved of one device, with the config.json beside it",
            )
        row = stored.size // rows
        for part, piece in pieces.items():
            found[f"{part}.{suffix}"] = replace(
                stored,
                shape=(piece.end - piece.begin, *stored.shape[1:]),
                begin=stored.begin + row * piece.begin,
                size=row * (piece.end - piece.begin),
            )
    return found
