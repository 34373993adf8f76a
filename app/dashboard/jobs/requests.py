"""What the form asks for: the name and options of a run or a comparison, read from its fields."""

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from awqscope.app.dashboard import urls
from awqscope.app.words.amounts import parse_bytes
from awqscope.diagnose.runs.compare_spec import CompareSpec
from awqscope.diagnose.runs.naming import default_out
from awqscope.diagnose.runs.spec import CALIB, MAX_MEMORY, VALID, RunSpec, Texts, list_texts


class RefusedError(Exception):
    """A request that cannot be started. fields: field -> what is wrong with it."""

    def __init__(self, problems: Mapping[str, str]):
        super().__init__("; ".join(f"{field}: {said}" for field, said in problems.items()))
        self.fields = problems


@dataclass(frozen=True)
class RunRequest:
    """A run to start: its name and the options of `awqscope run`; see RunSpec."""

    model: str = ""
    name: str = ""
    calib: str = CALIB
    valid: tuple[str, ...] = (VALID,)
    bits: int = RunSpec.bits
    rescue_bits: int = RunSpec.rescue_bits
    group_size: int = RunSpec.group_size
    symmetric: bool = False
    seq_len: int | None = None
    windows: int | None = None
    calib_windows: int = RunSpec.calib_windows
    calib_seq_len: int = RunSpec.calib_seq_len
    z: float = RunSpec.z
    ratio: float = RunSpec.ratio
    delta_ppl: float | None = None
    top_k: int | None = None
    whole_blocks: bool = False
    keep_fp16: tuple[str, ...] = ()
    verify_units: int = RunSpec.verify_units
    dtype: str = RunSpec.dtype
    seed: int = RunSpec.seed
    max_memory: str = MAX_MEMORY
    device: str = "auto"
    workers: int | None = None

    @property
    def named_after(self) -> str:
        """The model that a name is made from where none is given."""
        return self.model

    def to_spec(self) -> RunSpec:
        """The run that is asked for. InputError for options that make no sense."""
        return RunSpec(**_spec_options(self))


@dataclass(frozen=True)
class CompareRequest:
    """A comparison to start: its name and the options of `awqscope compare`; see CompareSpec."""

    reference: str = ""
    candidate: str = ""
    name: str = ""
    valid: tuple[str, ...] = (VALID,)
    seq_len: int | None = None
    windows: int | None = None
    z: float = RunSpec.z
    ratio: float = RunSpec.ratio
    delta_ppl: float | None = None
    top_k: int | None = None
    seed: int = RunSpec.seed
    max_memory: str = MAX_MEMORY
    device: str = "auto"
    workers: int | None = None

    @property
    def named_after(self) -> str:
        """The model that a name is made from where none is given."""
        return self.candidate

    def to_spec(self) -> CompareSpec:
        """The comparison that is asked for. InputError for options that make no sense."""
        return CompareSpec(**_spec_options(self))


Request = RunRequest | CompareRequest
# By the word for them in an address.
KINDS: Mapping[str, type[RunRequest] | type[CompareRequest]] = dict(
    zip(urls.KINDS, (RunRequest, CompareRequest), strict=True)
)
# Options of a command that its spec does not hold.
BESIDE_THE_SPEC = ("name", "device", "workers")

LINES = ("valid",)
LISTS = ("keep_fp16",)
FLAGS = ("symmetric", "whole_blocks")
DECIMALS = ("z", "ratio", "delta_ppl")
TEXTS = ("model", "reference", "candidate", "name", "calib", "dtype", "max_memory", "device")
WORDED = (*LINES, *LISTS, *FLAGS, *DECIMALS, *TEXTS)


def _spec_options(request: Request) -> dict[str, Any]:
    """What a request's spec is made of."""
    options = {key: value for key, value in asdict(request).items() if key not in BESIDE_THE_SPEC}
    valid = request.valid[0] if len(request.valid) == 1 else request.valid
    return {**options, "valid": valid, "max_memory": parse_bytes(request.max_memory)}


def list_fields(kind: type[Request]) -> dict[str, Any]:
    """The fields of a kind of request, each with its default."""
    return {field.name: field.default for field in fields(kind)}


def list_whole(kind: type[Request]) -> list[str]:
    """Its fields that hold whole numbers."""
    return [key for key in list_fields(kind) if key not in WORDED]


def read_request(
    values: Mapping[str, Any], kind: type[Request] = RunRequest
) -> tuple[Request, dict[str, str]]:
    """The request in a form's values, and the fields that hold something else than they should.
    What is left empty is as by default."""
    problems: dict[str, str] = {}
    found: dict[str, Any] = {}
    whole = list_whole(kind)
    for key, default in list_fields(kind).items():
        value = values.get(key)
        if key in FLAGS:
            found[key] = value is True
        elif value is None or str(value).strip() == "":
            found[key] = default
        elif key in LINES:
            found[key] = tuple(
                _expand(line.strip()) for line in str(value).splitlines() if line.strip()
            )
        elif key in LISTS:
            found[key] = tuple(str(value).replace(",", " ").split())
        elif key in TEXTS:
            found[key] = _expand(str(value).strip())
        else:
            number = _read_number(value)
            if number is None or (key in whole and not number.is_integer()):
                problems[key] = "Give a whole number" if key in whole else "Give a number"
                found[key] = default
            else:
                found[key] = int(number) if key in whole else number
    return kind(**found), problems


def _expand(text: str) -> str:
    """A path as a shell would give it."""
    return os.path.expanduser(text) if text.startswith("~/") else text


def _read_number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def write_field(value: Any) -> Any:
    """A request's value as its field holds it: several texts are a line each."""
    if isinstance(value, tuple):
        return "\n".join(value)
    return "" if value is None else value


def request_like(spec: Mapping[str, Any], beside: Mapping[str, Any] = {}) -> Request:
    """A request for a run or comparison like the one with this spec, and with what is `beside` it;
    options that this version does not know are left out."""
    kind = CompareRequest if "candidate" in spec else RunRequest
    named = list_fields(kind)
    known = {key: value for key, value in spec.items() if key in named}
    if "valid" in known:
        known["valid"] = list_texts(_as_texts(known["valid"]))
    if "keep_fp16" in known:
        known["keep_fp16"] = tuple(known["keep_fp16"])
    if "max_memory" in known:
        known["max_memory"] = write_bytes(known["max_memory"])
    return kind(**known, **beside)


def _as_texts(valid: Any) -> Texts:
    return valid if isinstance(valid, str) else tuple(valid)


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
