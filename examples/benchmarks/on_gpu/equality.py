"""The bundled model on the device and on the CPU, and what rounding alone costs it there."""

import shutil
import time
from typing import Any

import torch

from awqscope.app.demo import demo_spec, find_demo
from awqscope.diagnose.inputs.load import load_inputs
from awqscope.diagnose.inside import noise
from awqscope.diagnose.machine.tasks import Placement
from awqscope.diagnose.options.shared import EXACT
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages.pipeline import run_pipeline
from awqscope.diagnose.sweep.branches import UNIFORM, Sweep, block_branches
from awqscope.diagnose.sweep.one_pass import run_sweep
from awqscope.mixedprec.awq.choices import load_search, search_path
from awqscope.mixedprec.models.dtypes import FLOAT32, PRECISIONS
from examples.benchmarks.on_gpu.process import Note
from examples.benchmarks.on_gpu.setting import Setting
from examples.benchmarks.random_llama import save_random_llama

# A run that both devices end within a minute.
SMALL = {"windows": 8, "calib_windows": 4, "seq_len": 128, "verify_units": 2}
# Of a dry run: 6 bits are served by nothing, so that no checkpoint is made and proved.
TINY = {"windows": 4, "calib_windows": 1, "seq_len": 32, "verify_units": 1, "rescue_bits": 6}
TINY_BLOCKS = 3
# The stages that compute on the device.
MEASURED = ("search", "sweep", "estimate", "exact")
# KL, nats, below which a difference is not told relative to it.
LEAST_KL = 1e-6


def choose_spec(setting: Setting) -> RunSpec:
    """A small run of the bundled model, or of a tiny one with its tokenizer."""
    spec = demo_spec(0).change(group_size=128, precision=FLOAT32, sweep=EXACT)
    if not setting.is_dry:
        return spec.change(**SMALL)
    folder, demo = setting.folder / "tiny", find_demo()
    if not folder.exists():
        save_random_llama(
            folder, hidden=128, intermediate=256, blocks=TINY_BLOCKS, heads=4, key_value_heads=2
        )
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(demo / name, folder / name)
    return spec.change(model=str(folder), **TINY)


def read_kl(run: RunDirectory) -> dict[tuple[str, int], float]:
    """The KL of every view of every block."""
    rows = run.read_table("blocks", ["view", "block", "kl"]).to_pylist()
    return {(row["view"], row["block"]): row["kl"] for row in rows}


def differ(one: float, other: float) -> float:
    """By how much two KL differ, relative to the first."""
    return abs(one - other) / max(abs(one), LEAST_KL)


def count_choices(one: RunDirectory, other: RunDirectory, spec: RunSpec) -> dict[str, int]:
    """How many scale vectors and clips two runs chose at the low width, and how many alike."""
    counts = {"scales": 0, "equal_scales": 0, "clips": 0, "equal_clips": 0}
    for block in range(one.read().source.blocks):
        ours, theirs = (
            load_search(search_path(run.searches, block, spec.bits)) for run in (one, other)
        )
        for a, b in zip(ours.scales, theirs.scales, strict=True):
            counts["scales"] += 1
            counts["equal_scales"] += a.ratio == b.ratio
        for name, clip in ours.clips.items():
            counts["clips"] += clip.numel()
            alike = torch.isclose(clip, theirs.clips[name], rtol=1e-3)
            counts["equal_clips"] += int(alike.sum())
    return counts


def measure_equality(setting: Setting, note: Note) -> None:
    """The whole run on either device; then the device's sweep of what the CPU's search chose, for a
    search may tip at a tie, and then all KL behind it differs."""
    spec = choose_spec(setting)
    runs = {}
    # The device first: its checkpoint is to be served.
    for where, path in ((setting.device, setting.run), ("cpu", setting.folder / "run-cpu")):
        began = time.monotonic()
        run = run_pipeline(spec, path, lambda *event: None, Placement((where,)))
        runs[path.name] = run
        record = run.read()
        note(path.name, {"device": where, "seconds": round(time.monotonic() - began, 1)})
        note(f"flagged_{path.name}", record.measured.flagged)
        if path == setting.run:
            assert record.memory_plan is not None
            planned = {stage.stage: stage.device_bytes for stage in record.memory_plan.stages}
            peaks = {name: stage.device_peak_bytes for name, stage in record.stages.items()}
            note("stage_bytes", {name: [peaks[name], planned[name]] for name in MEASURED})
    host, device = runs["run-cpu"], runs[setting.run.name]
    ours, theirs = read_kl(host), read_kl(device)
    note("kl_difference_own_searches", max(differ(ours[view], theirs[view]) for view in ours))
    note("choices", count_choices(host, device, spec))
    inputs = load_inputs(spec)
    branches = block_branches(inputs.model, spec.bits, frozenset())
    sweep = Sweep(spec.bits, (spec.bits,), frozenset(), host.searches, branches)
    scores = run_sweep(inputs.model, inputs.windows, sweep, device=torch.device(setting.device))
    found = {view: scores[f"{view[0]}.{view[1]}"].kl.double().mean().item() for view in ours}
    note("kl_difference", max(differ(ours[view], found[view]) for view in ours))
    note("kl_uniform", scores[UNIFORM].kl.double().mean().item())
    note("kl_control", scores["control"].kl.abs().max().item())


def measure_noise(setting: Setting, note: Note) -> None:
    """The noise floors, as runs measure them: of float32 against float64, of the others against
    float32."""
    inputs, device = load_inputs(choose_spec(setting)), torch.device(setting.device)
    note("tokens", inputs.windows.numel())
    for precision in PRECISIONS:
        found = noise.measure_noise(inputs.model, inputs.windows, precision, device=device)
        note(precision, found["kl"].double().mean().item())


def describe_served(run: RunDirectory) -> tuple[list[int], float]:
    """The first window's tokens, and the mixed model's NLL on all but the first of them."""
    columns = ["window", "position", "token", "nll_mixed"]
    rows: list[dict[str, Any]] = run.read_table("tokens", columns).to_pylist()
    first = sorted((r for r in rows if r["window"] == 0), key=lambda row: row["position"])
    scored = [row["nll_mixed"] for row in first if row["nll_mixed"] is not None]
    return [row["token"] for row in first], sum(scored) / len(scored)
