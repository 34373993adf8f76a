"""From a method to a model that can be measured: its blocks read one by one with the weights that
stand in the reference's place, and what they take on disk."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from awqscope.diagnose.inputs.load import Inputs, hash_tokens
from awqscope.diagnose.inputs.sizes import linear_bytes, unit_bytes
from awqscope.diagnose.runs.directory import OnProgress, RunDirectory
from awqscope.diagnose.runs.record import MIXED
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.studies.alternatives.answer import RESCUE
from awqscope.diagnose.studies.alternatives.choosing import MIXES
from awqscope.diagnose.studies.alternatives.methods import (
    Method,
    Nearest,
    Own,
    Rounded,
    Searched,
    change_low,
)
from awqscope.diagnose.studies.alternatives.rounding import Mix, ModelLinear
from awqscope.diagnose.studies.study import studies_of
from awqscope.diagnose.sweep.swappable import (
    SwappableBlock,
    list_linears,
    read_swappable,
    uniform_bits,
)
from awqscope.diagnose.trials.finished import OpenedRun
from awqscope.mixedprec.awq.choices import BlockSearch
from awqscope.mixedprec.awq.realise import Searches
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.families.table import Unit, list_units
from awqscope.mixedprec.files.atomic import write_json
from awqscope.mixedprec.files.untrusted import read_json
from awqscope.mixedprec.foreign.candidate import Candidate
from awqscope.mixedprec.foreign.differences import differing_places
from awqscope.mixedprec.models.forward import get_linear
from awqscope.mixedprec.models.served import served_outside
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.scheme import FP16_BITS, UnitWidths

# Letters of a folder's name that tell the searches of one method apart.
DIGITS = 16
# How long a search has taken so far, over all processes that worked on it.
CLOCK = "clock.json"
# The stages of a run whose work its recipe needs.
CHOOSING = ("search", "sweep", "estimate", "exact", "recipe")


ReadBlock = Callable[[int], nn.Module]


@dataclass(frozen=True)
class Made:
    """An alternative that can be measured.

    read_block: a block with its weights, by number. outside: the model whose embeddings and head it
    has, None for the reference's. unit_bytes: what the linears of its blocks take on disk.
    seconds: how long making it took, known once it has been read; None where that is not known.
    bytes: of all tensors, None where all but those linears are at 16 bits. places: where it differs
    from the reference outside the blocks besides the served type. weights_alone: whether servers
    quantize its activations too, which is not measured."""

    read_block: ReadBlock
    outside: SourceModel | None
    unit_bytes: int
    seconds: Callable[[], float | None] = lambda: None
    bytes: int | None = None
    places: tuple[str, ...] = ()
    weights_alone: bool = False


@dataclass(frozen=True)
class Realised:
    """The blocks of a model as AWQ's arithmetic serves them. read: a block with its searches, which
    may be empty of scales and clipping. widths: of every unit by name."""

    model: SourceModel
    read: Callable[[int], SwappableBlock]
    widths: UnitWidths

    def read_block(self, number: int) -> nn.Module:
        """A block with its effective weights, in the basis of the reference."""
        block = self.read(number)
        widths = {
            linear: self.widths[f"{number}.{kind.name}"]
            for kind in self.model.family.units
            for linear in kind.linears
        }
        block.use(block.weights(widths))
        return block.block


@dataclass(frozen=True)
class RoundedBlocks:
    """The blocks of a model with each linear's weight rounded by itself; units `kept` stay."""

    model: SourceModel
    mix: Mix
    kept: frozenset[str]

    def read_block(self, number: int) -> nn.Module:
        """A block with what stands for its weights."""
        model, linears = self.model, list_linears(self.model.family)
        stored = SwappableBlock(model.read_block(number), {}, model.dtype, linears)
        weights = {name: get_linear(stored.block, name).weight.data for name in linears}
        # Norms, biases and kept weights are rounded to the served type, as in every checkpoint.
        stored.use(stored.weights(dict.fromkeys(linears, FP16_BITS)))
        for linear in list_block_linears(model, number):
            if f"{number}.{linear.kind.name}" not in self.kept:
                rounded = self.mix.choose(linear)(weights[linear.name])
                get_linear(stored.block, linear.name).weight.data = rounded
        return stored.block

    def size(self, spec: RunSpec) -> int:
        """Bytes of the linears of all blocks on disk."""
        total = 0
        for linear in list_model_linears(self.model):
            if f"{linear.block}.{linear.kind.name}" in self.kept:
                total += linear_bytes(self.model, linear.block, linear.name, FP16_BITS, spec)
            else:
                shell = get_linear(self.model.block_shell(linear.block), linear.name)
                rounding = self.mix.choose(linear)
                total += rounding.size(shell.out_features, shell.in_features)
        return total


