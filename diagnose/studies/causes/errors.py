"""The error of each linear's output, on the inputs that the reference gives it, taken apart.

With the error ΔW [N, K] of a weight and its inputs X [T, K], the error of the output is E = X·ΔWᵀ,
and Σ E² has an exact part for every token (a row of E), for every output row (a column of E), and
for every input channel j: Σ E·(x_j·ΔW_jᵀ), which is what the whole error has along what this
channel contributes. The parts of all channels add up to Σ E², because the contributions add up to
E. They are set beside how large activations and weights are, and what AWQ chose for them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from awqscope.diagnose.statistics.bootstrap import Floats
from awqscope.diagnose.studies.causes.answer import Carrier, Channel, TokenShare
from awqscope.diagnose.studies.causes.switches import CLIPPED, SERVED, STATES, Switched
from awqscope.diagnose.studies.causes.texts import Texts, name_kind
from awqscope.mixedprec.models.forward import get_linear

Inputs = Mapping[str, Tensor]

# Channels that are kept: with the largest parts of the error, and of the rest.
WORST_CHANNELS, OTHER_CHANNELS = 64, 128
# A token carries a massive activation from so many times the median token's largest |x| on.
MASSIVE = 10.0
MOST_CARRIERS = 8
KINDS = ("first", "delimiter", "word")


@dataclass
class LinearErrors:
    """What is summed of a linear over windows, in float64. energy: Σ|W·x|² of each window; errors:
    state -> Σ|ΔW·x|² of each window; rows [N] and columns [K]: state -> the same by output row and
    by input channel. tokens: Σ|ΔW·x|² of each token as served, [n, T]. size: Σ|x| by channel;
    largest: the largest |x| by channel, `where` the token that has it, all windows' counted in a
    row. peaks: by window, each token's largest |x| [T] and its channel [T]."""

    energy: list[float] = field(default_factory=list)
    errors: dict[str, list[float]] = field(default_factory=dict)
    rows: dict[str, Tensor] = field(default_factory=dict)
    columns: dict[str, Tensor] = field(default_factory=dict)
    tokens: list[Tensor] = field(default_factory=list)
    peaks: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    size: Tensor | None = None
    largest: Tensor | None = None
    where: Tensor | None = None
    count: int = 0

    def add(self, inputs: Tensor, weight: Tensor, states: Mapping[str, Tensor]) -> None:
        """Take in a window's inputs [T, K]. weight: the reference's [N, K]; states: the same in
        STATES, and CLIPPED."""
        self._note_inputs(inputs)
        self.energy.append(_energy(inputs @ weight.T))
        for state, other in states.items():
            delta = other - weight
            error = inputs @ delta.T
            self.errors.setdefault(state, []).append(_energy(error))
            if state == CLIPPED:
                continue
            _sum_into(self.rows, state, error.square().sum(0, dtype=torch.float64))
            along = (error @ delta).mul_(inputs)
            _sum_into(self.columns, state, along.sum(0, dtype=torch.float64))
            if state == SERVED:
                self.tokens.append(error.square().sum(1, dtype=torch.float64))

    def _note_inputs(self, inputs: Tensor) -> None:
        absolute = inputs.abs()
        peaks, channels = absolute.max(1)
        self.peaks.append((peaks, channels))
        most, where = absolute.max(0)
        where = where + self.count
        total = absolute.sum(0, dtype=torch.float64)
        self.count += len(inputs)
        if self.size is None or self.largest is None or self.where is None:
            self.size, self.largest, self.where = total, most, where
            return
        self.size = self.size + total
        self.where = torch.where(most > self.largest, where, self.where)
        self.largest = torch.maximum(self.largest, most)

    def mean_size(self) -> Tensor:
        """Mean |x| of each channel."""
        assert self.size is not None
        return self.size / self.count

    def by_window(self, state: str) -> Floats:
        """The error of each window."""
        return torch.tensor(self.errors[state], dtype=torch.float64).numpy()

    def energy_by_window(self) -> Floats:
        return torch.tensor(self.energy, dtype=torch.float64).numpy()


def _energy(values: Tensor) -> float:
    return float(values.square().sum(dtype=torch.float64))


def _sum_into(sums: dict[str, Tensor], state: str, values: Tensor) -> None:
    sums[state] = sums[state] + values if state in sums else values


def capture_inputs(
    block: nn.Module, linears: Sequence[str], forward: Callable[[], Tensor]
) -> Inputs:
    """What each linear is given [n, T, K] during a forward of the block, which gives its output
    [n, T, d]."""
    inputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, args: inputs.__setitem__(name, args[0])

    handles = [block.get_submodule(name).register_forward_pre_hook(keep(name)) for name in linears]
    try:
        count, length, _ = forward().shape
    finally:
        for handle in handles:
            handle.remove()
    # Some blocks run their MLP on the tokens of all windows in a row.
    return {name: values.reshape(count, length, -1) for name, values in inputs.items()}


