"""Starting and stopping runs from the dashboard: nothing starts that should not, values never
become options, and a run outlives whoever started it."""

import json
import os
import signal
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import awqscope.app.commands.run as run_module
from awqscope.app import cli
from awqscope.app.dashboard.access import Access, decide_access, is_own_request
from awqscope.app.dashboard.jobs import processes, request_checks
from awqscope.app.dashboard.jobs.processes import run_command, spec_command
from awqscope.app.dashboard.jobs.request_checks import check_request
from awqscope.app.dashboard.jobs.requests import (
    KINDS,
    LEFT_OUT,
    RefusedError,
    list_fields,
    read_request,
    request_like,
    suggest_name,
    write_field,
)
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.sections.fields import FOLDED, SHOWN
from awqscope.app.dashboard.server import create_app
from awqscope.app.store import Store, UnknownRunError
from awqscope.diagnose.options.execution import Execution
from awqscope.diagnose.options.option import list_options
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.resuming import read_spec
from awqscope.diagnose.runs.spec import AnySpec, CompareSpec, RunSpec
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.recipe import Recipe, RecipeUnit
from tests.help.requested import request_for, run_request
from tests.help.runs import make_record

MakeModel = Callable[..., Path]
LOCAL = decide_access("127.0.0.1", allow_remote=False, token=None, names=(), read_only=False)
READ_ONLY = decide_access("127.0.0.1", allow_remote=False, token=None, names=(), read_only=True)
PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=30)
FLAGS = ("symmetric", "whole_blocks")
NAMES = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=20)
SPEC = RunSpec(
    model="models/m", calib="a.txt", valid="b.txt", keep_fp16=("1.o",), seq_len=64, windows=4
)


def parse(command: list[str]) -> tuple[RunSpec, Path]:
    """What the command line makes of a command."""
    seen: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "carry_out", lambda spec, out, *rest: seen.append((spec, out)))
        result = CliRunner().invoke(cli.app, command[len(processes.PYTHON) :])
    assert result.exit_code == 0, result.output
    return seen[0]


@settings(max_examples=60, deadline=None)
@given(
    model=PRINTABLE | PRINTABLE.map(lambda text: "--" + text) | st.just("-h"),
    calib=PRINTABLE | st.just("--symmetric"),
    valid=PRINTABLE.map(lambda text: "-" + text),
    keep=st.lists(PRINTABLE.map(lambda text: "--seed=" + text), max_size=3),
    name=NAMES,
    symmetric=st.booleans(),
    whole=st.booleans(),
    numbers=st.tuples(st.none() | st.integers(2, 10**6), st.integers(0, 2**31)),
    z=st.floats(-1e3, 1e3),
)
def test_a_value_never_becomes_an_option(
    model: str,
    calib: str,
    valid: str,
    keep: list[str],
    name: str,
    symmetric: bool,
    whole: bool,
    numbers: tuple[int | None, int],
    z: float,
) -> None:
    request = run_request(
        model=model,
        name=name,
        calib=calib,
        valid=(valid,),
        keep_fp16=tuple(keep),
        symmetric=symmetric,
        whole_blocks=whole,
        windows=numbers[0],
        seed=numbers[1],
        z=z,
    )
    command = run_command(request, Path("runs"))
    assert command[-2:] == ["--", model]
    assert parse(command) == (request.to_spec(), Path("runs") / name)


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        RunSpec(
            model="m",
            calib="c",
            valid="v",
            bits=3,
            rescue_bits=6,
            group_size=-1,
            symmetric=True,
            z=2.5,
            delta_ppl=0.1,
            top_k=2,
            max_memory=12345,
        ),
    ],
)
def test_resuming_asks_for_the_same_run(spec: RunSpec, tmp_path: Path) -> None:
    command = spec_command(
        read_spec(json.loads(json.dumps(spec.to_json()))), tmp_path / "run", Execution()
    )
    assert parse(command) == (spec, tmp_path / "run")


