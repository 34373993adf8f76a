"""What a release is held to: a policy, read from TOML and checked before anything is judged.

`policy.toml` beside this file is the default and documents every key; `policy.schema.json` is the
JSON Schema of a policy, for editors, and is made by `policy_schema`.
"""

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from awqscope.diagnose.gate.criteria import (
    HUGE,
    MAX_DROP,
    PROOF,
    SECTIONS,
    TASKS,
    Criterion,
    find_problem,
)
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.untrusted import read_text

MOST_BYTES = 2**20
SUBJECTS = ("mixed", "uniform")
DEFAULT_NAME = "default policy"
DEFAULT_PATH = Path(__file__).with_name("policy.toml")
NO_LIMIT = f"set one, such as {SECTIONS['limits'][0].key} in [limits]"
SCHEMA_PATH = Path(__file__).with_name("policy.schema.json")


@dataclass(frozen=True)
class Limit:
    """A criterion and the largest or smallest value allowed; 1 for a proof that is required. of:
    the task that it is of, of a limit on tasks."""

    criterion: Criterion
    value: float
    of: str = ""

    @property
    def name(self) -> str:
        """What it is called in every output: section and key, with the task between them."""
        return f"{self.criterion.section}.{self.key}"

    @property
    def key(self) -> str:
        return f"{self.of}.{self.criterion.key}" if self.of else self.criterion.key


@dataclass(frozen=True)
class TaskLimits:
    """What tasks are held to. every: the largest drop of any task that is not named; None where
    only the named ones are judged. named: task -> its own. metrics: task -> the metric to judge,
    where not its first. optional: where no task was run those that are not named are left out,
    instead of undecided."""

    every: float | None = None
    named: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    optional: bool = False

    @property
    def has_any(self) -> bool:
        return self.every is not None or bool(self.named)


@dataclass(frozen=True)
class Policy:
    """What is judged, and by which limits. name: the file, or "default policy". subject: mixed or
    uniform. drift_optional: drift is left out where no baseline is given, instead of undecided.
    tasks: what each task is held to."""

    name: str
    subject: str
    limits: tuple[Limit, ...]
    drift_optional: bool = False
    tasks: TaskLimits = TaskLimits()

    @property
    def has_drift(self) -> bool:
        return any(limit.criterion.section == "drift" for limit in self.limits)

    def of_model(self, model: str) -> "Policy":
        """The same limits for another model of a run. The proof is one of mixed, and is not asked
        of uniform."""
        limits = self.limits
        if model != SUBJECTS[0]:
            limits = tuple(limit for limit in limits if limit.criterion.measure != "proof")
        return replace(self, subject=model, limits=limits)


def load_policy(path: Path | None = None) -> Policy:
    """The policy of a TOML file, by default the default one. InputError where it cannot be read or
    used, naming key and line."""
    try:
        text = read_text(path or DEFAULT_PATH, MOST_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"there is no policy {path}", "check the path") from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"the policy {path} cannot be read ({error})", "give a TOML file in UTF-8"
        ) from error
    return parse_policy(text, DEFAULT_NAME if path is None else str(path))


