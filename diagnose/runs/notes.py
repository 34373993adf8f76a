"""What people say of a run: a name, tags, notes, and whether it is archived.

They are kept in notes.json beside the run's record, so that a run can be noted while a process
works on it; a lock of its own keeps two who note the same run from losing each other's words.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from awqscope.diagnose.entries.part import Part
from awqscope.diagnose.runs.directory import RunDirectory, now
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.atomic import write_json
from awqscope.mixedprec.files.locks import take_lock
from awqscope.mixedprec.files.untrusted import read_json
from awqscope.mixedprec.words import join_words

SCHEMA: Literal[1] = 1
FILE, LOCK = "notes.json", ".notes.lock"
MOST_NAME, MOST_TAG, MOST_TAGS, MOST_TEXT = 100, 40, 50, 10_000
# For how long another's change of the same file is waited for.
TRIES, PAUSE = 100, 0.05


class Note(Part):
    """Something that was said of a run. time: UTC, ISO 8601."""

    time: str
    text: str


class Notes(Part):
    """What was said of a run, the oldest note first; nothing where there is no file."""

    schema_version: Literal[1] = Field(default=SCHEMA, alias="schema")
    name: str = ""
    tags: Sequence[str] = ()
    notes: Sequence[Note] = ()
    archived: bool = False

    def to_json(self) -> dict[str, Any]:
        """As notes.json has it, every entry."""
        return self.model_dump(mode="json", by_alias=True)


@dataclass(frozen=True)
class Change:
    """What is to be changed. name: empty takes it away; None leaves it, as it does `archived`.
    note: is added; unnote: the number of one, from 1, that is taken away."""

    name: str | None = None
    tags: Sequence[str] = ()
    untags: Sequence[str] = ()
    note: str | None = None
    unnote: int | None = None
    archived: bool | None = None


def read_notes(path: Path) -> Notes:
    """What is said of the run in directory `path`. InputError for a file that is damaged."""
    file = path / FILE
    try:
        found = read_json(file)
        found["tags"], found["notes"] = tuple(found["tags"]), tuple(found["notes"])
        return Notes.model_validate(found)
    except FileNotFoundError:
        return Notes()
    except (OSError, ValueError, LookupError, TypeError, ValidationError) as error:
        said = "it is not what awqscope writes" if isinstance(error, ValidationError) else error
        raise InputError(f"{file} cannot be read ({said})", "mend it or take it away") from error


def find_notes(path: Path) -> tuple[Notes, str]:
    """What is said of the run in directory `path`; nothing where that cannot be read, and why."""
    try:
        return read_notes(path), ""
    except InputError as error:
        return Notes(), str(error)


def apply_change(notes: Notes, change: Change, time: str) -> Notes:
    """The notes with a change; `time`: of a note that is added. InputError for a name, tag or note
    that cannot be one, and for a tag or note to take away that is not there."""
    tags = [tag for tag in notes.tags if tag not in change.untags]
    for tag in change.untags:
        if tag not in notes.tags:
            raise InputError(f"it has no tag {tag!r}", _say_tags(notes))
    added = [_check(tag, "tag", MOST_TAG) for tag in change.tags]
    if any("," in tag for tag in added):
        raise InputError("a tag has a comma", "give several with --tag each")
    tags = list(dict.fromkeys([*tags, *added]))
    if len(tags) > MOST_TAGS:
        raise InputError(f"{len(tags)} tags are too many", f"keep at most {MOST_TAGS}")
    kept = list(notes.notes)
    if change.unnote is not None:
        if not 1 <= change.unnote <= len(kept):
            raise InputError(f"it has no note {change.unnote}", f"it has {len(kept)}, from 1 on")
        del kept[change.unnote - 1]
    if change.note is not None:
        kept.append(Note(time=time, text=_check(change.note, "note", MOST_TEXT, lines=True)))
    name = notes.name
    if change.name is not None:
        name = _check(change.name, "name", MOST_NAME) if change.name.strip() else ""
    archived = notes.archived if change.archived is None else change.archived
    return Notes(name=name, tags=tuple(tags), notes=tuple(kept), archived=archived)


def _say_tags(notes: Notes) -> str:
    return f"its tags are {join_words(notes.tags)}" if notes.tags else "it has none"


def _check(text: str, what: str, most: int, *, lines: bool = False) -> str:
    """A text that can be kept and shown, without blanks around it. lines: it may have several."""
    text = text.strip()
    if not text:
        raise InputError(f"the {what} is empty", f"give a {what}")
    if len(text) > most:
        raise InputError(f"the {what} has {len(text):,} characters", f"give at most {most:,}")
    if not all(char.isprintable() or (lines and char in "\n\t") for char in text):
        raise InputError(f"the {what} has characters that cannot be shown", "leave them out")
    return text


def change_notes(run: RunDirectory, change: Change) -> Notes:
    """Change what is said of a run, and say what it is now; a file that is damaged is left as it
    is. InputError where there is no run, and where the change cannot be made or written."""
    if not run.exists():
        run.read()
    try:
        with _hold(run.path / LOCK):
            changed = apply_change(read_notes(run.path), change, now())
            _write(run.path / FILE, changed)
    except OSError as error:
        raise InputError(
            f"{run.path / FILE} cannot be written ({error.strerror})", "check its rights"
        ) from error
    return changed


def _write(path: Path, notes: Notes) -> None:
    for _ in range(2):
        # Who begins to work on the run takes what killed processes left for leftovers, and with
        # them this file where it is half written.
        with contextlib.suppress(FileNotFoundError):
            write_json(path, notes.to_json())
            return
    write_json(path, notes.to_json())


@contextlib.contextmanager
def _hold(path: Path) -> Iterator[None]:
    """Hold a lock for the moment that a change takes, waiting for others."""
    with open(path, "a") as file:
        for _ in range(TRIES):
            with contextlib.suppress(BlockingIOError):
                take_lock(file)
                break
            time.sleep(PAUSE)
        else:
            raise InputError(f"{path} is held by another process", "try again")
        yield
