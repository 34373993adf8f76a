"""run.json, typed: what a run or a comparison was asked, what it worked on and with, how far it is,
and its headline.

`read_record` makes a record of what a file holds, `earlier.py` bringing those of earlier versions
up to this one; who writes one changes a record and has `RunDirectory` store it. The JSON Schema in
reports/ is written by `python -m awqscope.diagnose.runs.record`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    InstanceOf,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from awqscope.diagnose.entries.headline import ComparedHeadline, Headline
from awqscope.diagnose.entries.part import Part
from awqscope.diagnose.entries.plan import MemoryPlan
from awqscope.diagnose.entries.served_type import Serving
from awqscope.diagnose.entries.source import Candidate, CutText, Place, PplDefinition, Source
from awqscope.diagnose.entries.stages import Estimator, Fault, Stage, SweepPlan
from awqscope.diagnose.entries.threads import Threads
from awqscope.diagnose.runs.earlier import SCHEMA, bring_up
from awqscope.diagnose.runs.spec import CompareSpec, RunSpec
from awqscope.mixedprec.errors import InputError

REFERENCE = "reference"
UNIFORM, MIXED, CANDIDATE = "uniform", "mixed", "candidate"
State = Literal["running", "stopped", "failed", "done"]
Numbers = TypeVar("Numbers", Headline, ComparedHeadline)


def _read_run_spec(found: Any) -> Any:
    return found if isinstance(found, RunSpec) else RunSpec.from_json(found)


def _read_compare_spec(found: Any) -> Any:
    return found if isinstance(found, CompareSpec) else CompareSpec.from_json(found)


def _read_headline(found: Any) -> Any:
    """An empty headline is none: the file has one from the start."""
    return None if found == {} else found


_written = PlainSerializer(lambda found: found.to_json())
_or_empty = PlainSerializer(lambda found: {} if found is None else found.to_json())
_options = WithJsonSchema({"type": "object"})


def _allow_empty(schema: dict[str, Any]) -> None:
    """In the JSON Schema too, an empty headline stands for none."""
    schema["anyOf"] = [schema["anyOf"][0], {"type": "object", "maxProperties": 0}]


class Begun(Part):
    """What the records of runs and comparisons share."""

    schema_version: Literal[2] = Field(
        default=SCHEMA, alias="schema", description="The version of this layout, counted up."
    )
    kind: str = Field(description="`run` or `compare`.")
    state: State = Field(
        description="A record that says `running` while no process holds `.lock` is of a run that "
        "stopped; commands and pages then say `stopped`, which no file does."
    )
    created: str = Field(description="When it was begun: UTC, ISO 8601.")
    updated: str = Field(description="When this record was last changed.")
    model: str = Field(description="The reference, as it was given.")
    directory: str | None = Field(
        default=None, description="Where it was begun: paths in `spec` are relative to it."
    )
    source: Source = Field(description="The reference, as it was found.")
    ppl_definition: PplDefinition = Field(description="What perplexity is of.")
    versions: Mapping[str, str] = Field(description="Of every library that decides a number.")
    device: str | None = Field(
        default=None, description="The kind of device that computed: `cpu` or `cuda`."
    )
    threads: Threads | None = Field(
        default=None, description="How many threads compute. Earlier versions lack it."
    )
    stages: Mapping[str, Stage] = Field(description="How far each stage is, by name.")
    error: Fault | None = Field(default=None, description="Why it failed; null where it did not.")
    chunks: Mapping[str, int] = Field(
        default={}, description="Windows in a chunk of a stage, decided at its first start."
    )
    sweep: SweepPlan | None = Field(default=None, description="How the sweep was carried out.")
    memory_plan: MemoryPlan | None = Field(
        default=None, description="What it takes, as worked out at its last start."
    )
    serving: Serving | None = Field(
        default=None, description="What servers make of the checkpoint. Earlier versions lack it."
    )

    def to_json(self) -> dict[str, Any]:
        """As run.json has it."""
        told = {"schema": self.schema_version, "kind": self.kind}
        return told | super().to_json()

    def is_done(self, stage: str) -> bool:
        """Whether a stage needs no more work."""
        return stage in self.stages and self.stages[stage].state in ("done", "skipped")

    def find_skipped(self, stage: str) -> str | None:
        """Why a stage was skipped; None where it was not."""
        found = self.stages.get(stage)
        return found.reason or "" if found is not None and found.state == "skipped" else None


class Record(Begun):
    """A run: what `awqscope run` did with a model."""

    # What the model that its blocks are taken from is called.
    quantized: ClassVar[str] = UNIFORM

    kind: Literal["run"] = Field(default="run", description="Always `run`.")
    spec: Annotated[InstanceOf[RunSpec], BeforeValidator(_read_run_spec), _written, _options] = (
        Field(description="The options of `awqscope run` that decide its numbers, by name.")
    )
    calibration: CutText = Field(description="The text that the searches are calibrated on.")
    headline: Annotated[Headline | None, BeforeValidator(_read_headline), _or_empty] = Field(
        description="Its numbers; empty until the sweep is done.", json_schema_extra=_allow_empty
    )
    estimator: Estimator | None = Field(
        default=None, description="How well the estimates of units agree with what was measured."
    )
    uncalibrated: Mapping[str, Sequence[str]] = Field(
        default={},
        description="Of mixtures of experts: block -> names of the experts that saw too few "
        "calibration tokens to be searched.",
    )

    @property
    def measured(self) -> Headline:
        """The headline. InputError while there is none."""
        return _require(self.headline)


class Comparison(Begun):
    """A comparison: a checkpoint made elsewhere, the candidate, beside its reference."""

    # What the model that its blocks are taken from is called.
    quantized: ClassVar[str] = CANDIDATE

    kind: Literal["compare"] = Field(description="Always `compare`.")
    spec: Annotated[
        InstanceOf[CompareSpec], BeforeValidator(_read_compare_spec), _written, _options
    ] = Field(description="The options of `awqscope compare` that decide its numbers, by name.")
    candidate: Candidate = Field(description="The checkpoint, as it was found.")
    headline: Annotated[ComparedHeadline | None, BeforeValidator(_read_headline), _or_empty] = (
        Field(
            description="Its numbers; empty until the sweep is done.",
            json_schema_extra=_allow_empty,
        )
    )
    places: Sequence[Place] = Field(default=(), description="What differs outside the blocks.")

    @property
    def measured(self) -> ComparedHeadline:
        """The headline. InputError while there is none."""
        return _require(self.headline)


def _require(headline: Numbers | None) -> Numbers:
    if headline is None:
        raise InputError("nothing is measured yet", "wait until the sweep is done")
    return headline


AnyRecord = Record | Comparison
_RECORDS: TypeAdapter[AnyRecord] = TypeAdapter(
    Annotated[Record | Comparison, Field(discriminator="kind")]
)


def read_record(found: Any, path: Path) -> AnyRecord:
    """The record in `found`, which `path` holds as JSON. InputError for anything that is no record,
    for one of a newer schema, and, naming the entry, for one that is damaged."""
    if not isinstance(found, dict) or "schema" not in found:
        raise InputError(f"{path} is no run record", "run it again elsewhere")
    schema = found["schema"]
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        said = " ".join(str(schema).split())
        raise InputError(
            f"{path.parent} is a run of schema {said}",
            f"this version reads schemas up to {SCHEMA}; use the version that made it",
        )
    try:
        return _RECORDS.validate_python(bring_up(found))
    except InputError as error:
        raise InputError(f"{path}: {error.what}", error.remedy) from error
    except ValidationError as error:
        # The first name is which kind of record it is.
        where = ".".join(str(part) for part in error.errors()[0]["loc"][1:]) or "kind"
        raise InputError(f"{path} has no usable {where!r}", "run it again elsewhere") from error


def describe_schema() -> str:
    """The JSON Schema of run.json, written from the models."""
    schema = _RECORDS.json_schema(mode="serialization")
    text = json.dumps({"title": "run.json", **schema}, indent=2) + "\n"
    for name, part in schema["$defs"].items():
        # Types of numbers by model go by their titles: pydantic's own names spell out all types.
        for before in ('"', "/"):
            text = text.replace(f'{before}{name}"', f'{before}{part["title"]}"')
    return text


if __name__ == "__main__":
    print(describe_schema(), end="")
