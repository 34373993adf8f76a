"""Where a block's linears come from: their 16 bits from the run's model, and what is stored of them
from the run's checkpoint on disk or, without one, as the checkpoint's writer makes it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.weights.answer import StoredPart
from awqscope.diagnose.trials.finished import OpenedRun
from awqscope.mixedprec.awq.arithmetic import Quantized, quantize
from awqscope.mixedprec.awq.choices import BlockSearch, load_searches
from awqscope.mixedprec.awq.realise import Folding, clip_groups, fold_scales
from awqscope.mixedprec.checkpoints.packing import CUT
from awqscope.mixedprec.checkpoints.reader import StoredCheckpoint, open_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.family import UnitKind
from awqscope.mixedprec.models.forward import get_linear
from awqscope.mixedprec.models.served import cast
from awqscope.mixedprec.scheme import FP16_BITS, Scheme, Width, list_quantized

# So many weights of a linear are looked at at a time.
ELEMENTS_AT_ONCE = 2**22
CHECKPOINT, SEARCHES = "checkpoint", "searches"

Rows = Callable[[int, int], Tensor]
CodedRows = Callable[[int, int], Quantized | Tensor]


@dataclass(frozen=True)
class LinearSource:
    """One linear. scheme: None where it is kept at 16 bits. reference, stored: its rows from one to
    before another, the first a multiple of CUT: float32 in the reference's basis; and as stored.
    inputs [K], outputs [N]: AWQ's scales of its columns and rows. is_scaled: whether its inputs
    are. limit [N, G]: the largest that its clip keeps, once scaled. tensors: what it is stored in.
    """

    linear: str
    kind: UnitKind
    scheme: Scheme | None
    rows: int
    columns: int
    reference: Rows
    stored: CodedRows
    inputs: Tensor
    outputs: Tensor
    is_scaled: bool
    ratio: float | None
    limit: Tensor | None
    tensors: tuple[StoredPart, ...]

    @property
    def group(self) -> int:
        """Input channels that share a scale; a whole row at 16 bits."""
        return self.columns if self.scheme is None else self.scheme.group(self.columns)

    @property
    def step(self) -> int:
        """Rows that are looked at at a time."""
        return max(1, ELEMENTS_AT_ONCE // (self.columns * CUT)) * CUT

    def undo(self, stored: Quantized | Tensor, first: int) -> Tensor:
        """Stored rows from `first` on, in the basis of the reference."""
        served = stored.dequantize() if isinstance(stored, Quantized) else stored.float()
        return served * self.outputs[first : first + len(served), None] / self.inputs

    def scale(self, reference: Tensor, first: int) -> Tensor:
        """Rows of the reference from `first` on, as they are before they are clipped."""
        return reference * self.inputs / self.outputs[first : first + len(reference), None]


@dataclass(frozen=True)
class BlockSource:
    """A block's linears, in order of computation. made_of: CHECKPOINT or SEARCHES. recipe: the kind
    of the recipe that they are of."""

    made_of: str
    recipe: str
    linears: tuple[LinearSource, ...]


def find_widths(opened: OpenedRun, block: int) -> dict[str, Width]:
    """The width of every linear of a block, by its name there: of the run's recipe, or of uniform
    before there is one."""
    if opened.recipe is not None:
        return opened.recipe.block_widths(opened.model.prefix(block))
    low = opened.models["uniform"]
    return {
        linear: low[f"{block}.{kind.name}"]
        for kind in opened.model.family.units
        for linear in kind.linears
    }


def has_checkpoint(run: RunDirectory) -> bool:
    """Whether a run's checkpoint is where it was written."""
    return (run.checkpoint / "config.json").is_file()


