"""Tasks held to a policy: each by the interval of what the model lost on it, paired by sample.

A gate that judges many tasks fails some by chance. So the 2.5% in which a lower bound may be too
high are shared among the tasks by Holm's procedure. To pass all tasks must pass, which needs no
such care: the upper bound of each keeps its 2.5%.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

from awqscope.diagnose.gate.criteria import MAX_DROP, Criterion
from awqscope.diagnose.gate.evidence import Evidence
from awqscope.diagnose.gate.findings import Finding, Missing
from awqscope.diagnose.gate.policy import Limit, TaskLimits
from awqscope.diagnose.statistics.bootstrap import TAIL
from awqscope.diagnose.statistics.flips import adjust, step_down
from awqscope.diagnose.studies.tasks.pairing import Paired, Weighed, pair_task
from awqscope.mixedprec.errors import InputError

# A number so near its limit that it would take ten thousand times the standard error's squared
# samples is not told apart from it.
MOST_STEPS = 1e4


@dataclass(frozen=True)
class TaskFinding:
    """What is known of one task. finding: the drop, or why there is none. weighed: the pair behind
    it. samples: how many samples would decide it, if it goes on as it does; None where that is not
    known."""

    limit: Limit
    finding: Finding | Missing
    weighed: Weighed | None = None
    samples: int | None = None


def judge_tasks(policy: TaskLimits, evidence: Evidence) -> list[TaskFinding]:
    """Every task that the policy limits, with the interval that decides it; in the order of the
    answer, and then those that the policy names and that were not run."""
    limits = list_limits(policy, evidence)
    if isinstance(evidence.tasks, Missing):
        return [TaskFinding(limit, evidence.tasks) for limit in limits]
    pairs: dict[str, Paired] = {}
    missing: dict[str, Missing] = {}
    for limit in limits:
        task = evidence.tasks.find(limit.of)
        try:
            if task is None:
                missing[limit.of] = Missing("it was not run")
            else:
                metric = policy.metrics.get(limit.of)
                pairs[limit.of] = pair_task(task, evidence.subject, metric)
        except InputError as error:
            missing[limit.of] = Missing(error.what.removeprefix(f"{limit.of}: "))
    tail = choose_tail(pairs, {limit.of: limit.value for limit in limits})
    chances = dict(zip(pairs, adjust([pair.chance for pair in pairs.values()]), strict=True))
    return [
        TaskFinding(limit, missing[limit.of])
        if limit.of in missing
        else weigh_task(limit, Weighed(pairs[limit.of], chances[limit.of]), tail)
        for limit in limits
    ]


def list_limits(policy: TaskLimits, evidence: Evidence) -> list[Limit]:
    """A limit for every task that is judged; one for none in particular where tasks are limited and
    none was run."""
    run = [] if isinstance(evidence.tasks, Missing) else [t.name for t in evidence.tasks.tasks]
    names = [name for name in run if policy.every is not None or name in policy.named]
    names += [name for name in policy.named if name not in run]
    found = []
    for name in names:
        value = policy.named.get(name, policy.every)
        assert value is not None
        found.append(Limit(MAX_DROP, value, name))
    if not found and policy.every is not None:
        found.append(Limit(MAX_DROP, policy.every))
    return found


def choose_tail(pairs: Mapping[str, Paired], limits: Mapping[str, float]) -> float:
    """The tail of each task's lower bound that makes the decisions those of Holm's procedure."""

    def count_failing(tail: float) -> int:
        return sum(pair.bound(tail).low > limits[name] for name, pair in pairs.items())

    return step_down(len(pairs), count_failing)


def weigh_task(limit: Limit, weighed: Weighed, tail: float) -> TaskFinding:
    """A task's drop with its interval; the lower bound leaves out `tail`."""
    pair = weighed.pair
    drop = pair.bound(tail)
    worse, better = pair.changed
    of = f"of {pair.samples:,} samples {worse:,} worse and {better:,} better"
    if math.isfinite(drop.low) and math.isfinite(drop.high):
        finding = Finding(drop.value, drop.low, drop.high, pair.samples, of=of)
    else:
        finding = Finding(drop.value, -math.inf, math.inf, pair.samples, of=of)
    titled = replace(limit, criterion=name_criterion(limit.criterion, pair))
    return TaskFinding(titled, finding, weighed, samples_to_decide(pair, limit.value, tail))


def name_criterion(criterion: Criterion, pair: Paired) -> Criterion:
    """The criterion as it is written of a task: a share right in points, any other score plain."""
    title = f"{pair.task}, {pair.metric}"
    if pair.flips is not None:
        return replace(criterion, title=title)
    return replace(criterion, title=f"{title}, lost", form="+.4f")


def samples_to_decide(pair: Paired, limit: float, tail: float) -> int | None:
    """How many samples would decide a task whose shares stay what they are. The score of a drop
    grows as the root of the samples, so that its square says how many are lacking."""
    steps = pair.steps_from(limit)
    wanted = NormalDist().inv_cdf(1 - (tail if steps > 0 else TAIL))
    if not steps or wanted / abs(steps) > MOST_STEPS:
        return None
    return math.floor(pair.samples * (wanted / steps) ** 2) + 1
