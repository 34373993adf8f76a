"""lm-eval's harness on a run's models in memory, against lm-eval on models that are saved to disk;
offline, from local files. What is finished is not run again."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from awqscope.diagnose.explain.greedy import quantize_whole
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.tasks import measure
from awqscope.diagnose.studies.tasks.harness import Harness, find_tasks, name_version
from awqscope.diagnose.studies.tasks.measure import read_finished_results, run_tasks
from awqscope.diagnose.studies.tasks.pairing import pair_task
from awqscope.diagnose.trials.finished import OpenedRun, open_run
from awqscope.mixedprec.errors import InputError
from tests.help.root import ROOT
from tests.help.runs import write_run
from tests.help.searched import write_searched_run
from tests.help.tasks import write_results

MakeModel = Callable[..., Path]
DOCUMENTS = 12
CHOICE = """
task: {name}
custom_dataset: !function documents.load
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: right
"""
OTHERS = """
task: written
custom_dataset: !function documents.load
output_type: generate_until
test_split: test
doc_to_text: "{{context}}"
doc_to_target: "{{choices[right]}}"
generation_kwargs: {max_gen_toks: 4, until: ["\\n"]}
metric_list:
  - metric: exact_match
---
task: scrolled
custom_dataset: !function documents.load
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{context}}"
metric_list:
  - metric: word_perplexity
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Local task files: two of one choice among four, one that generates, one that scores text."""
    path = tmp_path_factory.mktemp("task-files")
    lines = (ROOT / "examples/tasks/continuations.jsonl").read_text("utf-8").splitlines()
    (path / "documents.jsonl").write_text("\n".join(lines[:DOCUMENTS]), encoding="utf-8")
    (path / "documents.py").write_text(
        "import json, pathlib\n\ndef load(**_):\n    from datasets import Dataset\n"
        "    lines = pathlib.Path(__file__).with_name('documents.jsonl').read_text('utf-8')\n"
        "    return {'test': Dataset.from_list([json.loads(x) for x in lines.splitlines()])}\n",
        encoding="utf-8",
    )
    for name in ("one", "two"):
        (path / f"{name}.yaml").write_text(CHOICE.format(name=name), encoding="utf-8")
    for number, text in enumerate(OTHERS.split("---")):
        (path / f"other{number}.yaml").write_text(text, encoding="utf-8")
    broken = CHOICE.format(name="broken").replace("custom_dataset: !function documents.load", "")
    broken += f"dataset_path: json\ndataset_kwargs: {{data_files: {path / 'none.jsonl'}}}\n"
    (path / "broken.yaml").write_text(broken, encoding="utf-8")
    zero = CHOICE.format(name="zero") + "num_fewshot: 0\n"
    (path / "zero.yaml").write_text(zero, encoding="utf-8")
    (path / "both.yaml").write_text("group: both\ntask: [one, two]\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def opened(
    make_model: MakeModel, text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> OpenedRun:
    path = tmp_path_factory.mktemp("tasks") / "run"
    run = write_searched_run(path, make_model("llama"), text_file, changed={"1.down": 8})
    return open_run(run, None)


def harness_of(folder: Path, **changes: Any) -> Harness:
    return Harness(**{"include": (folder,), "max_length": 64, "batch_size": 4, **changes})


def evaluate_saved(opened: OpenedRun, model: str, folder: Path, to: Path) -> list[dict[str, Any]]:
    """lm-eval's own samples of a model that transformers loads from disk in float32."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    whole = opened.model.read_whole()
    if opened.models[model]:
        quantize_whole(opened.model, whole, opened.models[model], opened.run.searches)
    whole.save_pretrained(to)
    opened.tokenizer.save_pretrained(to)
    lm = HFLM(pretrained=str(to), dtype="float32", device="cpu", max_length=64, batch_size=1)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = lm_eval.simple_evaluate(lm, tasks=["one"], task_manager=manager, bootstrap_iters=0)
    return found["samples"]["one"]


