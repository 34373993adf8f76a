"""Studies from Python: answers that are kept are read, and the others are measured as the commands
do."""

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import awqscope
from awqscope import InputError
from awqscope.app.cli import COMMANDS
from awqscope.app.notebook import studies
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.causes.find import study_of
from tests.help.calibrated import write_calibrated_run
from tests.help.caused import make_causes
from tests.help.probed import keep_probe, make_probe
from tests.help.runs import SAMPLE, write_comparison, write_run
from tests.help.tasks import keep_tasks, make_task, turn, write_results
from tests.help.weighed import keep_weights, make_answer

NAMES = ("why", "probe", "calibrate", "alternatives", "activations", "weights", "tasks")
# What a command has besides that is for the terminal, or another way to say it.
TERMINAL = {"path", "as_json", "plan", "apply", "out"}
RENAMED = {"add": "added", "method": "methods"}


@pytest.mark.parametrize("name", NAMES)
def test_a_study_takes_what_its_command_does(name: str) -> None:
    asked = inspect.signature(COMMANDS[name]).parameters.keys() - TERMINAL
    taken = inspect.signature(getattr(awqscope, name)).parameters.keys()
    assert {RENAMED.get(each, each) for each in asked} == taken - {"run", "progress"}
    assert getattr(awqscope, name) is getattr(studies, name)


def test_kept_answers_are_read_without_the_model(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    run = RunDirectory(path)
    causes = make_causes(block=5)
    study = study_of(run, 5, None)
    with study.hold():
        study.keep(causes.to_json())
    keep_probe(run, make_probe(5))
    keep_weights(path)
    tiny = make_task(**turn(20, 3, 1))
    keep_tasks(path, tiny)
    assert awqscope.why(path, 5) == causes
    assert awqscope.weights(path, 5) == make_answer()
    assert [each.linear for each in awqscope.weights(path, "5.down").linears] == ["mlp.down_proj"]
    assert list(awqscope.tasks(path).tasks) == [tiny]
    assert awqscope.probe(awqscope.read_run(path)) == [make_probe(5)]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("why", (5,)),
        ("probe", ()),
        ("calibrate", ()),
        ("alternatives", ()),
        ("activations", ()),
        ("weights", ("4.qkv",)),
        ("tasks", ("hellaswag",)),
    ],
)
def test_a_model_that_is_gone_is_said(name: str, arguments: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        getattr(awqscope, name)(write_run(tmp_path), *arguments, model="/nowhere/model")
    assert "/nowhere/model" in error.value.what
    with pytest.raises(InputError, match="is a comparison"):
        getattr(awqscope, name)(write_comparison(tmp_path), *arguments)


def test_finished_results_are_kept(tmp_path: Path) -> None:
    path, right = write_run(tmp_path), [1.0, 0.0, 1.0]
    folders = {
        model: write_results(tmp_path / model, {"tiny": right}).parent
        for model in ("reference", "mixed")
    }
    found = awqscope.tasks(path, results=folders)
    assert awqscope.tasks(path) == found and found.find("tiny")
    with pytest.raises(InputError, match="was given no task"):
        awqscope.tasks(SAMPLE)


def test_what_makes_no_sense_is_said() -> None:
    with pytest.raises(InputError, match="the model has no block 8"):
        awqscope.probe(SAMPLE, 8)
    with pytest.raises(InputError, match="was not measured on 1 windows"):
        awqscope.probe(SAMPLE, 5, windows=1)
    with pytest.raises(InputError, match="--draws 99"):
        awqscope.calibrate(SAMPLE, draws=99)
    with pytest.raises(InputError, match=r"--counts 8\.5 is no number of windows"):
        awqscope.calibrate(SAMPLE, counts=(8.5,))
    with pytest.raises(InputError, match="device 'tpu' is not supported"):
        awqscope.calibrate(SAMPLE, device="tpu")
    for name in ("limit", "max_length", "batch_size"):
        with pytest.raises(InputError, match="0 cannot be"):
            awqscope.tasks(SAMPLE, "hellaswag", **{name: 0})
    with pytest.raises(InputError, match="'5' cannot be the limit on documents"):
        awqscope.tasks(SAMPLE, "hellaswag", limit="5")


@pytest.mark.parametrize(
    "option",
    [
        *({"limit": 5}, {"num_fewshot": 0}, {"include_path": "tasks"}, {"max_length": 9}),
        *({"batch_size": 2}, {"device": "cpu"}, {"model": "m"}),
    ],
)
def test_an_option_that_nothing_asks_is_refused(option: dict[str, Any], tmp_path: Path) -> None:
    (name,) = option
    with pytest.raises(InputError, match=f"{name} is of tasks that are run"):
        awqscope.tasks(SAMPLE, **option)
    with pytest.raises(InputError, match=f"{name} is of tasks that are run, and results are"):
        awqscope.tasks(SAMPLE, results={"mixed": tmp_path}, **option)


def test_a_plain_string_is_one(
    make_model: Callable[..., Path],
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = shutil.copyfile(text_file, tmp_path / "text.txt")
    other = shutil.copyfile(text_file, tmp_path / "other.txt")
    run = write_calibrated_run(tmp_path / "run", make_model("llama"), text, text)
    asked = {"counts": (2,), "draws": 0}
    found = awqscope.calibrate(run, calib_also=str(other), device="auto", **asked)
    assert found.find("text")[0].texts == (str(other),)
    again = awqscope.calibrate(run, valid_also=str(other), **asked)
    assert [column.text for column in again.columns] == [str(text), str(other)]
    with pytest.raises(InputError, match="there is no alternative gptq"):
        awqscope.alternatives(run, only="gptq")
    with pytest.raises(InputError, match="there is no file nowhere"):
        awqscope.probe(SAMPLE, 5, calib_also="nowhere.txt")
    with pytest.raises(InputError, match="there is no directory nowhere"):
        awqscope.tasks(run, "tiny", include_path="nowhere")
