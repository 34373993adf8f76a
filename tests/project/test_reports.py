"""What reports/README.md says of a run, against the JSON Schema of its record, entry by entry, and
against the tables, column by column: both ways."""

import json
import re
from collections.abc import Iterator

import pytest

from awqscope.diagnose.runs.tables import TABLES
from tests.help.root import ROOT

README = (ROOT / "reports" / "README.md").read_text(encoding="utf-8")
SCHEMA = json.loads((ROOT / "reports" / "run.schema.json").read_text(encoding="utf-8"))
PARTS = SCHEMA["$defs"]
RUN, COMPARISON = set(PARTS["Record"]["properties"]), set(PARTS["Comparison"]["properties"])
# Heading -> the parts of the schema that its table is of.
OF = {
    "source": ["Source"],
    "candidate": ["Candidate"],
    "places": ["Place"],
    "ppl_definition and calibration": ["PplDefinition", "CutText"],
    "slices": ["Slice"],
    "stages": ["Stage"],
    "error": ["Fault"],
    "sweep": ["SweepPlan"],
    "noise_floor": ["NoiseFloor"],
    "estimator": ["Estimator"],
    "threads": ["Threads"],
    "memory_plan": ["MemoryPlan"],
    "stages of memory_plan": ["StagePlan"],
    "serving": ["Serving"],
    "type of serving": ["ServedType"],
    "headline": ["Headline", "ComparedHeadline"],
    "range": ["Largest"],
    "served": ["MeasuredType"],
}
# Entries that are the models' names, which the text above the headline's table lists.
BY_MODEL = {"reference", "uniform", "mixed", "candidate"}


def list_rows(heading: str) -> Iterator[str]:
    """The names in the first cells of the table below a heading."""
    section = re.split(r"^#+ ", README.partition(f"# {heading}\n")[2], flags=re.MULTILINE)[0]
    for line in section.splitlines():
        cell = re.match(r"\| (`.*?) \| ", line)
        if cell:
            yield from re.findall(r"`([^`]+)`", cell[1])


def assert_same(heading: str, wanted: set[str]) -> None:
    said = list(list_rows(heading))
    assert len(said) == len(set(said)), f"{heading}: named twice"
    assert set(said) == wanted, heading


def test_what_records_share_and_what_only_one_kind_has() -> None:
    assert_same("Every record", RUN & COMPARISON)
    assert_same("Of a run", RUN - COMPARISON)
    assert_same("Of a comparison", COMPARISON - RUN)


@pytest.mark.parametrize("heading", OF)
def test_every_entry_of_a_part(heading: str) -> None:
    assert_same(heading, {entry for part in OF[heading] for entry in PARTS[part]["properties"]})


def test_every_part_has_a_table() -> None:
    named = {part for parts in OF.values() for part in parts} | {"Record", "Comparison"}
    for part in PARTS.keys() - named:
        assert set(PARTS[part]["properties"]) <= BY_MODEL, part


@pytest.mark.parametrize("table", TABLES)
def test_every_column_of_a_table(table: str) -> None:
    assert_same(f"{table}.parquet", set(TABLES[table].names))
