"""A verdict written out: every output says the same, whatever the names and numbers are."""

import io
import json
import math
import xml.dom.minidom
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from awqscope.app.terminal.gate import (
    to_json,
    write_json_text,
    write_junit,
    write_markdown,
    write_terminal,
)
from awqscope.app.words.gate.lines import (
    Line,
    clean,
    write_context,
    write_line,
    write_lines,
    write_sentence,
)
from awqscope.diagnose.gate.criteria import SECTIONS
from awqscope.diagnose.gate.evidence import NO_TASKS, Evidence
from awqscope.diagnose.gate.findings import Finding, Missing
from awqscope.diagnose.gate.policy import Limit, Policy, TaskLimits, parse_policy
from awqscope.diagnose.gate.verdict import FAIL, INCONCLUSIVE, PASS, GateVerdict, decide
from awqscope.diagnose.studies.tasks.answer import Tasks
from tests.help.tasks import make_task, make_tasks, turn

CRITERIA = [criterion for criteria in SECTIONS.values() for criterion in criteria]
NAMES = st.text(st.characters(), max_size=12) | st.sampled_from(
    [
        "\x00\x1b[31m",
        "a|b`c`",
        "<b>&\"'</b>",
        "\ud800",
        "\ufffe",
        "]]>",
        "a\nb\r\tc",
        "[red]x[/red]",
    ]
)
NUMBERS = st.floats(-2, 3) | st.sampled_from([math.inf, -math.inf, 0.0, 1.0])


@st.composite
def findings(draw: st.DrawFn) -> Finding:
    low, value, high = sorted(draw(st.tuples(NUMBERS, NUMBERS, NUMBERS)))
    tokens = draw(st.sampled_from([0, 10, 5000]))
    if draw(st.integers(0, 9)) == 0:
        value, low, high = math.nan, -math.inf, math.inf
    return Finding(value, low, high, tokens, draw(st.sampled_from([0, 600])), draw(NAMES))


@st.composite
def task_evidence(draw: st.DrawFn) -> Tasks | Missing:
    """Tasks of which any share turned, some not run on the model that is judged."""
    tasks = []
    for name in draw(st.lists(NAMES, max_size=2, unique=True)):
        worse, better, rest = draw(st.tuples(*[st.integers(0, 12)] * 3))
        models = turn(worse + better + rest + 1, worse, better)
        if draw(st.integers(0, 5)) == 0:
            models.pop("mixed")
        tasks.append(make_task(name, **models))
    return make_tasks(*tasks) if draw(st.booleans()) else NO_TASKS


def task_limits() -> st.SearchStrategy[TaskLimits]:
    named = st.dictionaries(NAMES.filter(bool), st.floats(0, 1), max_size=2)
    return st.builds(TaskLimits, st.none() | st.floats(0, 1), named, optional=st.booleans())


@st.composite
def verdicts(draw: st.DrawFn) -> GateVerdict:
    chosen = draw(st.lists(st.sampled_from(CRITERIA), min_size=1, unique=True))
    limits = tuple(Limit(criterion, draw(st.floats(0, 2))) for criterion in chosen)
    numbers = {
        criterion.measure: draw(
            st.builds(Missing, NAMES) | st.lists(findings(), min_size=1, max_size=3).map(tuple)
        )
        for criterion in draw(st.lists(st.sampled_from(CRITERIA), unique=True))
    }
    baseline = draw(st.none() | NAMES)
    tasks = draw(task_evidence())
    has_limits = any(limit.criterion.section == "limits" for limit in limits)
    drift_optional = draw(st.booleans()) and has_limits
    policy = Policy(draw(NAMES), "mixed", limits, drift_optional, draw(task_limits()))
    name = draw(NAMES)
    evidence = Evidence(name, "mixed", baseline, 40, 256, 10200, numbers, tasks=tasks)
    return decide(policy, evidence)


def write(policy: str, baseline: str | None = None, **numbers: Any) -> Line:
    wanted = parse_policy(policy, "p")
    told = {name: n if isinstance(n, tuple) else (n,) for name, n in numbers.items()}
    evidence = Evidence("run", "mixed", baseline, 40, 256, 10200, told, baseline and "mixed")
    (line,) = write_lines(decide(wanted, evidence))
    return line


