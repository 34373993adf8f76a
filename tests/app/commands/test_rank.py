"""`awqscope rank` and `trend`: words, tables and JSON of finished runs."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from awqscope.app import cli
from tests.help.releases import OTHER_TOKENS, raise_damage, write_release
from tests.help.runs import change_record, write_comparison, write_run, write_tokens


def ask(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, [str(part) for part in arguments])
    return result.exit_code, result.stdout, result.stderr


def read(*arguments: object) -> Any:
    code, printed, said = ask(*arguments, "--json")
    assert code == 0, said
    return json.loads(printed, parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_release(folder, "v1", 1.0, day=1)
    write_release(folder, "v2", 1.3, day=2)
    raise_damage(folder / "v2", 2, "2.down", 6)
    return folder


def test_runs_are_ranked_in_words_tables_and_json(root: Path, tmp_path: Path) -> None:
    write_comparison(tmp_path, "theirs")
    write_run(tmp_path, "other-text", ppl_definition=OTHER_TOKENS)
    words = [root / "v2", f"{root / 'v1'}:uniform", root / "v1", *tmp_path.iterdir()]
    found = read("rank", *words)
    names = [one["name"] for one in found["models"]]
    assert set(names) == {"v1", "v1:uniform", "v2", "theirs", "other-text"}
    assert names[-1] == "other-text" and names[-2] == "v1:uniform"
    best = found["models"][0]
    assert best["name"] == found["baseline"] and best["difference"] is None
    kls = [one["kl"]["value"] for one in found["models"][:-1]]
    assert kls == sorted(kls)
    apart = found["models"][-1]["difference"]
    assert apart["same_tokens"] is False and apart["kl"] is None
    gates = {one["name"]: one["gate"] for one in found["models"]}
    assert gates["v1:uniform"] == "fail" and gates["other-text"] == "pass"
    code, printed, _ = ask("rank", *words)
    said = " ".join(printed.split())
    assert code == 0
    assert f"{names[0]} loses least: KL" in said
    assert "other-text was measured on other tokens than" in said
    assert "measured on other tokens" in said.partition("paired by token")[2]
    held = read("rank", root, "--baseline", f"{root / 'v1'}:uniform")
    assert held["baseline"] == "v1:uniform"
    worse = {one["name"]: one["difference"] for one in held["models"]}
    assert worse["v1"]["kl"]["high"] < 0 < worse["v1"]["top1_agreement"]["low"]


def test_archived_ones_are_not_among_a_directorys(root: Path, tmp_path: Path) -> None:
    for name, day in (("a", 1), ("b", 2), ("c", 3)):
        write_release(tmp_path, name, 1.0 + day / 10, day=day)
    assert ask("note", tmp_path / "b", "--archive")[0] == 0
    assert {one["name"] for one in read("rank", tmp_path)["models"]} == {"a", "c"}
    assert [one["name"] for one in read("trend", tmp_path)["releases"]] == ["a", "c"]
    (write_run(tmp_path, "damaged") / "run.json").write_text("{")
    code, _, said = ask("rank", tmp_path)
    left = [line for line in said.splitlines() if "is left out" in line]
    assert code == 0 and len(left) == 2
    assert "/b is left out: it is archived" in left[0] and "/damaged is left out: " in left[1]
    named = read("rank", tmp_path / "a", tmp_path / "b")
    assert {one["name"] for one in named["models"]} == {"a", "b"}


def test_without_tokens_a_trend_says_what_it_cannot_know(tmp_path: Path) -> None:
    for name, day in (("a", 1), ("b", 2)):
        write_release(tmp_path, name, 1.0 + day / 10, day=day)
    calibration = json.loads((tmp_path / "b" / "run.json").read_text("utf-8"))["calibration"]
    change_record(tmp_path / "b", calibration={**calibration, "tokens_sha256": "0" * 64})
    (tmp_path / "a" / "tokens.parquet").unlink()
    code, printed, said = ask("trend", tmp_path)
    assert code == 0, said
    assert "has no tokens.parquet" in " ".join(printed.split())
    assert read("trend", tmp_path)["steps"][0]["blocks"] is not None


def test_a_model_that_loses_the_same_and_is_no_smaller_is_said_to(tmp_path: Path) -> None:
    one, two = (write_run(tmp_path, name) for name in ("one", "two"))
    headline = json.loads((two / "run.json").read_text(encoding="utf-8"))["headline"]
    headline["bytes"]["mixed"] -= 40_000
    change_record(two, headline=headline)
    said = " ".join(ask("rank", one, two)[1].split())
    assert "one is no smaller than one that loses no more." in said


def test_the_best_is_a_finished_run_where_there_is_one(root: Path, tmp_path: Path) -> None:
    """One that has not finished may still change, and its checkpoint was not proved."""
    ahead = write_release(tmp_path, "ahead", 0.5, state="stopped")
    found = read("rank", root, ahead)
    assert [one["name"] for one in found["models"]] == ["ahead", "v1", "v2"]
    assert found["baseline"] == "v1"
    said = " ".join(ask("rank", root, ahead)[1].split())
    assert "v1 loses least: KL" in said
    assert "ahead had less when measured, but the run has not finished." in said
    assert "✕ May not ship" in said
    change_record(root / "v1", state="failed")
    change_record(root / "v2", state="failed")
    try:
        assert read("rank", root, ahead)["baseline"] == "ahead"
    finally:
        change_record(root / "v1", state="done")
        change_record(root / "v2", state="done")


def test_too_few_windows_bound_nothing(tmp_path: Path) -> None:
    """Of fewer than six windows JSON has null, words say it."""
    for name, day in (("a", 1), ("b", 2)):
        path = write_release(tmp_path, name, 1.0 + day / 10, day=day)
        cut_windows(path, 4)
    found = read("rank", tmp_path)
    assert found["models"][0]["kl"]["low"] is None and found["models"][0]["kl"]["value"] > 0
    printed = ask("rank", tmp_path)[1]
    assert "too few windows to bound it" in printed and "too few windows to tell" in printed


def cut_windows(path: Path, windows: int) -> None:
    definition = json.loads((path / "run.json").read_text())["ppl_definition"]
    length = definition["seq_len"]
    write_tokens(path, pq.read_table(path / "tokens.parquet").slice(0, windows * length))
    slices = [{**part, "windows": windows} for part in definition.get("slices", [])]
    change_record(path, ppl_definition={**definition, "windows": windows, "slices": slices})


def test_a_trend_names_what_broke_and_was_mended(root: Path) -> None:
    found = read("trend", root / "v2", root / "v1")
    assert [one["name"] for one in found["releases"]] == ["v1", "v2"]
    (step,) = found["steps"]
    assert (step["from"], step["to"]) == ("v1", "v2")
    assert [each["of"] for each in step["blocks"]["newly_broken"]] == [2]
    assert [each["of"] for each in step["units"]["newly_broken"]] == ["2.down"]
    assert step["blocks"]["mended"] == step["units"]["mended"] == []
    tokens = step["tokens"]
    code, printed, _ = ask("trend", root)
    said = " ".join(printed.split())
    assert code == 0
    assert "Surely worse: KL +" in said
    assert "Blocks newly broken: 2 (+" in said and "Units newly broken: 2.down (+" in said
    assert f"{tokens['newly_broken']:,} ({tokens['newly_broken'] / tokens['scored']:.1%})" in said
    assert f"window {tokens['worst'][0]['window']}, token" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rank", "{root}/v1"), "there is but one run to rank: give two or more"),
        (("rank", "{root}/v1", "{root}"), "/v1 is given twice: "),
        (("rank", "{root}/v1:candidate", "{root}/v2"), "has no candidate model: it has mixed and"),
        (("rank", "{root}/v1", "nothing"), "nothing holds no run: "),
        (("trend", "{root}/v1"), "one release has no trend: "),
        (("trend", "{root}", "--model", "org/x"), "no run is of org/x: give one of examples/demo"),
    ],
)
def test_errors_are_one_line(root: Path, words: tuple[str, ...], said: str) -> None:
    code, printed, told = ask(*(word.format(root=root) for word in words))
    assert (code, printed) == (2, "")
    (line,) = told.splitlines()
    assert said in line
