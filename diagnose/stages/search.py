"""The stage `search`: awq/."""

from diagnose.inputs import Inputs
from diagnose.rundir import OnProgress, RunDirectory
from diagnose.spec import RunSpec
from mixedprec.block_search import search_model


def search_stage(spec: RunSpec, inputs: Inputs, run: RunDirectory, progress: OnProgress) -> None:
    """The AWQ search of every block at both widths."""
    blocks = inputs.model.blocks
    search_model(
        inputs.model,
        inputs.calib_windows,
        list(spec.schemes.values()),
        run.searches,
        lambda done: progress("search", done, blocks),
    )
