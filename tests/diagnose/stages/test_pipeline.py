"""Stopping a run anywhere and starting it again gives the numbers of one never stopped."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from awqscope.app.command_line.interruption import interruptible
from awqscope.app.words.predict import predict, unit_table, widths_of
from awqscope.diagnose.gate.policy import parse_policy
from awqscope.diagnose.gate.verdict import judge_run
from awqscope.diagnose.inputs.sizes import model_bytes
from awqscope.diagnose.plan.room import Room
from awqscope.diagnose.proof.prove import Subject, prove, prove_other
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.scores import read_scores
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages.pipeline import plan_pipeline, run_pipeline
from awqscope.diagnose.stages.repair import prove_checkpoint
from awqscope.diagnose.sweep.swappable import read_swappable, uniform_widths
from awqscope.mixedprec.checkpoints.reader import checkpoint_bytes
from awqscope.mixedprec.checkpoints.writer import write_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.streams import CPU, StreamSpace
from awqscope.mixedprec.recipes.recipe import change_recipe, load_recipe
from awqscope.mixedprec.recipes.solver import limit_widths, solve
from tests.help.whole_runs import measuring_spec

MakeModel = Callable[..., Path]


@pytest.fixture(scope="module")
def spec(make_model: MakeModel, text_file: Path) -> RunSpec:
    """A run of a tiny model in several chunks, with a block flagged and a unit kept at 16 bits."""
    return measuring_spec(make_model, text_file).change(bits=4, chunk_windows=4)


@pytest.fixture(scope="module")
def whole(spec: RunSpec, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return run_pipeline(spec, tmp_path_factory.mktemp("whole") / "run", lambda *event: None)


def test_several_texts_are_told_apart(spec: RunSpec, text_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(text_file.read_text(encoding="utf-8")[3000:8000], encoding="utf-8")
    # At three bits no checkpoint is written, which takes most of a run's time here.
    both = spec.change(bits=3, valid=(str(text_file), str(other)), windows=7, verify_units=0)
    run = run_pipeline(both, tmp_path / "run", lambda *event: None)
    definition = run.read().to_json()["ppl_definition"]
    first, second = definition["slices"]
    assert [part["text"] for part in (first, second)] == list(both.valid)
    assert (first["first_window"], second["first_window"]) == (0, first["windows"])
    assert first["windows"] + second["windows"] == definition["windows"] == 7
    tokenizer = AutoTokenizer.from_pretrained(spec.model)
    tokens = run.read_table("tokens")["token"].to_numpy().reshape(7, 64)
    for part, path in ((first, text_file), (second, other)):
        ids = tokenizer(path.read_text(encoding="utf-8"))["input_ids"]
        tiles = {tuple(ids[at : at + 64]) for at in range(0, len(ids) - 63, 64)}
        here = tokens[part["first_window"] :][: part["windows"]]
        assert {tuple(window) for window in here.tolist()} <= tiles
    # The same options find the finished run, others are refused.
    assert run_pipeline(both, run.path, lambda *event: None).read() == run.read()
    with pytest.raises(InputError, match="its valid is"):
        run_pipeline(both.change(valid=str(text_file)), run.path, lambda *event: None)
    uniform = 'subject = "uniform"\n[limits]\nmax_slice_kl = 100'
    verdict = judge_run(run, parse_policy(uniform, "p"))
    # Two texts of a few windows are too little to decide anything on.
    assert verdict.outcome == "inconclusive"
    assert verdict.checks[0].tokens is not None
    mixed = judge_run(run, parse_policy("[limits]\nmax_kl = 100", "p"))
    assert "no checkpoint was made: no server loads" in mixed.checks[0].reason


def command(spec: RunSpec, out: Path) -> list[str]:
    """The command line of `spec`."""
    options = {
        "--calib": spec.calib,
        "--valid": spec.valid[0],
        "--group-size": spec.group_size,
        "--seq-len": spec.seq_len,
        "--windows": spec.windows,
        "--calib-windows": spec.calib_windows,
        "--calib-seq-len": spec.calib_seq_len,
        "--top-k": spec.top_k,
        "--keep-fp16": spec.keep_fp16[0],
        "--verify-units": spec.verify_units,
        "--chunk-windows": spec.chunk_windows,
        "--out": out,
    }
    arguments = [str(part) for option in options.items() for part in option]
    return [sys.executable, "-m", "awqscope.app.cli", "run", spec.model, *arguments, "--json"]


def assert_same(run: RunDirectory, whole: RunDirectory) -> None:
    """Equal numbers and equal checkpoints, to the last bit."""
    ours, theirs = run.read(), whole.read()
    assert ours.state == "done"
    assert ours.headline == theirs.headline
    for table in ("blocks", "units", "weights", "promotions", "activations", "tokens"):
        assert run.read_table(table).equals(whole.read_table(table)), table
    first, second = (r.read_arrays("activations.safetensors") for r in (run, whole))
    assert all((first[name] == array).all() for name, array in second.items())
    first, second = (json.loads((r.path / "recipe.json").read_text()) for r in (run, whole))
    assert first["units"] == second["units"]
    first, second = (json.loads((r.path / "proof.json").read_text()) for r in (run, whole))
    assert first == second
    first, second = ((r.checkpoint / "README.md").read_text() for r in (run, whole))
    assert first == second
    assert not run.work.exists()
    assert not list(run.path.rglob("*.tmp"))
    weights = [r.checkpoint / "model.safetensors" for r in (run, whole)]
    first, second = map(load_file, weights)
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)


def kill_at_random(spec: RunSpec, out: Path, kills: int, seed: int) -> int:
    """Start the run, kill it with SIGKILL after random numbers of steps and a moment, let it end;
    returns the kills."""
    generator = random.Random(seed)
    done = 0
    while True:
        process = subprocess.Popen(
            command(spec, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if done >= kills:
            _, stderr = process.communicate()
            assert process.returncode == 0, stderr
            return done
        before, steps = count_steps(out), generator.randrange(1, 9)
        while process.poll() is None and count_steps(out) < before + steps:
            time.sleep(0.02)
        time.sleep(generator.uniform(0, 0.1))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            done += 1
        _, stderr = process.communicate()
        if process.returncode == 0:
            return done


def count_steps(out: Path) -> int:
    """Events that the run's processes have logged."""
    log = out / "progress.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


