"""A checkpoint in the type that it names: one that overflows in float16 fails its proof, with the
reason and a remedy that works, and everything that speaks of the run says so."""

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.app.report.outcome import _proof_facts
from awqscope.app.terminal.run import show_run
from awqscope.app.words.provenance import provenance_facts
from awqscope.app.words.verdict import write_verdict
from awqscope.diagnose.entries.served_type import UNLIKE, ServedType, describe_type, explain_type
from awqscope.diagnose.gate.policy import load_policy, parse_policy
from awqscope.diagnose.gate.verdict import FAIL, judge_run
from awqscope.diagnose.proof.served_type import choose_windows
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import CompareSpec, RunSpec
from awqscope.diagnose.stages.comparison import run_comparison
from awqscope.diagnose.stages.pipeline import run_pipeline
from awqscope.mixedprec.checkpoints.serving import write_serving
from awqscope.mixedprec.models.dtypes import LARGEST
from tests.help.runs import change_record, write_run
from tests.mixedprec.models.test_served import change_model

LOADS = {"vllm": "loads", "sglang": "loads", "transformers": "loads", "notes": []}


def overflow(source: Path, out: Path) -> Path:
    """The same function in float32, in float16 infinite: what enters every norm grows by one
    factor, which the norms take out again. The weights stay below float16's largest number."""
    grow = ("embed_tokens.weight", "o_proj.weight", "down_proj.weight")
    held = load_file(source / "model.safetensors")
    most = max(float(v.abs().max()) for name, v in held.items() if name.endswith(grow))

    def change(name: str, values: torch.Tensor) -> torch.Tensor:
        times = 60_000 / most if name.endswith(grow) else 1.0
        return (values.float() * times).half()

    return change_model(source, out, change)


