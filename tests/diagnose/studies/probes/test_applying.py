"""A recipe of an alternative, and what no recipe holds."""

from pathlib import Path

import pytest

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.probes.answer import Refused
from awqscope.diagnose.studies.probes.applying import apply_alternative, check_applies
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import find_family
from awqscope.mixedprec.recipes.recipe import check_fits, diff_recipes, load_recipe
from awqscope.mixedprec.scheme import Grouped
from tests.help.probed import make_probe
from tests.help.runs import write_run


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(write_run(tmp_path))


def test_the_runs_recipe_with_the_block_as_it_was_measured(run: RunDirectory) -> None:
    """The run's recipe has 5.qkv and 5.o at 8 bits; the alternative has 5.o alone."""
    own = load_recipe(run.path / "recipe.json")
    made = apply_alternative(run, [make_probe(5)], "o-8")
    changes = {change.unit: change.after for change in diff_recipes(own, made)}
    assert changes == {"5.qkv": 4}
    assert (made.kind, made.provenance["alternative"]) == ("probe", "o-8")
    check_fits(made, find_family("llama"), 8)
    grouped = apply_alternative(run, [make_probe(5)], "groups-32")
    assert {u for u, width in grouped.widths.items() if width == Grouped(4, 32)} == {
        f"5.{kind}" for kind in ("qkv", "o", "gate_up", "down")
    }
    both = apply_alternative(run, [make_probe(5), make_probe(2)], "block-8")
    assert {u for u, bits in both.bits.items() if bits == 8} == {
        f"{block}.{kind}" for block in (2, 5) for kind in ("qkv", "o", "gate_up", "down")
    }


@pytest.mark.parametrize(
    ("name", "what", "remedy"),
    [
        ("symmetric", "no recipe holds symmetric", "`awqscope run --symmetric` makes it of every"),
        ("rtn", "no recipe holds rtn", "no option of `awqscope run` makes it"),
        ("o-9", "block 5 has no alternative 'o-9'", "choose from groups-"),
    ],
)
def test_what_no_recipe_holds(run: RunDirectory, name: str, what: str, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        check_applies(run, [5], (), name)
    assert what in caught.value.what and remedy in caught.value.remedy


def test_what_the_model_could_not_take(run: RunDirectory) -> None:
    refused = Refused(name="groups-64", what="groups of 64", why="64 does not divide 96")
    probe = make_probe(5, refused=[refused])
    with pytest.raises(InputError, match=r"block 5 cannot have groups-64 \(64 does not divide 96"):
        apply_alternative(run, [probe], "groups-64")


def test_a_run_without_a_recipe(run: RunDirectory) -> None:
    (run.path / "recipe.json").unlink()
    with pytest.raises(InputError, match="has no recipe to change"):
        check_applies(run, [5], (), "o-8")