def test_a_run_on_several_texts_is_resumed_and_taken_as_a_model(tmp_path: Path) -> None:
    spec = RunSpec(model="m", calib="c", valid=("v", "--seed=9"), seed=3)
    stored = json.loads(json.dumps(spec.to_json()))
    assert RunSpec.from_json(stored) == spec
    assert parse(spec_command(read_spec(stored), tmp_path / "run", Execution())) == (
        spec,
        tmp_path / "run",
    )
    assert request_like(stored).value("valid") == ("v", "--seed=9")
    assert request_like(stored).to_spec() == spec


def test_a_run_of_another_version_is_not_resumed() -> None:
    with pytest.raises(InputError, match="another version"):
        read_spec({**SPEC.to_json(), "invented": 1})


def test_defaults_are_those_of_the_command_line() -> None:
    request = run_request(model="m", name="n")
    bare = [*processes.PYTHON, "run", "--out=runs/n", "--", "m"]
    assert parse(bare) == parse(run_command(request, Path("runs")))


@pytest.fixture
def good(make_model: MakeModel, text_file: Path) -> dict[str, Any]:
    """Values of a form that can be started."""
    texts = {"calib": str(text_file), "valid": str(text_file)}
    small = {"group_size": "64", "seq_len": 64, "windows": 4, "calib_windows": 2}
    model = str(make_model("llama", num_hidden_layers=8))
    return {"model": model, "name": "mine", **texts, **small, "calib_seq_len": 64}


def test_a_good_request_has_no_problems(good: dict[str, Any]) -> None:
    request = read_request(good, RunSpec)
    assert check_request(request, {"other"}) == {}
    spec = request.to_spec()
    assert isinstance(spec, RunSpec)
    assert (spec.group_size, spec.valid) == (64, (good["valid"],))
    on_the_hub = run_request(model="org/Model-7B", name="x")
    assert check_request(on_the_hub, set()) == {}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("name", "taken", "There is one of that name"),
        ("name", "../up", "Use up to 100 letters"),
        ("name", ".hidden", "Use up to 100 letters"),
        ("name", "-x", "Use up to 100 letters"),
        ("name", "a/b", "Use up to 100 letters"),
        ("name", "n\n", None),
        ("name", "a" * 101, "Use up to 100 letters"),
        ("model", "", "A model is needed"),
        ("model", "/no/such/model", "There is no model directory"),
        ("model", "a\x00b", "characters that cannot be printed"),
        ("model", "--help", "There is no model directory"),
        ("calib", "no.txt", "There is no file no.txt"),
        ("valid", "wikitext9", "is no text that can be loaded"),
        ("valid", "hub:only", "is no text that can be loaded"),
        ("bits", "1", "Choose from 2 to 8"),
        ("bits", "8", None),
        ("rescue_bits", 4, "Rescue at more"),
        ("group_size", 48, "Choose 32, 64, 128"),
        ("seq_len", 1, "Give at least 2"),
        ("seq_len", 4096, "The model has 128 positions"),
        ("windows", 2.5, "2.5 is no whole number: give a whole number"),
        ("windows", "many", "many is no whole number: give a whole number"),
        ("windows", 10**10, "too large"),
        ("workers", "1.5", "is no whole number"),
        ("calib_windows", 0, "Give at least 1"),
        ("seed", -1, "Give at least 0"),
        ("seed", 10**30, "too large"),
        ("z", "nan", "nan is no number: give a number"),
        ("keep_fp16", "3.down, down", "'down' is no unit"),
        ("keep_fp16", "9.down", "the model has no unit '9.down'"),
        ("max_memory", "lots", "is no amount of memory"),
    ],
)
def test_bad_fields_are_named(
    field: str, value: Any, said: str | None, good: dict[str, Any]
) -> None:
    problems = check_request(read_request({**good, field: value}, RunSpec), {"taken"})
    if said is None:
        assert field not in problems
    else:
        assert set(problems) == {field}
        assert said.lower() in problems[field].lower()


