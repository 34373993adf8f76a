"""The command line's own words: help that fits, one line for every error, what a path was meant
for."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from awqscope.app.cli import COMMANDS, app
from tests.help.browsing import copy_sample
from tests.help.root import ROOT


def ask(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(part) for part in arguments])
    return result.exit_code, result.stdout, result.stderr


def refused(*arguments: object) -> str:
    """The one line of an error of usage."""
    code, printed, said = ask(*arguments)
    assert (code, printed) == (2, ""), said
    (line,) = said.splitlines()
    assert line.startswith("awqscope: ")
    return line.removeprefix("awqscope: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_terminal_and_ends_with_examples_that_hold(command: str) -> None:
    code, text, _ = ask(command, "--help")
    assert code == 0
    assert ask(command, "-h")[1] == text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "{" not in text and "<" not in text
    assert text.startswith(f"Usage: awqscope {command} [OPTIONS]")
    examples = text.partition("\nExamples:\n")[2].strip("\n").splitlines()
    assert examples
    known = get_command(app)
    for line in examples:
        words = shlex.split(line.partition("awqscope ")[2].partition(" >")[0])
        assert words[0] == command
        parsed = known.commands[command]  # type: ignore[attr-defined]
        parsed.make_context(command, words[1:])


def test_options_of_a_long_command_stand_in_groups() -> None:
    text = ask("run", "--help")[1]
    heads = re.findall(r"^([A-Z][\w ,]+):$", text, re.MULTILINE)
    assert heads == [
        "Arguments",
        "Texts",
        "Widths",
        "What is flagged",
        "Result",
        "Machine",
        "Options",
        "Examples",
    ]
    options = text.partition("\nOptions:\n")[2].partition("\nExamples:")[0]
    assert options.split() == ["-h,", "--help", "Show", "this", "message", "and", "exit."]
    # Their texts begin in one column.
    assert len({line.index("Width of") for line in text.splitlines() if "Width of" in line}) == 1


def test_the_version_is_that_of_what_decides_numbers() -> None:
    code, printed, _ = ask("--version")
    assert code == 0
    assert re.fullmatch(r"awqscope \d\S+ \(autoawq \S+, torch \S+, transformers \S+\)\n", printed)


def test_a_path_given_for_a_command_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my runs").mkdir()
    copy_sample(Path("my runs"), "one")
    shutil.copytree(ROOT / "examples" / "demo", "model")
    checkpoint = Path("my runs/one/checkpoint")
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text(json.dumps({"quantization_config": {"bits": 4}}))
    said = {
        "my runs/one": "is a run, no command: awqscope show 'my runs/one'",
        "my runs": "is a directory of runs, no command: awqscope list 'my runs'",
        "./model": "is a model, no command: awqscope run ./model",
        "my runs/one/checkpoint": "is a quantized checkpoint, no command: "
        "awqscope compare REFERENCE 'my runs/one/checkpoint'",
    }
    for path, wanted in said.items():
        assert refused(path) == f"{path} {wanted}"
    # What is suggested is followed.
    for words in (shlex.split(said[path].partition("awqscope ")[2]) for path in list(said)[:2]):
        assert ask(*words)[0] == 0
    assert refused("./model", "--bits", "3").endswith("awqscope run ./model --bits 3")


def test_a_run_or_a_model_in_the_others_place_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    run = copy_sample(Path("runs"), "one")
    model = ROOT / "examples" / "demo"
    wanted = "runs/one is a run, no model: it has no checkpoint; give a model"
    assert refused("compare", model, run) == wanted
    (run / "checkpoint").mkdir()
    wanted = "runs/one is a run, no model: its checkpoint is runs/one/checkpoint"
    assert refused("compare", model, run) == refused("run", run) == wanted
    assert refused("show", model).startswith(f"{model} holds no run: it is a model; awqscope run ")
    assert refused("gate", "runs").endswith("it holds runs; awqscope list runs names them")
    for inside in (run / "awq", run / "run.json", run / "awq" / "nothing"):
        assert (
            refused("gate", inside) == f"{inside} holds no run: give the run that it is in, {run}"
        )
    assert refused("list", run) == f"{run} is a run: awqscope show {run}"
    wanted = f"{run} is a run: give the directory that it is in, {run.absolute().parent}"
    assert refused("dashboard", run) == wanted
    assert refused("show", "nothing") == "nothing holds no run: give a directory with run.json"
    gguf = tmp_path / "my model.gguf"
    gguf.touch()
    wanted = f"{gguf} holds no run: it is a model; awqscope run '{gguf}' makes a run of a model"
    assert refused("calibrate", gguf) == wanted
    assert refused("alternatives", "org/model").endswith(
        "; awqscope run org/model makes one of a model on the hub"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("rn", "there is no command rn: did you mean run?"),
        ("shwo reports/x", "there is no command shwo: did you mean show?"),
        ("xyzzy", "there is no command xyzzy: the commands are run, demo, list, "),
        ("--versoin", "there is no option --versoin: did you mean --version?"),
        ("run m --bts 4", "there is no option --bts: did you mean --bits?"),
        ("run m --quux 4", "there is no option --quux: awqscope run --help lists"),
        ("run m --bits four", "--bits four is no whole number: "),
        ("run m --bits 4.5", "--bits 4.5 is no whole number: "),
        ("run m --z high", "--z high is no number: "),
        ("run m --workers 0", "--workers 0 is too small: give at least 1"),
        ("run m --bits", "option '--bits' requires an argument: awqscope"),
        ("run m n", "got unexpected extra argument(s) (n): awqscope run --help"),
        ("run", "MODEL is missing: awqscope run [OPTIONS] MODEL; "),
        ("show", "RUN is missing: awqscope show [OPTIONS] RUN; "),
        ("report r", "--out is missing: "),
        ("list nowhere", "nowhere is no directory: give the directory that holds your runs"),
        ("recipe r --emit gguf", "nothing emits 'gguf': did you mean llama.cpp? use one of llm-"),
        ("recipe r --emit mlx_lm", "did you mean mlx-lm?"),
        ("recipe r --emit onnx", "nothing emits 'onnx': use one of llm-compressor, "),
        ("report r -o r.pdf", "a browser prints that as PDF"),
    ],
)
def test_every_error_of_usage_is_one_line(arguments: str, said: str) -> None:
    assert said in refused(*arguments.split())


def test_a_tool_that_does_not_take_the_family_is_said_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    run = copy_sample(tmp_path, "one")
    record = json.loads((run / "run.json").read_text())
    record["source"]["architecture"] = "falcon"
    (run / "run.json").write_text(json.dumps(record))
    said = refused("recipe", run, "--emit", "mlx-lm", "--verify", "--model", tmp_path / "absent")
    assert said == (
        "mlx-lm takes no models of type falcon: it has no such model (seen with mlx-lm 0.32.2): "
        "emit for modelopt, llama.cpp"
    )


def test_no_arguments_give_the_help() -> None:
    code, printed, said = ask()
    assert code == 2
    assert "Commands:" in printed + said and "Usage: awqscope [OPTIONS] COMMAND" in printed + said


def test_blanks_of_a_name_stay_in_what_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "a  b.txt: check the path" in refused("run", "m", "--calib", "a  b.txt")


def test_a_missing_text_is_named_before_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = copy_sample(tmp_path, "one")
    Path("held-out.txt").write_text("text")
    for plan in ([], ["--plan"]):
        said = refused("run", "m", "--calib", "held-uot.txt", "--out", run, *plan)
        assert said == "there is no file held-uot.txt: did you mean held-out.txt?"
    said = refused("compare", "m", "c", "--valid", "x.tx", "--out", run)
    assert said.startswith("'x.tx' is no text that can be loaded: give wikitext2, a .txt")


@pytest.mark.parametrize("path", ["x" * 300, "y/" * 3000])
def test_paths_that_no_system_takes_are_refused(path: str) -> None:
    for arguments in (["show", path], ["gate", path], ["report", path, "-o", "x.html"]):
        assert "cannot" in refused(*arguments)


def test_budgets_too_small_name_one_that_is_met() -> None:
    sample = ROOT / "reports" / "sample"
    for option, value in (("--target-bits", "3"), ("--max-bytes", "1 MB")):
        said = refused("recipe", sample, option, value)
        found = re.search(r"give at least (\S+) bits per weight, (\S+ bytes) \((\S+ MB)\)", said)
        assert found
        assert ask("recipe", sample, "--target-bits", found[1])[0] == 0
        assert ask("recipe", sample, "--max-bytes", found[2])[0] == 0
    said = refused("recipe", sample, "--min-recovery", "100%", "--widths", "4,8")
    most = said.partition("these widths give back ")[2].split()[0]
    assert ask("recipe", sample, "--min-recovery", most, "--widths", "4,8")[0] == 0


def test_shares_are_read_as_they_are_typed() -> None:
    sample = ROOT / "reports" / "sample"
    written = [ask("recipe", sample, "--min-recovery", text)[1] for text in ("95%", "95", "0.95")]
    assert written[0] and written.count(written[0]) == 3
    assert refused("recipe", sample, "--min-recovery", "1.5").startswith("'1.5' is no share")