def list_model_linears(model: SourceModel) -> list[ModelLinear]:
    """Every linear of the blocks of a model."""
    return [each for number in range(model.blocks) for each in list_block_linears(model, number)]


def list_block_linears(model: SourceModel, number: int) -> list[ModelLinear]:
    """Every linear of one block."""
    shell, architecture = model.block_shell(number), model.config.model_type
    return [
        ModelLinear(
            architecture=architecture,
            block=number,
            blocks=model.blocks,
            kind=kind,
            name=name,
            columns=get_linear(shell, name).in_features,
        )
        for kind in model.family.units
        for name in kind.linears
    ]


@dataclass(frozen=True)
class Timed:
    """A way to read blocks that keeps how long each took, by its number."""

    read: ReadBlock
    seconds: dict[int, float] = field(default_factory=dict)

    def __call__(self, number: int) -> nn.Module:
        began = time.perf_counter()
        block = self.read(number)
        self.seconds[number] = time.perf_counter() - began
        return block

    def total(self) -> float:
        """How long all blocks took."""
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Workplace:
    """What alternatives are made with: a run, its texts, and a folder for further searches, a
    folder each."""

    opened: OpenedRun
    inputs: Inputs
    folder: Path
    progress: OnProgress

    @property
    def units(self) -> tuple[Unit, ...]:
        """Every unit of the model."""
        return list_units(self.opened.model.family, self.opened.model.blocks)

    def size(self, widths: UnitWidths, spec: RunSpec) -> int:
        """Bytes of all units at these widths, by the schemes of a spec."""
        model = self.opened.model
        return sum(unit_bytes(model, unit, widths[unit.name], spec) for unit in self.units)


def folder_of(run: RunDirectory) -> Path:
    """Where the searches of a run's alternatives are; they may be removed."""
    return studies_of(run) / "alternatives-searches"


def search_folder(at: Workplace, name: str, spec: RunSpec) -> Path:
    """The folder of a method's search, named after all that decides it."""
    windows = at.inputs.search_windows
    stamp = {
        "hashes": at.opened.model.hash(),
        "tokens": hash_tokens(windows),
        "shape": list(windows.shape),
        "scheme": str(spec.low),
        "search": spec.search,
    }
    key = hashlib.sha256(json.dumps(stamp, sort_keys=True).encode()).hexdigest()
    return at.folder / f"{name}-{key[:DIGITS]}"


def make_own(at: Workplace, method: Method, source: Own) -> Made:
    """A model of the run's own searches. What it took is what the run says: the search, and for the
    recipe all that it was chosen by."""
    opened = at.opened
    spec, model, run = opened.spec, opened.model, opened.run
    widths = opened.models.get(source.model)
    if source.model == RESCUE:
        widths = uniform_bits(model, spec.rescue_bits, spec.keep_fp16)
    assert widths is not None
    searched = tuple(set(widths.values()) - {FP16_BITS})
    blocks = Realised(
        model, lambda number: read_swappable(model, number, run.searches, searched), widths
    )
    stages = run.read().stages
    needed = CHOOSING if source.model == MIXED else CHOOSING[:1]
    took = [stages[name].seconds for name in needed if name in stages]
    known = [seconds for seconds in took if seconds is not None]
    seconds = sum(known) if len(known) == len(needed) else None
    return Made(blocks.read_block, served_outside(model), at.size(widths, spec), lambda: seconds)


