"""Recipes that other tools carry out, held against what they made: the parts without tools."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from awqscope.mixedprec.recipes.emitters import EMITTERS
from examples.makers.emitted import __main__ as driver
from examples.makers.emitted.carry_out import TARGETS
from examples.makers.emitted.outcome import (
    HEADINGS,
    Outcome,
    count_widths,
    find_other_text,
    find_stray,
    from_json,
    list_cells,
    read_run,
    to_json,
    write_part,
)
from examples.makers.shared.page import SECOND, TITLE, change_page, update_page
from examples.makers.shared.table import Measured
from tests.help.root import ROOT

MAKERS = ROOT / "examples" / "makers"
RECIPE = {"0.q": 4, "0.k": 4, "0.o": 8, "0.down": 16}
OURS = Measured(76.0, 77.3, 0.0135)
DONE = Outcome(
    "mlx-lm",
    "asymmetric",
    "mlx-lm 0.32",
    {"4": 2, "8": 1, "16": 1},
    Measured(76.0, 78.0, 0.02, {"4": 2}),
    OURS,
)


def test_every_target_is_carried_out_or_says_why_not() -> None:
    assert set(driver.RUNS) == set(TARGETS)
    assert set(driver.RUNS) | set(driver.UNABLE) == set(EMITTERS)
    for target in driver.RUNS:
        assert (MAKERS / f"{driver.TOOLS.get(target, target)}.txt").exists()


@pytest.mark.parametrize(
    ("packed", "wanted"),
    [
        ({"0.q": 4, "0.k": 4, "0.o": 8}, None),
        ({"0.q": 4, "0.o": 8}, "0.k is at 16 bits, not 4"),
        ({"0.q": 4, "0.k": 4, "0.o": 4}, "0.o is at 4 bits, not 8"),
        ({"0.q": 4, "0.k": 4, "0.o": 8, "0.down": 8}, "0.down is at 8 bits, not 16"),
        ({"0.q": 4, "0.k": 4, "0.o": 8, "lm_head": 8}, "lm_head is at 8 bits, not 16"),
    ],
)
def test_widths_are_held_to_the_recipe(packed: dict[str, int], wanted: str | None) -> None:
    assert find_stray(RECIPE, packed) == wanted


def test_linears_are_counted_by_the_width_that_they_have() -> None:
    assert count_widths(RECIPE, {"0.q": 4, "0.o": 8, "lm_head": 8}) == {"4": 1, "8": 1, "16": 2}


def test_ours_is_the_mixed_checkpoint_of_the_run() -> None:
    ppl = {"reference": 76.0, "uniform": 87.8, "mixed": 77.3}
    headline = {"ppl": ppl, "kl": {"uniform": 0.3, "mixed": 0.0135}}
    assert read_run({"headline": headline}) == OURS


def test_both_are_measured_on_one_text() -> None:
    assert find_other_text(replace(OURS, reference=76.001), OURS) is None
    said = find_other_text(replace(OURS, reference=60.0), OURS)
    assert said == "16 bits come to 60.000 here and to 76.000 in the run"


def test_outcomes_are_kept_as_they_are() -> None:
    for outcome in (DONE, Outcome("autoround", "symmetric", ours=OURS, fault="it broke")):
        assert from_json(json.loads(json.dumps(to_json(outcome)))) == outcome


def test_the_table_has_a_line_an_outcome() -> None:
    unable = Outcome("llama.cpp", "–", unable="a | program")
    lines = write_part([DONE, replace(DONE, fault="two\nlines"), unable], ["today"]).splitlines()
    assert lines[0] == SECOND and "- today" in lines
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    assert {len(row) for row in rows} == {len(HEADINGS)}
    verdicts = ["every linear as the recipe says", "two lines", "a \\| program"]
    assert [row[-1].strip() for row in rows[2:]] == verdicts
    numbers = ["2 at 4, 1 at 8, 1 at 16", "76.000", "78.000", "0.02000", "77.300", "0.01350"]
    assert list_cells(DONE)[3:9] == numbers


def test_each_command_leaves_the_others_part_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "makers.md"
    first, second = f"{TITLE}\n\nmade\n", f"{SECOND}\n\ncarried out\n"
    update_page(page, second)
    assert page.read_text() == f"{TITLE}\n\n{second}"
    update_page(page, first)
    assert page.read_text() == f"{first}\n{second}"
    update_page(page, second.replace("carried out\n", "again\n"))
    assert page.read_text() == f"{first}\n{SECOND}\n\nagain\n"
    assert change_page("", first) == first


def test_what_is_kept_is_true_until_its_text_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "carry_out.py"
    monkeypatch.setattr(driver, "HERE", tmp_path)
    monkeypatch.setattr(driver, "SCRIPT", script)
    monkeypatch.setattr(driver, "OUTCOMES", tmp_path / "kept")
    folder = tmp_path / "kept" / "mlx-lm-asymmetric"
    folder.mkdir(parents=True)
    for path in (script, tmp_path / "mlx.txt"):
        path.touch()
    assert driver.read_kept("mlx-lm", "asymmetric", "{}") is None
    (folder / "recipe.json").write_text("{}")
    (folder / "row.json").write_text(json.dumps(to_json(DONE)))
    assert driver.read_kept("mlx-lm", "asymmetric", "{}") == DONE
    assert driver.read_kept("mlx-lm", "asymmetric", "{ }") is None
    assert [outcome.target for outcome in driver.list_outcomes()] == ["mlx-lm", "llama.cpp"]
    later = (folder / "row.json").stat().st_mtime + 1
    os.utime(script, (later, later))
    assert driver.read_kept("mlx-lm", "asymmetric", "{}") is None
    os.utime(script, (later - 9, later - 9))
    (folder / "row.json").write_text(json.dumps(to_json(replace(DONE, fault="it broke"))))
    assert driver.read_kept("mlx-lm", "asymmetric", "{}") is None


def test_the_script_stands_alone() -> None:
    """It runs where nothing of ours is installed."""
    text = (MAKERS / "emitted" / "carry_out.py").read_text(encoding="utf-8")
    assert not re.search(r"^\s*(from|import) (awqscope|examples|tests)\b", text, re.MULTILINE)
