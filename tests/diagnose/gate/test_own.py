"""A run's own policy: saved beside it with what its file says besides, and taken away again."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqscope.diagnose.gate.criteria import SECTIONS, find_problem
from awqscope.diagnose.gate.own import (
    OWN_POLICY,
    change_text,
    find_own,
    list_settings,
    load_own,
    remove_own,
    save_own,
    write_anew,
)
from awqscope.diagnose.gate.policy import (
    DEFAULT_PATH,
    Limit,
    Policy,
    TaskLimits,
    find_conflict,
    load_policy,
    parse_policy,
)
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.mixedprec.errors import InputError
from tests.help.runs import write_run

DEFAULT = DEFAULT_PATH.read_text(encoding="utf-8")
CRITERIA = [each for every in SECTIONS.values() for each in every]


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    limits = []
    for each in draw(st.lists(st.sampled_from(CRITERIA), min_size=1, unique=True)):
        value = 1.0 if each.is_demand else draw(st.floats(each.least, min(each.most, 1e6)))
        if each.is_demand or find_problem(each, value) is None:
            limits.append(Limit(each, value))
    named = draw(st.dictionaries(st.sampled_from(("arc", "h swag", 'a"b')), st.floats(0, 1)))
    metrics = {task: "acc" for task in named if draw(st.booleans())}
    every = draw(st.none() | st.floats(0, 1))
    tasks = TaskLimits(every, named, metrics, draw(st.booleans()))
    subject = draw(st.sampled_from(("mixed", "uniform")))
    policy = Policy("p", subject, tuple(limits), draw(st.booleans()), tasks)
    return policy if limits and find_conflict(policy) is None else load_policy()


TEXTS = st.sampled_from(
    [
        DEFAULT,
        "[limits]\nmax_kl = 0.5 # why not\n",
        "limits = {max_kl = 1, max_ppl_ratio = 2}\n",
        "limits.max_kl = 1\n",
        "[drift]\nmax_kl_ratio = 1\n\n[limits]\n'max_kl' = 3\n#max_ppl_ratio=2\n",
        'subject = "uniform" # of a test\n[limits]\nmax_kl = 1\n[drift]\n',
    ]
)


def is_alike(one: Policy, other: Policy) -> bool:
    settings = list_settings(one) == list_settings(other)
    return one.subject == other.subject and settings and one.tasks == other.tasks


@given(TEXTS, policies())
def test_a_text_is_changed_to_any_policy(text: str, policy: Policy) -> None:
    """Whatever the file looks like, what is read from it afterwards is what was asked for."""
    assert is_alike(parse_policy(change_text(text, policy), "p"), policy)
    assert is_alike(parse_policy(write_anew(policy), "p"), policy)


def test_only_what_changes_is_changed() -> None:
    assert change_text(DEFAULT, load_policy()) == DEFAULT
    changed = change_text(
        DEFAULT, parse_policy(DEFAULT.replace("max_kl = 0.05", "max_kl = 0"), "p")
    )
    assert changed == DEFAULT.replace("max_kl = 0.05", "max_kl = 0")
    mine = "# ours\n[limits]\nmax_kl = 0.5  # agreed in May\nmax_ppl_ratio = 1.1\n"
    wanted = parse_policy("[limits]\nmax_kl = 0.25\nmax_delta_ppl = 1", "p")
    assert change_text(mine, wanted) == (
        "# ours\n[limits]\nmax_delta_ppl = 1\nmax_kl = 0.25  # agreed in May\n"
        "# max_ppl_ratio = 1.1\n"
    )


def test_it_is_saved_whole_and_read_before_the_default(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path))
    assert find_own(run) is None and load_own(run).name == "default policy"
    wanted = parse_policy("[limits]\nmax_kl = 0.01", "p")
    path = save_own(run, wanted)
    assert path == find_own(run) == run.path / OWN_POLICY
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# The policy of this run") and "where none is given" not in text
    assert "# Every key may be left out" in text
    assert is_alike(load_own(run), wanted)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((run.path / "run.json").stat().st_mode)
    assert not list(run.path.glob(".*.tmp"))
    remove_own(run)
    remove_own(run)
    assert load_own(run).name == "default policy"


def test_a_policy_that_cannot_be_used_is_no_default(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path))
    (run.path / OWN_POLICY).write_text("[limits]\nmax_klp = 1\n")
    with pytest.raises(InputError, match="did you mean max_kl"):
        load_own(run)
