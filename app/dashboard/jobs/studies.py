"""Studies of a run that are started from a page, and how each stands.

RUN/studies/NAME.log is what the command said, and NAME.json its answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

from awqscope.app.dashboard.jobs import processes
from awqscope.app.dashboard.jobs.moved import begun_in, find_model
from awqscope.app.store import Store
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.study import find_holder, lock_of, name_study, studies_of
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.atomic import write_text
from awqscope.mixedprec.files.locks import is_locked

LONGEST_VALUE = 4096


@dataclass(frozen=True)
class StudyKind:
    """A study that a page can start: the command `name`, given the run and, of_block, the page's
    block. options: a field of its form -> the command's option, which a line of text becomes, and
    a switch that is on. own_page: the page that is the study's alone, if it has one."""

    name: str
    of_block: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    own_page: str = ""

    @property
    def page(self) -> str:
        """The page that it is started from."""
        return self.own_page or ("block" if self.of_block else "run")


KINDS: Mapping[str, StudyKind] = {
    kind.name: kind
    for kind in (
        StudyKind("why", of_block=True, options={"windows": "--windows"}),
        StudyKind(
            "probe",
            of_block=True,
            options={"windows": "--windows", "calib_also": "--calib-also"},
        ),
        StudyKind(
            "calibrate",
            options={
                "counts": "--counts",
                "calib_also": "--calib-also",
                "valid_also": "--valid-also",
            },
        ),
        StudyKind("alternatives", options={"add": "--add", "by_block": "--by-block"}),
        StudyKind("weights", of_block=True, own_page="weights"),
        StudyKind("activations", options={"method": "--method", "windows": "--windows"}),
        StudyKind(
            "tasks",
            options={"tasks": "--tasks", "include_path": "--include-path", "limit": "--limit"},
        ),
    )
}


@dataclass(frozen=True)
class StudyState:
    """How a study stands. state: absent, running, done, or failed. log: the end of what its command
    said; answer: the last that it gave, None while it has given none, and `made` when. An answer
    stays while another is measured."""

    kind: StudyKind
    block: int | None
    state: str
    log: str = ""
    answer: Mapping[str, Any] | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    made: str = ""

    @property
    def name(self) -> str:
        return name_study(self.kind.name, self.block)


def look_at_study(store: Store, run: str, kind: StudyKind, block: int | None = None) -> StudyState:
    """How a study of a run stands."""
    found, name = store.find(run), name_study(kind.name, block)
    log = _log_of(found, name)
    # Asked first: a process that ends in between has left its answer behind.
    is_busy = is_locked(log) or find_holder(found, name) is not None
    kept = store.study(run, name)
    said = processes.last_lines(log)
    state = "running" if is_busy else "absent"
    if not is_busy and (kept is not None or said):
        # A command that fails says so after the answer that was there before it, unless that was
        # measured since.
        has_failed = processes.find_reason(said) and not _is_newer(
            studies_of(found) / f"{name}.json", log
        )
        state = "failed" if kept is None or has_failed else "done"
    if kept is None:
        return StudyState(kind, block, state, said)
    return StudyState(kind, block, state, said, kept["answer"], kept["asked"], kept["made"])


def _log_of(run: RunDirectory, name: str) -> Path:
    return studies_of(run) / f"{name}.log"


def _is_newer(path: Path, other: Path) -> bool:
    """Whether a file was written after another; not where one is gone."""
    try:
        return path.stat().st_mtime_ns > other.stat().st_mtime_ns
    except OSError:
        return False


def study_command(
    kind: StudyKind, path: str, block: int | None, values: Mapping[str, Any], model: str | None
) -> list[str]:
    """The command that makes a study of the run in `path`. values: of the form's fields. InputError
    for values that no field holds."""
    options = []
    for name, option in kind.options.items():
        value = values.get(name)
        if value is True:
            options.append(option)
        elif value not in (None, False, ""):
            options += [f"{option}={line}" for line in _read_lines(value)]
    arguments = [path] if block is None else [path, str(block)]
    return [*processes.PYTHON, kind.name, *options, *processes.name_model(model), "--", *arguments]


def _read_lines(value: object) -> list[str]:
    """The lines of a field that are not empty."""
    text = str(value)
    if len(text) > LONGEST_VALUE or not text.replace("\n", "").isprintable():
        raise InputError("a field holds what cannot be given", "type it again")
    return [line.strip() for line in text.splitlines() if line.strip()]


def start_study(
    store: Store, run: str, kind: StudyKind, block: int | None, values: Mapping[str, Any]
) -> None:
    """Start a study in a process of its own. InputError where it cannot be started."""
    path = store.find(run).path.resolve()
    model = find_model(store, run).option
    command = study_command(kind, str(path), block, values, model)
    found, name = RunDirectory(path), name_study(kind.name, block)
    log = _log_of(found, name)
    if find_holder(found, name) is not None:
        raise InputError(f"{name} is being worked on", "wait for it to end")
    if not is_locked(log):
        # What an earlier process said is not of this one.
        log.unlink(missing_ok=True)
    pid = processes.launch(command, log, directory=begun_in(store.summary(run)))
    write_text(_started_of(found, name), str(pid))


def stop_study(store: Store, run: str, kind: StudyKind, block: int | None) -> None:
    """Ask a study to stop, more firmly while it does not; what is done of it is kept. InputError
    where it is another machine's or user's."""
    found, name = store.find(run), name_study(kind.name, block)
    log = _log_of(found, name)
    if is_locked(log):
        # It holds the study only once it has opened the model, which may take minutes.
        worker = processes.Worker(lambda: _find_started(found, name), log)
    else:
        worker = processes.Worker(lambda: find_holder(found, name), lock_of(found, name))
    if processes.send_signal(worker, processes.SIGNALS[0]):
        Thread(target=processes.insist, args=(worker,), daemon=True).start()


def _started_of(run: RunDirectory, name: str) -> Path:
    """The file with the number of the process that was last started from a page."""
    return studies_of(run) / f".{name}.started"


def _find_started(run: RunDirectory, name: str) -> int | None:
    """The process that was started from a page and still writes its log; None if it has ended."""
    try:
        pid = int(_started_of(run, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return pid if is_locked(_log_of(run, name)) else None
