"""Quantization arithmetic: a float32 weight [N out, K in] to integer codes by group, and back.

The rounding is autoawq's (`AwqQuantizer.pseudo_quantize_tensor`, version 0.2.9), with which
`fake_quantize` agrees bit for bit. `quantize` differs in one thing: it rounds each scale to the
16-bit type that the checkpoint stores *before* it chooses the codes, so that what is simulated is
what is served.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mixedprec.scheme import Scheme


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
        rows, columns = self.codes.shape
        groups = self.scales.shape[1]
        centred = self.codes.view(rows, groups, -1).float() - self.zeros.float()[:, :, None]
        return (centred * self.scales.float()[:, :, None]).view(rows, columns)


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
    grouped = weight.reshape(rows, -1, scheme.group(columns))
    scales, low, high = _grid(grouped, scheme)
    stored = scales.to(scale_dtype)
    scales = stored.float()
    codes = torch.round(grouped / scales)
    if scheme.symmetric:
        zeros = torch.full_like(scales, -low)
        codes = codes.clamp_(low, high) - low
    else:
        zeros = (-torch.round(grouped.amin(dim=-1, keepdim=True) / scales)).clamp_(low, high)
        codes = (codes + zeros).clamp_(low, high)
    return Quantized(
        codes.to(torch.uint8).view(rows, columns),
        stored.squeeze(-1),
        zeros.to(torch.uint8).squeeze(-1),
        scheme,
    )
