"""Where a run's checkpoint goes: who loads it, in which versions, and what to do for the others."""

from typing import Any

from awqscope.app.dashboard.parts import table
from awqscope.diagnose.runs.record import Record
from awqscope.mixedprec.checkpoints.destinations import COMPRESSED, Kind, list_destinations
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.scheme import FP16_BITS


def find_kind(record: Record, recipe: Recipe) -> Kind:
    """The kind of the checkpoint of a run's recipe: promoted units have no zero points."""
    widths = {entry.bits for entry in recipe.units} - {FP16_BITS}
    zero_points = record.spec.bits in widths and not record.spec.symmetric
    return Kind(COMPRESSED, zero_points, len(widths) > 1)


def destinations_table(record: Record, recipe: Recipe) -> Any:
    """Every reader that is known, folded until it is opened."""
    rows = [
        {
            "reader": row.reader,
            "with": row.package_and_versions,
            "outcome": row.outcome,
            "why": row.why,
            "remedy": row.remedy,
        }
        for row in list_destinations(find_kind(record, recipe))
    ]
    columns = {
        "reader": "Reader",
        "with": "With",
        "outcome": "It",
        "why": "Seen",
        "remedy": "What to do",
    }
    return table(columns, rows, folded="Where the checkpoint goes")