def test_models_that_no_run_could_use(tmp_path: Path) -> None:
    def said() -> str:
        return check_request(run_request(model=str(tmp_path), name="x"), set()).get("model", "")

    assert "no config.json" in said()
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    assert "'mamba' is not supported" in said()
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    assert "as a pickle, which is never loaded" in said()
    (tmp_path / "weights.safetensors").write_bytes(b"")
    assert "name it model.safetensors" in said()
    (tmp_path / "config.json").write_text("[1")
    assert "cannot be read" in said()
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert said() == ""


COMPARED = CompareSpec(
    reference="models/m", candidate="c", valid=("a.txt", "--seed=2"), windows=3, z=2.5
)


@pytest.mark.parametrize("spec", [SPEC, COMPARED], ids=["run", "compare"])
def test_the_fields_of_a_form_hold_all_of_a_run(spec: Any, tmp_path: Path) -> None:
    """A run like one, read back from the fields that it fills in, is that one."""
    request = request_like(json.loads(json.dumps(spec.to_json())), {"workers": 2, "device": "cpu"})
    shown = {
        key: value if (value := write_field(option, request.value(key))) is False else str(value)
        for key, option in list_fields(request.kind).items()
    }
    again = read_request(shown, request.kind)
    assert (again.to_spec(), again.to_execution()) == (spec, request.to_execution())
    assert request.to_spec() == spec
    command = run_command(again, tmp_path)
    assert {"--device=cpu", "--workers=2"} <= set(command)
    # Widths, texts and all, whatever the command makes of them: nothing else is said.
    how = Execution(device="cpu", workers=2)
    assert command == spec_command(spec, tmp_path / request.name, how)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"candidate": ""}, "candidate"),
        ({"reference": "/no/such/model"}, "reference"),
        ({"device": "gpu"}, "device"),
        ({"device": "cuda:0", "workers": 2}, "workers"),
        ({"workers": 0}, "workers"),
        ({"valid": "a.txt\na.txt"}, "valid"),
    ],
)
def test_bad_fields_of_a_comparison(changes: dict[str, Any], field: str, text_file: Path) -> None:
    good = {"reference": "org/m", "candidate": "org/c", "name": "x", "valid": str(text_file)}
    request = read_request({**good, **changes}, CompareSpec)
    assert set(check_request(request, set())) == {field}
    assert check_request(read_request(good, CompareSpec), set()) == {}


def test_names_and_likeness() -> None:
    assert suggest_name("org/Model-7B", {"Model-7B", "Model-7B-2"}) == "Model-7B-3"
    assert request_checks.NAME.fullmatch(suggest_name("../.." + "x" * 500, set()))
    request = request_like({**SPEC.to_json(), "invented": 1})
    assert request.name == ""
    assert request.to_spec() == SPEC
    field = list_fields(RunSpec)["max_memory"]
    assert write_field(field, request.value("max_memory")) == "8GiB"


@pytest.mark.parametrize("kind", KINDS.values())
def test_the_form_has_every_option(kind: type[AnySpec]) -> None:
    shown = [key for _, keys in (*SHOWN[kind], *FOLDED[kind]) for key in keys]
    assert sorted(shown) == sorted(list_fields(kind))
    options = list_options(kind, Execution).keys()
    assert options - set(shown) == LEFT_OUT.keys()
    assert all(option.shown.label and option.hint for option in list_fields(kind).values())


def wait_for(what: Callable[[], Any]) -> Any:
    """What comes sooner or later, however busy the machine is."""
    while not (found := what()):
        time.sleep(0.05)
    return found