@pytest.mark.slow
def test_the_smallest_budget_gives_the_same_numbers(
    spec: RunSpec, whole: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minimum = plan_pipeline(spec, tmp_path / "run").minimum
    tight = spec.change(chunk_windows=None, max_memory=minimum + 2**20)
    # No stage of so small a model fills what the largest one needs: none of it is for streams.
    monkeypatch.setattr(Room, "open", lambda room: StreamSpace([(CPU, 0)], room.folder))
    run = run_pipeline(tight, tmp_path / "run", lambda *event: None)
    assert run.read().chunks != whole.read().chunks
    assert_same(run, whole)
    # Loaded block by block, the checkpoint is measured to be the same.
    before = json.loads((run.path / "proof.json").read_text(encoding="utf-8"))
    assert before["loaded"] == "whole"
    assert prove(run, how="by block") == {**before, "loaded": "by block"}


@pytest.mark.slow
def test_killed_runs_end_with_the_same_numbers(
    spec: RunSpec, whole: RunDirectory, tmp_path: Path
) -> None:
    assert whole.read().chunks["sweep"] < 10, "the sweep must take several chunks"
    assert kill_at_random(spec, tmp_path / "run", kills=3, seed=1) >= 2
    assert_same(RunDirectory(tmp_path / "run"), whole)


@pytest.mark.slow
def test_twenty_kills(spec: RunSpec, whole: RunDirectory, tmp_path: Path) -> None:
    kills = 0
    for attempt in range(12):
        out = tmp_path / f"run{attempt}"
        kills += kill_at_random(spec, out, kills=4, seed=100 + attempt)
        assert_same(RunDirectory(out), whole)
    assert kills >= 20


KILL_AT_REPLACE = """
import os, signal, sys
from pathlib import Path
from awqscope.app.cli import app
import awqscope.diagnose.stages.pipeline, awqscope.diagnose.proof.prove
replace, arguments = os.replace, sys.argv[2:]
for number in map(int, sys.argv[1].split(",")):
    child = os.fork()
    if child == 0:
        count = 0
        def counted(*paths):
            global count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*paths)
        os.replace = counted
        app(args=arguments)
    os.waitpid(child, 0)
"""


@pytest.mark.slow
def test_kills_just_before_a_file_appears(
    spec: RunSpec, whole: RunDirectory, tmp_path: Path
) -> None:
    """SIGKILL at the n-th file that would take its place: the first write of run.json, between a
    table and its stage's mark, and on; each time from where the one before left off."""
    arguments = command(spec, tmp_path / "run")[3:]
    numbers = "1,2,3,4,5,7,9,3,2,1,2,3,4,5,6,7,2,3,4,5,2,1,3,4"
    subprocess.run(
        [sys.executable, "-c", KILL_AT_REPLACE, numbers, *arguments],
        check=True,
        capture_output=True,
    )
    record = tmp_path / "run" / "run.json"
    assert json.loads(record.read_text())["state"] == "running"
    assert_same(run_pipeline(spec, tmp_path / "run", lambda *event: None), whole)


def test_an_interrupt_that_a_library_makes_an_error_of_its_own_is_no_failure(
    spec: RunSpec, tmp_path: Path
) -> None:
    """Seen of torch: "could not determine the shape of object type 'UntypedStorage'"."""

    def swallow(*event: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape") from None

    # A suite that runs in the background of a script ignores them.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interruptible(), pytest.raises(KeyboardInterrupt):
            run_pipeline(spec, tmp_path / "run", swallow)
    finally:
        signal.signal(signal.SIGINT, before)
    run = RunDirectory(tmp_path / "run")
    assert (run.read().state, run.read().to_json()["error"], run.look().state) == (
        "running",
        None,
        "stopped",
    )
    with pytest.raises(ValueError, match="shape"):
        run_pipeline(spec, tmp_path / "run", swallow_nothing)
    assert run.read().state == "failed", "without a signal it is one"


def swallow_nothing(*event: object) -> None:
    raise ValueError("could not determine the shape")


def test_every_stage_boundary_resumes(spec: RunSpec, whole: RunDirectory, tmp_path: Path) -> None:
    """StopError by an exception at the first step of each stage in turn, in one directory."""
    out = tmp_path / "run"

    class StopError(Exception):
        pass

    for stage in ("search", "sweep", "estimate", "exact", "recipe", "requantize", "proof"):

        def stop(name: str, done: int, total: int, stage: str = stage) -> None:
            if name == stage:
                raise StopError

        with pytest.raises(StopError):
            run_pipeline(spec, out, stop)
        record = RunDirectory(out).read()
        assert record.state == "failed"
        assert record.error is not None and "StopError" in record.error.message
    assert_same(run_pipeline(spec, out, lambda *event: None), whole)


def test_a_finished_run_is_not_repeated(spec: RunSpec, whole: RunDirectory) -> None:
    before = (whole.path / "run.json").read_bytes()
    events: list[object] = []
    run_pipeline(spec, whole.path, lambda *event: events.append(event))
    assert events == []
    assert (whole.path / "run.json").read_bytes() == before


def test_a_changed_model_is_refused(make_model: MakeModel, text_file: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(make_model("llama"), model)
    spec = RunSpec(
        model=str(model),
        calib=str(text_file),
        valid=str(text_file),
        group_size=64,
        seq_len=64,
        windows=4,
        calib_windows=2,
        calib_seq_len=64,
    )

    def stop(*event: object) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        run_pipeline(spec, tmp_path / "run", stop)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-4}))
    with pytest.raises(InputError, match="has changed since"):
        run_pipeline(spec, tmp_path / "run", stop)


