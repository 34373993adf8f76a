"""How often does the gate decide wrongly?

`python -m examples.benchmarks.gate [RUN] [--trials N]`: takes the windows of a run (by default the
sample's) for all the text there is, so that every true number is known. Runs of so many windows are
drawn from them with replacement and judged, with the limit set at the true number and near it. On
the limit either decision is wrong: nominally each comes in 2.5% of the runs. Beside it stands the
plain percentile interval, which the gate would use if it took no account of few windows.

Then tasks: gates of one, five and twenty tasks that each truly lose just what the limit allows, of
so many samples each. A gate fails where one task does, and passes where all do; beside it stands
one that gives every task its whole 2.5%, without Holm's procedure.
"""

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from awqscope.diagnose.gate.criteria import SECTIONS, Criterion
from awqscope.diagnose.gate.evidence import read_finished
from awqscope.diagnose.gate.findings import (
    Finding,
    Measured,
    Missing,
    judge_windows,
    read_measured,
    score_columns,
)
from awqscope.diagnose.gate.policy import Limit
from awqscope.diagnose.gate.verdict import FAIL, INCONCLUSIVE, PASS, weigh
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.statistics.bootstrap import TAIL, bounded
from awqscope.diagnose.statistics.flips import Flips, bound_drop, step_down

SAMPLE = Path(__file__).parents[2] / "reports" / "sample"
MEASURES = ("ppl_ratio", "kl", "kl_p999", "top1_agreement")
SIZES = (8, 16, 40, 128)
SAMPLES, TASKS = (100, 400, 1600), (1, 5, 20)
# Of each task: the share of samples that turn, and the limit.
TURNED, DROP = 0.1, 0.02
# The true number's distance from the limit, in standard errors of a run; above 0 it is on the bad
# side.
DISTANCES = (-4, -2, 0, 2, 4)
JUDGED: Mapping[str, Criterion] = {c.measure: c for c in SECTIONS["limits"]}


def draw(scores: Measured, windows: np.ndarray) -> Measured:
    """A run of these windows."""
    return Measured(
        scores.nll_reference[windows],
        scores.nll[windows],
        scores.kl[windows],
        scores.top1[windows],
        scores.delta_p[windows],
    )


def judge(scores: Measured, seed: int) -> dict[str, Finding]:
    """The numbers of a run, by measure."""
    single = {}
    for name, finding in judge_windows(scores, seed, only=MEASURES).items():
        assert not isinstance(finding, Missing)
        single[name] = finding
    return single


def judge_plain(scores: Measured, limit: float, seed: int) -> str:
    """What the plain percentile interval of mean KL would decide."""
    rng = np.random.default_rng(seed)
    kl = scores.kl.mean(axis=1, dtype=np.float64)
    drawn = kl[rng.integers(0, len(kl), (2000, len(kl)))].mean(axis=1)
    found = bounded(float(kl.mean()), drawn, TAIL, TAIL)
    return weigh(Finding(found.value, found.low, found.high), Limit(JUDGED["kl"], limit))


def simulate(population: Measured, size: int, trials: int) -> None:
    """Print how often runs of `size` windows are decided, and how."""
    rng = np.random.default_rng(size)
    truth = judge(population, 0)
    runs = [rng.integers(0, len(population.nll), size) for _ in range(trials)]
    found = [judge(draw(population, windows), 0) for windows in runs]
    for name in MEASURES:
        errors = np.std([one[name].value for one in found])
        criterion = JUDGED[name]
        for distance in DISTANCES:
            sign = 1 if criterion.upper else -1
            limit = Limit(criterion, truth[name].value - sign * distance * errors)
            counts = Counter(weigh(one[name], limit) for one in found)
            write_row(size, name, f"{distance:+d}", counts, trials)
    plain = Counter(
        judge_plain(draw(population, windows), truth["kl"].value, trial)
        for trial, windows in enumerate(runs)
    )
    write_row(size, "kl, plain", "+0", plain, trials)


def simulate_tasks(samples: int, tasks: int, trials: int) -> None:
    """Print how often gates of so many tasks are decided, each of `samples` samples, that lose just
    what is allowed."""
    rng = np.random.default_rng(samples + tasks)
    shares = [(TURNED + DROP) / 2, (TURNED - DROP) / 2, 1 - TURNED]
    counts: dict[str, Counter[str]] = {"tasks": Counter(), "uncorrected": Counter()}
    for _ in range(trials):
        turned = rng.multinomial(samples, shares, size=tasks)
        flips = [Flips(samples, int(worse), int(better)) for worse, better, _ in turned]

        def count_failing(tail: float, flips: list[Flips] = flips) -> int:
            return sum(bound_drop(each, tail).low > DROP for each in flips)

        for name, tail in (("tasks", step_down(tasks, count_failing)), ("uncorrected", TAIL)):
            found = [bound_drop(each, tail) for each in flips]
            fails = any(each.low > DROP for each in found)
            passes = all(each.high <= DROP for each in found)
            counts[name][FAIL if fails else PASS if passes else INCONCLUSIVE] += 1
    for name, counted in counts.items():
        write_row(samples, f"{tasks} {name}", "+0", counted, trials)


def write_row(size: int, name: str, distance: str, counts: Counter[str], trials: int) -> None:
    """A line of the result."""
    shares = (f"{counts[outcome] / trials:12.1%}" for outcome in (FAIL, PASS, INCONCLUSIVE))
    print(f"{size:7d}  {name:<16s}{distance:>9s}{''.join(shares)}", flush=True)


def main() -> None:
    """Run the simulation on what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m examples.benchmarks.gate")
    parser.add_argument("run", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--trials", type=int, default=2000)
    given = parser.parse_args()
    run = RunDirectory(given.run)
    definition = read_finished(run).ppl_definition
    table = run.read_table("tokens", score_columns("mixed"))
    scores = read_measured(table, "mixed", definition.windows, definition.seq_len)
    if isinstance(scores, Missing):
        parser.error(scores.reason)
    print(f"{given.run}: {len(scores.nll)} windows, {given.trials} runs drawn of each size")
    print("True number's distance from the limit in standard errors; above 0 it should fail.")
    print("windows  number          distance       fails      passes   undecided")
    for size in SIZES:
        simulate(scores, size, given.trials)
    print("samples  tasks           distance       fails      passes   undecided")
    for samples in SAMPLES:
        for tasks in TASKS:
            simulate_tasks(samples, tasks, given.trials)


if __name__ == "__main__":
    main()