def test_tasks_are_lm_evals_own_and_are_not_run_again(
    opened: OpenedRun, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    stages: list[str] = []
    found = run_tasks(
        opened, ["both"], harness_of(folder), lambda stage, done, total: stages.append(stage)
    )
    [task] = found.tasks
    assert task.name == "both" and task.metrics[0] == "acc"
    assert set(task.models) == {"reference", "uniform", "mixed"}
    assert dict.fromkeys(stages) == dict.fromkeys(
        [f"both, {name}" for name in ("reference", "uniform", "mixed")]
    )
    samples = evaluate_saved(opened, "uniform", folder, tmp_path / "saved")
    scores = task.models["uniform"]
    place = [scores.samples.index(f"one:{sample['doc_id']}") for sample in samples]
    assert [scores.scores["acc"][n] for n in place] == [sample["acc"] for sample in samples]
    assert pair_task(task, "mixed").samples == 2 * DOCUMENTS

    def refuse(*_: Any) -> Any:
        raise AssertionError("a model was made again")

    monkeypatch.setattr(measure, "make_whole", refuse)
    assert run_tasks(opened, ["both"], harness_of(folder)) == found
    assert run_tasks(opened, ["both"], harness_of(folder, batch_size=2)) == found
    with pytest.raises(AssertionError):
        run_tasks(opened, ["both"], harness_of(folder, limit=3))


def test_git_is_not_asked_for_the_commit_of_where_it_runs(
    opened: OpenedRun,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run_tasks(opened, ["one"], harness_of(folder, limit=1))
    assert "fatal" not in capfd.readouterr().err


def test_a_task_that_is_finished_outlives_one_that_is_not(
    opened: OpenedRun, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the second model: what the first answered is kept, and other tasks stay."""
    before = run_tasks(opened, ["written"], harness_of(folder, limit=2))
    assert before.find("written") is not None
    own, made = measure.make_whole, []

    def make(opened: OpenedRun, model: str) -> Any:
        if model == "uniform":
            raise KeyboardInterrupt
        made.append(model)
        return own(opened, model)

    asked = harness_of(folder, limit=2)
    monkeypatch.setattr(measure, "make_whole", make)
    with pytest.raises(KeyboardInterrupt):
        run_tasks(opened, ["two"], asked)
    monkeypatch.setattr(measure, "make_whole", lambda o, m: made.append(m) or own(o, m))
    found = run_tasks(opened, ["two", "scrolled"], asked)
    # "scrolled" is new, and has the reference made again; "two" of the reference is kept.
    assert made == ["reference", "reference", "uniform", "mixed"]
    assert found.find("written") == before.find("written")
    scrolled = found.find("scrolled")
    assert scrolled is not None and not scrolled.metrics
    assert "several numbers a sample" in scrolled.left_out["word_perplexity"]
    kept = json.loads((opened.run.path / "studies" / "tasks.json").read_text(encoding="utf-8"))
    assert kept["answer"] == found.to_json()
    assert not (opened.run.path / "studies" / "tasks").exists()


@pytest.mark.parametrize(
    ("names", "changes", "what"),
    [
        (["nosuch"], {}, "lm-eval knows no task nosuch"),
        (["one"], {"include": (Path("/no/such"),)}, "there is no directory /no/such"),
        (["zero"], {"shots": 2}, "task zero is never given examples"),
        (["written"], {"max_length": 4}, "written generates 4 tokens, and the model reads 4"),
    ],
)
def test_tasks_that_cannot_be_had(
    folder: Path, names: list[str], changes: dict[str, Any], what: str
) -> None:
    with pytest.raises(InputError, match=what):
        find_tasks(names, harness_of(folder, **changes))


def test_documents_that_cannot_be_had_are_one_line(folder: Path) -> None:
    with pytest.raises(InputError, match="task broken cannot be loaded") as raised:
        find_tasks(["broken"], harness_of(folder))
    assert "\n" not in str(raised.value)


def test_changed_documents_are_another_task(folder: Path) -> None:
    [before] = find_tasks(["one"], harness_of(folder))
    path = folder / "documents.jsonl"
    text = path.read_text(encoding="utf-8")
    try:
        path.write_text(text.replace("the", "that"), encoding="utf-8")
        [after] = find_tasks(["one"], harness_of(folder))
    finally:
        path.write_text(text, encoding="utf-8")
    assert before.stamp != after.stamp
    assert find_tasks(["one"], harness_of(folder)) == [before]


def test_without_lm_eval_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys.modules[name_version.__module__], "version", _raise_not_found, raising=True
    )
    with pytest.raises(InputError) as raised:
        name_version()
    assert raised.value.remedy == "pip install 'awqscope[tasks]'"


def _raise_not_found(name: str) -> str:
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(name)


def test_finished_results_are_kept_beside_any_run(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path))
    write_results(tmp_path / "fp16", {"tiny": [1, 1, 0], "other": [1]})
    write_results(tmp_path / "mixed", {"tiny": [0, 1, 0]})
    given = {"reference": tmp_path / "fp16", "mixed": tmp_path / "mixed"}
    found = read_finished_results(run, given)
    tiny = found.find("tiny")
    assert tiny is not None
    assert pair_task(tiny, "mixed").changed == (1, 0)
    # A further model stays beside them, and the reference's alone begins again.
    write_results(tmp_path / "uniform", {"tiny": [1, 0, 0]})
    found = read_finished_results(run, {"uniform": tmp_path / "uniform"})
    tiny = found.find("tiny")
    assert tiny is not None and set(tiny.models) == {"reference", "mixed", "uniform"}
    found = read_finished_results(run, {"reference": tmp_path / "fp16"}, ["tiny"])
    tiny = found.find("tiny")
    assert tiny is not None and set(tiny.models) == {"reference"}
    assert found.find("other") is not None
    with pytest.raises(InputError, match="has no model candidate"):
        read_finished_results(run, {"candidate": tmp_path / "fp16"})
