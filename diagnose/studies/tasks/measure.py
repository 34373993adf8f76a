"""`awqscope tasks`: lm-eval's tasks on a run's reference, uniform and mixed models, or finished
results of them; kept beside the run, and each task of each model as soon as it is finished."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from awqscope.diagnose.explain.greedy import quantize_whole
from awqscope.diagnose.machine.memory import return_freed_heap
from awqscope.diagnose.machine.tasks import CUDA
from awqscope.diagnose.runs.directory import OnProgress, RunDirectory
from awqscope.diagnose.runs.record import CANDIDATE, MIXED, REFERENCE, UNIFORM, Comparison
from awqscope.diagnose.studies.study import Study
from awqscope.diagnose.studies.tasks.answer import (
    STUDY,
    TaskAnswer,
    Tasks,
    TaskScores,
    digest,
    digest_widths,
)
from awqscope.diagnose.studies.tasks.harness import Asked, Harness, find_tasks, run_task
from awqscope.diagnose.studies.tasks.results import read_results
from awqscope.diagnose.studies.tasks.samples import Scored
from awqscope.diagnose.trials.finished import OpenedRun
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.dtypes import FLOAT32, TF32
from awqscope.mixedprec.models.forward import products_in
from awqscope.mixedprec.models.streams import CPU


def run_tasks(
    opened: OpenedRun,
    names: Sequence[str],
    harness: Harness,
    on_progress: OnProgress = lambda stage, done, total: None,
    *,
    device: str = str(CPU),
) -> Tasks:
    """Give the run's models these tasks of lm-eval, and keep the answer beside the run.

    Every model is transformers' own with the run's weights: the reference in float32, and the
    effective weights of its searches in their place for uniform and mixed, which need no
    checkpoint. What an answer has already is not run again; other tasks stay in it. InputError for
    tasks that cannot be had.
    """
    asked = find_tasks(names, harness)
    study = Study(opened.run, STUDY, {})
    with study.hold():
        kept = read_kept(study)
        entries = {task.name: task for task in kept.tasks} if kept else {}
        for model, bits in opened.models.items():
            made = {"precision": choose_precision(opened, device), "widths": digest_widths(bits)}
            missing = [
                (task, {**task.stamp, **made})
                for task in asked
                if not _is_there(entries.get(task.name), model, {**task.stamp, **made})
            ]
            whole: list[Any] = []
            for task, stamp in missing:
                part = f"{model}-{digest([task.name, stamp])}"
                scores = study.part(
                    part,
                    partial(
                        _measure, opened, model, whole, task, stamp, harness, device, on_progress
                    ),
                )
                entries[task.name] = add_scores(entries.get(task.name), task.name, model, scores)
            whole.clear()
            return_freed_heap()
        answer = _write_answer(opened.run, entries)
        study.keep(answer.to_json())
    return answer


def _measure(
    opened: OpenedRun,
    model: str,
    whole: list[Any],
    task: Asked,
    stamp: Mapping[str, Any],
    harness: Harness,
    device: str,
    on_progress: OnProgress,
) -> dict[str, Any]:
    """The scores of a task, in the types of JSON. whole: holds the model once it is made."""
    if not whole:
        whole.append(make_whole(opened, model).to(device))
    with products_in(str(stamp["precision"]), whole[0].device):
        found = run_task(
            task, harness, whole[0], opened.tokenizer, partial(on_progress, f"{task.name}, {model}")
        )
    return describe(found.scored, found.higher_is_better, str(stamp["harness"]), stamp)


def choose_precision(opened: OpenedRun, device: str) -> str:
    """What products are computed in. Logits that are rounded to bfloat16 tie, so that tasks take
    tf32 in its place, and on the CPU float32."""
    is_rounded = device.startswith(CUDA) and opened.spec.precision != FLOAT32
    return TF32 if is_rounded else FLOAT32


def make_whole(opened: OpenedRun, model: str) -> Any:
    """One of the run's models as transformers', in float32: it has to fit in memory."""
    whole = opened.model.read_whole()
    bits = opened.models[model]
    if bits:
        quantize_whole(opened.model, whole, bits, opened.run.searches)
    return whole.eval()


def read_finished_results(
    run: RunDirectory, given: Mapping[str, Path], names: Sequence[str] = ()
) -> Tasks:
    """Keep finished results of lm-eval beside a run. given: model -> the folder of its results.
    names: these tasks alone. Where the reference's are given, a task's earlier scores give way;
    else they stay beside the new ones. InputError for models that the run has not, and for folders
    that hold no results."""
    record = run.read()
    models = (
        (REFERENCE, CANDIDATE)
        if isinstance(record, Comparison)
        else (
            REFERENCE,
            UNIFORM,
            MIXED,
        )
    )
    for model in given:
        if model not in models:
            raise InputError(
                f"{run.path} has no model {model}", f"give results of {', '.join(models)}"
            )
    found = {model: read_results(folder, names) for model, folder in given.items()}
    study = Study(run, STUDY, {})
    with study.hold():
        kept = read_kept(study)
        entries = {task.name: task for task in kept.tasks} if kept else {}
        if REFERENCE in found:
            for result in found[REFERENCE]:
                entries.pop(result.task, None)
        for model, results in found.items():
            for result in results:
                origin = str(given[model])
                scores = describe(result.scored, result.higher_is_better, origin, {})
                entries[result.task] = add_scores(
                    entries.get(result.task), result.task, model, scores
                )
        answer = _write_answer(run, entries)
        study.keep(answer.to_json())
    return answer


def describe(
    scored: Scored, higher: Mapping[str, bool], origin: str, stamp: Mapping[str, Any]
) -> dict[str, Any]:
    """What is kept of a task's scores by one model, in the types of JSON."""
    return {
        "scores": {
            "origin": origin,
            "stamp": dict(stamp),
            "samples": list(scored.samples),
            "hashes": list(scored.hashes),
            "scores": {metric: list(values) for metric, values in scored.scores.items()},
        },
        "left_out": dict(scored.left_out),
        "higher_is_better": {
            metric: higher.get(metric.partition(",")[0], True) for metric in scored.scores
        },
    }


def add_scores(
    task: TaskAnswer | None, name: str, model: str, described: Mapping[str, Any]
) -> TaskAnswer:
    """A task with one more model's scores. Metrics that not all of its models have are no metrics
    of the task."""
    models = {
        **(task.models if task else {}),
        model: TaskScores.model_validate(described["scores"]),
    }
    higher = {**(task.higher_is_better if task else {}), **described["higher_is_better"]}
    left_out = {**(task.left_out if task else {}), **described["left_out"]}
    order = dict.fromkeys(metric for each in models.values() for metric in each.scores)
    shared = [metric for metric in order if all(metric in each.scores for each in models.values())]
    return TaskAnswer(
        name=name, metrics=shared, higher_is_better=higher, left_out=left_out, models=models
    )


def _is_there(task: TaskAnswer | None, model: str, stamp: Mapping[str, Any]) -> bool:
    return task is not None and model in task.models and task.models[model].stamp == stamp


def _write_answer(run: RunDirectory, entries: Mapping[str, TaskAnswer]) -> Tasks:
    tasks = [entries[name] for name in sorted(entries)]
    return Tasks(run=run.path.resolve().name, model=run.read().model, tasks=tasks)


def read_kept(study: Study) -> Tasks | None:
    """The answer that is there, None for none that can be used."""
    found = study.read()
    try:
        return None if found is None else Tasks.model_validate(found)
    except ValidationError:
        return None
