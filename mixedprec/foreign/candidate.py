"""A checkpoint that another tool made: opened and checked against the reference that it came from,
and read like any model, with every packed linear as the weight that it stands for.

Blocks are read whole, norms and biases included: AWQ folds its scales into norms, so that a single
linear of such a checkpoint cannot be compared with the reference's.
"""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import list_units
from awqscope.mixedprec.files.header import FLOATS
from awqscope.mixedprec.foreign.architecture import check_architecture, count_added
from awqscope.mixedprec.foreign.fused import REPACKED, Piece, Unfused, unfuse
from awqscope.mixedprec.foreign.method import LAYOUTS, PLAIN, read_quantization
from awqscope.mixedprec.layouts.layout import Coding, Layout, Shapes
from awqscope.mixedprec.models.catalogue import (
    Stored,
    name_fully,
    open_catalogue,
    stored_name,
)
from awqscope.mixedprec.models.lacking import WRONG_CONFIG, explain_lacking
from awqscope.mixedprec.models.opening import read_config, resolve_path
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.weights import is_finite
from awqscope.mixedprec.scheme import FP16_BITS

# autoawq's ScaledActivation, in families whose MLP has one linear before its activation.
ACTIVATION_SCALES = ("mlp.act.scales", "mlp.gelu_impl.scales", "ffn.act.scales")
OTHERS_CONFIG = "use the config.json that came with these weights"
# Tensors of older checkpoints that hold no parameter.
BUFFERS = (".inv_freq", ".masked_bias", ".attention.bias")


