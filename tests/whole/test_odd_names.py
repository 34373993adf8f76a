"""Every path that a user gives is a name and nothing more: whatever is in it, the same is measured,
written and said."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.app.store import Store
from awqscope.diagnose.explain.prompts import read_prompts
from awqscope.diagnose.inputs.corpora import load_tokenizer
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.runs.tables import TABLES
from awqscope.mixedprec.models import opening
from awqscope.mixedprec.models.opening import open_model
from tests.help.runs import make_record

SMALL = ["--group-size", "64", "--seq-len", "64", "--windows", "4", "--top-k", "1"]
SMALL += ["--calib-windows", "2", "--calib-seq-len", "64", "--verify-units", "1"]
# What `glob`, Rich's markup, addresses, Markdown and Arrow's directories take for more than a name.
ODD = "a[1] {b,c}*?#%41 'q' [bold]window=0"
PLAIN = "plain"


def ask(*arguments: object, codes: tuple[int, ...] = (0,)) -> str:
    result = CliRunner().invoke(app, [str(part) for part in arguments])
    assert result.exit_code in codes, result.output
    return result.stdout


def lay_out(name: str, model: Path, text: Path) -> None:
    """A model, a text and a policy called so, and beside them what the name would match."""
    shutil.copytree(model, f"model {name}")
    Path(f"text {name}.txt").write_bytes(text.read_bytes())
    Path(f"policy {name}.toml").write_text(
        "[limits]\nmax_kl = 100.0\n[drift]\nmax_kl_ratio = 1.5\n"
    )


def carry_out(name: str) -> dict[str, str]:
    """Every command that takes a path, with these names; what each printed."""
    model, text, run = f"model {name}", f"text {name}.txt", f"run {name}"
    recipe, checkpoint = f"recipe {name}.json", f"checkpoint {name}"
    policy, prompts = f"policy {name}.toml", f"prompts {name}.txt"
    Path(prompts).write_text(f"the {name} reading\n")
    assert read_prompts(Path(prompts)) == [f"the {name} reading"]
    begun = ["run", model, "--calib", text, "--valid", text, *SMALL, "--out", run]
    said = {
        "run": ask(*begun),
        "again": ask(*begun),
        "recipe": ask("recipe", run, "--target-bits", "6", "-o", recipe),
        "emitted": ask("recipe", run, "--emit", "llm-compressor", "-o", f"emitted {name}.yaml"),
        "requantize": ask("requantize", run, "--recipe", recipe, "--out", checkpoint),
        "show": ask("show", run),
        "list": ask("list", "."),
    }
    given = ["--policy", policy, "--baseline", run]
    written = {kind: f"gate {name}.{kind}" for kind in ("json", "junit", "markdown")}
    options = [part for kind, file in written.items() for part in (f"--{kind}", file)]
    # Four windows decide nothing.
    said["gate"] = ask("gate", run, *given, *options, codes=(0, 3))
    for kind, file in written.items():
        said[kind] = Path(file).read_text()
    said["report"] = ask("report", run, "-o", f"report {name}.html")
    return said


@pytest.fixture(scope="module")
def whole(
    make_model: Callable[..., Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str], dict[str, str]]:
    """Where both were carried out, and what was said of the plain and of the odd names."""
    place = tmp_path_factory.mktemp("names")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        # What a pattern would find first: other weights, another text.
        decoy = shutil.copytree(make_model("llama", hidden_size=64), "model a1 b")
        shutil.copytree(decoy, "run a1 b")
        Path("text a1 b41 q bwindow=0.txt").write_text("a decoy " * 2000)
        lay_out(PLAIN, make_model("llama"), text_file)
        lay_out(ODD, make_model("llama"), text_file)
        return place, carry_out(PLAIN), carry_out(ODD)


@pytest.mark.slow
def test_numbers_and_hashes_are_those_of_plain_names(
    whole: tuple[Path, dict[str, str], dict[str, str]],
) -> None:
    place, _, _ = whole
    plain, odd = (RunDirectory(place / f"run {name}") for name in (PLAIN, ODD))
    ours, theirs = plain.read(), odd.read()
    assert ours.headline == theirs.headline
    assert ours.source.hashes == theirs.source.hashes
    assert ours.ppl_definition.text_sha256 == theirs.ppl_definition.text_sha256
    assert ours.ppl_definition.tokens_sha256 == theirs.ppl_definition.tokens_sha256
    for table in ("blocks", "units", "tokens"):
        assert plain.read_table(table).equals(odd.read_table(table)), table
    first, second = (
        json.loads((place / f"recipe {name}.json").read_text())["units"] for name in (PLAIN, ODD)
    )
    assert first == second
    for file in ("model.safetensors", "config.json"):
        first, second = (
            (place / f"checkpoint {name}" / file).read_bytes() for name in (PLAIN, ODD)
        )
        assert first == second


@pytest.mark.parametrize("command", ["run", "show", "gate", "recipe", "requantize"])
def test_what_is_said_differs_in_the_name_alone(
    command: str, whole: tuple[Path, dict[str, str], dict[str, str]]
) -> None:
    _, plain, odd = whole

    def strip(text: str) -> str:
        """Without the blanks and lines that a table lays a name out by."""
        return re.sub(r"[\s─]+", "", text)

    assert strip(odd[command]).replace(strip(ODD), PLAIN) == strip(plain[command])
    assert ODD not in plain[command]


@pytest.mark.parametrize("output", ["run", "show", "list", "gate", "json", "requantize"])
def test_names_are_said_whole(
    output: str, whole: tuple[Path, dict[str, str], dict[str, str]]
) -> None:
    _, _, odd = whole
    assert ODD in odd[output]


def test_the_dashboard_reads_runs_of_odd_names(
    whole: tuple[Path, dict[str, str], dict[str, str]],
) -> None:
    """A directory called `window=0` is no part of a table."""
    place, _, _ = whole
    store = Store(place)
    for window in range(4):
        found = store.window(f"run {ODD}", window)
        assert found == store.window(f"run {PLAIN}", window) and len(found) == 64
        assert set(found[0]) == {field.name for field in TABLES["tokens"]}


def test_partitions_are_no_columns(tmp_path: Path) -> None:
    """A run in a directory `window=3` has the windows that its table has."""
    table = pa.table({"window": [0, 0, 1], "position": [0, 1, 0]})
    run = RunDirectory(tmp_path / "window=3")
    run.create(make_record(RunSpec(model="m", calib="c", valid="v")))
    run.write_arrow("tokens", table)
    assert Store(tmp_path).window("window=3", 0) == table.slice(0, 2).to_pylist()


def test_a_directory_is_taken_before_the_hub(
    make_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One called like an id on the hub, of which nothing is asked."""

    def ask_hub(*names: object, **options: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(opening, "download", ask_hub)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    Path("org").mkdir()
    shutil.copytree(make_model("llama"), "org/model")
    opened = open_model("org/model")
    assert opened.path == Path("org/model")
    assert opened.hash() == open_model(str(make_model("llama"))).hash()
    assert (
        load_tokenizer(opened.path).get_vocab() == load_tokenizer(make_model("llama")).get_vocab()
    )
