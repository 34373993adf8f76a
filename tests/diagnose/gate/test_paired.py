"""Two models side by side: differences against numpy's, and when two are one."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from awqscope.diagnose.gate.findings import Finding, Missing, change_measured
from awqscope.diagnose.gate.paired import (
    Pair,
    Side,
    choose_side,
    list_models,
    read_pair,
    read_widths,
)
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.tables import UNITS
from awqscope.diagnose.statistics.bootstrap import expanded_tail
from tests.diagnose.gate.test_findings import make_scores, resampled_windows
from tests.help.runs import (
    SAMPLE,
    change_record,
    parse_record,
    read_sample,
    write_comparison,
    write_run,
    write_tokens,
)

RECORD = read_sample()


def side(path: Path, model: str = "") -> Side:
    run = RunDirectory(path)
    return choose_side(run, run.read(), model)


def change(pair: Pair, name: str) -> Finding:
    found = pair.changes[name]
    assert isinstance(found, Finding), found
    return found


def test_changes_are_paired_by_token() -> None:
    a, b = make_scores(12, 400), make_scores(12, 400, seed=1)
    found = change_measured(b, a, seed=5)
    tail, drawn = expanded_tail(12), resampled_windows(12, 5)
    kl = (b.kl.astype(float) - a.kl.astype(float)).mean(axis=1)
    pool: dict[str, Any] = {
        "kl": lambda w: kl[w].mean(),
        "top1_agreement": lambda w: (b.top1 - a.top1)[w].mean(),
        "ppl": lambda w: math.exp(b.nll[w].mean()) - math.exp(a.nll[w].mean()),
    }
    for name, number in pool.items():
        finding = found[name]
        assert isinstance(finding, Finding)
        low, high = np.quantile([number(w) for w in drawn], [tail, 1 - tail])
        assert (finding.value, finding.low, finding.high) == pytest.approx(
            (number(np.arange(12)), low, high)
        ), name


def test_a_run_is_compared_by_its_mixed_model_and_a_comparison_by_its_candidate(
    tmp_path: Path,
) -> None:
    assert list_models(parse_record(RECORD)) == ("mixed", "uniform")
    kl = {**RECORD["headline"]["kl"], "mixed": None}
    bare = write_run(tmp_path, "bare", headline={**RECORD["headline"], "kl": kl})
    assert side(bare).model == side(bare, "mixed").model == "uniform"
    assert side(SAMPLE).model == "mixed" and side(SAMPLE, "uniform").model == "uniform"
    candidate = side(write_comparison(tmp_path))
    assert (candidate.model, candidate.stored) == ("candidate", "uniform")
    assert side(candidate.run.path, "mixed").model == "candidate"


def test_a_models_own_checkpoint_is_the_same_model(tmp_path: Path) -> None:
    """Not the uniform one: beside that it is better, by what the run itself says."""
    candidate = side(write_comparison(tmp_path))
    pair = read_pair(side(SAMPLE), candidate)
    assert "to the last bit" in pair.same_model
    for name in ("kl", "ppl", "top1_agreement"):
        found = change(pair, name)
        assert (found.value, found.low, found.high) == (0, 0, 0)
    other = read_pair(side(SAMPLE, "uniform"), candidate)
    assert not other.same_model
    rows = pq.read_table(SAMPLE / "tokens.parquet").to_pandas().dropna(subset=["kl_uniform"])
    by_hand = {
        "kl": rows["kl_mixed"].mean() - rows["kl_uniform"].mean(),
        "ppl": math.exp(rows["nll_mixed"].mean()) - math.exp(rows["nll_uniform"].mean()),
        "top1_agreement": rows["agree_mixed"].mean() - rows["agree_uniform"].mean(),
    }
    for name, value in by_hand.items():
        assert change(other, name).value == pytest.approx(value, rel=1e-4)
    kl = change(other, "kl")
    assert kl.low < kl.value < kl.high < 0
    turned = read_pair(candidate, side(SAMPLE, "uniform"))
    assert change(turned, "kl").value == pytest.approx(-kl.value)


def shift(path: Path, by: float, token: int | None = None) -> None:
    """Move the KL of the model measured in uniform's place, of all tokens or of one."""
    table = pq.read_table(path / "tokens.parquet")
    kl = table["kl_uniform"].to_numpy().copy()
    kl[slice(None) if token is None else token] += np.float32(by)
    kl = pa.array(kl, pa.float32(), mask=np.isnan(kl))
    write_tokens(path, table.set_column(table.column_names.index("kl_uniform"), "kl_uniform", kl))


def test_rounding_makes_no_other_model_and_another_recipe_does(tmp_path: Path) -> None:
    path = write_comparison(tmp_path)
    shift(path, 1e-4)
    pair = read_pair(side(SAMPLE), side(path))
    assert "B is the checkpoint of A's mixed model" in pair.same_model
    assert "more than 0.0001 nats" in pair.same_model
    assert "A is the checkpoint of B's mixed model" in (
        read_pair(side(path), side(SAMPLE)).same_model
    )
    # As near, but of other widths: not the same by what can be told.
    units = pq.read_table(path / "units.parquet").to_pylist()
    units[0]["bits"] = 8
    pq.write_table(pa.Table.from_pylist(units, schema=UNITS), path / "units.parquet")
    assert read_pair(side(SAMPLE), side(path)).same_model == ""
    far = write_comparison(tmp_path, "far")
    shift(far, 0.1, token=5)
    assert read_pair(side(SAMPLE), side(far)).same_model == ""


def test_two_runs_of_one_recipe_are_one_model_wherever_the_source_is(tmp_path: Path) -> None:
    moved = write_run(tmp_path, "moved", model="/elsewhere/model")
    # Measured on other tokens, so that only what they are made of can tell.
    definition = {**RECORD["ppl_definition"], "tokens_sha256": "0"}
    change_record(moved, ppl_definition=definition)
    pair = read_pair(side(SAMPLE), side(moved))
    assert pair.same_tokens is False
    assert pair.same_model.startswith("they are made of the same weights and calibration")
    assert all(isinstance(found, Missing) for found in pair.changes.values())
    assert read_pair(side(SAMPLE), side(moved, "uniform")).same_model == ""
    calibration = {**RECORD["calibration"], "tokens_sha256": "0"}
    change_record(moved, calibration=calibration)
    assert read_pair(side(SAMPLE), side(moved)).same_model == ""


def test_whether_the_tokens_are_the_same_is_asked_of_the_tables(tmp_path: Path) -> None:
    definition = {key: v for key, v in RECORD["ppl_definition"].items() if key != "tokens_sha256"}
    old = write_run(tmp_path, "old", ppl_definition=definition)
    assert read_pair(side(old), side(SAMPLE)).same_tokens is True
    table = pq.read_table(old / "tokens.parquet")
    ids = pa.array(table["token"].to_numpy() + 1, table["token"].type)
    write_tokens(old, table.set_column(table.column_names.index("token"), "token", ids))
    assert read_pair(side(old), side(SAMPLE)).same_tokens is False
    (old / "tokens.parquet").unlink()
    assert read_pair(side(old), side(SAMPLE)).same_tokens is None


def test_widths_of_each_model(tmp_path: Path) -> None:
    mixed, uniform = read_widths(side(SAMPLE)), read_widths(side(SAMPLE, "uniform"))
    assert mixed is not None and uniform is not None
    assert {unit: bits for unit, bits in mixed.items() if bits != 4} == {"5.qkv": 8, "5.o": 8}
    assert set(uniform.values()) == {4}
    assert read_widths(side(write_comparison(tmp_path))) == mixed