def test_the_worst_text_is_named_with_what_is_like_it_and_what_is_beyond_it() -> None:
    policy = "[limits]\nmax_slice_kl = 0.02"

    def text(value: float, of: str, half: float = math.inf) -> Finding:
        return Finding(value, value - half, value + half, 10, 60, of)

    line = write(policy, slice_kl=(text(0.0121, "a.txt"), text(0.01371, "b.txt")))
    assert (line.value, line.interval) == ("0.01371", "[−∞, ∞]")
    assert line.note.startswith("b.txt; it takes about")
    line = write(policy, slice_kl=(text(0.01, "a.txt"), text(0.01, "b.txt")))
    assert line.note.startswith("a.txt, and the same in 1 other; ")
    line = write(policy, slice_kl=(text(0.01, "few.txt"), text(0.015, "sure.txt", 0.001)))
    assert line.value == "0.01000"
    assert line.note.endswith("; worst is sure.txt with 0.01500 [0.01400, 0.01600], which holds")
    line = write(policy, slice_kl=(text(0.01, "few.txt"), text(math.nan, "none.txt")))
    assert (line.value, line.interval) == ("–", "")
    assert line.note == "none.txt; it is not a number"


@pytest.mark.parametrize(
    ("lost", "value", "interval", "outcome"),
    [
        (-0.0347, "+3.47 points", "[+2.47, +4.47]", PASS),
        (0.02, "−2.00 points", "[−3.00, −1.00]", FAIL),
        (0.0, "+0.00 points", "[−1.00, +1.00]", INCONCLUSIVE),
    ],
)
def test_a_top_token_that_is_kept_more_often_is_a_gain(
    lost: float, value: str, interval: str, outcome: str
) -> None:
    """In points, with its sign and its limit's turned alike: no minus of a loss."""
    finding = Finding(lost, lost - 0.01, lost + 0.01, 10, 5)
    line = write("[drift]\nmax_top1_drop = 0.005", "base", top1_drop=finding)
    assert (line.title, line.outcome) == ("Same top token, to baseline", outcome)
    assert (line.value, line.interval) == (value, interval)
    assert line.bound == "≥\N{NO-BREAK SPACE}−0.5 points"


def test_a_proof_is_written_in_words_wherever_it_stands() -> None:
    passed, failed = Finding(1.0, 1.0, 1.0, of="passed"), Finding(0.0, 0.0, 0.0, of="failed: x")
    evidence = Evidence("run", "mixed", None, 40, 256, 10200, {"proof": (passed,)})
    (check,) = decide(parse_policy("[limits]\nrequire_proof = true", "p"), evidence).checks
    line = write_line(replace(check, beyond=failed))
    assert line.value == line.bound == "passed"
    assert "worst is failed: x with failed" in line.note


def test_which_model_of_the_baseline_is_said() -> None:
    numbers = {"kl": (Finding(0.1, 0.1, 0.1),)}
    evidence = Evidence("new", "mixed", "old", 40, 256, 10200, numbers, "candidate")
    verdict = decide(parse_policy("[limits]\nmax_kl = 1", "p"), evidence)
    assert "new: the mixed model, against the candidate model of old," in write_context(verdict)
    assert to_json(verdict)["baseline_subject"] == "candidate"


