"""What the dashboard knows of models beside others: read when needed, kept while unchanged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from awqscope.app.store import RunSummary, Store, UnknownRunError
from awqscope.app.verdicts import stamp_verdict
from awqscope.diagnose.compared.changes import Step, read_step
from awqscope.diagnose.compared.choosing import split_name
from awqscope.diagnose.compared.standing import Standing, judge_side, read_standing
from awqscope.diagnose.gate.findings import Missing
from awqscope.diagnose.gate.paired import Pair, Side, choose_side, list_models, read_pair
from awqscope.diagnose.gate.verdict import GateVerdict
from awqscope.mixedprec.errors import InputError


@dataclass(frozen=True)
class _Judged:
    """The gate's verdict, with about what it takes in memory."""

    verdict: GateVerdict | Missing
    nbytes: int = 20_000


def _together(store: Store, what: str, sides: Sequence[Side], read: Callable[[], Any]) -> Any:
    """What `read` finds of these models, from memory while neither the token tables nor the records
    of their runs have changed."""
    paths = [side.run.path / "tokens.parquet" for side in sides]
    if not all(path.exists() for path in paths):
        return read()
    known = [
        (side.model, str(path), path.stat().st_mtime_ns, side.record.updated)
        for side, path in zip(sides, paths, strict=True)
    ]
    return store.remember(paths[0], f"{what} {known}", read)


def pair(store: Store, a: Side, b: Side) -> Pair:
    """Two models side by side."""
    return cast(Pair, _together(store, "pair", (a, b), partial(read_pair, a, b)))


def step(store: Store, a: Side, b: Side) -> Step:
    """What changed from one model to the next."""

    def read() -> Step:
        return read_step(a, b, pair(store, a, b))

    return cast(Step, _together(store, "step", (a, b), read))


def standing(store: Store, side: Side) -> Standing:
    """A model's own size and numbers."""

    def read() -> Standing:
        try:
            by_token = store.token_evidence(side.run.path.name, side.model)
        except InputError:
            by_token = None
        return read_standing(side, by_token)

    return cast(Standing, _together(store, "standing", (side,), read))


def judge(store: Store, side: Side) -> GateVerdict | Missing:
    """The gate's verdict on a model, kept while nothing has changed that it is made of."""
    stamp = stamp_verdict(side.run)

    def read() -> _Judged:
        try:
            by_token = store.token_evidence(side.run.path.name, side.model)
        except InputError as error:
            return _Judged(Missing(error.what))
        return _Judged(judge_side(side, by_token))

    return cast(_Judged, _together(store, f"verdict {stamp}", (side,), read)).verdict


def entry_of(side: Side) -> str:
    """What an address has for a model: its run, and the model where that is not the default."""
    name, models = side.run.path.name, list_models(side.record)
    return name if side.model == models[0] else f"{name}:{side.model}"


def find_side(store: Store, entry: str) -> Side | str:
    """The model that an entry of an address names, or why there is none. A run of that whole name
    comes before the model of one."""
    name, wanted = entry, ""
    try:
        run = store.summary(name)
    except UnknownRunError:
        name, wanted = split_name(entry)
        try:
            run = store.summary(name)
        except UnknownRunError:
            return f"{name} is not here any more"
    trouble = trouble_of(run)
    if trouble:
        return f"{name} cannot be compared: {trouble}"
    assert run.record is not None
    return choose_side(store.find(name), run.record, wanted)


def list_sides(store: Store) -> list[Side]:
    """Every model of every run that measured one, the newest run first."""
    found = []
    for run in store.list_runs():
        if run.record is not None and not trouble_of(run):
            place = store.find(run.name)
            found += [Side(place, run.record, model) for model in list_models(run.record)]
    return found


def trouble_of(run: RunSummary) -> str:
    """Why a run cannot be compared; empty where it can."""
    if run.record is None:
        return run.error
    return "" if run.record.headline is not None else "It has measured nothing yet."