@dataclass(frozen=True)
class Candidate(SourceModel):
    """A checkpoint of the reference's architecture. method: of LAYOUTS, or `plain`. codings: full
    name of every packed linear or embedding -> how it is coded. padding: tokens at the end of its
    vocabulary that the reference does not have, and that are left out. pieces: full name of a
    linear -> the rows that it is of a packed one, under whose name the coding is then. fused: full
    names of what it stores in place of several linears of its own."""

    method: str
    codings: Mapping[str, Coding]
    padding: int = field(default=0, kw_only=True)
    pieces: Mapping[str, Piece] = field(default_factory=dict, kw_only=True)
    fused: tuple[str, ...] = field(default=(), kw_only=True)

    def read(self, names: Iterable[str], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Tensors by name, as `dtype` or in the stored type; the weight of a packed linear as
        `dtype` or in float32."""
        found: dict[str, Tensor] = {}
        # The pieces of a fused linear are asked for one after another.
        whole = ("", torch.empty(0))
        for name in names:
            linear = name.removesuffix(".weight")
            piece, scales = self.pieces.get(linear), self.activation_scales(linear)
            packed = piece is not None or linear in self.codings
            if piece is not None:
                if piece.whole != whole[0]:
                    whole = (piece.whole, self._decode(piece.whole))
                weight = whole[1][piece.begin : piece.end]
            elif packed:
                weight = self._decode(linear)
            else:
                weight = super().read([name], dtype if scales is None else torch.float32)[name]
            if scales is not None:
                weight = weight / super().read([scales], torch.float32)[scales]
            if (packed or scales is not None) and not is_finite(weight):
                raise InputError(
                    f"the weight of {linear} holds NaN or infinity", "download the checkpoint again"
                )
            if self.padding and name in self.padded:
                weight = weight[: -self.padding].clone()
            found[name] = weight if dtype is None else weight.to(dtype)
        return found

    def read_rows(self, name: str, rows: Tensor) -> Tensor:
        """These rows of a matrix, float32 [rows, columns]; a packed one is unpacked whole first."""
        if name.removesuffix(".weight") not in self.codings:
            return super().read_rows(name, rows)
        return self.read([name], torch.float32)[name][rows]

    @property
    def padded(self) -> tuple[str, ...]:
        """The parameters with a row for every token of its vocabulary."""
        heads = [stored_name(f"lm_head.{part}", self.tensors) for part in ("weight", "bias")]
        return (f"{self.family.embedding}.weight", *heads)

    def _decode(self, linear: str) -> Tensor:
        """The weight of a packed linear, float32 [N, K]."""
        coding = self.codings[linear]
        wanted = [part for part in coding.shapes if f"{linear}.{part}" in self.tensors]
        parts = super().read([f"{linear}.{part}" for part in wanted])
        try:
            return LAYOUTS[self.method].decode(
                {part: parts[f"{linear}.{part}"] for part in wanted}, coding
            )
        except InputError as error:
            raise InputError(f"{linear}: {error.what}", error.remedy) from error
        except ValueError as error:
            raise InputError(
                f"{linear} cannot be unpacked ({error})", "download the checkpoint again"
            ) from error

    def activation_scales(self, linear: str) -> str | None:
        """The tensor [K] by which autoawq divides what flows from an activation function into a
        linear, if there is one: dividing the weight's columns instead is the same function."""
        block = linear.removesuffix(f".{self.family.units[-1].linears[0]}")
        if block == linear or self.method != "awq":
            return None
        names = (f"{block}.{name}" for name in ACTIVATION_SCALES)
        return next((name for name in names if name in self.tensors), None)

    @property
    def is_quantized(self) -> bool:
        """Whether it is of a format for packed weights."""
        return self.method != PLAIN

    @property
    def quantizes_inputs(self) -> bool:
        """Whether servers quantize activations too, which is not measured here."""
        return any(coding.quantizes_inputs for coding in self.codings.values())

    def holder(self, linear: str) -> str:
        """The module that holds a linear, by full names: itself, or the one that it is rows of."""
        return self.pieces[linear].whole if linear in self.pieces else linear

    def width(self, linear: str) -> int:
        """Bits of a linear, by its full name; 16 for one that is not packed."""
        coding = self.codings.get(self.holder(linear))
        return coding.bits if coding else FP16_BITS

    def count_widths(self) -> dict[int, int]:
        """Linears of the blocks by width, ascending."""
        units = list_units(self.family, self.blocks)
        found = Counter(
            self.width(f"{self.prefix(unit.block)}.{linear}")
            for unit in units
            for linear in unit.linears
        )
        return {bits: found[bits] for bits in sorted(found)}

    @property
    def bytes(self) -> int:
        """Bytes of all its tensors."""
        return self.catalogue.bytes

    def linear_bytes(self, linear: str) -> int:
        """Bytes on disk of a linear's weight, with scales and zero points; its share of a fused
        one's by its rows."""
        holder, piece = self.holder(linear), self.pieces.get(linear)
        coding = self.codings.get(holder)
        parts = coding.shapes if coding else ("weight",)
        names = (f"{holder}.{part}" for part in parts)
        size = sum(self.tensors[name].size for name in names if name in self.tensors)
        return piece.share(size) if piece else size


def open_candidate(name: str, reference: SourceModel) -> Candidate:
    """Open a checkpoint by hub id or path, of the architecture of `reference`; reads headers only.

    InputError for another architecture, a quantization that is not read, and tensors that are
    missing, too many, or of another shape or type than they must be.
    """
    path = resolve_path(name)
    raw, config = read_config(path, trust_remote_code=reference.trust_remote_code)
    check_architecture(reference.config, config)
    return fit_candidate(name, path, raw, config, reference)


def fit_candidate(
    name: str,
    path: Path,
    raw: Mapping[str, Any],
    config: PretrainedConfig,
    reference: SourceModel,
) -> Candidate:
    """A checkpoint whose config.json, as it stands (`raw`) and as transformers reads it, is known
    to be of the architecture of `reference`. Errors are those of `open_candidate`."""
    catalogue = open_catalogue(path)
    method, quantization = read_quantization(path, raw, catalogue.tensors)
    if method != PLAIN and method not in LAYOUTS:
        raise InputError(
            f"the candidate's quantization method {method!r} is not read",
            f"compare a checkpoint of {', '.join(LAYOUTS)}, or one that is not quantized",
        )
    tied = config.tie_word_embeddings
    unfused = unfuse(name_fully(catalogue.tensors, reference.family, tied), reference)
    tensors = unfused.tensors
    codings: dict[str, Coding] = {}
    if method != PLAIN:
        layout = LAYOUTS[method]
        _check_names(layout, tensors)
        try:
            said = layout.read(quantization, path)
            codings = _describe_modules(layout, said, reference, path, unfused)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"the candidate's quantization_config cannot be used ({error!r})",
                "repair its config.json",
            ) from error
    candidate = Candidate(
        name,
        path,
        config,
        reference.family,
        reference.dtype,
        catalogue,
        tensors,
        reference.shell,
        method,
        codings,
        padding=count_added(reference.config, config),
        pieces=unfused.pieces,
        fused=unfused.fused,
    )
    _check_tensors(candidate)
    return candidate


def _check_names(layout: Layout, names: Iterable[str]) -> None:
    """Raise InputError for a tensor that the maker of a checkpoint has renamed."""
    for name in names:
        if any(mark in name for mark in layout.renamed):
            raise InputError(
                f"the candidate's tensor {name} was renamed or stacked by its maker",
                "compare a checkpoint whose tensors have transformers' names",
            )


