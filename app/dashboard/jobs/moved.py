"""Where the model of a run is now: where its record says, or where somebody said it has moved to.

RUNS/.models.json keeps the directory that somebody gave, by the model's hashes, so that it holds
for every run of that model. Its files are checked against the run's hashes when it is given, except
for large ones, which the command that opens them checks anyway.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awqscope.app.dashboard.jobs.request_checks import HUB_ID
from awqscope.app.store import RunSummary, Store
from awqscope.diagnose.runs.record import AnyRecord
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.atomic import write_json
from awqscope.mixedprec.files.untrusted import read_json
from awqscope.mixedprec.gguf.origin import is_gguf

LOCATIONS = ".models.json"
# The size of a file that takes about a second to hash.
MOST_HASHED = 512 * 2**20


@dataclass(frozen=True)
class ModelLocation:
    """Where a run's model is. state: `here`, where the run left it or in the hub's cache; `moved`,
    at `path`; `hub`, if its name is an id on the hub; `missing`. named: as the run calls it; looked
    in: the directory where that was looked for, if it is a relative path."""

    state: str
    named: str
    path: str = ""
    looked_in: str = ""

    @property
    def option(self) -> str | None:
        """What a command must be told of it, if anything."""
        return self.path if self.state == "moved" else None


def begun_in(run: RunSummary) -> str | None:
    """Where a run was started, which is what the paths in its spec are relative to; None where
    that is not known, or not there any more."""
    directory = run.record and run.record.directory
    return directory if directory and os.path.isdir(directory) else None


def find_model(store: Store, name: str) -> ModelLocation:
    """Where the model of a run is. UnknownRunError if there is no such run."""
    run = store.summary(name)
    named = "" if run.record is None else run.record.model
    base = begun_in(run) or os.getcwd()
    there = Path(base) / named
    if (there / "config.json").is_file() or is_gguf(there):
        return ModelLocation("here", named)
    said = None if run.record is None else _read_locations(store).get(_key(run.record))
    if isinstance(said, str) and (Path(said) / "config.json").is_file():
        return ModelLocation("moved", named, said)
    looked_in = "" if os.path.isabs(named) else base
    if HUB_ID.fullmatch(named):
        return ModelLocation("here" if _is_cached(named) else "hub", named, looked_in=looked_in)
    return ModelLocation("missing", named, looked_in=looked_in)


def remember_model(store: Store, name: str, said: object) -> None:
    """Keep where the model of a run is, once it is found to be that model. InputError for a
    directory that is not, or where it cannot be kept."""
    text = said.strip() if isinstance(said, str) else ""
    if not text or not text.isprintable():
        raise InputError("no directory is given", "give the one that the model is in now")
    path = Path(os.path.expanduser(text)).absolute()
    run = store.summary(name)
    if run.record is None:
        raise InputError(run.error, run.remedy)
    record = run.record
    _check_same(path, record.source.hashes)
    locations = _read_locations(store) | {_key(record): str(path)}
    try:
        write_json(store.root / LOCATIONS, locations)
    except OSError as error:
        raise InputError(
            f"{store.root / LOCATIONS} cannot be written ({error.strerror})", "look at the disk"
        ) from error


def _check_same(path: Path, hashes: Mapping[str, str]) -> None:
    """Raise InputError unless a directory holds the files with these SHA-256, by name."""
    if not path.is_dir():
        raise InputError(f"there is no directory {path}", "check the path")
    for name, expected in hashes.items():
        file = path / Path(name).name
        try:
            found = _hash(file)
        except FileNotFoundError as error:
            raise InputError(f"{path} has no {name}", "give the run's own model") from error
        except OSError as error:
            raise InputError(
                f"{file} cannot be read ({error.strerror})", "see who may read it"
            ) from error
        if found not in (None, expected):
            raise InputError(
                f"{file} is not the one that the run measured", "give its model, unchanged"
            )


def _hash(path: Path) -> str | None:
    """SHA-256 of a file; None for one that takes long."""
    with open(path, "rb") as file:
        large = os.fstat(file.fileno()).st_size > MOST_HASHED
        return None if large else hashlib.file_digest(file, "sha256").hexdigest()


def _key(record: AnyRecord) -> str:
    """What a run's model is known by: its files' hashes, or its name where there are none."""
    known = dict(record.source.hashes) or record.model
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _read_locations(store: Store) -> dict[str, Any]:
    try:
        found = read_json(store.root / LOCATIONS)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_cached(name: str) -> bool:
    """Whether the hub's cache has a model."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)