@settings(max_examples=150, deadline=None)
@given(verdicts())
def test_verdict_exit_code_junit_and_json_agree(verdict: GateVerdict) -> None:
    outcomes = [check.outcome for check in verdict.checks]
    fails, undecided = outcomes.count(FAIL), outcomes.count(INCONCLUSIVE)
    expected = FAIL if fails else INCONCLUSIVE if undecided else PASS
    assert verdict.outcome == expected
    assert verdict.exit_code == {PASS: 0, FAIL: 1, INCONCLUSIVE: 3}[expected]

    told = json.loads(write_json_text(verdict), parse_constant=pytest.fail)
    assert (told["verdict"], told["exit_code"]) == (expected, verdict.exit_code)
    assert [limit["verdict"] for limit in told["limits"]] == outcomes
    assert told["run"] == verdict.evidence.run
    assert told == to_json(verdict)

    junit = write_junit(verdict).encode("utf-8")
    xml.dom.minidom.parseString(junit)
    suites = ElementTree.fromstring(junit)
    for element in (suites, suites[0]):
        counts = [int(element.get(name, "")) for name in ("tests", "failures", "errors")]
        assert counts == [len(outcomes), fails, undecided]
    cases = list(suites.iter("testcase"))
    tags = {FAIL: "failure", INCONCLUSIVE: "error", PASS: "system-out"}
    assert [[child.tag for child in case] for case in cases] == [[tags[o]] for o in outcomes]
    names = [f"{c.get('classname', '').rpartition('.')[2]}.{c.get('name')}" for c in cases]
    assert names == [clean(limit["name"]) for limit in told["limits"]]
    judged = [limit["task"] for limit in told["limits"] if limit["task"] is not None]
    for task in judged:
        assert task["worse"] + task["better"] <= task["samples"]
        assert 0 <= task["p"] <= task["p_adjusted"] <= 1

    lines = write_lines(verdict)
    assert [line.outcome for line in lines] == outcomes
    markdown = write_markdown(verdict)
    rows = [row for row in markdown.splitlines() if row.startswith("| ")][1:]
    assert markdown.startswith("### ") and expected in markdown.splitlines()[0]
    assert [row.count(" | ") for row in rows] == [5] * len(outcomes)
    assert all(f" {outcome} |" in row for row, outcome in zip(rows, outcomes, strict=True))

    printed = io.StringIO()
    Console(file=printed, width=400).print(write_terminal(verdict))
    said = printed.getvalue()
    assert said.lower().startswith(expected)
    assert not set(said) - {"\n"} & {chr(n) for n in range(32)}
    said.encode("utf-8")


@given(verdicts())
@settings(max_examples=50, deadline=None)
def test_names_are_text_and_nothing_else(verdict: GateVerdict) -> None:
    suite = ElementTree.fromstring(write_junit(verdict))[0]
    assert suite.get("name") == f"awqscope gate {clean(verdict.evidence.run)}"
    told = {entry.get("name"): entry.get("value") for entry in suite.iter("property")}
    assert told["policy"] == clean(verdict.policy)
    for character in "<>":
        assert character not in write_markdown(verdict).replace("\\" + character, "")


def test_words() -> None:
    policy = parse_policy(
        "[limits]\nmax_kl = 0.2\nmin_top1_agreement = 0.9\nrequire_proof = true", "p.toml"
    )
    numbers = {
        "kl": (Finding(0.123456, 0.1, 0.15, 1000),),
        "top1_agreement": (Finding(0.89, 0.88, 0.91, 1000),),
        "proof": (Finding(0, 0, 0, of="missing"),),
    }
    verdict = decide(policy, Evidence("runs/a", "mixed", None, 10, 101, 1000, numbers))
    assert write_sentence(verdict) == "Fail: of 3 limits, 1 not held and 1 undecided."
    kl, top1, proof = write_lines(verdict)
    assert (kl.value, kl.interval, kl.bound) == ("0.12346", "[0.10000, 0.15000]", "≤\xa00.2")
    assert (top1.value, top1.bound) == ("89.00%", "≥\xa090%")
    assert top1.note == "about 4,100 tokens (41 windows) would decide"
    assert (proof.value, proof.bound, proof.note) == ("missing", "passed", "the proof is missing")


def test_a_task_is_a_line_with_what_turned() -> None:
    tasks = make_tasks(make_task("tiny", **turn(1000, 30, 15)))
    policy = parse_policy("[tasks]\nmax_drop = 0.02\n[tasks.other]\nmax_drop = 0.1", "p.toml")
    verdict = decide(policy, Evidence("r", "mixed", None, 10, 101, 1000, {}, tasks=tasks))
    tiny, other = write_lines(verdict)
    assert (tiny.title, tiny.value, tiny.bound) == (
        "tiny, acc",
        "−1.50 points",
        "≥\N{NO-BREAK SPACE}−2 points",
    )
    assert tiny.interval == "[−2.91, −0.19]"
    assert tiny.note.startswith("of 1,000 samples 30 worse and 15 better, p = 0.036; about ")
    assert tiny.note.endswith(" samples would decide")
    assert (other.title, other.value, other.note) == ("Task other", "–", "it was not run")
    told = to_json(verdict)["limits"][0]
    assert told["name"] == "tasks.tiny.max_drop" and told["samples_to_decide"] > 1000
    assert told["task"]["worse"] == 30 and told["tokens_to_decide"] is None
