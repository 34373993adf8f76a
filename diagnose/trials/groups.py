"""Units of a finished run scored in groups of other sizes than its own: searched on its calibration
text, estimated on its validation text.

The run's own widths are estimated again beside them, from the same samples of the same tokens, so
that a ratio of the two says what the groups alone change.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from awqscope.diagnose.inputs.sizes import unit_bytes
from awqscope.diagnose.passes.views import list_sampled
from awqscope.diagnose.runs.directory import OnProgress
from awqscope.diagnose.runs.scores import find_unscored, read_group_rows
from awqscope.diagnose.runs.tables import GROUPS
from awqscope.diagnose.statistics.bootstrap import Resampler
from awqscope.diagnose.sweep.estimator import estimate_units
from awqscope.diagnose.trials.course import STREAM_SHARE, Course
from awqscope.mixedprec.awq.choices import search_folder
from awqscope.mixedprec.awq.search import check_schemes, search_model
from awqscope.mixedprec.families.table import list_units
from awqscope.mixedprec.models.streams import list_slices
from awqscope.mixedprec.scheme import Grouped, Scheme, Width

# By unit and width, the KL of each window.
ByWindow = dict[tuple[str, Width], Tensor]


def score_groups(course: Course, groups: Sequence[Grouped], progress: OnProgress) -> None:
    """Search every block and estimate every unit in those of `groups` that the run has no scores
    of; keep the searches in RUN/awq/gN, the estimates in RUN/groups.parquet.

    Searches that are there already are not made again. InputError for sizes that do not divide the
    inputs of a linear.
    """
    missing = find_unscored(course.run, groups)
    if not missing:
        return
    search_groups(course, missing, progress)
    found = _estimate(course, missing, progress)
    rows = [*read_group_rows(course.run), *_list_rows(course, missing, found)]
    course.run.write_table("groups", rows, GROUPS)


def search_groups(course: Course, groups: Sequence[Grouped], progress: OnProgress) -> None:
    """Search every block at each of these widths, one folder a size of groups."""
    spec, inputs = course.spec, course.inputs
    schemes = spec.schemes_at(groups)
    check_schemes(inputs.model, list(schemes.values()))
    folders: dict[Any, list[Scheme]] = defaultdict(list)
    for width, scheme in schemes.items():
        folders[search_folder(course.run.searches, width)].append(scheme)
    blocks = inputs.model.blocks
    for number, (folder, alike) in enumerate(folders.items()):

        def report(done: int, before: int = number * blocks) -> None:
            progress("searching groups", before + done, len(folders) * blocks)

        search_model(
            inputs.model, inputs.search_windows, alike, folder, report, exact=spec.is_exact
        )


def _estimate(course: Course, groups: Sequence[Grouped], progress: OnProgress) -> ByWindow:
    """The estimates by window of every unit at these widths and at their bits in the run's own
    groups, on the windows of the run's own estimates. One sample of each token will do: it is the
    same for both, so that what sampling adds to them mostly cancels in their ratio."""
    spec, inputs = course.spec, course.inputs
    model, sampled = inputs.model, list_sampled(spec, inputs.windows)
    windows = inputs.windows[sampled]
    widths: tuple[Width, ...] = (*dict.fromkeys(width.bits for width in groups), *groups)
    # The inputs of every block are kept for the way back.
    held = windows.shape[1] * model.config.hidden_size * 4 * (model.blocks + 2)
    chunks = list_slices(len(windows), max(1, int(spec.max_memory * STREAM_SHARE) // held))
    steps = 2 * model.blocks
    parts: dict[tuple[str, Width], list[Tensor]] = defaultdict(list)
    for number, chunk in enumerate(chunks):

        def report(done: int, before: int = number * steps) -> None:
            progress("estimating groups", before + done, len(chunks) * steps)

        estimates = estimate_units(
            model,
            windows[chunk],
            course.run.searches,
            widths,
            seed=spec.seed,
            numbers=tuple(sampled[chunk]),
            on_block=report,
        )
        for key, kl in estimates.units.items():
            parts[key].append(kl)
    return {key: torch.cat(found) for key, found in parts.items()}


def _list_rows(course: Course, groups: Sequence[Grouped], found: ByWindow) -> list[dict[str, Any]]:
    """The rows of groups.parquet."""
    spec, model = course.spec, course.inputs.model
    resampler = Resampler(len(next(iter(found.values()))), spec.seed)
    rows = []
    for unit in list_units(model.family, model.blocks):
        for width in groups:
            estimate = resampler.mean(found[unit.name, width].double().numpy())
            rows.append(
                {
                    "unit": unit.name,
                    "block": unit.block,
                    "kind": unit.kind.name,
                    "bits": width.bits,
                    "group_size": width.group_size,
                    "bytes": unit_bytes(model, unit, width, spec),
                    "estimated_kl": estimate.value,
                    "estimated_kl_low": estimate.low,
                    "estimated_kl_high": estimate.high,
                    "own_kl": float(found[unit.name, width.bits].double().mean()),
                }
            )
    return rows
