"""Activation statistics of each block, for the reference and the uniform model, side by side.

Sites are the inputs of the block's units and its output. Everything is accumulated batch by batch
in float64; quantiles come from a fixed logarithmic histogram, so that they do not depend on how the
text is cut into batches (their error is below 5% of the value). Sums are kept by batch and taken in
the text's order at the end: how it is cut into chunks changes no bit of them.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from awqscope.diagnose.runs.tables import QUANTILES

# |x| from 2^-24 to 2^24 in steps of 2^(1/8), by sign; what is smaller counts as zero.
STEPS_AN_OCTAVE = 8
OCTAVES = 24
BINS = 2 * OCTAVES * STEPS_AN_OCTAVE
ELEMENTS_A_STEP = 2**17
OUTLIERS = 8


def histogram_edges() -> Tensor:
    """Edges [2·BINS + 2] of the histogram, negative to positive, the bin around zero included."""
    positive = 2.0 ** (torch.arange(BINS + 1, dtype=torch.float64) / STEPS_AN_OCTAVE - OCTAVES)
    return torch.cat([-positive.flip(0), positive])


@dataclass
class Moments:
    """Running statistics of one site in one model."""

    count: int = 0
    absolute_max: float = 0.0
    powers: list[Tensor] = field(default_factory=list)
    histogram: Tensor = field(
        default_factory=lambda: torch.zeros(2 * BINS + 1, dtype=torch.float64)
    )
    channel_max: Tensor | None = None

    def begin(self) -> None:
        """Another batch begins."""
        self.powers.append(torch.zeros(4, dtype=torch.float64))

    def add(self, values: Tensor) -> None:
        """Take in activations [..., channels] of the batch."""
        flat = values.reshape(-1, values.shape[-1])
        largest = flat.abs().amax(0).cpu()
        self.channel_max = (
            largest if self.channel_max is None else torch.maximum(self.channel_max, largest)
        )
        self.absolute_max = float(self.channel_max.max())
        self.count += flat.numel()
        square = flat * flat
        sums = [flat.sum(), square.sum(), (square * flat).sum(), (square * square).sum()]
        self.powers[-1] += torch.stack(sums).double().cpu()
        exponent = flat.abs().log2().mul_(STEPS_AN_OCTAVE).floor_() + OCTAVES * STEPS_AN_OCTAVE
        step = exponent.clamp_(-1, BINS - 1).add_(1).mul_(flat.sign())
        self.histogram += torch.bincount(
            (step.flatten() + BINS).long(), minlength=2 * BINS + 1
        ).cpu()

    def merge(self, state: dict[str, Tensor], key: str) -> None:
        """Add the moments that `ActivationLog.state` stored under `key`."""
        largest = state[f"channel_max.{key}"]
        self.channel_max = (
            largest if self.channel_max is None else torch.maximum(self.channel_max, largest)
        )
        self.absolute_max = float(self.channel_max.max())
        self.count += int(state[f"count.{key}"])
        self.powers += state[f"powers.{key}"].unbind()
        self.histogram = self.histogram + state[f"histogram.{key}"]

    def summarise(self) -> dict[str, float]:
        """abs_max, mean, rms, kurtosis (3 for a normal distribution) and quantiles."""
        m1, m2, m3, m4 = (torch.stack(self.powers).sum(0) / max(self.count, 1)).tolist()
        variance = max(m2 - m1 * m1, 1e-30)
        fourth = m4 - 4 * m1 * m3 + 6 * m1 * m1 * m2 - 3 * m1**4
        summary = {
            "abs_max": self.absolute_max,
            "mean": m1,
            "rms": m2**0.5,
            "kurtosis": fourth / variance**2,
        }
        edges = histogram_edges()
        reached = self.histogram.cumsum(0) / max(self.count, 1)
        for quantile in QUANTILES:
            position = int(torch.searchsorted(reached, quantile).clamp(max=2 * BINS))
            summary[f"q{quantile:g}"] = float((edges[position] + edges[position + 1]) / 2)
        return summary


@dataclass
class SiteStatistics:
    """Both models at one site, and the error between them."""

    reference: Moments = field(default_factory=Moments)
    uniform: Moments = field(default_factory=Moments)
    # By batch: of the reference, of the difference, of uniform, and their product.
    energies: list[Tensor] = field(default_factory=list)

    def begin(self) -> None:
        """Another batch begins."""
        self.reference.begin()
        self.uniform.begin()
        self.energies.append(torch.zeros(4, dtype=torch.float64))

    def add(self, reference: Tensor, uniform: Tensor) -> None:
        """Take in the same tokens of the batch in both models."""
        self.reference.add(reference)
        self.uniform.add(uniform)
        sums = [
            reference.double().square().sum(),
            (reference - uniform).double().square().sum(),
            uniform.double().square().sum(),
            (reference.double() * uniform).sum(),
        ]
        self.energies[-1] += torch.stack(sums).cpu()

    def error(self) -> dict[str, float]:
        """sqnr (dB), cosine and relative_mse of the uniform model against the reference."""
        signal, noise, energy, product = torch.stack(self.energies).sum(0).tolist()
        signal = max(signal, 1e-30)
        relative = noise / signal
        return {
            "sqnr": -10 * torch.log10(torch.tensor(max(relative, 1e-20))).item(),
            "cosine": product / max((signal * energy) ** 0.5, 1e-30),
            "relative_mse": relative,
        }


class ActivationLog:
    """Statistics by (block, site): the observer of a sweep."""

    def __init__(self) -> None:
        self.sites: dict[tuple[int, str], SiteStatistics] = {}

    def observe(self, block: int, site: str, reference: Tensor, uniform: Tensor) -> None:
        """Add a batch of both models' activations, as `run_sweep` gives it. A few tokens at a time:
        the temporaries of a whole batch would be the sweep's largest."""
        statistics = self.sites.setdefault((block, site), SiteStatistics())
        statistics.begin()
        tokens = max(1, ELEMENTS_A_STEP // reference.shape[-1])
        for ours, theirs in zip(
            reference.flatten(0, -2).split(tokens),
            uniform.flatten(0, -2).split(tokens),
            strict=True,
        ):
            statistics.add(ours, theirs)

    def state(self) -> dict[str, Tensor]:
        """Everything accumulated, as arrays: what `merge` takes."""
        state = {}
        for (block, site), both in self.sites.items():
            key = f"{block}.{site}"
            state[f"pair.{key}"] = torch.stack(both.energies)
            for name, moments in (("reference", both.reference), ("uniform", both.uniform)):
                assert moments.channel_max is not None
                state[f"count.{key}.{name}"] = torch.tensor(moments.count)
                state[f"powers.{key}.{name}"] = torch.stack(moments.powers)
                state[f"histogram.{key}.{name}"] = moments.histogram
                state[f"channel_max.{key}.{name}"] = moments.channel_max
        return state

    def merge(self, state: dict[str, Tensor]) -> None:
        """Add what another log accumulated on the tokens that follow."""
        for name, energies in state.items():
            if not name.startswith("pair."):
                continue
            key = name.removeprefix("pair.")
            block, _, site = key.partition(".")
            both = self.sites.setdefault((int(block), site), SiteStatistics())
            both.energies += energies.unbind()
            both.reference.merge(state, f"{key}.reference")
            both.uniform.merge(state, f"{key}.uniform")

    def rows(self, apart: Collection[tuple[int, str]] = ()) -> list[dict[str, Any]]:
        """A row a block, site and model, with the error of the pair and the worst channels.

        apart: (block, site) at which the models hold different quantities; no error is given."""
        rows = []
        for (block, site), both in sorted(self.sites.items()):
            for name, moments in (("reference", both.reference), ("uniform", both.uniform)):
                assert moments.channel_max is not None
                top = moments.channel_max.topk(min(OUTLIERS, len(moments.channel_max)))
                rows.append(
                    {
                        "block": block,
                        "site": site,
                        "model": name,
                        **moments.summarise(),
                        "channel_median": float(moments.channel_max.median()),
                        "outlier_channels": top.indices.tolist(),
                        "outlier_values": top.values.tolist(),
                        **(dict.fromkeys(both.error()) if (block, site) in apart else both.error()),
                    }
                )
        return rows

    def arrays(self) -> dict[str, Tensor]:
        """histogram.BLOCK.SITE.MODEL (counts; edges under histogram_edges) and
        channel_max.BLOCK.SITE.MODEL."""
        arrays = {"histogram_edges": histogram_edges().float()}
        for (block, site), both in sorted(self.sites.items()):
            for name, moments in (("reference", both.reference), ("uniform", both.uniform)):
                assert moments.channel_max is not None
                arrays[f"histogram.{block}.{site}.{name}"] = moments.histogram.float()
                arrays[f"channel_max.{block}.{site}.{name}"] = moments.channel_max.clone()
        return arrays
