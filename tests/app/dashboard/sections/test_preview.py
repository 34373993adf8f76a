"""What a form will start, said before it does: the command, what comes of it, what it takes."""

import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from awqscope.app import cli
from awqscope.app.dashboard.jobs import processes
from awqscope.app.dashboard.jobs.plans import Planned, Plans
from awqscope.app.dashboard.jobs.processes import run_command, write_command
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.sections.preview import foretell, preview, show_plan, write_plan
from awqscope.app.dashboard.server import create_app
from awqscope.app.store import Store
from awqscope.diagnose.runs.spec import RunSpec
from tests.app.dashboard.jobs.test_runs import LOCAL, call, shown_values, wait_for
from tests.app.dashboard.test_server import read_text
from tests.help.requested import compare_request, run_request

MakeModel = Callable[..., Path]


def read_parts(parts: Any) -> str:
    return read_text(
        json.loads(json.dumps([part.to_plotly_json() for part in parts], default=plain))
    )


def plain(part: Any) -> Any:
    return part.to_plotly_json()


def test_the_command_shown_is_the_one_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs(Store(tmp_path))
    request = run_request(model="org/my model".replace(" ", "-"), bits=3, seed=5)
    shown = read_parts(preview(jobs, request))
    monkeypatch.setattr(processes, "PYTHON", (sys.executable, "-c", ""))
    name = jobs.start(request)
    started = jobs.log_tail(name).splitlines()[0].removeprefix("$ ")
    assert f" {started} " in f" {shown} "
    assert "--bits=3" in started and "--seed=5" in started and "--z" not in started
    wait_for(lambda: not jobs.is_alive(name))


def test_what_stands_in_the_way_is_said(tmp_path: Path) -> None:
    jobs = Jobs(Store(tmp_path))
    shown = read_parts(preview(jobs, run_request(calib="none.txt", seed="0.5")))
    for said in (
        "Model: A model is needed",
        "Calibration text: There is no file",
        "Seed: 0.5 is no whole number",
    ):
        assert said in shown
    assert "Name of the run" not in shown, "it is made from the model's"
    assert "awqscope run" not in shown


@pytest.mark.parametrize(("bits", "rescue", "odd"), [(3, 8, 3), (4, 6, 6), (5, 8, 5), (4, 8, None)])
def test_whether_there_will_be_a_checkpoint(bits: int, rescue: int, odd: int | None) -> None:
    said = " ".join(foretell(run_request(model="m", bits=bits, rescue_bits=rescue), "out"))
    spec = RunSpec(model="m", calib="c", valid="v", bits=bits, rescue_bits=rescue)
    if odd is None:
        assert spec.no_checkpoint is None
        assert "out/checkpoint" in said
    else:
        assert spec.no_checkpoint == f"no server loads checkpoints with {odd}-bit layers"
        assert f"No checkpoint will be written: {spec.no_checkpoint}." in said
    assert "no checkpoint is written" in " ".join(
        foretell(compare_request(reference="m", candidate="c"), "out")
    )


