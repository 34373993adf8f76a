"""A GGUF file as a checkpoint to measure: unpacked in float32, so that every weight is exactly what
llama.cpp's package says that its blocks stand for."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.foreign.architecture import agree
from awqscope.mixedprec.foreign.candidate import Candidate, fit_candidate
from awqscope.mixedprec.foreign.padding import count_padding
from awqscope.mixedprec.gguf.origin import Origin, find_width, read_whole_origin
from awqscope.mixedprec.gguf.unpack import check_scaling, unpack_gguf
from awqscope.mixedprec.models.opening import frame_model, read_config
from awqscope.mixedprec.models.source import SourceModel

METHOD = "gguf"
EXPERT = re.compile(r"(.+\.experts)\.\d+\.(\w+)")
# llama.cpp stores Mistral's models as Llama's: they compute the same.
ALIKE = {"mistral": "llama"}
# What it states, but not in the form or place in which transformers keeps it, or for a tokenizer.
ELSEWHERE = {"model_type", "tie_word_embeddings", "rope_theta", "vocab_size"}


@dataclass(frozen=True)
class GgufCandidate(Candidate):
    """A checkpoint that came as a GGUF file; its tensors are read from where it was unpacked.
    origin: how the file stores them."""

    origin: Origin = field(kw_only=True)

    @property
    def quantized_before(self) -> None:
        """That its weights are quantized is what it is measured for."""

    @property
    def bytes(self) -> int:
        """Bytes of all tensors of the file."""
        return self.origin.bytes

    def width(self, linear: str) -> int:
        """Bits of a linear, by its full name."""
        return find_width(self._find(linear)[0])

    def linear_bytes(self, linear: str) -> int:
        """Bytes of a linear's weight in the file; of an expert's its share of all."""
        return self._find(linear)[1]

    def hash(self) -> dict[str, str]:
        """SHA-256 of the file, by its name."""
        return {self.origin.file: self.origin.sha256}

    def _find(self, linear: str) -> tuple[str, int]:
        """Type and bytes of a linear's weight in the file."""
        stored = self.origin.stored
        expert = EXPERT.fullmatch(linear)
        layout = self.family.experts
        if expert is None or layout is None:
            return stored[f"{linear}.weight"]
        roles = {layout.gate: "gate", layout.up: "up", layout.down: "down"}
        kind, size = stored[f"{expert[1]}.{roles[expert[2]]}"]
        return kind, size // int(getattr(self.config, layout.count))


def open_gguf(path: Path, reference: SourceModel | None) -> GgufCandidate:
    """Open a GGUF file, of the architecture of `reference` or, without one, of what it says itself;
    unpacks it first. InputError for another architecture, and where it cannot be read."""
    folder = unpack_gguf(path, torch.float32)
    raw, config = read_config(folder)
    origin = read_whole_origin(folder)
    if reference is None:
        check_scaling(path, folder)
        reference = frame_model(str(path), folder, copy.deepcopy(config), plain=False)
    else:
        check_stated(origin.stated, reference.config)
    found = fit_candidate(str(path), folder, raw, config, reference)
    held = {each.name: getattr(found, each.name) for each in fields(found)}
    candidate = GgufCandidate(**{**held, "method": METHOD}, origin=origin)
    _check_known(candidate)
    return candidate


def check_stated(stated: Mapping[str, Any], reference: PretrainedConfig) -> None:
    """Raise InputError, naming the first setting by which a GGUF file and its reference would
    compute different functions even with equal weights. What it does not state is the
    reference's."""
    ours = reference.to_dict()
    rope = ours.get("rope_parameters") or {}
    wanted = {name: ours.get(name) for name in stated.keys() - ELSEWHERE}
    wanted["rope_theta"] = rope.get("rope_theta")
    kinds = stated["model_type"], ALIKE.get(reference.model_type, reference.model_type)
    if kinds[0] not in (kinds[1], reference.model_type):
        raise _differing("model_type", kinds[0], reference.model_type)
    for name in sorted(wanted.keys() & stated.keys()):
        if name.endswith("_token_id") or name.startswith("_") or wanted[name] is None:
            continue
        if not agree(stated[name], wanted[name]):
            raise _differing(name, stated[name], wanted[name])
    tokens = stated.get("vocab_size", reference.vocab_size)
    if tokens != reference.vocab_size and not count_padding(reference.vocab_size, tokens):
        raise _differing("vocab_size", tokens, reference.vocab_size)


def _differing(entry: str, theirs: Any, ours: Any) -> InputError:
    return InputError(
        f"the candidate's {entry} is {theirs}, the reference's {ours}",
        "compare a GGUF file with the model it was made from",
    )


def _check_known(candidate: GgufCandidate) -> None:
    """Raise InputError where it is not known how a linear of the blocks is stored."""
    for number in range(candidate.blocks):
        for kind in candidate.family.units:
            for linear in kind.linears:
                full = f"{candidate.prefix(number)}.{linear}"
                try:
                    candidate.width(full)
                except LookupError as error:
                    raise InputError(
                        f"{candidate.name} does not say how it stores {full}",
                        "convert the model to GGUF again with a newer llama.cpp",
                    ) from error
