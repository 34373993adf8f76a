"""The form of a policy: every limit has a field, and what is typed is judged or refused there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from dash.development.base_component import Component

from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.sections.gate.card import gate_card
from awqscope.app.dashboard.sections.gate.policy_form import name_field, read_form, read_value
from awqscope.app.dashboard.sections.gate.trying import save_policy
from awqscope.app.store import Store
from awqscope.diagnose.gate.criteria import Criterion
from awqscope.diagnose.gate.own import SETTABLE, list_settings, load_own
from awqscope.diagnose.gate.policy import load_policy, parse_policy
from awqscope.mixedprec.errors import InputError
from tests.help.runs import change_record, write_comparison, write_run

CRITERIA = [each for every in SETTABLE.values() for each in every]
DEFAULT = load_policy()


def list_fields(part: Any) -> dict[str, Component]:
    """The fields of a form, by name."""
    if isinstance(part, list | tuple):
        return {key: value for each in part for key, value in list_fields(each).items()}
    if not isinstance(part, Component):
        return {}
    name = getattr(part, "id", None)
    own = {name["field"]: part} if isinstance(name, dict) and name["type"] == "limit" else {}
    return own | list_fields(getattr(part, "children", None))


def fill(fields: Mapping[str, Component]) -> dict[str, Any]:
    """What a browser would send of a form that nobody has touched."""
    return {
        name: part.checked if hasattr(part, "checked") else part.value
        for name, part in fields.items()
    }


def draw(store: Store, name: str, jobs: Jobs | None = None) -> Any:
    return gate_card(store, store.summary(name), jobs)


def test_every_limit_has_a_field_and_an_untouched_form_changes_nothing(tmp_path: Path) -> None:
    path = write_run(tmp_path, "run")
    store = Store(tmp_path)
    fields = list_fields(draw(store, "run"))
    assert set(fields) == {name_field(each.section, each.key) for each in CRITERIA} | {
        "subject",
        "drift.optional",
        "tasks.optional",
    }
    for each in CRITERIA:
        part = fields[name_field(each.section, each.key)]
        assert part.label.startswith(each.title) and part.description.startswith(each.meaning)
    assert "Here: 0.01179." in fields["limits.max_kl"].description
    found = read_form(fill(fields), load_own(store.find("run"))).policy
    # What the run did not measure is left out, as the default policy leaves it out.
    expected = list_settings(DEFAULT) | {("limits", "min_range_margin"): None}
    assert found is not None and list_settings(found) == expected
    shown = store.verdicts.find("run").verdict
    tried = store.verdicts.judge("run", found)
    assert shown is not None and (tried.outcome, tried.checks) == (shown.outcome, shown.checks)
    (path / "policy.toml").write_text("subject = 'uniform'\n[limits]\nmax_kl = 0.123456789\n")
    fields = list_fields(draw(store, "run"))
    assert fields["subject"].checked is True and fields["limits.max_ppl_ratio"].value == ""
    found = read_form(fill(fields), load_own(store.find("run"))).policy
    own = load_own(store.find("run"))
    assert found is not None and list_settings(found) == list_settings(own)
    assert found.subject == "uniform"


def test_a_comparison_is_asked_for_no_proof_and_keeps_what_has_no_field(tmp_path: Path) -> None:
    write_comparison(tmp_path, "candidate")
    store = Store(tmp_path)
    fields = list_fields(draw(store, "candidate"))
    assert not {"subject", "limits.require_proof"} & set(fields)
    found = read_form(fill(fields), DEFAULT).policy
    assert found is not None and any(limit.criterion.is_demand for limit in found.limits)


@pytest.mark.parametrize(
    ("key", "typed", "value"),
    [
        ("max_kl", "0.01", 0.01),
        ("max_kl", " 1e-3 ", 0.001),
        ("max_kl", "0", 0.0),
        ("min_top1_agreement", "90%", 0.9),
        ("max_ppl_ratio", "103%", 1.03),
        ("max_kl", "", None),
        ("require_proof", True, 1.0),
        ("require_proof", False, None),
    ],
)
def test_a_limit_is_read_as_it_is_typed(key: str, typed: Any, value: float | None) -> None:
    criterion = find_criterion(key)
    assert read_value(criterion, typed) == (value, "")


@pytest.mark.parametrize(
    ("key", "typed", "problem"),
    [
        ("max_kl", "much", "“KL, mean, at most” is “much”: give a number such as 0.05"),
        ("max_kl", "\N{MINUS SIGN}1", " is -1, which no run can be held to: give at least 0"),
        ("max_kl", "nan", "“KL, mean, at most” is nan: give a finite number"),
        ("min_top1_agreement", "95", "give at least 0 and at most 1 (a share: 0.9 is 90%)"),
        ("max_size_ratio", "0", "give above 0 and at most 1"),
    ],
)
def test_what_cannot_be_a_limit_is_refused_at_its_field(key: str, typed: str, problem: str) -> None:
    assert read_value(find_criterion(key), typed)[1].endswith(problem)
    asked = read_form({f"limits.{key}": typed}, DEFAULT)
    assert asked.policy is None and set(asked.problems) == {f"limits.{key}"}
    # It is said of the field, which is nowhere called by its key.
    assert key not in asked.problems[f"limits.{key}"]


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda each: each.name)
def test_what_a_limit_means_is_said_without_keys(criterion: Criterion) -> None:
    assert not any(each.key in criterion.meaning for each in CRITERIA)


def find_criterion(key: str) -> Criterion:
    return next(each for each in CRITERIA if each.key == key)


def test_what_contradicts_itself_is_refused() -> None:
    # Nobody proves the uniform model: that it is to be judged takes the demand back.
    asked = read_form({"subject": True, "limits.require_proof": True}, DEFAULT)
    assert asked.policy is not None and asked.policy.subject == "uniform"
    assert "proof" not in {limit.criterion.measure for limit in asked.policy.limits}
    none = {name_field(each.section, each.key): "" for each in CRITERIA}
    asked = read_form(none | {"limits.require_proof": False}, DEFAULT)
    assert asked.policy is None
    assert asked.trouble == "nothing is limited: give a number, such as for “PPL ratio, at most”"


def test_every_conflict_has_a_remedy_in_the_form() -> None:
    empty = {name_field(each.section, each.key): "" for each in CRITERIA}
    empty |= {name_field(each.section, each.key): False for each in CRITERIA if each.is_demand}
    drift = {"drift.max_kl_ratio": "1.1", "drift.optional": True, "tasks.optional": False}
    tasks = {"tasks.max_drop": "0.1", "drift.optional": False, "tasks.optional": True}
    for values in (empty | drift, empty | tasks):
        ((field, said),) = read_form(values, DEFAULT).problems.items()
        assert "switch this off" in said and field.endswith("optional")


def test_what_is_saved_is_what_the_run_is_judged_by(tmp_path: Path) -> None:
    path = write_run(tmp_path, "run")
    store = Store(tmp_path)
    assert store.verdicts.find("run").ship.answer == "May ship"
    values = fill(list_fields(draw(store, "run"))) | {"limits.max_kl": "0.01"}
    save_policy(store, "run", values)
    assert store.verdicts.find("run").ship.sentence == "May not ship: mean KL 0.01179 is above 0.01"
    assert "max_kl = 0.01\n" in (path / "policy.toml").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="“KL, mean, at most” is “x”"):
        save_policy(store, "run", values | {"limits.max_kl": "x"})
    change_record(path, state="running")
    with pytest.raises(InputError, match="is not finished"):
        save_policy(store, "run", values | {"limits.max_kl": "0.02"})
    own = parse_policy((path / "policy.toml").read_text(encoding="utf-8"), "p")
    assert list_settings(own)["limits", "max_kl"] == 0.01


def test_whoever_may_only_read_can_try_and_not_save(tmp_path: Path) -> None:
    path = write_run(tmp_path, "run")
    (path / "policy.toml").write_text("[limits]\nmax_kl = 1\n")
    store = Store(tmp_path)
    assert "limits.max_kl" in list_fields(draw(store, "run"))
    read_only, able = str(draw(store, "run")), str(draw(store, "run", Jobs(store)))
    for button in ("Save beside the run", "Back to the default policy"):
        assert button in able and button not in read_only
    (path / "policy.toml").write_text("[limits]\nmax_klp = 1\n")
    broken = str(draw(store, "run", Jobs(store)))
    assert "did you mean max_kl?" in broken and "Back to the default policy" in broken
