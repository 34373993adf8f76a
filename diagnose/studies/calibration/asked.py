"""What can be asked of a run's calibration, checked before anything is searched."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from awqscope.diagnose.inputs.corpora import load_corpus
from awqscope.diagnose.inputs.sources import check_specs
from awqscope.diagnose.options.option import MOST
from awqscope.diagnose.options.shared import WAYS
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.studies.calibration.answer import CalibrationAdvice
from awqscope.diagnose.studies.study import Study, name_study
from awqscope.mixedprec.errors import InputError

NAME = name_study("calibrate")
# The AWQ paper's 128 windows, and fewer by halves.
COUNTS = (8, 16, 32, 64, 128)
DRAWS = 2
MOST_DRAWS = 16


@dataclass(frozen=True)
class Asked:
    """What is asked of a run's calibration.

    counts: of windows, for the curve. draws: how many other sets of windows of the same text are
    searched. calib_also, valid_also: SPECs of texts beside the run's own. search: `fast` or
    `exact`, None for the run's own. windows: the most validation windows to measure on, None for
    as many of the run's as have MOST_TOKENS. Errors: InputError for what makes no sense."""

    counts: tuple[int, ...] = COUNTS
    draws: int = DRAWS
    calib_also: tuple[str, ...] = ()
    valid_also: tuple[str, ...] = ()
    search: str | None = None
    windows: int | None = None

    def __post_init__(self) -> None:
        for count in self.counts:
            if not (isinstance(count, int) and 1 <= count <= MOST):
                raise InputError(f"--counts {count} is no number of windows", "give at least 1")
        if not (isinstance(self.draws, int) and 0 <= self.draws <= MOST_DRAWS):
            raise InputError(
                f"--draws {self.draws} is out of range", f"give 0 to {MOST_DRAWS} of them"
            )
        if self.search not in (None, *WAYS):
            raise InputError(f"--search {self.search} is not known", f"give {' or '.join(WAYS)}")
        windows = self.windows
        if windows is not None and not (isinstance(windows, int) and 2 <= windows <= MOST):
            raise InputError(f"--windows {windows} is too small", "give at least 2")
        for name, texts in (("calib", self.calib_also), ("valid", self.valid_also)):
            twice = next((text for text in texts if texts.count(text) > 1), None)
            if twice is not None:
                raise InputError(f"--{name}-also {twice} is given twice", "give each text once")

    def to_json(self) -> dict[str, Any]:
        """In the types of JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @property
    def beside(self) -> tuple[str, ...]:
        """The SPECs of all texts beside the run's own."""
        return (*self.calib_also, *self.valid_also)

    def study(self, run: RunDirectory, hashes: Mapping[str, str]) -> Study:
        """The study that answers it. hashes: SHA-256 of each text of `beside`."""
        search = self.search or run.read_searched().spec.search
        return Study(run, NAME, {**self.to_json(), "search": search, "texts": dict(hashes)})


# What is asked where nothing else is said.
USUAL = Asked()


def parse_counts(text: str) -> tuple[int, ...]:
    """Counts as they are typed, `8,16,32`, in order and each once. InputError for anything else."""
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as error:
        raise InputError(f"{text!r} is no list of counts", "give it like 8,16,32") from error


def check_asked(asked: Asked, spec: RunSpec) -> None:
    """Raise InputError, before the model is opened, for a text that cannot be one or is the run's
    own, and for another search than the run's where further texts are calibrated on: what they give
    back of the run's damage would be that search's too."""
    if asked.calib_also and asked.search not in (None, spec.search):
        raise InputError(
            f"--calib-also cannot be told from --search {asked.search} beside a run that was "
            f"searched {spec.search}",
            "leave one of them out",
        )
    check_specs(asked.beside)
    if spec.calib in asked.calib_also:
        raise InputError(
            f"--calib-also {spec.calib} is the run's own calibration text", "give another"
        )
    twice = next((text for text in asked.valid_also if text in spec.valid), None)
    if twice is not None:
        raise InputError(f"--valid-also {twice} is measured already", "leave it out")


def read_advice(study: Study) -> CalibrationAdvice | None:
    """The answer that is there, None for none that can be used."""
    kept = study.read()
    try:
        return None if kept is None else CalibrationAdvice.model_validate_json(json.dumps(kept))
    except ValidationError:
        # Of another version, or changed: it is measured again.
        return None


def find_kept(run: RunDirectory, asked: Asked) -> CalibrationAdvice | None:
    """The answer to just this question, found without the run's model. InputError for what cannot
    be asked of the run."""
    check_asked(asked, run.read_measured().spec)
    return read_advice(asked.study(run, {text: load_corpus(text).hash for text in asked.beside}))
