"""A GGUF file unpacked into a model directory, so that it can be read like any other.

transformers reads the file: it knows the names of llama.cpp's tensors and undoes llama's reordering
of query and key rows, and the package gguf undoes their quantization. What comes out is stored with
a tokenizer and `origin.json`, which says how the weights were stored: they have lost precision
already, and whoever reports what quantizing them again costs must say so.

As a model to quantize it is stored in float16; as a checkpoint to measure in float32, which holds
exactly what the file stands for.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import find_family
from awqscope.mixedprec.files.atomic import report_full_disk, write_json
from awqscope.mixedprec.files.untrusted import read_json
from awqscope.mixedprec.gguf.contents import name_tensors, read_contents, read_stated
from awqscope.mixedprec.gguf.origin import ORIGIN

MAGIC = b"GGUF"
REMEDY = "give the 16-bit model that it was made from, as safetensors"


def unpack_gguf(path: Path, dtype: torch.dtype = torch.float16) -> Path:
    """The model directory made from a GGUF file, in float16 or float32: unpacked once, kept in the
    user's cache under the file's SHA-256, made again where it is gone.

    Holds the whole model in memory in float32 while it unpacks. InputError where the file is no
    GGUF, or of an architecture that transformers or awqscope does not read.
    """
    _check_magic(path)
    exact = "-float32" if dtype == torch.float32 else ""
    folder = find_cache() / "gguf" / f"{_hash_file(path)[:32]}{exact}"
    if not _is_whole(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _appearing(folder) as temporary, report_full_disk(folder):
            _unpack(path, temporary, dtype)
    return folder


def check_scaling(path: Path, folder: Path) -> None:
    """Raise InputError where a GGUF file, unpacked in `folder`, scales its rotary embeddings:
    transformers does not read that, and its model would compute something else."""
    # Earlier versions did not say it.
    scaled = read_json(folder / ORIGIN).get("scaled")
    if scaled:
        raise InputError(
            f"{path} scales its rotary embeddings ({scaled[0]}), which transformers does not read",
            REMEDY,
        )


def find_cache() -> Path:
    """Where models are kept that were fetched or unpacked: the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "awqscope"


def _is_whole(folder: Path) -> bool:
    """Whether everything is there that was written, as far as names tell."""
    try:
        names = read_json(folder / ORIGIN)["files"]
        return all((folder / name).is_file() for name in names)
    except (OSError, LookupError, TypeError, ValueError):
        return False


def _hash_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_magic(path: Path) -> None:
    try:
        with open(path, "rb") as file:
            found = file.read(len(MAGIC))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})", "check the file") from error
    if found != MAGIC:
        raise InputError(f"{path} is no GGUF file", "give one that llama.cpp wrote, or a directory")


@contextlib.contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A directory beside `folder` that takes its name once it is whole. Where another process was
    first, theirs stays."""
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        yield temporary
        if not _is_whole(folder):
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack(path: Path, folder: Path, dtype: torch.dtype) -> None:
    """Write what a GGUF file holds as a model directory."""
    where: dict[str, Any] = {
        "pretrained_model_name_or_path": path.parent,
        "gguf_file": path.name,
        "local_files_only": True,
        "trust_remote_code": False,
    }
    with _quiet():
        try:
            stated, contents = read_stated(path), read_contents(path)
            config = AutoConfig.from_pretrained(**where)
            find_family(config.model_type)
            read, loaded = AutoModelForCausalLM.from_pretrained(
                **where, dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(**where)
            names = name_tensors(read, contents.tensors)
        except (InputError, MemoryError):
            raise
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"{path} cannot be read as a model ({reason})", REMEDY) from error
        _check_complete(path, loaded["missing_keys"])
        # A model that was read from GGUF says that it is quantized, and then is not saved.
        entries = read.config.to_dict()
        entries.pop("quantization_config", None)
        model = type(read)._from_config(type(read.config)(**entries), dtype=torch.float32)
        model.load_state_dict(read.state_dict())
        model.to(dtype).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        drop_tokens(folder, model.get_input_embeddings().num_embeddings)
    tensors = contents.tensors
    origin = {
        "file": path.name,
        "sha256": _hash_file(path),
        "tensors": dict(Counter(kind for kind, _ in tensors.values())),
        "stored": {names[name]: held for name, held in tensors.items() if name in names},
        "bytes": sum(size for _, size in tensors.values()),
        "stated": stated,
        "scaled": contents.scaled,
        "files": sorted(written.name for written in folder.iterdir()),
    }
    (folder / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")


def _check_complete(path: Path, missing: Collection[str]) -> None:
    """Raise InputError where transformers found no weights for some of the model's, which it leaves
    random: of a mixture that is stored as a llama it reads no experts."""
    if missing:
        more = f", nor {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{path} has no {min(missing)}{more}, by the names that transformers reads", REMEDY
        )


def drop_tokens(folder: Path, rows: int) -> None:
    """Take out of a saved tokenizer the tokens that its model has no row for. transformers adds
    some that a GGUF file does not list, such as <|endoftext|>: a text that holds one would be
    tokens that no model of the file knows."""
    path = folder / "tokenizer.json"
    if not path.exists():
        return
    saved = read_json(path)
    known = [token for token in saved["added_tokens"] if token["id"] < rows]
    unknown = {token["content"] for token in saved["added_tokens"]} - {t["content"] for t in known}
    if not unknown:
        return
    write_json(path, {**saved, "added_tokens": known})
    settings = read_json(folder / "tokenizer_config.json")
    # Left out, it would be what the tokenizer's class has in its place, and be added again.
    named = {
        name: None
        for name, value in settings.items()
        if isinstance(value, str) and value in unknown
    }
    write_json(folder / "tokenizer_config.json", {**settings, **named})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars and warnings from the terminal."""
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
