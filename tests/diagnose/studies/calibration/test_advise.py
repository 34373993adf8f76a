"""The whole study on a tiny run: what it searches and measures, that it goes on where it was, and
what it says of a text that the calibration missed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from awqscope.diagnose.inputs.corpora import load_corpus, load_tokenizer
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.calibration import advise
from awqscope.diagnose.studies.calibration.advise import advise_calibration, prepare_study
from awqscope.diagnose.studies.calibration.answer import CalibrationAdvice
from awqscope.diagnose.studies.calibration.asked import Asked
from awqscope.diagnose.studies.calibration.planning import Plan
from awqscope.diagnose.studies.calibration.searching import folder_of
from awqscope.diagnose.trials.finished import OpenedRun, open_run
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.sealed import load_sealed
from awqscope.mixedprec.models.opening import open_model
from tests.help.calibrated import make_loud, write_calibrated_run, write_domains

MakeModel = Callable[..., Path]
ASKED = Asked(counts=(2, 4), draws=1)


@pytest.fixture(scope="module")
def run(
    make_model: MakeModel, text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunDirectory:
    folder = tmp_path_factory.mktemp("calibrate")
    text = shutil.copyfile(text_file, folder / "text.txt")
    return RunDirectory(write_calibrated_run(folder / "run", make_model("llama"), text, text))


@pytest.fixture(scope="module")
def found(run: RunDirectory) -> CalibrationAdvice:
    return advise_calibration(open_run(run, None), ASKED)


def read_searches(folder: Path) -> dict[str, Any]:
    """Of the low width: file -> its metadata, and the bytes of each tensor."""
    found = {}
    for path in sorted(folder.glob("*.w4.safetensors")):
        arrays, metadata = load_sealed(path)
        found[path.name] = metadata, {name: array.tobytes() for name, array in arrays.items()}
    return found


def folder_of_search(opened: OpenedRun, name: str) -> Path:
    return prepare_study(opened, ASKED).folders[name]


def test_what_is_searched_and_measured(found: CalibrationAdvice) -> None:
    assert [(each.name, each.windows) for each in found.calibrations] == [
        *(("run", 8), ("half 1", 4), ("half 2", 4), ("draw 1", 8)),
        *(("2 windows", 2), ("4 windows", 4)),
    ]
    assert [(pair.one, pair.other) for pair in found.pairs] == [
        *(("half 1", "half 2"), ("run", "draw 1")),
    ]
    # Halves are searched at both widths, draws at the one that is measured.
    assert [[each.bits for each in pair.agreements] for pair in found.pairs] == [[4, 8], [4]]
    assert found.given == found.read == 8 and found.search == "fast"
    assert found.fast_tokens == 8192
    own = found.find("run")[0]
    assert own.gain == (0.0, 0.0, 0.0)
    assert all(0 < each.kl[1] <= each.kl[0] <= each.kl[2] for each in found.calibrations)
    assert found.spread == pytest.approx(abs(found.find("draw")[0].gain[0]))
    assert found.windows is not None and found.stability is not None and found.domains == ()


def test_gains_are_shares_of_the_runs_own_damage(found: CalibrationAdvice) -> None:
    own = found.find("run")[0]
    for each in found.calibrations:
        assert each.gain[0] == pytest.approx(1 - each.kl[0] / own.kl[0])
        assert each.delta_ppl[0] == pytest.approx(each.ppl - found.reference_ppl)
        (cell,) = each.cells
        assert (cell.kl, cell.gain) == (each.kl, each.gain)


def test_a_search_is_that_of_a_run_with_those_windows(
    run: RunDirectory, found: CalibrationAdvice, make_model: MakeModel, tmp_path: Path
) -> None:
    opened = open_run(run, None)
    text = Path(opened.spec.calib)
    four = write_calibrated_run(tmp_path / "four", make_model("llama"), text, text, calib_windows=4)
    searched = read_searches(folder_of_search(opened, "4 windows"))
    assert len(searched) == 2 and searched == read_searches(RunDirectory(four).searches)
    # Of halves, with windows that are cut here: every other one of those that the run read.
    model, tokenizer = open_model(str(make_model("llama"))), load_tokenizer(make_model("llama"))
    tokens = tokenizer(load_corpus(str(text)).text)["input_ids"]
    whole = torch.tensor(tokens[: len(tokens) // 32 * 32]).view(-1, 32)
    read = whole[np.linspace(0, len(whole) - 1, 8).round()]
    search_model(
        model, read[::2], list(opened.spec.schemes.values()), tmp_path / "half", exact=False
    )
    assert read_searches(tmp_path / "half") == read_searches(folder_of_search(opened, "half 1"))


def test_the_answer_is_kept(run: RunDirectory, found: CalibrationAdvice) -> None:
    plans: list[Plan] = []
    again = advise_calibration(open_run(run, None), ASKED, on_plan=plans.append)
    assert again == found and plans == []


def test_an_answer_that_cannot_be_read_is_measured_again(
    run: RunDirectory, found: CalibrationAdvice, tmp_path: Path
) -> None:
    path = shutil.copytree(run.path, tmp_path / "run")
    file = path / "studies" / "calibrate.json"
    kept = json.loads(file.read_text(encoding="utf-8"))
    del kept["answer"]["calibrations"][0]["kl"]
    file.write_text(json.dumps(kept), encoding="utf-8")
    assert advise_calibration(open_run(RunDirectory(path), None), ASKED) == found
    assert json.loads(file.read_text(encoding="utf-8"))["answer"] == found.to_json()


def test_another_question_finds_what_was_searched(
    run: RunDirectory, found: CalibrationAdvice, tmp_path: Path
) -> None:
    path = shutil.copytree(run.path, tmp_path / "run")
    opened = open_run(RunDirectory(path), None)
    more = prepare_study(opened, Asked(counts=(2, 4, 6), draws=1)).plan()
    assert (more.searches, more.tokens, more.models) == (1, (6 * 32, 6 * 32), 7)
    assert prepare_study(opened, ASKED).plan().searches == 0
    assert prepare_study(opened, Asked(counts=(2, 4), draws=1, search="exact")).plan().searches == 5


def test_draws_by_another_search_are_set_beside_each_other(run: RunDirectory) -> None:
    opened = open_run(run, None)

    def pairs(**asked: Any) -> list[tuple[str, str]]:
        return prepare_study(opened, Asked(counts=(2,), **asked)).pairs

    halves = ("half 1", "half 2")
    assert pairs(draws=2) == [halves, ("run", "draw 1"), ("run", "draw 2")]
    assert pairs(draws=2, search="exact") == [halves, ("draw 1", "draw 2")]
    assert pairs(draws=1, search="exact") == [halves]


def test_where_nothing_was_drawn_there_is_no_spread(run: RunDirectory, tmp_path: Path) -> None:
    path = RunDirectory(Path(shutil.copytree(run.path, tmp_path / "run")))
    # As many as the run read, which are the run's own.
    found = advise_calibration(open_run(path, None), Asked(counts=(4, 8), draws=0))
    assert found.find("count")[1].gain == (0.0, 0.0, 0.0)
    assert found.spread is None


class _Stop(BaseException):
    pass


@pytest.mark.parametrize("stage", ["search", "comparing choices", "measuring"])
def test_a_stopped_study_goes_on(
    run: RunDirectory, found: CalibrationAdvice, tmp_path: Path, stage: str
) -> None:
    path = RunDirectory(Path(shutil.copytree(run.path, tmp_path / "run")))
    shutil.rmtree(path.path / "studies")
    opened = open_run(path, None)

    def stop(told: str, done: int, total: int) -> None:
        if told == stage and done >= total // 2:
            raise _Stop

    with pytest.raises(_Stop):
        advise_calibration(opened, ASKED, stop)
    before = {p: p.stat().st_mtime_ns for p in folder_of(path).rglob("*.safetensors")}
    assert before
    assert advise_calibration(opened, ASKED) == found
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_equal_halves_agree_and_are_one_model(
    make_model: MakeModel, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same windows twice, one after the other: both halves are those."""
    text = shutil.copyfile(text_file, tmp_path / "text.txt")
    path = write_calibrated_run(tmp_path / "run", make_model("llama"), text, text, calib_windows=4)
    load = advise.load_texts

    def load_twice(*given: Any) -> Any:
        texts = load(*given)
        object.__setattr__(texts, "read", texts.read.repeat_interleave(2, 0))
        return texts

    monkeypatch.setattr(advise, "load_texts", load_twice)
    found = advise_calibration(open_run(RunDirectory(path), None), Asked(counts=(2,), draws=0))
    assert found.stability is not None and found.stability.verdict == "steady"
    assert found.stability.equal == found.stability.of > 0
    (pair,) = found.pairs
    assert pair.kl == pair.difference == (0.0, 0.0, 0.0)
    assert [each.equal for each in pair.agreements] == [each.of for each in pair.agreements]
    assert all(each.clips[0] == 1.0 for each in pair.agreements)