def test_start_cancel_and_resume(good: dict[str, Any], tmp_path: Path) -> None:
    store = Store(tmp_path)
    mine = Jobs(store)
    request = read_request(good, RunSpec)
    assert mine.start(request) == "mine"
    with pytest.raises(RefusedError) as refused:
        mine.start(request)
    assert set(refused.value.fields) == {"name"}
    assert Jobs(Store(tmp_path)).is_alive("mine"), "a restarted server must know of it"
    assert [run.name for run in store.list_runs()] in ([], ["mine"])
    wait_for((tmp_path / "mine" / "progress.jsonl").exists)
    holder = RunDirectory(tmp_path / "mine").holder()
    assert holder is not None
    assert os.getsid(holder) == holder != os.getsid(0)
    with pytest.raises(InputError, match="mine is running"):
        mine.resume("mine")
    mine.cancel("mine")
    wait_for(lambda: not mine.is_alive("mine"))
    assert store.summary("mine").state in ("failed", "stopped")
    with pytest.raises(InputError, match="nobody works on mine"):
        mine.cancel("mine")
    spec = RunDirectory(tmp_path / "mine").read().spec
    assert spec == request.to_spec().change(precision="float32"), "settled by the device"
    mine.resume("mine")
    wait_for(lambda: store.summary("mine").state in ("running", "done"))
    assert mine.log_tail("mine").count("$ awqscope run ") == 2
    again = RunDirectory(tmp_path / "mine").holder()
    if again is not None:
        os.killpg(again, signal.SIGKILL)
    wait_for(lambda: not mine.is_alive("mine"))


