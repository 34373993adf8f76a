"""Integer codes in 32-bit words, in the layouts that servers read.

compressed-tensors `pack-quantized`: element k of a row sits in word k // (32 // bits), at bit
bits · (k mod (32 // bits)). Widths that do not divide 32 leave the top bits of each word empty.
AutoAWQ GEMM: the transposed matrix, eight 4-bit codes a word in the order 0 2 4 6 1 3 5 7.
Only read: GPTQ, the transposed matrix, packed down its columns as a stream of bits, or as planes of
them; AutoAWQ GEMV-fast, int16 words of four rows.
"""

import math

import torch
from torch import Tensor

from awqscope.mixedprec.awq.arithmetic import Quantized
from awqscope.mixedprec.scheme import BITS, Scheme

GEMM_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
# Packed weights are cut after multiples of so many rows: no word then holds rows of two parts.
CUT = math.lcm(*(32 // bits for bits in BITS))


def pack(codes: Tensor, bits: int) -> Tensor:
    """uint8 codes [R, C] to int32 words [R, ⌈C / (32 // bits)⌉]; missing codes are zero."""
    per_word = 32 // bits
    rows, columns = codes.shape
    words = -(-columns // per_word)
    padded = torch.zeros(rows, words * per_word, dtype=torch.int64)
    padded[:, :columns] = codes
    shifts = torch.arange(per_word, dtype=torch.int64) * bits
    packed = (padded.view(rows, words, per_word) << shifts).sum(dim=-1)
    return torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)


def unpack(words: Tensor, bits: int, columns: int) -> Tensor:
    """int32 words [R, W] back to uint8 codes [R, columns]. ValueError for words that are not int32,
    or too few."""
    per_word = 32 // bits
    _check_words(words)
    if not 0 <= columns <= words.shape[1] * per_word:
        raise ValueError(f"{words.shape[1]} words of {per_word} codes do not hold {columns}")
    shifts = torch.arange(per_word, dtype=torch.int32) * bits
    codes = (words[:, :, None] >> shifts) & (2**bits - 1)
    return codes.reshape(len(words), -1)[:, :columns].to(torch.uint8)


def to_compressed_tensors(weight: Quantized) -> dict[str, Tensor]:
    """The tensors of one linear, by suffix: weight_packed, weight_scale, weight_shape and, unless
    symmetric, weight_zero_point (packed along the output dimension)."""
    bits = weight.scheme.bits
    tensors = {
        "weight_packed": pack(weight.codes, bits),
        "weight_scale": weight.scales.contiguous(),
        "weight_shape": torch.tensor(weight.codes.shape, dtype=torch.int64),
    }
    if not weight.scheme.symmetric:
        tensors["weight_zero_point"] = pack(weight.zeros.T, bits).T.contiguous()
    return tensors


def from_compressed_tensors(tensors: dict[str, Tensor], scheme: Scheme) -> Quantized:
    """What `to_compressed_tensors` packed; `scheme` comes from the checkpoint's config.json.
    ValueError for tensors that are missing, do not belong together, or are of other types."""
    _require(tensors, "weight_packed", "weight_scale", "weight_shape")
    if not scheme.symmetric:
        _require(tensors, "weight_zero_point")
    shape, scales = tensors["weight_shape"], tensors["weight_scale"]
    if shape.shape != (2,) or shape.dtype.is_floating_point:
        raise ValueError("weight_shape is no pair of numbers")
    rows, columns = shape.tolist()
    _check_words(tensors["weight_packed"])
    if len(tensors["weight_packed"]) != rows:
        raise ValueError(f"weight_packed has {len(tensors['weight_packed'])} rows, not {rows}")
    if scheme.symmetric:
        zeros = torch.full(scales.shape, 2 ** (scheme.bits - 1), dtype=torch.uint8)
    else:
        _check_words(tensors["weight_zero_point"])
        zeros = unpack(tensors["weight_zero_point"].T.contiguous(), scheme.bits, rows).T
    codes = unpack(tensors["weight_packed"], scheme.bits, columns)
    _check_grid(codes, scales, zeros, scheme)
    return Quantized(codes, scales, zeros.contiguous(), scheme)


def cut_compressed_tensors(
    tensors: dict[str, Tensor], first: int, stop: int, bits: int
) -> dict[str, Tensor]:
    """Rows `first` to `stop` of what `to_compressed_tensors` packed, packed likewise. first: a
    multiple of CUT."""
    per_word = 32 // bits
    cut = dict(tensors)
    for name in ("weight_packed", "weight_scale"):
        if name in cut:
            cut[name] = cut[name][first:stop]
    if "weight_zero_point" in cut:
        words = slice(first // per_word, -(-stop // per_word))
        cut["weight_zero_point"] = cut["weight_zero_point"][words]
    if "weight_shape" in cut and cut["weight_shape"].shape == (2,):
        cut["weight_shape"] = torch.stack([torch.tensor(stop - first), cut["weight_shape"][1]])
    return cut


def cut_gemm(tensors: dict[str, Tensor], first: int, stop: int) -> dict[str, Tensor]:
    """Outputs `first` to `stop` of what `to_gemm` packed, packed likewise. first: a multiple of
    CUT."""
    per_word = len(GEMM_ORDER)
    words = slice(first // per_word, -(-stop // per_word))
    each = {"qweight": words, "qzeros": words, "scales": slice(first, stop)}
    return {
        name: value[:, each[name]] if name in each else value for name, value in tensors.items()
    }


def to_gemm(weight: Quantized) -> dict[str, Tensor]:
    """AutoAWQ's qweight [K, N/8], qzeros [G, N/8] and scales [G, N] (float16) of a 4-bit weight."""
    order = torch.tensor(GEMM_ORDER)

    def interleave(matrix: Tensor) -> Tensor:
        rows, columns = matrix.shape
        return pack(matrix.reshape(rows, columns // 8, 8)[:, :, order].reshape(rows, columns), 4)

    return {
        "qweight": interleave(weight.codes.T),
        "qzeros": interleave(weight.zeros.T),
        "scales": weight.scales.T.to(torch.float16).contiguous(),
    }


def from_gemm(tensors: dict[str, Tensor], scheme: Scheme) -> Quantized:
    """What `to_gemm` packed. ValueError for tensors that are missing, do not belong together, or
    are of other types."""
    _require(tensors, "qweight", "qzeros", "scales")
    codes, zeros = unpack_gemm(tensors["qweight"]), unpack_gemm(tensors["qzeros"])
    if tensors["scales"].ndim != 2:
        raise ValueError("scales are no matrix")
    scales = tensors["scales"].T.contiguous()
    _check_grid(codes, scales, zeros, scheme)
    return Quantized(codes, scales, zeros, scheme)


def _require(tensors: dict[str, Tensor], *names: str) -> None:
    """Raise ValueError for a tensor that is missing."""
    missing = [name for name in names if name not in tensors]
    if missing:
        raise ValueError(f"there is no {missing[0]}")


def _check_words(words: Tensor) -> None:
    """Raise ValueError unless `words` are a matrix of 32-bit words."""
    if words.dtype != torch.int32 or words.ndim != 2 or not words.numel():
        raise ValueError(f"packed words are {words.dtype} {list(words.shape)}, not an int32 matrix")


def _check_grid(codes: Tensor, scales: Tensor, zeros: Tensor, scheme: Scheme) -> None:
    """Raise ValueError unless every group of a weight's codes has one scale and one zero point."""
    rows, columns = codes.shape
    group = scheme.group(columns)
    if not group or columns % group or list(scales.shape) != [rows, columns // group]:
        raise ValueError(
            f"scales {list(scales.shape)} do not fit {rows} rows of {columns} in groups of {group}"
        )
    if zeros.shape != scales.shape or not scales.dtype.is_floating_point:
        raise ValueError(f"zero points {list(zeros.shape)} do not fit scales {list(scales.shape)}")


def unpack_gemm(words: Tensor, bits: int = 4) -> Tensor:
    """AutoAWQ's int32 words [R, C · bits / 32] to uint8 codes [C, R]: the transpose, in order.
    AutoRound has the same at other widths, where codes straddle words. ValueError for words that
    are not an int32 matrix."""
    _check_words(words)
    order = torch.argsort(torch.tensor(GEMM_ORDER))
    codes = unpack_stream(words.T.contiguous(), bits, words.shape[1] * 32 // bits)
    columns, rows = codes.shape
    return codes.view(columns // 8, 8, rows)[:, order].reshape(columns, rows)


def unpack_stream(words: Tensor, bits: int, rows: int) -> Tensor:
    """GPTQ's int32 words [W, C] to uint8 codes [rows, C]: down each column the codes follow each
    other bit by bit, so that at 3 bits some straddle two words. ValueError for words that are not
    int32."""
    _check_words(words)
    count, columns = words.shape
    groups = -(-count // bits)
    padded = torch.zeros(groups * bits, columns, dtype=torch.int32)
    padded[:count] = words
    grouped = padded.view(groups, bits, columns)
    codes = torch.empty(groups, 32, columns, dtype=torch.uint8)
    for position in range(32):
        word, shift = divmod(position * bits, 32)
        found = grouped[:, word] >> shift
        if shift + bits > 32:
            found &= 2 ** (32 - shift) - 1
            found |= grouped[:, word + 1] << (32 - shift)
        codes[:, position] = found & (2**bits - 1)
    return codes.view(groups * 32, columns)[:rows]


def unpack_planes(words: Tensor, bits: int, rows: int) -> Tensor:
    """GPTQModel's int32 words [W, C] to uint8 codes [rows, C], where the bits of 32 codes are cut
    into planes whose widths are powers of two, the widest and lowest first: at 7 bits four words
    hold the low four bits of each, two the next two, one the highest. ValueError for words that are
    not int32, or do not hold 32 codes at a time."""
    _check_words(words)
    count, columns = words.shape
    if count % bits:
        raise ValueError(f"{count} words do not hold planes of {bits} bits")
    blocks = words.view(count // bits, bits, columns)
    codes = torch.zeros(count // bits, 32, columns, dtype=torch.uint8)
    at = 0
    for width in (8, 4, 2, 1):
        if not bits & width:
            continue
        shifts = torch.arange(0, 32, width, dtype=torch.int32)[:, None]
        plane = (blocks[:, at : at + width, None] >> shifts) & (2**width - 1)
        codes |= (plane.reshape(codes.shape) << at).to(torch.uint8)
        at += width
    return codes.view(-1, columns)[:rows]


def unpack_fast(words: Tensor) -> Tensor:
    """AutoAWQ GEMV-fast's int16 words [N / 4, K] to uint8 codes [N, K].

    64 words in a row hold 64 codes of each of four rows, row after row, a code a nibble. Of 32
    codes of a row, one whose number is 8a + 2b + c stands at 8b + 4c + a. ValueError for words that
    are not an int16 matrix, or no multiple of 64 wide.
    """
    if words.dtype != torch.int16 or words.ndim != 2 or words.shape[1] % 64:
        raise ValueError(f"packed words are {words.dtype} {list(words.shape)}, not int16 in 64s")
    fours, columns = words.shape
    shifts = torch.arange(0, 16, 4, dtype=torch.int32)
    codes = (words.int()[:, :, None] >> shifts) & 15
    by_row = codes.view(fours, columns // 64, 4, 64).transpose(1, 2)
    ordered = by_row.reshape(-1, 4, 2, 4).permute(0, 3, 1, 2)
    return ordered.reshape(4 * fours, columns).to(torch.uint8)
