"""The run directory: the one contract between measuring and everything after it.

Every file appears whole or not at all; `run.json` names the stages done. reports/README.md
describes each file and column.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from awqscope.diagnose.entries.stages import Stage
from awqscope.diagnose.runs.naming import find_run
from awqscope.diagnose.runs.record import AnyRecord, Comparison, Record, read_record
from awqscope.diagnose.runs.resuming import write_resuming
from awqscope.diagnose.runs.spec import AnySpec
from awqscope.diagnose.runs.tables import DAMAGES, TABLES
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.atomic import (
    remove_leftovers,
    replace_file,
    report_full_disk,
    write_json,
)
from awqscope.mixedprec.files.locks import is_locked, take_lock
from awqscope.mixedprec.files.sealed import load_sealed, save_sealed
from awqscope.mixedprec.files.untrusted import read_json

STAGES = ("search", "sweep", "estimate", "exact", "recipe", "requantize", "proof")
# What values that no run holds may raise.
CONTRADICTIONS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    pa.ArrowException,
)

OnProgress = Callable[[str, int, int], None]


# What earlier versions recorded of a run that Ctrl-C ended.
INTERRUPTED = "interrupted"


def look_at(record: AnyRecord, is_held: bool) -> AnyRecord:
    """A record with the state that the run is in: done, running, failed, or stopped. A record that
    says running while no process holds the run is of one that stopped, whatever ended its process;
    so are its running stages."""
    was_interrupted = (
        record.state == "failed"
        and record.error is not None
        and record.error.message == INTERRUPTED
    )
    if not was_interrupted and (record.state != "running" or is_held):
        return record
    stages = {
        name: stage.changed(state="stopped") if stage.state == "running" else stage
        for name, stage in record.stages.items()
    }
    return record.changed(state="stopped", stages=stages)


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class RunDirectory:
    """A run's directory, by path."""

    path: Path

    @property
    def searches(self) -> Path:
        return self.path / "awq"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @property
    def work(self) -> Path:
        """Intermediate results, removed when the run is done."""
        return self.path / "work"

    def exists(self) -> bool:
        return (self.path / "run.json").exists()

    def read(self) -> AnyRecord:
        """What run.json says. InputError where it is missing, damaged or of a newer schema."""
        path = self.path / "run.json"
        try:
            found = read_json(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(f"{self.path} holds no run", find_run(self.path)) from error
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} cannot be read ({error})", "run it again elsewhere"
            ) from error
        return read_record(found, path)

    def look(self, read: Callable[[], AnyRecord] | None = None) -> AnyRecord:
        """run.json with the state that the run is in now (`look_at`). read: a function that reads
        it instead of `self.read`. InputError where it is missing, damaged or of a newer schema."""
        read = read or self.read
        record = read()
        if record.state == "running":
            # Read again if no process holds it: the one that did may have finished it in between.
            record = record if self.holder() is not None else look_at(read(), is_held=False)
        return look_at(record, is_held=True)

    def how_to_finish(self) -> str:
        """The remedy where a run is not done: to wait where a process works on it, else the command
        that continues it."""
        record = self.look()
        if record.state == "running":
            return "wait until it is done"
        return f"go on with it: {write_resuming(record, self.path)}"

    def read_searched(self) -> Record:
        """The record of a run with searches and a recipe of its own. InputError where it is
        missing, damaged or of a newer schema, and for a comparison."""
        record = self.read()
        if isinstance(record, Comparison):
            raise InputError(
                f"{self.path} is a comparison, without searches or recipe of its own",
                "give what `awqscope run` made of the reference",
            )
        return record

    def read_measured(self) -> Record:
        """The record of a run whose blocks are searched and swept. InputError where they are not,
        and where `read_searched` has one."""
        record = self.read_searched()
        for stage, name in (("search", "AWQ search"), ("sweep", "sweep")):
            if not record.is_done(stage):
                raise InputError(f"{self.path} has not finished its {name}", self.how_to_finish())
        return record

    def update(self, **changes: Any) -> None:
        """Change top-level entries of run.json in one step."""
        self._write(self.read().changed(**changes, updated=now()))

    def _write(self, record: AnyRecord) -> None:
        write_json(self.path / "run.json", record.to_json())

    def check_free(self) -> None:
        """Raise InputError if the directory holds anything but a run, or is in one."""
        self.check_above()
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file", "choose another --out directory")
        if self.path.exists() and any(not _is_ours(p) for p in self.path.iterdir()):
            raise InputError(
                f"{self.path} is not empty and holds no run", "choose another --out directory"
            )

    def check_above(self) -> None:
        """Raise InputError if the directory is in a run: it would go where that one goes."""
        parents = self.path.absolute().parents
        above = next((each for each in parents if RunDirectory(each).exists()), None)
        if above is not None:
            raise InputError(f"{self.path} is in the run {above}", "choose another --out directory")

    def create(self, record: AnyRecord) -> None:
        """Begin a run."""
        self._write(record.changed(state="running", created=now(), updated=now()))

    def check_spec(self, spec: AnySpec) -> None:
        """Raise InputError, naming the difference, if the run here has other options."""
        there = self.read().spec.to_json()
        for key, value in spec.list_binding().items():
            if there.get(key) != value:
                raise InputError(
                    f"{self.path} holds another run (its {key} is {there.get(key)!r}, not "
                    f"{value!r})",
                    "choose another --out, or repeat the options of that run",
                )

    def is_done(self, stage: str) -> bool:
        return self.read().is_done(stage)

    def mark(self, stage: str, state: str, **details: Any) -> None:
        """Record a stage's state (running, done, skipped) in run.json."""
        stages = self.read().stages
        entry = {"state": state, **details}
        marked = stages[stage].changed(**entry) if stage in stages else Stage(**entry)
        self.update(stages={**stages, stage: marked})

    def write_table(self, name: str, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
        """Write `name`.parquet from rows."""
        self.write_arrow(name, pa.Table.from_pylist(list(rows), schema=schema))

    def write_arrow(self, name: str, table: pa.Table, row_group: int | None = None) -> None:
        """Write `name`.parquet, in row groups of `row_group` rows."""
        with replace_file(self.path / f"{name}.parquet") as temporary:
            pq.write_table(table, temporary, row_group_size=row_group, write_page_checksum=True)

    def read_table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """`name`.parquet, all of it or some columns. InputError where it is missing or damaged."""
        path = self.path / f"{name}.parquet"
        if not path.exists():
            raise InputError(f"{path} is missing", self._how_to_get())
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                _check_columns(name, file, path.stat().st_size)
                lacking = set(columns or ()).difference(file.schema_arrow.names)
                if lacking:
                    raise InputError(f"{path} has no column {min(lacking)}", self._how_to_get())
                table = file.read(columns)
            table.validate(full=True)
            return table
        except DAMAGES as e:
            raise InputError(
                f"{path} cannot be read ({e})", "copy the whole run directory again"
            ) from e

    def _how_to_get(self) -> str:
        """The remedy where a file or column is missing."""
        if self.read().state != "done":
            return self.how_to_finish()
        return "copy the whole run, or run it again elsewhere if an earlier version made it"

    def read_json(self, name: str) -> dict[str, Any]:
        """`name`.json, empty where there is none. InputError where it is damaged."""
        path = self.path / f"{name}.json"
        try:
            found = read_json(path)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} cannot be read ({error})", "run it again elsewhere"
            ) from error
        return found if isinstance(found, dict) else {}

    def write_arrays(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Write a safetensors file `name` (a path inside the run) of arrays or CPU tensors."""
        found = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
        # A scalar comes back from ascontiguousarray with a dimension more.
        found = {key: array.reshape(np.shape(arrays[key])) for key, array in found.items()}
        with replace_file(self.path / name) as temporary:
            save_sealed(temporary, found)

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        """What `write_arrays` wrote. InputError where it is missing or damaged."""
        path = self.path / name
        try:
            return load_sealed(path)[0]
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} cannot be read ({error})",
                "go on with the command that began the run, or copy the whole run again",
            ) from error

    def holds(self, name: str) -> bool:
        """Whether `read_arrays` can read the file `name`."""
        try:
            return bool(self.read_arrays(name))
        except InputError:
            return False

    def holder(self) -> int | None:
        """The process that works on the run; None if none does."""
        lock = self.path / ".lock"
        try:
            return (int(lock.read_text().strip() or 0) or None) if is_locked(lock) else None
        except (OSError, ValueError):
            return None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the system releases it however the process ends."""
        try:
            with report_full_disk(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be made ({error.strerror})", "choose another --out directory"
            ) from error
        try:
            file = open(self.path / ".lock", "a+")  # noqa: SIM115
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written ({error.strerror})",
                "choose another --out directory",
            ) from error
        with file:
            try:
                take_lock(file)
            except BlockingIOError as error:
                file.seek(0)
                raise InputError(
                    f"{self.path} is in use by process {file.read().strip()}",
                    "wait for it, or choose another --out",
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            for folder in (self.path, self.searches, self.work, self.checkpoint):
                remove_leftovers(folder)
            yield


def _check_columns(name: str, file: pq.ParquetFile, size: int) -> None:
    """Raise ValueError for a table of a run with columns of other types than it is written with, or
    with more rows than a file of `size` bytes can hold."""
    if file.metadata.num_rows > 1000 + size:
        raise ValueError(f"it claims {file.metadata.num_rows:,} rows in {size:,} bytes")
    known = {field.name: field.type for field in TABLES.get(name, ())}
    for field in file.schema_arrow:
        if known.get(field.name, field.type) != field.type:
            raise ValueError(f"its column {field.name} is {field.type}")


@contextlib.contextmanager
def reads_run(path: Path) -> Iterator[None]:
    """Turn errors inside the block that come of values which no run holds into an InputError. Files
    that were changed, or are of several runs, contradict each other in more ways than can be
    checked one by one."""
    try:
        yield
    except CONTRADICTIONS as error:
        said = (str(error).splitlines() or [""])[0][:200]
        raise InputError(
            f"the files of {path} do not belong together or were changed "
            f"({type(error).__name__}: {said})",
            "copy the whole run again, or run it again elsewhere",
        ) from error


def _is_ours(path: Path) -> bool:
    """Whether a file is the lock, or what a run killed at its very start left."""
    return path.name == ".lock" or (path.name.startswith(".run.json.") and path.suffix == ".tmp")


class ProgressLog:
    """Appends events to progress.jsonl and passes them on to whoever shows them."""

    def __init__(self, run: RunDirectory, on_progress: OnProgress):
        self._path = run.path / "progress.jsonl"
        self._on_progress = on_progress
        self._started: dict[str, tuple[float, int]] = {}
        # A killed run may have left half a line behind.
        torn = self._path.exists() and not self._path.read_bytes().endswith(b"\n")
        self._lead = "\n" if torn and self._path.stat().st_size else ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """One event: `done` of `total` steps of `stage`; eta in seconds at this process's rate."""
        clock = time.monotonic()
        began, first = self._started.setdefault(stage, (clock, done))
        steps = done - first
        eta = (clock - began) / steps * (total - done) if steps else None
        event = {"time": now(), "stage": stage, "done": done, "total": total, "eta": eta}
        with report_full_disk(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(self._lead + json.dumps(event) + "\n")
        self._lead = ""
        self._on_progress(stage, done, total)
