"""A linear's weight counted a few rows at a time: its 16 bits beside what is stored of it.

Rows come in any parts; nothing but counts and a number a group stays of them.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from awqscope.diagnose.studies.weights.answer import CUT_STEP
from awqscope.mixedprec.awq.arithmetic import Quantized

# What is above the limit by less is not cut: rounding a norm's weight to 16 bits moves the scales
# that are folded into it by up to 0.4%, after the clip was searched.
CUT = 1e-2
WORST_BY_ERROR, WORST_BY_REACH, WORST_BY_CUT = 24, 24, 8


@dataclass
class Tally:
    """Counts of one linear. columns: its inputs. group: how many of them share a scale. bits: of
    its codes, None where it is kept at 16. largest [K]: the largest |x| of every channel, if known.
    """

    columns: int
    group: int
    bits: int | None
    largest: Tensor | None
    low: float = math.inf
    high: float = -math.inf
    rows: int = 0
    cut_weights: int = 0
    distinct: int = 0
    sizes: list[Tensor] = field(default_factory=list)
    errors: list[Tensor] = field(default_factory=list)
    reaches: list[Tensor] = field(default_factory=list)
    cuts: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.weight = torch.zeros(self.columns, dtype=torch.float64)
        count = 0 if self.bits is None else 2**self.bits
        self.codes = torch.zeros(count, dtype=torch.int64)
        self.zeros = torch.zeros(count, dtype=torch.int64)

    def add(self, reference: Tensor, effective: Tensor) -> None:
        """Take in rows of the reference [n, K] and of what is stored, in the same basis."""
        self.rows += len(reference)
        self.low = min(self.low, float(reference.amin()))
        self.high = max(self.high, float(reference.amax()))
        self.weight += reference.abs().sum(0, dtype=torch.float64)
        difference = (effective - reference).abs_()
        self.sizes.append(self._by_group(reference).double().square_().sum(-1))
        self.errors.append(self._by_group(difference).double().square_().sum(-1))
        if self.largest is not None:
            self.reaches.append(self._by_group(difference.double() * self.largest).sum(-1))

    def add_codes(self, coded: Quantized) -> None:
        """Take in the codes of rows."""
        grouped = coded.codes.view(-1, self.group).long()
        count = len(self.codes)
        self.codes += torch.bincount(grouped.view(-1), minlength=count)
        self.zeros += torch.bincount(coded.zeros.reshape(-1).long(), minlength=count)
        present = torch.zeros(len(grouped), count, dtype=torch.bool)
        self.distinct += int(present.scatter_(1, grouped, True).sum())

    def add_clip(self, scaled: Tensor, limit: Tensor) -> None:
        """Take in what the clip cuts of rows: scaled [n, K], as they are before it; limit [n, G],
        the largest that is kept."""
        sizes = self._by_group(scaled).abs()
        self.cut_weights += int((sizes > limit[:, :, None] * (1 + CUT)).sum())
        reach = sizes.amax(-1)
        kept = torch.where(reach > 0, limit / reach, torch.ones_like(reach))
        self.cuts.append((1 - kept).clamp_(min=0))

    def _by_group(self, rows: Tensor) -> Tensor:
        return rows.reshape(len(rows), -1, self.group)

    def count_steps(self) -> list[int]:
        """Groups by the share of their range that is cut: none, then one step, two …; autoawq tries
        whole steps alone."""
        steps = (torch.cat(self.cuts).flatten() / CUT_STEP).round()
        return torch.bincount(steps.long()).tolist()

    def relative(self) -> Tensor:
        """Every group's error [N, G], as `diagnose/inside/weights.py` defines it."""
        size, error = torch.cat(self.sizes).sqrt(), torch.cat(self.errors).sqrt()
        least = max(float(size.square().mean().sqrt()), torch.finfo(torch.float64).tiny)
        return error / size.clamp(min=least)

    def choose_worst(self) -> list[tuple[int, int]]:
        """Row and group of those worth a look: by error, by reach, by cut; each once."""
        ranked = [(self.relative(), WORST_BY_ERROR)]
        if self.reaches:
            ranked.append((torch.cat(self.reaches), WORST_BY_REACH))
        if self.cuts:
            ranked.append((torch.cat(self.cuts), WORST_BY_CUT))
        chosen: list[tuple[int, int]] = []
        for values, count in ranked:
            groups = values.shape[1]
            order = values.flatten().argsort(descending=True, stable=True)
            more = ((at // groups, at % groups) for at in order[: count + len(chosen)].tolist())
            fresh = [at for at in more if at not in chosen and float(values[at]) > 0]
            chosen += fresh[:count]
        return chosen
