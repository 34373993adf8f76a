"""What the form asks for: the name and options of a run or a comparison, read from its fields."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from awqscope.app.dashboard import urls
from awqscope.diagnose.options.amounts import write_bytes
from awqscope.diagnose.options.execution import Execution
from awqscope.diagnose.options.option import Option, Shown, list_options
from awqscope.diagnose.options.shared import read_texts
from awqscope.diagnose.runs.naming import default_out
from awqscope.diagnose.runs.spec import SPECS, AnySpec

# By the word for them in an address.
KINDS: Mapping[str, type[AnySpec]] = {word: SPECS[word] for word in urls.KINDS}
# The field that has no option: what it becomes is --out.
NAME = Option(
    name="name",
    kind=str,
    default="",
    is_needed=False,
    least=None,
    most=None,
    help="Left empty, it is made from the model's.",
    shown=Shown(label="Name of the run"),
)
# Options that have no field, and why.
LEFT_OUT: Mapping[str, str] = {
    "out": "it is the name, in the directory of the dashboard's runs",
    "ray": "a cluster is joined from a terminal",
    "chunk_windows": "it follows from the memory",
    "plan": "it is a button beside the fields",
    "trust_remote_code": "no page makes a machine run somebody's Python",
    "as_json": "it is for scripts",
}
# Several texts are a line each, several units have blanks between.
LINES = ("valid",)


class RefusedError(Exception):
    """A request that cannot be started. fields: field -> what is wrong with it."""

    def __init__(self, problems: Mapping[str, str]):
        super().__init__("; ".join(f"{field}: {said}" for field, said in problems.items()))
        self.fields = problems


@dataclass(frozen=True)
class Request:
    """A run or a comparison to start, as its form is filled in, so far unchecked.

    kind: the spec that it is to have. name: of the run; empty to be made from the model's. values:
    of its other fields, by option; an option that is not there is as by default.
    """

    kind: type[AnySpec]
    name: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    def value(self, key: str) -> Any:
        """What a field holds."""
        return self.name if key == NAME.name else self.values.get(key, self._default(key))

    def _default(self, key: str) -> Any:
        option = list_fields(self.kind)[key]
        return "" if option.is_needed else option.default

    @property
    def named_after(self) -> str:
        """The model that a name is made from where none is given."""
        return str(self.value(self.kind.NAMED_AFTER))

    def to_spec(self) -> AnySpec:
        """What is asked for. OptionsError for options that make no sense."""
        return self.kind(**{key: self.value(key) for key in self._fields_of(self.kind)})

    def to_execution(self) -> Execution:
        """Where it is to be carried out. OptionsError for options that make no sense."""
        return Execution(**{key: self.value(key) for key in self._fields_of(Execution)})

    def _fields_of(self, kind: type[AnySpec] | type[Execution]) -> set[str]:
        return list_fields(self.kind).keys() & kind.model_fields.keys()


def list_fields(kind: type[AnySpec]) -> Mapping[str, Option]:
    """The fields of the form for a kind of spec: name -> option."""
    options = list_options(kind, Execution)
    return {NAME.name: NAME} | {key: options[key] for key in options if key not in LEFT_OUT}


def read_request(values: Mapping[str, Any], kind: type[AnySpec]) -> Request:
    """The request in a form's values. What is left empty is as by default; what numbers there are
    is for `check_request` to say."""
    found: dict[str, Any] = {}
    for key, option in list_fields(kind).items():
        value = values.get(key)
        if option.kind is bool:
            found[key] = value is True
        elif value is not None and str(value).strip():
            found[key] = _read_value(key, option, str(value).strip())
    return Request(kind, found.pop(NAME.name, ""), found)


def _read_value(key: str, option: Option, typed: str) -> Any:
    if key in LINES:
        return tuple(_expand(line.strip()) for line in typed.splitlines() if line.strip())
    if option.kind is tuple:
        return tuple(typed.replace(",", " ").split())
    return _expand(typed)


def _expand(text: str) -> str:
    """A path as a shell would give it."""
    return os.path.expanduser(text) if text.startswith("~/") else text


def write_field(option: Option, value: Any) -> Any:
    """A request's value as its field shows it."""
    if option.kind is tuple:
        return ("\n" if option.name in LINES else " ").join(value)
    if option.is_size and isinstance(value, int):
        return write_bytes(value)
    return "" if value is None else value


def request_like(spec: Mapping[str, Any], beside: Mapping[str, Any] = {}) -> Request:
    """A request for a run or comparison like the one with this spec, and with what is `beside` it;
    options that this version does not know are left out."""
    kind = SPECS["compare" if "candidate" in spec else "run"]
    found = {key: value for key, value in {**spec, **beside}.items() if key in list_fields(kind)}
    for key in found:
        if list_fields(kind)[key].kind is tuple:
            found[key] = read_texts(found[key])
    return Request(kind, found.pop(NAME.name, ""), found)


def suggest_name(model: str, taken: Collection[str]) -> str:
    """A free name for a run of `model`."""
    name = default_out(model).name[:90]
    number = 2
    free = name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free
