"""What is wrong with a request before anything is started, field by field."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from awqscope.app.dashboard.jobs.requests import Request, list_fields
from awqscope.app.words.numbers import begin_sentence
from awqscope.diagnose.inputs.sources import parse_spec
from awqscope.diagnose.options.option import OptionsError
from awqscope.diagnose.runs.spec import AnySpec
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import find_family, list_units
from awqscope.mixedprec.files.untrusted import read_json
from awqscope.mixedprec.gguf.origin import is_gguf
from awqscope.mixedprec.models.weight_files import find_weight_files
from awqscope.mixedprec.recipes.recipe import check_names

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
DEVICE = re.compile(r"auto|cpu|cuda|cuda:\d{1,3}(,cuda:\d{1,3})*", re.ASCII)
FLAG = "--[a-z][a-z0-9-]*"


def check_request(request: Request, taken: Collection[str]) -> dict[str, str]:
    """field -> what is wrong with it; empty for a request that can be started. Looks at the files
    that it names, as the command would; what the hub holds only the command will know."""
    problems: dict[str, str] = {}
    if not NAME.fullmatch(request.name):
        problems["name"] = "Use up to 100 letters, digits, dots, - and _, not first a dot or -"
    elif request.name in taken:
        problems["name"] = "There is one of that name already; choose another"
    for read in (request.to_spec, request.to_execution):
        try:
            read()
        except OptionsError as error:
            problems |= {key: _say(request.kind, found) for key, found in error.problems.items()}
    # The model's config.json, which what comes after it is held against.
    config: dict[str, Any] = {}
    checks: Mapping[str, Callable[[Any], object]] = {
        "valid": _check_valid,
        "device": _check_device,
        "workers": partial(_check_workers, request.value("device")),
        "calib": _check_text,
        "model": lambda model: config.update(read_config(model)),
        "reference": lambda model: config.update(read_config(model)),
        "candidate": _check_candidate,
        "keep_fp16": lambda names: _check_units(names, config),
        "seq_len": lambda length: _check_length(length, config),
    }
    for key in checks:
        if key in problems or key not in list_fields(request.kind):
            continue
        try:
            checks[key](request.value(key))
        except InputError as error:
            problems[key] = _say(request.kind, error)
    return problems


def _say(kind: type[AnySpec], error: InputError) -> str:
    """An error as a field shows it, whose label stands where the command line names its option, as
    another field's does for another option."""
    labels = {option.flag: option.shown.label for option in list_fields(kind).values()}
    said = re.sub(rf"^{FLAG} ", "", str(error))
    return begin_sentence(re.sub(FLAG, lambda found: labels.get(found[0], found[0]), said))


def _check_printable(text: str) -> None:
    if not text.isprintable():
        raise InputError("it holds characters that cannot be printed", "type it again")


def _check_text(spec: str) -> None:
    _check_printable(spec)
    parse_spec(spec)


def _check_valid(texts: Sequence[str]) -> None:
    for text in texts:
        _check_text(text)


def _check_length(length: Any, config: Mapping[str, Any]) -> None:
    """Refuse more tokens in a window than the model has positions."""
    longest = config.get("max_position_embeddings")
    if isinstance(longest, int) and length is not None and float(length) > longest:
        raise InputError(f"the model has {longest} positions; give at most that", "")


def _check_device(device: str) -> None:
    if not DEVICE.fullmatch(device):
        raise InputError(f"{device!r} is no device", "give auto, cpu, cuda or cuda:N[,cuda:M]")


def _check_workers(device: str, workers: Any) -> None:
    if workers is not None and device.startswith("cuda"):
        raise InputError("a CUDA device has a process of its own", "leave it empty")


def _find_directory(model: str) -> Path | None:
    """A model's directory; None for a GGUF file, and for what can only be an id on the hub.
    InputError for what is none of them."""
    _check_printable(model)
    path = Path(model)
    if not model:
        raise InputError("a model is needed", "give its directory, or its id on the hub")
    if not path.exists():
        if HUB_ID.fullmatch(model):
            return None
        raise InputError(f"there is no model directory {model}", "check the path")
    if path.is_dir():
        return path
    if is_gguf(path):
        return None
    raise InputError(f"{model} is a file", "give the directory that holds config.json")


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
