"""Starting and stopping awqscope's own commands on the runs of a directory."""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from app.launching import (
    SIGNALS,
    insist,
    is_locked,
    last_lines,
    launch,
    requantize_command,
    resume_command,
    run_command,
    send_signal,
)
from app.requests import RefusedError, RunRequest, check_request, suggest_name
from app.store import RunSummary, Store
from mixedprec.errors import InputError
from mixedprec.recipe import Recipe, save_recipe
from mixedprec.untrusted import read_json

LOGS = ".logs"
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

    def start(self, request: RunRequest, problems: Mapping[str, str] = {}) -> str:
        """Start a run and return its name, made from the model's where none is given. RefusedError
        for a request that cannot be carried out, or one with `problems` when it was read;
        InputError where nothing can be started."""
        with self._lock:
            taken = self.taken()
            if not request.name:
                request = RunRequest(
                    **{**asdict(request), "name": suggest_name(request.model, taken)}
                )
            problems = {**check_request(request, taken), **problems}
            if problems:
                raise RefusedError(problems)
            launch(run_command(request, self.store.root), self._log(request.name))
        return request.name

    def resume(self, name: str) -> None:
        """Go on with a stopped or failed run. InputError where that cannot be."""
        run = self.store.summary(name)
        if run.record is None or run.state not in ("stopped", "failed"):
            raise InputError(f"{name} is {run.state}", "only what has stopped can go on")
        out = self.store.find(name).path.absolute()
        with self._lock:
            launch(
                resume_command(run.record["spec"], out), self._log(name), directory=begun_in(run)
            )

    def cancel(self, name: str) -> None:
        """Ask the process that works on a run to stop, until it does. InputError if nobody does."""
        run = self.store.find(name)
        if not send_signal(run, SIGNALS[0]):
            raise InputError(f"nobody works on {name}", "reload the page")
        Thread(target=insist, args=(run,), daemon=True).start()

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
            launch(
                requantize_command(run, path, out),
                folder / f"{out_name}.log",
                folder / f"{out_name}.result.json",
                begun_in(self.store.summary(name)),
            )

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


def begun_in(run: RunSummary) -> str | None:
    """Where a run was started, which is what the paths in its spec are relative to; None where
    that is not known, or not there any more."""
    directory = (run.record or {}).get("directory")
    return directory if directory and os.path.isdir(directory) else None


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
