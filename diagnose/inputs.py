"""What a run works on: model, tokenizer and texts, opened, checked and described."""

import hashlib
import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from diagnose.corpora import Corpus, cut_windows, load_corpus, load_tokenizer
from diagnose.sources import parse_spec
from diagnose.spec import DEFAULT_SEQ_LEN, RunSpec
from mixedprec.block_search import check_schemes
from mixedprec.errors import InputError
from mixedprec.families import list_units
from mixedprec.model import SourceModel, open_model
from mixedprec.recipe import check_names

VERSIONED = ("awqscope", "torch", "transformers", "autoawq", "compressed-tensors", "safetensors")


@dataclass(frozen=True)
class Inputs:
    """What a run works on, loaded and checked."""

    model: SourceModel
    tokenizer: PreTrainedTokenizerBase
    calib: Corpus
    valid: Corpus
    calib_windows: Tensor
    windows: Tensor


def load_inputs(spec: RunSpec) -> Inputs:
    """Open the model and the texts. InputError for anything that a run could not use."""
    parse_spec(spec.calib)
    parse_spec(spec.valid)
    model = open_model(spec.model)
    check_schemes(model, list(spec.schemes.values()))
    check_names(list(spec.keep_fp16), list_units(model.family, model.blocks))
    tokenizer = load_tokenizer(model.path)
    calib, valid = load_corpus(spec.calib), load_corpus(spec.valid)
    seq_len, limit = choose_length(model, spec.seq_len)
    calib_windows = cut_windows(
        calib, tokenizer, min(spec.calib_seq_len, limit), spec.calib_windows
    )
    windows = cut_windows(valid, tokenizer, seq_len, spec.windows)
    check_tokens(model, calib_windows, windows)
    return Inputs(model, tokenizer, calib, valid, calib_windows, windows)


def choose_length(model: SourceModel, asked: int | None) -> tuple[int, int]:
    """The length of validation windows, and the most that the model takes. InputError where it
    takes less than is `asked`."""
    limit = getattr(model.config, "max_position_embeddings", DEFAULT_SEQ_LEN)
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
    """SHA-256 of token ids as 32-bit integers: what text, tokenizer and cutting came to."""
    return hashlib.sha256(windows.int().numpy().tobytes()).hexdigest()


def describe(spec: RunSpec, inputs: Inputs) -> dict[str, Any]:
    """The part of run.json that is known before anything is measured."""
    return {
        "model": spec.model,
        "spec": spec.to_json(),
        "source": describe_source(inputs.model),
        "ppl_definition": describe_text(inputs.valid, inputs.windows),
        "calibration": {
            "text": inputs.calib.spec,
            "text_sha256": inputs.calib.hash,
            "tokens_sha256": hash_tokens(inputs.calib_windows),
            "windows": len(inputs.calib_windows),
            "seq_len": inputs.calib_windows.shape[1],
        },
        "versions": describe_versions(),
        "stages": {},
        "headline": {},
        "error": None,
    }


def describe_source(model: SourceModel) -> dict[str, Any]:
    """The `source` of run.json: the reference."""
    return {
        "architecture": model.config.model_type,
        "blocks": model.blocks,
        "units": [kind.name for kind in model.family.units],
        "parameters": sum(p.numel() for p in model.shell.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "hashes": model.hash(),
    }


def describe_text(valid: Corpus, windows: Tensor) -> dict[str, Any]:
    """The `ppl_definition` of run.json."""
    count, length = windows.shape
    return {
        "sentence": (
            f"exp of the mean token NLL over {count} non-overlapping windows of {length} "
            f"tokens; every token is scored but each window's first"
        ),
        "text": valid.spec,
        "text_sha256": valid.hash,
        "tokens_sha256": hash_tokens(windows),
        "windows": count,
        "seq_len": length,
        "scored_tokens": count * (length - 1),
    }


def describe_versions() -> dict[str, str]:
    """The `versions` of run.json."""
    return {name: version(name) for name in VERSIONED} | {"python": platform.python_version()}
