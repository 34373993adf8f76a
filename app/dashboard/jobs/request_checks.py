"""What is wrong with a request before anything is started, field by field."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from awqscope.app.dashboard.jobs.requests import CompareRequest, Request, RunRequest, list_whole
from awqscope.app.words.amounts import parse_bytes
from awqscope.app.words.numbers import begin_sentence
from awqscope.diagnose.inputs.sources import parse_spec
from awqscope.diagnose.runs.spec import RunSpec, check_texts
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import find_family, list_units
from awqscope.mixedprec.files.untrusted import read_json
from awqscope.mixedprec.models.dtypes import check_dtype
from awqscope.mixedprec.models.weight_files import find_weight_files
from awqscope.mixedprec.recipes.recipe import check_names
from awqscope.mixedprec.scheme import Scheme

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
DEVICE = re.compile(r"auto|cpu|cuda|cuda:\d{1,3}(,cuda:\d{1,3})*", re.ASCII)
LARGEST = 2**31 - 1


def check_request(request: Request, taken: Collection[str]) -> dict[str, str]:
    """field -> what is wrong with it; empty for a request that can be started. Looks at the files
    that it names, as the command would; what the hub holds only the command will know."""
    problems: dict[str, str] = {}
    if not NAME.fullmatch(request.name):
        problems["name"] = "Use up to 100 letters, digits, dots, - and _, not first a dot or -"
    elif request.name in taken:
        problems["name"] = "There is one of that name already; choose another"
    _note(problems, "valid", lambda: _check_valid(request.valid))
    for key in list_whole(type(request)):
        _note(problems, key, lambda key=key: _check_whole(key, getattr(request, key)))
    _note(problems, "max_memory", lambda: parse_bytes(request.max_memory))
    _note(problems, "device", lambda: _check_device(request.device))
    _note(problems, "workers", lambda: _check_workers(request.device, request.workers))
    if isinstance(request, CompareRequest):
        config = _note_config(problems, "reference", request.reference)
        _note(problems, "candidate", lambda: _check_candidate(request.candidate))
    else:
        _note(problems, "calib", lambda: _check_text(request.calib))
        _note(problems, "dtype", lambda: check_dtype(request.dtype))
        _note(problems, "rescue_bits", lambda: _check_rescue(request.bits, request.rescue_bits))
        config = _note_config(problems, "model", request.model)
        _note(problems, "keep_fp16", lambda: _check_units(request.keep_fp16, config))
    longest = config.get("max_position_embeddings")
    if isinstance(longest, int) and request.seq_len is not None and request.seq_len > longest:
        problems.setdefault("seq_len", f"The model has {longest} positions; give at most that")
    return problems


def _note_config(problems: dict[str, str], key: str, model: str) -> dict[str, Any]:
    """config.json of the model of a field; empty where it is not known, or no run could use it."""
    config: dict[str, Any] = {}
    _note(problems, key, lambda: config.update(read_config(model)))
    return config


def _note(problems: dict[str, str], key: str, check: Callable[..., object]) -> None:
    """Keep what a check of a field says, unless something is said already."""
    try:
        check()
    except InputError as error:
        # The field's label stands where the command line names its option.
        said = re.sub(r"^--[a-z-]+ ", "", str(error))
        problems.setdefault(key, begin_sentence(said))


def _check_printable(text: str) -> None:
    if not text.isprintable():
        raise InputError("it holds characters that cannot be printed", "type it again")


def _check_text(spec: str) -> None:
    _check_printable(spec)
    parse_spec(spec)


def _check_valid(texts: Sequence[str]) -> None:
    check_texts(tuple(texts))
    for text in texts:
        _check_text(text)


def _check_whole(key: str, value: int | None) -> None:
    """Refuse a whole number as the command line would, whatever the other options are."""
    if value is None:
        return
    if abs(value) > LARGEST:
        raise InputError(f"{value} is too large", f"give at most {LARGEST}")
    if key in ("bits", "rescue_bits"):
        Scheme(value, RunRequest.group_size, False)
        return
    if key == "workers":
        return
    options: dict[str, Any] = {"model": "", "calib": "", "valid": "", key: value}
    RunSpec(**options)


def _check_device(device: str) -> None:
    if not DEVICE.fullmatch(device):
        raise InputError(f"{device!r} is no device", "give auto, cpu, cuda or cuda:N[,cuda:M]")


def _check_workers(device: str, workers: int | None) -> None:
    if workers is not None and workers < 1:
        raise InputError(f"{workers} is too small", "give at least 1")
    if workers is not None and device.startswith("cuda"):
        raise InputError("a CUDA device has a process of its own", "leave it empty")


def _check_rescue(bits: int, rescue: int) -> None:
    if rescue <= bits:
        raise InputError(f"{rescue} is not above {bits} bits", "rescue at more than the rest gets")


def _find_directory(model: str) -> Path | None:
    """A model's directory; None for what can only be an id on the hub. InputError for what is
    neither."""
    _check_printable(model)
    path = Path(model)
    if not model:
        raise InputError("a model is needed", "give its directory, or its id on the hub")
    if not path.exists():
        if HUB_ID.fullmatch(model):
            return None
        raise InputError(f"there is no model directory {model}", "check the path")
    if not path.is_dir():
        raise InputError(f"{model} is a file", "give the directory that holds config.json")
    return path


def _check_candidate(model: str) -> None:
    """Refuse a candidate that is not a model's directory; what is in it the command will check."""
    path = _find_directory(model)
    if path is not None and (path / "run.json").exists():
        raise InputError(f"{model} is a run", f"its checkpoint is {path / 'checkpoint'}")
    if path is not None and not (path / "config.json").exists():
        raise InputError(
            f"{model} has no config.json", "give the directory of a Hugging Face checkpoint"
        )


def read_config(model: str) -> dict[str, Any]:
    """config.json of a model directory; empty for what can only be an id on the hub. InputError for
    a directory that no run could use."""
    path = _find_directory(model)
    if path is None:
        return {}
    try:
        config = read_json(path / "config.json")
    except FileNotFoundError as error:
        raise InputError(
            f"{model} has no config.json", "give the directory of a Hugging Face model"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path / 'config.json'} cannot be read", "download the model again"
        ) from error
    if not isinstance(config, dict):
        raise InputError(f"{path / 'config.json'} is damaged", "download the model again")
    find_family(str(config.get("model_type", "")))
    find_weight_files(path)
    return config


def _check_units(names: Sequence[str], config: Mapping[str, Any]) -> None:
    """Refuse names that can be no unit, or that are none of a model whose config is known."""
    for name in names:
        if not re.fullmatch(r"\d{1,5}\.[a-z_]{1,40}", name, re.ASCII):
            raise InputError(f"{name!r} is no unit", "name units like 3.down")
    blocks = config.get("num_hidden_layers")
    if names and isinstance(blocks, int) and blocks > 0:
        check_names(list(names), list_units(find_family(config["model_type"]), blocks))