def make_searched(at: Workplace, method: Method, source: Searched) -> Made:
    """AWQ with changed options, searched where the folder does not hold it, from where an earlier
    process stopped."""
    spec, model = change_low(at.opened.spec, source.changes), at.opened.model
    folder = search_folder(at, method.name, spec)
    widths = uniform_bits(model, spec.bits, spec.keep_fp16)
    seconds = search_timed(at, spec, folder, f"searching {method.name}")
    low = (spec.bits,)
    blocks = Realised(model, lambda number: read_swappable(model, number, folder, low), widths)
    return Made(blocks.read_block, served_outside(model), at.size(widths, spec), lambda: seconds)


def search_timed(at: Workplace, spec: RunSpec, folder: Path, stage: str) -> float:
    """Search every block at the low width of a spec into `folder`, and say how long that took over
    all processes that worked on it."""
    blocks, before, began = at.opened.model.blocks, _read_clock(folder), time.perf_counter()

    def note(done: int) -> None:
        write_json(folder / CLOCK, before + time.perf_counter() - began)
        at.progress(stage, done, blocks)

    windows = at.inputs.search_windows
    search_model(at.opened.model, windows, [spec.low], folder, note, exact=spec.is_exact)
    return _read_clock(folder)


def _read_clock(folder: Path) -> float:
    try:
        return float(read_json(folder / CLOCK))
    except (OSError, ValueError, TypeError):
        return 0.0


def make_nearest(at: Workplace, method: Method, source: Nearest) -> Made:
    """Round to nearest on AWQ's grid: its arithmetic without scales and clipping."""
    spec, model = change_low(at.opened.spec, source.changes), at.opened.model
    widths = uniform_bits(model, spec.bits, spec.keep_fp16)
    plain: Searches = {spec.bits: BlockSearch(spec.low, (), {}, model.family.symmetric_linears())}
    linears = list_linears(model.family)

    def read(number: int) -> SwappableBlock:
        return SwappableBlock(model.read_block(number), plain, model.dtype, linears)

    timed = Timed(Realised(model, read, widths).read_block)
    return Made(timed, served_outside(model), at.size(widths, spec), timed.total)


def make_rounded(at: Workplace, method: Method, source: Rounded) -> Made:
    """Every weight rounded by a library."""
    spec, model = at.opened.spec, at.opened.model
    blocks = RoundedBlocks(model, MIXES[source.mix], frozenset(spec.keep_fp16))
    timed = Timed(blocks.read_block)
    return Made(timed, served_outside(model), blocks.size(spec), timed.total)


# How the models of each source are made.
MAKERS: Mapping[type, Callable[[Workplace, Method, Any], Made]] = {
    Own: make_own,
    Searched: make_searched,
    Nearest: make_nearest,
    Rounded: make_rounded,
}


def make(at: Workplace, method: Method) -> Made:
    """A method's model beside a run."""
    return MAKERS[type(method.source)](at, method, method.source)


def open_added(candidate: Candidate, reference: SourceModel) -> Made:
    """A checkpoint that another tool made; how long that took is not known."""
    places = differing_places(reference, candidate)
    size = sum(
        candidate.linear_bytes(f"{candidate.prefix(unit.block)}.{linear}")
        for unit in list_units(candidate.family, candidate.blocks)
        for linear in unit.linears
    )
    outside = candidate if places else None
    return Made(
        candidate.read_block,
        outside,
        size,
        bytes=candidate.bytes,
        places=places,
        weights_alone=candidate.quantizes_inputs,
    )
