"""What the form asks for: a run's name and options, read and checked before anything is started."""

import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from app.commands.common import default_out, parse_bytes
from diagnose.sources import parse_spec
from diagnose.spec import RunSpec
from mixedprec.dtypes import AUTO, check_dtype
from mixedprec.errors import InputError
from mixedprec.families import find_family, list_units
from mixedprec.recipe import check_names
from mixedprec.scheme import Scheme
from mixedprec.untrusted import list_visible, read_json

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
LARGEST = 2**31 - 1


class RefusedError(Exception):
    """A request that cannot be started. fields: field -> what is wrong with it."""

    def __init__(self, problems: Mapping[str, str]):
        super().__init__("; ".join(f"{field}: {said}" for field, said in problems.items()))
        self.fields = problems


@dataclass(frozen=True)
class RunRequest:
    """What the form asks for: a run's name and the options of `awqscope run`; see RunSpec."""

    model: str = ""
    name: str = ""
    calib: str = "wikitext2:train"
    valid: str = "wikitext2:test"
    bits: int = 4
    rescue_bits: int = 8
    group_size: int = 128
    symmetric: bool = False
    seq_len: int | None = None
    windows: int | None = None
    calib_windows: int = 128
    calib_seq_len: int = 512
    z: float = 3.5
    ratio: float = 3.0
    delta_ppl: float | None = None
    top_k: int | None = None
    whole_blocks: bool = False
    keep_fp16: tuple[str, ...] = ()
    verify_units: int = 12
    seed: int = 0
    max_memory: str = "8GiB"
    dtype: str = AUTO

    def to_spec(self) -> RunSpec:
        """The run that is asked for. InputError for options that make no sense."""
        options = {key: value for key, value in asdict(self).items() if key != "name"}
        return RunSpec(**{**options, "max_memory": parse_bytes(self.max_memory)})


TEXTS = ("model", "name", "calib", "valid", "max_memory", "dtype")
FLAGS = ("symmetric", "whole_blocks")
DECIMALS = ("z", "ratio", "delta_ppl")
DEFAULTS = {field.name: field.default for field in fields(RunRequest)}
WHOLE = tuple(key for key in DEFAULTS if key not in (*TEXTS, *FLAGS, *DECIMALS, "keep_fp16"))


def read_request(values: Mapping[str, Any]) -> tuple[RunRequest, dict[str, str]]:
    """The request in a form's values, and the fields that hold something else than they should.
    What is left empty is as by default."""
    problems: dict[str, str] = {}
    found: dict[str, Any] = {}
    for key, default in DEFAULTS.items():
        value = values.get(key)
        if key in FLAGS:
            found[key] = value is True
        elif key == "keep_fp16":
            listed = value if isinstance(value, list) else []
            found[key] = tuple(str(unit).strip() for unit in listed)
        elif value is None or value == "":
            found[key] = default
        elif key in TEXTS:
            text = str(value).strip()
            found[key] = os.path.expanduser(text) if text.startswith("~/") else text
        else:
            number = _read_number(value)
            if number is None or (key in WHOLE and not number.is_integer()):
                problems[key] = "Give a whole number" if key in WHOLE else "Give a number"
                found[key] = default
            else:
                found[key] = int(number) if key in WHOLE else number
    return RunRequest(**found), problems


def _read_number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def request_like(spec: Mapping[str, Any]) -> RunRequest:
    """A request for a run like the one with this spec, without its name; options that this version
    does not know are left out, and of several texts to measure on all but the first."""
    known = {key: value for key, value in spec.items() if key in DEFAULTS and key != "name"}
    if not isinstance(known.get("valid", ""), str):
        known["valid"] = known["valid"][0]
    known["keep_fp16"] = tuple(known.get("keep_fp16", ()))
    known["max_memory"] = write_bytes(known.get("max_memory", parse_bytes(RunRequest.max_memory)))
    return RunRequest(**known)


def write_bytes(count: int) -> str:
    """An amount of memory as `parse_bytes` reads it."""
    gib, rest = divmod(count, 2**30)
    return str(count) if rest else f"{gib}GiB"


