"""Starting and stopping awqscope's own commands on the runs of a directory."""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from awqscope.app.dashboard.jobs.moved import begun_in, find_model
from awqscope.app.dashboard.jobs.processes import (
    SIGNALS,
    Worker,
    insist,
    last_lines,
    launch,
    requantize_command,
    run_command,
    send_signal,
    spec_command,
)
from awqscope.app.dashboard.jobs.request_checks import check_request
from awqscope.app.dashboard.jobs.requests import RefusedError, Request, suggest_name
from awqscope.app.dashboard.jobs.starts import (
    ENDED,
    LOGS,
    Start,
    find_pending,
    forget,
    forget_over,
    note,
)
from awqscope.app.store import Store
from awqscope.diagnose.options.execution import Execution
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.locks import is_locked
from awqscope.mixedprec.files.untrusted import read_json
from awqscope.mixedprec.recipes.recipe import Recipe, load_recipe, save_recipe

# Without dots no recipe's name can be another's `.result.json`.
RECIPE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,59}")


@dataclass(frozen=True)
class Requantization:
    """A recipe of a run that was given to `awqscope requantize`. state: running, done (`result` is
    what the command printed) or failed (`log` says why)."""

    name: str
    state: str
    result: Mapping[str, Any] | None
    log: str


class Jobs:
    """Starts and stops commands on the runs of a store."""

    def __init__(self, store: Store):
        self.store = store
        self._lock = Lock()

    def taken(self) -> set[str]:
        """Names that no new run can have."""
        try:
            there = set(os.listdir(self.store.root))
        except OSError:
            there = set()
        return there | {path.stem for path in self._logs() if is_locked(path)}

    def name_it(self, request: Request) -> Request:
        """The request with a name, made from the model's where none is given."""
        if request.name or not request.named_after:
            return request
        return replace(request, name=suggest_name(request.named_after, self.taken()))

    def check(self, request: Request) -> dict[str, str]:
        """field -> what is wrong with a request."""
        problems = check_request(request, self.taken())
        if not (request.name or request.named_after):
            # It will be made from the model's, which is missing too.
            problems.pop("name", None)
        return problems

    def start(self, request: Request) -> str:
        """Start a run or comparison and return its name, made from the model's where none is given.
        RefusedError for a request that cannot be carried out; InputError where nothing can be
        started."""
        with self._lock:
            request = self.name_it(request)
            problems = self.check(request)
            if problems:
                raise RefusedError(problems)
            command = run_command(request, self.store.root)
            spec, how = request.to_spec().to_json(), request.to_execution()
            self._launch(request.name, command, spec, how.device, how.workers)
        return request.name

    def resume(self, name: str) -> None:
        """Continue a stopped or failed run. InputError for any other."""
        run = self.store.summary(name)
        if run.record is None or run.state not in ("stopped", "failed"):
            raise InputError(f"{name} is {run.state}", "only what has stopped can go on")
        out = self.store.find(name).path.absolute()
        spec, device = run.record.spec, run.record.device or "auto"
        with self._lock:
            command = spec_command(spec, out, Execution(device=device))
            self._launch(name, command, spec.to_json(), device, None, begun_in(run))

    def _launch(
        self,
        name: str,
        command: Sequence[str],
        spec: Mapping[str, Any],
        device: str,
        workers: int | None,
        directory: str | None = None,
    ) -> None:
        """Start a run's command, and note it until the run has a record of it."""
        began = time.time_ns()
        pid = launch(command, self._log(name), directory=directory)
        # What cannot be noted on a full disk has started all the same.
        with contextlib.suppress(InputError, OSError):
            note(self.store.root, Start(name, spec, device, workers, began, pid))

    def cancel(self, name: str) -> None:
        """Ask the process that works on a run, or is about to, to stop, until it does. InputError
        if there is none, UnknownRunError if there is no such run."""
        pending = find_pending(self.store.root, name)
        if pending is not None and pending.state != ENDED:
            worker = self._starter(pending.start)
            # What cannot be noted on a full disk is stopped all the same.
            with contextlib.suppress(InputError, OSError):
                note(self.store.root, replace(pending.start, stopping=True))
        else:
            run = self.store.find(name)
            worker = Worker(run.holder, run.path / ".lock")
        if not send_signal(worker, SIGNALS[0]):
            raise InputError(f"nobody works on {name}", "reload the page")
        Thread(target=insist, args=(worker,), daemon=True).start()

    def _starter(self, start: Start) -> Worker:
        """The process of a start."""
        log = self._log(start.name)
        return Worker(lambda: start.pid if is_locked(log) else None, log)

    def dismiss(self, name: str) -> None:
        """Forget a start whose process ended before the run had a record. InputError for one that
        is under way."""
        pending = find_pending(self.store.root, name)
        if pending is not None and pending.state != ENDED:
            raise InputError(f"{name} is {pending.state}", "cancel it first")
        if pending is not None:
            forget(self.store.root, name)

    def tidy(self) -> None:
        """Forget the starts that are over."""
        with contextlib.suppress(OSError):
            forget_over(self.store.root)

    def is_alive(self, name: str) -> bool:
        """Whether a process that was started for the run of this name still is there."""
        return any(path.stem == name and is_locked(path) for path in self._logs())

    def log_tail(self, name: str) -> str:
        """The end of what the commands started for a run have said."""
        found = next((path for path in self._logs() if path.stem == name), None)
        return "" if found is None else last_lines(found)

    def requantize(self, name: str, recipe: Recipe, out_name: str) -> None:
        """Make and measure the checkpoint of a recipe, in RUN/recipes/OUT. InputError for a name
        that cannot be used."""
        run = self.store.find(name).path.absolute()
        folder = run / "recipes"
        if not RECIPE_NAME.fullmatch(out_name):
            raise InputError(f"{out_name!r} is no name", "use up to 60 letters, digits, - and _")
        with self._lock:
            path, out = folder / f"{out_name}.json", folder / out_name
            if path.exists() or out.exists():
                raise InputError(f"there is a recipe {out_name} already", "choose another name")
            save_recipe(path, recipe)
            try:
                launch(
                    requantize_command(run, path, out, find_model(self.store, name).option),
                    folder / f"{out_name}.log",
                    folder / f"{out_name}.result.json",
                    begun_in(self.store.summary(name)),
                )
            except InputError:
                # What did not start takes no name.
                path.unlink()
                raise

    def requantize_again(self, name: str, out_name: str) -> None:
        """Try once more to make the checkpoint of a recipe that was not made. InputError for one
        that was, or is being made."""
        folder = self._failed(name, out_name)
        recipe = load_recipe(folder / f"{out_name}.json")
        self.discard(name, out_name)
        self.requantize(name, recipe, out_name)

    def discard(self, name: str, out_name: str) -> None:
        """Remove what is left of a requantization that failed. InputError for any other."""
        folder = self._failed(name, out_name)
        with self._lock:
            shutil.rmtree(folder / out_name, ignore_errors=True)
            for tail in (".json", ".result.json", ".log"):
                (folder / f"{out_name}{tail}").unlink(missing_ok=True)

    def _failed(self, name: str, out_name: str) -> Path:
        """The folder of a requantization that failed."""
        made = {job.name: job for job in self.requantizations(name)}
        if out_name not in made or made[out_name].state != "failed":
            raise InputError(f"{out_name} has not failed", "reload the page")
        return self.store.find(name).path / "recipes"

    def requantizations(self, name: str) -> list[Requantization]:
        """Every recipe of a run that was requantized from the dashboard, the newest first."""
        logs = (self.store.find(name).path / "recipes").glob("*.log")
        newest = sorted(logs, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return [read_requantization(log) for log in newest]

    def _log(self, name: str) -> Path:
        return self.store.root / LOGS / f"{name}.log"

    def _logs(self) -> list[Path]:
        # A name from an address is looked for here, never joined to a path.
        return list((self.store.root / LOGS).glob("*.log"))


def read_requantization(log: Path) -> Requantization:
    """How the requantization with this log stands: done once its result is whole."""
    result = None
    state = "running" if is_locked(log) else "failed"
    if state != "running":
        try:
            result = read_json(log.with_suffix(".result.json"))
            state = "done"
        except (OSError, ValueError):
            pass
    return Requantization(log.stem, state, result, last_lines(log))
