"""Widths and groups: how a weight is quantized, as plain data (no torch)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from awqscope.mixedprec.errors import InputError

BITS = range(2, 9)
GROUP_SIZES = (32, 64, 128, -1)
# The group size of the AWQ paper, which every server has kernels for.
DEFAULT_GROUP = 128
FP16_BITS = 16
# Calibration tokens that a search reads which need not be exact.
ENOUGH_TOKENS = 8192
# Widths that servers have kernels for, side by side in one checkpoint.
SERVED_WIDTHS = (4, 8)
# A width in groups of its own, as people write it: "4x64".
WIDTH = re.compile(r"([0-9]{1,2})(?:x(-1|[0-9]{1,4}))?")


@dataclass(frozen=True)
class Grouped:
    """A width in groups of another size than the run's own: 4 bits in groups of 64 is "4x64".

    bits: 2 to 8. group_size: as a Scheme has it, -1 for one group a row.
    """

    bits: int
    group_size: int

    def __str__(self) -> str:
        return f"{self.bits}x{self.group_size}"


# What a unit or a linear may be: bits in groups of the run's own size, or in groups of another.
Width = int | Grouped
# By a linear's name in its block, and by a unit's name in the model.
LinearWidths = Mapping[str, Width]
UnitWidths = Mapping[str, Width]


def bits_of(width: Width) -> int:
    """The bits of each weight at a width, whatever its groups."""
    return width.bits if isinstance(width, Grouped) else width


def rank_width(width: Width) -> tuple[int, bool, int]:
    """What widths are sorted by: the narrowest first, of equal bits the run's own groups before
    others, larger groups before smaller."""
    if isinstance(width, Grouped):
        # One group a row is the largest there is.
        return width.bits, True, -width.group_size if width.group_size > 0 else -(10**9)
    return width, False, 0


def sort_widths(widths: Iterable[Width]) -> list[Width]:
    """Each width once, in the order of `rank_width`."""
    return sorted(set(widths), key=rank_width)


def list_quantized(widths: Iterable[Width]) -> tuple[Width, ...]:
    """Each width below 16 bits once, the narrowest first."""
    return tuple(width for width in sort_widths(widths) if width != FP16_BITS)


def in_own_groups(width: Width, own: int) -> Width:
    """A width as a run with groups of `own` has it: plain where its groups are of that size."""
    return width.bits if isinstance(width, Grouped) and width.group_size == own else width


def write_groups(group_size: int) -> str:
    """The size of groups in words."""
    return "a group a row" if group_size == -1 else f"groups of {group_size}"


def write_width(width: Width) -> str:
    """A width in words: "8 bits", "4 bits in groups of 64"."""
    groups = f" in {write_groups(width.group_size)}" if isinstance(width, Grouped) else ""
    return f"{bits_of(width)} bits{groups}"


def parse_width(text: str) -> Width:
    """A width as people write it: "4", or "4x64" for groups of 64. InputError for anything else,
    and for sizes of groups that nothing here quantizes in."""
    found = WIDTH.fullmatch(text.strip())
    if found is None:
        raise InputError(f"{text!r} is no width", "give bits, or bits and groups, like 4 or 4x64")
    bits, size = int(found[1]), found[2]
    if bits != FP16_BITS:
        Scheme(bits, DEFAULT_GROUP if size is None else int(size), True)
    elif size is not None:
        raise InputError("16 bits have no groups", "write 16")
    return bits if size is None else Grouped(bits, int(size))


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
        return write_groups(self.group_size)

    def check_divides(self, in_features: int, name: str) -> None:
        """Raise InputError unless the groups tile the `in_features` columns of `name`."""
        group = self.group(in_features)
        if in_features % group:
            raise InputError(
                f"group size {group} does not divide the {in_features} inputs of {name}",
                "choose a smaller --group-size, or -1 for one group a row",
            )