def test_proof_sees_any_tensor_that_was_changed(
    spec: RunSpec, whole: RunDirectory, tmp_path: Path
) -> None:
    for name in ("model.norm.weight", "model.layers.1.input_layernorm.weight"):
        copy = RunDirectory(tmp_path / name)
        shutil.copytree(whole.path, copy.path)
        weights = copy.checkpoint / "model.safetensors"
        tensors = load_file(weights)
        tensors[name] = tensors[name] * 1.01
        save_file(tensors, weights, metadata={"format": "pt"})
        proof = prove(copy)
        assert not proof["passed"]
        assert proof["checks"]["differing_on_disk"] == [name]


def test_another_checkpoint_is_proved_as_the_runs_own(
    spec: RunSpec, whole: RunDirectory, tmp_path: Path
) -> None:
    """A copy of the run's own checkpoint gets the run's own proof, but for the prediction."""
    copy = tmp_path / "checkpoint"
    shutil.copytree(whole.checkpoint, copy)
    before = (whole.path / "run.json").read_bytes()
    own = json.loads((whole.path / "proof.json").read_text())
    subject = Subject(spec.model, whole.path / "recipe.json", copy)
    events: list[tuple] = []
    proof = prove_checkpoint(whole, subject, lambda *event: events.append(event))
    assert events == [("proving", 0, 1), ("proving", 1, 1)]
    with pytest.raises(InputError, match=r"not proved .*--max-memory 100MiB .*MiB or more"):
        prove_checkpoint(whole, subject, lambda *event: None, 100 * 2**20)
    assert own["predicted_recovered"] is not None
    assert proof == {**own, "predicted_recovered": None}
    assert json.loads((copy / "awqscope-proof.json").read_text()) == proof
    assert (whole.path / "run.json").read_bytes() == before
    assert not whole.work.exists()


