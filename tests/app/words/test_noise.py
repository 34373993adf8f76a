"""What is said of the noise floor: the same in the terminal, on the page and in a report."""

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from awqscope.app.dashboard.pages.run import profile_card
from awqscope.app.report.contents import read_findings
from awqscope.app.report.damage import profile_charts
from awqscope.app.terminal.run import show_run
from awqscope.app.words.noise import (
    find_floor,
    list_noise,
    name_precision,
    write_floor,
    write_noise,
)
from awqscope.app.words.provenance import provenance_facts
from awqscope.app.words.run import profile_rows, profile_summary, worst_blocks
from awqscope.app.words.verdict import write_verdict
from awqscope.diagnose.runs.directory import RunDirectory
from tests.help.runs import parse_run, read_sample, write_run

# The sample is of the first schema, in which `sweep` is called `plan`.
FLOOR = {
    "precision": "bfloat16",
    "against": "float32",
    "kl": 0.001,
    "nll_difference": 0.01,
    "windows": [0, 40, 80, 120],
    "tokens": 2044,
}
SAID = "KL 0.001, the reference in bfloat16 against itself in float32 on 4 windows (2,044 tokens)"


def with_floor(**changes: Any) -> dict[str, Any]:
    """How a sweep was carried out, with a noise floor."""
    return {"control_kl": 0.0, "noise_floor": FLOOR | changes}


def test_a_run_says_its_floor_everywhere(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path, plan=with_floor()))
    record, rows = run.read(), run.read_table("blocks").to_pylist()
    assert find_floor(record) == 0.001
    assert write_floor(record) == provenance_facts(record)["Noise floor"] == SAID
    below = [r["block"] for r in rows if r["view"] == "isolated" and r["kl"] < 0.001]
    assert list_noise(rows, 0.001) == below and 5 not in below and len(below) > 1
    said = write_noise(rows, 0.001)
    assert said.endswith("are below the noise floor: what they cost may be rounding alone.")
    console = Console(width=300, record=True, file=io.StringIO())
    show_run(run, console)
    printed = console.export_text()
    assert f"noise floor: {SAID}. {said}" in printed
    assert printed.count(" noise ") >= len(below)
    assert said in profile_summary(worst_blocks(rows, "kl"), "kl", 0.001)
    lines = profile_rows(rows, "kl", 0.001)
    assert [line["block"] for line in lines if line["verdict"] == "noise"] == below
    assert said in str(profile_card(rows, "run", "kl", "log", 0.001))
    assert all(said in chart.summary for chart in profile_charts(read_findings(run.path)))


def test_the_precision_is_as_it_was_used() -> None:
    sample = read_sample()
    assert name_precision(parse_run(sample)) == "float32"
    assert name_precision(parse_run(sample | {"plan": with_floor()})) == "bfloat16"
    for asked, used in (("auto", "float32"), ("tf32", "tf32")):
        spec = {**sample["spec"], "precision": asked}
        assert name_precision(parse_run(sample | {"spec": spec})) == used


def test_a_run_without_a_floor_says_nothing_of_one(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path))
    record, rows = run.read(), run.read_table("blocks").to_pylist()
    assert (find_floor(record), find_floor(None), write_floor(record)) == (None, None, "")
    assert write_noise(rows, None) == write_noise(rows, 0.0) == ""
    assert "Noise floor" not in provenance_facts(record)
    console = Console(width=300, record=True, file=io.StringIO())
    show_run(run, console)
    assert "noise" not in console.export_text()


def test_one_block_and_one_window_are_one() -> None:
    row = {"block": 3, "view": "isolated", "kl": 1e-5}
    assert write_noise([row], 1e-4).startswith("Block 3 is below the noise floor: what it costs")
    record = parse_run(read_sample() | {"plan": with_floor(windows=[0])})
    assert "on 1 window (" in write_floor(record)


def test_a_whole_model_below_the_floor_is_no_finding() -> None:
    sample = read_sample()
    record = parse_run(sample | {"plan": with_floor(kl=0.5)})
    assert "below the noise floor: it may be rounding alone." in write_verdict(record, [])
    record = parse_run(sample | {"plan": with_floor()})
    assert "noise" not in write_verdict(record, [])