@pytest.fixture(scope="module")
def domains(
    make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Path]:
    """A model in which numbers are loud in a channel, and texts of words and of numbers."""
    folder = tmp_path_factory.mktemp("domains")
    return (make_loud(make_model("llama"), folder), *write_domains(folder))


def test_a_missed_domain_is_found(domains: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, words, numbers = domains
    path = write_calibrated_run(tmp_path / "run", model, words, (words, numbers))
    asked = Asked(counts=(4,), draws=2, calib_also=(str(numbers),))
    found = advise_calibration(open_run(RunDirectory(path), None), asked)
    verdicts = {advice.valid: advice for advice in found.domains}
    assert verdicts[str(numbers)].verdict == "uncovered"
    assert verdicts[str(numbers)].gain[0] > 0.1
    assert verdicts[str(words)].verdict != "uncovered"
    alone, own = found.find("text")[0], found.find("run")[0]
    # The text of the domain alone is best there, and worst on the other.
    assert alone.cells[1].kl[0] < own.cells[1].kl[0]
    assert alone.cells[0].kl[0] > own.cells[0].kl[0]


def test_a_domain_that_is_calibrated_on_is_not_missed(
    domains: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    model, words, numbers = domains
    mixed = tmp_path / "mixed.txt"
    lines = zip(words.read_text().splitlines(), numbers.read_text().splitlines(), strict=False)
    mixed.write_text("\n".join(line for pair in lines for line in pair), encoding="utf-8")
    path = write_calibrated_run(tmp_path / "run", model, mixed, words)
    asked = Asked(counts=(4,), draws=2, calib_also=(str(numbers),), valid_also=(str(numbers),))
    found = advise_calibration(open_run(RunDirectory(path), None), asked)
    assert [column.of_run for column in found.columns] == [True, False]
    assert [advice.verdict == "uncovered" for advice in found.domains] == [False, False]


def test_texts_that_have_changed_are_refused(run: RunDirectory, tmp_path: Path) -> None:
    path = RunDirectory(Path(shutil.copytree(run.path, tmp_path / "run")))
    record = path.read_searched()
    calibration = record.calibration.changed(tokens_sha256="0" * 64)
    path.update(calibration=calibration)
    with pytest.raises(InputError, match="has changed since"):
        prepare_study(open_run(path, None), ASKED)


def test_another_text_and_another_search_at_once_are_refused(run: RunDirectory) -> None:
    opened = open_run(run, None)
    asked = Asked(calib_also=("more.txt",), search="exact")
    with pytest.raises(InputError, match="cannot be told from --search exact beside a run that"):
        prepare_study(opened, asked)


def test_of_experts_a_fast_search_has_no_most(
    make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    path = write_calibrated_run(tmp_path / "run", make_model("mixtral"), text_file, text_file)
    found = advise_calibration(open_run(RunDirectory(path), None), Asked(counts=(2,), draws=0))
    assert found.fast_tokens is None


def test_a_text_that_the_run_has_is_no_other(run: RunDirectory) -> None:
    opened = open_run(run, None)
    with pytest.raises(InputError, match="is the run's own calibration text"):
        prepare_study(opened, Asked(calib_also=(opened.spec.calib,)))
    with pytest.raises(InputError, match="is measured already"):
        prepare_study(opened, Asked(valid_also=(opened.spec.calib,)))