def test_another_recipe_than_the_checkpoints_fails_the_proof(
    spec: RunSpec, whole: RunDirectory, tmp_path: Path
) -> None:
    copy, recipe = tmp_path / "checkpoint", tmp_path / "recipe.json"
    shutil.copytree(whole.checkpoint, copy)
    entries = json.loads((whole.path / "recipe.json").read_text())
    entry = next(entry for entry in entries["units"] if entry["bits"] == 4)
    entry["bits"] = 8
    recipe.write_text(json.dumps(entries))
    proof = prove_other(whole, Subject(spec.model, recipe, copy), tmp_path / "proof.json")
    assert not proof["passed"]
    assert proof["checks"]["wrong_width"] == entry["linears"]


def test_all_units_kept_and_a_flagged_block(spec: RunSpec, tmp_path: Path) -> None:
    """Nothing is lost and nothing can be promoted: numbers stay valid JSON, the run ends."""
    every = tuple(f"{b}.{k}" for b in range(4) for k in ("qkv", "o", "gate_up", "down"))
    run = run_pipeline(spec.change(keep_fp16=every), tmp_path / "run", lambda *event: None)
    headline = json.loads((run.path / "run.json").read_text())["headline"]
    assert headline["kl"]["uniform"] == 0.0
    assert headline["recovered"] is None
    assert headline["proved"]


@pytest.mark.parametrize(
    "changes",
    [
        {"group_size": -1},
        pytest.param({"symmetric": True}, marks=pytest.mark.slow),
        pytest.param({"model": ("llama", {"num_hidden_layers": 1})}, marks=pytest.mark.slow),
        {"model": ("qwen2", {"dtype": "bfloat16"})},
        pytest.param({"whole_blocks": True}, marks=pytest.mark.slow),
    ],
)
def test_other_specs_end_proved(
    changes: dict, spec: RunSpec, make_model: MakeModel, tmp_path: Path
) -> None:
    if "model" in changes:
        family, options = changes["model"]
        if "dtype" in options:
            options = {**options, "dtype": getattr(torch, options["dtype"])}
        changes = {"model": str(make_model(family, **options)), "keep_fp16": ()}
    run = run_pipeline(spec.change(**changes), tmp_path / "run", lambda *event: None)
    assert run.read_searched().measured.proved


