"""Explaining from the dashboard: what is started, what is kept, what the page shows of it."""

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from awqscope.app.dashboard.jobs import explanations, processes
from awqscope.app.dashboard.jobs.explanations import (
    MOST_TOKENS,
    check_question,
    explain_command,
    list_explaining,
    start_explaining,
)
from awqscope.app.dashboard.server import create_app
from awqscope.app.dashboard.urls import link
from awqscope.app.figures.tokens import draw_blame, draw_positions
from awqscope.app.store import Store
from awqscope.mixedprec.errors import InputError
from tests.app.dashboard.jobs.test_runs import LOCAL, READ_ONLY, call, outputs, wait_for
from tests.app.dashboard.test_server import (
    ODD,
    SCRIPT,
    find_links,
    find_type,
    make_client,
    read_text,
    show,
)
from tests.help.explained import CONTEST, make_asked, make_block, make_entry
from tests.help.runs import change_record, write_run

# Writes what was asked back, as the command would its result.
PROGRAM = f"""
import json, sys
options = dict(o.removeprefix("--").split("=", 1) for o in sys.argv[2:] if "=" in o)
prompt = json.loads(open(options["prompts"]).read())["prompt"]
if "fail" in prompt: sys.exit("awqscope: the model has moved")
result = {make_asked(make_entry())!r}
result["prompts"][0]["prompt"] = prompt
json.dump(result, open(options["out"], "w"))
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    write_run(tmp_path, "demo")
    return Store(tmp_path)


def keep(store: Store, name: str, content: Any) -> None:
    folder = store.find("demo").path / "explained"
    folder.mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def fill_up(path: Path, mode: str, **rest: Any) -> Any:
    """Make the file, as a full disk lets one, and say that there is no room for what is in it."""
    Path(path).touch()
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_prompts_go_by_their_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PYTHON", (sys.executable, "-c", PROGRAM))
    asked = ["--tokens=1\n$(touch x)", "--fail", SCRIPT]
    names = [start_explaining(store, "demo", prompt, 5) for prompt in asked]
    assert names == ["prompt-1", "prompt-2", "prompt-3"]
    wait_for(lambda: all(job.state != "running" for job in list_explaining(store, "demo")))
    found = {job.name: job for job in list_explaining(store, "demo")}
    assert [found[name].state for name in names] == ["done", "failed", "done"]
    assert [found[name].prompts for name in names] == [(prompt,) for prompt in asked]
    assert "the model has moved" in found["prompt-2"].log
    assert "touch" not in (store.find("demo").path / "explained" / "prompt-1.log").read_text()
    page = make_client(store.root)
    shown = read_text(show(page, "/run/demo/explain", "?shown=prompt-2")[0])
    assert "prompt-2 was not explained" in shown
    assert "The model has moved." in shown
    assert SCRIPT in read_text(show(page, "/run/demo/explain", "?shown=prompt-3")[0])


def test_what_did_not_start_takes_no_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = store.find("demo").path / "explained"
    monkeypatch.setattr(processes, "PYTHON", (str(store.root / "nowhere"),))
    with pytest.raises(InputError, match="cannot be started"):
        start_explaining(store, "demo", "a prompt", 5)
    assert not list(folder.iterdir())
    monkeypatch.setattr(explanations, "open", fill_up, raising=False)
    with pytest.raises(InputError, match="No space left"):
        start_explaining(store, "demo", "a prompt", 5)
    assert not list(folder.iterdir())


def test_the_command() -> None:
    run, asked, out = Path("/r/-x"), Path("/r/-x/p.jsonl"), Path("/r/-x/p.json")
    options = [f"--prompts={asked}", f"--out={out}", "--tokens=7"]
    expected = [*processes.PYTHON, "explain", *options, "--", str(run)]
    assert explain_command(run, asked, out, 7) == expected


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [("", 4), (" \n", 4), (None, 4), (["x"], 4), ("x" * 200_000, 4)]
    + [("x", bad) for bad in (0, -1, MOST_TOKENS + 1, 1.5, "4.5", "-4", "", None, True)],
)
def test_questions_that_are_not_asked(prompt: object, tokens: object) -> None:
    with pytest.raises(InputError):
        check_question(prompt, tokens)


def test_what_was_written_there_by_hand_is_listed(store: Store) -> None:
    keep(store, "mine", make_asked(make_entry("first"), make_entry("second")))
    keep(store, "odd", "{")
    keep(store, "older", make_asked(schema=9))
    keep(store, "empty", make_asked() | {"prompts": []})
    found = {job.name: (job.state, job.prompts) for job in list_explaining(store, "demo")}
    assert found["mine"] == ("done", ("first", "second"))
    assert {found[name][0] for name in ("odd", "older", "empty")} == {"failed"}


def test_the_page_shows_one_and_links_all(store: Store) -> None:
    calm = make_entry("calm", parting=None, closest=CONTEST, blocks=[], repair=None)
    calm["mixed"] = {"repairs": None, "parts_at": None, "mean_kl": 0.0}
    keep(store, "mine", make_asked(make_entry(ODD), calm))
    client = make_client(store.root)
    page = show(client, "/run/demo/explain", "?shown=mine")[0]
    text = read_text(page)
    for part in (ODD, "Block 5 is to blame", "no cheaper set does", "it parts later", "brings it"):
        assert part in text
    assert len(find_type(page, "Graph")) == 2
    hrefs = find_links(page)
    assert link("explain", "demo", shown="mine") in hrefs
    second = link("explain", "demo", shown="mine", prompt=1)
    assert second in hrefs
    text = read_text(show(client, "/run/demo/explain", second.partition("?")[2])[0])
    assert "“calm”" in text
    assert "go on alike" in text
    assert "Which block" not in text
    # A prompt or explanation that there is not: the last, and the newest.
    for search in ("?shown=mine&prompt=99", "?shown=../../x&prompt=1"):
        assert "“calm”" in read_text(show(client, "/run/demo/explain", search)[0])


def test_before_the_first_and_before_the_sweep(store: Store) -> None:
    client = make_client(store.root)
    page = show(client, "/run/demo/explain")[0]
    assert "Nothing is explained yet" in read_text(page)
    assert any(found.get("id") == "explain-start" for found in find_type(page, "Button"))
    change_record(store.find("demo").path, stages={"search": {"state": "done"}})
    page = show(client, "/run/demo/explain")[0]
    assert "Search and sweep must be done first" in read_text(page)
    assert not find_type(page, "Textarea")


def test_read_only_shows_and_asks_nothing(store: Store) -> None:
    assert "explain-said" in outputs(LOCAL, store.root)
    closed = outputs(READ_ONLY, store.root)
    assert "explain-said" not in closed
    assert "explain-body" in closed, "what others asked is followed"
    keep(store, "mine", make_asked())
    page = show(make_client(store.root, read_only=True), "/run/demo/explain")[0]
    assert "Block 5 is to blame" in read_text(page)
    assert not find_type(page, "Textarea")
    assert not find_type(page, "Button")


def test_the_button_leads_to_the_explanation(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PYTHON", (sys.executable, "-c", PROGRAM))
    app = create_app(store, LOCAL)
    client = app.server.test_client()

    def press(**values: Any) -> Any:
        shown = {"prompt": values.get("prompt", ""), "tokens": "4"}
        asked = {"values": shown, "path": values.get("path", "/run/demo/explain"), "search": ""}
        return call(client, app, "explain-said", {"explain-asked.data": asked}).json["response"]

    assert "type some text" in press()["explain-said"]["children"]
    assert (
        "Not started" in press(prompt="x", path="/run/nobody/explain")["explain-said"]["children"]
    )
    answer = press(prompt="why?")
    href = next(value for key, value in answer.items() if key.startswith("url"))
    assert next(iter(href.values())) == "/run/demo/explain?shown=prompt-1"
    wait_for(lambda: list_explaining(store, "demo")[0].state == "done")
    tick = {
        "explain-tick.n_intervals": 1,
        "explain-seen.data": "",
        "url.pathname": "/run/demo/explain",
        "url.search": "?shown=prompt-1",
    }
    answer = call(client, app, "explain-tick", tick).json["response"]
    assert answer["explain-tick"] == {"disabled": True}
    assert "“why?”" in read_text(answer["explain-body"]["children"])
    seen = answer["explain-seen"]["data"]
    again = call(client, app, "explain-tick", {**tick, "explain-seen.data": seen}).json
    assert again["response"] == {}, "what is read is left alone"


def test_charts_hold_what_the_text_says() -> None:
    pieces = make_entry()["pieces"]
    figure = draw_positions(pieces, 3)
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert [list(trace.x) for trace in bars] == [[1], [2, 3, 4]]
    assert list(bars[1].y) == [piece["kl_uniform"] for piece in pieces[2:]]
    lines = {trace.name: list(trace.y) for trace in figure.data if trace.type == "scatter"}
    assert lines["the run's recipe"] == [piece["kl_mixed"] for piece in pieces[1:]]
    assert any("parts" in note.text and note.x == 3 for note in figure.layout.annotations)
    pieces[2]["text"] = SCRIPT
    assert "<script" not in draw_positions(pieces, None).to_json().replace("\\u003c", "<")
    without = [{**piece, "kl_mixed": None, "kl_repaired": None} for piece in pieces]
    assert len(draw_positions(without, None).data) == 2
    blocks = [
        make_block(0, breaks=True, restores=False),
        make_block(1, breaks=False, restores=True),
    ]
    alone, restored = draw_blame(blocks, 1.6, -0.7).data
    assert list(alone.y) == [-0.5, 1.5]
    assert alone.marker.color[0] != alone.marker.color[1]
    assert list(restored.marker.symbol) == ["diamond-open", "diamond"]
