"""A run in another precision: what it finds beside a run in float32, and how it goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.diagnose.entries.stages import NoiseFloor, SweepPlan
from awqscope.diagnose.machine.tasks import HERE, Placement
from awqscope.diagnose.proof.prove import is_same_reference
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages.pipeline import run_pipeline
from awqscope.mixedprec.errors import InputError
from tests.help.runs import make_record
from tests.help.whole_runs import assert_equal_runs, measuring_spec

MakeModel = Callable[..., Path]


def ignore(*event: Any) -> None:
    """Progress that nobody follows."""


@pytest.fixture(scope="module")
def spec(make_model: MakeModel, text_file: Path) -> RunSpec:
    """A run of a tiny model in several chunks, in bfloat16."""
    asked = measuring_spec(make_model, text_file)
    return asked.change(bits=4, chunk_windows=4, precision="bfloat16")


@pytest.fixture(scope="module")
def run(spec: RunSpec, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return run_pipeline(spec, tmp_path_factory.mktemp("bfloat16") / "run", ignore)


@pytest.fixture(scope="module")
def plain(spec: RunSpec, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    asked = spec.change(precision="auto")
    return run_pipeline(asked, tmp_path_factory.mktemp("float32") / "run", ignore)


def read_floor(run: RunDirectory) -> NoiseFloor:
    sweep = run.read().sweep
    assert sweep is not None and sweep.noise_floor is not None
    return sweep.noise_floor


def isolated(run: RunDirectory) -> torch.Tensor:
    rows = run.read_table("blocks").to_pylist()
    return torch.tensor([row["kl"] for row in rows if row["view"] == "isolated"])


def test_it_finds_what_float32_finds(run: RunDirectory, plain: RunDirectory) -> None:
    ours, theirs = run.read_searched().measured, plain.read_searched().measured
    assert ours.flagged == theirs.flagged
    assert ours.kl.uniform == pytest.approx(theirs.kl.uniform, rel=0.03)
    assert ours.ppl.reference == pytest.approx(theirs.ppl.reference, rel=1e-3)
    torch.testing.assert_close(isolated(run), isolated(plain), rtol=0.1, atol=0.0)
    assert not torch.equal(isolated(run), isolated(plain))
    # Searches are in float32 whatever the precision.
    for path in plain.searches.iterdir():
        found, expected = load_file(run.searches / path.name), load_file(path)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    units = [
        {row["unit"]: row["estimated_kl"] for row in each.read_table("units").to_pylist()}
        for each in (run, plain)
    ]
    found, expected = (torch.tensor(list(each.values())) for each in units)
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.0)


def test_the_floor_is_recorded(run: RunDirectory, plain: RunDirectory) -> None:
    ours, theirs = read_floor(run), read_floor(plain)
    assert (ours.precision, ours.against) == ("bfloat16", "float32")
    assert (theirs.precision, theirs.against) == ("float32", "float64")
    assert (run.read().spec.precision, plain.read().spec.precision) == ("bfloat16", "float32")
    assert list(ours.windows) == [0, 2, 5, 7] and ours.tokens == 4 * 63
    assert 0 < theirs.kl < 1e-9 < 1e-7 < ours.kl < isolated(run).min()
    control = run.read().sweep
    assert control is not None and control.control_kl == 0


def test_the_proof_is_in_float32_and_passes(run: RunDirectory) -> None:
    assert run.read_searched().measured.proved


def test_another_precision_is_another_run(run: RunDirectory, spec: RunSpec) -> None:
    with pytest.raises(InputError, match="its precision is 'bfloat16', not 'float32'"):
        run_pipeline(spec.change(precision="float32"), run.path, ignore)
    assert run_pipeline(spec.change(precision="auto"), run.path, ignore).path == run.path


@pytest.mark.parametrize("placement", [HERE, Placement(workers=2)], ids=["here", "elsewhere"])
def test_it_goes_on_wherever_it_was_stopped(
    placement: Placement, run: RunDirectory, spec: RunSpec, tmp_path: Path
) -> None:
    """Other processes compute in the run's precision too."""

    def stop(stage: str, done: int, total: int) -> None:
        if (stage, done > 0) == ("sweep", True):
            raise KeyboardInterrupt

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(spec, out, stop, placement)
    assert (out / "work" / "noise.safetensors").exists()
    assert_equal_runs(run_pipeline(spec.change(precision="auto"), out, ignore, placement), run)
    assert read_floor(RunDirectory(out)) == read_floor(run)


def test_tf32_on_the_cpu_is_refused_in_one_line(spec: RunSpec, tmp_path: Path) -> None:
    words = ["run", spec.model, "--precision", "tf32", "--device", "cpu"]
    refused = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "run")])
    assert refused.exit_code == 2
    assert refused.stderr.strip() == (
        "awqscope: --precision tf32 is of CUDA devices, and blocks compute on cpu here: give "
        "--precision float32 or bfloat16"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("precision", "difference", "same"),
    [
        ("float32", 9e-4, True),
        ("float32", 2e-3, False),
        ("bfloat16", 0.03, True),
        ("bfloat16", 0.05, False),
        ("tf32", 0.03, True),
    ],
)
def test_the_reference_of_a_proof_may_differ_as_rounding_does(
    precision: str, difference: float, same: bool
) -> None:
    floor = NoiseFloor(
        precision=precision,
        against="float32",
        kl=1e-5,
        nll_difference=0.01,
        windows=[0],
        tokens=10,
    )
    record = make_record(RunSpec(model="m")).changed(
        sweep=SweepPlan(control_kl=0, noise_floor=floor)
    )
    assert is_same_reference(record, torch.full((2, 5), difference)) is same
