"""The command that carries out a spec, and the one that continues a run that stopped."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from awqscope.diagnose.runs.compare_spec import CompareSpec
from awqscope.diagnose.runs.record import AnyRecord, AnySpec
from awqscope.diagnose.runs.spec import RunSpec

MODELS = ("model", "reference", "candidate")
PATHS = (*MODELS, "calib", "valid")


def read_spec(stored: Mapping[str, Any]) -> AnySpec:
    """The spec that is stored as JSON. InputError for one of another version."""
    kind = CompareSpec if "candidate" in stored else RunSpec
    return kind.from_json(dict(stored))


def spec_arguments(spec: AnySpec, out: Path, *, leave_out_defaults: bool = False) -> list[str]:
    """`run` or `compare` with the options of a spec. A value is never an argument of its own, so
    that none can be taken for an option."""
    command = "compare" if isinstance(spec, CompareSpec) else "run"
    defaults = {entry.name: entry.default for entry in fields(spec)}
    models = [value for key, value in asdict(spec).items() if key in MODELS]
    options = []
    for key, value in asdict(spec).items():
        option = f"--{key.replace('_', '-')}"
        if key in MODELS or value is None or value is False:
            continue
        if leave_out_defaults and value == defaults[key]:
            continue
        if value is True:
            options.append(option)
        elif isinstance(value, tuple):
            options += [f"{option}={entry}" for entry in value]
        else:
            options.append(f"{option}={value}")
    return [command, *options, f"--out={out}", "--", *models]


def write_resuming(record: AnyRecord, out: Path) -> str:
    """The command, to be pasted into a shell, that continues the run in `out`. It begins with a
    `cd` where the record's paths are relative to elsewhere."""
    spec, began = record.spec, record.directory
    moves = (
        began is not None
        and os.path.realpath(began) != os.path.realpath(os.getcwd())
        and any(_is_relative(began, name) for name in _list_paths(spec))
    )
    words = spec_arguments(spec, out.absolute() if moves else out, leave_out_defaults=True)
    if record.device:
        # The kind of device that it was begun on; where there are GPUs `auto` could choose another.
        words.insert(1, f"--device={record.device}")
    command = shlex.join(["awqscope", *words])
    return f"cd {shlex.quote(str(began))} && {command}" if moves else command


def _list_paths(spec: AnySpec) -> list[str]:
    found: list[str] = []
    for key, value in asdict(spec).items():
        if key in PATHS:
            found += [value] if isinstance(value, str) else value
    return found


def _is_relative(directory: str, name: str) -> bool:
    """Whether a name is a path below a directory, and no id on the hub."""
    try:
        return not os.path.isabs(name) and os.path.exists(os.path.join(directory, name))
    except ValueError:
        return False
