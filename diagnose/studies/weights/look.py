"""The weights of a block of a finished run, looked at one linear at a time, a few rows at once."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from awqscope.diagnose.runs.directory import OnProgress, RunDirectory
from awqscope.diagnose.studies.causes.heads import Heads, find_heads
from awqscope.diagnose.studies.study import Study, check_number, name_study
from awqscope.diagnose.studies.weights.answer import (
    BlockWeights,
    ChannelSize,
    Clipping,
    GroupValues,
    LinearWeights,
)
from awqscope.diagnose.studies.weights.sources import (
    CHECKPOINT,
    SEARCHES,
    LinearSource,
    has_checkpoint,
    open_block,
)
from awqscope.diagnose.studies.weights.tally import Tally
from awqscope.diagnose.trials.finished import OpenedRun
from awqscope.mixedprec.awq.arithmetic import Quantized
from awqscope.mixedprec.checkpoints.packing import CUT
from awqscope.mixedprec.recipes.recipe import load_recipe

STUDY = "weights"
LOOKING = "looking at the weights"
MOST_CHANNELS, LARGEST_CHANNELS = 1024, 64
# Of experts there are hundreds.
MOST_LINEARS = 16
LONGEST_GROUP = 256


def study_of(run: RunDirectory, block: int) -> Study:
    """The study of a block's weights, of the checkpoint or the recipe that is there now."""
    path, widths = run.path / "recipe.json", None
    if path.exists():
        units = load_recipe(path).in_own_groups(run.read_searched().spec.low.group_size).units
        here = [entry for entry in units if entry.unit.partition(".")[0] == str(block)]
        widths = {linear: str(entry.width) for entry in here for linear in entry.linears}
    made_of = CHECKPOINT if has_checkpoint(run) else SEARCHES
    return Study(run, name_study(STUDY, block), {"made_of": made_of, "widths": widths})


def read_weights(run: RunDirectory, block: int) -> BlockWeights | None:
    """The answer that a run keeps of a block as it is stored now, if it does."""
    kept = study_of(run, block).read()
    try:
        return None if kept is None else BlockWeights.model_validate(kept)
    except ValidationError:
        # Of another version, or changed: they are looked at again.
        return None


def look_at_weights(
    opened: OpenedRun,
    block: int,
    on_progress: OnProgress = lambda stage, done, total: None,
) -> BlockWeights:
    """The weights of block `block` of a run. The answer is kept with the run.

    on_progress: told of LOOKING, by linears. A look that was stopped goes on where it was.
    InputError for a block that there is not, and for searches or a checkpoint that are damaged.
    """
    check_number(opened.run.read_searched(), block)
    kept = read_weights(opened.run, block)
    if kept is not None:
        return kept
    study = study_of(opened.run, block)
    model = opened.model
    with study.hold(), torch.no_grad():
        source = open_block(opened, block)
        heads = find_heads(model.family, model.config, model.block_shell(block))
        largest = read_largest(opened.run, block)
        linears = []

        def look(linear: LinearSource) -> dict[str, Any]:
            site = largest.get(linear.kind.name) if takes_site(linear) else None
            return look_at_linear(linear, site, heads).to_json()

        for number, linear in enumerate(source.linears):
            on_progress(LOOKING, number, len(source.linears))
            # By number: parts are files, and the names of experts have dots.
            found = study.part(f"linear-{number}", partial(look, linear))
            linears.append(LinearWeights.model_validate(found))
        on_progress(LOOKING, len(linears), len(linears))
        brief = choose_brief(linears)
        answer = BlockWeights(
            block=block,
            made_of=source.made_of,
            recipe=source.recipe,
            heads=None if heads is None else heads.count,
            kv_heads=None if heads is None else heads.groups,
            linears=[
                linear.changed(channels=(), groups=()) if linear.linear in brief else linear
                for linear in linears
            ],
            brief=brief,
        )
        study.keep(answer.to_json())
    return answer


def read_largest(run: RunDirectory, block: int) -> dict[str, Tensor]:
    """Site of a block -> the largest |x| of every channel in the reference [K]; empty where the run
    kept none."""
    name = "activations.safetensors"
    if not (run.path / name).exists():
        return {}
    start, end = f"channel_max.{block}.", ".reference"
    return {
        key.removeprefix(start).removesuffix(end): torch.from_numpy(array)
        for key, array in run.read_arrays(name).items()
        if key.startswith(start) and key.endswith(end)
    }


