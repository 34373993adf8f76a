"""Packed linears as other tools store them: what each format's tensors must be, and the weight that
they stand for. A format is a `Layout`, a row of `LAYOUTS`.

    awq                 autoawq 0.2.9, GEMM: qweight [K, N/8], qzeros [G, N/8], scales [G, N]
    gptq                AutoGPTQ and GPTQModel, 2, 3, 4 and 8 bits: qweight [K·b/32, N], qzeros
                        [G, N·b/32], scales [G, N], g_idx [K], the group of each input. Zero points
                        are stored less one, but in checkpoint_format gptq_v2.
    compressed-tensors  pack-quantized: weight_packed [N, K/(32/b)], weight_scale [N, G],
                        weight_zero_point [N/(32/b), G] unless symmetric, weight_shape [2],
                        weight_g_idx [K] with activation order

N outputs, K inputs, G groups, b bits; words are int32.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.mixedprec.checkpoints.matching import Groups, read_agreed, read_groups
from awqscope.mixedprec.checkpoints.packing import unpack, unpack_gemm, unpack_stream
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.scheme import BITS, read_group_size

Parts = Mapping[str, Tensor]
# At other widths GPTQModel packs by planes.
GPTQ_BITS = (2, 3, 4, 8)
WORDS, INDEX, SCALES = ("I32",), ("I32", "I64"), ("F16", "BF16", "F32")
Shapes = Mapping[str, list[int]]


@dataclass(frozen=True)
class Coding:
    """How one packed linear is coded. shapes: of every tensor it consists of, by suffix.
    plus_one: whether stored zero points are one too small."""

    bits: int
    shapes: Shapes
    plus_one: bool = False


@dataclass(frozen=True)
class Layout:
    """How a quantization method stores a linear.

    probe: the suffix that only packed linears have. optional: suffixes that may be missing. types:
    by suffix, what safetensors may call the type of a tensor.
    read(config): what `describe` wants to know of a quantization_config; InputError for a variant
    that is not read. describe(said, name, linear, found): the coding of a linear by what was read
    and the shapes that were found; InputError where they do not fit. decode(parts, coding): its
    weight, float32 [N, K].
    """

    probe: str
    optional: tuple[str, ...]
    types: Mapping[str, tuple[str, ...]]
    read: Callable[[Mapping[str, Any]], Any]
    describe: Callable[[Any, str, nn.Linear, Shapes], Coding]
    decode: Callable[[Parts, Coding], Tensor]


def _refuse(what: str, remedy: str = "compare a checkpoint of another format") -> None:
    raise InputError(f"the candidate's {what}", remedy)


def _dequantize(codes: Tensor, zeros: Tensor, scales: Tensor, groups: Tensor | None) -> Tensor:
    """(codes − zeros) · scales in float32 [N, K], from codes [N, K] and zeros and scales [N, G].
    groups [K]: the group of each input, where groups are not runs of equal length."""
    rows, columns = codes.shape
    zeros, scales = zeros.float(), scales.float()
    if groups is not None:
        at = groups.long()
        return codes.float().sub_(zeros[:, at]).mul_(scales[:, at])
    grouped = codes.view(rows, scales.shape[1], -1).float()
    return grouped.sub_(zeros[:, :, None]).mul_(scales[:, :, None]).view(rows, columns)


def _group_index(parts: Parts, suffix: str, groups: int) -> Tensor | None:
    """The group of each input; None where there is no such tensor, or one that was never filled in
    (−1). A group out of range raises InputError."""
    index = parts.get(suffix)
    if index is None or bool((index == -1).all()):
        return None
    if not (0 <= int(index.min()) <= int(index.max()) < groups):
        raise InputError(f"a {suffix} holds groups out of range", "download the checkpoint again")
    return index


def _count_groups(size: int, name: str, linear: nn.Linear) -> int:
    """Groups of a linear in groups of `size`, -1 for one a row."""
    groups = 1 if size == -1 else -(-linear.in_features // size)
    if size != -1 and linear.in_features % size:
        raise InputError(
            f"group size {size} does not divide the {linear.in_features} inputs of {name}",
            "repair the candidate's config.json",
        )
    return groups


def _read_awq(config: Mapping[str, Any]) -> int:
    """The size of its groups."""
    if str(config.get("version", "gemm")).lower() != "gemm" or config.get("bits", 4) != 4:
        version, bits = config.get("version"), config.get("bits")
        _refuse(f"AWQ format is {version} at {bits} bits", "4-bit GEMM is read")
    return read_group_size(config)


def _describe_awq(size: int, name: str, linear: nn.Linear, found: Shapes) -> Coding:
    rows, columns = linear.out_features, linear.in_features
    groups = _count_groups(size, name, linear)
    words = rows // 8
    shapes = {"qweight": [columns, words], "qzeros": [groups, words], "scales": [groups, rows]}
    return Coding(4, shapes)


def _decode_awq(parts: Parts, coding: Coding) -> Tensor:
    codes, zeros = unpack_gemm(parts["qweight"]), unpack_gemm(parts["qzeros"])
    return _dequantize(codes, zeros, parts["scales"].T, None)


def _read_gptq(config: Mapping[str, Any]) -> bool:
    """Whether its zero points are stored one too small."""
    stored = "marlin" if config.get("is_marlin_format") else _gptq_format(config)
    if stored not in ("gptq", "gptq_v2"):
        _refuse(f"GPTQ checkpoint_format is {stored}", "gptq and gptq_v2 are read")
    return stored == "gptq"


def _gptq_format(config: Mapping[str, Any]) -> str:
    """GPTQModel has written it under either name; AutoGPTQ wrote neither."""
    return str(config.get("checkpoint_format") or config.get("format") or "gptq")


def _describe_gptq(plus_one: bool, name: str, linear: nn.Linear, found: Shapes) -> Coding:
    # GPTQModel's `dynamic` gives linears widths and groups of their own: the shapes tell both.
    rows, columns = linear.out_features, linear.in_features
    words = found["qweight"][0] if found["qweight"] else 0
    bits, rest = divmod(words * 32, columns)
    if rest or bits not in GPTQ_BITS:
        raise InputError(
            f"{name}.qweight has {words} rows of words, which is no width for {columns} inputs",
            "download the checkpoint again",
        )
    groups = found["scales"][0] if found.get("scales") else 0
    if "g_idx" not in found and columns % max(groups, 1):
        raise InputError(
            f"{name} has {groups} groups for {columns} inputs and no g_idx",
            "download the checkpoint again",
        )
    shapes = {
        "qweight": [words, rows],
        "qzeros": [groups, -(-rows * bits // 32)],
        "scales": [groups, rows],
        "g_idx": [columns],
    }
    return Coding(bits, shapes, plus_one)


def _decode_gptq(parts: Parts, coding: Coding) -> Tensor:
    groups, rows = coding.shapes["scales"]
    (columns,) = coding.shapes["g_idx"]
    codes = unpack_stream(parts["qweight"], coding.bits, columns).T.contiguous()
    words = parts["qzeros"].T.contiguous()
    if coding.plus_one and 32 % coding.bits == 0:
        # GPTQModel takes the ones off whole words, so that below a zero point of 0 the next one is
        # borrowed from; only adding them back to whole words gives what it was made with.
        words = words + sum(1 << position for position in range(0, 32, coding.bits))
    zeros = unpack_stream(words, coding.bits, rows)
    if coding.plus_one and 32 % coding.bits:
        zeros = (zeros + 1) & (2**coding.bits - 1)
    index = _group_index(parts, "g_idx", groups)
    return _dequantize(codes, zeros, parts["scales"].T, index)


def _read_compressed(config: Mapping[str, Any]) -> Groups:
    """Its config groups."""
    groups = config.get("config_groups") or {}
    if not groups:
        _refuse("quantization_config has no config_groups", "repair its config.json")
    for group in groups.values():
        stored = group.get("format") or config.get("format")
        weights = group.get("weights") or {}
        if stored != "pack-quantized":
            _refuse(f"compressed-tensors format is {stored}", "pack-quantized is read")
        if group.get("input_activations") or group.get("output_activations"):
            _refuse("activations are quantized too", "compare one whose weights alone are")
        if weights.get("type", "int") != "int" or weights.get("num_bits") not in BITS:
            _refuse(f"weights are {weights.get('type')} of {weights.get('num_bits')} bits")
        if weights.get("strategy", "group") not in ("group", "channel"):
            _refuse(f"weights have a scale by {weights['strategy']}", "group and channel are read")
    for entry in ("kv_cache_scheme", "sparsity_config", "transform_config"):
        if config.get(entry) and (config[entry] or {}).get("format") != "dense":
            _refuse(f"quantization_config has a {entry}", "compare one without it")
    return read_groups(config)


def _describe_compressed(groups: Groups, name: str, linear: nn.Linear, found: Shapes) -> Coding:
    try:
        declared = read_agreed(name, groups)
    except ValueError as error:
        raise InputError(f"the candidate's {error}", "repair its config.json") from error
    bits, rows, columns = declared.bits, linear.out_features, linear.in_features
    count = _count_groups(declared.group_size, name, linear)
    per_word = 32 // bits
    shapes = {
        "weight_packed": [rows, -(-columns // per_word)],
        "weight_scale": [rows, count],
        "weight_shape": [2],
        "weight_g_idx": [columns],
    }
    if not declared.symmetric:
        # Early versions did not pack zero points.
        plain = found.get("weight_zero_point") == [rows, count]
        shapes["weight_zero_point"] = [rows if plain else -(-rows // per_word), count]
    return Coding(bits, shapes)


def _decode_compressed(parts: Parts, coding: Coding) -> Tensor:
    rows, groups = coding.shapes["weight_scale"]
    (columns,) = coding.shapes["weight_g_idx"]
    middle = 2 ** (coding.bits - 1)
    zeros = parts.get("weight_zero_point")
    if zeros is None:
        zeros = torch.full((rows, groups), middle, dtype=torch.uint8)
    elif (zeros.dtype == torch.int8) != (list(zeros.shape) == [rows, groups]):
        raise ValueError(f"zero points are {zeros.dtype} {list(zeros.shape)}")
    elif zeros.dtype == torch.int8:
        zeros = zeros.int() + middle
    else:
        zeros = unpack(zeros.T.contiguous(), coding.bits, rows).T
    codes = unpack(parts["weight_packed"], coding.bits, columns)
    index = _group_index(parts, "weight_g_idx", groups)
    return _dequantize(codes, zeros, parts["weight_scale"], index)


LAYOUTS = {
    "awq": Layout(
        "qweight",
        (),
        {"qweight": WORDS, "qzeros": WORDS, "scales": SCALES},
        _read_awq,
        _describe_awq,
        _decode_awq,
    ),
    "gptq": Layout(
        "qweight",
        ("g_idx",),
        {"qweight": WORDS, "qzeros": WORDS, "scales": SCALES, "g_idx": INDEX},
        _read_gptq,
        _describe_gptq,
        _decode_gptq,
    ),
    "compressed-tensors": Layout(
        "weight_packed",
        ("weight_g_idx",),
        {
            "weight_packed": WORDS,
            "weight_scale": SCALES,
            "weight_zero_point": (*WORDS, "I8"),
            "weight_shape": INDEX,
            "weight_g_idx": INDEX,
        },
        _read_compressed,
        _describe_compressed,
        _decode_compressed,
    ),
}
