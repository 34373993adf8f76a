"""Where a run's checkpoint goes, as its page tells it."""

import json
from typing import Any

import pytest

from awqscope.app.dashboard.sections.destinations import destinations_table, find_kind
from awqscope.diagnose.runs.record import Record
from awqscope.mixedprec.checkpoints.destinations import Kind
from awqscope.mixedprec.recipes.recipe import Recipe, RecipeUnit
from tests.help.runs import parse_run, read_sample

SAMPLE = read_sample()


def make_record(**spec: Any) -> Record:
    record = parse_run({**SAMPLE, "spec": {**SAMPLE["spec"], **spec}})
    assert isinstance(record, Record)
    return record


def make_recipe(*bits: int) -> Recipe:
    units = [
        RecipeUnit(f"{block}.o", (f"model.layers.{block}.self_attn.o_proj",), width)
        for block, width in enumerate(bits)
    ]
    return Recipe("org/model", "flagged", tuple(units), {})


@pytest.mark.parametrize(
    ("symmetric", "bits", "zero_points", "several"),
    [
        (False, (4, 8, 16), True, True),
        (False, (4, 4, 16), True, False),
        (False, (8, 8, 16), False, False),
        (True, (4, 8, 4), False, True),
    ],
)
def test_the_kind_is_what_the_recipe_makes(
    symmetric: bool, bits: tuple[int, ...], zero_points: bool, several: bool
) -> None:
    found = find_kind(make_record(symmetric=symmetric), make_recipe(*bits))
    assert found == Kind("compressed-tensors", zero_points, several)


def test_the_table_says_what_to_install() -> None:
    table = destinations_table(make_record(), make_recipe(4, 8))
    said = json.dumps(table.to_plotly_json()["props"])
    assert "Where the checkpoint goes" in said
    assert "compressed-tensors~=0.17.1" in said and "awqscope dequantize" in said
