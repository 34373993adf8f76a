"""A run whose recipes can be set against each other, and the command that does."""

from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner, Result

from awqscope.app.cli import app
from awqscope.diagnose.runs.spec import RunSpec


def contest_spec(make_model: Callable[..., Path], text: Path) -> RunSpec:
    """Three blocks in groups of 64, with a unit that is kept at 16 bits."""
    return RunSpec(
        model=str(make_model("llama", num_hidden_layers=3)),
        calib=str(text),
        valid=str(text),
        group_size=64,
        seq_len=48,
        windows=6,
        calib_windows=4,
        calib_seq_len=48,
        top_k=1,
        keep_fp16=("2.o",),
        verify_units=3,
        chunk_windows=5,
    )


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["recipe", *map(str, arguments)])
