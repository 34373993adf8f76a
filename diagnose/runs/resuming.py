"""The command that carries out a spec, and the one that continues a run that stopped."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from awqscope.diagnose.options.option import Option, list_options
from awqscope.diagnose.runs.record import AnyRecord
from awqscope.diagnose.runs.spec import AnySpec, CompareSpec, RunSpec

# The numbers of a run are those of its texts, which its command names whatever the default is.
NAMED = ("calib", "valid")


def read_spec(stored: Mapping[str, Any]) -> AnySpec:
    """The spec that is stored as JSON. InputError for one of another version."""
    kind = CompareSpec if "candidate" in stored else RunSpec
    return kind.from_json(stored)


def spec_arguments(spec: AnySpec, out: Path, *, leave_out_defaults: bool = False) -> list[str]:
    """`run` or `compare` with the options of a spec. A value is never an argument of its own, so
    that none can be taken for an option."""
    models, words = [], []
    for name, option in list_options(type(spec)).items():
        value = getattr(spec, name)
        if option.is_argument:
            models.append(value)
        elif not (leave_out_defaults and value == option.default and name not in NAMED):
            words += write_option(option, value)
    return [spec.COMMAND, *words, f"--out={out}", "--", *models]


def write_option(option: Option, value: Any) -> list[str]:
    """An option with its value as words of a command, each beginning with its flag."""
    given = option.list_given(value)
    return [option.flag if text is None else f"{option.flag}={text}" for text in given]


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
    """The models and texts that a spec names."""
    found: list[str] = []
    for name, option in list_options(type(spec)).items():
        if option.is_argument or name in NAMED:
            value = getattr(spec, name)
            found += [value] if isinstance(value, str) else value
    return found


def _is_relative(directory: str, name: str) -> bool:
    """Whether a name is a path below a directory, and no id on the hub."""
    try:
        return not os.path.isabs(name) and os.path.exists(os.path.join(directory, name))
    except ValueError:
        return False