def suggest_name(model: str, taken: Collection[str]) -> str:
    """A free name for a run of `model`."""
    name = default_out(model).name[:90]
    number = 2
    free = name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free


def check_request(request: RunRequest, taken: Collection[str]) -> dict[str, str]:
    """field -> what is wrong with it; empty for a request that can be started. Looks at the files
    that it names, as the command would; what the hub holds only the command will know."""
    problems: dict[str, str] = {}
    if not NAME.fullmatch(request.name):
        problems["name"] = "Use up to 100 letters, digits, dots, - and _, not first a dot or -"
    elif request.name in taken:
        problems["name"] = "There is one of that name already; choose another"
    for key in ("calib", "valid"):
        _note(problems, key, lambda key=key: _check_text(getattr(request, key)))
    for key in WHOLE:
        _note(problems, key, lambda key=key: _check_whole(key, getattr(request, key)))
    _note(problems, "rescue_bits", lambda: _check_rescue(request.bits, request.rescue_bits))
    _note(problems, "max_memory", lambda: parse_bytes(request.max_memory))
    _note(problems, "dtype", lambda: check_dtype(request.dtype))
    config: dict[str, Any] = {}
    _note(problems, "model", lambda: config.update(read_config(request.model)))
    _note(problems, "keep_fp16", lambda: _check_units(request.keep_fp16, config))
    longest = config.get("max_position_embeddings")
    if isinstance(longest, int) and request.seq_len is not None and request.seq_len > longest:
        problems.setdefault("seq_len", f"The model has {longest} positions; give at most that")
    return problems


def _note(problems: dict[str, str], key: str, check: Any) -> None:
    """Keep what a check of a field says, unless something is said already."""
    try:
        check()
    except InputError as error:
        # The field's label stands where the command line names its option.
        said = re.sub(r"^--[a-z-]+ ", "", str(error))
        problems.setdefault(key, said[:1].upper() + said[1:])


def _check_printable(text: str) -> None:
    if not text.isprintable():
        raise InputError("it holds characters that cannot be printed", "type it again")


def _check_text(spec: str) -> None:
    _check_printable(spec)
    parse_spec(spec)


def _check_whole(key: str, value: int | None) -> None:
    """Refuse a whole number as the command line would, whatever the other options are."""
    if value is None:
        return
    if abs(value) > LARGEST:
        raise InputError(f"{value} is too large", f"give at most {LARGEST}")
    if key in ("bits", "rescue_bits"):
        Scheme(value, RunRequest.group_size, False)
        return
    options: dict[str, Any] = {"model": "", "calib": "", "valid": "", key: value}
    RunSpec(**options)


def _check_rescue(bits: int, rescue: int) -> None:
    if rescue <= bits:
        raise InputError(f"{rescue} is not above {bits} bits", "rescue at more than the rest gets")


def read_config(model: str) -> dict[str, Any]:
    """config.json of a model directory; empty for what can only be an id on the hub. InputError for
    a directory that no run could use."""
    _check_printable(model)
    path = Path(model)
    if not model:
        raise InputError("a model is needed", "give its directory, or its id on the hub")
    if not path.exists():
        if HUB_ID.fullmatch(model):
            return {}
        raise InputError(f"there is no model directory {model}", "check the path")
    if not path.is_dir():
        raise InputError(f"{model} is a file", "give the directory that holds config.json")
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
    if not list_visible(path, "*.safetensors"):
        raise InputError(
            f"{model} holds no safetensors file", "pickles are never loaded; convert it first"
        )
    return config


def _check_units(names: Sequence[str], config: Mapping[str, Any]) -> None:
    """Refuse names that can be no unit, or that are none of a model whose config is known."""
    for name in names:
        if not re.fullmatch(r"\d{1,5}\.[a-z_]{1,40}", name, re.ASCII):
            raise InputError(f"{name!r} is no unit", "name units like 3.down")
    blocks = config.get("num_hidden_layers")
    if names and isinstance(blocks, int) and blocks > 0:
        check_names(list(names), list_units(find_family(config["model_type"]), blocks))
