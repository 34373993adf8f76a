"""The stage `search`: every block at both widths."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from awqscope.diagnose.inputs.load import Inputs
from awqscope.diagnose.machine.tasks import OnStep, Task
from awqscope.diagnose.passes.setting import Setting
from awqscope.diagnose.plan.room import Room
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.mixedprec.awq.choices import is_complete, read_uncalibrated, search_path
from awqscope.mixedprec.awq.search import missing_blocks, search_from, search_model, stream_inputs
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import load_stream, save_stream
from awqscope.mixedprec.scheme import Scheme


def search_stage(spec: RunSpec, inputs: Inputs, at: Setting) -> None:
    """The AWQ search of every block at both widths.

    In this process blocks are searched while the calibration stream goes through them. With other
    workers a block is a task: this process takes the stream through the unquantized blocks, and
    keeps the input of each in work/ until the block is searched.
    """
    model, schemes, run = inputs.model, list(spec.schemes.values()), at.run
    blocks = model.blocks
    if at.workers.here:
        search_model(
            model,
            inputs.search_windows,
            schemes,
            run.searches,
            lambda done: at.progress("search", done, blocks),
            exact=spec.is_exact,
            device=at.workers.device,
            space=at.room_for("search").open(),
        )
    else:
        _search_elsewhere(spec, inputs, at)
    paths = [search_path(run.searches, number, spec.bits) for number in range(blocks)]
    found = {str(number): read_uncalibrated(path) for number, path in enumerate(paths)}
    uncalibrated = {number: list(experts) for number, experts in found.items() if experts}
    if uncalibrated:
        run.update(uncalibrated=uncalibrated)


def _search_elsewhere(spec: RunSpec, inputs: Inputs, at: Setting) -> None:
    """Every missing block as a task of its own."""
    model, blocks, run = inputs.model, inputs.model.blocks, at.run
    schemes = list(spec.schemes.values())
    folder, room = run.work / "inputs", at.room_for("search")
    shutil.rmtree(folder, ignore_errors=True)
    missing = missing_blocks(model, schemes, run.searches)
    searched = blocks - len(missing)
    at.workers.run(
        _hand_out(spec, inputs, run.searches, folder, missing, room, at.workers.device),
        lambda done: at.progress("search", searched + done, blocks),
    )


@dataclass(frozen=True, kw_only=True)
class _BlockSearch:
    """The work of searching one block from its input, in a file that is then removed."""

    model: SourceModel
    number: int
    # The file with the block's input [windows, length, channels], and that shape.
    path: Path
    shape: tuple[int, int, int]
    kwargs: dict[str, Any]
    schemes: list[Scheme]
    is_exact: bool
    searches: Path
    room: Room

    def __call__(self, device: torch.device, on_step: OnStep) -> None:
        paths = [search_path(self.searches, self.number, each.bits) for each in self.schemes]
        if not all(map(is_complete, paths)):
            space = self.room.open()
            search_from(
                self.model,
                self.number,
                load_stream(self.path, self.shape, space),
                self.kwargs,
                self.schemes,
                self.searches,
                exact=self.is_exact,
                device=device,
                space=space,
            )
        self.path.unlink(missing_ok=True)
        on_step(1)


def _hand_out(
    spec: RunSpec,
    inputs: Inputs,
    searches: Path,
    folder: Path,
    missing: list[int],
    room: Room,
    device: torch.device,
) -> Iterator[Task]:
    """A task for each missing block, its input written when it is asked for."""
    model, schemes = inputs.model, list(spec.schemes.values())
    entered = stream_inputs(model, inputs.search_windows, missing, device=device, space=room.open())
    for number, hidden, kwargs in entered:
        path = folder / f"block-{number:04d}.float32"
        save_stream(path, hidden)
        leaves = tuple(f"awq/{search_path(searches, number, s.bits).name}" for s in schemes)
        work = _BlockSearch(
            model=model,
            number=number,
            path=path,
            shape=hidden.shape,
            kwargs=kwargs,
            schemes=schemes,
            is_exact=spec.is_exact,
            searches=searches,
            room=room,
        )
        yield Task(f"the search of block {number}", leaves, 1, work)
