"""What more bytes would buy is said where the recipe gives back little, with commands that work."""

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from awqscope.app import cli
from awqscope.app.dashboard.pages.run import offers_part
from awqscope.app.report.contents import read_findings
from awqscope.app.report.outcome import recipe_part
from awqscope.app.store import Store
from awqscope.app.words.offers import list_offers, write_offers
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.scores import read_scores
from awqscope.mixedprec.recipes.solver import solve
from tests.help.runs import change_record, read_sample, write_run


@pytest.fixture
def poor(tmp_path: Path) -> Path:
    """The sample, as if its recipe had given back a tenth."""
    headline = read_sample()["headline"] | {"recovered": 0.1, "recovered_interval": [0.09, 0.11]}
    return write_run(tmp_path, "poor", headline=headline)


def read_offers(path: Path) -> list:
    return list_offers(RunDirectory(path).read(), path)


def test_offers_are_the_cheapest_for_their_recovery(poor: Path) -> None:
    offers, scores = read_offers(poor), read_scores(poor)
    for each, least in zip(offers, (0.25, 0.5, 0.75, 0.9), strict=True):
        recipe = solve(scores, min_recovery=least)
        found = scores.predict({entry.unit: entry.bits for entry in recipe.units})
        assert each.recovered == found.recovered >= least
        assert each.more == pytest.approx(found.bytes / scores.predict(scores.uniform).bytes - 1)
    assert [each.more for each in offers] == sorted(each.more for each in offers)
    assert write_offers(offers).startswith("The damage is spread; more bytes would give back")


def test_their_first_command_works_as_it_stands(
    poor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, _, second = read_offers(poor)[1].command.partition(" && ")
    found = CliRunner().invoke(cli.app, shlex.split(first)[1:])
    assert found.exit_code == 0, found.stderr
    written = shlex.split(second)[shlex.split(second).index("--recipe") + 1]
    assert (tmp_path / written).is_file()


def test_terminal_page_and_report_say_them(poor: Path) -> None:
    said = CliRunner().invoke(cli.app, ["show", str(poor)]).stdout
    assert "more bytes would give back" in " ".join(said.split())
    assert "--min-recovery 50%" in said
    store = Store(poor.parent)
    [card] = offers_part(store, store.summary("poor"))
    assert "What more bytes would buy" in str(card)
    part = recipe_part(read_findings(poor))
    assert part.offers is not None
    assert "awqscope recipe poor --min-recovery 25%" in str(part.offers)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "failed"},
        {"spec": read_sample()["spec"] | {"min_recovery": 0.1}},
        {"headline": read_sample()["headline"] | {"recovered": 0.6}},
    ],
)
def test_nothing_is_offered_where_enough_is_given_back(poor: Path, changes: dict) -> None:
    change_record(poor, **changes)
    assert read_offers(poor) == []


def test_damage_that_is_spread_is_offered_for_too(poor: Path) -> None:
    headline = read_sample()["headline"] | {"recovered": 0.0, "flagged": []}
    change_record(poor, headline=headline)
    assert len(read_offers(poor)) == 4
