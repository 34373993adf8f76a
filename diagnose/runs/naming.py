"""What a path that a user gave leads to, so that a model given in place of a run, or a run in place
of a model, is recognised."""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePath

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.untrusted import read_json

RUN = "a run"
RUNS = "a directory of runs"
MODEL = "a model"
CHECKPOINT = "a quantized checkpoint"
GGUF = ".gguf"
# An id on the hub, where it is no path that somebody meant.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def find_kind(path: Path) -> str | None:
    """RUN, RUNS, MODEL or CHECKPOINT; None for anything else."""
    try:
        if not path.is_dir():
            return MODEL if path.suffix == GGUF and path.is_file() else None
        if (path / "run.json").exists():
            return RUN
        if (path / "config.json").exists():
            return CHECKPOINT if _is_quantized(path / "config.json") else MODEL
        if any((Path(entry.path) / "run.json").exists() for entry in os.scandir(path)):
            return RUNS
    except OSError:
        pass
    return None


def _is_quantized(config: Path) -> bool:
    try:
        found = read_json(config)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and bool(found.get("quantization_config"))


def find_run(path: Path) -> str:
    """The remedy where a path that should be a run's is none."""
    kind = find_kind(path)
    inside = next((parent for parent in path.parents if (parent / "run.json").exists()), None)
    if inside is not None and str(inside) != ".":
        return f"give the run that it is in, {inside}"
    if kind in (MODEL, CHECKPOINT):
        return f"it is {kind}; awqscope run {shlex.quote(str(path))} makes a run of a model"
    if kind == RUNS:
        return f"it holds runs; awqscope list {shlex.quote(str(path))} names them"
    if HUB_ID.fullmatch(str(path)) and not path.parent.exists():
        return (
            f"give a directory with run.json; awqscope run {path} makes one of a model on the hub"
        )
    return "give a directory with run.json"


def default_out(model: str) -> Path:
    """The directory of a run of `model` where none is given."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.rstrip("/").rpartition("/")[2]).strip("-.")
    return Path("reports") / (name or "run")


def default_outs(models: Sequence[str], root: Path | None = None) -> dict[Path, str]:
    """The directories of runs of several models, below `root` or where each would be by default:
    directory -> model. Names are as many of the last parts of a path as tell them apart."""
    most = max(model.strip("/").count("/") for model in models) + 1
    for parts in range(1, most + 1):
        ends = ["-".join(PurePath(model).parts[-parts:]) for model in models]
        names = [default_out(end.replace("/", "-")).name for end in ends]
        if len(set(names)) == len(models):
            break
    else:
        raise InputError(
            "two candidates would have one run directory", "compare each with an --out of its own"
        )
    return {
        (default_out(name) if root is None else root / name): model
        for name, model in zip(names, models, strict=True)
    }
