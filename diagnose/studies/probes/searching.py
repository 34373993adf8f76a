"""The searches that a probe's alternatives take: a block's own, on the inputs that the reference
gives it, as the run's search has them.

The calibration windows of all alternatives go through the blocks before it once, together; a search
takes those that are its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, pick_windows, tile_windows
from awqscope.diagnose.inputs.load import Inputs, check_tokens, choose_searched
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.studies.probes.alternatives import OWN, Alternative, Calibration
from awqscope.diagnose.studies.probes.answer import Refused
from awqscope.mixedprec.awq.choices import (
    BlockSearch,
    is_complete,
    load_search,
    search_folder,
    search_path,
)
from awqscope.mixedprec.awq.search import list_columns, search_from, stream_inputs
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import Stream, StreamSpace

OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Planned:
    """The alternatives that a model and its texts can take, and those that they cannot. windows:
    [n, length], of all that they are calibrated on, each once; rows: those of each calibration."""

    taken: tuple[Alternative, ...]
    refused: tuple[Refused, ...]
    windows: Tensor
    rows: Mapping[Calibration, Tensor]


def plan_searches(alternatives: Sequence[Alternative], spec: RunSpec, inputs: Inputs) -> Planned:
    """What of the alternatives can be searched on this model and its texts. InputError for another
    text that cannot be used: it was asked for by name."""
    windows: dict[Calibration, Tensor] = {}
    refused: list[Refused] = []
    for each in alternatives:
        try:
            _check_groups(each, spec, inputs.model)
            if each.is_searched and each.calibration not in windows:
                windows[each.calibration] = cut_calibration(each.calibration, spec, inputs)
        except InputError as error:
            if each.calibration.text is not None:
                raise
            refused.append(Refused(name=each.name, what=each.what, why=error.what))
    names = {each.name for each in refused}
    taken = tuple(each for each in alternatives if each.name not in names)
    # Half, all and twice as many may have windows in common.
    pool, rows = torch.unique(torch.cat(list(windows.values())), dim=0, return_inverse=True)
    parts = rows.split([len(each) for each in windows.values()])
    return Planned(taken, tuple(refused), pool, dict(zip(windows, parts, strict=True)))


def _check_groups(alternative: Alternative, spec: RunSpec, model: SourceModel) -> None:
    """Raise InputError unless an alternative's groups tile the inputs of what has them."""
    if alternative.groups is None:
        return
    scheme, columns = alternative.scheme(spec), list_columns(model)
    for kind in model.family.units:
        for linear in kind.linears if kind.name in alternative.widths else ():
            scheme.check_divides(columns[linear], linear)


def cut_calibration(calibration: Calibration, spec: RunSpec, inputs: Inputs) -> Tensor:
    """The windows [n, length] that a search reads: of the run's own text those that a run with so
    many would. InputError for a text that has too few."""
    if calibration == OWN:
        return inputs.search_windows
    length = inputs.calib_windows.shape[1]
    if calibration.text is not None:
        corpus = load_corpus(calibration.text)
        cut = cut_windows(corpus, inputs.tokenizer, length, spec.calib_windows)
        check_tokens(inputs.model, cut)
        return choose_searched(spec, inputs.model, cut)
    count = int(len(inputs.search_windows) * calibration.share)
    if count < 1:
        raise InputError("the run's search reads one window", "calibrate on more")
    tiled = tile_windows(inputs.calib, inputs.tokenizer, length)
    if len(tiled) < count:
        raise InputError(
            f"the calibration text has {len(tiled)} windows of {length}, not {count}",
            "give a longer one",
        )
    return pick_windows(tiled, count)


@torch.no_grad()
def search_alternatives(
    planned: Planned,
    spec: RunSpec,
    inputs: Inputs,
    block: int,
    own: Path,
    folder: Path,
    space: StreamSpace,
    on_step: OnStep = lambda done, total: None,
) -> dict[str, BlockSearch]:
    """The searches of those alternatives that are searched anew, by name. own: the folder of the
    run's searches, which takes in those in other groups: recipes may hold them. folder: that takes
    the others. What is there is not searched again. space: where streams are kept. on_step: told
    the blocks and searches done, and how many there are. InputError for activations that are not
    finite."""
    wanted = [each for each in planned.taken if each.is_searched]
    # By number: a name may hold a path.
    folders = {
        each.name: search_folder(own, each.groups) if each.groups else folder / f"search-{n:02d}"
        for n, each in enumerate(wanted)
    }
    paths = {name: search_path(path, block, spec.bits) for name, path in folders.items()}
    missing = [each for each in wanted if not is_complete(paths[each.name])]
    if missing:
        total = block + 1 + len(missing)
        begun = stream_inputs(inputs.model, planned.windows, range(block + 1), space=space)
        hidden, kwargs = _follow(begun, lambda done: on_step(done, total))
        for done, each in enumerate(missing, block + 2):
            search_from(
                inputs.model,
                block,
                hidden.gather(planned.rows[each.calibration]),
                kwargs,
                [each.scheme(spec)],
                folders[each.name],
                exact=spec.is_exact,
                space=space,
            )
            on_step(done, total)
    return {name: load_search(path) for name, path in paths.items()}


def _follow(
    inputs: Iterator[tuple[int, Stream, dict[str, Any]]], on_block: Callable[[int], None]
) -> tuple[Stream, dict[str, Any]]:
    """The last of several blocks' inputs. on_block: told how many were there."""
    for number, hidden, kwargs in inputs:
        last = hidden, kwargs
        on_block(number + 1)
    return last
