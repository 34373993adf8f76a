"""What a run or a comparison is asked to do: everything that decides its numbers, checked before it
starts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from awqscope.diagnose.options.amounts import read_share
from awqscope.diagnose.options.option import (
    FLAGGING,
    MOST,
    SHARE,
    TEXTS,
    WIDTHS,
    Shown,
    check_with,
    refuse,
)
from awqscope.diagnose.options.shared import EXACT, FAST, WAYS, Spec, Texts
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.dtypes import AUTO, LARGEST, check_dtype
from awqscope.mixedprec.scheme import (
    BITS,
    DEFAULT_GROUP,
    FP16_BITS,
    GROUP_SIZES,
    SERVED_WIDTHS,
    Grouped,
    Scheme,
    Width,
    bits_of,
    list_quantized,
)


def check_bits(bits: int) -> None:
    """Raise InputError for a width that no weight can be quantized to."""
    Scheme(bits, GROUP_SIZES[0], False)


def check_group_size(size: int | None) -> None:
    """Raise InputError for a size that groups cannot have."""
    if size is not None:
        Scheme(BITS.start, size, False)


def check_target(bits: float | None) -> None:
    """Raise InputError for bits a weight that no width comes to."""
    if bits is not None and not 0 < bits <= FP16_BITS:
        raise InputError(f"--target-bits {bits} is no size of a weight", "give it like 4.5")


def check_recovery(share: float | None) -> None:
    """Raise InputError for what is no share."""
    if share is not None and not 0 <= share <= 1:
        raise InputError(f"--min-recovery {share} is no share", "give it like 50% or 0.5")


def check_one_budget(share: float | None, given: Sequence[object]) -> None:
    """Raise InputError for more than one way to choose a recipe."""
    if sum(value not in (None, False) for value in given) > 1:
        raise InputError(
            "a recipe has one budget",
            "give one of --whole-blocks, --target-bits and --min-recovery",
        )


def check_search(how: str) -> None:
    """Raise InputError for a way to search that there is none of."""
    if how not in WAYS:
        raise InputError(f"--search {how} is not known", f"give {' or '.join(WAYS)}")


def check_above(rescue: int, bits: int) -> None:
    """Raise InputError unless promoted units get more than the `bits` of the rest."""
    if rescue <= bits:
        raise InputError(
            f"--rescue-bits {rescue} is not above --bits {bits}",
            "rescue at more bits than the rest gets",
        )


Bits = Annotated[int, AfterValidator(check_with(check_bits))]


class RunSpec(Spec):
    """The options of `awqscope run` that decide what it finds, and how much memory it may hold.
    Errors: OptionsError for what makes no sense."""

    COMMAND = "run"
    NAMED_AFTER = "model"
    BEFORE: ClassVar[Mapping[str, Any]] = {**Spec.BEFORE, "search": EXACT}

    model: Annotated[
        str,
        Field(description="Model directory, GGUF file, or id on the Hugging Face hub."),
        Shown(
            label="Model",
            hint="A directory or a GGUF file here, or an id on the Hugging Face hub.",
            metavar="MODEL",
        ),
    ]
    revision: Annotated[
        str | None,
        Field(description="Branch, tag or commit of a model on the hub."),
        Shown(
            label="Revision",
            hint="Of a model on the hub: a branch, tag or commit.",
            metavar="NAME",
            group=TEXTS,
            unset="the main branch",
        ),
    ] = None
    calib: Annotated[
        str,
        Field(description="Text that AWQ calibrates on."),
        Shown(
            label="Calibration text",
            hint="What AWQ chooses its scales on.",
            metavar="SPEC",
            group=TEXTS,
        ),
    ] = "wikitext2:train"
    bits: Annotated[
        Bits,
        Field(description="Width of every unit that is not promoted."),
        Shown(
            label="Bits",
            hint="Of every unit that is not promoted.",
            metavar="N",
            group=WIDTHS,
            unit="bits",
            choices=BITS,
        ),
    ] = 4
    rescue_bits: Annotated[
        Bits,
        Field(validate_default=True, description="Width of promoted units (symmetric)."),
        Shown(
            label="Bits of promoted units",
            hint="Symmetric. Checkpoints are written for 4 and 8.",
            metavar="N",
            group=WIDTHS,
            unit="bits",
            choices=BITS,
        ),
    ] = 8
    group_size: Annotated[
        int | None,
        AfterValidator(check_with(check_group_size)),
        Field(description="32, 64, 128, or -1 for one group a row."),
        Shown(
            label="Group size",
            hint="Input channels that share a scale. Left empty: 128, or the next that divides.",
            metavar="N",
            group=WIDTHS,
            unit="input channels",
            unset="128, or the largest of 64 and 32 that divides what the model has",
            choices=GROUP_SIZES,
        ),
    ] = None
    symmetric: Annotated[
        bool,
        Field(description="No zero points at the low width."),
        Shown(label="Symmetric", group=WIDTHS),
    ] = False
    search: Annotated[
        str,
        AfterValidator(check_with(check_search)),
        Field(
            description="How scales are searched: fast, on as many calibration windows as that "
            "takes, or exact, which makes autoawq's very choices."
        ),
        Shown(
            label="Search",
            hint="fast, or exact: autoawq's very choices, in many times the time.",
            metavar="HOW",
            group=WIDTHS,
            choices=WAYS,
        ),
    ] = FAST
    calib_windows: Annotated[
        int,
        Field(ge=1, le=MOST, description="Calibration windows."),
        Shown(
            label="Calibration windows",
            hint="Spread over the calibration text.",
            metavar="N",
            group=TEXTS,
            unit="windows",
        ),
    ] = 128
    calib_seq_len: Annotated[
        int,
        Field(ge=1, le=MOST, description="Tokens in a calibration window."),
        Shown(
            label="Tokens in a calibration window",
            hint="Cut to the model's maximum.",
            metavar="N",
            group=TEXTS,
            unit="tokens",
        ),
    ] = 512
    whole_blocks: Annotated[
        bool,
        Field(description="Promote flagged blocks whole, not their fewest units."),
        Shown(
            label="Promote whole blocks",
            hint="Not the fewest of their units that repair them.",
            group=FLAGGING,
        ),
    ] = False
    target_bits: Annotated[
        float | None,
        AfterValidator(check_with(check_target)),
        Field(
            description="Instead of promoting in flagged blocks: the least KL at this many bits a "
            "weight, scales counted."
        ),
        Shown(
            label="Bits a weight",
            hint="Instead of promoting in flagged blocks: the least KL at this size.",
            metavar="N",
            group=WIDTHS,
            unit="bits a weight",
        ),
    ] = None
    min_recovery: Annotated[
        float | None,
        BeforeValidator(refuse(read_share)),
        AfterValidator(check_with(check_recovery)),
        Field(
            validate_default=True,
            description="Instead of promoting in flagged blocks: the least size that gives back "
            "this share of the lost KL, such as 50%.",
        ),
        Shown(
            label="Least recovery",
            hint="Instead of promoting in flagged blocks: the least size for it, such as 50%.",
            metavar="SHARE",
            group=WIDTHS,
            unit=SHARE,
        ),
    ] = None
    keep_fp16: Annotated[
        Texts,
        Field(description="Unit to leave unquantized, such as 3.down; repeatable."),
        Shown(
            label="Units kept at 16 bits",
            hint="Such as 3.down 5.o, with blanks between.",
            metavar="UNIT",
            group=WIDTHS,
        ),
    ] = ()
    verify_units: Annotated[
        int,
        Field(ge=0, le=MOST, description="Units measured exactly to check the estimates."),
        Shown(
            label="Units measured exactly",
            hint="To check the estimates of the others.",
            metavar="N",
            group=FLAGGING,
            unit="units",
        ),
    ] = 12
    dtype: Annotated[
        str,
        AfterValidator(check_with(check_dtype)),
        Field(
            description="Type that the checkpoint stores and is served in: float16, bfloat16, or "
            "auto for the one that the model comes in. bfloat16 holds what passes float16's 65,504."
        ),
        Shown(
            label="Type of the checkpoint",
            hint="What it stores and is served in; bfloat16 passes 65,504.",
            metavar="TYPE",
            group=WIDTHS,
            choices=(AUTO, *LARGEST),
        ),
    ] = AUTO

    @field_validator("rescue_bits")
    @classmethod
    def _check_above(cls, rescue: int, info: ValidationInfo) -> int:
        # Where the width below is wrong, that is said of it.
        check = partial(check_above, bits=info.data.get("bits", 0))
        return int(check_with(check)(rescue))

    @field_validator("min_recovery")
    @classmethod
    def _check_budget(cls, share: float | None, info: ValidationInfo) -> float | None:
        chosen = [info.data.get(name) for name in ("target_bits", "whole_blocks")]
        check = partial(check_one_budget, given=[share, *chosen])
        check_with(check)(share)
        return share

    @property
    def budget(self) -> dict[str, Any]:
        """What the recipe is chosen for where it is not for the flagged blocks."""
        named = {"target_bits": self.target_bits, "min_recovery": self.min_recovery}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def is_exact(self) -> bool:
        """Whether the search makes autoawq's very choices."""
        return self.search == EXACT

    @property
    def low(self) -> Scheme:
        """The scheme of every unit that is not promoted."""
        return Scheme(self.bits, self.group_size or DEFAULT_GROUP, self.symmetric)

    @property
    def rescue(self) -> Scheme:
        """The scheme of promoted units: symmetric, the form that every server has a kernel for."""
        return Scheme(self.rescue_bits, self.group_size or DEFAULT_GROUP, True)

    @property
    def schemes(self) -> dict[int, Scheme]:
        """bits -> scheme."""
        return {scheme.bits: scheme for scheme in (self.low, self.rescue)}

    def schemes_at(self, widths: Iterable[Width]) -> dict[Width, Scheme]:
        """width -> scheme, of those of `widths` that are quantized: the run's own, and its bits in
        groups of other sizes. InputError for bits that the run has no scheme for."""
        found: dict[Width, Scheme] = {}
        for width in list_quantized(widths):
            scheme = self.schemes.get(bits_of(width))
            if scheme is None:
                raise InputError(
                    f"the run holds no search at {bits_of(width)} bits",
                    f"use the widths {self.bits}, {self.rescue_bits} and {FP16_BITS}",
                )
            if isinstance(width, Grouped):
                scheme = replace(scheme, group_size=width.group_size)
            found[width] = scheme
        return found

    @property
    def no_checkpoint(self) -> str | None:
        """Why the run ends without a checkpoint, if it does."""
        odd = set(self.schemes).difference(SERVED_WIDTHS)
        return f"no server loads checkpoints with {min(odd)}-bit layers" if odd else None


class CompareSpec(Spec):
    """The options of `awqscope compare` that decide what it finds, and how much memory it may hold.
    Errors: OptionsError for what makes no sense."""

    COMMAND = "compare"
    NAMED_AFTER = "candidate"

    reference: Annotated[
        str,
        Field(description="The 16-bit model: directory or hub id."),
        Shown(
            label="Reference",
            hint="The 16-bit model: a directory, or an id on the hub.",
            metavar="REFERENCE",
        ),
    ]
    candidate: Annotated[
        str,
        Field(description="The checkpoint: directory, GGUF file, or hub id."),
        Shown(
            label="Candidate",
            hint="The checkpoint made from it: a directory, a GGUF file, or an id on the hub.",
            metavar="CANDIDATE",
        ),
    ]


AnySpec = RunSpec | CompareSpec
# By the command that starts one.
SPECS: Mapping[str, type[AnySpec]] = {kind.COMMAND: kind for kind in (RunSpec, CompareSpec)}
