"""Two models of a run on one task, paired by sample: what turned, and how surely it is worse.

Scores of 0 and 1 are right or wrong: McNemar's exact test and the score interval
(`diagnose/statistics/flips.py`). Any other scores, such as F1, are paired as differences, with
Student's t test and interval.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

from awqscope.diagnose.runs.record import REFERENCE
from awqscope.diagnose.statistics.bootstrap import TAIL, Estimate
from awqscope.diagnose.statistics.flips import (
    Flips,
    adjust,
    bound_drop,
    bound_mean,
    mcnemar,
    mean_chance,
    score,
)
from awqscope.diagnose.studies.tasks.answer import TaskAnswer, Tasks
from awqscope.mixedprec.errors import InputError


@dataclass(frozen=True)
class Paired:
    """A model beside the reference on a task. reference, model: scores of the samples that both
    have, in one order, turned so that more is better; alone: how many samples only one has."""

    task: str
    metric: str
    name: str
    reference: tuple[float, ...]
    model: tuple[float, ...]
    higher_is_better: bool = True
    alone: int = 0

    @cached_property
    def flips(self) -> Flips | None:
        """What turned, where scores are right or wrong; else None."""
        if not {*self.reference, *self.model} <= {0.0, 1.0}:
            return None
        pairs = list(zip(self.reference, self.model, strict=True))
        return Flips(len(pairs), pairs.count((1.0, 0.0)), pairs.count((0.0, 1.0)))

    @property
    def samples(self) -> int:
        return len(self.reference)

    @property
    def changed(self) -> tuple[int, int]:
        """How many samples score worse than with the reference, and how many better."""
        pairs = list(zip(self.reference, self.model, strict=True))
        return sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)

    @property
    def means(self) -> tuple[float, float]:
        """The mean scores of reference and model, as lm-eval has them."""
        sign = 1 if self.higher_is_better else -1
        return (
            sign * sum(self.reference) / self.samples,
            sign * sum(self.model) / self.samples,
        )

    def bound(self, low_tail: float = TAIL, high_tail: float = TAIL) -> Estimate:
        """How much worse the model's mean score is, with its interval."""
        if self.flips is not None:
            return bound_drop(self.flips, low_tail, high_tail)
        lost = [a - b for a, b in zip(self.reference, self.model, strict=True)]
        return bound_mean(lost, low_tail, high_tail)

    def steps_from(self, drop: float) -> float:
        """How many standard errors the observed drop is above a supposed one; 0 where that cannot
        be told."""
        if self.flips is not None:
            return score(self.flips, drop)
        estimate = self.bound()
        half = estimate.high - estimate.value
        if not (math.isfinite(half) and half > 0):
            return 0.0
        return (estimate.value - drop) / half * NormalDist().inv_cdf(1 - TAIL)

    @cached_property
    def chance(self) -> float:
        """The two-sided p of no difference: McNemar's exact test, or Student's t."""
        if self.flips is not None:
            return mcnemar(self.flips)
        return mean_chance([a - b for a, b in zip(self.reference, self.model, strict=True)])


def pair_task(task: TaskAnswer, model: str, metric: str | None = None) -> Paired:
    """A model beside the reference on a task, by `metric` or the task's first. InputError where one
    of them has no scores, and where they were not asked the same."""
    lacking = next((name for name in (REFERENCE, model) if name not in task.models), None)
    if lacking is not None:
        raise InputError(f"{task.name} was not run on {lacking}", "run the task again")
    if not task.metrics:
        raise InputError(f"{task.name} has no score a sample", "choose another task")
    metric = metric or task.metrics[0]
    if metric not in task.metrics:
        known = ", ".join(task.metrics)
        raise InputError(f"{task.name} has no metric {metric}", f"it has {known}")
    ours, theirs = task.models[REFERENCE], task.models[model]
    sign = 1 if task.higher_is_better.get(metric, True) else -1
    scores = dict(zip(theirs.samples, theirs.scores[metric], strict=True))
    hashes = dict(zip(theirs.samples, theirs.hashes, strict=True))
    pairs = []
    told = zip(ours.samples, ours.hashes, ours.scores[metric], strict=True)
    for sample, asked, scored in told:
        if sample not in scores:
            continue
        if hashes[sample] != asked:
            raise InputError(
                f"{task.name}: {REFERENCE} and {model} were not asked the same in {sample}",
                "run both with the same documents, prompts and number of shots",
            )
        pairs.append((sign * scored, sign * scores[sample]))
    if not pairs:
        raise InputError(
            f"{task.name}: {REFERENCE} and {model} have no sample in common", "run both again"
        )
    first, second = zip(*pairs, strict=True)
    alone = len(ours.samples) + len(theirs.samples) - 2 * len(pairs)
    return Paired(task.name, metric, model, first, second, sign > 0, alone)


@dataclass(frozen=True)
class Weighed:
    """A pair with its p, adjusted for all pairs of the same model that were looked at (Holm)."""

    pair: Paired
    adjusted: float


def weigh_tasks(tasks: Tasks) -> tuple[list[Weighed], list[str]]:
    """Every task's first metric for every model but the reference, model by model; and what could
    not be paired, in words."""
    names = dict.fromkeys(name for task in tasks.tasks for name in task.models if name != REFERENCE)
    found: list[Weighed] = []
    failed: list[str] = []
    for name in names:
        pairs = []
        for task in tasks.tasks:
            if name not in task.models:
                continue
            try:
                pairs.append(pair_task(task, name))
            except InputError as error:
                failed.append(error.what)
        chances = adjust([pair.chance for pair in pairs])
        found += [Weighed(pair, p) for pair, p in zip(pairs, chances, strict=True)]
    return found, failed
