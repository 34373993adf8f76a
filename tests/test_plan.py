"""A plan says what holds, and what does not fit is said before anything is written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from app.cli import app
from app.progress import list_plan
from diagnose.demand import Shape, Texts
from diagnose.pipeline import plan_pipeline, run_pipeline
from diagnose.plan import MIB, Machine, Rates, plan_run
from diagnose.planning import read_shape
from diagnose.spec import RunSpec
from diagnose.stages.chunks import choose_size
from mixedprec.errors import InputError
from mixedprec.opening import open_model
from mixedprec.streams import batch_size, list_slices

GIB = 2**30
# Llama 3 70B in numbers.
BLOCK = 8192 * (8192 * 2 + 1024 * 2 + 28672 * 3)
LARGE = Shape(
    blocks=80,
    channels=8192,
    vocabulary=128_256,
    parameters=80 * BLOCK + 2 * 128_256 * 8192,
    block=BLOCK,
    linear=8192 * 28672,
    unit=2 * 8192 * 28672,
    unit_inputs=(8192, 8192, 8192, 28672),
    lone=(8192, 28672),
    widest=28672,
    stored=141 * 10**9,
)
TEXTS = Texts((128, 512), (128, 2048), 20_000)
RATES = Rates(1e12, 1e9, 2e9)
STREAMS = {"sweep_streams": 242, "refine_streams": 40}


def machine(budget: int, **changes: object) -> Machine:
    return replace(Machine(budget, 600 * MIB, RATES), **changes)


def test_a_large_model_in_numbers() -> None:
    plan = plan_run(LARGE, TEXTS, machine(64 * GIB), **STREAMS)
    search, sweep = plan.stage("search"), plan.stage("sweep")
    # By hand: 128 windows of 512 tokens, 8,192 values of 4 bytes, five streams.
    assert search.stream_bytes == 5 * 128 * 512 * 8192 * 4
    assert (search.chunks, search.passes, search.read_bytes) == (1, 1, LARGE.stored)
    assert sweep.stream_bytes == 242 * sweep.chunk_windows * 2048 * 8192 * 4
    # Three views of every block: half of them are alive on average, and the two trunks.
    forwards = 2048 * 128 * (120 * 80 + 160)
    assert sweep.flops == pytest.approx(forwards * (2 * BLOCK + 4 * 2048 * 8192))
    # The proof cannot have 280 GB in float32: block by block it needs a small part.
    assert plan.stage("proof").least_bytes < 24 * GIB
    assert plan_run(LARGE, TEXTS, machine(600 * GIB), **STREAMS).stage("proof").peak_bytes > 280e9


@settings(max_examples=200, deadline=None)
@given(
    budget=st.integers(30, 4000),
    windows=st.integers(1, 300),
    length=st.sampled_from([8, 100, 512, 2048]),
    workers=st.integers(1, 8),
    disk=st.sampled_from([0, 100 * GIB, 10**14]),
)
def test_what_a_plan_promises(
    budget: int, windows: int, length: int, workers: int, disk: int
) -> None:
    texts = replace(TEXTS, valid=(windows, length))
    here = machine(budget * GIB, workers=workers, disk=disk)
    try:
        plan = plan_run(LARGE, texts, here, **STREAMS)
    except InputError as error:
        needed = int(error.remedy.split()[2].removesuffix("MiB"))
        assert needed > budget * 1024
        # The amount that is asked for is enough, and nothing less is.
        assert plan_run(LARGE, texts, replace(here, budget=needed * MIB), **STREAMS)
        with pytest.raises(InputError):
            plan_run(LARGE, texts, replace(here, budget=(needed - 1) * MIB), **STREAMS)
        return
    assert plan.minimum <= plan.budget
    for stage in plan.stages:
        shared = stage.stage in ("search", "sweep", "estimate", "refine")
        processes = workers if shared else 1
        assert stage.peak_bytes * processes <= plan.budget
        assert stage.spilled_bytes <= stage.stream_bytes
        if stage.stage != "requantize":
            assert stage.chunks == -(-windows // stage.chunk_windows) or stage.stage == "search"
            whole = stage.chunk_windows % batch_size(length) == 0
            assert whole or stage.chunks == 1


def test_more_memory_never_asks_more_of_the_disk() -> None:
    plans = [plan_run(LARGE, TEXTS, machine(size * GIB), **STREAMS) for size in (40, 80, 400)]
    for name in ("search", "sweep", "estimate", "refine"):
        spilled = [plan.stage(name).spilled_bytes * plan.stage(name).chunks for plan in plans]
        passes = [plan.stage(name).passes for plan in plans]
        assert [*zip(passes, spilled, strict=True)] == sorted(
            zip(passes, spilled, strict=True), key=lambda pair: -sum(pair)
        ), name


def test_a_device_has_the_budget_too() -> None:
    with pytest.raises(InputError, match="too little"):
        plan_run(LARGE, TEXTS, machine(12 * GIB, on_device=True), **STREAMS)
    plan = plan_run(LARGE, TEXTS, machine(64 * GIB, on_device=True), **STREAMS)
    sweep = plan.stage("sweep")
    assert 0 < sweep.device_bytes <= plan.budget
    # The host then only reads a block.
    assert (
        sweep.fixed_bytes
        < plan_run(LARGE, TEXTS, machine(64 * GIB), **STREAMS).stage("sweep").fixed_bytes
    )


def test_the_shape_of_a_model(make_model: Callable[..., Path]) -> None:
    model = open_model(str(make_model("llama")))
    shape = read_shape(model)
    assert (shape.blocks, shape.channels, shape.vocabulary, shape.widest) == (2, 128, 384, 256)
    # q and o, k and v of two heads of 32, three linears of the MLP, two norms.
    assert shape.block == 2 * 128 * 128 + 2 * 64 * 128 + 3 * 256 * 128 + 2 * 128
    assert shape.lone == (128, 256)
    assert shape.unit_inputs == (128, 128, 128, 256)


def spec_of(model: Path, text: Path, **changes: object) -> RunSpec:
    spec = RunSpec(str(model), str(text), str(text), group_size=64, seq_len=32, windows=4)
    return replace(spec, calib_windows=4, calib_seq_len=32, **changes)


def test_experts_are_never_loaded_whole(make_model: Callable[..., Path]) -> None:
    shapes = {name: read_shape(open_model(str(make_model(name)))) for name in ("llama", "mixtral")}
    assert {name: shape.loads_whole for name, shape in shapes.items()} == {
        "llama": True,
        "mixtral": False,
    }
    experts = replace(LARGE, loads_whole=False)
    for size in (64, 600):
        dense, mixed = (
            plan_run(shape, TEXTS, machine(size * GIB), **STREAMS) for shape in (LARGE, experts)
        )
        # What a proof could not load whole anyway is never asked for.
        assert mixed.minimum == dense.minimum
        assert mixed.stage("proof").peak_bytes < 64 * GIB


@given(
    windows=st.integers(1, 300),
    length=st.sampled_from([8, 64, 100, 512]),
    workers=st.integers(1, 5),
    wanted=st.none() | st.integers(1, 400),
)
@example(windows=7, length=64, workers=1, wanted=None)
def test_the_chunks_that_run_are_those_planned(
    windows: int, length: int, workers: int, wanted: int | None
) -> None:
    texts = replace(TEXTS, valid=(windows, length))
    here = machine(400 * GIB, workers=workers)
    plan = plan_run(LARGE, texts, here, most_windows=wanted, **STREAMS)
    for name in ("sweep", "estimate", "refine"):
        stage = plan.stage(name)
        size = choose_size(windows, length, stage.chunk_windows, workers)
        assert len(list_slices(windows, size)) == stage.chunks


def test_too_small_a_budget_leaves_nothing(
    make_model: Callable[..., Path], text_file: Path, tmp_path: Path
) -> None:
    spec = spec_of(make_model("llama"), text_file, max_memory=100 * MIB)
    with pytest.raises(InputError, match="--max-memory 100MiB is too little"):
        run_pipeline(spec, tmp_path / "run", lambda *event: None)
    assert not (tmp_path / "run").exists()


def test_the_command_prints_a_plan_and_stops(
    make_model: Callable[..., Path], text_file: Path, tmp_path: Path
) -> None:
    spec = spec_of(make_model("llama"), text_file)
    lines = list_plan(plan_pipeline(spec, tmp_path / "run"))
    assert len(lines) == 8
    texts = ["--calib", str(text_file), "--valid", str(text_file), "--group-size", "64"]
    out = ["--out", str(tmp_path / "run"), "--plan"]
    found = CliRunner().invoke(app, ["run", spec.model, *texts, "--seq-len", "32", *out])
    assert found.exit_code == 0, found.output
    assert "sweep of blocks" in found.stdout
    assert not (tmp_path / "run").exists()
