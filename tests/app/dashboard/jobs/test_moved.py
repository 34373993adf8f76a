"""A model that is not where its run left it: asked for before anything is started, and kept."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from awqscope.app.dashboard.jobs import processes
from awqscope.app.dashboard.jobs.explanations import (
    discard,
    explain_again,
    list_explaining,
    start_explaining,
)
from awqscope.app.dashboard.jobs.moved import LOCATIONS, find_model, remember_model
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.server import create_app
from awqscope.app.store import Store
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.recipe import load_recipe
from tests.app.dashboard.jobs.test_runs import LOCAL, call, wait_for
from tests.app.dashboard.test_server import ROOT, find_type, make_client, read_text, show
from tests.help.runs import change_record, write_run

DEMO = ROOT / "examples" / "demo"
GONE = "/gone/models/demo"
FAILS = "import sys; sys.exit('awqscope: the model has moved')"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two runs of the demo's model, which is gone, and one of another."""
    for name in ("run", "other"):
        write_run(tmp_path, name, model=GONE)
    another = write_run(tmp_path, "another", model=GONE)
    source = json.loads((another / "run.json").read_text(encoding="utf-8"))["source"]
    change_record(another, source={**source, "hashes": {"config.json": "0" * 64}})
    return Store(tmp_path)


def test_where_it_is_said_to_be_holds_for_every_run_of_it(store: Store) -> None:
    assert find_model(store, "run").state == "missing"
    remember_model(store, "run", f" {DEMO} ")
    for name in ("run", "other"):
        assert (find_model(store, name).state, find_model(store, name).option) == (
            "moved",
            str(DEMO),
        )
    assert find_model(store, "another").state == "missing"
    assert GONE in (store.root / "run" / "run.json").read_text(), "a record stays as it was written"
    assert len(store.list_runs()) == 3


def test_what_is_found_where_it_was_needs_nothing(store: Store, tmp_path: Path) -> None:
    change_record(tmp_path / "run", model=str(DEMO))
    assert (find_model(store, "run").state, find_model(store, "run").option) == ("here", None)
    # A relative path is one from where the run was begun.
    change_record(tmp_path / "run", model="examples/demo", directory=str(ROOT))
    assert find_model(store, "run").state == "here"
    change_record(tmp_path / "run", model="examples/demo", directory=str(tmp_path))
    assert find_model(store, "run").state == "hub", "it may be an id"


def test_another_model_is_refused(store: Store, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(DEMO, changed)
    config = changed / "config.json"
    config.write_text(config.read_text() + " ")
    (tmp_path / "empty").mkdir()
    for said, why in (
        (str(changed), "config.json is not the one that the run measured"),
        (str(tmp_path / "empty"), "has no config.json"),
        (str(tmp_path / "none"), "there is no directory"),
        ("", "no directory is given"),
        ("a\nb", "no directory is given"),
        (None, "no directory is given"),
    ):
        with pytest.raises(InputError, match=why):
            remember_model(store, "run", said)
    assert not (store.root / LOCATIONS).exists()
    (store.root / LOCATIONS).write_text("[torn")
    assert find_model(store, "run").state == "missing"


def test_commands_are_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PYTHON", (sys.executable, "-c", FAILS))
    remember_model(store, "run", str(DEMO))
    jobs = Jobs(store)
    jobs.requantize("run", load_recipe(store.root / "run" / "recipe.json"), "mine")
    name = start_explaining(store, "run", "why?", 5)
    wait_for(lambda: jobs.requantizations("run")[0].state == "failed")
    wait_for(lambda: list_explaining(store, "run")[0].state == "failed")
    folder = store.root / "run"
    for log in ("recipes/mine.log", f"explained/{name}.log"):
        assert f"--model={DEMO} -- " in (folder / log).read_text()


def test_what_failed_is_repeated_or_removed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PYTHON", (sys.executable, "-c", FAILS))
    jobs, folder = Jobs(store), store.root / "run"
    jobs.requantize("run", load_recipe(folder / "recipe.json"), "mine")
    name = start_explaining(store, "run", "why?", 5)
    wait_for(lambda: jobs.requantizations("run")[0].state == "failed")
    wait_for(lambda: list_explaining(store, "run")[0].state == "failed")
    (folder / "recipes" / "mine").mkdir()
    shown = read_text(show(make_client(store.root), "/run/run/recipe")[0])
    assert "The model has moved." in shown
    jobs.requantize_again("run", "mine")
    explain_again(store, "run", name)
    wait_for(lambda: jobs.requantizations("run")[0].state == "failed")
    wait_for(lambda: list_explaining(store, "run")[0].state == "failed")
    said = (folder / "explained" / f"{name}.log").read_text()
    assert said.count("--tokens=5") == 2, "as many tokens as were asked for"
    jobs.discard("run", "mine")
    discard(store, "run", name)
    assert jobs.requantizations("run") == []
    assert list_explaining(store, "run") == []
    assert not list((folder / "recipes").iterdir())
    assert not list((folder / "explained").iterdir())
    for act in (jobs.discard, jobs.requantize_again):
        for none in ("mine", "../run"):
            with pytest.raises(InputError, match="has not failed"):
                act("run", none)
    for again in (discard, explain_again):
        with pytest.raises(InputError, match="has not failed"):
            again(store, "run", "../run")


@pytest.mark.parametrize(
    ("page", "button"), [("recipe", "recipe-make"), ("explain", "explain-start")]
)
def test_pages_ask_before_the_click(store: Store, page: str, button: str) -> None:
    def look() -> tuple[dict[str, Any], list[Any], str]:
        layout = show(make_client(store.root), f"/run/run/{page}")[0]
        found = {str(each.get("id")): each for each in find_type(layout, "Button")}
        return found[button], find_type(layout, "TextInput"), read_text(layout)

    pressed, fields, text = look()
    assert pressed["disabled"]
    assert [field["name"] for field in fields] == ["path"]
    assert GONE in text
    app = create_app(store, LOCAL)
    client = app.server.test_client()

    def say(path: str) -> Any:
        asked = {"values": {"path": path}, "path": f"/run/run/{page}", "search": "?x=1"}
        return call(client, app, "location-said", {"location-asked.data": asked}).json

    assert (
        "there is no directory /nowhere" in say("/nowhere")["response"]["location-said"]["children"]
    )
    again = say(str(DEMO))
    assert again["response"]["location-said"]["children"] == ""
    shown = again["sideUpdate"]["address"]["data"]
    assert (shown["path"], shown["search"]) == (f"/run/run/{page}", "?x=1"), "the page, once more"
    pressed, _, text = look()
    assert not pressed.get("disabled")
    assert str(DEMO) in text
