"""A form with every limit that a policy can set, to be tried before it is saved beside the run.

The fields are the tables of `diagnose.gate.criteria`: what can be limited there has a field here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from awqscope.app.dashboard.asking import asking_button, asking_form
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.store import RunSummary, Store
from awqscope.app.words.gate.lines import write_value
from awqscope.diagnose.gate.criteria import (
    MAX_DROP,
    PROOF,
    SECTIONS,
    TASKS,
    Criterion,
    find_problem,
)
from awqscope.diagnose.gate.findings import Missing
from awqscope.diagnose.gate.own import (
    OPTIONAL,
    OWN_POLICY,
    SETTABLE,
    find_own,
    list_settings,
    load_own,
)
from awqscope.diagnose.gate.policy import SUBJECTS, Limit, Policy, find_conflict
from awqscope.diagnose.gate.verdict import GateVerdict
from awqscope.diagnose.runs.record import CANDIDATE
from awqscope.mixedprec.errors import InputError

TRIED = "the policy that is tried"
SUBJECT = "subject"
# Sections that are folded away, when their limits count, and when they do not.
FOLDED = {
    "drift": (
        "Drift from a baseline",
        "Judged by awqscope gate --baseline, which names another run; not on this page.",
        "Left out where no baseline is given",
    ),
    TASKS: (
        "Tasks",
        "Judged where awqscope tasks has given the run's models any. Tasks that the policy names "
        "keep what it says of them.",
        "Left out where no task was run",
    ),
}
DIGITS = 12
# What to do in the form about each conflict that `find_conflict` finds.
REMEDIES = {
    (TASKS, "optional"): "switch this off, or give another limit",
    ("drift", "optional"): "switch this off, or give another limit",
}


@dataclass(frozen=True)
class Asked:
    """What a form holds. policy: what it amounts to, None where it cannot be used. problems: what
    is wrong with a field, by its name. trouble: what is wrong with the whole."""

    policy: Policy | None
    problems: Mapping[str, str]
    trouble: str = ""


def name_field(section: str, key: str) -> str:
    """What a limit's field is called in the form."""
    return f"{section}.{key}"


def policy_form(
    store: Store,
    run: RunSummary,
    verdict: GateVerdict,
    jobs: Jobs | None,
    *,
    is_open: bool = False,
    said: str = "",
) -> html.Details:
    """The limits that a run is judged by, to be changed. verdict: by these limits."""
    policy, has_own = load_own(store.find(run.name)), find_own(store.find(run.name)) is not None
    judges_candidate = verdict.evidence.subject == CANDIDATE
    settings = list_shown(policy, verdict, has_own=has_own)
    parts: list[Any] = []
    if not judges_candidate:
        parts.append(
            _switch(SUBJECT, "Judge the uniform model, not mixed", policy.subject != SUBJECTS[0])
        )
    for section, criteria in SETTABLE.items():
        here = [each for each in criteria if not (judges_candidate and each.is_demand)]
        fields = [_field(each, settings[section, each.key], verdict) for each in here]
        grid = html.Div(fields, className="fields")
        if section not in FOLDED:
            parts.append(grid)
            continue
        title, hint, label = FOLDED[section]
        key = OPTIONAL[section]
        fields.append(_switch(name_field(*key), label, bool(settings[key])))
        parts.append(html.Details([html.Summary(title), html.P(hint, className="summary"), grid]))
    save: list[Any] = []
    if jobs is not None:
        save = [asking_button("Save beside the run", "policy-save", size="sm")]
        save += [reset_button(run.name)] if has_own else []
    return html.Details(
        [
            html.Summary("Try other limits"),
            html.P(
                "An empty field is not judged. What you type is judged at once; nothing is "
                "kept before it is saved.",
                className="summary",
            ),
            asking_form(
                "policy",
                *parts,
                html.Div(id="policy-answer", className="ship tried", role="status"),
                html.Div(
                    [*save, html.P(said, id="policy-said", className="said", role="status")],
                    className="actions under",
                ),
                look="form policy",
                typed=True,
            ),
        ],
        open=is_open,
    )


def reset_button(name: str) -> dcc.ConfirmDialogProvider:
    """Takes a run's own policy away, once that is confirmed."""
    return dcc.ConfirmDialogProvider(
        dmc.Button("Back to the default policy", size="sm", variant="default"),
        id={"type": "policy-reset", "name": name},
        message=f"Remove {OWN_POLICY} from {name}? It is then judged by the default policy.",
    )


def list_shown(
    policy: Policy, verdict: GateVerdict, *, has_own: bool
) -> dict[tuple[str, str], float | bool | None]:
    """What the fields hold at first. The default policy leaves out what a run did not measure: it
    would be undecided by a policy of its own."""
    settings = list_settings(policy)
    if has_own:
        return settings
    for criteria in SECTIONS.values():
        for each in criteria:
            unknown = isinstance(verdict.evidence.numbers.get(each.measure), Missing)
            if unknown:
                settings[each.section, each.key] = None
    return settings


