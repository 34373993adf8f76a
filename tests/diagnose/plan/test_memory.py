"""A plan says what holds, and what does not fit is said before anything is written."""

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.app.terminal.progress import list_plan
from awqscope.diagnose.machine.cluster import Cluster
from awqscope.diagnose.machine.memory import held_bytes
from awqscope.diagnose.machine.tasks import ThisProcess
from awqscope.diagnose.passes.chunks import choose_size
from awqscope.diagnose.plan import room as room_module
from awqscope.diagnose.plan.demand import Flow, Shape
from awqscope.diagnose.plan.memory import MIB, SLACK_BYTES, Machine, Rates, plan_run
from awqscope.diagnose.plan.room import PROBED_SIZE, Room, measure_rates, read_shape
from awqscope.diagnose.proof.prove import choose_loading
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages import pipeline
from awqscope.diagnose.stages.pipeline import plan_pipeline, prepare_run, run_pipeline
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import batch_size, list_slices
from awqscope.mixedprec.words import write_duration

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
TEXTS = Flow((128, 512), (128, 2048), 20_000, 128)
RATES = Rates(1e12, 1e9, 2e9)
FAST = Rates(1e15, 1e12, 2e9)
STREAMS = {"sweep_streams": 242, "exact_streams": 40}


def machine(budget: int, **changes: object) -> Machine:
    return replace(Machine(budget, 600 * MIB, RATES), **changes)


def test_a_long_plan_says_what_would_shorten_it() -> None:
    plan = plan_run(LARGE, TEXTS, machine(64 * GIB), **STREAMS)
    assert plan.seconds > 3600
    # Even the fewest windows take a 70B model longer on a machine of 1 TFLOP/s.
    assert list_plan(plan)[-1].startswith("--windows 8: about ")
    search = plan.stage("search").seconds
    rest = plan.seconds - search - plan.stage("requantize").seconds
    expected = search + plan.stage("requantize").seconds + rest * 32 / 128
    assert plan.with_windows(32) == pytest.approx(expected)
    quick = plan_run(LARGE, TEXTS, replace(machine(64 * GIB), rates=FAST), **STREAMS)
    [*_, advice] = list_plan(quick)
    count = int(advice.split()[1].rstrip(":"))
    assert quick.with_windows(count) <= 3600 < quick.with_windows(2 * count)
    short = Flow((8, 512), (8, 2048), 20_000, 8)
    assert (
        "--windows"
        not in list_plan(plan_run(LARGE, short, replace(machine(64 * GIB), rates=FAST), **STREAMS))[
            -1
        ]
    )


