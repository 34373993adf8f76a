"""What a line of the list says of a run."""

from pathlib import Path
from typing import Any

from awqscope.app.dashboard.sections.listed.rows import brief_widths, list_rows
from awqscope.app.store import Store
from awqscope.app.words.verdict import write_brief
from awqscope.diagnose.runs.spec import CompareSpec
from tests.help.runs import parse_record, read_sample, write_run

RECORD = read_sample()


def brief(**headline: Any) -> str:
    record = {**RECORD, "headline": {**RECORD["headline"], **headline}}
    return write_brief("done", parse_record(record))


def test_verdicts_say_which_blocks_and_that_it_is_proved() -> None:
    assert brief() == "▲ block 5, 94.9% recovered, proved"
    assert brief(flagged=[1, 5]).startswith("▲ blocks 1, 5, ")
    assert brief(flagged=[1, 2, 3, 4]).startswith("▲ 4 blocks, ")
    assert brief(flagged=[]) == "no block stands out"
    assert brief(proved=False) == "✕ the proof failed"


def test_a_comparison_is_called_one(tmp_path: Path) -> None:
    candidate: dict[str, Any] = {
        "path": "/srv/us/m-GPTQ",
        "format": "gptq",
        "bits": {"4": 3, "16": 1},
    }
    candidate |= {"tokenizer": True, "hashes": {}}
    spec = CompareSpec(reference="m", candidate="c", valid="v").to_json()
    write_run(tmp_path, "theirs", kind="compare", candidate=candidate, spec=spec)
    row = list_rows(Store(tmp_path))[0]
    assert row["model_end"] == "us/m-GPTQ (4/16-bit GPTQ)"
    assert row["verdict"] == "▲ block 5 of the candidate"
    assert row["widths"] == "4/16-bit"


def test_mixed_stands_beside_uniform(tmp_path: Path) -> None:
    write_run(tmp_path)
    row = list_rows(Store(tmp_path))[0]
    kl = RECORD["headline"]["kl"]
    assert (row["kl"], row["kl_mixed"]) == (kl["uniform"], kl["mixed"])
    assert brief_widths(parse_record({**RECORD, "spec": {**RECORD["spec"], "group_size": -1}})) == (
        "4 and 8, a group a row"
    )
