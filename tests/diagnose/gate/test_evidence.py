"""What is gathered of a run: the headline's numbers again, and a reason for each that lacks."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from awqscope.diagnose.gate.evidence import read_evidence, read_token_evidence
from awqscope.diagnose.gate.findings import Finding, Missing
from awqscope.diagnose.gate.policy import load_policy
from awqscope.diagnose.gate.shares import block_costs, block_shares, uniform_widths
from awqscope.diagnose.gate.verdict import judge_run
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.mixedprec.errors import InputError
from tests.help.runs import (
    SAMPLE,
    change_record,
    make_tokens,
    parse_record,
    read_sample,
    write_run,
    write_tokens,
)

RECORD = read_sample()


def only(found: Any) -> Finding:
    assert isinstance(found, tuple), found
    (finding,) = found
    return finding


@pytest.mark.parametrize("subject", ["mixed", "uniform"])
def test_numbers_are_the_headlines(subject: str) -> None:
    found = read_evidence(RunDirectory(SAMPLE), subject).numbers
    headline = RECORD["headline"]
    expected = {
        "kl": headline["kl"][subject],
        "kl_p999": headline["kl_p999"][subject],
        "top1_agreement": headline["top1_agreement"][subject],
        "delta_ppl": headline["delta_ppl"][subject][0],
        "ppl_ratio": headline["ppl"][subject] / headline["ppl"]["reference"],
        "slice_kl": headline["kl"][subject],
        "size_ratio": headline["bytes"][subject] / headline["bytes"]["reference"],
        "proof": 1.0,
    }
    for name, value in expected.items():
        finding = only(found[name])
        assert finding.value == pytest.approx(value, rel=1e-6), name
        assert finding.low <= finding.value <= finding.high
    # A gate's intervals are a little wider than the headline's, which do not know of few windows.
    low, high = headline["kl_interval"][subject]
    kl = only(found["kl"])
    assert low > kl.low > low - 0.1 * (high - low)
    assert high < kl.high < high + 0.1 * (high - low)


def test_the_same_run_gives_the_same_evidence() -> None:
    assert read_evidence(RunDirectory(SAMPLE), "mixed") == read_evidence(
        RunDirectory(SAMPLE), "mixed"
    )


def test_only_the_columns_that_are_judged_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    read = pq.ParquetFile.read

    def spy(file: pq.ParquetFile, columns: Any = None) -> Any:
        asked.append(columns)
        return read(file, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read", spy)
    read_token_evidence(RunDirectory(SAMPLE), parse_record(RECORD), "mixed")
    wanted = ["nll_reference", "nll_mixed", "kl_mixed", "agree_mixed"]
    assert asked == [wanted]


def test_slices_are_told_apart(tmp_path: Path) -> None:
    parts = [
        {"text": "a.txt", "sha256": "", "first_window": 0, "windows": 10},
        {"text": "b.txt", "sha256": "", "first_window": 10, "windows": 30},
    ]
    definition = {**RECORD["ppl_definition"], "slices": parts}
    path = write_run(tmp_path, ppl_definition=definition)
    found = read_evidence(RunDirectory(path), "mixed").numbers["slice_kl"]
    rows = pq.read_table(path / "tokens.parquet").to_pylist()
    assert isinstance(found, tuple)
    for finding, windows in zip(found, (range(10), range(10, 40)), strict=True):
        kls = [r["kl_mixed"] for r in rows if r["window"] in windows and r["position"]]
        assert finding.value == pytest.approx(sum(kls) / len(kls))
    change_record(path, ppl_definition={**definition, "slices": parts[:1]})
    with pytest.raises(InputError, match="its slices are not its windows"):
        read_evidence(RunDirectory(path), "mixed")


def test_shares_of_blocks_by_hand() -> None:
    def row(block: int, kl: float) -> dict[str, Any]:
        return {"block": block, "kl": kl, "kl_low": 0.9 * kl, "kl_high": 1.1 * kl}

    def unit(name: str, bits: int, kl: float, exact: bool) -> dict[str, Any]:
        kls = {"_kl": kl, "_kl_low": 0.9 * kl, "_kl_high": 1.1 * kl}
        known = {f"exact{k}": v if exact else None for k, v in kls.items()}
        return {"unit": name, "bits": bits, **known, **{f"estimated{k}": v for k, v in kls.items()}}

    isolated = [row(0, 0.1), row(1, 0.9)]
    spec = RunSpec(model="m", calib="c", valid="v", keep_fp16=("0.o",))

    def shares(bits: dict[str, int], units: list[Any] = []) -> tuple[Finding, ...]:
        costs = block_costs(isolated, units, bits, uniform_widths(bits, spec))
        assert not isinstance(costs, Missing)
        return block_shares(costs, 10, 5)

    first, second = shares({})
    assert (first.value, second.value, second.of) == (0.1, 0.9, "block 1")
    assert second.low == pytest.approx(0.81 / (0.81 + 0.11))
    assert second.high == pytest.approx(0.99 / (0.99 + 0.09))
    # Block 1 is repaired: its units count. Block 0 is as it was, with its unit that is kept.
    bits = {"0.qkv": 4, "0.o": 16, "1.qkv": 8, "1.o": 4, "1.down": 16}
    units = [unit("1.qkv", 8, 0.02, True), unit("1.o", 4, 0.03, False)]
    assert shares(bits, units)[1].value == pytest.approx(0.05 / 0.15)
    missing = block_costs(isolated, units[:1], bits, uniform_widths(bits, spec))
    assert missing == Missing("unit 1.o was not measured at 4 bits")
    isolated = [row(0, 0.0), row(1, 0.0)]
    assert [share.high for share in shares({})] == [0, 0]


@pytest.mark.parametrize("kl", [math.nan, math.inf])
def test_a_block_without_a_number_leaves_no_share_to_pass(kl: float) -> None:
    """Counted as nothing, its own share would be 0 and pass, the others' shares of the rest."""
    isolated = [
        {"block": block, "kl": value, "kl_low": value, "kl_high": value}
        for block, value in enumerate([0.1, kl, 0.1])
    ]
    found = block_costs(isolated, [], {}, {})
    assert found == Missing("the KL of block 1 is not a finite number")


