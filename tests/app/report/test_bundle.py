"""Reports of several runs: a directory that is whole or not there, and that nothing else is lost
for."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.app.report import bundle
from awqscope.app.report.bundle import INDEX, LISTED, SCRIPT, name_page, write_bundle
from awqscope.diagnose.gate.policy import load_policy
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.notes import Change, change_notes
from awqscope.mixedprec.errors import InputError
from tests.app.report.test_page import HOSTILE, Page
from tests.help.root import ROOT
from tests.help.runs import SAMPLE, change_record, write_comparison, write_run

LLM = ROOT / "reports" / "sample-smollm2"


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_runs_make_a_list_and_a_page_each(tmp_path: Path) -> None:
    out = tmp_path / "site"
    result = invoke(SAMPLE, LLM, "-o", out)
    assert result.exit_code == 0 and result.stdout.startswith(f"{out / INDEX}: 2 of 2 runs, ")
    files = read(out)
    assert set(files) == {INDEX, SCRIPT, LISTED, "sample.html", "sample-smollm2.html"}
    assert os.listdir(tmp_path) == ["site"]
    # The charts' script is there once, and every page asks for it and for nothing else.
    assert sum(len(content) for content in files.values()) < len(files[SCRIPT]) + 1e6
    for name in ("sample.html", "sample-smollm2.html"):
        page = Page(files[name].decode())
        assert page.values("src") == [SCRIPT] and INDEX in page.values("href")
        assert "script-src 'self' file: 'sha256-" in page.values("content")[0]
    index = Page(files[INDEX].decode())
    assert "script" not in {tag for tag, _, _ in index.elements}
    assert "script-src 'none'" in index.values("content")[0]
    rows = index.texts("tr")[1:]
    assert "94.9% recovered" in rows[0] and "✓ May ship" in rows[0] and "5.06 MB" in rows[0]
    assert "16.4% recovered" in rows[1] and "SmolLM2" in rows[1]
    assert [link for link in index.values("href") if link.endswith(".html")] == [
        "sample.html",
        "sample-smollm2.html",
    ]
    # The same runs make the same files, in place of those that were there.
    assert invoke(SAMPLE, LLM, "-o", out).exit_code == 0
    assert read(out) == files and os.listdir(tmp_path) == ["site"]


def test_a_directory_of_runs_lists_those_that_are_not_done(tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "site"
    runs.mkdir()
    write_run(runs)
    write_comparison(runs)
    change_record(write_run(runs, "begun"), state="running")
    (write_run(runs, "damaged") / "run.json").write_text("{")
    result = invoke(runs, "-o", out)
    assert result.exit_code == 0 and ": 2 of 4 runs, " in result.stdout
    assert set(read(out)) == {INDEX, SCRIPT, LISTED, "sample.html", "candidate.html"}
    listed = Page(read(out)[INDEX].decode()).texts("tr")[1:]
    assert (
        sum("stopped: " in row for row in listed) == sum("damaged: " in row for row in listed) == 1
    )
    # Named by itself, a run must be done.
    refused = invoke(runs / "sample", runs / "begun", "-o", tmp_path / "other")
    assert refused.exit_code == 2 and "is not finished" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_one_of_a_directory_costs_the_others_nothing(tmp_path: Path) -> None:
    """What cannot be reported is listed with its reason, what is archived is not; given by name
    both are as any run."""
    runs, out = tmp_path / "runs", tmp_path / "site"
    runs.mkdir()
    write_run(runs)
    broken = write_run(runs, "broken")
    (broken / "policy.toml").write_text("[limits]\nmax_klp = 1\n")
    archived = write_run(runs, "archived")
    change_notes(RunDirectory(archived), Change(archived=True))
    result = invoke(runs, "-o", out)
    assert result.exit_code == 0 and ": 1 of 2 runs, " in result.stdout
    assert set(read(out)) == {INDEX, SCRIPT, LISTED, "sample.html"}
    listed = read(out)[INDEX].decode()
    assert "no report: broken/policy.toml" in listed and str(tmp_path) not in listed
    refused = invoke(SAMPLE, broken, "-o", tmp_path / "other")
    assert refused.exit_code == 2 and "did you mean max_kl?" in refused.stderr
    assert invoke(SAMPLE, archived, "-o", tmp_path / "other").exit_code == 0
    assert "archived.html" in read(tmp_path / "other")


def test_nothing_but_a_bundle_is_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out, said in (
        (mine, "holds notes.txt, which is no part of a bundle"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "page.html", "is one page, and several runs are given"),
    ):
        refused = invoke(SAMPLE, SAMPLE, "-o", out)
        assert refused.exit_code == 2 and said in refused.stderr, out
    assert read(mine) == {"notes.txt": b"mine"}
    out = tmp_path / "empty"
    out.mkdir()
    assert invoke(SAMPLE, SAMPLE, "-o", out).exit_code == 0
    # Of one name, they have a page each.
    assert {"sample.html", "sample-2.html"} < set(read(out))
    (out / "CNAME").write_text("mine")
    refused = invoke(SAMPLE, SAMPLE, "-o", out)
    assert refused.exit_code == 2 and "holds CNAME" in refused.stderr
    assert (out / "CNAME").exists()


def test_it_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, policy = tmp_path / "site", load_policy()
    write_bundle([SAMPLE, SAMPLE], out, policy)
    before = read(out)
    damaged = write_run(tmp_path)
    (damaged / "blocks.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError):
        write_bundle([SAMPLE, damaged], out, policy)
    assert read(out) == before

    def fail(entries: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle, "write_index", fail)
    with pytest.raises(KeyboardInterrupt):
        write_bundle([SAMPLE, LLM], out, policy)
    assert read(out) == before and {path.name for path in tmp_path.iterdir()} == {"site", "sample"}


def test_names_are_files_and_text(tmp_path: Path) -> None:
    taken: set[str] = set()
    for name in ("index", "a/b c", "A-b-c", "模型", "..", "plotly", HOSTILE, "x" * 300):
        page = name_page(name, taken)
        assert page.lower() not in {each.lower() for each in taken} | {INDEX}
        assert len(page) < 100 and page.isascii() and not set(page) & set("/<>\"'& ")
        taken.add(page)
    run = write_run(tmp_path, "<b>&'run")
    write_bundle([run], tmp_path / "site", load_policy())
    index = Page((tmp_path / "site" / INDEX).read_text())
    assert "<b>&'run" in index.texts("a") and not index.texts("b")
    told = json.loads((tmp_path / "site" / LISTED).read_text())
    assert set(told["files"]) == set(read(tmp_path / "site")) - {LISTED}