def takes_site(linear: LinearSource) -> bool:
    """Whether what flows into a unit flows into this linear: not into the last one of an expert."""
    name, last = (each.rpartition(".")[2] for each in (linear.linear, linear.kind.linears[-1]))
    return linear.kind.site is None or name != last


def choose_brief(linears: Sequence[LinearWeights]) -> list[str]:
    """Names of the linears that are not looked at closely, where there are very many."""
    worst = sorted(linears, key=lambda one: -(one.relative_error or 0.0))[:MOST_LINEARS]
    close = {one.linear for one in worst}
    return [one.linear for one in linears if one.linear not in close]


def look_at_linear(
    source: LinearSource, largest: Tensor | None, heads: Heads | None
) -> LinearWeights:
    """All that is told of one linear. largest [K]: the largest |x| of every channel, if known."""
    scheme = source.scheme
    bits = None if scheme is None else scheme.bits
    tally = Tally(source.columns, source.group, bits, largest)
    for first in range(0, source.rows, source.step):
        stop = min(first + source.step, source.rows)
        reference, stored = source.reference(first, stop), source.stored(first, stop)
        tally.add(reference, source.undo(stored, first))
        if isinstance(stored, Quantized):
            tally.add_codes(stored)
        if source.limit is not None:
            tally.add_clip(source.scale(reference, first), source.limit[first:stop])
    weights = source.rows * source.columns
    size, error = (float(torch.cat(each).sum()) for each in (tally.sizes, tally.errors))
    bytes_ = sum(part.bytes for part in source.tensors)
    has_zeros = scheme is not None and not scheme.symmetric
    return LinearWeights(
        linear=source.linear,
        unit=source.kind.name,
        bits=16 if bits is None else bits,
        rows=source.rows,
        columns=source.columns,
        group=source.group,
        symmetric=scheme is not None and scheme.symmetric,
        ratio=source.ratio,
        tensors=source.tensors,
        bytes=bytes_,
        bits_per_weight=8 * bytes_ / weights,
        range=(tally.low, tally.high),
        rms=(size / weights) ** 0.5,
        relative_error=(error / size) ** 0.5 if size else None,
        sqnr=10 * math.log10(size / error) if error and size else None,
        channels=list_channels(source, tally, largest),
        clipping=None
        if source.limit is None
        else Clipping(
            groups=source.limit.numel(),
            clipped=sum(tally.count_steps()[1:]),
            weights=tally.cut_weights / weights,
            steps=tally.count_steps(),
        ),
        codes=tally.codes.tolist(),
        zeros=tally.zeros.tolist() if has_zeros else [],
        unused=int((tally.codes == 0).sum()),
        used_in_group=None if bits is None else tally.distinct / (weights / source.group),
        saturated=None if bits is None else float(tally.codes[0] + tally.codes[-1]) / weights,
        groups=list_groups(source, tally, heads),
    )


def list_channels(source: LinearSource, tally: Tally, largest: Tensor | None) -> list[ChannelSize]:
    """The input channels, in order: all, or some where there are very many."""
    weight = tally.weight / max(1, source.rows)
    scales = source.inputs if source.is_scaled else None
    chosen = choose_channels([each for each in (scales, largest, weight) if each is not None])
    return [
        ChannelSize(
            channel=channel,
            scale=None if scales is None else shorten(scales[channel]),
            activation=None if largest is None else shorten(largest[channel]),
            weight=shorten(weight[channel]),
        )
        for channel in chosen
    ]


