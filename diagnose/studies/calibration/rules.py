"""From numbers by window to advice. Pure: what decides are the rules below, and a verdict takes the
whole interval to be on one side of a limit.

What another draw of as many windows changes is the windows' own noise, over which no interval of
validation windows goes: where it is more than a rule's limit, it is the limit. For another text
only what draws give back counts: on a domain that the calibration text lacks nothing holds the
choices, and draws of it may differ by several times the damage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from awqscope.diagnose.statistics.bootstrap import Estimate, Floats, Resampler, bounds
from awqscope.diagnose.studies.calibration.answer import (
    LEAST_DOMAIN_GAIN,
    LEAST_GAIN,
    Agreement,
    DomainAdvice,
    StabilityAdvice,
    WindowsAdvice,
)
from awqscope.diagnose.studies.calibration.calibrations import HALVES, RUN, Calibration
from awqscope.diagnose.studies.calibration.measuring import Measured
from awqscope.mixedprec.errors import InputError

UNCLEAR: Any = "unclear"


@dataclass(frozen=True)
class Rule:
    """The verdict on a share of the damage whose interval is below `limit`, or above it."""

    limit: float
    below: Any
    above: Any

    def judge(self, found: Estimate, limit: float) -> Any:
        """The verdict by a limit that may be higher than the rule's own."""
        if found.high < limit:
            return self.below
        return self.above if found.low > limit else UNCLEAR


# What more windows or another text must give back of the damage to be worth a word, and by how much
# of it halves may differ.
WINDOWS = Rule(LEAST_GAIN, below="enough", above="more")
DOMAIN = Rule(LEAST_DOMAIN_GAIN, below="covered", above="uncovered")
STABILITY = Rule(0.05, below="steady", above="unsteady")


class Numbers:
    """What was measured on some windows, and their resamples. InputError where the run's own
    calibration does no damage there: nothing is a share of none."""

    def __init__(self, measured: Measured, seed: int):
        if not measured.kl[RUN].any():
            raise InputError(
                "the run's uniform model is its reference: no calibration can be better",
                "give a run that quantizes something",
            )
        self.measured = measured
        self.resampler = Resampler(len(measured.kl[RUN]), seed)

    def gain(self, one: str, other: str) -> Estimate:
        """The share of the KL of model `one` that `other` gives back, paired by window."""
        kl = self.measured.kl
        return self.resampler.ratio(kl[one] - kl[other], kl[one])

    def share(self, kl: Floats) -> Estimate:
        """A KL by window as a share of that of the run's own calibration."""
        return self.resampler.ratio(kl, self.measured.kl[RUN])


def list_draw_gains(
    numbers: Numbers, calibrations: Sequence[Calibration], *, as_run: bool = True
) -> list[float]:
    """What other draws of as many windows of the run's own text give back of the damage of those
    that the run read, as shares of it. Those windows themselves are no other draw. as_run: whether
    all were searched as the run was; else the draws are set against the first of them, so that no
    gain is another search's."""
    own = calibrations[0]
    same = [each for each in calibrations if each.role == "draw"]
    same += [
        each
        for each in calibrations
        if each.role == "count" and len(each.windows) == len(own.windows)
    ]
    if as_run:
        same = [own, *(each for each in same if not each.reads_as(own))]
    return [numbers.gain(same[0].name, each.name).value for each in same[1:]]


def find_spread(
    numbers: Numbers, calibrations: Sequence[Calibration], *, as_run: bool = True
) -> float | None:
    """The most that another draw changes the damage, either way, as a share of it; None where there
    is none. as_run: as `list_draw_gains` takes it."""
    return max(map(abs, list_draw_gains(numbers, calibrations, as_run=as_run)), default=None)


def advise_windows(
    numbers: Numbers, calibrations: Sequence[Calibration], spread: float | None
) -> WindowsAdvice | None:
    """How many windows suffice: the fewest that all more are sure to give back less than the limit
    of; else the fewest that none are sure to give back more of. None for fewer than two counts."""
    counts = [each for each in calibrations if each.role == "count"]
    if len(counts) < 2:
        return None
    limit = max(WINDOWS.limit, spread or 0.0)
    found = {
        number: {
            WINDOWS.judge(numbers.gain(fewer.name, more.name), limit)
            for more in counts[number + 1 :]
        }
        for number, fewer in enumerate(counts[:-1])
    }
    enough = [number for number, verdicts in found.items() if verdicts == {WINDOWS.below}]
    unclear = [number for number, verdicts in found.items() if WINDOWS.above not in verdicts]
    last = len(counts) - 1
    at = next(iter([*enough, *unclear]), last)
    verdict = WINDOWS.below if enough else UNCLEAR if unclear else WINDOWS.above
    fewer, more = (counts[at], counts[at + 1]) if at < last else (counts[last - 1], counts[last])
    return WindowsAdvice(
        verdict=verdict,
        windows=len(counts[at].windows),
        beside=len((more if at < last else fewer).windows),
        gain=bounds(numbers.gain(fewer.name, more.name)),
        limit=limit,
        of_run=bounds(numbers.gain(RUN, counts[at].name)),
    )


def advise_on_halves(numbers: Numbers, choices: Agreement) -> StabilityAdvice:
    """Whether both halves make models of equal damage. choices: how far they agree at the low
    width."""
    one, other = HALVES
    kl = numbers.measured.kl
    difference = numbers.share(kl[other] - kl[one])
    ends = sorted(map(abs, (difference.low, difference.high)))
    nearest = 0.0 if difference.low <= 0 <= difference.high else ends[0]
    size = Estimate(abs(difference.value), nearest, ends[1])
    return StabilityAdvice(
        verdict=STABILITY.judge(size, STABILITY.limit),
        equal=choices.equal,
        of=choices.of,
        share=bounds(numbers.share(numbers.measured.apart[HALVES])),
        difference=bounds(difference),
        limit=STABILITY.limit,
    )


def advise_on_domains(
    columns: Mapping[str, Numbers], overall: Numbers, calibrations: Sequence[Calibration]
) -> tuple[DomainAdvice, ...]:
    """Whether calibrating on each further text too helps on each validation text. columns: the
    numbers on each; overall: on all windows of the run."""
    advice = []
    for each in calibrations:
        if each.role != "both":
            continue
        for text, numbers in columns.items():
            limit = max(DOMAIN.limit, *list_draw_gains(numbers, calibrations), 0.0)
            gain = numbers.gain(RUN, each.name)
            advice.append(
                DomainAdvice(
                    calib=each.texts[-1],
                    valid=text,
                    verdict=DOMAIN.judge(gain, limit),
                    gain=bounds(gain),
                    limit=limit,
                    elsewhere=bounds(overall.gain(RUN, each.name)),
                )
            )
    return tuple(advice)
