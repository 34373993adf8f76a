"""Runs as scripts have them: read late, shown safely, and said where they are not whole."""

import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

import awqscope
from awqscope import InputError, read_run, read_runs
from awqscope.app.words.run import promoted_units
from awqscope.app.words.verdict import write_verdict
from tests.help.root import ROOT
from tests.help.runs import SAMPLE, change_record, write_comparison, write_run

HOSTILE = "<script>alert(1)</script>\"'&"
READING = """
import sys, awqscope
run = awqscope.read_run("reports/sample")
assert not {"pandas", "plotly", "dash", "torch"} & set(sys.modules), "read_run"
run.blocks, run.tokens, run.headline, run.verdict, run.recipe, run.scores
assert not {"plotly", "dash", "torch"} & set(sys.modules), "frames"
run._repr_html_(), run.figure("blocks"), run.figures()
awqscope.gate(run), awqscope.read_runs("reports")
assert not {"dash", "torch", "transformers"} & set(sys.modules)
"""


class Markup(HTMLParser):
    """Tags that are open, and the text between them."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = [name for name, _ in attrs]
        assert not any(name.startswith("on") or name in ("href", "src") for name in names)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_reading_imports_nothing_that_takes_long() -> None:
    subprocess.run([sys.executable, "-c", READING], check=True, cwd=ROOT)


def test_a_run_is_what_its_directory_is() -> None:
    run = read_run(SAMPLE)
    assert (run.name, run.state) == ("sample", "done")
    assert run.tables == ("blocks", "units", "promotions", "weights", "activations", "tokens")
    assert run.recipe is not None
    assert run.verdict == write_verdict(run.record, promoted_units(run.recipe, run.record))
    assert repr(run) == "<Run sample: done, ▲ block 5, 94.9% recovered, proved>"
    small = awqscope.solve(run.scores, target_bits=4.5)
    assert run.scores.predict(small.widths).bits_per_weight <= 4.5


def test_a_frame_is_its_reader_s(tmp_path: Path) -> None:
    """What one does to a frame nobody else sees; what is written meanwhile everybody does."""
    run = read_run(write_run(tmp_path))
    mine = run.blocks
    mine["kl"] = 0.0
    assert (run.blocks["kl"] > 0).all()
    change_record(run.path, state="failed", error={"message": "the disk is full", "remedy": ""})
    assert run.state == "failed" and "the disk is full" in run.verdict


def test_a_notebook_gets_markup_and_no_script(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path))
    shown = Markup(run._repr_html_())
    assert {"svg", "table"} <= set(shown.tags) and "script" not in shown.tags
    assert run.verdict in shown.text and shown.text.count("▲") == 1
    blocks = run.blocks.xs("isolated", level="view")
    assert shown.tags.count("rect") == len(blocks)
    change_record(run.path, state="failed", error={"message": HOSTILE, "remedy": HOSTILE})
    shown = Markup(run._repr_html_())
    assert "script" not in shown.tags and HOSTILE in shown.text


def test_a_run_gives_what_it_has(tmp_path: Path) -> None:
    path = write_run(
        tmp_path, state="running", headline={}, stages={"search": {"state": "running"}}
    )
    for name in ("blocks", "units", "tokens"):
        (path / f"{name}.parquet").unlink()
    run = read_run(path)
    assert run.state == "stopped" and "nothing is measured yet" in run.verdict
    assert "nothing is measured yet" in run._repr_html_() and "stopped" in repr(run)
    for ask in ("headline", "blocks", "tokens"):
        with pytest.raises(InputError) as error:
            getattr(run, ask)
        assert error.value.remedy
    shutil.rmtree(path)
    assert "is gone" in run._repr_html_()
    with pytest.raises(InputError, match="is gone"):
        _ = run.state


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run: it holds runs"):
        read_run(ROOT / "reports")
    with pytest.raises(InputError, match="is hidden"):
        read_run(write_run(tmp_path, ".run"))
    path = write_run(tmp_path)
    (path / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run.json cannot be read"):
        read_run(path)


def test_runs_are_a_row_each(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_comparison(tmp_path)
    (write_run(tmp_path, "damaged") / "run.json").write_text("{")
    write_run(tmp_path, "begun", state="running", headline={})
    frame = read_runs(tmp_path)
    assert set(frame.index) == {"sample", "candidate", "damaged", "begun"}
    assert frame["state"].to_dict() == {
        "sample": "done",
        "candidate": "done",
        "damaged": "damaged",
        "begun": "stopped",
    }
    one = read_run(tmp_path / "sample")
    assert frame.loc["sample", "kl_mixed"] == one.headline.loc["mixed", "kl"]
    assert frame.loc["sample", "kl_quantized_low"] == one.headline.loc["uniform", "kl_low"]
    assert frame.loc["candidate", "kl_quantized"] == frame.loc["sample", "kl_mixed"]
    assert frame.loc["sample", "flagged"] == (5,) and frame["blocks"].dropna().eq(8).all()
    assert str(frame["group_size"].dtype) == "Int64" and frame.loc["sample", "group_size"] == 128
    assert "cannot be read" in frame.loc["damaged", "verdict"]
    assert pd.isna(frame.loc["begun", "kl_quantized"])
    assert frame["created"].dt.tz is not None
    recorded = json.loads((SAMPLE / "run.json").read_text())["spec"]
    assert set(recorded) <= set(frame.columns)
    assert list(read_runs(tmp_path / "sample" / "..").index) == list(frame.index)


def test_no_runs_are_an_empty_frame(tmp_path: Path) -> None:
    assert read_runs(tmp_path).empty and read_runs(tmp_path).index.name == "run"
    with pytest.raises(InputError, match="is no directory"):
        read_runs(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is a run: give it to read_run"):
        read_runs(SAMPLE)
