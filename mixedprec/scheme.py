"""Widths and groups: how a weight is quantized, as plain data (no torch)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from awqscope.mixedprec.errors import InputError

BITS = range(2, 9)
GROUP_SIZES = (32, 64, 128, -1)
# The group size of the AWQ paper, which every server has kernels for.
DEFAULT_GROUP = 128
FP16_BITS = 16
# Widths that servers have kernels for, side by side in one checkpoint.
SERVED_WIDTHS = (4, 8)
# Bits by a linear's name in its block, and by a unit's name in the model.
LinearWidths = Mapping[str, int]
UnitWidths = Mapping[str, int]


def read_group_size(settings: Mapping[str, Any]) -> int:
    """The `group_size` that a checkpoint's config.json states: -1 for one group a row, which tools
    write as -1, 0 or null, or leave out. ValueError for anything that is not a size."""
    size = settings.get("group_size")
    if size is None or size == 0:
        return -1
    if isinstance(size, bool) or not isinstance(size, int) or (size < 1 and size != -1):
        raise ValueError(f"group_size is {str(size)[:40]}")
    return size


@dataclass(frozen=True)
class Scheme:
    """How a linear's weight is quantized.

    bits: 2 to 8. group_size: input channels that share a scale; -1 is the whole row (per channel).
    symmetric: without zero points. Errors: InputError for values out of range.
    """

    bits: int
    group_size: int
    symmetric: bool

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise InputError(
                f"{self.bits} bits cannot be quantized to",
                f"choose from {BITS.start} to {BITS.stop - 1}",
            )
        if self.group_size not in GROUP_SIZES:
            raise InputError(
                f"group size {self.group_size} is not supported",
                "choose 32, 64, 128 or -1 (one group a row)",
            )

    def group(self, in_features: int) -> int:
        """The group size in channels for a weight with `in_features` columns."""
        return in_features if self.group_size == -1 else self.group_size

    def write_groups(self) -> str:
        """The groups in words."""
        return "a group a row" if self.group_size == -1 else f"groups of {self.group_size}"

    def check_divides(self, in_features: int, name: str) -> None:
        """Raise InputError unless the groups tile the `in_features` columns of `name`."""
        group = self.group(in_features)
        if in_features % group:
            raise InputError(
                f"group size {group} does not divide the {in_features} inputs of {name}",
                "choose a smaller --group-size, or -1 for one group a row",
            )
