"""What is asked about int8 inputs, and what of it is known: read without the run's model."""

from collections.abc import Collection

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.int8_inputs.answer import (
    METHODS,
    Activations,
    Method,
    parse_answer,
    read_weights,
)
from awqscope.diagnose.studies.study import Study, name_study
from awqscope.mixedprec.errors import InputError

NAME = name_study("activations")


def ask(run: RunDirectory, methods: Collection[str], windows: int | None) -> Study:
    """The study of so many windows of a run. InputError for a run whose blocks are not swept, and
    for a method or a number that makes no sense."""
    for method in methods:
        if method not in METHODS:
            raise InputError(f"--method {method} is not known", f"give one of {', '.join(METHODS)}")
    if windows is not None and windows < 1:
        raise InputError(f"--windows {windows} is too few", "give at least 1")
    run.read_measured()
    return Study(run, NAME, {"windows": windows})


def read_known(study: Study) -> Activations:
    """What was measured before; of a new run, and of an answer that is not whole, no method."""
    kept = parse_answer(study.read())
    if kept is not None:
        return kept
    record = study.run.read_searched()
    weights = read_weights(study.run)
    return Activations(windows=[], tokens=0, bits=record.spec.bits, weights=weights, methods=[])


def list_missing(known: Activations, methods: Collection[str]) -> list[Method]:
    """Those of `methods` that were not measured, in the order of METHODS."""
    return [method for method in METHODS if method in methods and known.find(method) is None]
