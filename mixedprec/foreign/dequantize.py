"""A checkpoint written out as a plain model: every packed weight as what it stands for, under the
names of transformers' model, so that tools which know no quantized format read it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.atomic import report_full_disk, write_json, write_text
from awqscope.mixedprec.files.folders import copy_companions, hold_folder
from awqscope.mixedprec.files.shards import SHARD_BYTES, Planned, write_shards
from awqscope.mixedprec.files.untrusted import read_json
from awqscope.mixedprec.foreign.candidate import Candidate
from awqscope.mixedprec.foreign.gguf import GgufCandidate
from awqscope.mixedprec.models.catalogue import stored_name
from awqscope.mixedprec.models.dtypes import AUTO
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.served import cast
from awqscope.mixedprec.models.source import CODE
from awqscope.mixedprec.models.weight_files import NAMED

# By the names of options and config.json, safetensors' name of each type.
STORABLE: Mapping[str, str] = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
# Entries of config.json that are of the checkpoint's format, and those that are said anew.
LEFT_OUT = (
    "quantization_config",
    "compression_config",
    "quantization",
    "torch_dtype",
    "dtype",
    NAMED,
)


@dataclass(frozen=True)
class Written:
    """A plain model that was written. bytes: of all its tensors. parameters: how many it has."""

    bytes: int
    parameters: int


def choose_stored(asked: str, candidate: Candidate) -> str:
    """The type to store in, of STORABLE: the one that is `asked`, else the one that config.json
    names, or that the embedding is stored in; float16 for a GGUF file, which has none. InputError
    for any other."""
    if asked != AUTO:
        if asked not in STORABLE:
            raise InputError(
                f"--dtype {asked} is no type to store in", f"give {AUTO}, {', '.join(STORABLE)}"
            )
        return asked
    if isinstance(candidate, GgufCandidate):
        return "float16"
    said = str(getattr(candidate.config, "dtype", None)).removeprefix("torch.")
    if said in STORABLE:
        return said
    embedding = candidate.tensors.get(f"{candidate.family.embedding}.weight")
    held = {stored: name for name, stored in STORABLE.items()}
    return held.get(embedding.dtype if embedding else "", "float16")


def clean_config(raw: Mapping[str, Any], dtype: str, *, tied: bool, code: bool) -> dict[str, Any]:
    """config.json of the plain model. raw: the checkpoint's. tied: whether its head is its
    embedding. code: whether the Python files that it names are copied."""
    left_out = LEFT_OUT if code else (*LEFT_OUT, "auto_map")
    config = {name: value for name, value in raw.items() if name not in left_out}
    config["dtype"] = dtype
    if not tied:
        # A head of its own would otherwise be taken for the embedding.
        config["tie_word_embeddings"] = False
    return config


@torch.no_grad()
def write_plain(
    out: Path,
    candidate: Candidate,
    dtype: str,
    card: Callable[[Written], str],
    *,
    on_parameter: Callable[[int, int], None] = lambda done, total: None,
    most: int = SHARD_BYTES,
) -> Written:
    """Write the plain model of a checkpoint to the directory `out`, in one type, a tensor at a
    time; it appears when it is whole.

    dtype: of STORABLE. card: makes the text of its README.md. on_parameter(done, total). most:
    bytes of a file. InputError where the checkpoint is plain already, `out` exists or cannot be
    made, or a weight is damaged or too large for the type. What a server has fused is written as
    the linears of the model, also where it is not quantized.
    """
    if not candidate.is_quantized and not candidate.fused:
        raise InputError(f"{candidate.name} is not quantized", "use it as it is")
    if out.exists():
        raise InputError(f"{out} exists already", "choose another --out")
    parameters = {name: tuple(held.shape) for name, held in candidate.list_parameters()}
    planned = {name: Planned(STORABLE[dtype], shape) for name, shape in parameters.items()}
    kind = getattr(torch, dtype)

    def read(name: str) -> memoryview:
        stored = stored_name(name, candidate.tensors)
        values = cast(name, candidate.read([stored], torch.float32)[stored], kind)
        return values.contiguous().view(-1).view(torch.uint8).numpy().data

    partial = out.with_name(f".{out.name}.partial")
    trusted = candidate.trust_remote_code
    with report_full_disk(out), hold_folder(partial, out):
        for number, _ in enumerate(write_shards(partial, planned, read, most)):
            on_parameter(number + 1, len(planned))
        raw = read_json(candidate.path / "config.json")
        config = clean_config(raw, dtype, tied=candidate.tied, code=trusted)
        write_json(partial / "config.json", config)
        copy_companions(candidate.path, partial, CODE if trusted else None)
        # Whatever else it may be, it has to be a model.
        made = open_model(str(partial), trust_remote_code=trusted)
        written = Written(made.catalogue.bytes, made.count_parameters())
        write_text(partial / "README.md", card(written))
        partial.rename(out)
    return written