def cut_run(folder: Path, windows: tuple[int, int]) -> Path:
    """The sample as a run on two texts of so many of its windows each."""
    parts = [
        {"text": "a.txt", "sha256": "", "first_window": 0, "windows": windows[0]},
        {"text": "b.txt", "sha256": "", "first_window": windows[0], "windows": windows[1]},
    ]
    definition = {**RECORD["ppl_definition"], "windows": sum(windows), "slices": parts}
    path = write_run(folder, ppl_definition=definition)
    tokens = pq.read_table(path / "tokens.parquet")
    write_tokens(path, tokens.slice(0, sum(windows) * definition["seq_len"]))
    return path


@pytest.mark.parametrize("windows", [(3, 3), (2, 5), (5, 2)])
def test_the_text_that_is_named_worst_is_worst_by_its_tokens(
    windows: tuple[int, int], tmp_path: Path
) -> None:
    """Of so few windows no interval has an end, and only the numbers tell the texts apart."""
    path = cut_run(tmp_path, windows)
    rows = pq.read_table(path / "tokens.parquet").to_pandas()
    text = np.where(rows["window"] < windows[0], "a.txt", "b.txt")
    kl = rows.groupby(text)["kl_mixed"].mean()
    change = (rows["nll_mixed"] - rows["nll_reference"]).groupby(text).mean()
    verdict = judge_run(RunDirectory(path), load_policy())
    named = {check.limit.criterion.measure: check.finding for check in verdict.checks}
    for measure, expected in (("slice_kl", kl), ("slice_ppl_ratio", np.exp(change))):
        found = named[measure]
        assert found is not None and math.isinf(found.high)
        assert found.of == expected.idxmax()
        assert found.value == pytest.approx(expected.max(), rel=1e-5)


