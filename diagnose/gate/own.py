"""A run's own policy: the file beside it that it is judged by where none is given, and how its
limits are changed there. What else stands in the file, such as comments, stays."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from awqscope.diagnose.gate.criteria import MAX_DROP, SECTIONS, TASKS, Criterion
from awqscope.diagnose.gate.policy import (
    DEFAULT_PATH,
    MOST_BYTES,
    SUBJECTS,
    Policy,
    find_line,
    load_policy,
    parse_policy,
)
from awqscope.diagnose.gate.verdict import GateVerdict
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.atomic import write_text
from awqscope.mixedprec.files.untrusted import read_text

OWN_POLICY = "policy.toml"
# Where the default policy's own words end, and those begin that hold for any.
COMMON = "# Every key may be left out"
HEAD = (
    "# The policy of this run: `awqscope gate RUN` and the run's page judge it by this file where\n"
    "# no other is given.\n#\n"
)
# What can be set in each section, of tasks that of all of them; and the keys that say that a
# section is left out where there is nothing to judge by it.
SETTABLE: Mapping[str, tuple[Criterion, ...]] = {**SECTIONS, TASKS: (MAX_DROP,)}
OPTIONAL = {"drift": ("drift", "optional"), TASKS: (TASKS, "optional")}

# (section, key) -> the limit, or whether something is asked for; None for what is not judged.
Settings = Mapping[tuple[str, str], float | bool | None]


def find_own(run: RunDirectory) -> Path | None:
    """The policy beside a run; None where it has none of its own."""
    path = run.path / OWN_POLICY
    return path if path.exists() or path.is_symlink() else None


def load_own(run: RunDirectory) -> Policy:
    """The policy that a run is judged by where none is given: its own, else the default one.
    InputError where its own cannot be used."""
    return load_policy(find_own(run))


def is_own(verdict: GateVerdict) -> bool:
    """Whether a run was judged by its own policy."""
    return Path(verdict.policy) == Path(verdict.evidence.run) / OWN_POLICY


def list_settings(policy: Policy) -> dict[tuple[str, str], float | bool | None]:
    """What a policy says of everything that one can limit."""
    said: dict[tuple[str, str], float | bool | None] = {
        (limit.criterion.section, limit.criterion.key): limit.value for limit in policy.limits
    }
    said[TASKS, MAX_DROP.key] = policy.tasks.every
    known = [(each.section, each.key) for criteria in SETTABLE.values() for each in criteria]
    optional = {
        OPTIONAL["drift"]: policy.drift_optional,
        OPTIONAL[TASKS]: policy.tasks.optional,
    }
    return {key: said.get(key) for key in known} | optional


def save_own(run: RunDirectory, policy: Policy) -> Path:
    """Give a run this policy as its own, whole or not at all; what its file says besides stays."""
    own = find_own(run)
    if own is None:
        default = DEFAULT_PATH.read_text(encoding="utf-8")
        text = HEAD + default[default.index(COMMON) :]
    else:
        text = read_text(own, MOST_BYTES)
    path = run.path / OWN_POLICY
    write_text(path, change_text(text, policy))
    return path


def remove_own(run: RunDirectory) -> None:
    """Have a run judged by the default policy again."""
    (run.path / OWN_POLICY).unlink(missing_ok=True)


def change_text(text: str, policy: Policy) -> str:
    """A policy's text (TOML) with what it sets changed to `policy`, line by line; written anew
    where its lines are not of the simple kind that can be changed so."""
    changed = _set_subject(text, policy.subject)
    for (section, key), value in list_settings(policy).items():
        changed = _set_key(changed, section, key, None if value is False else value)
    try:
        found = parse_policy(changed, policy.name)
    except InputError:
        found = None
    return changed if found is not None and _is_alike(found, policy) else write_anew(policy)


def write_anew(policy: Policy) -> str:
    """A policy as TOML, with what each of its limits means."""
    said = list_settings(policy)
    lines = [*HEAD.removesuffix("#\n").splitlines(), "", f'subject = "{policy.subject}"']
    for section, criteria in SETTABLE.items():
        here = [each for each in criteria if said[section, each.key] is not None]
        is_optional = section in OPTIONAL and said[OPTIONAL[section]]
        if here or is_optional:
            lines += ["", f"[{section}]"]
        if is_optional:
            lines.append("optional = true")
        for each in here:
            value = said[section, each.key]
            lines += [f"# {each.meaning}", f"{each.key} = {_write_value(section, each.key, value)}"]
    for task, drop in policy.tasks.named.items():
        lines += ["", f"[{TASKS}.{json.dumps(task)}]", f"{MAX_DROP.key} = {_write_number(drop)}"]
        metric = policy.tasks.metrics.get(task)
        lines += [f"metric = {json.dumps(metric)}"] if metric else []
    return "\n".join(lines) + "\n"


def _is_alike(one: Policy, other: Policy) -> bool:
    return (
        one.subject == other.subject
        and list_settings(one) == list_settings(other)
        and one.tasks == other.tasks
    )


def _write_value(section: str, key: str, value: float | bool | None) -> str:
    """A value as TOML has it; of limits that are demands, true."""
    is_demand = (section, key) in OPTIONAL.values() or any(
        each.is_demand for each in SETTABLE[section] if each.key == key
    )
    return "true" if is_demand else _write_number(float(value or 0))


def _write_number(value: float) -> str:
    return repr(value).removesuffix(".0")


def _set_subject(text: str, subject: str) -> str:
    line = find_line(text, "", "subject")
    lines = text.splitlines()
    if line is not None:
        lines[line - 1] = _replace(lines[line - 1], f'"{subject}"')
    elif subject != SUBJECTS[0]:
        lines.insert(0, f'subject = "{subject}"')
    return "\n".join(lines) + "\n"


def _set_key(text: str, section: str, key: str, value: float | bool | None) -> str:
    """The text with a key of a table set, or made a comment where there is no value."""
    lines, line = text.splitlines(), find_line(text, section, key)
    if value is None:
        if line is not None:
            lines[line - 1] = f"# {lines[line - 1].lstrip()}"
        return "\n".join(lines) + "\n"
    written = _write_value(section, key, value)
    table = find_line(text, "", section)
    if line is not None:
        lines[line - 1] = _replace(lines[line - 1], written)
    elif table is None:
        lines += ["", f"[{section}]", f"{key} = {written}"]
    else:
        at = _find_comment(lines, table, key)
        if at is None:
            lines.insert(table, f"{key} = {written}")
        else:
            lines[at] = f"{key} = {written}"
    return "\n".join(lines) + "\n"


def _find_comment(lines: list[str], table: int, key: str) -> int | None:
    """Where a table, whose first line is at `table`, has a key as a comment."""
    for at in range(table, len(lines)):
        if lines[at].lstrip().startswith("["):
            break
        if re.match(rf"\s*#\s*{re.escape(key)}\s*=", lines[at]):
            return at
    return None


def _replace(line: str, value: str) -> str:
    """A line `key = value` with another value; its comment stays."""
    key, _, rest = line.partition("=")
    comment = re.search(r"\s+#.*$", rest)
    return f"{key.rstrip()} = {value}{comment[0] if comment else ''}"
