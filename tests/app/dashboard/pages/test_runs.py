"""What a line of the list says of a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from awqscope.app.dashboard.pages.runs import brief_verdict, brief_widths, list_rows, tell_apart
from awqscope.app.store import RunSummary, Store
from tests.help.runs import SAMPLE, write_run

RECORD = json.loads((SAMPLE / "run.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("names", "ends"),
    [
        (["/srv/models/a", "/srv/models/b"], ["a", "b"]),
        (["/srv/x/model", "/srv/y/model", "/srv/z"], ["x/model", "y/model", "z"]),
        (["org/m", "/data/m"], ["org/m", "data/m"]),
        (["/m", "m"], ["/m", "m"]),
        (["/srv/models/a"], ["a"]),
        (["", "/"], ["", "/"]),
    ],
)
def test_models_are_known_by_what_differs(names: list[str], ends: list[str]) -> None:
    assert list(tell_apart(names).values()) == ends


def summary(**headline: Any) -> RunSummary:
    record = {**RECORD, "headline": {**RECORD["headline"], **headline}}
    return RunSummary("x", "done", record)


def test_verdicts_say_which_blocks_and_that_it_is_proved() -> None:
    assert brief_verdict(summary()) == "▲ block 5, 94.9% recovered, proved"
    assert brief_verdict(summary(flagged=[1, 5])).startswith("▲ blocks 1, 5, ")
    assert brief_verdict(summary(flagged=[1, 2, 3, 4])).startswith("▲ 4 blocks, ")
    assert brief_verdict(summary(flagged=[])) == "no block stands out"
    assert brief_verdict(summary(proved=False)) == "✕ the proof failed"


def test_a_comparison_is_called_one(tmp_path: Path) -> None:
    candidate = {"path": "/srv/us/m-GPTQ", "format": "gptq", "bits": {"4": 3, "16": 1}}
    changes = {"kind": "compare", "candidate": {**candidate, "tokenizer": True, "hashes": {}}}
    write_run(tmp_path, "theirs", **changes)
    row = list_rows(Store(tmp_path))[0]
    assert row["model_end"] == "us/m-GPTQ (4/16-bit GPTQ)"
    assert row["verdict"] == "▲ block 5 of the candidate"
    assert row["widths"] == "4/16-bit"


def test_mixed_stands_beside_uniform(tmp_path: Path) -> None:
    write_run(tmp_path)
    row = list_rows(Store(tmp_path))[0]
    kl = RECORD["headline"]["kl"]
    assert (row["kl"], row["kl_mixed"]) == (kl["uniform"], kl["mixed"])
    assert brief_widths({**RECORD, "spec": {**RECORD["spec"], "group_size": -1}}) == (
        "4 and 8, a group a row"
    )