def measure_errors(
    block: nn.Module, switched: Switched, linears: Sequence[str], batches: Iterator[Inputs]
) -> dict[str, LinearErrors]:
    """The errors of the linears' outputs on what `batches` gives them. block: with the reference's
    weights."""
    found = {name: LinearErrors() for name in linears}
    weights = {name: get_linear(block, name).weight.data for name in linears}
    states = {
        name: {state: switched.weight(state, name) for state in (*STATES, CLIPPED)}
        for name in linears
    }
    for batch in batches:
        for name in linears:
            for window in batch[name]:
                found[name].add(window, weights[name], states[name])
    return found


@dataclass(frozen=True)
class Columns:
    """What is known of a linear's input channels, [K] each; `scale` is None where it is not scaled.
    strength: mean |w| as it is rounded, scales in it. error: shares of the output's error, which
    add up to 1. group: channels a weight group."""

    activation: Tensor
    largest: Tensor
    where: Tensor
    calibrated: Tensor
    weight: Tensor
    strength: Tensor
    scale: Tensor | None
    clipped: Tensor
    error: Tensor
    group: int

    def by_group(self, values: Tensor) -> Tensor:
        """Values of channels [K] as [groups, channels]."""
        return values.view(-1, self.group)


def read_columns(
    found: LinearErrors,
    calibrated: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    clipped: Tensor,
    group: int,
) -> Columns:
    """The channels of a linear. calibrated: mean |x| [K] on calibration windows; weight: the
    reference's [N, K]; scale: AWQ's [K]; clipped: shares of weights that are cut [K]."""
    assert found.largest is not None and found.where is not None
    error = found.columns[SERVED]
    size = weight.abs().mean(0)
    return Columns(
        activation=found.mean_size(),
        largest=found.largest,
        where=found.where,
        calibrated=calibrated,
        weight=size,
        strength=size if scale is None else size * scale,
        scale=scale,
        clipped=clipped,
        error=error / error.sum().clamp(min=torch.finfo(torch.float64).tiny),
        group=group,
    )


def list_channels(columns: Columns) -> list[Channel]:
    """The channels with the largest parts of the error, largest first, and others spread evenly
    over the rest."""
    order = columns.error.argsort(descending=True, stable=True)
    worst, rest = order[:WORST_CHANNELS], order[WORST_CHANNELS:].sort().values
    some = min(len(rest), OTHER_CHANNELS)
    kept = torch.cat([worst, rest[torch.arange(some) * len(rest) // max(some, 1)]])
    return [
        Channel(
            channel=channel,
            activation=_round(columns.activation[channel]),
            largest=_round(columns.largest[channel]),
            calibrated=_round(columns.calibrated[channel]),
            weight=_round(columns.weight[channel]),
            scale=None if columns.scale is None else _round(columns.scale[channel]),
            clipped=_round(columns.clipped[channel]),
            group=channel // columns.group,
            error=_round(columns.error[channel]),
        )
        for channel in kept.tolist()
    ]


def _round(value: Tensor) -> float:
    """Five digits, which is what a chart shows of it: there are many."""
    return float(f"{float(value):.5g}")


def list_carriers(found: LinearErrors, texts: Texts, read: Callable[[int], str]) -> list[Carrier]:
    """The tokens that carry massive activations into a linear, the largest first. read: the text of
    a token id."""
    peaks = torch.stack([values for values, _ in found.peaks])
    channels = torch.stack([channels for _, channels in found.peaks])
    typical = float(peaks.median())
    if typical <= 0:
        return []
    sizes, places = peaks.flatten().sort(descending=True, stable=True)
    carriers = []
    for size, place in zip(sizes[:MOST_CARRIERS].tolist(), places.tolist(), strict=False):
        if size < MASSIVE * typical:
            break
        window, position = divmod(place, peaks.shape[1])
        text = read(int(texts.windows[window, position]))
        carriers.append(
            Carrier(
                channel=int(channels[window, position]),
                size=size,
                times=size / typical,
                window=texts.numbers[window],
                position=position,
                text=text,
                source=texts.names[texts.owners[window]],
                kind=name_kind(position, text),
            )
        )
    return carriers


def share_tokens(found: LinearErrors, kinds: Sequence[Sequence[str]]) -> list[TokenShare]:
    """How a linear's output error is spread over kinds of tokens. kinds: of each window's
    tokens."""
    errors = torch.stack(found.tokens)
    total, count = float(errors.sum()), errors.numel()
    shares = []
    for kind in KINDS:
        here = torch.tensor([[each == kind for each in window] for window in kinds])
        held = float(errors[here].sum())
        shares.append(
            TokenShare(
                kind=kind,
                tokens=float(here.sum()) / count,
                error=held / total if total else 0.0,
            )
        )
    return shares
