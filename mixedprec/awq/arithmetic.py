"""Quantization arithmetic: a float32 weight [N out, K in] to integer codes by group, and back.

The rounding is autoawq's (`AwqQuantizer.pseudo_quantize_tensor`, version 0.2.9), with which
`fake_quantize` agrees bit for bit. `quantize` differs in one thing: it rounds each scale to the
16-bit type that the checkpoint stores *before* it chooses the codes, so that what is simulated is
what is served.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from awqscope.mixedprec.scheme import Scheme

ELEMENTS_A_PART = 2**18


@dataclass(frozen=True)
class Quantized:
    """A quantized weight: w = (codes − zeros) · scales, group by group.

    codes: uint8 [N, K], 0 to 2^bits − 1. scales: float16 or bfloat16 [N, G].
    zeros: uint8 [N, G]; of a symmetric scheme it is 2^(bits−1) everywhere.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    scheme: Scheme

    def dequantize(self) -> Tensor:
        """The weight in float32 [N, K]."""
        weight = torch.empty(self.codes.shape, device=self.codes.device)
        for rows in list_row_parts(weight):
            codes, zeros, scales = self.codes[rows], self.zeros[rows], self.scales[rows]
            grouped = weight[rows].view(*scales.shape, -1)
            torch.sub(codes.view_as(grouped).float(), zeros.float()[:, :, None], out=grouped)
            grouped *= scales.float()[:, :, None]
        return weight


def list_row_parts(weight: Tensor) -> list[slice]:
    """A few rows of [N, K] at a time, small enough for their temporaries to stay in the cache; all
    of them on a device that has no use for that. What is done by rows is the same by parts."""
    step = (
        max(1, ELEMENTS_A_PART // weight.shape[1]) if weight.device.type == "cpu" else len(weight)
    )
    return [slice(start, start + step) for start in range(0, len(weight), step)]


def _grid(grouped: Tensor, scheme: Scheme) -> tuple[Tensor, int, int]:
    """Unrounded scale [..., 1] of each group in the last dimension, lowest and highest code."""
    if scheme.symmetric:
        high = 2 ** (scheme.bits - 1) - 1
        return grouped.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5) / high, -high - 1, high
    high = 2**scheme.bits - 1
    spread = grouped.amax(dim=-1, keepdim=True) - grouped.amin(dim=-1, keepdim=True)
    return spread.clamp(min=1e-5) / high, 0, high


def fake_quantize(weight: Tensor, scheme: Scheme) -> Tensor:
    """`weight` [N, K] rounded to the scheme's grid with float scales; same shape and dtype.

    This is what the AWQ search judges by, as in autoawq.
    """
    grouped = weight.reshape(-1, scheme.group(weight.shape[-1]))
    scales, low, high = _grid(grouped, scheme)
    codes = torch.round(grouped / scales)
    if scheme.symmetric:
        return (codes.clamp_(low, high) * scales).view_as(weight)
    zeros = (-torch.round(grouped.amin(dim=-1, keepdim=True) / scales)).clamp_(low, high)
    return (((codes + zeros).clamp_(low, high) - zeros) * scales).view_as(weight)


def quantize(weight: Tensor, scheme: Scheme, scale_dtype: torch.dtype) -> Quantized:
    """`weight` [N, K] in float32 to codes, with scales rounded to `scale_dtype` first."""
    rows, columns = weight.shape
    groups, device = columns // scheme.group(columns), weight.device
    codes = torch.empty(rows, columns, dtype=torch.uint8, device=device)
    scales = torch.empty(rows, groups, dtype=scale_dtype, device=device)
    zeros = torch.empty(rows, groups, dtype=torch.uint8, device=device)
    for part in list_row_parts(weight):
        grouped = weight[part].reshape(-1, groups, scheme.group(columns))
        found = _quantize_groups(grouped, scheme, scale_dtype)
        for whole, values in zip((codes, scales, zeros), found, strict=True):
            whole[part] = values.view_as(whole[part])
    return Quantized(codes, scales, zeros, scheme)


def _quantize_groups(
    grouped: Tensor, scheme: Scheme, scale_dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, stored scales and zero points of weight groups in the last dimension."""
    scales, low, high = _grid(grouped, scheme)
    stored = scales.to(scale_dtype)
    scales = stored.float()
    codes = torch.round(grouped / scales)
    if scheme.symmetric:
        return codes.clamp_(low, high).sub_(low), stored, torch.full_like(scales, -low)
    zeros = (-torch.round(grouped.amin(dim=-1, keepdim=True) / scales)).clamp_(low, high)
    return codes.add_(zeros).clamp_(low, high), stored, zeros