def _switch(name: str, label: str, checked: bool, description: str | None = None) -> dmc.Switch:
    return dmc.Switch(
        id={"type": "limit", "field": name}, label=label, description=description, checked=checked
    )


def _field(criterion: Criterion, value: float | bool | None, verdict: GateVerdict) -> Any:
    """The input of a limit, with what it means and what was measured."""
    name = name_field(criterion.section, criterion.key)
    if criterion.is_demand:
        return _switch(name, criterion.title, bool(value), criterion.meaning)
    measured = write_measured(criterion, verdict)
    return dmc.TextInput(
        id={"type": "limit", "field": name},
        name=name,
        label=name_limit(criterion),
        description=f"{criterion.meaning}{f' Here: {measured}.' if measured else ''}",
        value="" if value is None else f"{value:.{DIGITS}g}",
        spellCheck=False,
        autoComplete="off",
    )


def name_limit(criterion: Criterion) -> str:
    """What a limit is called in the form, and in what is said of its field."""
    if criterion.is_demand:
        return criterion.title
    return f"{criterion.title}, {'at most' if criterion.upper else 'at least'}"


def write_measured(criterion: Criterion, verdict: GateVerdict) -> str:
    """What was measured of something that can be limited; empty where nothing was."""
    checked = (c.finding for c in verdict.checks if c.limit.criterion == criterion and c.finding)
    finding = next(checked, None)
    found = verdict.evidence.numbers.get(criterion.measure, ())
    if finding is None and not isinstance(found, Missing) and len(found) == 1:
        finding = found[0]
    return "" if finding is None else write_value(finding, criterion)


def read_form(values: Mapping[str, Any], before: Policy) -> Asked:
    """What a form asks for. values: field -> text, or whether a switch is on. before: the policy
    that holds now, of which stays what the form has no field for."""
    limits: list[Limit] = []
    problems: dict[str, str] = {}
    settings = list_settings(before)
    every: float | None = None
    for section, criteria in SETTABLE.items():
        for each in criteria:
            name = name_field(section, each.key)
            given = values.get(name, settings[section, each.key])
            value, problem = read_value(each, given)
            if problem:
                problems[name] = problem
            elif each == MAX_DROP:
                every = value
            elif value is not None:
                limits.append(Limit(each, value))
    wants_uniform = values.get(SUBJECT, before.subject != SUBJECTS[0])
    optional = {
        section: bool(values.get(name_field(*key), settings[key]))
        for section, key in OPTIONAL.items()
    }
    tasks = replace(before.tasks, every=every, optional=optional[TASKS])
    subject = SUBJECTS[bool(wants_uniform)]
    if wants_uniform:
        # Nobody proves it, and no field is needed to say so.
        limits = [limit for limit in limits if limit.criterion.form != PROOF]
    policy = Policy(TRIED, subject, tuple(limits), optional["drift"], tasks)
    if problems:
        return Asked(None, problems)
    if not limits and not tasks.has_any:
        first = name_limit(SETTABLE["limits"][0])
        return Asked(None, {}, f"nothing is limited: give a number, such as for “{first}”")
    conflict = find_conflict(policy)
    if conflict is not None:
        section, key, what, _ = conflict
        return Asked(None, {name_field(section, key): f"{what}: {REMEDIES[section, key]}"})
    return Asked(policy, {})


def read_value(criterion: Criterion, given: Any) -> tuple[float | None, str]:
    """A limit as it was typed, or None for none; and what is wrong with it, empty if nothing is. A
    number with a percent sign is a share."""
    if criterion.is_demand:
        return (1.0 if given else None), ""
    if given is None or isinstance(given, float):
        return given, ""
    called = f"“{name_limit(criterion)}”"
    text = str(given).strip().replace("\N{MINUS SIGN}", "-")
    if not text:
        return None, ""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        said = f"{called} is “{text}”"
        return None, f"{said}: give a number such as {_exemplify(criterion)}"
    problem = find_problem(criterion, value, called)
    return (None, ": ".join(problem)) if problem else (value, "")


def _exemplify(criterion: Criterion) -> str:
    """A number that a limit can be."""
    if criterion.most < math.inf:
        return f"{(criterion.least + criterion.most) / 2:g}"
    return f"{criterion.least + 0.05:g}"


def check_form(values: Mapping[str, Any], before: Policy) -> Policy:
    """The policy that a form asks for. InputError where it cannot be used."""
    asked = read_form(values, before)
    if asked.policy is None:
        said = asked.trouble or next(iter(asked.problems.values()))
        raise InputError(said.rstrip("."), "")
    return asked.policy
