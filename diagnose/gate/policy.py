"""What a release is held to: a policy, read from TOML and checked before anything is judged.

`policy.toml` beside this file is the default and documents every key; `policy.schema.json` is the
JSON Schema of a policy, for editors, and is made by `policy_schema`.
"""

import difflib
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awqscope.diagnose.gate.criteria import HUGE, PROOF, SECTIONS, Criterion, find_problem
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.untrusted import read_text

MOST_BYTES = 2**20
SUBJECTS = ("mixed", "uniform")
DEFAULT_NAME = "default policy"
DEFAULT_PATH = Path(__file__).with_name("policy.toml")
SCHEMA_PATH = Path(__file__).with_name("policy.schema.json")


@dataclass(frozen=True)
class Limit:
    """A criterion and the largest or smallest value allowed; 1 for a proof that is required."""

    criterion: Criterion
    value: float


@dataclass(frozen=True)
class Policy:
    """What is judged, and by which limits. name: the file, or "default policy". subject: mixed or
    uniform. drift_optional: drift is left out where no baseline is given, instead of undecided."""

    name: str
    subject: str
    limits: tuple[Limit, ...]
    drift_optional: bool = False

    @property
    def has_drift(self) -> bool:
        return any(limit.criterion.section == "drift" for limit in self.limits)


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
        if key not in ("subject", *SECTIONS):
            raise refuse("", key, *_unknown(key, "", ("subject", *SECTIONS)))
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
    policy = Policy(name, subject, tuple(limits), document.get("drift", {}).get("optional", False))
    if not limits:
        raise InputError(
            f"{name} sets no limit", f"set one, such as {SECTIONS['limits'][0].key} in [limits]"
        )
    if policy.drift_optional and all(limit.criterion.section == "drift" for limit in limits):
        raise refuse(
            "drift",
            "optional",
            "optional drift is all there is: nothing would be judged without a baseline",
            "take out optional, or set something in [limits]",
        )
    if subject == "uniform" and any(limit.criterion.measure == "proof" for limit in limits):
        raise refuse(
            "limits",
            "require_proof",
            "there is no proof of the uniform model, only of the mixed one",
            "take out require_proof, or judge mixed",
        )
    return policy


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
    subject = {"enum": list(SUBJECTS), "description": "The model that is judged."}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "awqscope gate policy",
        "type": "object",
        "additionalProperties": False,
        "properties": {"subject": subject}
        | {
            section: {"type": "object", "additionalProperties": False, "properties": keys}
            for section, keys in tables.items()
        },
        "anyOf": [{"required": [section]} for section in tables],
    }