def parse_policy(text: str, name: str) -> Policy:
    """The policy that `text` (TOML) holds; messages call it `name`. InputError, naming key and
    line, where it cannot be used."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"{name} is no TOML ({reason})", "mend that line") from error

    def refuse(section: str, key: str, what: str, remedy: str) -> InputError:
        line = find_line(text, section, key)
        return InputError(f"{name}{f', line {line}' if line else ''}: {what}", remedy)

    for key in document:
        if key not in ("subject", *SECTIONS, TASKS):
            raise refuse("", key, *_unknown(key, "", ("subject", *SECTIONS, TASKS)))
    subject = document.get("subject", SUBJECTS[0])
    if subject not in SUBJECTS:
        raise refuse("", "subject", f"subject is {subject!r}", f"give {' or '.join(SUBJECTS)}")
    limits: list[Limit] = []
    for section, criteria in SECTIONS.items():
        given = document.get(section, {})
        if not isinstance(given, dict):
            raise refuse("", section, f"{section} is {given!r}", f"make it a table, [{section}]")
        known = {criterion.key: criterion for criterion in criteria}
        for key, value in given.items():
            if section == "drift" and key == "optional":
                if not isinstance(value, bool):
                    raise refuse(section, key, f"optional is {value!r}", "give true or false")
                continue
            if key not in known:
                options = [*known, *(["optional"] if section == "drift" else [])]
                raise refuse(section, key, *_unknown(key, f" in [{section}]", options))
            problem = find_problem(known[key], value)
            if problem:
                raise refuse(section, key, *problem)
            if value is not False:
                limits.append(Limit(known[key], float(min(value, HUGE))))
    tasks = _parse_tasks(document.get(TASKS, {}), refuse)
    optional = document.get("drift", {}).get("optional", False)
    policy = Policy(name, subject, tuple(limits), optional, tasks)
    if not limits and not tasks.has_any:
        raise InputError(f"{name} sets no limit", NO_LIMIT)
    conflict = find_conflict(policy)
    if conflict:
        raise refuse(*conflict)
    return policy


def find_conflict(policy: Policy) -> tuple[str, str, str, str] | None:
    """What of a policy contradicts the rest of it: section, key, what is wrong, and the remedy;
    None where nothing does."""
    limits, tasks = policy.limits, policy.tasks
    if tasks.optional and not (limits or tasks.named):
        return (
            TASKS,
            "optional",
            "optional tasks are all there is: nothing would be judged without any",
            "take out optional, or set something in [limits]",
        )
    surely = any(limit.criterion.section != "drift" for limit in limits)
    surely = surely or bool(tasks.named) or (tasks.every is not None and not tasks.optional)
    if policy.drift_optional and not surely:
        return (
            "drift",
            "optional",
            "optional drift is all there is: nothing would be judged without a baseline",
            "take out optional, or set something in [limits]",
        )
    if policy.subject == "uniform" and any(limit.criterion.measure == "proof" for limit in limits):
        return (
            "limits",
            "require_proof",
            "there is no proof of the uniform model, only of the mixed one",
            "take out require_proof, or judge mixed",
        )
    return None


def _parse_tasks(given: Any, refuse: Callable[[str, str, str, str], InputError]) -> TaskLimits:
    """What a policy says of tasks: of all of them, and in a table each of some."""
    if not isinstance(given, dict):
        raise refuse("", TASKS, f"{TASKS} is {given!r}", f"make it a table, [{TASKS}]")
    named: dict[str, float] = {}
    metrics: dict[str, str] = {}
    optional, every = given.get("optional", False), given.get(MAX_DROP.key)
    if not isinstance(optional, bool):
        raise refuse(TASKS, "optional", f"optional is {optional!r}", "give true or false")
    for key, value in given.items():
        if isinstance(value, dict):
            drop, metric = value.get(MAX_DROP.key, every), value.get("metric")
            table = f"{TASKS}.{key}"
            for entry in value:
                if entry not in (MAX_DROP.key, "metric"):
                    said = _unknown(entry, f" in [{table}]", (MAX_DROP.key, "metric"))
                    raise refuse(table, entry, *said)
            if metric is not None and not (isinstance(metric, str) and metric):
                raise refuse(table, "metric", f"metric is {metric!r}", 'give a name, like "acc"')
            if drop is None:
                raise refuse(TASKS, key, f"{key} has no limit", f"set {MAX_DROP.key} in [{table}]")
            problem = find_problem(MAX_DROP, drop)
            if problem:
                raise refuse(table, MAX_DROP.key, *problem)
            named[key] = float(drop)
            metrics |= {key: metric} if metric else {}
        elif key == MAX_DROP.key:
            problem = find_problem(MAX_DROP, value)
            if problem:
                raise refuse(TASKS, key, *problem)
        elif key != "optional":
            raise refuse(TASKS, key, *_unknown(key, f" in [{TASKS}]", (MAX_DROP.key, "optional")))
    return TaskLimits(None if every is None else float(every), named, metrics, optional)


def _unknown(key: str, where: str, known: Sequence[str]) -> tuple[str, str]:
    """What is wrong with a key that is not known, and the remedy."""
    nearest = difflib.get_close_matches(key, known, n=1)
    remedy = f"did you mean {nearest[0]}?" if nearest else f"the keys are {', '.join(known)}"
    return f"unknown key {key!r}{where}", remedy


def find_line(text: str, section: str, key: str) -> int | None:
    """The line, from 1, that sets a key or opens the table of that name; None if it cannot be told.
    section: the table that the key is in, or nothing for the top level."""
    wanted = f"{section}.{key}" if section else key
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        opened = re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line)
        name = re.match(r"""\s*([\w."' -]+?)\s*=""", line)
        if opened:
            found = table = opened[1]
        elif name:
            found = f"{table}.{name[1]}" if table else name[1]
        else:
            continue
        found = re.sub(r"""["'\s]""", "", found)
        if found == wanted or found.startswith(f"{wanted}."):
            return number
    return None


def policy_schema() -> Mapping[str, Any]:
    """The JSON Schema of a policy, for editors that check TOML while it is written."""

    def describe(criterion: Criterion) -> dict[str, Any]:
        if criterion.form == PROOF:
            return {"type": "boolean", "description": criterion.meaning}
        found: dict[str, Any] = {"type": "number", "description": criterion.meaning}
        found["exclusiveMinimum" if criterion.open_least else "minimum"] = criterion.least
        return found | ({"maximum": criterion.most} if criterion.most < math.inf else {})

    tables = {
        section: {criterion.key: describe(criterion) for criterion in criteria}
        for section, criteria in SECTIONS.items()
    }
    tables["drift"]["optional"] = {
        "type": "boolean",
        "description": "Leave drift out where no baseline is given, instead of undecided.",
    }
    drop = {MAX_DROP.key: describe(MAX_DROP)}
    metric = {"type": "string", "description": "The metric that is judged, as lm-eval calls it."}
    tables[TASKS] = drop | {
        "optional": {
            "type": "boolean",
            "description": "Leave tasks out where none was run, instead of undecided.",
        }
    }
    one_task = {
        "type": "object",
        "additionalProperties": False,
        "properties": {**drop, "metric": metric},
    }
    subject = {"enum": list(SUBJECTS), "description": "The model that is judged."}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "awqscope gate policy",
        "type": "object",
        "additionalProperties": False,
        "properties": {"subject": subject}
        | {
            section: {
                "type": "object",
                "additionalProperties": one_task if section == TASKS else False,
                "properties": keys,
            }
            for section, keys in tables.items()
        },
        "anyOf": [{"required": [section]} for section in tables],
    }
