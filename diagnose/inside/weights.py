"""What rounding does to the weights themselves: every linear's error and worst weight groups."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from awqscope.diagnose.sweep.swappable import uniform_widths
from awqscope.mixedprec.awq.losses import split_rows
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.scheme import FP16_BITS

WORST_GROUPS = 8
COLUMNS = ("relative_error", "squared_error", "worst_rows", "worst_groups", "worst_errors")


def measure_error(reference: Tensor, effective: Tensor, group: int) -> dict[str, Tensor]:
    """How far a linear's effective weight [N, K] is from its reference: COLUMNS by name.

    relative_error: ‖ΔW‖ / ‖W‖; squared_error: ‖ΔW‖². The others, [≤ WORST_GROUPS], worst first: row
    and group of those runs of `group` inputs with the largest error, which is ‖ΔW_g‖ over the
    larger of ‖W_g‖ and the root mean square of all ‖W_g‖.
    """
    sizes, errors = [], []
    for whole, rounded in zip(split_rows(reference), split_rows(effective), strict=True):
        by_group = (len(whole), -1, group)
        sizes.append(torch.linalg.vector_norm(whole.reshape(by_group), dim=-1))
        errors.append(torch.linalg.vector_norm((rounded - whole).reshape(by_group), dim=-1))
    size, error = torch.cat(sizes).double(), torch.cat(errors).double()
    typical = size.square().mean().sqrt()
    # A pruned linear is all zeros, and so is its error.
    smallest = torch.finfo(torch.float64).tiny
    damage = error / size.clamp(min=max(typical.item(), smallest))
    order = damage.flatten().argsort(descending=True, stable=True)[:WORST_GROUPS]
    groups = size.shape[1]
    return {
        "relative_error": error.square().mean().sqrt() / typical.clamp(min=smallest),
        "squared_error": error.square().sum(),
        "worst_rows": (order // groups).int(),
        "worst_groups": (order % groups).int(),
        "worst_errors": damage.flatten()[order].float(),
    }


class WeightLog:
    """The error of every linear that is shown to it: the inspector of a sweep."""

    def __init__(self, group: Callable[[int], int]) -> None:
        """group: inputs of a linear -> inputs of each of its weight groups."""
        self._group = group
        self._found: dict[str, Tensor] = {}

    def observe(self, block: int, linear: str, reference: Tensor, effective: Tensor) -> None:
        """Add the error of a linear, as `run_sweep` shows it to an inspector."""
        group = self._group(reference.shape[1])
        for column, values in measure_error(reference, effective, group).items():
            self._found[f"{block}.{linear}.{column}"] = values.cpu()

    def state(self) -> dict[str, Tensor]:
        """Everything found, as arrays `BLOCK.LINEAR.COLUMN`: what `weight_rows` takes."""
        return self._found


def weight_rows(
    model: SourceModel, bits: int, kept: frozenset[str], state: dict[str, Tensor]
) -> list[dict[str, Any]]:
    """Rows of weights.parquet: every linear that the uniform model quantizes, in order of
    computation."""
    return [
        {
            "block": block,
            "unit": f"{block}.{kind.name}",
            "linear": linear,
            "bits": bits,
            **{column: state[f"{block}.{linear}.{column}"].tolist() for column in COLUMNS},
        }
        for block in range(model.blocks)
        for kind in model.family.units
        for linear in kind.linears
        if uniform_widths(model, bits, kept, block)[linear] != FP16_BITS
    ]
