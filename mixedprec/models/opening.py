"""From a name to a model that can be read: found, checked, indexed. Reads headers only."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import FAMILIES, Family, find_family, fit_family
from awqscope.mixedprec.files.header import FLOATS
from awqscope.mixedprec.files.hub import download
from awqscope.mixedprec.files.untrusted import (
    check_blocks,
    check_config,
    check_directory,
    read_json,
)
from awqscope.mixedprec.gguf.origin import is_gguf
from awqscope.mixedprec.gguf.unpack import check_scaling, unpack_gguf
from awqscope.mixedprec.models.catalogue import (
    HEADS,
    Stored,
    find_holder,
    find_stored,
    name_fully,
    open_catalogue,
    stored_name,
)
from awqscope.mixedprec.models.dtypes import AUTO, check_dtype
from awqscope.mixedprec.models.lacking import WRONG_CONFIG, explain_lacking
from awqscope.mixedprec.models.served import choose_dtype, read_dtype
from awqscope.mixedprec.models.source import CODE, SourceModel, make_shell
from awqscope.mixedprec.models.weight_files import ADAPTER, not_permitted

# A mask over all pairs of 8,192 positions has 64 MiB; the tables of positions of most are smaller.
MOST_BUFFER_BYTES = 2**30
# What transformers may raise while it builds a model from a configuration that makes no sense.
UNBUILDABLE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    OSError,
    RuntimeError,
)
WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md")


def resolve_path(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> Path:
    """The directory of a model: `name` itself, or the download of a hub id (no pickles, and code
    only where it is trusted). revision: of a hub id."""
    path = Path(name)
    if path.exists() and revision is not None:
        raise InputError(
            f"{name} is no id on the hub, and has no revisions", "leave out --revision"
        )
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{name} is a file", "give the directory that holds config.json")
    wanted = [*WANTED, *([CODE] if trust_remote_code else [])]
    return download(name, wanted, revision)


def _check_shapes(
    path: Path, shell: Any, family: Family, tensors: Mapping[str, Stored], tied: bool
) -> None:
    """Raise InputError for a parameter that the checkpoint lacks, holds in another shape, or not as
    floating point."""
    outside = (f"{family.embedding}.weight", *HEADS)
    wanted: dict[str, list[int]] = {}
    for parameter, values in shell.named_parameters():
        name = stored_name(parameter, tensors)
        if parameter == "lm_head.weight" and tied and name not in tensors:
            continue
        if find_holder(name, family, tensors) not in tensors:
            raise explain_lacking(path, name, tensors, family, tied)
        wanted[name] = list(values.shape)
    for name, shape in wanted.items():
        stored = find_stored(name, family, tensors)
        found = list(stored.shape)
        if found != shape:
            padded = name in outside and found[1:] == shape[1:] and found[0] > shape[0]
            rows = f', or write "vocab_size": {found[0]} into it' if padded else ""
            raise InputError(
                f"tensor {name} has shape {found} where config.json means {shape}",
                f"use the config.json that came with these weights{rows}",
            )
        if stored.dtype not in FLOATS:
            raise InputError(
                f"tensor {name} is stored as {stored.dtype}",
                "give the FP16 or BF16 model that it was made from",
            )


def _check_experts(path: Path, count: int, tensors: Mapping[str, Stored]) -> None:
    """Raise InputError unless the checkpoint has as many experts as config.json says, one by one or
    stacked."""
    found: dict[str, int] = {}
    numbers: dict[str, set[int]] = {}
    for name, stored in tensors.items():
        if match := re.search(r"^(.+\.experts)\.([0-9]{1,6})\.", name):
            numbers.setdefault(match[1], set()).add(int(match[2]))
        elif re.search(r"\.experts\.(gate_up|down)_proj$", name):
            found[name] = stored.shape[0] if len(stored.shape) == 3 else 0
    for experts, seen in numbers.items():
        missing = next((number for number in range(count) if number not in seen), None)
        if missing is not None:
            raise InputError(f"{path} has no tensor of {experts}.{missing}", WRONG_CONFIG)
        found[experts] = len(seen)
    for name, many in found.items():
        if many != count:
            raise InputError(
                f"{name} in {path} is of {many} experts, config.json says {count}", WRONG_CONFIG
            )
    if not found:
        raise InputError(f"{path} has no tensor of experts", WRONG_CONFIG)


def _check_buffers(path: Path, shell: Any) -> None:
    """Raise InputError for a config.json by which a model computes tables of absurd size."""
    size = sum(buffer.numel() * buffer.element_size() for buffer in shell.buffers())
    if size > MOST_BUFFER_BYTES:
        raise InputError(
            f"{path / 'config.json'} means tables of {size:,} bytes beside the weights",
            "use the config.json that came with these weights",
        )


def read_config(
    path: Path, *, trust_remote_code: bool = False
) -> tuple[dict[str, Any], PretrainedConfig]:
    """config.json of a model of a supported family, as it stands and as transformers reads it.
    InputError where it cannot be used, and for a directory or a configuration that nobody writes in
    good faith (`mixedprec/files/untrusted.py`)."""
    check_directory(path)
    source = path / "config.json"
    if not source.exists():
        if (path / ADAPTER).exists():
            raise InputError(
                f"{path} holds an adapter ({ADAPTER}) without the model that it is for",
                "merge it into its model (peft: merge_and_unload, then save_pretrained), and give "
                "the directory of that",
            )
        raise InputError(f"{path} has no config.json", "give the directory of a Hugging Face model")
    try:
        raw = read_json(source)
        check_config(source, raw)
        kind = raw.get("model_type", "")
        foreign = not isinstance(kind, str) or kind not in FAMILIES
        if foreign and raw.get("auto_map") and not trust_remote_code:
            raise InputError(
                f"the architecture {kind!r} comes with Python of its own, which is not run",
                "give --trust-remote-code if you trust whoever made it",
            )
        if not trust_remote_code:
            find_family(str(kind))
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        if trust_remote_code:
            # Code of its own may bring a known architecture under another name.
            config.model_type = type(config).model_type
        return raw, config
    except (InputError, MemoryError):
        raise
    except PermissionError as error:
        raise not_permitted(source) from error
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{source} cannot be used ({reason})", "repair it") from error


def frame_model(
    name: str,
    path: Path,
    config: PretrainedConfig,
    *,
    plain: bool = True,
    trust_remote_code: bool = False,
    dtype: str = AUTO,
) -> SourceModel:
    """The model that a directory's config.json means, with a catalogue of what its files hold.
    InputError where they do not make a model.

    plain: whether every parameter has to be stored as it is used; where it may be packed, whoever
    reads it has to check it. The other arguments are those of `open_model`."""
    # Making a shell changes what the configuration says.
    said = read_dtype(config)
    family = fit_family(find_family(config.model_type), config, name)
    catalogue = open_catalogue(path)
    tied = config.tie_word_embeddings
    tensors = name_fully(catalogue.tensors, family, tied)
    embedding = family.embedding + ".weight"
    if plain and embedding not in tensors:
        raise explain_lacking(path, embedding, tensors, family, tied)
    check_blocks(path, family.blocks, config.num_hidden_layers, tensors)
    if family.experts is not None:
        _check_experts(path, getattr(config, family.experts.count), tensors)

    def check_shapes(shell: Any) -> None:
        if plain:
            _check_shapes(path, shell, family, tensors, tied)

    try:
        if not trust_remote_code:
            # What is computed beside the weights is measured before it takes memory.
            with torch.device("meta"):
                outline = make_shell(config, family, name)
            _check_buffers(path, outline)
            check_shapes(outline)
        shell = make_shell(config, family, name, trust_remote_code=trust_remote_code)
    except UNBUILDABLE as error:
        raise InputError(
            f"{path / 'config.json'} does not describe a model ({error})",
            "use the config.json that came with these weights",
        ) from error
    if trust_remote_code:
        check_shapes(shell)
    kind = choose_dtype(dtype, said, family, shell, tensors) if plain else said or torch.float16
    return SourceModel(
        name,
        path,
        config,
        family,
        kind,
        catalogue,
        tensors,
        shell,
        trust_remote_code=trust_remote_code,
    )


def open_model(
    name: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    dtype: str = AUTO,
) -> SourceModel:
    """Open a model by hub id or path; reads headers only, but unpacks a GGUF file first. InputError
    where it cannot be used.

    revision: of a hub id, a branch, tag or commit. trust_remote_code: run the Python that the
    directory brings, where its config.json names any. dtype: the type to serve it in, `auto` for
    the one that it comes in (see `choose_dtype`).
    """
    check_dtype(dtype)
    if is_gguf(Path(name)) and revision is None:
        path = unpack_gguf(Path(name))
        check_scaling(Path(name), path)
    else:
        path = resolve_path(name, revision=revision, trust_remote_code=trust_remote_code)
    raw, config = read_config(path, trust_remote_code=trust_remote_code)
    if raw.get("quantization_config"):
        raise InputError(f"{name} is already quantized", "give the FP16 or BF16 model it came from")
    return frame_model(name, path, config, trust_remote_code=trust_remote_code, dtype=dtype)
