"""Several runs from Python: what the commands print, as objects and frames."""

import json
from pathlib import Path

import pytest

import awqscope
from awqscope import InputError
from awqscope.app.commands.rank import rank
from awqscope.app.commands.trend import trend
from tests.help.releases import raise_damage, write_release


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases")
    write_release(folder, "v1", 1.0, day=1)
    raise_damage(write_release(folder, "v2", 1.3, day=2), 2, "2.down", 6)
    return folder


def test_a_ranking_is_the_command_s(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(root / "v2"), str(root / "v1"), f"{root / 'v1'}:uniform"]
    rank(runs, as_json=True)
    told = json.loads(capsys.readouterr().out)
    found = awqscope.rank(awqscope.read_run(runs[0]), Path(runs[1]), runs[2])
    assert found.to_json() == told
    assert list(found.models.index) == ["v1", "v2", "v1:uniform"]
    by_name = {row["name"]: row for row in told["models"]}
    for name, row in found.models.iterrows():
        assert row["bytes"] == by_name[name]["bytes"]
        assert row["kl_low"] == by_name[name]["kl"]["low"]
    worse = by_name["v2"]["difference"]["kl"]
    assert found.models.loc["v2", "difference_kl"] == worse["value"] > 0
    assert found.models["difference_kl"].isna().tolist() == [True, False, False]
    assert "v1 loses least" in found.verdict
    held = awqscope.rank(root, baseline=root / "v2")
    assert held.to_json()["baseline"] == "v2"
    with pytest.raises(InputError, match="but one run to rank"):
        awqscope.rank(root / "v1")


def test_a_trend_is_the_command_s(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trend([str(root)], as_json=True)
    found = awqscope.trend(root)
    assert found.to_json() == json.loads(capsys.readouterr().out)
    assert list(found.releases.index) == ["v1", "v2"]
    assert found.verdict.startswith("v2 after v1. Surely worse")
    assert [each.of for each in found.steps[0].blocks] == [2]
    with pytest.raises(InputError, match="one release has no trend"):
        awqscope.trend(root / "v1")
