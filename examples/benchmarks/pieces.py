"""A measurement in pieces: each stands alone, both of its sides timed in one process, so that a
long one can be stopped and gone on with."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from awqscope.mixedprec.files.atomic import write_json


@dataclass(frozen=True)
class Piece:
    """A line of a page. name: what tells it from the others; measure: gives the line."""

    name: str
    measure: Callable[[], str]


@dataclass(frozen=True)
class Measured:
    """A piece's line, and when, at which commit and load (runnable processes at its start) it was
    taken."""

    line: str
    day: str
    commit: str
    load: float


class Kept:
    """What was measured, in a file: whole after every piece."""

    def __init__(self, path: Path, versions: str):
        """versions: what else must be the same for a piece to be taken from the file."""
        self._path, self._versions = path, versions
        self._found: dict[str, Measured] = {}
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["versions"] == versions:
                self._found = {name: Measured(**one) for name, one in kept["pieces"].items()}

    def get(self, piece: Piece, commit: str) -> Measured:
        """The piece as it was measured, or as it is now."""
        if piece.name not in self._found:
            load = os.getloadavg()[0]
            day = f"{datetime.now(UTC):%Y-%m-%d}"
            self._found[piece.name] = Measured(piece.measure(), day, commit, round(load, 1))
            pieces = {name: asdict(one) for name, one in self._found.items()}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, {"versions": self._versions, "pieces": pieces})
        return self._found[piece.name]


def print_all(pieces: Iterable[Piece]) -> None:
    """Measure and print every piece, keeping none."""
    for piece in pieces:
        print(piece.measure(), flush=True)
