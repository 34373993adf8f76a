"""Recipes on disk, and what is refused."""

import json
from pathlib import Path

import pytest

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import FAMILIES
from awqscope.mixedprec.recipes.recipe import check_fits, load_recipe, make_recipe, save_recipe

LLAMA = FAMILIES["llama"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    recipe = make_recipe("m", LLAMA, 2, 4, changed={"1.qkv": 8, "0.down": 16}, kind="flagged")
    save_recipe(tmp_path / "recipe.json", recipe)
    return tmp_path / "recipe.json"


def change(path: Path, **entries: object) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))
    return path


def test_round_trip(saved: Path) -> None:
    recipe = load_recipe(saved)
    assert recipe.bits["1.qkv"] == 8
    assert recipe.block_widths("model.layers.1")["self_attn.v_proj"] == 8
    assert recipe.linear_widths()["model.layers.0.mlp.down_proj"] == 16
    assert len(recipe.linear_widths()) == 14
    check_fits(recipe, LLAMA, 2)


def test_unknown_units() -> None:
    with pytest.raises(InputError, match=r"no unit '2\.qkv': .* block from 0 to 1 .* qkv, o, gate"):
        make_recipe("m", LLAMA, 2, 4, changed={"2.qkv": 8})


def test_files_that_are_no_recipe(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe(tmp_path / "none.json")
    (tmp_path / "odd.json").write_text("[]")
    with pytest.raises(InputError, match="is not a recipe"):
        load_recipe(tmp_path / "odd.json")
    # Pairs would make an object, whose keys JSON cannot hold.
    with pytest.raises(InputError, match="is not a recipe"):
        load_recipe(change(saved, provenance=[[None, None]]))
    change(saved, provenance={})
    with pytest.raises(InputError, match="recipe schema 7"):
        load_recipe(change(saved, schema=7))


def test_impossible_widths(saved: Path) -> None:
    units = json.loads(saved.read_text())["units"]
    units[0]["bits"] = 12
    with pytest.raises(InputError, match=r"gives 0\.qkv an impossible width"):
        load_recipe(change(saved, units=units))


def test_recipes_of_another_model_and_split_units(saved: Path) -> None:
    recipe = load_recipe(saved)
    with pytest.raises(InputError, match="leaves out unit 2"):
        check_fits(recipe, LLAMA, 3)
    with pytest.raises(InputError, match="has no unit"):
        check_fits(recipe, LLAMA, 1)
    units = json.loads(saved.read_text())["units"]
    units[0]["unit"] = "9.qkv"
    with pytest.raises(InputError, match=r"has no unit '9\.qkv'"):
        check_fits(load_recipe(change(saved, units=units)), LLAMA, 2)
    units[0] |= {"unit": "0.q_proj", "linears": units[0]["linears"][:1]}
    with pytest.raises(InputError, match=r"splits the fused unit 0\.qkv \(0\.q_proj\)"):
        check_fits(load_recipe(change(saved, units=units)), LLAMA, 2)
    units[0]["unit"] = "0.qkv"
    with pytest.raises(InputError, match=r"0\.qkv does not hold the linears a server fuses"):
        check_fits(load_recipe(change(saved, units=units)), LLAMA, 2)
