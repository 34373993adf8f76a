"""The precision of a run is settled before it starts, and goes where its tasks go."""

from pathlib import Path

import pytest
import torch

from awqscope.diagnose.machine.precision import InPrecision, settle_precision
from awqscope.diagnose.machine.tasks import HERE, OnStep, Placement
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.forward import current_precision
from tests.help.runs import make_record

GPU = Placement(("cuda:0", "cuda:1"))
CLUSTER = Placement(("auto",), ray="auto")


def settled(asked: str, placement: Placement, run: RunDirectory) -> str:
    return settle_precision(RunSpec(model="m", precision=asked), run, placement).precision


def test_auto_is_settled_by_the_devices_that_are_asked_for(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert settled("auto", HERE, run) == "float32"
    assert settled("auto", Placement(workers=3), run) == "float32"
    assert settled("auto", GPU, run) == "tf32"
    assert settled("auto", Placement(("cuda",), ray="auto"), run) == "tf32"
    # What a cluster has is known once it is joined.
    assert settled("auto", CLUSTER, run) == "auto"
    assert settled("tf32", CLUSTER, run) == "tf32"
    for asked in ("float32", "bfloat16"):
        assert {settled(asked, where, run) for where in (HERE, GPU, CLUSTER)} == {asked}
    with pytest.raises(InputError, match="tf32 is of CUDA devices"):
        settled("tf32", HERE, run)


@pytest.mark.parametrize("there", ["float32", "tf32", "bfloat16"])
def test_auto_goes_on_as_the_run_began(there: str, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.create(make_record(RunSpec(model="m", precision=there)))
    for where in (HERE, GPU, CLUSTER):
        assert settled("auto", where, run) == there
        # Whoever asks for another is told of it where the options are compared.
        assert settled("bfloat16", where, run) == "bfloat16"


def test_a_run_of_a_version_without_precision_was_in_float32(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    record = make_record(RunSpec(model="m"))
    spec = {name: value for name, value in record.spec.to_json().items() if name != "precision"}
    run.create(make_record(RunSpec.from_json(spec)))
    assert settled("auto", GPU, run) == "float32"


def test_the_work_of_a_task_is_in_its_precision() -> None:
    seen = []

    def work(device: torch.device, on_step: OnStep) -> None:
        seen.append((current_precision(), device.type))
        on_step(3)

    steps: list[int] = []
    InPrecision(work, "bfloat16")(torch.device("cpu"), steps.append)
    assert (seen, steps, current_precision()) == ([("bfloat16", "cpu")], [3], "float32")