def test_a_large_model_in_numbers() -> None:
    plan = plan_run(LARGE, TEXTS, machine(64 * GIB), **STREAMS)
    search, sweep = plan.stage("search"), plan.stage("sweep")
    # By hand: 128 windows of 512 tokens, 8,192 values of 4 bytes, five streams.
    assert search.stream_bytes == 5 * 128 * 512 * 8192 * 4
    assert (search.chunks, search.passes, search.read_bytes) == (1, 1, LARGE.stored)
    assert sweep.stream_bytes == 242 * sweep.chunk_windows * 2048 * 8192 * 4
    # Three views of every block: half of them are alive on average, and the two trunks.
    forwards = 2048 * 128 * (120 * 80 + 160)
    # Logits of both trunks, twice each, and of 240 branches by a sixth of the vocabulary.
    logits = 2048 * 128 * (4 + 240 / 6) * 2 * 128_256 * 8192
    assert sweep.flops == pytest.approx(forwards * (2 * BLOCK + 4 * 2048 * 8192) + logits)
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
    texts = replace(TEXTS, valid=(windows, length), sampled=windows)
    sharing = workers if workers > 1 else 0
    here = machine(budget * GIB, workers=workers, sharing=sharing, disk=disk)
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
        shared = stage.stage in ("search", "sweep", "estimate", "exact")
        processes = max(1, sharing) if shared else 1
        waiting = here.held if shared and sharing else 0
        if stage.stage == "search" and sharing:
            # The process that hands out takes the stream along.
            processes, waiting = sharing + 1, 0
        assert stage.peak_bytes * processes + waiting <= plan.budget
        assert stage.spilled_bytes <= stage.stream_bytes
        if stage.stage != "requantize":
            assert stage.chunks == -(-windows // stage.chunk_windows) or stage.stage == "search"
            whole = stage.chunk_windows % batch_size(length) == 0
            assert whole or stage.chunks == 1


def test_more_memory_never_asks_more_of_the_disk() -> None:
    plans = [plan_run(LARGE, TEXTS, machine(size * GIB), **STREAMS) for size in (40, 80, 400)]
    for name in ("search", "sweep", "estimate", "exact"):
        spilled = [plan.stage(name).spilled_bytes * plan.stage(name).chunks for plan in plans]
        assert spilled == sorted(spilled, reverse=True), name
        # Files may stand in for passes; without any, more memory takes no more of them.
        held = [plan.stage(name).passes for plan in plans if not plan.stage(name).spilled_bytes]
        assert held == sorted(held, reverse=True), name


def test_a_device_has_the_budget_too() -> None:
    with pytest.raises(InputError, match="too little"):
        plan_run(LARGE, TEXTS, machine(12 * GIB, on_device=True), **STREAMS)
    plan = plan_run(LARGE, TEXTS, machine(64 * GIB, on_device=True), **STREAMS)
    sweep = plan.stage("sweep")
    assert 0 < sweep.device_bytes <= plan.budget
    needed = max(stage.device_bytes for stage in plan.stages)
    there = machine(64 * GIB, on_device=True, device_free=needed)
    assert plan_run(LARGE, TEXTS, there, **STREAMS) == plan
    with pytest.raises(InputError, match=r"a device has .* free"):
        plan_run(LARGE, TEXTS, replace(there, device_free=needed - 1), **STREAMS)
    # On a worker's device the stream of the search flows, too.
    shared = plan_run(LARGE, TEXTS, replace(there, workers=2, sharing=1), **STREAMS)
    assert shared.stage("search").device_bytes > plan.stage("search").device_bytes + 4 * BLOCK
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
    spec = RunSpec(
        model=str(model), calib=str(text), valid=str(text), group_size=64, seq_len=32, windows=4
    )
    return spec.change(calib_windows=4, calib_seq_len=32, **changes)


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
    texts = replace(TEXTS, valid=(windows, length), sampled=windows)
    here = machine(400 * GIB, workers=workers, sharing=workers if workers > 1 else 0)
    plan = plan_run(LARGE, texts, here, most_windows=wanted, **STREAMS)
    for name in ("sweep", "estimate", "exact"):
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


def test_a_plan_is_made_for_the_device(
    make_model: Callable[..., Path],
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[torch.device, str]] = []

    def measure(model: SourceModel, device: torch.device, precision: str) -> Rates:
        asked.append((device, precision))
        return RATES

    monkeypatch.setattr(room_module, "measure_rates", measure)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (GIB, GIB))
    work = prepare_run(spec_of(make_model("llama"), text_file))
    workers = ThisProcess("cuda:1")
    assert work.plan(tmp_path / "run", workers, {}).stage("sweep").device_bytes
    # What is left open is settled by the device.
    assert asked == [(torch.device("cuda:1"), "tf32")]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (MIB, GIB))
    with pytest.raises(InputError, match="a device has 1MiB free"):
        work.plan(tmp_path / "run", workers, {})


