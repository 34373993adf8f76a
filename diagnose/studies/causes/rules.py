"""What is suspected of hurting a block, and what of that is a cause. Deciding is pure: numbers in,
suspects and findings out.

A look inside the block points at suspects: weights that are odd and bring much of its error. They
are then measured by themselves, and so is the block with AWQ's steps switched off. A suspect, or a
step, is a cause if the lower bound of its share of the block's KL is LEAST_SHARE. Where none is,
there is no finding: that is an answer too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from awqscope.diagnose.entries.part import Part
from awqscope.diagnose.statistics.bootstrap import Floats, Resampler
from awqscope.diagnose.statistics.spikes import is_noise
from awqscope.diagnose.studies.causes.answer import (
    ROLES,
    Channel,
    Finding,
    HeadCauses,
    LinearCauses,
    Split,
)
from awqscope.diagnose.studies.causes.errors import Columns
from awqscope.diagnose.studies.causes.heads import Heads
from awqscope.diagnose.studies.causes.switches import ROUNDED, SCALED, SERVED, estimate_share

CONDITIONING, HEAD, CHANNEL, STRETCHED = "conditioning", "head", "channel", "stretched"
CALIBRATION, CLIP, SCALE = "calibration", "clip", "scale"
# What the lower bound of a cause's share of the block's KL is at least.
LEAST_SHARE = 0.2
# Of what a step adds to an error on the validation text it adds less than this on the calibration
# text, where it was chosen well for that.
WELL_CHOSEN = 0.25
# Suspects that are measured; each takes a stream through the rest of the model.
MOST_SUSPECTS = 3
# What weights must bring of the block's error to be suspected.
LEAST_ARRIVED = 0.15
# How many times its peers' a number must be to be odd: a condition number, a head's error, a
# channel's part of the error (its fair part would be one in all channels), a column's weights
# (their group's median).
ODD_CONDITION, ODD_HEAD, ODD_CHANNEL, ODD_COLUMN = 10.0, 4.0, 20.0, 8.0
# What one channel, or one weight group, must hold of a linear's error.
LEAST_OF_LINEAR = 0.3


class Suspect(Part):
    """Weights of a linear that may be a cause. heads: whose rows or columns, by role; channels:
    which input channels; of one of both. numbers: what is odd, by cause.

    conditioning: `condition` (the median of the heads'), `usual` (in other blocks), `size` (of a
    head). head: `times` (its error, of the other heads' median). channel: `times` (its largest |x|,
    of the median channel's), `weight` (its mean |w|, of the median channel's). stretched: `times`
    (its weights, of the group's median), `group`.
    """

    cause: str
    linear: str
    role: str | None = None
    heads: Sequence[int] = ()
    channels: Sequence[int] = ()
    weight: float = Field(description="What is guessed of its share; for the order alone.")
    numbers: dict[str, float] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is measured under."""
        which = self.heads or self.channels[:1]
        return f"{self.cause}.{self.linear}.{self.role}.{'-'.join(map(str, which))}"

    def put(self, weight: Tensor, effective: Tensor, heads: Heads | None) -> Tensor:
        """The linear's reference weight [N, K] with what is suspected of it as it is served."""
        if self.channels:
            mixed = weight.clone()
            mixed[:, list(self.channels)] = effective[:, list(self.channels)]
            return mixed
        assert heads is not None
        for part in heads.of(self.linear, self.role):
            if part.head in self.heads:
                weight = part.put(weight, effective)
        return weight


@dataclass(frozen=True)
class Look:
    """What was seen of a linear. arrived: its share of the block's error."""

    linear: str
    arrived: float
    heads: Sequence[HeadCauses]
    columns: Columns


def find_suspects(looks: Sequence[Look], usual: Mapping[str, float], size: int) -> list[Suspect]:
    """The likeliest suspects of a block, the likeliest first. usual: role -> median condition
    number in other blocks; size: of a head."""
    found: list[Suspect] = []
    for look in looks:
        if look.arrived >= LEAST_ARRIVED:
            for suspect in SUSPICIONS:
                found += suspect(look, usual, size)
    # A head that is ill-conditioned is named as that.
    known = {(s.linear, s.role, head) for s in found if s.cause == CONDITIONING for head in s.heads}
    found = [s for s in found if s.cause != HEAD or (s.linear, s.role, s.heads[0]) not in known]
    return sorted(found, key=lambda suspect: -suspect.weight)[:MOST_SUSPECTS]


def _suspect_conditions(look: Look, usual: Mapping[str, float], size: int) -> list[Suspect]:
    """Heads of a role whose weights are far worse conditioned than in other blocks."""
    found = []
    for role in ROLES:
        odd = [
            head
            for head in look.heads
            if head.role == role and head.condition >= ODD_CONDITION * usual.get(role, torch.inf)
        ]
        arrived = sum(head.arrived for head in odd)
        if odd and arrived >= LEAST_ARRIVED:
            numbers = {
                "condition": median(head.condition for head in odd),
                "usual": usual[role],
                "size": float(size),
            }
            found.append(
                Suspect(
                    cause=CONDITIONING,
                    linear=look.linear,
                    role=role,
                    heads=[head.head for head in odd],
                    weight=arrived,
                    numbers=numbers,
                )
            )
    return found


def _suspect_heads(look: Look, _usual: Mapping[str, float], _size: int) -> list[Suspect]:
    """Heads that bring far more of the block's error than the others of their role."""
    found = []
    for head in look.heads:
        others = [o.arrived for o in look.heads if o.role == head.role and o.head != head.head]
        if others and head.arrived >= max(LEAST_ARRIVED, ODD_HEAD * median(others)):
            found.append(
                Suspect(
                    cause=HEAD,
                    linear=look.linear,
                    role=head.role,
                    heads=[head.head],
                    weight=head.arrived,
                    numbers={"times": head.arrived / max(median(others), 1e-12)},
                )
            )
    return found


def _suspect_channel(look: Look, _usual: Mapping[str, float], _size: int) -> list[Suspect]:
    """A channel that holds far more than its fair part of the linear's error."""
    columns = look.columns
    share, place = columns.error.max(0)
    if float(share) < max(LEAST_OF_LINEAR, ODD_CHANNEL / len(columns.error)):
        return []
    channel = int(place)
    numbers = {
        "times": _times(columns.largest[channel], columns.largest),
        "weight": _times(columns.weight[channel], columns.weight),
    }
    return [
        Suspect(
            cause=CHANNEL,
            linear=look.linear,
            channels=[channel],
            weight=look.arrived * float(share),
            numbers=numbers,
        )
    ]


def _suspect_stretch(look: Look, _usual: Mapping[str, float], _size: int) -> list[Suspect]:
    """A weight group that one column stretches, so that the rest of it is rounded coarsely. Its
    first channel is the column's."""
    columns = look.columns
    errors, strengths = columns.by_group(columns.error), columns.by_group(columns.strength)
    share, place = errors.sum(1).max(0)
    group, groups = int(place), len(errors)
    strongest = int(strengths[group].argmax())
    times = _times(strengths[group, strongest], strengths[group])
    fair = min(0.9, 4 / groups)
    if float(share) < max(LEAST_OF_LINEAR, fair) or times < ODD_COLUMN:
        return []
    first = group * columns.group
    members = [first + strongest]
    members += [c for c in range(first, first + columns.group) if c != members[0]]
    return [
        Suspect(
            cause=STRETCHED,
            linear=look.linear,
            channels=members,
            weight=look.arrived * float(share),
            numbers={"times": times, "group": float(group)},
        )
    ]


def _times(value: Tensor, peers: Tensor) -> float:
    return float(value) / max(float(peers.median()), 1e-30)


# What may be odd about a linear.
Suspicion = Callable[[Look, Mapping[str, float], int], list[Suspect]]
SUSPICIONS: tuple[Suspicion, ...] = (
    _suspect_conditions,
    _suspect_heads,
    _suspect_channel,
    _suspect_stretch,
)


@dataclass(frozen=True)
class Evidence:
    """What was measured of a block. damage: its KL with steps switched on (STATES), by window;
    linears: what each costs and how it errs; suspects: each with its KL by window. owners: which of
    the validation texts `names` each window is of; floor: the run's noise floor."""

    damage: Mapping[str, Floats]
    linears: Sequence[LinearCauses]
    suspects: Sequence[tuple[Suspect, Floats]]
    owners: Sequence[int]
    names: Sequence[str]
    floor: float | None
    seed: int

    def share(self, part: Floats, text: int | None = None) -> tuple[float, float, float]:
        """A part of the block's KL as a share of it, on all windows or on those of one text."""
        here = np.array([text in (None, owner) for owner in self.owners])
        resampler = Resampler(int(here.sum()), self.seed)
        return estimate_share(resampler, part[here], self.damage[SERVED][here])


def find_causes_of(evidence: Evidence) -> list[Finding]:
    """The causes of a block's damage, the largest share first."""
    whole = evidence.damage[SERVED]
    if whole.mean() <= 0 or is_noise(float(whole.mean()), evidence.floor):
        return []
    found = [finding for rule in RULES for finding in rule(evidence)]
    return sorted(found, key=lambda finding: -finding.share[0])


def _judge_steps(evidence: Evidence) -> list[Finding]:
    """Scales or clips that raise the block's KL, on all of the text or on one text."""
    texts = [None, *(range(len(evidence.names)) if len(evidence.names) > 1 else ())]
    found: dict[str, Finding] = {}
    for step, (before, after) in STEPS.items():
        for text in texts:
            share = evidence.share(evidence.damage[after] - evidence.damage[before], text)
            if step not in found and share[1] >= LEAST_SHARE:
                found[step] = _blame_step(evidence, step, share, text)
    return list(found.values())


def _blame_step(
    evidence: Evidence, step: str, share: tuple[float, float, float], text: int | None
) -> Finding:
    """The linear that a step hurts most, and whether the calibration text is to blame for it. Of
    experts, which are looked at as one, neither is known."""

    def added(split: Split | None) -> float:
        return 0.0 if split is None else getattr(split, step)[0]

    def split_of(linear: LinearCauses) -> Split | None:
        return linear.split if text is None else linear.by_text[text]

    def cost(linear: LinearCauses) -> float:
        split = split_of(linear)
        return (
            0.0
            if split is None or not split.total[0]
            else (linear.kl[0] * added(split) / split.total[0])
        )

    name = None if text is None else evidence.names[text]
    numbers = {
        "plain": float(evidence.damage[STEPS[step][0]].mean()),
        "served": float(evidence.damage[STEPS[step][1]].mean()),
    }
    split_linears = [linear for linear in evidence.linears if linear.split is not None]
    if not split_linears:
        return Finding(cause=step, step=step, text=name, share=share, numbers=numbers)
    worst = max(split_linears, key=cost)
    here, there = added(split_of(worst)), added(worst.calibrated)
    # Of the channels that hold more than a fair part of the error, the one that has grown most.
    fair = 1 / worst.channel_count
    channel = max(
        [channel for channel in worst.channels if channel.error >= fair] or worst.channels,
        key=_times_calibrated,
    )
    numbers |= {"here": here, "there": there, "larger": _times_calibrated(channel)}
    return Finding(
        cause=CALIBRATION if here > 0 and there < WELL_CHOSEN * here else step,
        linear=worst.linear,
        channel=channel.channel,
        text=name,
        step=step,
        share=share,
        numbers=numbers,
    )


def _times_calibrated(channel: Channel) -> float:
    return channel.activation / max(channel.calibrated, 1e-30)


def _confirm_suspects(evidence: Evidence) -> list[Finding]:
    """Suspects that cost what is suspected."""
    by_linear = {linear.linear: linear for linear in evidence.linears}
    found = []
    for suspect, kl in evidence.suspects:
        share = evidence.share(kl)
        if share[1] < LEAST_SHARE:
            continue
        found.append(
            Finding(
                cause=suspect.cause,
                linear=suspect.linear,
                role=suspect.role,
                heads=suspect.heads,
                channel=suspect.channels[0] if suspect.channels else None,
                step=name_step(by_linear[suspect.linear].split),
                share=share,
                numbers=suspect.numbers,
            )
        )
    return found


def name_step(split: Split | None) -> str | None:
    """The step that most of an error comes of."""
    if split is None:
        return None
    parts = {"rounding": split.rounding, "scale": split.scale, "clip": split.clip}
    return max(parts, key=lambda step: parts[step][0])


# What is switched on before and after a step.
STEPS = {SCALE: (ROUNDED, SCALED), CLIP: (SCALED, SERVED)}
# What may be a cause.
RULES: tuple[Callable[[Evidence], list[Finding]], ...] = (_judge_steps, _confirm_suspects)