@pytest.fixture(scope="module")
def run(
    make_model: Callable[..., Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunDirectory:
    folder = tmp_path_factory.mktemp("overflow")
    path = overflow(make_model("llama", tie_word_embeddings=False), folder / "model")
    spec = RunSpec(
        model=str(path),
        calib=str(text_file),
        valid=str(text_file),
        group_size=64,
        seq_len=48,
        windows=8,
        calib_windows=4,
        calib_seq_len=48,
        verify_units=0,
    )
    return run_pipeline(spec, folder / "run", lambda *event: None)


def test_the_case_is_one(run: RunDirectory) -> None:
    """transformers itself, without awqscope: finite in bfloat16, not in float16."""
    windows = torch.tensor(run.read_table("tokens")["token"].to_numpy()).long().view(8, 48)
    for dtype, finite in ((torch.float16, False), (torch.bfloat16, True)):
        model = AutoModelForCausalLM.from_pretrained(run.checkpoint, dtype=dtype).eval()
        with torch.no_grad():
            assert bool(model(windows).logits.isfinite().all()) == finite, dtype


def test_the_proof_fails_by_the_type_alone(run: RunDirectory) -> None:
    proof, headline = run.read_json("proof"), run.read_searched().measured
    assert proof["passed"] is False
    assert UNLIKE not in proof["reasons"]
    assert "in float16" in proof["reasons"][0]
    assert "serve it with --dtype bfloat16" in proof["reasons"][0]
    assert proof["served"]["finite"] is False
    assert proof["served"]["place"].startswith(("block", "the embedding"))
    assert proof["served"]["windows"][0] == 0
    assert len(proof["served"]["windows"]) == 4
    assert proof["instead"]["dtype"] == "bfloat16"
    assert 0 < proof["instead"]["kl"] < 0.01
    assert proof["instead"]["ppl"] == pytest.approx(proof["instead"]["ppl_float32"], rel=0.01)
    assert headline.proved is False and headline.range is not None
    assert headline.range.uniform.largest > LARGEST["float16"]
    assert headline.range.uniform.window in proof["served"]["windows"]
    # In float32, in which all else is measured, nothing is wrong.
    assert headline.ppl.mixed == pytest.approx(headline.ppl.uniform)


def test_everything_says_so(run: RunDirectory) -> None:
    record = run.read()
    console = Console(width=400, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show_run(run, console)
    card = (run.checkpoint / "README.md").read_text(encoding="utf-8")
    told = {
        "verdict": write_verdict(record, []),
        "terminal": console.export_text(),
        "facts": " ".join(provenance_facts(record).values()),
        "report": " ".join(_proof_facts(run.read_json("proof")).values()),
        "card": card,
        "gate": " ".join(check.reason for check in judge_run(run, load_policy()).checks),
    }
    for place, said in told.items():
        assert "--dtype bfloat16" in said, place
        assert "is what the recipe says." not in said, place
        assert "Proved from disk" not in said, place
    assert "vllm serve path/to/this/checkpoint --dtype bfloat16" in card
    assert 'dtype="bfloat16"' in card
    verdict = judge_run(run, load_policy())
    outcomes = {check.limit.criterion.key: check.outcome for check in verdict.checks}
    assert outcomes["require_proof"] == outcomes["min_range_margin"] == FAIL


def test_the_remedy_leads_on(run: RunDirectory, tmp_path: Path) -> None:
    """The checkpoint made again in bfloat16 is proved, and its own card tells no one to do so."""
    out = tmp_path / "checkpoint"
    command = ["requantize", str(run.path), "--recipe", str(run.path / "recipe.json")]
    command += ["--out", str(out), "--dtype", "bfloat16", "--prove", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["proof"]["passed"] is True
    assert printed["proof"]["served"]["dtype"] == "bfloat16"
    assert printed["serving"]["type"]["finite"] is True
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "vllm serve path/to/this/checkpoint --dtype bfloat16" in card
    assert "--prove --dtype bfloat16" in card
    assert "Proved from disk" in card
    refused = CliRunner().invoke(app, [*command[:6], str(tmp_path / "x"), "--dtype", "float8"])
    assert refused.exit_code == 2


def test_windows_are_the_first_the_widest_and_the_worst() -> None:
    kl = np.array([0.1, 0.5, 0.2, 0.9, 0.3, 0.8])
    assert choose_windows(kl, 2) == [0, 2, 3, 5]
    assert choose_windows(kl, None) == [0, 1, 3, 5]
    assert choose_windows(kl, 0) == [0, 1, 3, 5]
    assert choose_windows(kl[:2], 1) == [0, 1]
    # Of another run's record.
    assert choose_windows(kl[:2], 7) == [0, 1]


def describe(largest: float | None, proof: Mapping[str, Any] | None = None) -> ServedType:
    return describe_type("float16", largest, proof)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (None, ""),
        (describe(None), ""),
        (describe(100.0), ""),
        (describe(40_000.0), ". In float16, its activations reach 40,000, only 1.6 times below"),
        (describe(70_000.0), " reach 70,000, past its 65,504: serve it with --dtype bfloat16"),
        (
            describe(70_000.0, {"served": {"finite": True}, "instead": None}),
            "past its 65,504, though the windows measured in it are finite",
        ),
        (
            describe(70_000.0, {"served": {"finite": False}, "instead": {"finite": True}}),
            ". In float16, the type that it names, it answers NaN: serve it with --dtype bfloat16",
        ),
        (
            describe(7e38, {"served": {"finite": False}, "instead": {"finite": False}}),
            ". In float16, the type that it names, it answers NaN",
        ),
        (describe_type("bfloat16", 9e5), ""),
    ],
)
def test_what_serving_comes_to_names_the_type(kind: ServedType | None, said: str) -> None:
    written = write_serving({**LOADS, "type": kind.to_json()} if kind else LOADS)
    assert written.startswith("vLLM, SGLang and transformers load it")
    if said:
        assert said in written
    else:
        assert written == "vLLM, SGLang and transformers load it"
    if kind and not kind.instead:
        assert "--dtype" not in written


def test_where_no_type_serves_it_none_is_recommended() -> None:
    broken = {"dtype": "float16", "finite": False, "place": "block 3"}
    said = explain_type(broken, {"dtype": "bfloat16", "finite": False})
    assert said.endswith("no 16-bit type serves it")
    assert "--dtype" not in said


def test_runs_that_did_not_measure_it_open_and_promise_nothing(tmp_path: Path) -> None:
    """Of versions before: no word of the type, and by a policy of one's own no pass."""
    path = write_run(tmp_path)
    run = RunDirectory(path)
    assert "float16" not in write_verdict(run.read(), [])
    assert "Largest activation" not in provenance_facts(run.read())
    default = judge_run(run, load_policy())
    assert any("range margin was not judged" in note for note in default.notes)
    own = judge_run(run, parse_policy("[limits]\nmin_range_margin = 2", "own"))
    assert own.outcome == "inconclusive"


@pytest.mark.parametrize(("largest", "outcome"), [(20_000.0, "pass"), (40_000.0, "fail")])
def test_a_margin_can_be_asked_for(largest: float, outcome: str, tmp_path: Path) -> None:
    path = write_run(tmp_path)
    headline = copy.deepcopy(RunDirectory(path).read().to_json()["headline"])
    place = {"largest": largest, "block": 2, "site": "mlp.down_proj", "part": "input"}
    headline["range"] = {"reference": place, "uniform": place}
    change_record(path, headline=headline)
    policy = parse_policy("[limits]\nmin_range_margin = 2", "own")
    assert judge_run(RunDirectory(path), policy).outcome == outcome
    verdict = write_verdict(RunDirectory(path).read(), [])
    assert ("only 1.6 times below its 65,504" in verdict) == (outcome == "fail")
    said = provenance_facts(RunDirectory(path).read())["Largest activation"]
    assert f"{largest:,.0f}, the input of mlp.down_proj in block 2; float16" in said


def test_a_candidate_made_elsewhere_is_held_to_its_range(
    run: RunDirectory, text_file: Path, tmp_path: Path
) -> None:
    """A comparison measures it in float32 alone: what it reaches says what its type will do."""
    model = run.read().model
    spec = CompareSpec(
        reference=model, candidate=str(run.checkpoint), valid=str(text_file), seq_len=48, windows=3
    )
    compared = run_comparison(spec, tmp_path / "compared", lambda *event: None)
    record = compared.read()
    assert record.serving is not None and record.serving.type is not None
    kind = record.serving.type
    assert kind.largest is not None
    assert kind.dtype == "float16"
    assert kind.finite is None
    assert kind.largest > kind.most == 65_504
    said = "past its 65,504: serve it with --dtype bfloat16"
    assert said in write_verdict(record, [])
    assert said in provenance_facts(record)["Served"]
    rows = {(row["site"], row["model"]) for row in compared.read_table("ranges").to_pylist()}
    assert {("lm_head", "reference"), ("lm_head", "uniform"), ("", "uniform")} <= rows
    outcomes = {c.limit.criterion.key: c.outcome for c in judge_run(compared, load_policy()).checks}
    assert outcomes["min_range_margin"] == FAIL
