"""A look inside a block: how each linear's output errs and by which step, head, channel and token;
how the error grows on its way; what the heads attend to; and what of all that is suspicious."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from awqscope.diagnose.entries.part import Part
from awqscope.diagnose.statistics.bootstrap import Resampler
from awqscope.diagnose.studies.causes.answer import (
    HeadAttention,
    HeadCauses,
    LinearLook,
    Point,
    Split,
)
from awqscope.diagnose.studies.causes.attention import compare_attention
from awqscope.diagnose.studies.causes.errors import (
    Inputs,
    LinearErrors,
    capture_inputs,
    list_carriers,
    list_channels,
    measure_errors,
    read_columns,
    share_tokens,
)
from awqscope.diagnose.studies.causes.growth import list_spots, measure_arrivals, measure_growth
from awqscope.diagnose.studies.causes.heads import HeadPart, Heads, find_condition, find_usual
from awqscope.diagnose.studies.causes.rules import Look, Suspect, find_suspects
from awqscope.diagnose.studies.causes.switches import (
    CLIPPED,
    SERVED,
    STATES,
    Switched,
    count_clipped,
    split_error,
    split_plainly,
)
from awqscope.diagnose.studies.causes.texts import Texts, name_kind
from awqscope.diagnose.sweep.swappable import SwappableBlock
from awqscope.mixedprec.awq.choices import BlockSearch
from awqscope.mixedprec.awq.scale_groups import find_scale_groups
from awqscope.mixedprec.families.family import UnitKind
from awqscope.mixedprec.models.forward import get_linear, run_block
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import as_stream, list_batches
from awqscope.mixedprec.scheme import FP16_BITS, LinearWidths, bits_of

WHOLE = "block"


@dataclass(frozen=True)
class Stream:
    """What enters the block: hidden states [n, T, d], and what every block is called with beside
    them."""

    hidden: Tensor
    all_kwargs: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Subject:
    """The block that is looked into. widths: of the uniform model. heads: None where weights cannot
    be told by head. stream, calibration: the reference's on the windows of `texts`. read: the text
    of a token id."""

    model: SourceModel
    number: int
    swappable: SwappableBlock
    search: BlockSearch
    widths: LinearWidths
    switched: Switched
    heads: Heads | None
    texts: Texts
    stream: Stream
    calibration: Stream
    read: Callable[[int], str]
    seed: int

    @property
    def kinds(self) -> list[UnitKind]:
        """The units that are quantized."""
        units = self.model.family.units
        return [kind for kind in units if self.widths[kind.linears[0]] != FP16_BITS]

    @property
    def linears(self) -> list[str]:
        """The quantized linears that are looked at by themselves: all but experts."""
        return [linear for kind in self.kinds if not kind.site for linear in kind.linears]

    @property
    def parts(self) -> dict[str, dict[str, Tensor]]:
        """What is quantized by itself, and its parameters: every linear, and all experts as one
        with what their scales make of the router."""
        served = self.switched.blocks[SERVED]
        names = [n for kind in self.kinds for n in ([kind.site] if kind.site else kind.linears)]
        return {
            name: {key: value for key, value in served.items() if key.startswith(f"{name}.")}
            for name in names
        }

    def put(self, suspect: Suspect) -> dict[str, Tensor]:
        """The parameters of the block with what is suspected as it is served."""
        weight = get_linear(self.swappable.block, suspect.linear).weight.data
        effective = self.switched.weight(SERVED, suspect.linear)
        return {f"{suspect.linear}.weight": suspect.put(weight, effective, self.heads)}


class Looked(Part):
    """What a look inside a block found; the fields are those of the answer, and `suspects` are what
    is to be measured."""

    linears: Sequence[LinearLook]
    growth: Sequence[Point]
    attention: Sequence[HeadAttention]
    usual: dict[str, float]
    suspects: Sequence[Suspect]


@torch.no_grad()
def look_inside(subject: Subject, on_step: Callable[[int, int], None]) -> Looked:
    """Look into a block. on_step: told the steps done, of how many."""
    swappable, heads = subject.swappable, subject.heads
    variants = _list_variants(subject)
    steps = len(variants) + 4

    def done(step: int) -> None:
        on_step(step, steps)

    found = measure_errors(
        swappable.block, subject.switched, subject.linears, _run(subject, subject.stream)
    )
    done(1)
    calibrated = measure_errors(
        swappable.block, subject.switched, subject.linears, _run(subject, subject.calibration)
    )
    done(2)
    kwargs = subject.stream.all_kwargs[subject.number]
    arrived = measure_arrivals(
        swappable, variants, subject.stream.hidden, kwargs, lambda count: done(2 + count)
    )
    whole = arrived.pop(WHOLE)
    arrived = {name: error / whole if whole else 0.0 for name, error in arrived.items()}
    family, served = subject.model.family, subject.switched.blocks[SERVED]
    groups = find_scale_groups(family, subject.model.config.model_type, swappable.block)
    spots = list_spots(family, groups, swappable.block)
    resampler = Resampler(len(subject.texts.windows), subject.seed)
    growth = measure_growth(swappable, served, subject.stream.hidden, kwargs, spots, resampler)
    done(steps - 1)
    attention, usual = [], {}
    if heads is not None:
        model, number = subject.model, subject.number
        attention = compare_attention(
            model, number, swappable, heads, served, subject.stream.hidden
        )
        usual = find_usual(model, number, heads)
    looks, linears = [], []
    for kind in subject.kinds:
        if kind.site:
            linears.append(_describe_experts(subject, kind, arrived))
            continue
        for linear in kind.linears:
            one = _describe(subject, kind, linear, found[linear], calibrated[linear], arrived)
            linears.append(one[0])
            looks.append(one[1])
    size = len(heads.parts[0].index) if heads is not None else 0
    suspects = find_suspects(looks, usual, size)
    done(steps)
    return Looked(
        linears=linears, growth=growth, attention=attention, usual=usual, suspects=suspects
    )


def _run(subject: Subject, stream: Stream) -> Iterator[Inputs]:
    """What the reference gives the block's linears, a few windows at a time."""
    block, kwargs = subject.swappable.block, stream.all_kwargs[subject.number]
    subject.swappable.use({})
    for part in list_batches(as_stream(stream.hidden)):
        forward = functools.partial(run_block, block, stream.hidden[part], kwargs)
        yield capture_inputs(block, subject.linears, forward)