def open_block(opened: OpenedRun, block: int) -> BlockSource:
    """The linears of a block of a run. InputError for a search or a checkpoint that is damaged, and
    for a checkpoint that lacks one of them or has it at another width."""
    model, widths = opened.model, find_widths(opened, block)
    found = load_searches(opened.run.searches, block, list_quantized(widths.values()))
    folding = fold_scales(model.read_rest(block, widths), found, widths, model.dtype)
    stored = open_checkpoint(opened.run.checkpoint) if has_checkpoint(opened.run) else None
    recipe = "uniform" if opened.recipe is None else opened.recipe.kind
    linears = tuple(
        _open_linear(opened, block, linear, kind, widths[linear], found, folding, stored)
        for kind in model.family.units
        for linear in kind.linears
    )
    return BlockSource(SEARCHES if stored is None else CHECKPOINT, recipe, linears)


def _open_linear(
    opened: OpenedRun,
    block: int,
    linear: str,
    kind: UnitKind,
    width: Width,
    searches: Mapping[Width, BlockSearch],
    folding: Folding,
    stored: StoredCheckpoint | None,
) -> LinearSource:
    model = opened.model
    module = get_linear(model.block_shell(block), linear)
    rows, columns = module.out_features, module.in_features
    search = None if width == FP16_BITS else searches[width]
    scheme = None if search is None else search.scheme_of(linear)
    limit = None if search is None else folding.find_limit(linear, search)
    dtype = model.dtype

    def read(first: int, stop: int) -> Tensor:
        return model.read_linear(block, linear, first, stop)

    def rebuild(first: int, stop: int) -> Quantized | Tensor:
        here = slice(first, stop)
        scaled = folding.scale(linear, read(first, stop), here)
        if scheme is None:
            return cast(f"{linear}.weight", scaled, dtype)
        return quantize(clip_groups(scaled, None if limit is None else limit[here]), scheme, dtype)

    if stored is None:
        take: CodedRows = rebuild
        tensors = describe_stored(rows, columns, scheme, dtype)
    else:
        full = f"{model.prefix(block)}.{linear}"
        take = _open_stored(stored, full, scheme)
        tensors = tuple(
            StoredPart(name=name, dtype=part.dtype, shape=list(part.shape), bytes=part.size)
            for name, part in stored.stored(full).items()
        )
    choice = folding.sources.get(linear)
    return LinearSource(
        linear,
        kind,
        scheme,
        rows,
        columns,
        read,
        take,
        folding.inputs[linear],
        folding.outputs[linear],
        choice is not None,
        None if choice is None else choice.ratio,
        limit,
        tensors,
    )


def _open_stored(stored: StoredCheckpoint, name: str, scheme: Scheme | None) -> CodedRows:
    """What reads the rows of a linear of a checkpoint when they are first asked for, and refuses
    one that is not stored as the recipe has it."""
    opened: list[CodedRows] = []

    def read(first: int, stop: int) -> Quantized | Tensor:
        if not opened:
            found = stored.open_linear(name)
            if found is None:
                raise InputError(
                    f"{stored.folder} has no {name}", "write the checkpoint again from the run"
                )
            opened.append(found)
        rows = opened[0](first, stop)
        if (rows.scheme if isinstance(rows, Quantized) else None) != scheme:
            raise InputError(
                f"{stored.folder} does not have {name} at the width of the run's recipe",
                "put back the recipe or the checkpoint that the run made",
            )
        return rows

    return read


def describe_stored(
    rows: int, columns: int, scheme: Scheme | None, dtype: torch.dtype
) -> tuple[StoredPart, ...]:
    """What a checkpoint of the run would store of a linear."""
    half = {torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]
    if scheme is None:
        shapes = {"weight": (half, 2, [rows, columns])}
    else:
        per_word, groups = 32 // scheme.bits, columns // scheme.group(columns)
        shapes = {
            "weight_packed": ("I32", 4, [rows, -(-columns // per_word)]),
            "weight_scale": (half, 2, [rows, groups]),
        }
        if not scheme.symmetric:
            shapes["weight_zero_point"] = ("I32", 4, [-(-rows // per_word), groups])
        shapes["weight_shape"] = ("I64", 8, [2])
    return tuple(
        StoredPart(name=name, dtype=kind, shape=shape, bytes=size * torch.Size(shape).numel())
        for name, (kind, size, shape) in shapes.items()
    )
