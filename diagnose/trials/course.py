"""What trials are held with: a finished run with its model and texts."""

from dataclasses import dataclass

from torch import Tensor

from awqscope.diagnose.inputs.load import Inputs, hash_tokens, load_inputs
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
    return Course(run, run.read_searched().spec, load_measured(run, open_source(run, model)))


def load_measured(run: RunDirectory, model: SourceModel) -> Inputs:
    """The texts of a run whose model is open. InputError where they cannot be read, or have changed
    since the run was made."""
    record = run.read_searched()
    spec = record.spec
    try:
        inputs = load_inputs(spec, model)
    except InputError as error:
        began = record.directory
        where = f"give the command in {began}, where the run was begun" if began else error.remedy
        raise InputError(error.what, where) from error
    for text, known, windows in (
        (spec.calib, record.calibration.tokens_sha256, inputs.calib_windows),
        (", ".join(spec.valid), record.ppl_definition.tokens_sha256, inputs.windows),
    ):
        check_unchanged(run, text, known, windows)
    return inputs


def check_unchanged(run: RunDirectory, text: str, known: str | None, windows: Tensor) -> None:
    """Raise InputError where a text's tokens are not those of the SHA-256 that a run recorded."""
    # Earlier versions did not keep what the tokens were.
    if known not in (None, hash_tokens(windows)):
        raise InputError(f"{text} has changed since {run.path} was made", "put back what it was")
