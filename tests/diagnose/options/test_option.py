"""What a spec takes and refuses, all of it at once, and what it says of its options."""

import json
import math
import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from awqscope.diagnose.options.execution import Execution
from awqscope.diagnose.options.option import OptionsError, list_options
from awqscope.diagnose.runs.spec import CompareSpec, RunSpec
from awqscope.diagnose.statistics.spikes import Thresholds
from awqscope.mixedprec.errors import InputError
from tests.help.root import ROOT

SAMPLE = json.loads((ROOT / "reports" / "sample" / "run.json").read_text(encoding="utf-8"))["spec"]


def test_the_sample_of_an_earlier_version_is_read_and_written_in_its_order() -> None:
    spec = RunSpec.from_json(SAMPLE)
    stored = spec.to_json()
    assert {key: stored[key] for key in SAMPLE} == SAMPLE
    assert [key for key in stored if key in SAMPLE] == list(SAMPLE)
    assert spec.valid == (SAMPLE["valid"],)
    # What an earlier version did not know is as by default, but for what it did otherwise.
    bare = RunSpec.from_json({"model": "m", "calib": "c", "valid": ["a", "b"], "keep_fp16": []})
    before = {"search": "exact", "sweep": "exact", "precision": "float32"}
    assert bare == RunSpec(model="m", calib="c", valid=("a", "b"), **before)
    assert bare.thresholds == Thresholds()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"invented": 1}, "--invented is no option"),
        ({"bits": "4"}, "--bits 4 is no whole number"),
        ({"bits": True}, "--bits True is no whole number"),
        ({"symmetric": "yes"}, "--symmetric yes is neither on nor off"),
        ({"z": None}, "--z None is no number"),
        ({"valid": 3}, "--valid 3 is no text"),
        ({"model": None}, "--model None is no text"),
    ],
)
def test_a_record_of_another_version_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        RunSpec.from_json(SAMPLE | change)
    assert refused.value.what == f"the run was made by another version ({said})"
    assert refused.value.remedy == "use the version that made it"


@pytest.mark.parametrize(
    "stored", [{key: SAMPLE[key] for key in SAMPLE if key != "model"}, {}, [], [1], "spec", 3, None]
)
def test_what_is_no_spec_is_refused(stored: Any) -> None:
    with pytest.raises(InputError, match="another version"):
        RunSpec.from_json(stored)


def test_all_that_is_wrong_is_found_at_once() -> None:
    wrong = {"seq_len": 1, "z": math.nan, "bits": 1, "dtype": "float8", "valid": ("a", "a")}
    with pytest.raises(OptionsError) as refused:
        RunSpec(model="m", max_memory="lots", **wrong)  # type: ignore[arg-type]
    problems = refused.value.problems
    assert problems.keys() == {*wrong, "max_memory"}
    assert str(problems["bits"]) == "1 bits cannot be quantized to: choose from 2 to 8"
    assert str(problems["z"]) == "--z nan is no number: give a number"
    assert str(refused.value) in map(str, problems.values())
    again = pickle.loads(pickle.dumps(refused.value))
    assert (again.what, again.remedy) == (refused.value.what, refused.value.remedy)


def test_a_default_is_held_against_what_is_given() -> None:
    with pytest.raises(OptionsError, match="--rescue-bits 8 is not above --bits 8"):
        RunSpec(model="m", bits=8)


def test_a_spec_is_changed_by_another() -> None:
    spec = RunSpec(model="m", valid="v", seed=3)
    other = spec.change(bits=3, valid="w")
    assert (other.bits, other.valid, other.seed, spec.bits, spec.valid) == (3, ("w",), 3, 4, ("v",))
    with pytest.raises(OptionsError, match="--bits"):
        spec.change(bits=8)
    with pytest.raises(ValidationError):
        spec.bits = 3  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(other)) == other
    assert hash(other) == hash(spec.change(bits=3, valid=("w",)))


def test_what_is_typed_is_read() -> None:
    spec = RunSpec(model="m", bits="3", z="2.5", windows=" 12 ", max_memory="4 GiB")  # type: ignore[arg-type]
    assert (spec.bits, spec.z, spec.windows, spec.max_memory) == (3, 2.5, 12, 4 * 2**30)


def test_an_option_says_how_it_is_given() -> None:
    options = list_options(RunSpec, Execution)
    assert options["keep_fp16"].list_given(("1.o", "2.o")) == ["1.o", "2.o"]
    assert options["symmetric"].list_given(True) == [None]
    assert options["symmetric"].list_given(False) == options["windows"].list_given(None) == []
    assert options["z"].list_given(2.5) == ["2.5"]
    assert (options["as_json"].flag, options["calib_seq_len"].flag) == ("--json", "--calib-seq-len")
    assert (options["seq_len"].kind, options["valid"].kind) == (int, tuple)
    assert [
        name for name in list_options(CompareSpec) if list_options(CompareSpec)[name].is_argument
    ] == ["reference", "candidate"]