def test_a_run_for_a_budget_ends_proved(spec: RunSpec, tmp_path: Path) -> None:
    """Its recipe is the one that `awqscope recipe` would choose, and what it gives back is measured
    from disk."""
    run = run_pipeline(spec.change(min_recovery=0.5), tmp_path / "run", lambda *event: None)
    record, recipe = run.read_searched(), load_recipe(run.path / "recipe.json")
    scores = limit_widths(read_scores(run.path), (4, 8))
    assert recipe.kind == "budget"
    assert recipe.bits == solve(scores, min_recovery=0.5).bits
    predicted = scores.predict({entry.unit: entry.bits for entry in recipe.units}).recovered
    assert record.measured.predicted_recovered == pytest.approx(predicted)
    assert predicted >= 0.5
    assert record.measured.proved
    assert record.measured.recovered == pytest.approx(predicted, abs=0.25)


def test_tokens_of_the_worst_windows(spec: RunSpec, whole: RunDirectory) -> None:
    """What tokens.parquet says of them, against transformers' forward of each model built whole."""
    rows = whole.read_table("tokens").to_pylist()
    windows = torch.tensor([row["token"] for row in rows]).view(10, 64)
    kl = torch.tensor([row["kl_uniform"] or 0.0 for row in rows]).view(10, 64).mean(1)
    worst = set(kl.topk(8).indices.tolist())
    for column in ("block_kl", "restored_kl", "top_reference", "top_uniform"):
        for row in rows:
            scored = row["window"] in worst and row["position"] > 0
            assert (row[column] is not None) == scored, (column, row["window"], row["position"])
    rows = [row for row in rows if row["block_kl"]]
    places = [row["window"] for row in rows], [row["position"] - 1 for row in rows]
    model = open_model(spec.model)
    tokenizer = AutoTokenizer.from_pretrained(spec.model)

    @torch.no_grad()
    def forward(quantized: set[int]) -> torch.Tensor:
        loaded = AutoModelForCausalLM.from_pretrained(spec.model, dtype=torch.float32).eval()
        for block in quantized:
            swappable = read_swappable(model, block, whole.searches, (spec.bits,))
            widths = uniform_widths(model, spec.bits, frozenset(spec.keep_fp16), block)
            for name, weight in swappable.weights(widths).items():
                loaded.get_parameter(f"{model.prefix(block)}.{name}").data = weight
        return loaded(windows, use_cache=False).logits.double().log_softmax(-1)[places]

    reference = forward(set())
    for column, expected in (("top_reference", reference), ("top_uniform", forward({0, 1, 2, 3}))):
        for row, log_p in zip(rows, expected, strict=True):
            top = row[column]
            likeliest = log_p.exp().topk(5).values.tolist()
            assert [entry["probability"] for entry in top] == pytest.approx(likeliest, rel=1e-4)
            there = [log_p[entry["token"]].exp().item() for entry in top]
            assert there == pytest.approx(likeliest, rel=1e-4)
            texts = [tokenizer.decode([entry["token"]]) for entry in top]
            assert [entry["text"] for entry in top] == texts
    for column, quantized in (
        ("block_kl", [{block} for block in range(4)]),
        ("restored_kl", [{0, 1, 2, 3} - {block} for block in range(4)]),
    ):
        for block in range(4):
            candidate = forward(quantized[block])
            expected = (reference.exp() * (reference - candidate)).sum(-1).tolist()
            found = [row[column][block] for row in rows]
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-5), (column, block)


def test_kept_units_stay_and_widths_are_as_asked(whole: RunDirectory) -> None:
    units = {
        e["unit"]: e["bits"] for e in json.loads((whole.path / "recipe.json").read_text())["units"]
    }
    assert units["1.o"] == 16
    assert 8 in units.values()
    assert sum(bits == 4 for bits in units.values()) >= 12


