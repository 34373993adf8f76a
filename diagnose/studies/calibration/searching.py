"""The search of a calibration, kept in a folder that is named after all that decides it: a killed
study goes on at the block that it had come to, and another question finds what was searched."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from awqscope.diagnose.inputs.load import hash_tokens
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.studies.calibration.calibrations import RUN, Calibration
from awqscope.diagnose.studies.study import studies_of
from awqscope.diagnose.trials.course import STREAM_SHARE
from awqscope.diagnose.trials.finished import OpenedRun
from awqscope.mixedprec.awq.search import missing_blocks, search_model
from awqscope.mixedprec.models.streams import CPU, StreamSpace
from awqscope.mixedprec.scheme import Scheme

# Told: what is done, how much of it, and of how much.
OnProgress = Callable[[str, int, int], None]


def folder_of(run: RunDirectory) -> Path:
    """Where the searches of a run's calibrations are; they may be removed."""
    return studies_of(run) / "calibrate-searches"


def choose_schemes(spec: RunSpec, calibration: Calibration) -> list[Scheme]:
    """What a calibration is searched at: the low width, which is measured; halves at both, since
    all that is told of them are the choices."""
    return list(spec.schemes.values()) if calibration.role == "half" else [spec.low]


def find_folders(
    opened: OpenedRun, calibrations: Sequence[Calibration], way: str
) -> dict[str, Path]:
    """Calibration -> the folder of its search, the run's own where that is the same search. way:
    `fast` or `exact`."""
    spec, run = opened.spec, opened.run
    own = hash_tokens(calibrations[0].windows)
    folders: dict[str, Path] = {}
    for each in calibrations:
        tokens = hash_tokens(each.windows)
        if each.name == RUN or (tokens == own and way == spec.search):
            folders[each.name] = run.searches
            continue
        stamp = {
            "hashes": opened.model.hash(),
            "tokens": tokens,
            "shape": list(each.windows.shape),
            "schemes": [str(scheme) for scheme in choose_schemes(spec, each)],
            "search": way,
        }
        key = hashlib.sha256(json.dumps(stamp, sort_keys=True).encode()).hexdigest()
        folders[each.name] = folder_of(run) / key[:16]
    return folders


def list_unsearched(
    opened: OpenedRun, calibrations: Sequence[Calibration], folders: Mapping[str, Path]
) -> list[Calibration]:
    """The calibrations whose searches are not whole, each folder once."""
    wanted: dict[Path, Calibration] = {}
    for each in calibrations:
        schemes, folder = choose_schemes(opened.spec, each), folders[each.name]
        if folder != opened.run.searches and missing_blocks(opened.model, schemes, folder):
            wanted.setdefault(folder, each)
    return list(wanted.values())


def search_calibrations(
    opened: OpenedRun,
    calibrations: Sequence[Calibration],
    folders: Mapping[str, Path],
    *,
    exact: bool,
    spill: Path,
    on_progress: OnProgress,
    device: torch.device = CPU,
) -> None:
    """Search every block of those calibrations that are not searched yet. exact: whether the
    choices are autoawq's own. spill: where streams go that do not fit in half the run's memory."""
    spec, model = opened.spec, opened.model
    unsearched = list_unsearched(opened, calibrations, folders)
    steps = len(unsearched) * model.blocks
    for number, each in enumerate(unsearched):

        def report(done: int, before: int = number * model.blocks) -> None:
            on_progress("search", before + done, steps)

        search_model(
            model,
            each.windows,
            choose_schemes(spec, each),
            folders[each.name],
            report,
            exact=exact,
            device=device,
            space=StreamSpace([(CPU, int(spec.max_memory * STREAM_SHARE))], spill),
        )
