"""What a study of a run's calibration answers: everything that was searched and measured, and the
advice that follows."""

from typing import Literal

from pydantic import Field

from awqscope.diagnose.entries.part import Bounded, Part

# What more windows must give back of the damage to be worth a word.
LEAST_GAIN = 0.01
# The same of another text.
LEAST_DOMAIN_GAIN = 0.02
Role = Literal["run", "half", "draw", "count", "text", "both"]


class Column(Part):
    """A validation text."""

    text: str = Field(description="The SPEC.")
    windows: int = Field(description="Windows that were measured.")
    tokens: int = Field(description="Tokens in them.")
    of_run: bool = Field(description="Whether the run was measured on it.")


class Cell(Part):
    """A calibration on one validation text."""

    text: str = Field(description="The validation text.")
    kl: Bounded = Field(description="KL of the uniform model, with its bounds.")
    gain: Bounded = Field(
        description="Share of the KL of the run's own calibration there that this one gives back; "
        "below zero where it adds."
    )


class Calibrated(Part):
    """A calibration, and the uniform model that it makes, on the run's validation windows."""

    name: str = Field(
        description="`run`, `half 1`, `draw 1`, `64 windows`, `text 1`, and `both 1` for half of "
        "each text, or as much as there is of a short one."
    )
    role: Role = Field(description="`run`, `half`, `draw`, `count`, `text` or `both`.")
    texts: tuple[str, ...] = Field(description="The calibration texts that its windows are of.")
    windows: int = Field(description="Windows that the search read.")
    of_last: int = Field(description="How many of them are of the last of `texts`.")
    tokens: int = Field(description="Tokens in them.")
    tokens_sha256: str = Field(description="SHA-256 of the token ids.")
    kl: Bounded = Field(description="KL of the uniform model.")
    ppl: float = Field(description="Its perplexity.")
    delta_ppl: Bounded = Field(description="The same less the reference's.")
    gain: Bounded = Field(description="As of a cell, on all of the run's validation windows.")
    cells: tuple[Cell, ...] = Field(description="The same on each validation text.")


class GroupAgreement(Part):
    """The linear groups of one kind in all blocks, which share a scale ratio each."""

    kind: str = Field(description="The kind of unit that they are in.")
    equal: int = Field(description="How many have the same ratio in both searches.")
    of: int = Field(description="Of how many.")
    apart: float = Field(description="Mean difference of the ratios, which go from 0 to 0.975.")


class Agreement(Part):
    """How far two searches chose alike at one width."""

    bits: int = Field(description="The width.")
    groups: tuple[GroupAgreement, ...] = Field(description="Scale ratios, by kind of unit.")
    clips: tuple[float, ...] = Field(
        description="Share of the weight groups whose clipping levels are 0, 1, 2 … steps of 5% "
        "apart; empty where nothing is clipped."
    )

    @property
    def equal(self) -> int:
        """Linear groups with equal ratios."""
        return sum(group.equal for group in self.groups)

    @property
    def of(self) -> int:
        """All linear groups."""
        return sum(group.of for group in self.groups)


class Beside(Part):
    """Two calibrations beside each other: their choices, and their models."""

    one: str = Field(description="The name of one.")
    other: str = Field(description="The name of the other.")
    kl: Bounded = Field(description="KL(one ‖ other) of the two uniform models.")
    share: Bounded = Field(description="That, as a share of what quantization costs the run.")
    difference: Bounded = Field(
        description="How much more KL to the reference the other has, as a share of the run's."
    )
    agreements: tuple[Agreement, ...] = Field(description="How far they chose alike, by width.")


class WindowsAdvice(Part):
    """How many windows suffice."""

    verdict: Literal["enough", "unclear", "more"] = Field(
        description="`enough`: no more windows give back as much as the limit; `more`: the most "
        "that were tried still do; `unclear`: the interval holds both."
    )
    windows: int = Field(description="The fewest that are not surely beaten by more.")
    beside: int = Field(description="The windows that they were set beside.")
    gain: Bounded = Field(
        description="Share of the KL of the fewer of both that the more of them give back."
    )
    limit: float = Field(description="What counts as a gain: 1%, or what another draw changes.")
    of_run: Bounded = Field(
        description="Share of the KL of the run's own calibration that `windows` give back. By "
        "another search than the run's, what that search does is in it too."
    )


class StabilityAdvice(Part):
    """Whether the choices are the model's or the windows'."""

    verdict: Literal["steady", "unsteady", "unclear"] = Field(
        description="Whether two halves of the windows make models of equal damage."
    )
    equal: int = Field(description="Linear groups with equal scale ratios at the low width.")
    of: int = Field(description="Of how many.")
    share: Bounded = Field(description="KL between both models, as a share of the run's.")
    difference: Bounded = Field(description="By how much their damage differs, as such a share.")
    limit: float = Field(description="The difference that still counts as none.")


class DomainAdvice(Part):
    """Whether calibrating on a further text too helps on a validation text."""

    calib: str = Field(description="The calibration text that was added.")
    valid: str = Field(description="The validation text.")
    verdict: Literal["uncovered", "covered", "unclear"] = Field(
        description="`uncovered`: windows of the other text in place of half give back more than "
        "the limit; `covered`: they do not."
    )
    gain: Bounded = Field(description="The share that they give back there.")
    limit: float = Field(description="What counts as a gain: 2%, or what another draw gives back.")
    elsewhere: Bounded = Field(description="The share on all of the run's validation windows.")


class CalibrationAdvice(Part):
    """The answer to `awqscope calibrate`."""

    calib: str = Field(description="The run's calibration text.")
    given: int = Field(description="The run's calibration windows.")
    read: int = Field(description="How many of them its search read.")
    seq_len: int = Field(description="Tokens in a calibration window.")
    run_search: str = Field(description="`fast` or `exact`: of the run.")
    search: str = Field(description="The same of the study.")
    fast_tokens: int | None = Field(
        description="Tokens that the fast search of a run reads at most; null where it reads all, "
        "of a mixture of experts."
    )
    reference_ppl: float = Field(description="Of the reference, on the run's validation windows.")
    columns: tuple[Column, ...] = Field(description="The validation texts.")
    calibrations: tuple[Calibrated, ...] = Field(description="All that was searched.")
    pairs: tuple[Beside, ...] = Field(
        description="Halves beside each other, and draws beside the run's own windows; by another "
        "search than the run's, beside the first draw."
    )
    spread: float | None = Field(
        description="The most that another draw of as many windows, searched alike, changes the "
        "damage, as a share; null where there was none."
    )
    windows: WindowsAdvice | None = Field(description="Null for fewer than two counts.")
    stability: StabilityAdvice | None = Field(description="Null where nothing was halved.")
    domains: tuple[DomainAdvice, ...] = Field(description="One a further text and column.")

    def find(self, role: Role) -> tuple[Calibrated, ...]:
        """The calibrations of a role."""
        return tuple(each for each in self.calibrations if each.role == role)
