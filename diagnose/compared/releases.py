"""The runs of one model in the order of time: its releases."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from awqscope.diagnose.compared.choosing import OnLeft, open_sides
from awqscope.diagnose.gate.paired import Side, hash_source
from awqscope.diagnose.runs.naming import RUNS, find_kind
from awqscope.mixedprec.errors import InputError


def sort_releases(sides: Sequence[Side]) -> list[Side]:
    """Models in the order in which their runs were begun."""
    return sorted(sides, key=lambda side: side.record.created)


def group_by_model(sides: Sequence[Side]) -> Mapping[str, list[Side]]:
    """The releases of each reference, by what the newest calls it: runs that name it alike or have
    its files, whatever it is called and wherever it is. The reference with the newest run is
    first."""
    groups: list[list[Side]] = []
    for side in sort_releases(sides):
        mine = [group for group in groups if any(_share(side, other) for other in group)]
        groups = [group for group in groups if group not in mine]
        groups.append(sort_releases([one for group in mine for one in group] + [side]))
    return {group[-1].record.model: group for group in reversed(groups)}


def _share(one: Side, other: Side) -> bool:
    """Whether two runs are of one reference."""
    if one.record.model == other.record.model:
        return True
    hashes = hash_source(one.record)
    return bool(hashes) and hashes == hash_source(other.record)


def choose_releases(
    sides: Sequence[Side], model: str | None = None, *, one_model: bool = False
) -> list[Side]:
    """The releases among models, in the order of time. model: of this reference alone. one_model:
    whether all must be of one. InputError for a reference that none is of, and for several."""
    groups = group_by_model(sides)
    if model is not None:
        found = next(
            (g for name, g in groups.items() if model in (name, *(s.record.model for s in g))), None
        )
        if found is None:
            raise InputError(
                f"no run is of {model}", f"give one of {', '.join(groups) or 'the runs themselves'}"
            )
        return found
    if one_model and len(groups) > 1:
        raise InputError(
            "these runs are of several models", f"choose one with --model: {', '.join(groups)}"
        )
    return sort_releases(sides)


def open_releases(
    names: Sequence[str], model: str | None = None, on_left: OnLeft = lambda said: None
) -> list[Side]:
    """Two releases or more of a model, of runs and directories of runs as `open_sides` takes them;
    of a directory all must be of one, or of the `model` that is named. InputError for a single one,
    and as `choose_releases`."""
    is_whole = any(find_kind(Path(name)) == RUNS for name in names)
    sides = choose_releases(open_sides(names, on_left), model, one_model=is_whole)
    if len(sides) < 2:
        raise InputError("one release has no trend", "give two runs or more of the model")
    return sides
