"""What products of float32 matrices are computed in."""

import contextlib
from collections.abc import Iterator

import torch

FLOAT32, TF32, BFLOAT16 = "float32", "tf32", "bfloat16"
# What a run computes in, unless something else is asked for.
DEFAULT = FLOAT32


@contextlib.contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """Until this ends, products on a device are computed in a precision: of tf32 and bfloat16 the
    factors are rounded, and the sums are in float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == TF32 else "highest")
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == BFLOAT16):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
