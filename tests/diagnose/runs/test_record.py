"""The record: what it holds comes back as it was, earlier ones open, and damage is named."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqscope.diagnose.entries.stages import Stage
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.earlier import SCHEMA
from awqscope.diagnose.runs.record import Comparison, Record, describe_schema
from awqscope.diagnose.runs.spec import CompareSpec, RunSpec
from awqscope.mixedprec.errors import InputError
from tests.help.root import ROOT
from tests.help.runs import make_record, parse_record, parse_run, read_sample

SAMPLE = read_sample()
# A run as versions of schema 1 wrote it, whatever the sample is of.
FIRST_RUN = {key: value for key, value in SAMPLE.items() if key not in ("kind", "sweep")} | {
    "schema": 1,
    "plan": {"streams": 24, "chunk_windows": 630, "control_kl": 0.0},
}
FIRST_PLAN = {
    "budget": 100,
    "held": 10,
    "minimum": 50,
    "workers": 1,
    "stages": [
        {
            **{"stage": "sweep", "windows": 8, "chunk_windows": 4, "chunks": 2, "passes": 2},
            **{"streams": 5, "stream_bytes": 7, "spilled_bytes": 0, "fixed_bytes": 30},
            **{"peak_bytes": 40, "device_bytes": 0, "read_bytes": 9, "flops": 1e9, "seconds": 2.5},
        }
    ],
}


def first_comparison(**changes: Any) -> dict[str, Any]:
    """A comparison as versions of schema 1 wrote it: the candidate in uniform's place."""
    runs_alone = ("calibration", "estimator")
    kept = {key: value for key, value in FIRST_RUN.items() if key not in runs_alone}
    headline = {key: dict(SAMPLE["headline"][key]) for key in ("ppl", "kl", "bytes", "delta_ppl")}
    for entry in ("kl_interval", "kl_p99", "kl_p999", "top1_agreement"):
        headline[entry] = dict(SAMPLE["headline"][entry])
    for numbers in headline.values():
        numbers["mixed"] = None
    place = {"largest": 3.0, "block": 1, "site": "", "part": "output", "window": 2}
    return {
        **kept,
        "kind": "compare",
        "spec": CompareSpec(reference="m", candidate="us/c", valid="v").to_json(),
        "candidate": {
            **{"path": "us/c", "format": "awq", "bits": {"4": 56}, "tokenizer": False},
            "hashes": {"model.safetensors": "c0ffee"},
        },
        "headline": {
            **headline,
            "flagged": [5],
            "range": {"reference": {**place, "largest": 2.0}, "uniform": place},
            "recovered": None,
            "additivity": 0.9,
        },
        "places": [],
        **changes,
    }


def test_the_committed_sample_opens() -> None:
    record = RunDirectory(ROOT / "reports" / "sample").read_searched()
    assert record.measured.kl.mixed == SAMPLE["headline"]["kl"]["mixed"]
    assert record.spec.to_json() == {**record.spec.to_json(), **SAMPLE["spec"]}


def test_a_run_of_schema_1_loses_nothing() -> None:
    """Of a version that did not know all of today's options."""
    stored = parse_run(FIRST_RUN).to_json()
    assert (stored["schema"], stored["kind"]) == (SCHEMA, "run")
    assert stored["sweep"] == FIRST_RUN["plan"]
    assert stored["spec"] == {**stored["spec"], **FIRST_RUN["spec"]}
    same = FIRST_RUN.keys() - {"schema", "plan", "spec"}
    # The stage that measures units exactly had the name of an option of `awqscope recipe`.
    renamed = json.loads(json.dumps(FIRST_RUN).replace('"refine"', '"exact"'))
    assert {entry: stored[entry] for entry in same} == {entry: renamed[entry] for entry in same}
    assert stored.keys() - same == {"schema", "kind", "spec", "sweep"}


def test_what_is_stored_is_read_again_as_it_was() -> None:
    begun = make_record(RunSpec(model="m", calib="c", valid="v"))
    for entries in (FIRST_RUN, first_comparison(), begun.to_json()):
        record = parse_record(entries)
        again = parse_record(json.loads(json.dumps(record.to_json())))
        assert again == record and again.to_json() == record.to_json()


def test_a_comparison_of_schema_1_calls_its_candidate_what_it_is() -> None:
    record = parse_record(first_comparison())
    assert isinstance(record, Comparison)
    numbers = SAMPLE["headline"]
    assert record.measured.kl.candidate == numbers["kl"]["uniform"]
    assert record.measured.ppl.reference == numbers["ppl"]["reference"]
    assert record.measured.delta_ppl.candidate == tuple(numbers["delta_ppl"]["uniform"])
    assert record.measured.range is not None
    assert record.measured.range.candidate.window == 2
    assert record.measured.find_largest() == 3.0
    stored = record.to_json()["headline"]
    assert set(stored["kl"]) == {"candidate"} and "recovered" not in stored
    assert "uniform" not in json.dumps(stored) and "mixed" not in json.dumps(stored)


