"""What a run works on: model, tokenizer and texts, opened, checked and described."""

import hashlib
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from awqscope.diagnose.entries.source import (
    CutText,
    PplDefinition,
    Slice,
    Source,
    write_quantized_before,
)
from awqscope.diagnose.inputs.corpora import (
    Corpus,
    cut_slices,
    cut_windows,
    load_corpus,
    load_tokenizer,
)
from awqscope.diagnose.inputs.sources import check_specs
from awqscope.diagnose.options.shared import DEFAULT_SEQ_LEN
from awqscope.diagnose.runs.directory import now
from awqscope.diagnose.runs.record import Record
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.mixedprec.awq.search import check_schemes, list_columns, take_enough
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import list_units
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.served import check_range, name_dtype
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.weight_files import write_aside
from awqscope.mixedprec.recipes.recipe import check_names
from awqscope.mixedprec.scheme import GROUP_SIZES

VERSIONED = ("awqscope", "torch", "transformers", "autoawq", "compressed-tensors", "safetensors")

# Entries of config.json with the most tokens that a model takes; some architectures have none.
POSITIONS = ("max_position_embeddings", "max_seq_len")


@dataclass(frozen=True)
class Inputs:
    """What a run works on, loaded and checked. windows: those of the texts `valid` one after
    another, `slices` of each. search_windows: those of the calibration windows that the search
    reads."""

    model: SourceModel
    tokenizer: PreTrainedTokenizerBase
    calib: Corpus
    valid: tuple[Corpus, ...]
    calib_windows: Tensor
    search_windows: Tensor
    windows: Tensor
    slices: tuple[int, ...]


def open_asked(spec: RunSpec) -> SourceModel:
    """The model that a run is asked for."""
    return open_model(
        spec.model,
        revision=spec.revision,
        trust_remote_code=spec.trust_remote_code,
        dtype=spec.dtype,
    )


def settle_groups(spec: RunSpec, model: SourceModel) -> tuple[RunSpec, tuple[str, ...]]:
    """The spec with a group size, and a note where it is not the usual one.

    Where none was asked for it is 128, or the largest of 64 and 32 that tiles the inputs of every
    linear. Where none does it is 128, which is refused by the name of the linear.
    """
    if spec.group_size is not None:
        return spec, ()
    columns = list_columns(model)
    usual, *smaller = sorted((size for size in GROUP_SIZES if size > 0), reverse=True)
    odd = next((name for name, count in columns.items() if count % usual), None)
    fits = [size for size in smaller if not any(count % size for count in columns.values())]
    if odd is None or not fits:
        return spec.change(group_size=usual), ()
    note = f"groups of {fits[0]}: {usual} does not divide the {columns[odd]} inputs of {odd}"
    return spec.change(group_size=fits[0]), (note,)


def load_inputs(spec: RunSpec, model: SourceModel | None = None) -> Inputs:
    """Open the model, unless it is given, and the texts. InputError for anything that a run could
    not use."""
    check_specs((spec.calib, *spec.valid))
    if model is None:
        model = open_asked(spec)
    check_schemes(model, list(spec.schemes.values()))
    check_names(list(spec.keep_fp16), list_units(model.family, model.blocks))
    tokenizer = load_tokenizer(model.path, trust_remote_code=spec.trust_remote_code)
    calib = load_corpus(spec.calib)
    valid = tuple(load_corpus(text) for text in spec.valid)
    seq_len, limit = choose_length(model, spec.seq_len)
    calib_windows = cut_windows(
        calib, tokenizer, min(spec.calib_seq_len, limit), spec.calib_windows
    )
    parts = cut_slices(valid, tokenizer, seq_len, spec.windows)
    windows = torch.cat(parts)
    check_tokens(model, calib_windows, windows)
    check_range(model)
    slices = tuple(len(part) for part in parts)
    search_windows = choose_searched(spec, model, calib_windows)
    return Inputs(
        model=model,
        tokenizer=tokenizer,
        calib=calib,
        valid=valid,
        calib_windows=calib_windows,
        search_windows=search_windows,
        windows=windows,
        slices=slices,
    )


def choose_searched(spec: RunSpec, model: SourceModel, windows: Tensor) -> Tensor:
    """Those of the calibration windows that the search reads."""
    # Of a few tokens an expert that is seldom chosen sees next to none.
    reads_all = spec.is_exact or model.family.experts is not None
    return windows if reads_all else take_enough(windows)


