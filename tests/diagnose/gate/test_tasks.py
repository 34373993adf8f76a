"""Limits on tasks: what a policy may say, how each is decided, and how often that is wrong."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqscope.diagnose.gate.evidence import NO_TASKS, Evidence, read_evidence
from awqscope.diagnose.gate.findings import Finding, Missing
from awqscope.diagnose.gate.policy import load_policy, parse_policy
from awqscope.diagnose.gate.tasks import choose_tail, samples_to_decide
from awqscope.diagnose.gate.verdict import FAIL, INCONCLUSIVE, PASS, GateVerdict, decide
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.statistics.bootstrap import TAIL
from awqscope.diagnose.statistics.flips import Flips, mcnemar, score
from awqscope.diagnose.studies.tasks.answer import TaskAnswer, digest_widths
from awqscope.diagnose.studies.tasks.pairing import Paired, pair_task
from awqscope.mixedprec.errors import InputError
from tests.help.runs import change_record, write_run
from tests.help.tasks import keep_tasks, make_task, make_tasks, turn

KL = (Finding(0.1, 0.05, 0.15, 1000),)
WITH_KL = "[limits]\nmax_kl = 1\n"


def judge(policy: str, *tasks: TaskAnswer, none: Missing | None = None) -> GateVerdict:
    found = none or make_tasks(*tasks)
    evidence = Evidence("run", "mixed", None, 40, 256, 10200, {"kl": KL}, tasks=found)
    return decide(parse_policy(policy, "p"), evidence)


def outcomes(verdict: GateVerdict) -> dict[str, str]:
    return {check.limit.name: check.outcome for check in verdict.checks}


@pytest.mark.parametrize(
    ("worse", "better", "expected"),
    [(3, 3, PASS), (60, 10, FAIL), (30, 15, INCONCLUSIVE), (0, 0, PASS), (0, 60, PASS)],
)
def test_the_interval_of_the_drop_decides(worse: int, better: int, expected: str) -> None:
    verdict = judge("[tasks]\nmax_drop = 0.02", make_task("a", **turn(1000, worse, better)))
    assert (verdict.outcome, outcomes(verdict)) == (expected, {"tasks.a.max_drop": expected})
    (check,) = verdict.checks
    assert check.weighed is not None and check.finding is not None
    assert check.weighed.pair.changed == (worse, better)
    assert check.finding.value == pytest.approx((worse - better) / 1000)
    assert check.weighed.adjusted == mcnemar(Flips(1000, worse, better))


def test_with_no_drop_allowed_mcnemars_test_decides_what_fails() -> None:
    for worse, better in ((5, 0), (6, 0), (12, 3), (11, 3), (20, 9), (20, 8)):
        verdict = judge("[tasks]\nmax_drop = 0", make_task("a", **turn(400, worse, better)))
        is_sure = mcnemar(Flips(400, worse, better)) <= 0.05
        assert verdict.outcome == (FAIL if is_sure else INCONCLUSIVE), (worse, better)


def test_one_task_has_a_limit_and_a_metric_of_its_own() -> None:
    policy = "[tasks]\nmax_drop = 0.5\n[tasks.b]\nmax_drop = 0.01\nmetric = 'acc_norm'"
    task = make_task("b", metric="acc", **turn(1000, 60, 10))
    norm = make_task("b", metric="acc_norm", **turn(1000, 2, 2))
    models = {
        name: each.changed(scores={**each.scores, **norm.models[name].scores})
        for name, each in task.models.items()
    }
    both = task.changed(metrics=["acc", "acc_norm"], models=models)
    verdict = judge(policy, make_task("a", **turn(1000, 60, 10)), both)
    assert outcomes(verdict) == {"tasks.a.max_drop": PASS, "tasks.b.max_drop": PASS}
    assert [check.limit.value for check in verdict.checks] == [0.5, 0.01]
    verdict = judge(policy.replace("acc_norm", "acc"), both)
    assert outcomes(verdict) == {"tasks.b.max_drop": FAIL}
    verdict = judge(policy.replace("acc_norm", "f1"), both)
    assert outcomes(verdict) == {"tasks.b.max_drop": INCONCLUSIVE}
    assert verdict.checks[0].reason == "b has no metric f1"


def test_only_named_tasks_are_judged_where_nothing_is_said_of_all() -> None:
    policy = "[tasks.b]\nmax_drop = 0.02"
    tasks = [make_task(name, **turn(1000, 60, 10)) for name in "ab"]
    assert outcomes(judge(policy, *tasks)) == {"tasks.b.max_drop": FAIL}
    verdict = judge(policy, tasks[0])
    assert outcomes(verdict) == {"tasks.b.max_drop": INCONCLUSIVE}
    assert verdict.checks[0].reason == "it was not run"


def test_what_was_not_run_is_undecided_unless_it_is_optional() -> None:
    verdict = judge("[tasks]\nmax_drop = 0.02", none=NO_TASKS)
    assert outcomes(verdict) == {"tasks.max_drop": INCONCLUSIVE}
    assert verdict.checks[0].reason == "no task was run"
    optional = WITH_KL + "[tasks]\nmax_drop = 0.02\noptional = true"
    verdict = judge(optional, none=NO_TASKS)
    assert outcomes(verdict) == {"limits.max_kl": PASS}
    assert verdict.notes == ("Tasks were not judged: no task was run.",)
    # One that is named was to be run, and one that is there but damaged was.
    named = judge(f"{optional}\n[tasks.b]\nmax_drop = 0.1", none=NO_TASKS)
    assert outcomes(named) == {"limits.max_kl": PASS, "tasks.b.max_drop": INCONCLUSIVE}
    damaged = judge(optional, none=Missing("tasks.json holds no tasks"))
    assert outcomes(damaged) == {"limits.max_kl": PASS, "tasks.max_drop": INCONCLUSIVE}
    assert damaged.checks[1].reason == "tasks.json holds no tasks"
    verdict = judge(optional, make_task("a", **turn(1000, 60, 10)))
    assert outcomes(verdict) == {"limits.max_kl": PASS, "tasks.a.max_drop": FAIL}


def test_what_cannot_be_paired_is_undecided() -> None:
    verdict = judge("[tasks]\nmax_drop = 0.02", make_task("a", reference=[1, 0]))
    assert verdict.checks[0].reason == "a was not run on mixed"
    task = make_task("a", **turn(100, 1, 1))
    other = task.models["mixed"].changed(hashes=["x"] * 100)
    verdict = judge(
        "[tasks]\nmax_drop = 0.02", task.changed(models={**task.models, "mixed": other})
    )
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.checks[0].reason == "reference and mixed were not asked the same in tiny:0"


def test_scores_that_are_not_right_or_wrong_are_judged_by_their_mean() -> None:
    rng = np.random.default_rng(0)
    reference = rng.uniform(0, 1, 400)
    good, bad = reference + rng.normal(0, 0.05, 400), reference - rng.uniform(0.05, 0.15, 400)
    policy = "[tasks]\nmax_drop = 0.02"

    def one(values: Sequence[float], higher: bool = True) -> str:
        models = {"reference": list(reference), "mixed": list(values)}
        return judge(policy, make_task("a", metric="f1", higher=higher, **models)).outcome

    assert (one(good), one(bad)) == (PASS, FAIL)
    # Of what is better where it is less, a lower score is no drop.
    assert one(bad, higher=False) == PASS


def test_several_tasks_are_judged_by_holms_procedure() -> None:
    """At the limit of what fails alone; among five it is undecided, until others fail surely."""
    edge = make_task("edge", **turn(1000, 46, 10))
    policy = "[tasks]\nmax_drop = 0.02"
    assert judge(policy, edge).outcome == FAIL
    good = [make_task(f"good{n}", **turn(1000, 1, 1)) for n in range(4)]
    assert outcomes(judge(policy, edge, *good))["tasks.edge.max_drop"] == INCONCLUSIVE
    bad = [make_task(f"bad{n}", **turn(1000, 200, 10)) for n in range(4)]
    found = outcomes(judge(policy, edge, *bad))
    assert set(found.values()) == {FAIL}


@given(st.integers(0, 60), st.integers(0, 60), st.integers(61, 2000), st.floats(0, 0.1))
def test_so_many_samples_would_decide(worse: int, better: int, rest: int, limit: float) -> None:
    samples = worse + better + rest
    pair = pair_task(make_task("a", **turn(samples, worse, better)), "mixed")
    needed = samples_to_decide(pair, limit, TAIL)
    flips = Flips(samples, worse, better)
    if needed is None:
        assert abs(score(flips, limit)) < 1e-3
        return
    more = needed / samples

    def steps(by: float) -> float:
        # As a task whose samples are so many times as many.
        return score(flips, limit) * math.sqrt(by)

    assert abs(steps(more)) >= 1.9599
    assert abs(steps(more * (1 - 2 / needed))) < 1.96


def test_the_samples_that_would_decide_are_said() -> None:
    verdict = judge("[tasks]\nmax_drop = 0.02", make_task("a", **turn(1000, 30, 15)))
    (check,) = verdict.checks
    assert check.samples is not None and check.samples > 1000
    assert check.reason.startswith("about ") and check.reason.endswith(" samples would decide")
    scale = math.ceil(check.samples / 1000)
    more = make_task("a", **turn(1000 * scale, 30 * scale, 15 * scale))
    assert judge("[tasks]\nmax_drop = 0.02", more).outcome == PASS


def test_the_gate_reads_what_is_kept_beside_the_run(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path))
    assert read_evidence(run, "mixed").tasks == NO_TASKS
    keep_tasks(run.path, make_task("a", **turn(1000, 60, 10)))
    verdict = decide(load_policy(), read_evidence(run, "mixed"))
    assert outcomes(verdict)["tasks.a.max_drop"] == FAIL
    assert verdict.exit_code == 1
    # Another run in its place has no tasks yet.
    change_record(run.path, created="2020-01-01T00:00:00+00:00")
    assert read_evidence(run, "mixed").tasks == NO_TASKS
    (run.path / "studies" / "tasks.json").write_text("{", encoding="utf-8")
    found = read_evidence(run, "mixed").tasks
    assert isinstance(found, Missing) and "holds no tasks" in found.reason


def test_tasks_of_an_earlier_recipe_say_nothing_of_the_mixed_model(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path))
    task = make_task("a", **turn(1000, 10, 10))
    stamp = {"widths": digest_widths({"0.qkv": 8})}
    models = {name: one.changed(stamp=stamp) for name, one in task.models.items()}
    keep_tasks(run.path, task.changed(models=models))
    found = read_evidence(run, "mixed").tasks
    assert found == Missing("the mixed model was given a by another recipe")
    verdict = decide(load_policy(), read_evidence(run, "mixed"))
    assert outcomes(verdict)["tasks.max_drop"] == INCONCLUSIVE
    # The uniform model has the widths that it had.
    assert not isinstance(read_evidence(run, "uniform").tasks, Missing)


@pytest.mark.parametrize(
    ("text", "what", "remedy"),
    [
        ("tasks = 1", "line 1: tasks is 1", "make it a table, [tasks]"),
        ("[tasks]\nmax_drop = 2", "line 2: max_drop is 2", "at most 1"),
        ("[tasks]\nmax_drop = -0.1", "max_drop is -0.1", "at least 0"),
        ("[tasks]\nmax_drop = '1'", "max_drop is '1'", "give a number"),
        ("[tasks]\nmax_drops = 1", "unknown key 'max_drops' in [tasks]", "did you mean max_drop?"),
        ("[tasks]\noptional = 1\nmax_drop = 0.1", "optional is 1", "true or false"),
        ("[tasks.a]\nmetric = 'acc'", "line 1: a has no limit", "set max_drop in [tasks.a]"),
        ("[tasks.a]\nmax_drop = 0.1\nmetric = 1", "line 3: metric is 1", "give a name"),
        ("[tasks.a]\nmax_drop = 3", "line 2: max_drop is 3", "at most 1"),
        ("[tasks.a]\nmaxdrop = 3", "unknown key 'maxdrop' in [tasks.a]", "did you mean max_drop"),
        (
            "[tasks]\nmax_drop = 0.1\noptional = true",
            "nothing would be judged",
            "take out optional",
        ),
        ("[tasks]\noptional = true", "p sets no limit", "set one"),
        ("[tasks]", "p sets no limit", "set one"),
    ],
)
def test_what_a_policy_cannot_say_of_tasks(text: str, what: str, remedy: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_policy(text, "p")
    assert what in str(raised.value)
    assert remedy in str(raised.value)


def test_the_default_policy_judges_tasks_where_there_are_some() -> None:
    tasks = load_policy().tasks
    assert (tasks.every, tasks.named, tasks.optional) == (0.02, {}, True)


def simulate(tasks: int, samples: int, limit: float, trials: int) -> Mapping[str, float]:
    """How often a gate of so many tasks fails and passes where each truly drops by the limit."""
    rng = np.random.default_rng(tasks)
    shares = [(0.1 + limit) / 2, (0.1 - limit) / 2, 0.9]
    counts = {FAIL: 0, PASS: 0}
    for _ in range(trials):
        pairs = {}
        for number, (worse, better, _) in enumerate(rng.multinomial(samples, shares, size=tasks)):
            turned = turn(samples, worse, better)
            scores = (tuple(turned[name]) for name in ("reference", "mixed"))
            pairs[str(number)] = Paired(str(number), "acc", "mixed", *scores)
        tail = choose_tail(pairs, dict.fromkeys(pairs, limit))
        bounds = [pair.bound(tail) for pair in pairs.values()]
        counts[FAIL] += any(bound.low > limit for bound in bounds)
        counts[PASS] += all(bound.high <= limit for bound in bounds)
    return {outcome: count / trials for outcome, count in counts.items()}


@pytest.mark.parametrize("tasks", [1, 4])
def test_false_fails_are_as_rare_as_said_whatever_the_number_of_tasks(tasks: int) -> None:
    """Nominally 2.5% of gates fail, and at most as many pass. Four tasks that each had 2.5% would
    fail one gate in ten."""
    found = simulate(tasks, 200, 0.02, 200)
    assert found[FAIL] <= 0.06
    assert found[PASS] <= 0.06
