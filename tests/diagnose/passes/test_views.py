"""The views of blocks on as many windows as the verdict needs, in whole runs of a tiny model."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from awqscope.diagnose.passes import views
from awqscope.diagnose.passes.chunks import count_work
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import Record
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages import pipeline
from awqscope.diagnose.stages.pipeline import run_pipeline
from awqscope.diagnose.statistics import looks
from awqscope.diagnose.statistics.looks import list_looks
from awqscope.diagnose.sweep.branches import Sweep, block_branches
from awqscope.diagnose.sweep.surveys import where_measured
from awqscope.mixedprec.models.opening import open_model
from tests.help.whole_runs import assert_equal_runs, measuring_spec

MakeModel = Callable[..., Path]
WINDOWS = 24


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of a tiny model have few tokens."""
    monkeypatch.setattr(looks, "LEAST_TOKENS", 0)


@pytest.fixture(scope="module")
def spec(make_model: MakeModel, text_file: Path) -> RunSpec:
    """A run of a tiny model on many windows."""
    return measuring_spec(make_model, text_file).change(windows=WINDOWS, chunk_windows=4)


def carry_out(
    spec: RunSpec, out: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[RunDirectory, Mapping[str, torch.Tensor]]:
    """A run, and the scores by window that its sweep left for the later stages."""
    kept: dict[str, torch.Tensor] = {}
    swept = pipeline.MEASURING["sweep"]

    def sweep(spec: RunSpec, inputs: Any, at: Any) -> None:
        swept(spec, inputs, at)
        kept.update(load_file(at.run.path / "work/sweep.safetensors"))

    monkeypatch.setitem(pipeline.MEASURING, "sweep", sweep)
    return run_pipeline(spec, out, lambda *progress: None), kept


def rows_of(run: RunDirectory) -> dict[tuple[int, str], dict[str, Any]]:
    return {(row["block"], row["view"]): row for row in run.read_table("blocks").to_pylist()}


def read(run: RunDirectory) -> Record:
    return run.read_searched()


def test_a_sample_is_measured_as_in_a_whole_sweep(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, every = carry_out(spec.change(sweep="exact"), tmp_path / "whole", monkeypatch)
    monkeypatch.undo()
    monkeypatch.setattr(looks, "LEAST_TOKENS", 0)
    monkeypatch.setattr(views, "list_unsure", lambda *args: ())
    some, sampled = carry_out(spec, tmp_path / "some", monkeypatch)
    assert read(whole).sweep.looks is None
    assert read(some).sweep.looks == [looks.LEAST_WINDOWS]
    # Which windows are in a batch together moves the last bits.
    close = {"rtol": 1e-5, "atol": 1e-9}
    for name in ("kl.uniform", "nll.reference", "token.kl_uniform"):
        torch.testing.assert_close(sampled[name], every[name], **close)
    mask = where_measured(sampled, "restored.1")
    assert mask.sum() == looks.LEAST_WINDOWS
    for view in ("isolated.0", "cumulative.1", "restored.1"):
        torch.testing.assert_close(sampled[f"kl.{view}"][mask], every[f"kl.{view}"][mask], **close)
    for key, row in rows_of(some).items():
        expected = rows_of(whole)[key]
        assert row["windows"] == looks.LEAST_WINDOWS and expected["windows"] == WINDOWS
        assert row["kl_low"] <= row["kl"] <= row["kl_high"]
        # Its interval holds what the whole text says.
        slack = 0.1 * expected["kl"]
        assert row["kl_low"] - slack <= expected["kl"] <= row["kl_high"] + slack
    ours, theirs = read(some).measured, read(whole).measured
    assert ours.kl.uniform == pytest.approx(theirs.kl.uniform, rel=1e-6)
    assert ours.ppl.reference == pytest.approx(theirs.ppl.reference, rel=1e-7)
    assert ours.range.reference == theirs.range.reference
    assert ours.additivity == pytest.approx(theirs.additivity, rel=0.2)
    known = some.read_table("tokens").filter(some.read_table("tokens")["block_kl"].is_valid())
    assert set(known["window"].to_pylist()) <= set(np.flatnonzero(mask).tolist())


def test_what_is_not_sure_is_measured_on(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block that no look makes sure goes through all windows, and is then what a whole sweep
    says; the others stay at the first look."""
    unsure = views.list_unsure

    def list_unsure(surveys: Any, branches: Any, blocks: int, *rest: Any) -> Any:
        unsure(surveys, branches, blocks, *rest)
        return tuple(b for b in branches if b.name == "isolated.1")

    monkeypatch.setattr(views, "list_unsure", list_unsure)
    some, sampled = carry_out(spec, tmp_path / "some", monkeypatch)
    assert read(some).sweep.looks == [8, 16, 24]
    found = rows_of(some)
    assert found[1, "isolated"]["windows"] == WINDOWS
    assert {row["windows"] for key, row in found.items() if key != (1, "isolated")} == {8}
    monkeypatch.undo()
    _, every = carry_out(spec.change(sweep="exact"), tmp_path / "whole", monkeypatch)
    torch.testing.assert_close(
        sampled["kl.isolated.1"], every["kl.isolated.1"], rtol=1e-5, atol=1e-9
    )


def test_no_more_windows_than_are_asked_for(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    branches = views.list_unsure
    monkeypatch.setattr(
        views,
        "list_unsure",
        lambda surveys, every, *rest: (
            branches(surveys, every, *rest)
            and tuple(b for b in every if b.name.startswith("isolated"))
        ),
    )
    run, _ = carry_out(spec.change(sweep_windows=10), tmp_path / "few", monkeypatch)
    assert max(row["windows"] for row in rows_of(run).values()) <= 10


def test_a_run_that_goes_on_ends_with_the_same_numbers(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        views,
        "list_unsure",
        lambda surveys, every, *rest: tuple(b for b in every if b.name == "isolated.0"),
    )
    whole, expected = carry_out(spec, tmp_path / "whole", monkeypatch)
    stopped = tmp_path / "stopped"
    seen: list[int] = []

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "sweep":
            seen.append(done)
            # In the second look's chunk.
            if len(list((stopped / "work").glob("sweep-2-*"))):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pipeline(spec, stopped, stop)
    again, found = carry_out(spec, stopped, monkeypatch)
    assert seen and all(torch.equal(found[name], values) for name, values in expected.items())
    assert_equal_runs(whole, again)


def test_the_work_grows_with_depth_to_the_power_of_one_and_a_half(make_model: MakeModel) -> None:
    """Eight times as many blocks, on the usual text: 141 windows of WikiText-2's test set."""
    work = []
    for blocks in (8, 64):
        model = open_model(str(make_model("llama", num_hidden_layers=blocks)))
        sweep = Sweep(
            4, (4,), frozenset(), Path(), block_branches(model, 4, frozenset()), outside=None
        )
        first = list_looks(141, 2048)[0]
        views, trunks = (count_work(model, s, 2048)[-1] for s in (sweep, sweep.only(())))
        work.append(first * views + (141 - first) * trunks)
    assert work[1] / work[0] <= 8**1.5
