"""Verdicts are kept while nothing has changed, and a list does not wait for them."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from awqscope.app.dashboard.sections.listed import rows as listed
from awqscope.app.store import Store
from awqscope.app.verdicts import Verdicts, stamp_verdict
from awqscope.app.words.gate.ship import write_ship
from awqscope.diagnose.gate.policy import load_policy, parse_policy
from awqscope.diagnose.gate.verdict import judge_run
from awqscope.diagnose.studies.tasks.answer import tasks_file
from tests.help.runs import change_record, write_run
from tests.help.tasks import keep_tasks, make_task, turn

PATIENCE = 60


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def row_of(store: Store, name: str) -> dict[str, Any]:
    return next(row for row in listed.list_rows(store) if row["name"] == name)


def test_a_list_says_at_first_that_nothing_is_judged_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go = threading.Event()
    find = Verdicts.find

    def wait_first(self: Verdicts, name: str) -> Any:
        assert may_go.wait(PATIENCE)
        return find(self, name)

    path = write_run(tmp_path, "done")
    write_run(tmp_path, "failed", state="failed")
    store = Store(tmp_path)
    monkeypatch.setattr(Verdicts, "find", wait_first)
    rows = listed.list_rows(store)
    first = next(row for row in rows if row["name"] == "done")
    assert (first["ship"], first["tone"]) == ("Not judged yet", "quiet")
    assert listed.may_change(rows)
    seen = listed.stamp_rows(rows)
    may_go.set()
    wait_until(lambda: row_of(store, "done")["answer"] == "✓ May ship")
    rows = listed.list_rows(store)
    assert not listed.may_change(rows) and listed.stamp_rows(rows) != seen
    assert next(row for row in rows if row["name"] == "done")["why"] == "all 9 limits hold"
    assert "ship" not in next(row for row in rows if row["name"] == "failed")
    (path / "policy.toml").write_text("[limits]\nmax_kl = 0.01\n")
    assert row_of(store, "done")["ship"] == listed.PENDING
    wait_until(lambda: row_of(store, "done")["answer"] == "✕ May not ship")


def test_a_verdict_is_the_gate_s_and_is_found_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_run(tmp_path, "run")
    store, count = Store(tmp_path), []
    read = store.verdicts.judge
    monkeypatch.setattr(store.verdicts, "judge", lambda *given: count.append(given) or read(*given))
    run = store.find("run")
    assert store.verdicts.look("run") is None
    for _ in range(3):
        assert store.verdicts.find("run").ship == write_ship(judge_run(run, load_policy()))
    assert len(count) == 1 and store.verdicts.look("run") is not None
    for name in ("proof.json", "run.json", "tokens.parquet", "blocks.parquet"):
        os.utime(path / name, (1, 1))
        assert store.verdicts.look("run") is None
        store.verdicts.find("run")
    # Tasks that were run since.
    keep_tasks(path, make_task(**turn(400, 60, 0)))
    assert store.verdicts.look("run") is None
    assert store.verdicts.find("run").ship.answer == "May not ship"
    tasks_file(run).unlink()
    other = parse_policy("[limits]\nmax_kl = 0.001", "other")
    assert store.verdicts.judge("run", other).outcome == "fail"
    assert store.verdicts.find("run").ship.answer == "May ship"


def test_what_cannot_be_judged_says_why(tmp_path: Path) -> None:
    path = write_run(tmp_path, "run")
    store = Store(tmp_path)
    (path / "policy.toml").write_text("[limits]\nmax_klp = 1\n")
    found = store.verdicts.find("run")
    assert found.verdict is None and found.fault and "did you mean max_kl?" in found.fault.remedy
    assert found.ship.answer == "Not judged" and "unknown key 'max_klp'" in found.ship.why
    (path / "policy.toml").unlink()
    (path / "tokens.parquet").write_bytes(b"no table")
    assert "cannot be read" in store.verdicts.find("run").ship.why or (
        "damaged" in store.verdicts.find("run").ship.why
    )
    shutil.rmtree(path)
    store.verdicts.ask(["run"])
    with pytest.raises(LookupError):
        store.verdicts.find("run")


def test_a_hundred_verdicts_make_the_list_no_slower(tmp_path: Path) -> None:
    """All that a list adds for a run whose verdict is known is to look at its files."""
    names = [f"run-{at}" for at in range(100)]
    template = write_run(tmp_path, names[0])
    for name in names[1:]:
        (tmp_path / name).mkdir()
        for file in template.iterdir():
            if file.is_file():
                # Of its own where it is changed below.
                put = shutil.copy if file.name == "run.json" else os.link
                put(file, tmp_path / name / file.name)
    store = Store(tmp_path)
    judged = store.verdicts.find(names[0])
    for name in names[1:]:
        store.verdicts._kept[name] = stamp_verdict(store.find(name)), judged
    before = time.process_time()
    rows = listed.list_rows(store)
    listed.stamp_rows(rows)
    whole = time.process_time() - before
    before = time.process_time()
    listed.add_ships(store, rows)
    assert time.process_time() - before < max(0.5, whole)
    assert {row["answer"] for row in rows} == {"✓ May ship"}
    change_record(tmp_path / names[1], updated="later")
    assert [row["name"] for row in listed.list_rows(store) if row["ship"] == listed.PENDING] == [
        names[1]
    ]