def test_what_a_finished_run_lacks_is_missing_with_its_reason(tmp_path: Path) -> None:
    bare = write_run(tmp_path, "bare")
    for name in ("proof.json", "blocks.parquet"):
        (bare / name).unlink()
    write_tokens(bare, make_tokens(40, 256))
    headline = {**RECORD["headline"], "bytes": {**RECORD["headline"]["bytes"], "mixed": None}}
    reason = "no server loads checkpoints with 3-bit layers"
    stages = {**RECORD["stages"], "requantize": {"state": "skipped", "reason": reason}}
    change_record(bare, headline=headline, stages=stages)
    found = read_evidence(RunDirectory(bare), "mixed").numbers
    for name in ("kl", "kl_p999", "slice_kl", "ppl_ratio"):
        assert found[name] == Missing(f"no checkpoint was made: {reason}")
    assert found["size_ratio"] == Missing("its size was not measured")
    assert isinstance(found["block_share"], Missing)
    proof = only(found["proof"])
    assert (proof.value, proof.of) == (0.0, "missing")


@pytest.mark.parametrize("said", [False, None, "yes", 1])
def test_only_true_is_a_passed_proof(said: Any, tmp_path: Path) -> None:
    path = write_run(tmp_path)
    (path / "proof.json").write_text(json.dumps({"passed": said}))
    assert only(read_evidence(RunDirectory(path), "mixed").numbers["proof"]).value == 0.0


def test_runs_that_cannot_be_judged(tmp_path: Path) -> None:
    def refused(what: str, path: Path) -> None:
        with pytest.raises(InputError, match=what):
            read_evidence(RunDirectory(path), "mixed")

    refused(
        "it was stopped before its end.: go on with it: awqscope run ",
        write_run(tmp_path, "going", state="running"),
    )
    refused("run of schema 99", write_run(tmp_path, "old", schema=99))
    refused("holds no run", tmp_path)
    without = write_run(tmp_path, "without")
    (without / "tokens.parquet").unlink()
    refused("has no tokens.parquet", without)
    (without / "tokens.parquet").write_bytes(b"PAR1")
    refused("cannot be read", without)
    write_tokens(without, make_tokens(3, 9))
    refused("is not this run's: it has 27 tokens", without)
    write_tokens(without, make_tokens(40, 256).drop_columns(["kl_mixed"]))
    refused("has no column kl_mixed", without)
    refused(
        "the run was made by another version",
        write_run(tmp_path, "damaged", spec={**RECORD["spec"], "seed": "none"}),
    )
    definition = {key: v for key, v in RECORD["ppl_definition"].items() if key != "tokens_sha256"}
    early = write_run(tmp_path, "early", ppl_definition=definition)
    refused("no usable ppl_definition.tokens_sha256", early)
    refused("no usable headline", write_run(tmp_path, "bare", headline={}))


def test_baselines_of_other_tokens_are_refused(tmp_path: Path) -> None:
    run = RunDirectory(SAMPLE)
    same = write_run(tmp_path, "same")
    found = read_evidence(run, "mixed", RunDirectory(same)).numbers
    for name in ("kl_drift", "ppl_drift", "kl_p999_drift", "size_drift"):
        assert only(found[name]).high == 1.0
    assert only(found["top1_drop"]).value == 0.0
    definition = RECORD["ppl_definition"]
    for key, value, reason in (
        ("seq_len", 128, "windows of 256 and 128 tokens"),
        ("windows", 8, "40 and 8 windows"),
        ("text_sha256", "0", "another text"),
        ("tokens_sha256", "0", "another tokenizer"),
    ):
        changed = {**definition, "tokens_sha256": "0", key: value}
        other = write_run(tmp_path, key, ppl_definition=changed)
        with pytest.raises(InputError, match=reason):
            read_evidence(run, "mixed", RunDirectory(other))
    unmeasured = write_run(tmp_path, "unmeasured")
    write_tokens(unmeasured, make_tokens(40, 256))
    found = read_evidence(run, "mixed", RunDirectory(unmeasured)).numbers
    assert found["kl_drift"] == Missing("baseline: the mixed model was not measured")
