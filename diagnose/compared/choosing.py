"""Which models are meant: of runs as they are named on a command line or in an address."""

from collections.abc import Callable, Sequence
from pathlib import Path

from awqscope.diagnose.gate.paired import Side, choose_side, list_models
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.naming import RUN, RUNS, find_kind
from awqscope.diagnose.runs.notes import find_notes
from awqscope.diagnose.runs.record import CANDIDATE, MIXED, UNIFORM
from awqscope.mixedprec.errors import InputError

# Told of a run that is left out, in words.
OnLeft = Callable[[str], None]
MODELS = (MIXED, UNIFORM, CANDIDATE)


def split_name(name: str) -> tuple[str, str]:
    """`RUN:MODEL` in its parts; no model where none is named."""
    run, colon, model = name.rpartition(":")
    return (run, model) if colon and run and model in MODELS else (name, "")


def open_side(name: str) -> Side:
    """The model that `RUN` or `RUN:MODEL` names: by default mixed, uniform where there is none, and
    of a comparison its candidate. InputError for no run, one that measured nothing yet, and a model
    that it does not have."""
    path, wanted = (name, "") if find_kind(Path(name)) == RUN else split_name(name)
    run = RunDirectory(Path(path))
    record = run.look()
    if record.headline is None:
        raise InputError(f"{path} has measured nothing yet", run.how_to_finish())
    models = list_models(record)
    if wanted and wanted not in models:
        raise InputError(f"{path} has no {wanted} model", f"it has {' and '.join(models)}")
    return choose_side(run, record, wanted)


def open_sides(names: Sequence[str], on_left: OnLeft = lambda said: None) -> list[Side]:
    """The models that are named; of a directory of runs all that measured something and are not
    archived, each by its default. on_left: told of each run of a directory that is left out,
    and why. InputError as `open_side`, and for the same model twice."""
    sides: list[Side] = []
    for name in names:
        if find_kind(Path(name)) == RUNS:
            sides += _open_all(Path(name), on_left)
        else:
            sides.append(open_side(name))
    known = [_identify(side) for side in sides]
    twice = [side for side in sides if known.count(_identify(side)) > 1]
    if twice:
        raise InputError(
            f"{twice[0].run.path} is given twice", "give each run once, or RUN:uniform of one"
        )
    return sides


def open_ranked(
    names: Sequence[str], baseline: str | None = None, on_left: OnLeft = lambda said: None
) -> tuple[list[Side], int | None]:
    """Two models or more, as `open_sides`, and which of them is the baseline that is named; one
    that is none of them is added. InputError for a single one."""
    sides, at = open_sides(names, on_left), None
    if baseline is not None:
        base = open_side(baseline)
        at = find_side(sides, base)
        if at is None:
            sides, at = [*sides, base], len(sides)
    if len(sides) < 2:
        raise InputError("there is but one run to rank", "give two or more")
    return sides, at


def find_side(sides: Sequence[Side], wanted: Side) -> int | None:
    """Where a model is among others; None where it is not."""
    key = _identify(wanted)
    return next((at for at, side in enumerate(sides) if _identify(side) == key), None)


def _identify(side: Side) -> tuple[Path, str]:
    return side.run.path.resolve(), side.model


def _open_all(root: Path, on_left: OnLeft) -> list[Side]:
    found = []
    for path in sorted(root.iterdir()):
        if path.name.startswith(".") or find_kind(path) != RUN:
            continue
        try:
            run = RunDirectory(path)
            record = run.look()
        except InputError as error:
            # A damaged run must not cost the others their table.
            on_left(f"{path} is left out: {error.what}")
            continue
        if record.headline is None:
            on_left(f"{path} is left out: it has measured nothing yet")
        elif find_notes(path)[0].archived:
            on_left(f"{path} is left out: it is archived")
        else:
            found.append(choose_side(run, record, ""))
    return found