@pytest.mark.parametrize("bits", [4, 5])
def test_a_plan_says_whether_there_will_be_a_checkpoint(
    bits: int, make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    model = str(make_model("llama", num_hidden_layers=2))
    texts = [f"--calib={text_file}", f"--valid={text_file}", "--seq-len=64", "--group-size=64"]
    small = ["--windows=2", "--calib-windows=1", "--calib-seq-len=64", f"--out={tmp_path / 'run'}"]
    command = ["run", model, *texts, *small, f"--bits={bits}", "--device=cpu", "--plan"]
    text = CliRunner().invoke(cli.app, command)
    assert text.exit_code == 0, text.output
    assert ("no checkpoint will be written: no server loads" in text.output) == (bits == 5)
    found = json.loads(CliRunner().invoke(cli.app, [*command, "--json"]).stdout)
    assert (found["no_checkpoint"] is None) == (bits == 4)
    assert write_plan(found).startswith("About ")
    assert read_parts([show_plan(Planned("done", found))]).count("search") == 1
    assert not (tmp_path / "run").exists()


def test_a_comparison_is_planned_too(
    make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    model = str(make_model("llama", num_hidden_layers=2))
    options = [f"--valid={text_file}", "--seq-len=64", "--windows=2", f"--out={tmp_path / 'run'}"]
    result = CliRunner().invoke(cli.app, ["compare", model, model, *options, "--plan", "--json"])
    assert result.exit_code == 0, result.output
    assert [stage["stage"] for stage in json.loads(result.stdout)["stages"]] == ["sweep"]
    assert not (tmp_path / "run").exists()


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_plans_are_worked_out_one_at_a_time() -> None:
    plans = Plans()
    slow = python("import time; time.sleep(60)")
    quick = python("print('{\"seconds\": 1}')")
    assert plans.look(slow) is None, "nobody asked"
    began = time.monotonic()
    assert plans.ask(slow).state == "running"
    assert time.monotonic() - began < 5, "whoever asks does not wait"
    assert plans.ask(slow).state == "running"
    assert plans.ask(quick).state == "running"
    assert plans.look(slow) is None, "dropped for the other"
    wait_for(lambda: plans.ask(quick).state != "running")
    assert plans.look(quick) == Planned("done", {"seconds": 1})
    bad = python("import sys; sys.exit('awqscope: --max-memory 1MiB is too little: give more')")
    plans.ask(bad)
    wait_for(lambda: plans.look(bad).state != "running")
    failed = plans.look(bad)
    assert failed is not None and failed.state == "failed"
    assert "--max-memory 1MiB is too little: give more." in read_parts([show_plan(failed)])
    assert plans.ask(bad).state == "running", "what failed may have been mended"
    odd = python("print('[1')")
    plans.ask(odd)
    wait_for(lambda: plans.look(odd).state == "failed")
    plans.ask(slow)
    plans.close()
    assert plans.look(slow) is None
    assert not [
        child for child in psutil.Process().children() if "sleep(60)" in str(child.cmdline())
    ]


def test_the_button_asks_for_the_plan_of_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {"seconds": 90.0, "budget": 2**33, "minimum": 2**29, "workers": 1, "stages": []}
    program = f"import json, sys; assert '--plan' in sys.argv; print(json.dumps({plan!r}))"
    monkeypatch.setattr(processes, "PYTHON", (sys.executable, "-c", program))
    app = create_app(Store(tmp_path), LOCAL)
    client = app.server.test_client()
    asked = {"values": shown_values(RunSpec, model="org/m"), "path": "/new", "search": ""}
    first = call(client, app, "new-preview", {"plan-asked.data": asked}).json["response"]
    assert first["plan-tick"] == {"disabled": False}
    name = next(iter(first["new-plan"]))
    assert "Working it out" in read_text(first["new-plan"][name])

    def look() -> Any:
        answer = call(client, app, "new-preview", {"plan-asked.data": asked}).json["response"]
        return answer if answer["plan-tick"]["disabled"] else None

    done = wait_for(look)
    assert "About 2 min" in read_text(done["new-plan"][name])
    # Nothing to plan where nothing could be started.
    bad = {**asked, "values": shown_values(RunSpec)}
    none = call(client, app, "new-preview", {"plan-asked.data": bad}).json["response"]
    assert none["plan-tick"] == {"disabled": True}
    assert "It cannot be started yet." in read_text(next(iter(none["new-preview"].values())))


def test_a_command_is_written_as_it_is_typed() -> None:
    request = run_request(model="a b;c", name="x", valid=("one two.txt", "-v"))
    line = write_command(run_command(request, Path("runs")))
    wanted = ["awqscope", "run", "--calib=wikitext2:train", "--valid=one two.txt", "--valid=-v"]
    assert shlex.split(line) == [*wanted, "--out=runs/x", "--", "a b;c"]
