"""The alternatives that a probe tries in a block's place, as data: what each changes, and whether a
recipe can hold it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from awqscope.diagnose.runs.record import Record
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.mixedprec.families.family import EXPERTS
from awqscope.mixedprec.scheme import (
    ENOUGH_TOKENS,
    FP16_BITS,
    GROUP_SIZES,
    Grouped,
    Scheme,
    Width,
)

TWICE, HALF = 2.0, 0.5


@dataclass(frozen=True)
class Calibration:
    """What a search reads. text: the SPEC of another text than the run's; share: so many times as
    many windows as the run's search reads, spread over the text anew."""

    text: str | None = None
    share: float = 1.0


OWN = Calibration()


@dataclass(frozen=True)
class Alternative:
    """What stands in place of a block at the run's low width, and how it differs.

    name: as `--apply` takes it; what: the same in words. widths: kind of unit -> width, of those
    that are not at the low width. symmetric: whether the low width has no zero points, None for as
    the run has it. scaled, clipped: whether AWQ's scales and clipping are used. options: those of
    `awqscope run` that make it of every block; none where there are none."""

    name: str
    what: str
    widths: Mapping[str, Width] = field(default_factory=dict)
    symmetric: bool | None = None
    scaled: bool = True
    clipped: bool = True
    calibration: Calibration = OWN
    options: str = ""

    @property
    def groups(self) -> Grouped | None:
        """The width in groups of another size, where it has one."""
        return next((each for each in self.widths.values() if isinstance(each, Grouped)), None)

    @property
    def is_searched(self) -> bool:
        """Whether its scales and clipping are searched anew, not those of the run."""
        is_other = self.groups is not None or self.symmetric is not None
        return is_other or self.calibration != OWN

    @property
    def is_recipe(self) -> bool:
        """Whether a recipe can hold it: what differs are the widths of units."""
        return bool(self.widths)

    def change(self, spec: RunSpec) -> RunSpec:
        """The run's options with its zero points."""
        return spec if self.symmetric is None else spec.change(symmetric=self.symmetric)

    def scheme(self, spec: RunSpec) -> Scheme:
        """The scheme that it is searched at."""
        changed = self.change(spec)
        return (
            changed.low if self.groups is None else changed.schemes_at([self.groups])[self.groups]
        )


def list_alternatives(record: Record, block: int, also: Sequence[str]) -> tuple[Alternative, ...]:
    """Every alternative to a block of a run. also: SPECs of further texts to calibrate on."""
    spec = record.spec
    kept = set(spec.keep_fp16)
    kinds = [kind for kind in record.source.units if f"{block}.{kind}" not in kept]
    return (*_groups(spec, kinds), *_widths(spec, kinds), *_arithmetic(spec), *_texts(record, also))


def _groups(spec: RunSpec, kinds: Sequence[str]) -> list[Alternative]:
    """Other sizes of weight groups, the smallest first."""
    return [
        Alternative(
            f"groups-{size}",
            f"groups of {size}",
            widths=dict.fromkeys(kinds, Grouped(spec.bits, size)),
            options=f"--group-size {size}",
        )
        for size in GROUP_SIZES
        if kinds and size > 0 and size != spec.low.group_size
    ]


def _widths(spec: RunSpec, kinds: Sequence[str]) -> list[Alternative]:
    """Each unit alone at the rescue width, and the whole block there and at 16 bits."""
    rescue = spec.rescue_bits
    alone = kinds if len(kinds) > 1 else ()
    units = [
        Alternative(f"{kind}-{rescue}", f"{kind} alone at {rescue} bits", widths={kind: rescue})
        for kind in alone
    ]
    whole = [
        Alternative(
            f"block-{bits}", f"the whole block at {bits} bits", widths=dict.fromkeys(kinds, bits)
        )
        for bits in (rescue, FP16_BITS)
        if kinds
    ]
    return [*units, *whole]


def _arithmetic(spec: RunSpec) -> list[Alternative]:
    """The low width with less of AWQ, and with zero points where the run has none or none where it
    has them."""
    zeros = (
        Alternative("zero-points", "zero points", symmetric=False)
        if spec.symmetric
        else Alternative("symmetric", "no zero points", symmetric=True, options="--symmetric")
    )
    return [
        Alternative("no-clipping", "no clipping", clipped=False),
        zeros,
        Alternative("rtn", "rounding to nearest without AWQ", scaled=False),
    ]


def _texts(record: Record, also: Sequence[str]) -> list[Alternative]:
    """The low width calibrated on other windows."""
    searched = record.calibration.searched or record.calibration.windows
    fewer, more = int(searched * HALF), int(searched * TWICE)
    twice = f"twice the calibration windows ({more})"
    # A run's fast search reads no more than it needs, unless of experts: then no options of a run
    # make what is measured here. An exact search reads all, and chooses otherwise.
    reads_all = record.spec.is_exact or EXPERTS in record.source.units
    reads_more = reads_all or more * record.calibration.seq_len <= ENOUGH_TOKENS
    own = [
        Alternative(
            "half-calibration",
            f"half the calibration windows ({fewer})",
            calibration=Calibration(share=HALF),
            options=f"--calib-windows {fewer}",
        ),
        Alternative(
            "twice-calibration",
            twice if reads_more else f"{twice}, more than a run's fast search reads",
            calibration=Calibration(share=TWICE),
            options=f"--calib-windows {more}" if reads_more else "",
        ),
    ]
    others = [
        Alternative(
            f"calib:{text}",
            f"calibration on {text}",
            calibration=Calibration(text=text),
            options=f"--calib {shlex.quote(text)}",
        )
        for text in dict.fromkeys(also)
    ]
    return [*own, *others]
