"""The bundled model end to end: its planted fault is found and repaired; lifted, nothing is flagged
that is not worth repairing. The same for a model of another family, with the fault elsewhere, is
`make bench`."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from awqscope.app.demo import demo_spec, find_demo
from awqscope.app.words.verdict import write_verdict
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages.pipeline import run_pipeline
from awqscope.mixedprec.checkpoints.reader import checkpoint_bytes
from examples.demo.build import FAULT, HERE
from examples.plant_fault import plant_fault

SMALL = {"windows": 12, "calib_windows": 8, "seq_len": 128, "verify_units": 8}


def carry_out(spec: RunSpec, out: Path) -> RunDirectory:
    return run_pipeline(spec.change(**SMALL), out, lambda *event: None)


@pytest.fixture(scope="module")
def faulted(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return carry_out(demo_spec(0), tmp_path_factory.mktemp("faulted") / "run")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("healthy")
    plant_fault(find_demo(), folder / "model", **FAULT, lift=True)
    spec = demo_spec(0).change(model=str(folder / "model"))
    return carry_out(spec, folder / "run")


def test_the_bundled_model_is_small_and_far_better_than_unigrams() -> None:
    figures = json.loads((HERE / "figures.json").read_text())
    assert figures["ppl"] < figures["ppl_unigram"] / 5
    assert (HERE / "model.safetensors").stat().st_size <= 16e6


@pytest.mark.slow
def test_planting_and_lifting_leave_the_function_alone(healthy: RunDirectory) -> None:
    text = torch.arange(200)[None] * 17 % 4096
    models = [find_demo(), Path(healthy.read().model)]
    with torch.no_grad():
        faulted, lifted = (
            AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)(text).logits
            for path in models
        )
    assert (faulted - lifted).abs().mean() < 0.02 * lifted.std()


def test_the_planted_fault_is_the_top_spike_and_is_repaired(faulted: RunDirectory) -> None:
    record = faulted.read_searched()
    headline = record.measured
    rows = [r for r in faulted.read_table("blocks").to_pylist() if r["view"] == "isolated"]
    assert max(rows, key=lambda row: row["kl"])["block"] == FAULT["block"]
    assert headline.flagged == [FAULT["block"]]
    assert headline.recovered is not None and headline.recovered >= 0.90
    assert headline.bytes.mixed is not None
    assert headline.bytes.mixed <= 1.10 * headline.bytes.uniform
    assert headline.recovered == pytest.approx(headline.predicted_recovered, abs=1e-3)
    assert headline.additivity is not None and 0.8 < headline.additivity < 1.2
    assert record.sweep is not None and record.sweep.control_kl == 0.0
    assert record.state == "done"


def test_the_proof_passed_and_says_what_it_checked(faulted: RunDirectory) -> None:
    proof = json.loads((faulted.path / "proof.json").read_text())
    assert proof["passed"]
    assert proof["checks"]["linears"] == 8 * 7
    assert proof["checks"]["reference_nll_difference"] < 1e-4
    assert proof["measured"]["kl"] == pytest.approx(faulted.read().measured.kl.mixed)
    assert faulted.read().measured.bytes.mixed == checkpoint_bytes(faulted.checkpoint)


def test_estimates_rank_units_as_measured(faulted: RunDirectory) -> None:
    estimator = faulted.read_searched().estimator
    assert estimator is not None and estimator.spearman is not None and estimator.spearman >= 0.9
    rows = faulted.read_table("units").to_pylist()
    assert len(rows) == 8 * 4 * 3
    exact = [row for row in rows if row["exact_kl"] is not None and row["bits"] == 4]
    assert len(exact) >= 8
    total = sum(row["estimated_kl"] for row in exact) / sum(row["exact_kl"] for row in exact)
    assert 0.6 < total < 1.4


@pytest.mark.slow
def test_without_the_fault_nothing_small_is_flagged(healthy: RunDirectory) -> None:
    headline = healthy.read().to_json()["headline"]
    promotions = healthy.read_table("promotions").to_pylist()
    for block in headline["flagged"]:
        whole = max(
            (row for row in promotions if row["block"] == block), key=lambda r: len(r["units"])
        )
        assert whole["given_back"] >= 0.20
    assert FAULT["block"] not in headline["flagged"]


def test_tables_agree_with_each_other(faulted: RunDirectory) -> None:
    tokens = faulted.read_table("tokens")
    headline = faulted.read().to_json()["headline"]
    columns = {n: tokens[n].drop_null().to_numpy(zero_copy_only=False) for n in tokens.column_names}
    assert columns["kl_uniform"].mean() == pytest.approx(headline["kl"]["uniform"], rel=1e-4)
    assert columns["kl_mixed"].mean() == pytest.approx(headline["kl"]["mixed"], rel=1e-4)
    assert tokens["nll_reference"].null_count == SMALL["windows"]
    worst = [r for r in tokens.to_pylist() if r["block_kl"] is not None]
    assert len({row["window"] for row in worst}) == 8
    assert all(len(row["block_kl"]) == 8 for row in worst)
    by_block = [sum(row["block_kl"][b] for row in worst) for b in range(8)]
    assert max(range(8), key=by_block.__getitem__) == FAULT["block"]
    text = "".join(tokens["text"].to_pylist())
    assert "the" in text


def test_the_verdict_says_what_was_found(faulted: RunDirectory) -> None:
    verdict = write_verdict(faulted.read(), ["5.qkv", "5.o"])
    assert "Block 5 stands out. Units 5.qkv and 5.o at 8 bits" in verdict
    assert "of the lost KL" in verdict
    assert "reloaded from disk" in verdict


@pytest.mark.slow
def test_the_verdict_without_the_fault(healthy: RunDirectory) -> None:
    verdict = write_verdict(healthy.read(), [])
    assert ("No block stands out" in verdict) == (not healthy.read_searched().measured.flagged)


def test_nothing_is_left_over(faulted: RunDirectory) -> None:
    names = {path.name for path in faulted.path.iterdir()}
    assert names == {
        ".lock",
        "run.json",
        "progress.jsonl",
        "awq",
        "blocks.parquet",
        "units.parquet",
        "linears.parquet",
        "weights.parquet",
        "promotions.parquet",
        "activations.parquet",
        "activations.safetensors",
        "tokens.parquet",
        "recipe.json",
        "checkpoint",
        "proof.json",
        "ranges.parquet",
    }