def test_weight_errors_are_those_of_the_uniform_model(spec: RunSpec, whole: RunDirectory) -> None:
    """Against numpy, group by group, on the weights as the model's file holds them."""
    rows = {(r["block"], r["linear"]): r for r in whole.read_table("weights").to_pylist()}
    model = open_model(spec.model)
    stored = load_file(Path(spec.model) / "model.safetensors")
    seen = set()
    for block in range(4):
        widths = uniform_widths(model, spec.bits, frozenset(spec.keep_fp16), block)
        swappable = read_swappable(model, block, whole.searches, (spec.bits,))
        for name, effective in swappable.weights(widths).items():
            linear = name.removesuffix(".weight")
            seen.add((block, linear))
            row = rows[block, linear]
            weight = stored[f"model.layers.{block}.{linear}.weight"].double().numpy()
            delta = effective.double().numpy() - weight
            error = np.linalg.norm(delta) / np.linalg.norm(weight)
            assert 0 < row["relative_error"] == pytest.approx(error, rel=1e-5)
            size, lost = (
                np.linalg.norm(m.reshape(len(m), -1, 64), axis=2) for m in (weight, delta)
            )
            damage = lost / np.maximum(size, np.sqrt(np.mean(size**2)))
            places = list(zip(row["worst_rows"], row["worst_groups"], strict=True))
            assert len(set(places)) == 8
            found = [damage[place] for place in places]
            assert row["worst_errors"] == pytest.approx(found, rel=1e-5)
            assert found == pytest.approx(sorted(damage.ravel(), reverse=True)[:8], rel=1e-5)
    assert set(rows) == seen
    assert (0, "self_attn.o_proj") in seen
    assert (1, "self_attn.o_proj") not in seen
    assert rows[2, "mlp.up_proj"]["unit"] == "2.gate_up"
    assert all(row["bits"] == 4 for row in rows.values())


def test_every_unit_has_a_row_at_16_bits(spec: RunSpec, whole: RunDirectory) -> None:
    rows = whole.read_table("units").to_pylist()
    by_unit: dict[str, list[int]] = {}
    for row in rows:
        by_unit.setdefault(row["unit"], []).append(row["bits"])
    assert len(by_unit) == 4 * 4
    assert all(bits == [4, 8, 16] for bits in by_unit.values())
    stored = load_file(Path(spec.model) / "model.safetensors")
    for row in (row for row in rows if row["bits"] == 16):
        assert {row[name] for name in row if "_kl" in name} == {0.0}
        if row["kind"] == "o":
            name = f"model.layers.{row['block']}.self_attn.o_proj.weight"
            assert row["bytes"] == stored[name].numel() * 2


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"0.qkv": 16, "2.down": 8, "3.gate_up": 8, "3.o": 16},
        {"1.o": 4, "0.o": 8},
        {"1.o": 8, "1.down": 16},
    ],
)
def test_predicted_bytes_are_those_of_the_checkpoint(
    changes: dict[str, int], spec: RunSpec, whole: RunDirectory, tmp_path: Path
) -> None:
    """Of recipes made by hand, of which some change the unit that the run kept at 16 bits."""
    model = open_model(spec.model)
    recipe = change_recipe(load_recipe(whole.path / "recipe.json"), changes)
    write_checkpoint(tmp_path / "out", model, recipe, whole.searches, spec.schemes)
    units = unit_table(whole.read_table("units").to_pylist())
    assert widths_of(units) == [4, 8, 16]
    predicted = predict(whole.read_searched(), units, recipe.bits).bytes
    assert predicted == model_bytes(model, spec, recipe.bits)[0]
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert predicted == sum(tensor.nbytes for tensor in tensors.values())
    assert predicted == checkpoint_bytes(tmp_path / "out")
    if not changes:
        assert predicted == whole.read_searched().measured.bytes.mixed


def test_widths_that_no_server_loads_are_measured_but_not_written(
    spec: RunSpec, tmp_path: Path
) -> None:
    run = run_pipeline(spec.change(bits=3), tmp_path / "run", lambda *event: None)
    record = run.read_searched()
    assert record.stages["proof"].state == "skipped"
    assert "3-bit" in (record.find_skipped("requantize") or "")
    assert record.measured.kl.uniform > 0
    assert not run.checkpoint.exists()
