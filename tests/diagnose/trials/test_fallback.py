"""A recipe in several sizes of groups that measures worse than one in a single size, which is given
in its place."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from awqscope import Grouped, load_recipe, read_scores, solve
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.stages.pipeline import run_pipeline
from awqscope.mixedprec.awq.choices import load_search, save_search, search_path
from tests.help.contests import call, contest_spec

FINE = Grouped(4, 32)


@pytest.fixture(scope="module")
def run(
    make_model: Callable[..., Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunDirectory:
    spec = contest_spec(make_model, text_file)
    return run_pipeline(spec, tmp_path_factory.mktemp("runs") / "run", lambda *event: None)


def spoil(run: RunDirectory, path: Path, *budget: object) -> RunDirectory:
    """The run with searches in other groups that are spoiled after they were scored: clips at a
    fifth of what they were."""
    shutil.copytree(run.path, path, symlinks=True)
    spoiled = RunDirectory(path)
    call(path, "--options", "4,4x32,8", *budget)
    for number in range(3):
        file = search_path(spoiled.searches, number, FINE)
        search = load_search(file)
        tight = {name: clip / 5 for name, clip in search.clips.items()}
        save_search(file, replace(search, clips=tight))
    return spoiled


def test_a_recipe_over_groups_that_measures_worse_is_not_given(
    run: RunDirectory, tmp_path: Path
) -> None:
    budget = ("--target-bits", 5.3)
    path = spoil(run, tmp_path / "spoiled", *budget).path
    result = call(path, "--options", "4,4x32,8", *budget, "--verify")
    assert result.exit_code == 0, result.output
    assert "Recipes in several sizes of groups measured worse" in result.stdout
    kept = load_recipe(path / "races" / "target_bits-5.3-widths-4-4x32-8.json")
    assert FINE not in kept.widths.values() and kept.provenance["fell_back"]
    assert kept.widths == solve(read_scores(path), target_bits=5.3).widths
    rivals = {rival["name"]: rival for rival in kept.provenance["rivals"]}
    assert rivals["several sizes of groups"]["behind"][0] > 0
    assert not {"one size of groups", "fallback"} & rivals.keys()


def test_what_is_given_in_its_place_keeps_to_the_recovery(
    run: RunDirectory, tmp_path: Path
) -> None:
    budget = ("--min-recovery", "60%")
    path = spoil(run, tmp_path / "spoiled", *budget).path
    first = json.loads(call(path, "--options", "4,4x32,8", *budget, "--json").stdout)
    assert [unit for unit in first["units"] if "group_size" in unit]
    result = call(path, "--options", "4,4x32,8", *budget, "--verify", "--json")
    assert result.exit_code == 0, result.output
    kept = json.loads(result.stdout)
    assert kept["provenance"]["fell_back"]
    assert not [unit for unit in kept["units"] if "group_size" in unit]
    assert kept["provenance"]["budget"] == {"min_recovery": 0.6}
    assert kept["provenance"]["predicted"]["recovered"] >= 0.6
    rivals = {rival["name"]: rival for rival in kept["provenance"]["rivals"]}
    assert rivals["this recipe"]["bytes"] == kept["provenance"]["predicted"]["bytes"]
    assert rivals["one size of groups"]["bytes"] <= first["provenance"]["predicted"]["bytes"]
