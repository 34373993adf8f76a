"""lm-eval's samples, in memory and from files: scores, filters, groups, and what is refused."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from awqscope.diagnose.studies.tasks.results import list_leaves, read_results
from awqscope.diagnose.studies.tasks.samples import read_samples
from awqscope.mixedprec.errors import InputError
from tests.help.tasks import make_sample, write_results


def test_scores_are_kept_by_metric_in_the_order_of_the_samples() -> None:
    samples = [make_sample(7, acc=1.0, acc_norm=0), make_sample(2, acc=False, acc_norm=1)]
    found = read_samples({"tiny": samples})
    assert found.samples == ["tiny:7", "tiny:2"]
    assert found.scores == {"acc": [1.0, 0.0], "acc_norm": [0.0, 1.0]}
    assert len(set(found.hashes)) == 2 and not found.left_out


@pytest.mark.parametrize("entry", ["doc_hash", "prompt_hash", "target_hash"])
def test_a_hash_is_of_document_prompt_and_target(entry: str) -> None:
    one = read_samples({"tiny": [make_sample(0, acc=1)]})
    other = read_samples({"tiny": [make_sample(0, acc=1) | {entry: "another"}]})
    assert one.hashes != other.hashes


def test_filters_are_metrics_of_their_own() -> None:
    samples = [
        make_sample(0, exact_match=value) | {"filter": name}
        for name, value in (("strict-match", 0.0), ("flexible-extract", 1.0))
    ]
    found = read_samples({"gsm8k": samples})
    assert found.samples == ["gsm8k:0"]
    assert found.scores == {
        "exact_match,strict-match": [0.0],
        "exact_match,flexible-extract": [1.0],
    }


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([[-64800.6, 9334], [-3.0, 2]], "several numbers a sample"),
        ([1.0, math.nan], "finite number"),
        (["-33.38", "1"], "finite number"),
        ([1.0, None], "finite number"),
    ],
)
def test_what_is_no_number_of_a_sample_is_left_out(values: Sequence[Any], why: str) -> None:
    samples = [make_sample(n, acc=1, other=value) for n, value in enumerate(values)]
    found = read_samples({"tiny": samples})
    assert found.scores.keys() == {"acc"}
    assert why in found.left_out["other"]


def test_metrics_that_only_some_tasks_of_a_group_have_are_left_out() -> None:
    group = {"a": [make_sample(0, acc=1, f1=0.5)], "b": [make_sample(0, acc=0)]}
    found = read_samples(group)
    assert found.samples == ["a:0", "b:0"]
    assert found.scores == {"acc": [1.0, 0.0]}
    assert found.left_out == {"f1": "1 of 2 samples do not have it"}


@pytest.mark.parametrize(
    ("samples", "what"),
    [
        ([{"doc_id": 0}], "a sample of tiny has no doc_hash"),
        ([{}], "a sample of tiny has no doc_id"),
        ([make_sample(0, acc=1)] * 2, "sample 0 of tiny is there twice"),
        ([[1, 2]], "a sample of tiny"),
    ],
)
def test_what_are_no_samples_is_refused(samples: list[Any], what: str) -> None:
    with pytest.raises(InputError, match=what):
        read_samples({"tiny": samples})


def test_the_newest_results_of_each_task_are_read(tmp_path: Path) -> None:
    write_results(tmp_path, {"tiny": [1, 1]}, date="2026-01-01T10-00-00.000001")
    write_results(tmp_path, {"tiny": [0, 1], "big_one": [1]}, date="2026-02-01T10-00-00.000001")
    found = {result.task: result for result in read_results(tmp_path)}
    assert found.keys() == {"tiny", "big_one"}
    assert found["tiny"].scored.scores["acc"] == [0.0, 1.0]
    assert found["tiny"].higher_is_better == {"acc": True}
    [one] = read_results(tmp_path, ["big_one"])
    assert one.task == "big_one"


def test_a_group_that_is_there_whole_is_one_task(tmp_path: Path) -> None:
    groups = {"all": ["stem", "c"], "stem": ["a", "b"]}
    write_results(tmp_path, {"a": [1], "b": [0], "c": [1], "d": [1]}, groups=groups)
    assert [result.task for result in read_results(tmp_path)] == ["all", "d"]
    [stem] = read_results(tmp_path, ["stem"])
    assert stem.scored.samples == ["a:0", "b:0"]
    assert list_leaves("all", groups) == {"a", "b", "c"}
    assert list_leaves("x", {"x": ["x", "y"], "y": ["x"]}) == set()


def test_folders_of_a_model_are_found(tmp_path: Path) -> None:
    write_results(tmp_path / "model", {"tiny": [1]})
    (tmp_path / "empty").mkdir()
    assert [result.task for result in read_results(tmp_path)] == ["tiny"]
    write_results(tmp_path / "other", {"tiny": [1]})
    with pytest.raises(InputError, match="several models: give one of model, other"):
        read_results(tmp_path)


def test_folders_that_hold_no_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no directory"):
        read_results(tmp_path / "none")
    with pytest.raises(InputError, match="--log_samples"):
        read_results(tmp_path)
    write_results(tmp_path, {"tiny": [1]})
    with pytest.raises(InputError, match="no results of other: it has tiny"):
        read_results(tmp_path, ["other"])


@pytest.mark.parametrize("line", ["{", "[" * 100_000, "\ud800"])
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: str) -> None:
    path = write_results(tmp_path, {"tiny": [1, 1]})
    with open(path, "ab") as file:
        file.write(line.encode("utf-8", "surrogatepass") + b"\n")
    with pytest.raises(InputError, match=r"tiny_.*cannot be read"):
        read_results(tmp_path)


def test_a_damaged_summary_only_lacks_what_it_would_say(tmp_path: Path) -> None:
    write_results(tmp_path, {"tiny": [1]})
    for path in tmp_path.glob("results_*.json"):
        path.write_text("{", encoding="utf-8")
    [found] = read_results(tmp_path)
    assert found.higher_is_better == {}
