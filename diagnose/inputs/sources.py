"""Where a text is: a SPEC read without loading anything (no torch).

SPEC: `wikitext2` (its test split; `wikitext2:SPLIT` for another), a path to a .txt, .jsonl or
.parquet file, or `hub:NAME[:CONFIG]:SPLIT:COLUMN`.
"""

import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from awqscope.mixedprec.errors import InputError

WIKITEXT2 = ("Salesforce/wikitext", "wikitext-2-raw-v1")
ENDINGS = (".txt", ".jsonl", ".json", ".parquet")
FORMS = "wikitext2, a .txt/.jsonl/.parquet file, or hub:NAME[:CONFIG]:SPLIT:COLUMN"


@dataclass(frozen=True)
class HubSource:
    """A split of a data set on the hub."""

    name: str
    config: str | None
    split: str
    column: str


def parse_spec(spec: str) -> Path | HubSource:
    """What a SPEC points to. The name of a file that exists means that file, whatever else it might
    mean. InputError for a SPEC that has no meaning or cannot be read."""
    try:
        return _parse(spec)
    except OSError as error:
        raise InputError(
            f"{spec} cannot be read ({error.strerror})", "check the path and its rights"
        ) from error


def _parse(spec: str) -> Path | HubSource:
    """What a SPEC points to. OSError for a name that the file system cannot look up; InputError for
    one that has no meaning."""
    path = Path(spec)
    is_path = path.suffix.lower() in ENDINGS
    if is_path and path.is_file():
        return path
    if spec.startswith("hub:"):
        parts = spec.removeprefix("hub:").split(":")
        if len(parts) == 3 and all(parts):
            return HubSource(parts[0], None, parts[1], parts[2])
        if len(parts) == 4 and all(parts):
            return HubSource(*parts)
    elif spec == "wikitext2" or spec.startswith("wikitext2:"):
        return HubSource(*WIKITEXT2, spec.partition(":")[2] or "test", "text")
    elif spec and path.is_dir():
        raise InputError(f"{spec} is a directory", "give one of the files in it")
    elif spec and path.exists():
        if is_path:
            raise InputError(
                f"{spec} is no regular file", "write its text to a file, and give that"
            )
        raise InputError(
            f"{spec} has none of the endings that say what a text is",
            f"give a file that ends in {', '.join(ENDINGS)}",
        )
    elif is_path:
        raise InputError(f"there is no file {spec}", _suggest_file(path) or "check the path")
    raise InputError(
        f"{spec!r} is no text that can be loaded", _suggest_file(path) or f"give {FORMS}"
    )


def check_specs(specs: Iterable[str]) -> None:
    """Raise InputError for the first that has no meaning, or names a file that is not there."""
    for spec in specs:
        parse_spec(spec)


def _suggest_file(path: Path) -> str | None:
    """The remedy for a name that is meant for a file which is there."""
    expanded = os.path.expanduser(path)
    if expanded != str(path) and os.path.isfile(expanded):
        return f"names are taken as they are: give {expanded}"
    try:
        there = [name for name in os.listdir(path.parent) if Path(name).suffix.lower() in ENDINGS]
    except OSError:
        return None
    nearest = difflib.get_close_matches(path.name, there, n=1, cutoff=0.75)
    return f"did you mean {path.with_name(nearest[0])}?" if nearest else None
