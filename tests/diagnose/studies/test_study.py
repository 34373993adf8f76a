"""Answers kept beside a run, and the parts of a study that was stopped."""

from pathlib import Path

import pytest

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.study import (
    SCHEMA,
    Study,
    find_holder,
    name_study,
    read_answer,
    studies_of,
)
from awqscope.mixedprec.errors import InputError
from tests.help.runs import write_run


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(write_run(tmp_path))


def test_an_answer_is_kept_for_its_question_alone(run: RunDirectory) -> None:
    study = Study(run, "why-5", {"windows": 4})
    assert study.read() is None
    with study.hold():
        study.keep({"found": 1})
    assert study.read() == {"found": 1}
    assert Study(run, "why-5", {"windows": 8}).read() is None
    kept = read_answer(study.file)
    assert kept is not None
    assert kept["asked"] == {"windows": 4, "run": run.read().created, "schema": SCHEMA}


def test_a_stopped_study_goes_on_with_its_parts(run: RunDirectory) -> None:
    study = Study(run, "why-5", {"windows": 4})
    with pytest.raises(KeyboardInterrupt), study.hold():
        assert study.part("first", lambda: [1, 2]) == [1, 2]
        raise KeyboardInterrupt

    def fail() -> None:
        raise AssertionError("it was made already")

    with study.hold():
        assert study.part("first", fail) == [1, 2]
        study.keep({"found": 1})
    assert not study.parts.exists()


def test_parts_of_another_question_are_not_taken(run: RunDirectory) -> None:
    with Study(run, "why-5", {"windows": 4}).hold():
        Study(run, "why-5", {"windows": 4}).part("first", lambda: 1)
    other = Study(run, "why-5", {"windows": 8})
    with other.hold():
        assert other.part("first", lambda: 2) == 2


def test_a_run_begun_anew_has_no_answers(run: RunDirectory) -> None:
    study = Study(run, "why-5", {})
    with study.hold():
        study.keep({"found": 1})
    run.update(created="2020-01-01T00:00:00+00:00")
    assert study.read() is None


def test_one_process_works_on_a_study(run: RunDirectory) -> None:
    study = Study(run, "why-5", {})
    with study.hold():
        assert find_holder(run, study.name)
        with pytest.raises(InputError, match="being worked on"), study.hold():
            pass
        with Study(run, "why-6", {}).hold():
            pass
    assert find_holder(run, study.name) is None


def test_what_another_study_writes_is_left_alone(run: RunDirectory) -> None:
    studies_of(run).mkdir()
    mine, others = (studies_of(run) / f".{name}.json.1.tmp" for name in ("why-5", "why-6"))
    for path in (mine, others):
        path.touch()
    with Study(run, "why-5", {}).hold():
        assert not mine.exists() and others.exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "answer": 3}'])
def test_what_is_no_answer_is_none(run: RunDirectory, text: str) -> None:
    studies_of(run).mkdir()
    path = studies_of(run) / "why-5.json"
    path.write_text(text)
    assert read_answer(path) is None
    assert Study(run, "why-5", {}).read() is None


def test_a_study_is_named_after_its_command_and_block() -> None:
    assert (name_study("calibrate"), name_study("why", 29)) == ("calibrate", "why-29")
    with pytest.raises(ValueError, match="no name"):
        Study(RunDirectory(Path("nowhere")), "../why", {})
