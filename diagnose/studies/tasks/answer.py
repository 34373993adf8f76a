"""What a run keeps of tasks: for each task and model every sample's scores, so that any two models
can be paired afterwards."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from awqscope.diagnose.entries.part import Part
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import MIXED, Record
from awqscope.diagnose.studies.study import read_answer, read_recipe_widths, studies_of
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.scheme import UnitWidths, write_width

STUDY = "tasks"
DIGITS = 16


class TaskScores(Part):
    """One model's scores on one task, a sample after another."""

    origin: str = Field(description="lm-eval and its version, or the folder of finished results.")
    stamp: Mapping[str, Any] = Field(
        description="What it was measured with: it is measured again where that differs. Empty for "
        "results that were read."
    )
    samples: Sequence[str] = Field(description="The samples: TASK:DOC_ID.")
    hashes: Sequence[str] = Field(
        description="Of each sample's document, prompt and target, from lm-eval's own hashes."
    )
    scores: Mapping[str, Sequence[float]] = Field(
        description="Metric -> the score of every sample; named as lm-eval names it, with the "
        "filter behind a comma where there is one."
    )


class TaskAnswer(Part):
    """One task: of lm-eval, or a group of lm-eval's whose samples are taken together."""

    name: str = Field(description="As lm-eval calls it.")
    metrics: Sequence[str] = Field(description="In lm-eval's order; the first is judged first.")
    higher_is_better: Mapping[str, bool] = Field(description="By metric.")
    left_out: Mapping[str, str] = Field(
        description="Metrics that no single sample has a number of: metric -> why."
    )
    models: Mapping[str, TaskScores] = Field(
        description="`reference`, `uniform`, `mixed`, or a comparison's `candidate`."
    )


class Tasks(Part):
    """The tasks that a run's models were given."""

    run: str = Field(description="The run's name.")
    model: str = Field(description="The reference, as the run was given it.")
    tasks: Sequence[TaskAnswer] = Field(description="By name.")

    def find(self, name: str) -> TaskAnswer | None:
        """The task of this name."""
        return next((task for task in self.tasks if task.name == name), None)


def digest(value: Any) -> str:
    """A short name of a value of the types of JSON."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def digest_widths(widths: UnitWidths) -> str:
    """A short name of the widths of units."""
    return digest({unit: write_width(width) for unit, width in widths.items()})


def list_stale(tasks: Tasks, run: RunDirectory) -> list[str]:
    """The tasks that the mixed model of another recipe was given than the run has today."""
    record = run.read()
    if not isinstance(record, Record):
        return []
    today = digest_widths(read_recipe_widths(run, record))
    given = {task.name: task.models[MIXED].stamp for task in tasks.tasks if MIXED in task.models}
    return [name for name, stamp in given.items() if stamp.get("widths", today) != today]


def tasks_file(run: RunDirectory) -> Path:
    """Where the tasks of a run are kept."""
    return studies_of(run) / f"{STUDY}.json"


def find_kept_tasks(run: RunDirectory) -> Tasks:
    """The tasks that a run's models were given. InputError where there are none."""
    found = read_tasks(run, run.read().created)
    if found is None:
        raise InputError(f"{run.path} was given no task", "name some with --tasks")
    return found


def read_tasks(run: RunDirectory, created: str) -> Tasks | None:
    """The tasks that a run's models were given; None where there are none, or those of an earlier
    run in its place, which was not `created` then. InputError for a file that holds something
    else."""
    path = tasks_file(run)
    if not path.exists():
        return None
    kept = read_answer(path)
    if kept is not None and kept["asked"].get("run") != created:
        return None
    try:
        if kept is not None:
            return Tasks.model_validate(kept["answer"])
    except ValidationError:
        pass
    raise InputError(f"{path} holds no tasks", "move it away and run the tasks again")