def _name_part(part: HeadPart) -> str:
    return f"{part.linear}.{part.role}.{part.head}"


def _list_variants(subject: Subject) -> dict[str, Mapping[str, Tensor]]:
    """What is quantized alone to see what of its error arrives: all of the block, each of its
    parts, and each head's share of those."""
    variants: dict[str, Mapping[str, Tensor]] = {WHOLE: subject.switched.blocks[SERVED]}
    variants |= subject.parts
    block = subject.swappable.block
    for part in subject.heads.parts if subject.heads is not None else ():
        if part.linear in subject.linears:
            weight = get_linear(block, part.linear).weight.data
            mixed = part.put(weight, subject.switched.weight(SERVED, part.linear))
            variants[_name_part(part)] = {f"{part.linear}.weight": mixed}
    return variants


def _describe_experts(subject: Subject, kind: UnitKind, arrived: Mapping[str, float]) -> LinearLook:
    """All experts as one."""
    assert kind.site
    return LinearLook(
        linear=kind.site,
        unit=kind.name,
        bits=bits_of(subject.widths[kind.linears[0]]),
        arrived=arrived[kind.site],
        split=None,
        calibrated=None,
        by_text=[],
        clip_alone=None,
        heads=[],
        channels=[],
        channel_count=0,
        carriers=[],
        tokens=[],
    )


def _describe(
    subject: Subject,
    kind: UnitKind,
    linear: str,
    found: LinearErrors,
    calibrated: LinearErrors,
    arrived: Mapping[str, float],
) -> tuple[LinearLook, Look]:
    """A linear as the answer has it, and as suspects are found in it."""
    texts, one = subject.texts, subject.switched.served[linear]
    weight = get_linear(subject.swappable.block, linear).weight.data
    scheme, choice = subject.search.scheme_of(linear), subject.search.choice_for(linear)
    columns = read_columns(
        found,
        calibrated.mean_size(),
        weight,
        None if choice is None else one.inputs,
        count_clipped(weight, one, subject.search, linear),
        scheme.group(weight.shape[1]),
    )
    heads = _describe_heads(subject, linear, weight, found, arrived)
    kinds = [
        [name_kind(position, subject.read(token)) for position, token in enumerate(window)]
        for window in texts.windows.tolist()
    ]
    owners = np.array(texts.owners)
    several = range(len(texts.names)) if len(texts.names) > 1 else ()
    whole = found.energy_by_window().sum()
    look = LinearLook(
        linear=linear,
        unit=kind.name,
        bits=scheme.bits,
        arrived=arrived[linear],
        split=_split(subject, found),
        calibrated=_split(subject, calibrated),
        by_text=[_split(subject, found, owners == text) for text in several],
        clip_alone=float(found.by_window(CLIPPED).sum() / whole) if whole else 0.0,
        heads=heads,
        channels=list_channels(columns),
        channel_count=weight.shape[1],
        carriers=list_carriers(found, texts, subject.read),
        tokens=share_tokens(found, kinds),
    )
    return look, Look(linear, arrived[linear], heads, columns)


def _split(subject: Subject, found: LinearErrors, here: Any = slice(None)) -> Split:
    """A linear's error by steps, on all windows or on some."""
    energy = found.energy_by_window()[here]
    errors = {state: found.by_window(state)[here] for state in STATES}
    return split_error(Resampler(len(energy), subject.seed), errors, energy)


def _describe_heads(
    subject: Subject,
    linear: str,
    weight: Tensor,
    found: LinearErrors,
    arrived: Mapping[str, float],
) -> list[HeadCauses]:
    """What each head has of a linear and of its error."""
    described = []
    for part in subject.heads.of(linear) if subject.heads is not None else ():
        sums = found.columns if part.role == "o" else found.rows
        errors = {state: float(sums[state][part.index].sum()) for state in STATES}
        whole = float(sums[SERVED].sum())
        rounding, scale, clip = split_plainly(errors, whole)
        described.append(
            HeadCauses(
                role=part.role,
                head=part.head,
                serves=part.serves,
                error=errors[SERVED] / whole if whole else 0.0,
                rounding=rounding,
                scale=scale,
                clip=clip,
                arrived=arrived[_name_part(part)],
                condition=find_condition(part.select(weight)),
            )
        )
    return described