@pytest.mark.parametrize("place", ["elsewhere", "gone"])
def test_a_run_goes_on_where_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Its spec may name a model by a path relative to there."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "runs").mkdir()
    directory = str(tmp_path / place)
    mine_run = RunDirectory(tmp_path / "runs" / "mine")
    mine_run.create(RECORD.changed(directory=directory))
    mine_run.update(state="failed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "PYTHON", ("sh", "-c", 'pwd; echo "$@"', "awqscope"))
    mine = Jobs(Store(Path("runs")))
    mine.resume("mine")
    wait_for(lambda: not mine.is_alive("mine"))
    said = mine.log_tail("mine").splitlines()
    assert said[1] == str(elsewhere if place == "elsewhere" else tmp_path)
    assert f"--out={tmp_path / 'runs' / 'mine'}" in said[2]


def test_only_runs_of_the_listing_are_touched(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    RunDirectory(tmp_path / "outside").create(RECORD)
    (tmp_path / "secret.log").write_text("secret")
    mine = Jobs(Store(tmp_path / "runs"))
    for act in (mine.cancel, mine.resume):
        with pytest.raises(UnknownRunError):
            act("../outside")
    assert mine.log_tail("../../secret") == ""
    assert not mine.is_alive("../../secret")


RECORD = make_record(SPEC, stages={"search": {"state": "running"}})
RECIPE = Recipe("m", "by-hand", (RecipeUnit("0.o", ("model.layers.0.self_attn.o_proj",), 8),), {})


def test_signals_go_to_nobody_else(tmp_path: Path) -> None:
    """A lock may name a process of another machine, or one long gone."""
    run = RunDirectory(tmp_path / "run")
    run.create(RECORD)
    with run.lock():
        bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        (run.path / ".lock").write_text(str(bystander.pid))
        with pytest.raises(InputError, match="another machine"):
            Jobs(Store(tmp_path)).cancel("run")
        assert bystander.poll() is None
        bystander.kill()
        bystander.wait()


def test_requantizing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunDirectory(tmp_path / "run").create(RECORD)
    mine = Jobs(Store(tmp_path))
    program = (
        "import json, sys, time; print('working', file=sys.stderr); "
        "assert json.load(open(sys.argv[2].removeprefix('--recipe=')))['kind'] == 'by-hand'; "
        "print('{' if 'bad' in sys.argv[2] else json.dumps(sys.argv[1:]))"
    )
    monkeypatch.setattr(processes, "PYTHON", (sys.executable, "-c", program))
    for name in ("good", "bad"):
        mine.requantize("run", RECIPE, name)
    wait_for(lambda: all(job.state != "running" for job in mine.requantizations("run")))
    found = {job.name: job for job in mine.requantizations("run")}
    assert (found["good"].state, found["bad"].state) == ("done", "failed")
    folder = tmp_path / "run" / "recipes"
    options = [f"--recipe={folder / 'good.json'}", f"--out={folder / 'good'}"]
    wanted = ["requantize", *options, "--prove", "--json", "--", str(tmp_path / "run")]
    assert found["good"].result == wanted
    assert "working" in found["bad"].log
    for name in ("good", "../up", "a.result", "", "-x"):
        with pytest.raises(InputError):
            mine.requantize("run", RECIPE, name)
    there = sorted(folder.iterdir())
    monkeypatch.setattr(processes, "PYTHON", (str(tmp_path / "nowhere"),))
    with pytest.raises(InputError, match="cannot be started"):
        mine.requantize("run", RECIPE, "late")
    assert sorted(folder.iterdir()) == there, "what did not start takes no name"


def outputs(access: Access, tmp_path: Path) -> str:
    return " ".join(create_app(Store(tmp_path), access).callback_map)


def test_read_only_registers_nothing_that_starts_or_stops(tmp_path: Path) -> None:
    assert "new-said" in outputs(LOCAL, tmp_path)
    assert "job-said" in outputs(LOCAL, tmp_path)
    closed = outputs(READ_ONLY, tmp_path)
    assert "new-" not in closed
    assert "job-said" not in closed


def call(client: FlaskClient, app: Any, has: str, inputs: dict[str, Any], **headers: str) -> Any:
    """The answer to the callback whose outputs and inputs are these. inputs: `id.property` ->
    value."""
    name, entry = next(
        (name, entry)
        for name, entry in app.callback_map.items()
        if has in name and {f"{i['id']}.{i['property']}" for i in entry["inputs"]} <= set(inputs)
    )

    def given(kind: str) -> list[dict[str, Any]]:
        return [{**i, "value": inputs[f"{i['id']}.{i['property']}"]} for i in entry[kind]]

    parts = name.strip(".").split("...")
    targets = [dict(zip(("id", "property"), part.rsplit(".", 1), strict=True)) for part in parts]
    body = {
        "output": name,
        "outputs": targets if name.startswith("..") else targets[0],
        "inputs": given("inputs"),
        "state": given("state"),
        "changedPropIds": [next(iter(inputs))],
    }
    return client.post("/_dash-update-component", json=body, headers=headers)


@pytest.fixture
def live_run(tmp_path: Path) -> Iterator[RunDirectory]:
    """A run that this process works on."""
    run = RunDirectory(tmp_path / "run")
    run.create(RECORD)
    with run.lock():
        yield run


def test_a_running_run_is_followed(live_run: RunDirectory, tmp_path: Path) -> None:
    app = create_app(Store(tmp_path), LOCAL)
    client = app.server.test_client()
    address = {"address.data": {"path": "/run/run", "search": ""}}
    first = call(client, app, "page.children", address).json["response"]
    assert first["live"] == {"disabled": False}

    def tick() -> Any:
        here = {"ticks": 1, "path": "/run/run", "search": ""}
        return call(
            client, app, "page.children", {"here.data": here, "seen.data": first["seen"]["data"]}
        )

    event = {"stage": "search", "done": 3, "total": 8, "eta": 12.0}
    (live_run.path / "progress.jsonl").write_text(json.dumps(event) + "\n")
    answer = tick().json
    assert "search 38%, 12 s left" in json.dumps(answer["sideUpdate"], ensure_ascii=False)
    assert "page" not in answer.get("response", {})
    live_run.update(state="failed", error={"message": "<b>no</b> disk", "remedy": "free some"})
    answer = tick().json
    assert "This run stopped" in json.dumps(answer["response"]["page"])
    assert "Go on with it" in json.dumps(answer["response"]["page"])
    assert answer["response"]["live"] == {"disabled": True}


def test_requests_of_other_sites_are_refused(tmp_path: Path) -> None:
    app = create_app(Store(tmp_path), LOCAL)
    client = app.server.test_client()

    def status(**headers: str) -> int:
        address = {"address.data": {"path": "/new", "search": ""}}
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return call(client, app, "page.children", address, **sent).status_code

    assert status() == 200
    assert status(Origin="http://localhost", Sec_Fetch_Site="same-origin") == 200
    assert status(Origin="http://evil.example") == 403
    assert status(Origin="null") == 403
    assert status(Origin="http://localhost:9999") == 403
    assert status(Sec_Fetch_Site="cross-site") == 403
    assert status(Sec_Fetch_Site="same-site") == 403
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200
    assert is_own_request("[::1]:8050", "http://[::1]:8050", None)
    assert not is_own_request("localhost:8050", "http://[", None)


def test_requests_with_problems_start_nothing(tmp_path: Path) -> None:
    mine = Jobs(Store(tmp_path))
    with pytest.raises(RefusedError):
        mine.start(run_request(model="/no/such", name="x"))
    with pytest.raises(RefusedError):
        mine.start(run_request(model="org/m", name="x", seed="0.5"))
    assert list(tmp_path.iterdir()) == []


def press_start(client: FlaskClient, app: Any, values: dict[str, Any]) -> Any:
    """The answer to the form's button where its fields show these values."""
    name = next(name for name in app.callback_map if "new-said" in name)
    ids = [{"type": "new", "field": key} for key in values if key not in FLAGS]
    parts = [part.rsplit(".", 1) for part in name.strip(".").split("...")]
    targets = [
        [{"id": i, "property": "error"} for i in ids]
        if shown == "error"
        else {"id": where, "property": shown}
        for where, shown in parts
    ]
    asked = {"values": values, "path": "/new", "search": "", "asked": 1}
    body = {
        "output": name,
        "outputs": targets,
        "inputs": [{"id": "new-asked", "property": "data", "value": asked}],
        "state": [[{"id": i, "property": "id", "value": i} for i in ids]],
        "changedPropIds": ["new-asked.data"],
    }
    return client.post("/_dash-update-component", json=body).json["response"]


def shown_values(kind: type[Any], **changes: str) -> dict[str, Any]:
    """What the fields of a fresh form show, as a page reads them, with changes."""
    fields = list_fields(kind)
    values = {key: write_field(fields[key], request_for(kind).value(key)) for key in fields}
    return {k: v if k in FLAGS else str(v) for k, v in {**values, **changes}.items()}


def test_the_form_names_its_bad_fields_or_leads_to_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PYTHON", (sys.executable, "-c", ""))
    app = create_app(Store(tmp_path), LOCAL)
    client = app.server.test_client()
    values = shown_values(RunSpec, model="org/m")
    answer = press_start(client, app, {**values, "windows": "1", "seed": "0.5"})
    errors = {key: found["error"] for key, found in answer.items() if found.get("error")}
    assert {json.loads(key)["field"]: said for key, said in errors.items()} == {
        "windows": "1 is too small: give at least 2",
        "seed": "0.5 is no whole number: give a whole number",
    }
    assert answer["new-more"] == {"open": True}
    assert "Windows, Seed" in answer["new-said"]["children"]
    assert list(tmp_path.iterdir()) == []
    answer = press_start(client, app, values)
    assert next(iter(answer["url"].values())) == "/run/m"
    wait_for(lambda: not Jobs(Store(tmp_path)).is_alive("m"))


def test_a_process_that_fails_at_once_leaves_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import sys; sys.exit('awqscope: the hub has no such model')"
    monkeypatch.setattr(processes, "PYTHON", (sys.executable, "-c", program))
    mine = Jobs(Store(tmp_path))
    mine.start(run_request(model="org/m", name="gone"))
    wait_for(lambda: not mine.is_alive("gone"))
    assert mine.log_tail("gone").splitlines()[-1] == "awqscope: the hub has no such model"
    app = create_app(Store(tmp_path), LOCAL)
    address = {"address.data": {"path": "/run/gone", "search": ""}}
    answer = call(app.server.test_client(), app, "page.children", address).json["response"]
    assert "It did not begin" in json.dumps(answer["page"])
    assert "The hub has no such model." in json.dumps(answer["page"])
    assert mine.start(run_request(model="org/m", name="gone")) == "gone", "the name is free again"
    wait_for(lambda: not mine.is_alive("gone"))
