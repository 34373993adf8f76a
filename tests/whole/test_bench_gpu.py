"""`make bench-gpu` without a GPU: its trial on tiny shapes, and what becomes of parts that fail."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from examples.benchmarks.on_gpu import process
from examples.benchmarks.on_gpu.aims import Row, judge, list_aims, write_table
from examples.benchmarks.on_gpu.parts import MACHINE, PARTS, SECONDS, Part, run_parts
from examples.benchmarks.on_gpu.process import (
    DONE,
    FAILED,
    SKIPPED,
    STOPPED,
    Note,
    Outcome,
    SkipError,
    run_limited,
)
from examples.benchmarks.on_gpu.setting import Setting
from tests.help.root import ROOT

COMMAND = [sys.executable, "-m", "examples.benchmarks.gpu"]
HERE = Setting("cpu", True, Path())
# Its parts are started another way. None here touches the device.
ON_GPU = Setting("cuda:0", True, Path())
# What a GPU could give, by part.
SEARCHED = {
    "blocks": 32,
    "measured_blocks": 1,
    "tokens": 65536,
    "read_tokens": 8192,
    "seconds": 3.0,
    "exact_seconds": 9.0,
    "stock_seconds": 16.0,
    "peak_bytes": 2**30,
    "planned_bytes": 2**31,
}
SWEPT = {
    "ratio": 1.2,
    "blocks_ratio": 1.25,
    "measured_windows": 9,
    "extrapolated_seconds": 600.0,
    "rate": 5e13,
    "peak_bytes": 2**31,
}
GOOD: dict[str, dict[str, Any]] = {
    "equality": {
        "flagged_run-cpu": [5],
        "flagged_run-device": [5],
        "kl_difference": 2e-6,
        "kl_difference_own_searches": 2e-3,
        "choices": {"scales": 24, "equal_scales": 23, "clips": 90, "equal_clips": 88},
        "stage_bytes": {"search": [50, 90], "sweep": [70, 80]},
    },
    "noise": {"tf32": 1e-7, "bfloat16": 1e-4},
    "search-1b": SEARCHED,
    "search-8b": SEARCHED,
    "sweep-8b": {
        "blocks": 32,
        "measured_blocks": 6,
        "windows": 16,
        "length": 2048,
        "planned_bytes": 2**31,
        "default": "float32",
        "float32": SWEPT,
        "tf32": SWEPT,
    },
    "serving": {"version": "1", "loaded": True, "nll": 4.0, "nll_here": 4.0},
}


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What the trial wrote: gpu.json and gpu.md."""
    out = tmp_path_factory.mktemp("trial") / "out"
    command = [*COMMAND, "--device", "cpu", "--tiny", "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    # However long it takes on a busy machine, no part is to be left out or stopped.
    command += ["--seconds", "3600"]
    finished = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert sorted(path.name for path in out.iterdir()) == ["gpu.json", "gpu.md"]
    return json.loads((out / "gpu.json").read_text()), (out / "gpu.md").read_text()


@pytest.fixture
def without_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PRELOADED", [])


def test_every_part_is_tried(trial: tuple[dict[str, Any], str]) -> None:
    record, _ = trial
    assert list(record["parts"]) == [part.name for part in PARTS]
    *others, serving = record["parts"].values()
    assert {part["state"] for part in others} == {DONE}
    assert all(part["reason"] is None and part["figures"] for part in others)
    # With vLLM it would be a checkpoint that is missing: the trial makes none.
    assert serving["state"] == SKIPPED
    assert "vLLM cannot be imported" in serving["reason"] or "no checkpoint" in serving["reason"]
    assert record["is_dry"] and record["device"] == "cpu"
    assert {"day", "commit", "machine", "versions"} <= record.keys()
    assert record["seconds"] >= sum(part["seconds"] for part in record["parts"].values())


def test_the_trial_finds_every_figure_of_a_row(trial: tuple[dict[str, Any], str]) -> None:
    record, page = trial
    aims = list_aims()
    assert [row["name"] for row in record["aims"]] == [aim.name for aim in aims]
    for aim, row in zip(aims, record["aims"], strict=True):
        assert row["met"] is None, "a trial says nothing"
        assert row["found"].startswith("not measured") == (aim.part == "serving")
        assert f"| {aim.name} | {aim.wanted or '–'} | {row['found']} | – |" in page
    assert "no number here says anything" in page


def test_a_device_equals_itself(trial: tuple[dict[str, Any], str]) -> None:
    figures = trial[0]["parts"]["equality"]["figures"]
    assert figures["flagged_run-cpu"] == figures["flagged_run-device"]
    assert figures["kl_difference_own_searches"] == figures["kl_control"] == 0
    assert figures["kl_difference"] < 1e-6 < figures["kl_uniform"]
    counts = figures["choices"]
    assert counts["scales"] == counts["equal_scales"] > 0
    assert counts["clips"] == counts["equal_clips"] > 0
    noise = trial[0]["parts"]["noise"]["figures"]
    assert noise["float32"] < 1e-9 < noise["bfloat16"] < figures["kl_uniform"]


def test_searches_are_extrapolated_openly(trial: tuple[dict[str, Any], str]) -> None:
    for shape in ("1b", "8b"):
        figures = trial[0]["parts"][f"search-{shape}"]["figures"]
        assert 0 < figures["read_tokens"] <= figures["tokens"]
        assert figures["measured_blocks"] < figures["blocks"]
        [row] = [
            r for r in trial[0]["aims"] if r["part"] == f"search-{shape}" and "run" in r["name"]
        ]
        assert row["found"].startswith(f"{figures['stock_seconds'] / figures['seconds']:.1f}x")
        assert f"{figures['measured_blocks']} of {figures['blocks']} blocks" in row["found"]


def test_the_floor_is_of_every_product(trial: tuple[dict[str, Any], str]) -> None:
    """Counted one product after another, from the linears of transformers' own model and from the
    streams that the sweep has."""
    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM, LlamaConfig

    from examples.benchmarks.on_gpu.shape import DRY

    config = LlamaConfig(
        vocab_size=DRY.vocabulary,
        hidden_size=DRY.hidden,
        intermediate_size=DRY.intermediate,
        num_hidden_layers=1,
        num_attention_heads=DRY.heads,
        num_key_value_heads=DRY.key_value_heads,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    windows, length = DRY.validation
    linears = [m for m in model.model.layers[0].modules() if isinstance(m, nn.Linear)]
    assert len(linears) == 7
    block = sum(2 * linear.weight.numel() for linear in linears) * windows * length
    # Each query meets its own key and those before it, once for weights and once for values.
    each = DRY.hidden // DRY.heads
    block += windows * DRY.heads * 2 * 2 * each * length * length // 2
    head = 2 * windows * length * model.lm_head.weight.numel()
    # The models that are measured, by their quantized blocks, with the blocks that each goes
    # through on its own.
    every = range(DRY.blocks)
    passes: dict[frozenset[int], int] = {}
    for number in every:
        views = {number}, set(every[: number + 1]), set(every) - {number}
        for view in map(frozenset, views):
            # What all blocks before it are quantized in too has just left the uniform model.
            begins = number + (view == frozenset(every[: number + 1]) and number > 0)
            passes.setdefault(view, DRY.blocks - begins)
    # The uniform model is among them; it and the reference go all the way, the control half of it.
    passes[frozenset(every)] = DRY.blocks
    passes[frozenset()] = DRY.blocks
    forwards = sum(passes.values()) + DRY.blocks - DRY.blocks // 2
    operations = forwards * block + len(passes) * head
    for precision in ("float32", "tf32"):
        figures = trial[0]["parts"]["sweep-8b"]["figures"][precision]
        assert figures["floor_seconds"] * figures["rate"] == pytest.approx(operations)


def test_the_sweep_adds_up(trial: tuple[dict[str, Any], str]) -> None:
    from examples.benchmarks.on_gpu.shape import DRY
    from examples.benchmarks.on_gpu.sweep import extrapolate
    from examples.benchmarks.shapes import count_forwards

    figures = trial[0]["parts"]["sweep-8b"]["figures"]
    swept = figures["measured_blocks"]
    assert swept < figures["blocks"] == DRY.blocks
    for precision in ("float32", "tf32"):
        found = figures[precision]
        assert sum(found["forwards"]) == count_forwards(swept)
        assert len(found["block_seconds"]) == len(found["forwards"]) == swept
        seconds = found["extrapolated_seconds"]
        assert found["ratio"] == pytest.approx(seconds / found["floor_seconds"])
        assert 0 < found["measured_floor_seconds"] < found["floor_seconds"]
        whole = extrapolate(
            DRY,
            found["measured_windows"],
            found["forwards"],
            found["block_seconds"],
            found["head_seconds"],
        )
        assert sum(whole) == pytest.approx(seconds)


def test_a_line_is_extrapolated_exactly() -> None:
    from examples.benchmarks.on_gpu.sweep import extrapolate, fit_line
    from examples.benchmarks.shapes import SHAPES, count_forwards, count_scored

    forwards = [4, 7, 10, 13]
    # The first takes longer, for what happens once.
    seconds = [9.0, *(2 + 0.5 * each for each in forwards[1:])]
    assert fit_line(forwards, seconds) == pytest.approx((2, 0.5))
    # A line that would begin below 0 begins there.
    assert fit_line([1, 2, 3], [0.0, 1.0, 3.0]) == pytest.approx((0, 0.8))
    blocks, head = extrapolate(SHAPES["8b"], 4, forwards, seconds, 1.0)
    assert blocks == pytest.approx(32 * 2 + 4 * 0.5 * count_forwards(32))
    assert head == pytest.approx(4 * count_scored(32) / count_scored(4))


def test_plans_hold_what_a_block_takes(trial: tuple[dict[str, Any], str]) -> None:
    from examples.benchmarks.on_gpu.shape import DRY, count_parameters

    block = 4 * (count_parameters(DRY, 1) - count_parameters(DRY, 0))
    for part in ("search-1b", "search-8b", "sweep-8b"):
        assert trial[0]["parts"][part]["figures"]["planned_bytes"] > block


def test_the_shapes_are_those_of_their_names() -> None:
    from examples.benchmarks.on_gpu.shape import choose_shape, count_parameters

    small, large = (choose_shape(name, Setting("cuda:0", False, Path())) for name in ("1b", "8b"))
    assert count_parameters(small, small.blocks) == pytest.approx(1.24e9, rel=0.01)
    # Its embeddings once.
    assert count_parameters(large, large.blocks) == pytest.approx(7.5e9, rel=0.01)
    assert large.blocks == 32 and large.validation == (16, 2048)


def test_good_figures_meet_every_aim() -> None:
    rows = [judge(aim, Outcome(DONE, 1.0, None, GOOD[aim.part])) for aim in list_aims()]
    assert [row.met for row in rows] == [True if row.wanted else None for row in rows]
    assert len(write_table(rows)) == len(rows) + 2


@pytest.mark.parametrize(
    ("part", "changed", "name"),
    [
        ("equality", {"flagged_run-device": [4, 5]}, "flagged blocks"),
        ("equality", {"kl_difference": 2e-4}, "KL of every view"),
        ("equality", {"stage_bytes": {"a": [1, 2], "b": [4, 3]}}, "the demo's run"),
        ("search-8b", {"stock_seconds": 14.0}, "search at 8B, as a run"),
        ("search-8b", {"peak_bytes": 2**32}, "memory of the search at 8B"),
        ("sweep-8b", {"planned_bytes": 1}, "memory of the sweep"),
    ],
)
def test_bad_figures_miss_theirs(part: str, changed: dict[str, Any], name: str) -> None:
    found = [aim for aim in list_aims() if name in aim.name and aim.wanted]
    assert len(found) == 1
    row = judge(found[0], Outcome(DONE, 1.0, None, GOOD[part] | changed))
    assert row.met is False
    assert "MISSED" in write_table([row])[-1]


def test_parts_that_end_early_leave_what_they_noted() -> None:
    fewer = {k: v for k, v in GOOD["search-8b"].items() if k != "exact_seconds"}
    outcome = Outcome(STOPPED, 80.0, "stopped after its 80 s", fewer)
    rows = [judge(aim, outcome) for aim in list_aims() if aim.part == "search-8b"]
    assert [row.met for row in rows] == [True, None, True]
    assert rows[1].found == "not measured: stopped after its 80 s"
    assert rows[0].found.endswith("(then stopped: stopped after its 80 s)")
    early = judge(list_aims()[0], None)
    assert early == Row(early.name, "equality", "equal", "not measured yet", None)


def fail(setting: Setting, note: Note) -> None:
    note("before", 1)
    raise RuntimeError("the device is lost")


def end(setting: Setting, note: Note) -> None:
    note("before", 1)
    os._exit(7)


def leave_out(setting: Setting, note: Note) -> None:
    raise SkipError("there is nothing to measure")


def spoil(setting: Setting, note: Note) -> None:
    note("before", 1)
    note("ratio", float("nan"))


def hang(setting: Setting, note: Note) -> None:
    """Start a process that would stay, and say which."""
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    note("started", started.pid)
    time.sleep(600)


@pytest.mark.parametrize("setting", [HERE, ON_GPU], ids=lambda setting: setting.device)
@pytest.mark.parametrize(
    ("measure", "state", "reason"),
    [
        (fail, FAILED, "RuntimeError: the device is lost"),
        (end, FAILED, "its process ended with code 7"),
        (leave_out, SKIPPED, "there is nothing to measure"),
        (spoil, FAILED, "ratio is nan"),
    ],
)
def test_parts_that_fail(
    measure: process.Measure, state: str, reason: str, setting: Setting, without_imports: None
) -> None:
    outcome = run_limited(measure, setting, 300)
    assert outcome.state == state and outcome.reason is not None
    assert reason in outcome.reason
    assert outcome.figures == ({} if state == SKIPPED else {"before": 1})


@pytest.mark.parametrize("setting", [HERE, ON_GPU], ids=lambda setting: setting.device)
def test_a_part_is_stopped_with_all_it_started(setting: Setting, without_imports: None) -> None:
    limit = 2.0
    outcome = run_limited(hang, setting, limit)
    while "started" not in outcome.figures:
        limit *= 2
        outcome = run_limited(hang, setting, limit)
    assert outcome.state == STOPPED and "stopped after" in (outcome.reason or "")
    assert is_gone(outcome.figures["started"])


def is_gone(pid: int) -> bool:
    """Whether a process ends within a minute; one that nobody waits for counts too."""
    status = Path(f"/proc/{pid}/status")
    for _ in range(600):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if "State:\tZ" not in status.read_text():
                time.sleep(0.1)
                continue
        return True
    return False


def test_parts_that_would_pass_the_time_are_left_out() -> None:
    found: dict[str, Outcome] = {}
    parts = [Part("long", 60, "none", "none"), Part("longer", 90, "none", "none")]
    run_parts(parts, HERE, time.monotonic() + 90, 2.0, found.__setitem__)
    assert [one.state for one in found.values()] == [SKIPPED, SKIPPED]
    assert "may take 120 s" in (found["long"].reason or "")


def test_all_parts_fit_into_eight_minutes() -> None:
    assert MACHINE.seconds + sum(part.seconds for part in PARTS) <= 480
    assert SECONDS < 480


def test_without_a_gpu_it_says_so_in_a_line(tmp_path: Path) -> None:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    finished = subprocess.run(
        [*COMMAND, "--seconds", "3600", "--out", str(tmp_path / "out")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1 and "needs an NVIDIA GPU" in finished.stderr
    assert not (tmp_path / "out").exists()
