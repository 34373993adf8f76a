"""One model among others: bits a weight, its units' costs and the gate's verdict."""

import dataclasses
from pathlib import Path

import pytest

from awqscope.diagnose.compared.standing import (
    judge_side,
    read_bits_per_weight,
    read_standing,
    read_unit_costs,
    weigh_side,
)
from awqscope.diagnose.gate.findings import Finding, Missing
from awqscope.diagnose.gate.policy import load_policy
from awqscope.diagnose.gate.shares import read_block_costs
from awqscope.diagnose.gate.verdict import judge_run
from awqscope.diagnose.runs.scores import read_scores
from tests.help.releases import side
from tests.help.runs import SAMPLE, change_record, read_sample, write_comparison, write_run

CANDIDATE = {
    "path": "us/mixed",
    "format": "compressed-tensors",
    "bits": {"4": 52, "8": 4},
    "tokenizer": True,
    "hashes": {"model.safetensors": "c0ffee"},
}


def test_bits_a_weight_are_those_that_recipes_are_chosen_by(tmp_path: Path) -> None:
    mixed, uniform = side(SAMPLE), side(SAMPLE, "uniform")
    rows = uniform.run.read_table("units").to_pylist()
    weights = sum(row["bytes"] for row in rows if row["bits"] == 16) / 2
    widths = {"5.qkv": 8, "5.o": 8}
    for found, promoted in ((uniform, {}), (mixed, widths)):
        taken = sum(row["bytes"] for row in rows if row["bits"] == promoted.get(row["unit"], 4))
        assert read_bits_per_weight(found) == pytest.approx(8 * taken / weights)
    path = write_comparison(tmp_path)
    assert read_bits_per_weight(side(path)) is None
    change_record(path, candidate={**CANDIDATE, "unit_weights": int(weights)})
    assert read_bits_per_weight(side(path)) == pytest.approx(read_bits_per_weight(mixed))
    (path / "units.parquet").unlink()
    assert read_bits_per_weight(side(path)) is None


def test_units_cost_what_their_blocks_are_made_of(tmp_path: Path) -> None:
    mixed, uniform = read_unit_costs(side(SAMPLE)), read_unit_costs(side(SAMPLE, "uniform"))
    assert not isinstance(mixed, Missing) and not isinstance(uniform, Missing)
    assert {unit for unit in mixed if mixed[unit] != uniform[unit]} == {"5.qkv", "5.o"}
    blocks = read_block_costs(side(SAMPLE).run, side(SAMPLE).record, "mixed")
    assert not isinstance(blocks, Missing)
    summed = sum(cost[0] for unit, cost in mixed.items() if unit.startswith("5."))
    assert blocks[5][0] == pytest.approx(summed)
    scores = {unit.name: unit.options[0].kl for unit in read_scores(SAMPLE).units}
    assert {unit: cost[0] for unit, cost in uniform.items()} == pytest.approx(scores)
    assert isinstance(read_unit_costs(side(write_comparison(tmp_path))), Missing)


def test_the_gate_is_the_gates(tmp_path: Path) -> None:
    policy = load_policy()
    mixed, uniform = (judge_side(side(SAMPLE, model)) for model in ("mixed", "uniform"))
    assert mixed == judge_run(side(SAMPLE).run, policy)
    # The proof is mixed's: uniform neither passes nor fails by it.
    unproved = [limit for limit in policy.limits if limit.criterion.key != "require_proof"]
    unproved = dataclasses.replace(policy, subject="uniform", limits=tuple(unproved))
    assert len(unproved.limits) == len(policy.limits) - 1
    assert uniform == judge_run(side(SAMPLE).run, unproved)
    assert weigh_side(side(SAMPLE)) == (read_standing(side(SAMPLE)), mixed)
    path = write_run(tmp_path)
    (path / "policy.toml").write_text("[limits]\nmax_kl = 1e-9\n", encoding="utf-8")
    own = judge_side(side(path))
    assert not isinstance(own, Missing) and own.outcome == "fail" and len(own.checks) == 1
    change_record(path, state="running")
    assert isinstance(judge_side(side(path)), Missing)


def test_the_numbers_are_the_gates_and_missing_where_it_has_none(tmp_path: Path) -> None:
    standing = read_standing(side(SAMPLE))
    headline = read_sample()["headline"]
    kl = standing.number("kl")
    assert isinstance(kl, Finding)
    assert kl.value == pytest.approx(headline["kl"]["mixed"], rel=1e-5)
    assert (standing.bytes, standing.kl) == (headline["bytes"]["mixed"], headline["kl"]["mixed"])
    path = write_run(tmp_path)
    change_record(path, state="running")
    unfinished = read_standing(side(path))
    assert isinstance(unfinished.number("kl"), Missing)
    assert unfinished.kl == headline["kl"]["mixed"]
