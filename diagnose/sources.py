"""Where a text is: a SPEC read without loading anything (no torch).

SPEC: `wikitext2` (its test split; `wikitext2:SPLIT` for another), a path to a .txt, .jsonl or
.parquet file, or `hub:NAME[:CONFIG]:SPLIT:COLUMN`.
"""

from dataclasses import dataclass
from pathlib import Path

from mixedprec.errors import InputError

WIKITEXT2 = ("Salesforce/wikitext", "wikitext-2-raw-v1")
BUILDERS = {".txt": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
FORMS = "wikitext2, a .txt/.jsonl/.parquet file, or hub:NAME[:CONFIG]:SPLIT:COLUMN"


@dataclass(frozen=True)
class HubSource:
    """A split of a data set on the hub."""

    name: str
    config: str | None
    split: str
    column: str


def parse_spec(spec: str) -> Path | HubSource:
    """What a SPEC points to. InputError for one that has no meaning."""
    if spec.startswith("hub:"):
        parts = spec.removeprefix("hub:").split(":")
        if len(parts) == 3 and all(parts):
            return HubSource(parts[0], None, parts[1], parts[2])
        if len(parts) == 4 and all(parts):
            return HubSource(*parts)
    elif spec == "wikitext2" or spec.startswith("wikitext2:"):
        return HubSource(*WIKITEXT2, spec.partition(":")[2] or "test", "text")
    elif Path(spec).suffix in BUILDERS:
        if not Path(spec).is_file():
            raise InputError(f"there is no file {spec}", "check the path")
        return Path(spec)
    raise InputError(f"{spec!r} is no text that can be loaded", f"give {FORMS}")
