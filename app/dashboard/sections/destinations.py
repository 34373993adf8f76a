"""Where a run's checkpoint goes: who loads it, in which versions, and what to do for the others."""

from typing import Any

from awqscope.app.dashboard.parts import table
from awqscope.diagnose.runs.record import Record
from awqscope.mixedprec.checkpoints.destinations import Kind, list_destinations
from awqscope.mixedprec.families.table import find_family
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.recipes.widths import group_by_scheme


def find_kind(record: Record, recipe: Recipe) -> Kind:
    """The kind of the checkpoint of a run's recipe, by the schemes that it is written with."""
    family = find_family(record.source.architecture)
    schemes = record.spec.schemes_at(recipe.widths.values())
    return Kind.of(group_by_scheme(recipe, schemes, family))


def destinations_table(record: Record, recipe: Recipe) -> Any:
    """Every reader that is known, folded until it is opened."""
    rows = [
        {
            "reader": row.reader,
            "with": row.package_and_versions,
            "outcome": row.outcome + row.condition,
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
