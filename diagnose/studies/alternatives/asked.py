"""What is asked of a run's alternatives, and whether it is known: read without the run's model."""

import re
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import ValidationError

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import MIXED, UNIFORM, Record
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.studies.alternatives.answer import Alternatives
from awqscope.diagnose.studies.alternatives.methods import METHODS, NAMES, Method, Rounded
from awqscope.diagnose.studies.study import Study, name_study, read_recipe_widths
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.scheme import UnitWidths, write_width

# What a checkpoint may be called: it is part of a file's name.
ADDED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


def study_of(run: RunDirectory, record: Record) -> Study:
    """The study of a run's alternatives. record: of the run."""
    asked = {"tokens": record.ppl_definition.tokens_sha256}
    return Study(run, name_study("alternatives"), asked)


def check_names(only: Collection[str]) -> None:
    """Raise InputError for a name that no method has."""
    unknown = sorted(set(only) - set(NAMES))
    if unknown:
        raise InputError(f"there is no alternative {unknown[0]}", f"choose from {', '.join(NAMES)}")


def check_added(added: Collection[str]) -> None:
    """Raise InputError for names that a checkpoint cannot have in the table."""
    for name in added:
        if name in NAMES:
            raise InputError(
                f"{name} is an alternative of its own", "call the checkpoint otherwise"
            )
        if not ADDED_NAME.fullmatch(name):
            raise InputError(
                f"a checkpoint cannot be called {name!r}",
                "use letters, digits, dots and dashes, at most 40",
            )


def read_kept(study: Study) -> Alternatives | None:
    """The answer that is there, None for none that can be used."""
    found = study.read()
    try:
        return None if found is None else Alternatives.model_validate(found)
    except ValidationError:
        return None


def find_kept(
    run: RunDirectory, *, only: Collection[str] = (), by_block: bool = False
) -> Alternatives | None:
    """The answer that is there, where it has all these alternatives as they would be made today;
    None else. InputError for a name that no method has."""
    check_names(only)
    record = run.read_measured()
    kept = read_kept(study_of(run, record))
    if kept is None:
        return None
    spec, mixed = record.spec, read_recipe_widths(run, record)
    wanted = [method for method in METHODS if method.name in {UNIFORM, *(only or NAMES)}]
    for method in wanted:
        row = kept.find(method.name)
        if row is None:
            # A library may have been installed since, or a unit raised.
            is_left_out = not only and method.name in kept.left_out
            is_missing = method.name == MIXED and _raises(mixed, spec)
            holds = is_left_out and not is_missing and _read_version(method) is None
        else:
            same = stamp_method(method, spec, mixed).items() <= row.stamp.items()
            holds = same and (row.blocks is not None or not by_block)
        if not holds:
            return None
    return keep_current(kept, run)


def _raises(mixed: UnitWidths, spec: RunSpec) -> bool:
    """Whether a run's recipe (unit -> width) raises any unit."""
    return any(width != spec.bits for unit, width in mixed.items() if unit not in spec.keep_fp16)


def keep_current(found: Alternatives, run: RunDirectory) -> Alternatives:
    """An answer without the rows that would be made otherwise today: by another recipe, or by
    another version of a library. They are left out, with the reason; what a library made that is
    gone by now stays."""
    record = run.read_searched()
    mixed, stale = read_recipe_widths(run, record), {}
    for method in METHODS:
        row, source = found.find(method.name), method.source
        stamp = stamp_method(method, record.spec, mixed)
        if row is None or stamp.get("version", "") is None:
            continue
        if any(row.stamp.get(entry, value) != value for entry, value in stamp.items()):
            made_by = source.library if isinstance(source, Rounded) else "the run's recipe"
            stale[method.name] = f"{made_by} has changed since"
    rows = [row for row in found.rows if row.name not in stale]
    return found.changed(rows=rows, left_out={**found.left_out, **stale}) if stale else found


def stamp_method(method: Method, spec: RunSpec, mixed: UnitWidths) -> dict[str, Any]:
    """What an alternative that is made here depends on, besides the run. mixed: unit -> width of
    the run's recipe."""
    if isinstance(method.source, Rounded):
        return {"version": _read_version(method)}
    stamp: Mapping[str, Any] = {"scheme": str(method.scheme(spec)), "search": spec.search}
    if method.name != MIXED:
        return {**stamp}
    return {**stamp, "widths": {unit: write_width(width) for unit, width in mixed.items()}}


def _read_version(method: Method) -> str | None:
    """The version of the library that a method needs; None for none that is installed or needed."""
    try:
        return version(method.source.library) if isinstance(method.source, Rounded) else None
    except PackageNotFoundError:
        return None
