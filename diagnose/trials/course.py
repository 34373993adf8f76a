"""What trials are held with: a finished run with its model and texts."""

from dataclasses import dataclass

from awqscope.diagnose.inputs.load import Inputs, load_inputs
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.trials.finished import open_source
from awqscope.mixedprec.errors import InputError

# Where recipes are raced, half of the memory budget is for their streams.
STREAM_SHARE = 0.5


@dataclass(frozen=True)
class Course:
    """What trials are held with: a run, its spec, its model and texts."""

    run: RunDirectory
    spec: RunSpec
    inputs: Inputs


def open_course(run: RunDirectory, model: str | None) -> Course:
    """The run's model (at `model` where it has moved) and texts. InputError where they are not what
    the run measured."""
    record = run.read_searched()
    source = open_source(run, model)
    try:
        inputs = load_inputs(record.spec, source)
    except InputError as error:
        began = record.directory
        where = f"give the command in {began}, where the run was begun" if began else error.remedy
        raise InputError(error.what, where) from error
    return Course(run, record.spec, inputs)
