"""Runs that were started from a dashboard and have not written their first record yet.

RUNS/.logs/NAME.start.json says what was started, when, and by which process; NAME.log, which that
process keeps locked, is what it says. A start is over once the run's record is newer than it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from awqscope.app.dashboard.jobs.processes import last_lines
from awqscope.mixedprec.files.atomic import write_json
from awqscope.mixedprec.files.locks import is_locked
from awqscope.mixedprec.files.untrusted import read_json

LOGS = ".logs"
SUFFIX = ".start.json"
STARTING, STOPPING, ENDED = "starting", "stopping", "ended"


@dataclass(frozen=True)
class Start:
    """What was started. spec: of the run; device, workers: where it is carried out. began:
    nanoseconds since 1970, before its process was there. pid: that process. stopping: whether it
    was asked to stop."""

    name: str
    spec: Mapping[str, Any]
    device: str
    workers: int | None
    began: int
    pid: int
    stopping: bool = False


@dataclass(frozen=True)
class Pending:
    """A start without a record of its own so far. state: starting, stopping, or ended where its
    process is gone. log: the end of what it said."""

    start: Start
    state: str
    log: str

    @property
    def name(self) -> str:
        return self.start.name


def note(root: Path, start: Start) -> None:
    """Note a start, or what has changed of it. OSError where it cannot be."""
    write_json(_path(root, start.name), {**asdict(start), "spec": dict(start.spec)})


def forget(root: Path, name: str) -> None:
    """Remove the note of a start, if there is one."""
    _path(root, name).unlink(missing_ok=True)


def is_over(root: Path, start: Start) -> bool:
    """Whether the run has a record that was written since."""
    try:
        written = (root / start.name / "run.json").stat().st_mtime_ns
    except OSError:
        return False
    return written > start.began


def list_pending(root: Path) -> list[Pending]:
    """Every start that is not over, the newest first; none that was asked to stop and did."""
    found = []
    for path in (root / LOGS).glob(f"*{SUFFIX}"):
        start = _read(path)
        if start is None:
            continue
        log = root / LOGS / f"{start.name}.log"
        # Asked first: a process that ends in between has left its record behind.
        alive = is_locked(log)
        if is_over(root, start) or (start.stopping and not alive):
            continue
        state = ENDED if not alive else STOPPING if start.stopping else STARTING
        found.append(Pending(start, state, last_lines(log)))
    return sorted(found, key=lambda pending: -pending.start.began)


def find_pending(root: Path, name: str) -> Pending | None:
    """The start of that name, if it is not over. A name from an address is looked for, never joined
    to a path."""
    return next((pending for pending in list_pending(root) if pending.name == name), None)


def forget_over(root: Path) -> None:
    """Forget every start that is over, so that none comes back when its run is removed."""
    # Listed first: what is started meanwhile is in neither.
    noted = [path.name.removesuffix(SUFFIX) for path in (root / LOGS).glob(f"*{SUFFIX}")]
    pending = {found.name for found in list_pending(root)}
    for name in noted:
        if name not in pending:
            forget(root, name)


def _path(root: Path, name: str) -> Path:
    return root / LOGS / f"{name}{SUFFIX}"


def _read(path: Path) -> Start | None:
    """A start as noted; None for a file that awqscope did not write."""
    try:
        found = read_json(path)
        start = Start(**found)
    except (OSError, ValueError, TypeError):
        return None
    kinds = (start.spec, dict), (start.began, int), (start.pid, int), (start.device, str)
    named = path.name == f"{start.name}{SUFFIX}"
    return start if named and all(isinstance(value, kind) for value, kind in kinds) else None
