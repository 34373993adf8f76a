"""Samples and answers of tasks made by hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.study import Study
from awqscope.diagnose.studies.tasks.answer import STUDY, TaskAnswer, Tasks, TaskScores

DATE = "2026-11-30T10-00-00.123456"


def make_sample(number: int, **metrics: Any) -> dict[str, Any]:
    """A sample as lm-eval logs it, but for what is not read."""
    return {
        "doc_id": number,
        "filter": "none",
        "metrics": list(metrics),
        "doc_hash": f"document {number}",
        "prompt_hash": f"prompt {number}",
        "target_hash": f"target {number}",
        **metrics,
    }


def write_results(
    folder: Path,
    tasks: Mapping[str, Sequence[float]],
    *,
    date: str = DATE,
    groups: Mapping[str, Sequence[str]] = {},
) -> Path:
    """lm-eval's files of some tasks, with the accuracy of each sample; the last file of samples."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder
    for task, scores in tasks.items():
        path = folder / f"samples_{task}_{date}.jsonl"
        lines = [json.dumps(make_sample(n, acc=score)) for n, score in enumerate(scores)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    summary = {
        "results": {},
        "group_subtasks": {**{name: [] for name in tasks}, **groups},
        "higher_is_better": {task: {"acc": True} for task in tasks},
    }
    (folder / f"results_{date}.json").write_text(json.dumps(summary), encoding="utf-8")
    return path


def make_scores(scores: Sequence[float], metric: str = "acc", first: int = 0) -> TaskScores:
    """One model's scores on a task, from document `first` on."""
    numbers = range(first, first + len(scores))
    return TaskScores(
        origin="lm-eval 0.4.13",
        stamp={},
        samples=[f"tiny:{n}" for n in numbers],
        hashes=[f"hash {n}" for n in numbers],
        scores={metric: [float(score) for score in scores]},
    )


def make_task(
    name: str = "tiny",
    *,
    metric: str = "acc",
    higher: bool = True,
    **models: Sequence[float],
) -> TaskAnswer:
    """A task by the scores of its models."""
    return TaskAnswer(
        name=name,
        metrics=[metric],
        higher_is_better={metric: higher},
        left_out={},
        models={model: make_scores(scores, metric) for model, scores in models.items()},
    )


def turn(samples: int, worse: int, better: int) -> dict[str, list[float]]:
    """Scores of reference and mixed, where so many turned of so many samples."""
    rest = samples - worse - better
    first = [1.0] * worse + [0.0] * better + [float(n % 2) for n in range(rest)]
    second = [0.0] * worse + [1.0] * better + [float(n % 2) for n in range(rest)]
    return {"reference": first, "mixed": second}


def make_tasks(*tasks: TaskAnswer) -> Tasks:
    """The whole answer."""
    return Tasks(run="run", model="m", tasks=list(tasks))


def keep_tasks(path: Path, *tasks: TaskAnswer) -> None:
    """Keep an answer beside a run."""
    study = Study(RunDirectory(path), STUDY, {})
    with study.hold():
        study.keep(make_tasks(*tasks).to_json())
