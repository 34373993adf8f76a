"""A run's recipe on another model of the same architecture, such as the same model with a LoRA
merged into it: searched anew, on the run's calibration text and with its options."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from awqscope.diagnose.inputs.load import (
    check_tokens,
    choose_length,
    choose_searched,
    hash_tokens,
)
from awqscope.diagnose.machine.tasks import ThisProcess
from awqscope.diagnose.plan.demand import SEARCH
from awqscope.diagnose.plan.room import plan_work, room_for
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.trials.course import check_unchanged
from awqscope.diagnose.trials.finished import open_source
from awqscope.mixedprec.awq.choices import read_uncalibrated, search_folder, search_path
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.atomic import write_json
from awqscope.mixedprec.files.untrusted import read_json
from awqscope.mixedprec.foreign.architecture import check_architecture
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.served import check_range
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import CPU
from awqscope.mixedprec.scheme import Scheme, Width

# What the searches in a folder are of.
STAMP = "searched.json"


@dataclass(frozen=True)
class Another:
    """A model to search as a run's was. windows: the calibration windows that its search reads."""

    run: RunDirectory
    model: SourceModel
    windows: Tensor


def open_another(
    run: RunDirectory, weights: str, model_name: str | None = None, dtype: str | None = None
) -> Another:
    """Open another model beside a run's, and the run's calibration text.

    model_name: where the run's model is, if it has moved. dtype: to serve it in, None for the run's
    own type. InputError for another architecture, for weights that cannot be used, and for a text
    that has changed since the run."""
    record = run.read_searched()
    spec = record.spec
    source = open_source(run, model_name)
    model = open_model(
        weights, trust_remote_code=spec.trust_remote_code, dtype=dtype or record.source.dtype
    )
    try:
        check_architecture(source.config, model.config)
    except InputError as error:
        what = error.what.replace("the candidate's", f"{weights} is of another architecture: its")
        raise InputError(
            what.replace("the reference's", "the run's model's"),
            f"give a model that was made from {spec.model}",
        ) from error
    tokenizer = load_tokenizer(source.path, trust_remote_code=spec.trust_remote_code)
    _, limit = choose_length(source, None)
    length = min(spec.calib_seq_len, limit)
    windows = cut_windows(load_corpus(spec.calib), tokenizer, length, spec.calib_windows)
    check_unchanged(run, spec.calib, record.calibration.tokens_sha256, windows)
    check_tokens(model, windows)
    check_range(model)
    return Another(run, model, choose_searched(spec, model, windows))


def search_another(
    another: Another,
    schemes: Mapping[Width, Scheme],
    folder: Path,
    on_block: Callable[[int, int], None] = lambda done, total: None,
    device: torch.device = CPU,
    budget: int | None = None,
) -> dict[str, list[str]]:
    """Search every block at each scheme, by width, into `folder`, going on where an earlier process
    stopped; what is there of anything else is removed. budget: bytes that may be had, None for as
    many as the run has; what flows through the blocks goes to files where it does not fit. Gives
    the experts that no token reached, by block. InputError, with the amount needed, for too small a
    budget."""
    spec, model = another.run.read_searched().spec, another.model
    plan = plan_work(
        model,
        another.windows,
        (SEARCH, "requantize"),
        folder,
        ThisProcess(str(device)),
        {},
        budget=budget or spec.max_memory,
        most_windows=None,
        sweep=(),
        sampled=0,
        exact=spec.is_exact,
    )
    stamp = {
        "hashes": model.hash(),
        "tokens_sha256": hash_tokens(another.windows),
        "schemes": [str(scheme) for scheme in schemes.values()],
        "search": spec.search,
    }
    if _read_stamp(folder) != stamp:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(folder / STAMP, stamp)
    folders: dict[Path, list[Scheme]] = {}
    for width, scheme in schemes.items():
        folders.setdefault(search_folder(folder, width), []).append(scheme)
    for done, (each, alike) in enumerate(folders.items()):
        search_model(
            model,
            another.windows,
            alike,
            each,
            partial(_report, on_block, done * model.blocks, len(folders) * model.blocks),
            exact=spec.is_exact,
            device=device,
            space=room_for(plan, SEARCH, folder).open(),
        )
    found = {
        str(number): read_uncalibrated(search_path(folder, number, next(iter(schemes))))
        for number in range(model.blocks if schemes else 0)
    }
    return {number: list(experts) for number, experts in found.items() if experts}


def _report(on_block: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    on_block(before + done, total)


def _read_stamp(folder: Path) -> object:
    try:
        return read_json(folder / STAMP)
    except (OSError, ValueError):
        return None