def choose_channels(measures: Sequence[Tensor]) -> list[int]:
    """All channels, or of more than MOST_CHANNELS those that are largest by one of the `measures`,
    and others spread evenly over the rest."""
    count = len(measures[0])
    if count <= MOST_CHANNELS:
        return list(range(count))
    chosen = {
        channel
        for values in measures
        for channel in values.argsort(descending=True, stable=True)[:LARGEST_CHANNELS].tolist()
    }
    rest = [channel for channel in range(count) if channel not in chosen]
    some = MOST_CHANNELS - len(chosen)
    return sorted(chosen | {rest[place * len(rest) // some] for place in range(some)})


def list_groups(source: LinearSource, tally: Tally, heads: Heads | None) -> list[GroupValues]:
    """The groups worth a look with all their values, the worst first."""
    chosen = tally.choose_worst()
    error = tally.relative()
    reach = torch.cat(tally.reaches) if tally.reaches else None
    cut = torch.cat(tally.cuts) if tally.cuts else None
    owners = find_owners(source.linear, heads)
    rows = dict(read_rows(source, {row for row, _ in chosen}))
    found = []
    for row, group in chosen:
        here = slice(group * source.group, (group + 1) * source.group)
        values = rows[row].cut(here, group)
        owner = owners.name(row, range(here.start, here.stop))
        found.append(
            GroupValues(
                row=row,
                group=group,
                role=owner.role,
                heads=owner.heads,
                serves=owner.serves,
                error=shorten(error[row, group]),
                reach=None if reach is None else shorten(reach[row, group]),
                cut=None if cut is None else shorten(cut[row, group]),
                **values,
            )
        )
    return found


@dataclass(frozen=True)
class Owner:
    """Whose weights a group is: heads of a role, and the query heads that compute with them."""

    role: str | None = None
    heads: tuple[int, ...] = ()
    serves: tuple[int, ...] = ()


@dataclass(frozen=True)
class Owners:
    """The heads of a linear: by row those of q, k and v, by column those of o."""

    rows: Mapping[int, Owner]
    columns: Mapping[int, int]

    def name(self, row: int, columns: range) -> Owner:
        """Whose the weights of one row and some columns are."""
        if not self.columns:
            return self.rows.get(row, Owner())
        heads = tuple(sorted({self.columns[each] for each in columns if each in self.columns}))
        return Owner("o", heads, heads)


def find_owners(linear: str, heads: Heads | None) -> Owners:
    """The heads of a linear; of one that is not attention's, none."""
    parts = [] if heads is None else heads.of(linear)
    return Owners(
        {
            int(row): Owner(part.role, (part.head,), part.serves)
            for part in parts
            if part.role != "o"
            for row in part.index
        },
        {int(column): part.head for part in parts if part.role == "o" for column in part.index},
    )


@dataclass(frozen=True)
class RowValues:
    """One row of a linear, 16 bits beside what is stored. coded: its codes, if it has any."""

    reference: Tensor
    effective: Tensor
    coded: Quantized | None

    def cut(self, here: slice, group: int) -> dict[str, Any]:
        """A group's values, as `GroupValues` names them."""
        reference, effective = self.reference[here], self.effective[here]
        picked = torch.arange(len(reference))
        if len(reference) > LONGEST_GROUP:
            order = (effective - reference).abs().argsort(descending=True, stable=True)
            picked = order[:LONGEST_GROUP].sort().values
        coded = self.coded
        return {
            "channels": (picked + here.start).tolist(),
            "reference": [shorten(value) for value in reference[picked]],
            "stored": [shorten(value) for value in effective[picked]],
            "codes": [] if coded is None else coded.codes[0, here][picked].tolist(),
            "scale": None if coded is None else float(coded.scales[0, group]),
            "zero": None if coded is None else int(coded.zeros[0, group]),
        }


def read_rows(source: LinearSource, wanted: Collection[int]) -> Iterator[tuple[int, RowValues]]:
    """Some rows of a linear, each with its number."""
    for first in sorted({row // CUT * CUT for row in wanted}):
        stop = min(first + CUT, source.rows)
        reference, stored = source.reference(first, stop), source.stored(first, stop)
        effective = source.undo(stored, first)
        for row in sorted(row for row in wanted if first <= row < stop):
            at = slice(row - first, row - first + 1)
            coded = None
            if isinstance(stored, Quantized):
                coded = Quantized(
                    stored.codes[at].clone(), stored.scales[at], stored.zeros[at], stored.scheme
                )
            yield row, RowValues(reference[at][0].clone(), effective[at][0].clone(), coded)


def shorten(value: Tensor) -> float:
    """Six digits: a 16-bit type has five at most, and there are many."""
    return float(f"{float(value):.6g}")