def choose_length(model: SourceModel, asked: int | None) -> tuple[int, int]:
    """The length of validation windows, and the most that the model takes. InputError where it
    takes less than is `asked`."""
    limits = (getattr(model.config, name, None) for name in POSITIONS)
    limit = next((value for value in limits if value), DEFAULT_SEQ_LEN)
    seq_len = asked or min(DEFAULT_SEQ_LEN, limit)
    if seq_len > limit:
        raise InputError(
            f"--seq-len {seq_len} is longer than the model's {limit} positions",
            f"give at most {limit}",
        )
    return seq_len, limit


def check_tokens(model: SourceModel, *windows: Tensor) -> None:
    """Raise InputError for tokens that the model does not know."""
    largest = max(int(tokens.max()) for tokens in windows)
    if largest >= model.config.vocab_size:
        raise InputError(
            f"the tokenizer gives token {largest}, the model knows {model.config.vocab_size}",
            "use the tokenizer that came with the model",
        )


def hash_tokens(windows: Tensor) -> str:
    """SHA-256 of token ids as 32-bit integers, by which runs on the same tokens are recognised."""
    return hashlib.sha256(windows.int().numpy().tobytes()).hexdigest()


def describe(spec: RunSpec, inputs: Inputs) -> Record:
    """What is known of a run before anything is measured."""
    return Record(
        **begin(spec.model),
        kind="run",
        spec=spec,
        source=describe_source(inputs.model),
        ppl_definition=describe_text(inputs.valid, inputs.slices, inputs.windows),
        calibration=CutText(
            text=inputs.calib.spec,
            text_sha256=inputs.calib.hash,
            tokens_sha256=hash_tokens(inputs.calib_windows),
            windows=len(inputs.calib_windows),
            seq_len=inputs.calib_windows.shape[1],
            searched=len(inputs.search_windows),
        ),
        headline=None,
    )


def begin(model: str) -> dict[str, Any]:
    """What the record of anything begins with, here and now. model: the reference, as given."""
    return {
        "state": "running",
        "created": now(),
        "updated": now(),
        "model": model,
        "directory": os.getcwd(),
        "versions": describe_versions(),
        "stages": {},
        "error": None,
    }


def describe_source(model: SourceModel) -> Source:
    """The reference."""
    return Source(
        architecture=model.config.model_type,
        blocks=model.blocks,
        units=[kind.name for kind in model.family.units],
        parameters=model.count_parameters(),
        dtype=name_dtype(model.dtype),
        hashes=model.hash(),
        left_aside=list(model.aside),
        quantized_before=model.quantized_before,
    )


def note_weights(*models: SourceModel) -> tuple[str, ...]:
    """Notes, shown before a run, on the models' weights: files beside them that are not read, and
    what they have lost before."""
    aside = [f"{m.path}: {write_aside(m.aside)}" for m in models if m.aside]
    lossy = [write_quantized_before(m.quantized_before) for m in models if m.quantized_before]
    return (*aside, *lossy)


def describe_text(texts: Sequence[Corpus], slices: Sequence[int], windows: Tensor) -> PplDefinition:
    """What perplexity is of. slices: windows of each text; several texts are told apart in its
    entry `slices`."""
    count, length = windows.shape
    of_texts = f" of {len(texts)} texts" if len(texts) > 1 else ""
    return PplDefinition(
        sentence=(
            f"exp of the mean token NLL over {count} non-overlapping windows of {length} "
            f"tokens{of_texts}; every token is scored but each window's first"
        ),
        **_name_texts(texts, slices),
        tokens_sha256=hash_tokens(windows),
        windows=count,
        seq_len=length,
        scored_tokens=count * (length - 1),
    )


def _name_texts(texts: Sequence[Corpus], slices: Sequence[int]) -> dict[str, Any]:
    if len(texts) == 1:
        return {"text": texts[0].spec, "text_sha256": texts[0].hash}
    firsts = [sum(slices[:number]) for number in range(len(texts))]
    return {
        "text": ", ".join(text.spec for text in texts),
        "text_sha256": hashlib.sha256("".join(text.hash for text in texts).encode()).hexdigest(),
        "slices": [
            Slice(text=text.spec, sha256=text.hash, first_window=first, windows=windows)
            for text, first, windows in zip(texts, firsts, slices, strict=True)
        ],
    }


def describe_versions() -> dict[str, str]:
    """The `versions` of run.json."""
    return {name: version(name) for name in VERSIONED} | {"python": platform.python_version()}