def test_a_comparison_of_schema_1_that_was_just_begun() -> None:
    record = parse_record(first_comparison(headline={}))
    assert record.headline is None and record.to_json()["headline"] == {}
    with pytest.raises(InputError, match="nothing is measured yet"):
        assert record.measured


def test_plans_of_the_first_versions_are_completed() -> None:
    """They did not plan for several on a machine, nor for the smallest budget, nor time in all."""
    plan = parse_record({**FIRST_RUN, "memory_plan": FIRST_PLAN}).memory_plan
    assert plan is not None
    assert (plan.sharing, plan.seconds) == (0, 2.5)
    assert plan.stage("sweep").least_bytes == plan.stage("sweep").fixed_bytes == 30
    with pytest.raises(LookupError, match="no stage proof was planned"):
        plan.stage("proof")


@pytest.mark.parametrize("schema", [SCHEMA + 1, 0, -1, 1.0, "1", None, True])
def test_other_schemas_are_refused_by_their_number(schema: Any) -> None:
    with pytest.raises(InputError, match=f"a run of schema {schema}: .* up to {SCHEMA}"):
        parse_record({**SAMPLE, "schema": schema})


def spoil(entry: str, value: Any) -> dict[str, Any]:
    """The sample with one entry, named by its path, changed; None takes it away."""
    record = read_sample()
    *above, last = entry.split(".")
    place = record
    for part in above:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return record


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("state", "sleeping"),
        ("model", 3),
        ("kind", "diagnosis"),
        ("versions", None),
        ("source.blocks", "8"),
        ("source.blocks", 8.5),
        ("source.blocks", True),
        ("source.hashes", ["x"]),
        ("ppl_definition.windows", None),
        ("calibration", []),
        ("headline.kl", None),
        ("headline.kl.uniform", "much"),
        ("headline.delta_ppl.uniform", [1.0, 2.0]),
        ("headline.kl_interval.mixed", [1.0, True]),
        ("headline.flagged", 5),
        ("headline.flagged", ["5"]),
        ("stages.sweep", "done"),
        ("stages.sweep.state", "going"),
        ("error", "it failed"),
        ("directory", 5),
    ],
)
def test_damage_is_named_by_its_entry(entry: str, value: Any) -> None:
    with pytest.raises(InputError) as refused:
        parse_record(spoil(entry, value))
    assert refused.value.what.startswith(f"run.json has no usable '{entry}")
    assert refused.value.remedy == "run it again elsewhere"
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("spec", [5, "text", [], {}, {**SAMPLE["spec"], "new": 1}])
def test_options_that_are_none_are_refused(spec: Any) -> None:
    with pytest.raises(InputError, match=r"run\.json: the run was made by another version"):
        parse_record({**SAMPLE, "spec": spec})


@given(
    st.dictionaries(st.sampled_from([*SAMPLE, "kind", "places"]), st.none() | st.text(max_size=3))
)
def test_any_record_is_read_or_refused_in_a_line(changes: dict[str, Any]) -> None:
    try:
        parse_record({**SAMPLE, **changes})
    except InputError as error:
        assert error.what and error.remedy and "\n" not in str(error)


def test_changes_are_of_entries_that_there_are_and_fit() -> None:
    record = parse_run(SAMPLE)
    assert record.changed(state="failed").state == "failed" and record.state == "done"
    with pytest.raises(TypeError, match="no entry invented"):
        record.changed(invented=1)
    with pytest.raises(ValueError, match="state"):
        record.changed(state="sleeping")
    assert Stage(state="done").changed(seconds=2.0).to_json() == {"state": "done", "seconds": 2.0}


def test_a_run_directory_is_brought_up_when_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(first_comparison(state="running")))
    run = RunDirectory(tmp_path)
    run.mark("sweep", "done", seconds=3.0)
    stored = json.loads((tmp_path / "run.json").read_text())
    assert stored["schema"] == SCHEMA and "plan" not in stored
    assert stored["headline"]["kl"] == {"candidate": SAMPLE["headline"]["kl"]["uniform"]}
    assert run.read().stages["sweep"].seconds == 3.0
    with pytest.raises(InputError, match="is a comparison, without searches"):
        run.read_searched()


def test_the_json_schema_is_the_models() -> None:
    there = (ROOT / "reports" / "run.schema.json").read_text(encoding="utf-8")
    assert there == describe_schema(), "make schema writes it anew"


@pytest.mark.parametrize(
    "entries",
    [SAMPLE, first_comparison(), make_record(RunSpec(model="m", calib="c", valid="v")).to_json()],
    ids=["run", "comparison", "begun"],
)
def test_what_is_stored_is_as_the_json_schema_says(entries: dict[str, Any]) -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    rules = json.loads(describe_schema())
    assert list(validator(rules).iter_errors(parse_record(entries).to_json())) == []
    assert list(validator(rules).iter_errors({**entries, "schema": SCHEMA, "versions": 3}))


@pytest.mark.parametrize("kind", [Record, Comparison])
def test_every_entry_is_said_in_a_sentence(kind: type[Record | Comparison]) -> None:
    schema = kind.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        for name, entry in part["properties"].items():
            assert entry["description"].endswith("."), f"{part['title']}.{name}"
