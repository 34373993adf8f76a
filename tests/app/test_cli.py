"""The command line: results where they belong, and one line with the remedy for bad input."""

import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.app.words.provenance import provenance_facts
from awqscope.diagnose.options.amounts import parse_share
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.naming import default_out
from awqscope.diagnose.stages.repair import PROOF
from awqscope.mixedprec.checkpoints import writer
from awqscope.mixedprec.checkpoints.serving import WITHOUT_ZEROS
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.recipe import load_recipe

MakeModel = Callable[..., Path]
SMALL = ["--group-size", "64", "--seq-len", "64", "--windows", "4"]
SMALL += ["--calib-windows", "2", "--calib-seq-len", "64"]


@pytest.fixture
def options(text_file: Path, tmp_path: Path) -> list[str]:
    texts = ["--calib", str(text_file), "--valid", str(text_file)]
    return [*texts, *SMALL, "--out", str(tmp_path / "out")]


def assert_refused(arguments: list[str], *wanted: str, out: Path | None = None) -> None:
    """Exit code 2, one line on stderr with each of `wanted`, nothing on stdout, nothing written."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("awqscope: ")
    for part in wanted:
        assert part in lines[0]
    assert result.stdout == ""
    assert out is None or not out.exists()


@pytest.mark.parametrize(
    ("extra", "wanted"),
    [
        (["--bits", "1"], "choose from 2 to 8"),
        (["--bits", "9"], "choose from 2 to 8"),
        (["--rescue-bits", "4"], "not above --bits 4"),
        (["--group-size", "48"], "choose 32, 64, 128 or -1"),
        (["--seq-len", "4096"], "give at most 128"),
        (["--windows", "1"], "give at least 2"),
        (["--valid", "wikitext9"], "give wikitext2, a .txt"),
        (["--valid", "no-such.txt"], "there is no file no-such.txt"),
        (["--valid", "wikitext2", "--valid", "wikitext2"], "--valid wikitext2 is given twice"),
        (["--keep-fp16", "9.down"], "the model has no unit '9.down'"),
        (["--max-memory", "lots"], "give it like 8GiB"),
        (["--device", "cuda"], "there is no device cuda"),
        (["--seed", "-1"], "give at least 0"),
        (["--verify-units", "-5"], "give at least 0"),
        (["--out", "/proc/none/run"], "choose another --out"),
    ],
)
def test_bad_options(
    extra: list[str], wanted: str, options: list[str], make_model: MakeModel, tmp_path: Path
) -> None:
    arguments = ["run", str(make_model("llama")), *options, *extra]
    assert_refused(arguments, wanted, out=tmp_path / "out")


def test_group_size_that_does_not_divide(
    options: list[str], make_model: MakeModel, tmp_path: Path
) -> None:
    path = make_model("llama", intermediate_size=224)
    assert_refused(
        ["run", str(path), *options],
        "group size 64 does not divide the 224 inputs of mlp.down_proj",
        out=tmp_path / "out",
    )


def test_text_with_too_few_tokens(
    options: list[str], make_model: MakeModel, tmp_path: Path
) -> None:
    (tmp_path / "short.txt").write_text("Only a few words.")
    arguments = ["run", str(make_model("llama")), *options, "--valid", str(tmp_path / "short.txt")]
    assert_refused(arguments, "too few for two windows of 64", out=tmp_path / "out")


def test_model_without_tokenizer(options: list[str], make_model: MakeModel, tmp_path: Path) -> None:
    bare = tmp_path / "model"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((make_model("llama") / name).read_bytes())
    assert_refused(["run", str(bare), *options], "has no tokenizer", out=tmp_path / "out")


def copy_model(source: Path, out: Path) -> Path:
    out.mkdir()
    for path in source.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    return out


def test_nan_weights_are_named_and_the_run_says_so(
    options: list[str], make_model: MakeModel, tmp_path: Path
) -> None:
    model = copy_model(make_model("llama"), tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.1.self_attn.q_proj.weight"][0, 0] = float("nan")
    save_file(tensors, model / "model.safetensors")
    result = CliRunner().invoke(app, ["run", str(model), *options])
    assert result.exit_code == 2
    last = result.stderr.strip().splitlines()[-1]
    assert "tensor model.layers.1.self_attn.q_proj.weight" in last
    assert "NaN or infinity" in last
    record = RunDirectory(tmp_path / "out").read()
    assert record.state == "failed"
    assert record.error is not None and "q_proj" in record.error.message
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "out")])
    assert "The run stopped" in shown.stdout


def test_activations_that_overflow_are_named(
    options: list[str], make_model: MakeModel, tmp_path: Path
) -> None:
    model = copy_model(make_model("llama", dtype=torch.bfloat16), tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    for name in ("gate_proj", "up_proj", "down_proj"):
        tensors[f"model.layers.1.mlp.{name}.weight"] *= 1e20
    save_file(tensors, model / "model.safetensors")
    result = CliRunner().invoke(app, ["run", str(model), *options])
    assert result.exit_code == 2
    assert "the output of model.layers.1 holds NaN or infinity" in result.stderr


def test_another_run_in_the_directory(
    options: list[str], make_model: MakeModel, tmp_path: Path
) -> None:
    arguments = ["run", str(make_model("llama")), *options]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    before = (tmp_path / "out" / "run.json").read_bytes()
    assert_refused([*arguments, "--bits", "3"], "holds another run (its bits is 4, not 3)")
    assert (tmp_path / "out" / "run.json").read_bytes() == before


def test_run_show_and_requantize(options: list[str], make_model: MakeModel, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(
        app, ["run", str(make_model("llama")), *options, "--top-k", "1", "--json"]
    )
    assert result.exit_code == 0, result.output
    headline = json.loads(result.stdout)
    recorded = RunDirectory(out).read().to_json()["headline"]
    assert {key: headline[key] for key in recorded} == recorded
    assert set(headline["ppl"]) == {"reference", "uniform", "mixed"}
    assert headline["proved"] is True
    told = json.loads(CliRunner().invoke(app, ["show", str(out), "--json"]).stdout)
    # What the headline lacks comes from the tokens.
    assert {key: told[key] for key in headline} == headline
    shown = CliRunner().invoke(app, ["show", str(out)]).stdout
    assert f"Block {headline['flagged'][0]} is flagged" in shown
    assert "▲ flagged" in shown
    loading = "vLLM, SGLang and transformers load it"
    assert f"checkpoint: {loading}" in shown
    assert provenance_facts(RunDirectory(out).read())["Checkpoint"].startswith(f"{loading}. ")
    recipe = load_recipe(out / "recipe.json")
    entries = json.loads((out / "recipe.json").read_text())
    for entry in entries["units"]:
        entry["bits"] = 4
    (tmp_path / "uniform.json").write_text(json.dumps(entries))
    arguments = ["requantize", str(out), "--recipe", str(tmp_path / "uniform.json"), "--out"]
    target = tmp_path / "awq"
    result = CliRunner().invoke(app, [*arguments, str(target), "--format", "awq"])
    assert result.exit_code == 0, result.output
    names = load_file(target / "model.safetensors").keys()
    assert sum(name.endswith("qweight") for name in names) == len(recipe.linear_widths())
    assert "was not measured" in (target / "README.md").read_text()
    assert_refused([*arguments, str(target)], "exists already")
    assert_refused([*arguments, str(tmp_path / "x"), "--format", "gguf"], "unknown format 'gguf'")


def test_requantize_refuses_another_model(
    options: list[str], make_model: MakeModel, tmp_path: Path
) -> None:
    model = copy_model(make_model("llama"), tmp_path / "model")
    (model / "README.md").write_text("---\nlicense: mit\n---\n# The source\n")
    assert CliRunner().invoke(app, ["run", str(model), *options]).exit_code == 0
    card = (tmp_path / "out" / "checkpoint" / "README.md").read_text()
    assert "license: mit" in card and "Proved from disk" in card and card.endswith("# The source\n")
    recipe = str(tmp_path / "out" / "recipe.json")
    arguments = ["requantize", str(tmp_path / "out"), "--recipe", recipe]
    moved = model.rename(tmp_path / "moved")
    target = tmp_path / "again"
    result = CliRunner().invoke(app, [*arguments, "--out", str(target), "--model", str(moved)])
    assert result.exit_code == 0, result.output
    first, second = (
        load_file(f / "model.safetensors") for f in (target, tmp_path / "out/checkpoint")
    )
    assert all(first[name].equal(second[name]) for name in second)
    tensors = load_file(moved / "model.safetensors")
    tensors["model.norm.weight"] += 1
    save_file(tensors, moved / "model.safetensors", metadata={"format": "pt"})
    arguments += ["--model", str(moved), "--out", str(tmp_path / "third")]
    assert_refused(arguments, "is not the model of", out=tmp_path / "third")


@pytest.fixture(scope="module")
def finished(
    make_model: MakeModel, text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunDirectory:
    """A run with a flagged block; tests leave it as it is."""
    out = tmp_path_factory.mktemp("finished") / "run"
    texts = ["--calib", str(text_file), "--valid", str(text_file), "--out", str(out)]
    arguments = ["run", str(make_model("llama")), *texts, *SMALL, "--top-k", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return RunDirectory(out)


def files_of(run: RunDirectory) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def proving(run: RunDirectory, recipe: Path, out: Path) -> list[str]:
    return ["requantize", str(run.path), "--recipe", str(recipe), "--out", str(out), "--prove"]


def test_requantize_proves_a_recipe_edited_by_hand(finished: RunDirectory, tmp_path: Path) -> None:
    """The worst unit that the run left at 4 bits promoted too: the KL falls further."""
    entries = json.loads((finished.path / "recipe.json").read_text())
    left = {entry["unit"] for entry in entries["units"] if entry["bits"] == 4}
    rows = [r for r in finished.read_table("units").to_pylist() if r["bits"] == 4]
    worst = max((r for r in rows if r["unit"] in left), key=lambda row: row["estimated_kl"])
    next(e for e in entries["units"] if e["unit"] == worst["unit"])["bits"] = 8
    recipe, out = tmp_path / "edited.json", tmp_path / "checkpoint"
    recipe.write_text(json.dumps(entries))
    before = files_of(finished)
    result = CliRunner().invoke(app, [*proving(finished, recipe, out), "--json"])
    assert result.exit_code == 0, result.output
    lines = result.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["writing"] * 2 + ["proving"] * 2
    assert lines[-1] == "proving: 100%"
    printed = json.loads(result.stdout)
    assert set(printed) == {"checkpoint", "bytes", "format", "serving", "proof"}
    assert printed["serving"] == finished.read().to_json()["serving"]
    assert printed["serving"]["vllm"] == "loads"
    assert "vLLM, SGLang and transformers load it" in (out / "README.md").read_text()
    assert printed["checkpoint"] == str(out)
    headline = finished.read().to_json()["headline"]
    assert printed["bytes"] > headline["bytes"]["mixed"]
    measured = printed["proof"]
    assert measured["passed"] is True
    assert 0 < measured["kl"] < headline["kl"]["mixed"]
    assert measured["recovered"] == pytest.approx(1 - measured["kl"] / headline["kl"]["uniform"])
    low, high = measured["recovered_interval"]
    assert low < measured["recovered"] < high
    proof = json.loads((out / "awqscope-proof.json").read_text())
    told = {key: proof[key] for key in ("passed", "reasons", "served", "instead")}
    assert {**told, **proof["measured"]} == measured
    assert proof["served"]["dtype"] == "float16"
    assert proof["served"]["finite"]
    assert proof["predicted_recovered"] is None
    assert f"| {measured['ppl']:.3f} |" in (out / "README.md").read_text()
    assert files_of(finished) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unit": "9.qkv"}, "the model has no unit '9.qkv'"),
        ({"unit": "0.q_proj", "linears": 1}, "splits the fused unit 0.qkv"),
        ({"bits": 5}, "holds no search at 5 bits"),
        ({"unit": "0.o"}, "the recipe names the unit 0.o twice"),
    ],
)
def test_requantize_refuses_recipes_of_another_shape(
    change: dict[str, Any], said: str, finished: RunDirectory, tmp_path: Path
) -> None:
    entries = json.loads((finished.path / "recipe.json").read_text())
    kept = entries["units"][0]["linears"][: change.get("linears")]
    entries["units"][0] |= {**change, "linears": kept}
    recipe, out = tmp_path / "edited.json", tmp_path / "checkpoint"
    recipe.write_text(json.dumps(entries))
    assert_refused(proving(finished, recipe, out), said, out=out)
    assert list(tmp_path.iterdir()) == [recipe]


def test_requantize_refuses_unfinished_runs_and_other_schemas(
    finished: RunDirectory, tmp_path: Path
) -> None:
    recipe, out = finished.path / "recipe.json", tmp_path / "checkpoint"
    other = RunDirectory(tmp_path / "run")
    other.path.mkdir()
    for changes, said in (
        ({"stages": {"search": {"state": "running"}}}, "has not finished its AWQ search"),
        ({"schema": 9}, "is a run of schema 9"),
    ):
        (other.path / "run.json").write_text(json.dumps({**finished.read().to_json(), **changes}))
        assert_refused(proving(other, recipe, out), said, out=out)


def damage_after_writing(monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]) -> None:
    """Let every checkpoint be written, then damaged by `damage` (of its weights' file)."""
    write = writer.write_checkpoint

    def write_damaged(out: Path, *args: object, **kwargs: object) -> object:
        serving = write(out, *args, **kwargs)  # type: ignore[arg-type]
        damage(out / "model.safetensors")
        return serving

    monkeypatch.setattr(writer, "write_checkpoint", write_damaged)


def test_requantize_says_that_the_proof_failed(
    finished: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(weights: Path) -> None:
        tensors = load_file(weights)
        tensors["model.norm.weight"] *= 1.01
        save_file(tensors, weights, metadata={"format": "pt"})

    damage_after_writing(monkeypatch, change)
    out = tmp_path / "checkpoint"
    arguments = proving(finished, finished.path / "recipe.json", out)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1, result.output
    size, serving, numbers, of_type, verdict = result.stdout.splitlines()
    assert size.startswith(f"{out}: ")
    assert serving.startswith("held against their rules: vLLM, SGLang and transformers load it. ")
    assert serving.endswith(WITHOUT_ZEROS)
    assert numbers.startswith("PPL ")
    assert ", KL " in numbers
    assert ", recovered " in numbers
    assert of_type.startswith("In float16, on ")
    assert verdict.startswith(
        "THE PROOF FAILED: the checkpoint on disk is not what the recipe says"
    )
    proof = json.loads((out / "awqscope-proof.json").read_text())
    assert proof["checks"]["differing_on_disk"] == ["model.norm.weight"]
    assert "**The proof failed**" in (out / "README.md").read_text()


def test_a_proof_that_cannot_be_carried_out_leaves_the_checkpoint(
    finished: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"

    def take_away(weights: Path) -> None:
        weights.rename(kept)

    damage_after_writing(monkeypatch, take_away)
    out = tmp_path / "checkpoint"
    result = CliRunner().invoke(app, proving(finished, finished.path / "recipe.json", out))
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert sum(line.startswith("awqscope: ") for line in lines) == 1
    said, _, command = lines[-1].partition(": prove it with ")
    assert f"{out} is complete but not proved" in said
    kept.rename(out / "model.safetensors")
    subprocess.run(shlex.split(command), check=True, capture_output=True)
    assert json.loads((out / "awqscope-proof.json").read_text())["passed"]


def test_what_cannot_be_proved_is_refused_before_writing(
    finished: RunDirectory, tmp_path: Path
) -> None:
    out = tmp_path / "checkpoint"
    recipe = finished.path / "recipe.json"
    assert_refused(
        [*proving(finished, recipe, out), "--format", "awq"], "compressed-tensors only", out=out
    )
    assert_refused([*proving(finished, Path("/dev/null"), out)], "is not a recipe", out=out)
    assert_refused(proving(finished, recipe, Path("/proc/none/x")), "/proc/none/x cannot be made")
    unmeasured = tmp_path / "run"
    shutil.copytree(finished.path, unmeasured)
    (unmeasured / "tokens.parquet").unlink()
    assert_refused(
        proving(RunDirectory(unmeasured), recipe, out), "tokens.parquet is missing", out=out
    )


def test_show_of_something_else(tmp_path: Path) -> None:
    assert_refused(["show", str(tmp_path)], "holds no run")


def start(arguments: list[str], **kwargs: object) -> subprocess.Popen:
    # Tests that a script started in the background ignore interrupts, and so would what they start.
    kwargs.setdefault("preexec_fn", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    return subprocess.Popen(
        [sys.executable, "-m", "awqscope.app.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize(
    ("signals", "code"),
    [((signal.SIGINT, signal.SIGINT), 130), ((signal.SIGTERM, signal.SIGTERM), 143)],
)
def test_a_run_asked_to_end_says_so_in_one_line_and_resumes(
    signals: tuple[signal.Signals, ...],
    code: int,
    options: list[str],
    make_model: MakeModel,
    tmp_path: Path,
) -> None:
    """A second one falls into its leaving. The command that the run then shows goes on with it,
    from any directory."""
    arguments = ["run", str(make_model("llama", num_hidden_layers=4)), *options]
    process = start(arguments)
    assert process.stderr is not None
    while not process.stderr.readline().startswith("AWQ search: "):
        assert process.poll() is None
    for number in signals:
        process.send_signal(number)
    _, stderr = process.communicate()
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert stderr.strip().splitlines()[-1].startswith("awqscope: interrupted; the same command")
    run = RunDirectory(tmp_path / "out")
    assert (run.read().state, run.look().state) == ("running", "stopped")
    shown = CliRunner().invoke(app, ["show", str(run.path)]).stdout
    assert "The run was stopped before its end (search)" in shown
    command = shown.partition("go on with it: ")[2].splitlines()[0]
    program = shlex.join([sys.executable, "-m", "awqscope.app.cli"])
    subprocess.run(
        f'awqscope() {{ {program} "$@"; }}\n{command}',
        shell=True,
        check=True,
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert run.look().state == "done"


def test_interrupt_while_proving_leaves_the_checkpoint(
    finished: RunDirectory, tmp_path: Path
) -> None:
    out = tmp_path / "checkpoint"
    arguments = [*proving(finished, finished.path / "recipe.json", out), "--json"]
    process = start(arguments, start_new_session=True)
    assert process.stderr is not None
    while not process.stderr.readline().startswith("proving"):
        assert process.poll() is None
    # To all of its group, as a terminal and a supervisor do: the proof leaves it to its parent.
    os.killpg(process.pid, signal.SIGTERM)
    stdout, stderr = process.communicate()
    assert process.returncode == 143, stderr
    assert stdout == ""
    (line,) = stderr.splitlines()
    assert line.startswith(f"awqscope: interrupted; {out} is complete but not proved: prove it")
    assert {path.name for path in out.iterdir()} >= {"config.json", "model.safetensors"}
    assert not (out / "awqscope-proof.json").exists()


@pytest.mark.parametrize(
    "limit",
    [*(pytest.param(n, marks=pytest.mark.slow) for n in (1_500, 300_000)), 60_000],
)
def test_full_disk_ends_in_one_line_and_resumes(
    limit: int, options: list[str], make_model: MakeModel, tmp_path: Path
) -> None:
    """A limit on file sizes stands in for a full disk: writes fail the same way."""
    arguments = ["run", str(make_model("llama")), *options]

    def restrict() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = start(arguments, preexec_fn=restrict)
    _, stderr = process.communicate()
    assert process.returncode == 2, stderr
    assert "Traceback" not in stderr
    assert "the disk is full while writing" in stderr.strip().splitlines()[-1]
    assert not list((tmp_path / "out").rglob("*.tmp"))
    assert not list((tmp_path / "out").glob(".*partial"))
    assert CliRunner().invoke(app, arguments).exit_code == 0


def test_the_proof_runs_nothing_from_where_it_is_started(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('this is not numpy')")
    done = subprocess.run(
        [*PROOF, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "holds no run" in done.stderr
    assert "this is not numpy" not in done.stderr


def test_shares_and_names() -> None:
    assert parse_share("95%") == parse_share("95") == parse_share("0.95") == parse_share("95.0 %")
    assert (parse_share("1"), parse_share("100"), parse_share("0.5%")) == (1.0, 1.0, 0.005)
    for text in ("1.5", "101", "150%", "-1", "nan", "a", ""):
        with pytest.raises(InputError, match=r"is no share: give it like 95% or 0\.95"):
            parse_share(text)
    assert default_out("org/Model-7B") == Path("reports/Model-7B")
    assert default_out("/models/my model/") == Path("reports/my-model")
    assert default_out("..") == Path("reports/run")
