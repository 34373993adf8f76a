"""What a study keeps, so that a killed one goes on and an answer is not measured twice.

RUN/studies/NAME.json holds an answer and what was asked; RUN/studies/NAME/ the parts that are done
while it is worked on.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awqscope.diagnose.runs.directory import RunDirectory, now
from awqscope.diagnose.runs.record import Record
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.atomic import remove_leftovers, write_json
from awqscope.mixedprec.files.locks import is_locked, take_lock
from awqscope.mixedprec.files.untrusted import read_json
from awqscope.mixedprec.recipes.recipe import load_recipe
from awqscope.mixedprec.scheme import UnitWidths

SCHEMA = 1
NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
# What the parts in a folder are of.
STAMP = "asked.json"

Answer = Mapping[str, Any]


def name_study(kind: str, block: int | None = None) -> str:
    """The name of a study: its command's, with the block that it is of."""
    return kind if block is None else f"{kind}-{block}"


def studies_of(run: RunDirectory) -> Path:
    """Where the studies of a run are kept."""
    return run.path / "studies"


def lock_of(run: RunDirectory, name: str) -> Path:
    """The file that the process which works on a study holds, with its number."""
    return studies_of(run) / f".{name}.lock"


def find_holder(run: RunDirectory, name: str) -> int | None:
    """The process that works on a study; None if none does."""
    lock = lock_of(run, name)
    try:
        return (int(lock.read_text().strip() or 0) or None) if is_locked(lock) else None
    except (OSError, ValueError):
        return None


def check_number(record: Record, block: int) -> None:
    """Raise InputError, before the model is opened, for a block that it does not have."""
    last = record.source.blocks - 1
    if not 0 <= block <= last:
        raise InputError(f"the model has no block {block}", f"give one from 0 to {last}")


def check_block(record: Record, block: int) -> None:
    """Raise InputError, before the model is opened, for a block that it does not have, and for one
    of which the run quantizes nothing."""
    check_number(record, block)
    if {f"{block}.{kind}" for kind in record.source.units} <= set(record.spec.keep_fp16):
        raise InputError(f"block {block} is kept at 16 bits", "give a block that is quantized")


def read_recipe_widths(run: RunDirectory, record: Record) -> UnitWidths:
    """The width of every unit by the run's recipe as it is today; nothing where there is none that
    can be read. record: of the run."""
    try:
        recipe = load_recipe(run.path / "recipe.json")
    except InputError:
        return {}
    return recipe.in_own_groups(record.spec.low.group_size).widths


@dataclass(frozen=True)
class Study:
    """A question asked of a run. name: of its files, such as `why-29`; asked: all that its answer
    depends on besides the run, in the types of JSON."""

    run: RunDirectory
    name: str
    asked: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name of a study")

    @property
    def file(self) -> Path:
        return studies_of(self.run) / f"{self.name}.json"

    @property
    def parts(self) -> Path:
        """The folder of what is done of it; a study may keep searches there too."""
        return studies_of(self.run) / self.name

    def read(self) -> Answer | None:
        """The answer to just this question, if it is there and whole."""
        kept = read_answer(self.file)
        return kept["answer"] if kept is not None and kept["asked"] == self._stamp() else None

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the study for this process, with the parts of this question alone. InputError where
        another process works on it, or where nothing can be written beside the run."""
        folder, lock = studies_of(self.run), lock_of(self.run, self.name)
        try:
            folder.mkdir(exist_ok=True)
            file = open(lock, "a+")  # noqa: SIM115
        except OSError as error:
            raise InputError(
                f"{folder} cannot be written ({error.strerror})", "look at the disk and its folder"
            ) from error
        with file:
            try:
                take_lock(file)
            except BlockingIOError as error:
                raise InputError(
                    f"{self.name} of {self.run.path} is being worked on", "wait for it to end"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            self._begin()
            yield

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """A part of the answer, in the types of JSON: kept from an earlier process, else made."""
        path = self.parts / f"{name}.json"
        with contextlib.suppress(OSError, ValueError):
            return read_json(path)
        made = make()
        write_json(path, made)
        return made

    def keep(self, answer: Answer) -> None:
        """Keep the answer, and remove the parts that it was made of."""
        kept = {"schema": SCHEMA, "made": now(), "asked": self._stamp(), "answer": answer}
        write_json(self.file, kept)
        shutil.rmtree(self.parts, ignore_errors=True)

    def _stamp(self) -> dict[str, Any]:
        """What was asked, of which state of the run."""
        return {**self.asked, "run": self.run.read().created, "schema": SCHEMA}

    def _begin(self) -> None:
        # Others may be written beside it.
        for path in studies_of(self.run).glob(f".{self.name}.json.*.tmp"):
            path.unlink(missing_ok=True)
        try:
            is_same = read_json(self.parts / STAMP) == self._stamp()
        except (OSError, ValueError):
            is_same = False
        if is_same:
            remove_leftovers(self.parts)
            return
        shutil.rmtree(self.parts, ignore_errors=True)
        write_json(self.parts / STAMP, self._stamp())


def read_answer(path: Path) -> Mapping[str, Any] | None:
    """What `Study.keep` wrote: `asked` and `answer`, and when it was `made`; None for anything
    else."""
    try:
        kept = read_json(path)
        known = kept["schema"] == SCHEMA and isinstance(kept["answer"], dict)
        return kept if known and isinstance(kept["asked"], dict) and kept["made"] else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
