"""Finished results of lm-eval, read from where `--output_path` with `--log_samples` put them:
results_DATE.json and a samples_TASK_DATE.jsonl a task."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awqscope.diagnose.studies.tasks.samples import Scored, read_samples
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.untrusted import read_json

SAMPLES = re.compile(r"samples_(?P<task>.+)_(?P<date>[^_]+)\.jsonl")
LONGEST_LINE = 16 * 2**20


@dataclass(frozen=True)
class Result:
    """One task of one model, finished. higher_is_better: by metric, without filters."""

    task: str
    scored: Scored
    higher_is_better: Mapping[str, bool]


def read_results(folder: Path, wanted: Collection[str] = ()) -> list[Result]:
    """The newest results of every task in a folder, or of the `wanted` ones; subtasks of a group
    that is there whole are taken together under its name. InputError where there are none, and for
    files that lm-eval did not write."""
    folder = find_folder(folder)
    newest: dict[str, tuple[str, Path]] = {}
    for path in folder.iterdir():
        said = SAMPLES.fullmatch(path.name)
        if said:
            newest[said["task"]] = max(newest.get(said["task"], ("", path)), (said["date"], path))
    summaries = [_read_summary(path) for path in sorted(folder.glob("results_*.json"))]
    groups: dict[str, Sequence[str]] = {}
    higher: dict[str, Mapping[str, bool]] = {}
    for summary in summaries:
        groups |= summary.get("group_subtasks", {})
        higher |= summary.get("higher_is_better", {})
    whole = {name: list_leaves(name, groups) for name in groups}
    whole = {name: leaves for name, leaves in whole.items() if leaves and leaves <= newest.keys()}
    inside = {leaf for leaves in whole.values() for leaf in leaves}
    inside |= {child for name in whole for child in groups[name]}
    names = list(wanted) or sorted((newest.keys() | whole.keys()) - inside)
    found = []
    for name in names:
        leaves = whole.get(name) or ({name} if name in newest else set())
        if not leaves:
            there = ", ".join(sorted(newest.keys() | whole.keys()))
            raise InputError(f"{folder} holds no results of {name}", f"it has {there}")
        scored = read_samples({leaf: read_lines(newest[leaf][1]) for leaf in sorted(leaves)})
        known = {metric: more for leaf in leaves for metric, more in higher.get(leaf, {}).items()}
        found.append(Result(name, scored, {m: more is not False for m, more in known.items()}))
    return found


def find_folder(folder: Path) -> Path:
    """The folder with the samples: the one that is given, or the only one in it. InputError where
    there are none, or several."""
    if not folder.is_dir():
        raise InputError(f"there is no directory {folder}", "give the --output_path of lm-eval")
    there = [
        each
        for each in (folder, *sorted(path for path in folder.iterdir() if path.is_dir()))
        if any(SAMPLES.fullmatch(path.name) for path in each.iterdir())
    ]
    if not there:
        raise InputError(f"{folder} holds no samples of lm-eval", "run lm-eval with --log_samples")
    if len(there) > 1 and there[0] != folder:
        names = ", ".join(path.name for path in there)
        raise InputError(f"{folder} holds results of several models", f"give one of {names}")
    return there[0]


def list_leaves(name: str, groups: Mapping[str, Sequence[str]]) -> set[str]:
    """The tasks of a group, and of the groups in it."""
    leaves, open_, seen = set(), [name], set()
    while open_:
        each = open_.pop()
        if each in seen:
            continue
        seen.add(each)
        children = groups.get(each, ())
        open_ += children
        if not children and each != name:
            leaves.add(each)
    return leaves


def read_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """The samples of a file, a line at a time. InputError, with its number, for a line that cannot
    be read."""
    number = 0
    try:
        with open(path, encoding="utf-8") as file:
            while line := file.readline(LONGEST_LINE):
                number += 1
                yield json.loads(line)
    except (OSError, ValueError, RecursionError) as error:
        where = f"{path}, line {number}" if number else f"{path}"
        raise InputError(f"{where} cannot be read ({error})", "run lm-eval again") from error


def _read_summary(path: Path) -> Mapping[str, Any]:
    """A results file's entries of tables; empty where it is none."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    tables = ("group_subtasks", "higher_is_better")
    known = found if isinstance(found, dict) else {}
    return {key: known[key] for key in tables if isinstance(known.get(key), dict)}
