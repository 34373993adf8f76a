"""Recipes on disk, and what is refused."""

import json
from copy import deepcopy
from pathlib import Path

import pytest

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import FAMILIES
from awqscope.mixedprec.recipes.recipe import (
    change_recipe,
    check_fits,
    diff_recipes,
    load_recipe,
    make_recipe,
    save_recipe,
)
from awqscope.mixedprec.scheme import Grouped, parse_width, sort_widths

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


def test_groups_are_kept_and_plain_recipes_are_as_before(saved: Path) -> None:
    plain = load_recipe(saved)
    assert json.loads(saved.read_text())["schema"] == 1
    assert "group_size" not in saved.read_text()
    fine = change_recipe(plain, {"0.o": Grouped(4, 32), "1.down": Grouped(8, -1)})
    save_recipe(saved, fine)
    assert load_recipe(saved) == fine
    written = json.loads(saved.read_text())
    # Of another schema: versions without groups refuse it, where they would pass over the sizes.
    assert written["schema"] == 2
    units = {unit["unit"]: unit for unit in written["units"]}
    assert (units["0.o"]["bits"], units["0.o"]["group_size"]) == (4, 32)
    assert "group_size" not in units["0.qkv"]
    assert fine.bits["0.o"] == 4 and fine.widths["0.o"] == Grouped(4, 32)
    assert fine.block_widths("model.layers.0")["self_attn.o_proj"] == Grouped(4, 32)
    assert [(c.unit, c.before, c.after) for c in diff_recipes(plain, fine)] == [
        ("0.o", 4, Grouped(4, 32)),
        ("1.down", 4, Grouped(8, -1)),
    ]
    # A run whose own groups are of that size has no other for it.
    assert fine.in_own_groups(32).widths["0.o"] == 4
    assert fine.in_own_groups(64) == fine


def test_groups_that_nothing_is_quantized_in(saved: Path) -> None:
    written = json.loads(saved.read_text())
    for bits, size in ((4, 48), (16, 64), (4, 0)):
        units = deepcopy(written["units"])
        units[1] |= {"bits": bits, "group_size": size}
        with pytest.raises(InputError, match=f"gives 0.o {bits} bits in groups of {size}"):
            load_recipe(change(saved, units=units))
    units[1]["group_size"] = "64"
    with pytest.raises(InputError, match="is not a recipe"):
        load_recipe(change(saved, units=units))


def test_widths_as_people_write_them() -> None:
    assert [parse_width(text) for text in ("4", " 8 ", "4x64", "4x-1", "16")] == [
        4,
        8,
        Grouped(4, 64),
        Grouped(4, -1),
        16,
    ]
    assert all(parse_width(str(width)) == width for width in (4, Grouped(8, 32), 16))
    every = [Grouped(8, 32), 16, Grouped(4, 32), 8, Grouped(4, 128), Grouped(4, -1), 4]
    assert list(map(str, sort_widths(every))) == ["4", "4x-1", "4x128", "4x32", "8", "8x32", "16"]
    for text in ("", "x64", "4x", "4x48", "9", "16x64", "4.5", "4x64x2"):
        with pytest.raises(InputError):
            parse_width(text)


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