def _describe_modules(
    layout: Layout, said: Any, reference: SourceModel, path: Path, unfused: Unfused
) -> dict[str, Coding]:
    """The coding of every packed linear and embedding, checked against the shapes and types of its
    tensors. said: what the layout has read of the quantization_config."""
    modules = {
        name: module
        for name, module in reference.shell.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding)
    } | dict(unfused.wholes)
    codings = {}
    for name, found in _group_tensors(modules, unfused.tensors).items():
        if not layout.is_packed({part: stored.dtype for part, stored in found.items()}):
            continue
        shapes = {part: list(stored.shape) for part, stored in found.items()}
        coding = _describe(layout, said, (name, *unfused.parts(name)), modules[name], shapes)
        missing = coding.shapes.keys() - found.keys() - set(layout.optional)
        if missing:
            raise InputError(f"{path} has no tensor {name}.{min(missing)}", WRONG_CONFIG)
        for part, shape in coding.shapes.items():
            if part in found and shapes[part] != shape:
                remedy = REPACKED if unfused.wholes else OTHERS_CONFIG
                raise _misshapen(f"{name}.{part}", shapes[part], shape, remedy)
            if part in found and found[part].dtype not in layout.types[part]:
                raise _mistyped(
                    f"{name}.{part}",
                    found[part].dtype,
                    f"compare one that stores it as {' or '.join(layout.types[part])}",
                )
        codings[name] = coding
    return codings


def _describe(
    layout: Layout, said: Any, names: tuple[str, ...], module: nn.Module, shapes: Shapes
) -> Coding:
    """The coding of a module, by the first of its names that the quantization_config knows. names:
    its own, and those of the linears that are fused in it, which a server asks for next."""
    for name in names[:-1]:
        with contextlib.suppress(InputError):
            return layout.describe(said, name, module, shapes)
    return layout.describe(said, names[-1], module, shapes)


def _group_tensors(
    modules: Container[str], tensors: Mapping[str, Stored]
) -> dict[str, dict[str, Stored]]:
    """The tensors of each of the modules, by what their names have after the module's."""
    found: dict[str, dict[str, Stored]] = defaultdict(dict)
    for name, stored in tensors.items():
        words = name.split(".")
        for cut in range(len(words) - 1, 0, -1):
            module = ".".join(words[:cut])
            if module in modules:
                found[module][".".join(words[cut:])] = stored
                break
    return found


def _misshapen(
    name: str, found: list[int], wanted: list[int], remedy: str = OTHERS_CONFIG
) -> InputError:
    return InputError(
        f"the candidate's tensor {name} has shape {found} where its config.json means {wanted}",
        remedy,
    )


def _mistyped(name: str, found: str, remedy: str) -> InputError:
    return InputError(
        f"the candidate stores {name} as {found}, which its config.json does not explain", remedy
    )


def _check_tensors(candidate: Candidate) -> None:
    """Raise InputError for a parameter that is missing, misshapen or of no known type, and for a
    tensor that belongs to no parameter."""
    tensors = candidate.tensors
    parameters = dict(candidate.shell.named_parameters())
    parameters["lm_head.weight"] = candidate.shell.lm_head.weight
    tied = candidate.config.tie_word_embeddings
    known = {
        f"{linear}.{part}"
        for linear, coding in candidate.codings.items()
        for part in coding.shapes
        if not (tied and linear == "lm_head")
    }
    for full, parameter in parameters.items():
        packed = candidate.holder(full.removesuffix(".weight")) in candidate.codings
        scales = candidate.activation_scales(full.removesuffix(".weight"))
        if scales is not None:
            _check_plain(scales, tensors[scales], [parameter.shape[1]])
            known.add(scales)
        name = stored_name(full, tensors)
        if name in tensors and not packed:
            rows = candidate.padding if name in candidate.padded else 0
            _check_plain(name, tensors[name], [parameter.shape[0] + rows, *parameter.shape[1:]])
            known.add(name)
        elif not packed and not (tied and full == "lm_head.weight"):
            raise explain_lacking(candidate.path, name, tensors, candidate.family, tied)
    for name in sorted(set(tensors) - known):
        is_float = tensors[name].dtype in FLOATS
        if name.endswith(BUFFERS) or (is_float and _is_idle_bias(candidate, name)):
            continue
        raise InputError(
            f"the candidate's tensor {name} belongs to no parameter of a "
            f"{candidate.config.model_type}",
            "compare a checkpoint that holds this architecture and nothing else",
        )


def _check_plain(name: str, stored: Stored, shape: list[int]) -> None:
    """Raise InputError unless a parameter is stored as it is used: a shape and floating point."""
    if list(stored.shape) != shape:
        raise _misshapen(name, list(stored.shape), shape)
    if stored.dtype not in FLOATS:
        raise _mistyped(
            name,
            stored.dtype,
            "compare one whose unquantized tensors are float16, bfloat16 or float32",
        )


def _is_idle_bias(candidate: Candidate, name: str) -> bool:
    """Whether a tensor is a bias that adds nothing: some writers give every linear one."""
    linear, _, last = name.rpartition(".")
    return (
        last == "bias"
        and candidate.holder(linear) in candidate.codings
        and not bool(SourceModel.read(candidate, [name])[name].any())
    )