def test_a_machine_that_stalls_is_measured(
    make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds may pass between any two steps of a process that others keep waiting."""
    clock = itertools.count(step=5.0)
    monkeypatch.setattr(room_module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    rates = measure_rates(open_model(str(make_model("llama"))))
    assert rates.flops == 2 * PROBED_SIZE**3 / 5
    assert rates.reduced is None
    assert measure_rates(open_model(str(make_model("llama"))), precision="bfloat16").reduced


def test_a_lower_precision_hastens_the_blocks_that_are_measured() -> None:
    """The search stays in float32, and so do the head and what is read and quantized."""
    rates = replace(RATES, reduced=4 * RATES.flops)
    plans = [
        plan_run(LARGE, TEXTS, replace(machine(64 * GIB), rates=each), **STREAMS)
        for each in (RATES, rates)
    ]
    for name in ("search", "requantize", "proof"):
        before, after = (plan.stage(name).seconds for plan in plans)
        assert after == before, name
    for name in ("sweep", "estimate", "exact"):
        before, after = (plan.stage(name).seconds for plan in plans)
        assert before / 4 < after < before / 2, name
    before, after = (plan.stage("sweep") for plan in plans)
    logits = 2048 * 128 * (4 + 240 / 6) * 2 * 128_256 * 8192
    saved = (before.flops - logits) / RATES.flops * 3 / 4
    assert before.seconds - after.seconds == pytest.approx(saved, rel=1e-6)


def test_a_long_plan_names_bfloat16_where_the_processor_multiplies_it_faster(
    make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it promises is what a plan in bfloat16 would be."""
    offered = replace(RATES, offered=4 * RATES.flops)
    plan, other = (
        plan_run(LARGE, TEXTS, replace(machine(64 * GIB), rates=rates), **STREAMS)
        for rates in (offered, replace(RATES, reduced=4 * RATES.flops))
    )
    assert plan.seconds == plan_run(LARGE, TEXTS, machine(64 * GIB), **STREAMS).seconds
    assert plan.in_bfloat16 == pytest.approx(other.seconds, rel=1e-6)
    said = f"--precision bfloat16: about {write_duration(other.seconds)}"
    assert list_plan(plan)[-1].endswith(f"; {said}")
    # Little would be gained, or the run is in bfloat16 already.
    for rates in (replace(RATES, offered=1.1 * RATES.flops), replace(RATES, reduced=1e12)):
        lines = list_plan(
            plan_run(LARGE, TEXTS, replace(machine(64 * GIB), rates=rates), **STREAMS)
        )
        assert not any("bfloat16" in line for line in lines)
    model = open_model(str(make_model("llama")))
    for known in ({}, {"amx_bf16": False}, {"avx512_bf16": True}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known, raising=False)
        assert (measure_rates(model).offered is None) == (True not in known.values())
    assert measure_rates(model, precision="bfloat16").offered is None


def test_a_proof_asks_for_all_that_it_needs(make_model: Callable[..., Path]) -> None:
    model, windows = open_model(str(make_model("llama"))), torch.zeros(4, 32, dtype=torch.long)
    resting = 500 * MIB
    with pytest.raises(InputError) as caught:
        choose_loading(model, windows, 600 * MIB, resting)
    needed = int(caught.value.remedy.split()[2].removesuffix("MiB")) * MIB
    assert needed > resting + held_bytes() - 50 * MIB
    # A few MiB come and go with the tests.
    how, room = choose_loading(model, windows, needed + 20 * MIB, resting)
    assert how in ("by block", "whole")
    assert room < 40 * MIB
    experts = open_model(str(make_model("mixtral")))
    assert choose_loading(model, windows, None)[0] == "whole"
    for budget in (None, 2**40):
        assert choose_loading(experts, windows, budget)[0] == "by block"


@pytest.mark.parametrize("processes", [1, 3])
def test_what_a_process_cannot_have_is_said(processes: int, tmp_path: Path) -> None:
    held = held_bytes()
    share = held + 200 * MIB
    # What the plan did not foresee takes its slack, and no more.
    Room(processes * share, processes, share, 200 * MIB + SLACK_BYTES // 2, tmp_path).open()
    with pytest.raises(InputError, match=r"a process may have .* and needs") as caught:
        Room(processes * share, processes, share, 400 * MIB, tmp_path).open()
    needed = int(caught.value.remedy.split()[2].removesuffix("MiB")) * MIB
    Room(needed, processes, needed // processes, 400 * MIB, tmp_path).open()


def test_a_plan_takes_the_chunks_that_are_there(
    make_model: Callable[..., Path], text_file: Path, tmp_path: Path
) -> None:
    spec = spec_of(make_model("llama"), text_file, windows=20)
    assert plan_pipeline(spec, tmp_path / "run").stage("sweep").chunk_windows == 20
    run = RunDirectory(tmp_path / "run")
    run.create(prepare_run(spec).description.changed(chunks={"sweep": 8}))
    assert plan_pipeline(spec, run.path).stage("sweep").chunk_windows == 8
    with pytest.raises(InputError, match="holds another run"):
        plan_pipeline(spec.change(bits=3), run.path)


def test_a_plan_is_made_for_those_who_work(
    make_model: Callable[..., Path],
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = spec_of(make_model("llama"), text_file)
    joined = Cluster({"one": 3, "other": 4}, "cpu", 1, None)
    monkeypatch.setattr(pipeline, "open_workers", lambda *_: contextlib.nullcontext(joined))
    plan = plan_pipeline(spec, tmp_path / "run")
    assert (plan.workers, plan.sharing) == (7, 4)
    # Four of a machine's workers, and the stream of the search.
    assert plan.minimum >= 5 * (plan.held + plan.stage("search").least_bytes)
    with pytest.raises(InputError, match="with 4 workers on a machine"):
        plan_pipeline(spec.change(max_memory=plan.minimum // 2), tmp_path / "run")


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
