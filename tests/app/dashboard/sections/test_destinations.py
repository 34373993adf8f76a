"""Where a run's checkpoint goes, as its page tells it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from awqscope.app.dashboard.sections.destinations import destinations_table, find_kind
from awqscope.diagnose.runs.record import Record
from awqscope.mixedprec.checkpoints.config import quantization_config
from awqscope.mixedprec.checkpoints.destinations import Kind, describe_kind
from awqscope.mixedprec.families.table import list_units
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.recipes.recipe import Recipe, RecipeUnit
from awqscope.mixedprec.recipes.recipe import make_recipe as make_whole_recipe
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


@pytest.mark.parametrize("family", ["llama", "mixtral"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_kind_is_that_of_the_checkpoint(
    family: str, symmetric: bool, make_model: Callable[..., Path]
) -> None:
    """What the page tells from the recipe, config.json tells too."""
    model = open_model(str(make_model(family)))
    spec = {"symmetric": symmetric, "group_size": 64}
    source = {**SAMPLE["source"], "architecture": family}
    record = parse_run({**SAMPLE, "spec": {**SAMPLE["spec"], **spec}, "source": source})
    names = [unit.name for unit in list_units(model.family, model.blocks)]
    for changed in ({}, {names[0]: 8}, {names[-1]: 8}, dict.fromkeys(names, 8), {names[1]: 16}):
        recipe = make_whole_recipe("", model.family, model.blocks, 4, changed=changed)
        written = quantization_config(model, recipe, record.spec.schemes, "compressed-tensors")
        assert find_kind(record, recipe) == describe_kind(written), changed


def test_the_table_says_what_to_install() -> None:
    table = destinations_table(make_record(), make_recipe(4, 8))
    said = json.dumps(table.to_plotly_json()["props"])
    assert "Where the checkpoint goes" in said
    assert "compressed-tensors~=0.17.1" in said and "awqscope dequantize" in said
