"""What trials are held with: a finished run with its model and texts."""

from dataclasses import dataclass

from awqscope.diagnose.inputs.load import Inputs, load_inputs
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.trials.finished import open_source
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.source import SourceModel

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
    return Course(run, run.read_searched().spec, load_again(run, open_source(run, model)))


def load_again(run: RunDirectory, model: SourceModel) -> Inputs:
    """The texts of a run whose model is open. InputError where they cannot be read."""
    record = run.read_searched()
    try:
        return load_inputs(record.spec, model)
    except InputError as error:
        began = record.directory
        where = f"give the command in {began}, where the run was begun" if began else error.remedy
        raise InputError(error.what, where) from error
