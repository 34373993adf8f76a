"""What the dashboard reads: every state of a run, nothing outside the directory, nothing twice."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from awqscope.app import store as store_module
from awqscope.app.store import Store, UnknownRunError
from awqscope.app.words.verdict import write_verdict
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import AnyRecord
from awqscope.mixedprec.errors import InputError
from tests.help.root import ROOT
from tests.help.runs import SAMPLE, change_record, make_tokens, write_run, write_tokens


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """Counts how often each run's record (`run`) and tables are read from disk."""
    count: Counter[tuple[str, str]] = Counter()
    read, read_table = RunDirectory.read, RunDirectory.read_table

    def counted_read(self: RunDirectory) -> AnyRecord:
        count[self.path.name, "run"] += 1
        return read(self)

    def counted_table(self: RunDirectory, name: str) -> pa.Table:
        count[self.path.name, name] += 1
        return read_table(self, name)

    monkeypatch.setattr(RunDirectory, "read", counted_read)
    monkeypatch.setattr(RunDirectory, "read_table", counted_table)
    return count


def touch_later(path: Path) -> None:
    """As a write a second later would leave the file's time."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


def test_no_directory_is_an_empty_list(tmp_path: Path) -> None:
    assert Store(tmp_path / "nowhere").list_runs() == []
    assert Store(tmp_path).list_runs() == []


def test_every_state_of_a_run(tmp_path: Path) -> None:
    write_run(tmp_path, "done")
    write_run(tmp_path, "stopped", state="running", created="2026-11-22T00:00:00+00:00")
    failure = {"message": "the disk is full", "remedy": "free some"}
    write_run(tmp_path, "failed", state="failed", error=failure)
    held = write_run(tmp_path, "held", state="running", created="2026-11-23T00:00:00+00:00")
    store = Store(tmp_path)
    with RunDirectory(held).lock():
        found = store.list_runs()
        assert [run.name for run in found[:2]] == ["held", "stopped"]
        states = {run.name: run.state for run in found}
        assert states == {
            "done": "done",
            "stopped": "stopped",
            "failed": "failed",
            "held": "running",
        }
    assert store.summary("held").state == "stopped"


DAMAGE = {
    "torn": '{"schema": 1, "sta',
    "empty": "",
    "list": "[1, 2]",
    "binary": "\0\0\0",
    "bare": '{"schema": 1}',
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_records_are_listed_last_and_said(tmp_path: Path, kind: str) -> None:
    (write_run(tmp_path, "a") / "run.json").write_text(DAMAGE[kind])
    write_run(tmp_path, "b")
    whole, damaged = Store(tmp_path).list_runs()
    assert (whole.name, whole.state) == ("b", "done")
    assert (damaged.name, damaged.state, damaged.record) == ("a", "damaged", None)
    assert damaged.error and damaged.remedy


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("created", 5),
        ("created", None),
        ("state", "sleeping"),
        ("model", ["m"]),
        ("headline", []),
        ("headline", {"kl": None}),
        ("headline", {"kl": {"uniform": 1.0}}),
        ("versions", None),
        ("calibration", "text"),
        ("ppl_definition", None),
        ("directory", 5),
        ("stages", "done"),
        ("error", "text"),
    ],
)
def test_records_of_odd_kinds_are_damaged(tmp_path: Path, entry: str, value: Any) -> None:
    write_run(tmp_path, "odd", **{entry: value})
    write_run(tmp_path, "whole")
    found = {run.name: run for run in Store(tmp_path).list_runs()}
    assert found["odd"].state == "damaged"
    assert found["whole"].state == "done"


@pytest.mark.parametrize("entry", ["delta_ppl", "kl_interval", "flagged", "bytes"])
def test_a_headline_with_holes_is_damaged(tmp_path: Path, entry: str) -> None:
    headline = json.loads((SAMPLE / "run.json").read_text(encoding="utf-8"))["headline"]
    write_run(tmp_path, "odd", headline={**headline, entry: None})
    (found,) = Store(tmp_path).list_runs()
    assert found.state == "damaged"
    assert entry in found.error


def test_newer_schema_says_which_version_reads_it(tmp_path: Path) -> None:
    write_run(tmp_path, "newer", schema=99)
    found = Store(tmp_path).summary("newer")
    assert found.state == "damaged"
    assert "schema 99" in found.error
    assert "version" in found.remedy


def test_what_is_no_run_is_not_listed(tmp_path: Path) -> None:
    write_run(tmp_path, ".hidden")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("run.json")
    write_run(tmp_path / "folder", "inner")
    store = Store(tmp_path)
    assert store.list_runs() == []
    with pytest.raises(UnknownRunError):
        store.find(".hidden")


def test_names_lead_nowhere_else(tmp_path: Path) -> None:
    write_run(tmp_path, "outside")
    write_run(tmp_path / "root", "inside")
    store = Store(tmp_path / "root")
    assert store.find("inside").path == tmp_path / "root" / "inside"
    (tmp_path / "root" / "run.json").write_text("{}")
    for name in (
        "../outside",
        "inside/../../outside",
        str(tmp_path / "outside"),
        "inside/",
        "./inside",
        "..",
        ".",
        "",
        "inside\0",
    ):
        with pytest.raises(UnknownRunError):
            store.find(name)
        with pytest.raises(UnknownRunError):
            store.table(name, "blocks")


@pytest.mark.parametrize("name", ["a b", "100%", "<script>x", "模型"])
def test_odd_names_are_runs(tmp_path: Path, name: str) -> None:
    write_run(tmp_path, name)
    store = Store(tmp_path)
    assert [run.name for run in store.list_runs()] == [name]
    assert len(store.table(name, "blocks")) == 24


def test_a_name_that_is_no_text_spoils_nothing(tmp_path: Path) -> None:
    write_run(tmp_path, os.fsdecode(b"\xff"))
    write_run(tmp_path, "whole")
    assert {run.state for run in Store(tmp_path).list_runs()} == {"done"}


def test_unchanged_files_are_read_once(tmp_path: Path, reads: Counter) -> None:
    path = write_run(tmp_path)
    store = Store(tmp_path)
    first = store.table("sample", "units")
    for _ in range(3):
        store.list_runs()
        assert store.table("sample", "units") is first
    assert reads == {("sample", "run"): 1, ("sample", "units"): 1}
    touch_later(path / "units.parquet")
    assert store.table("sample", "units") == first
    assert reads["sample", "units"] == 2
    change_record(path, model="other")
    record = store.summary("sample").record
    assert record is not None and record.model == "other"


def race(name: str, **changes: object) -> dict[str, Any]:
    """A recipe as `recipe --verify` keeps it, raced against nothing but itself."""
    rival = {
        "name": "this recipe",
        "bytes": 5,
        "predicted_kl": 0.1,
        "kl": [1, 0, 2],
        "behind": None,
    }
    return {
        "schema": 1,
        "model": "m",
        "kind": "budget",
        "units": [],
        "provenance": {"budget": {"target_bits": 4.5}, "rivals": [rival | changes], "run": name},
    }


def test_races_are_read_and_damaged_ones_left_out(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    store = Store(tmp_path)
    assert store.races("sample") == []
    kept = {
        "a": json.dumps(race("first")),
        "b": "{",
        "c": json.dumps(race("odd", kl=[1])),
        "d": json.dumps(race("odd", bytes="many")),
        "e": json.dumps(race("odd") | {"provenance": [1]}),
        "f": json.dumps(race("odd") | {"provenance": {"rivals": 3}}),
        "g": json.dumps(race("last", kl=None)),
    }
    (path / "races" / "awq-g64").mkdir(parents=True)
    for name, text in kept.items():
        (path / "races" / f"{name}.json").write_text(text)
    first, last = store.races("sample")
    assert (first.provenance["run"], last.provenance["run"]) == ("first", "last")
    assert first.contestants[0].kl == (1.0, 0.0, 2.0) and last.contestants[0].kl is None
    (path / "races" / "a.json").write_text("[]")
    touch_later(path / "races" / "a.json")
    assert len(store.races("sample")) == 1


def test_the_outline_is_of_the_runs_scores(tmp_path: Path) -> None:
    write_run(tmp_path)
    store = Store(tmp_path)
    outline, record = store.outline("sample"), store.summary("sample").record
    assert record is not None
    assert outline[0].bytes == record.measured.bytes.quantized
    assert outline[0].kl == record.measured.kl.quantized
    assert outline[-1].kl == pytest.approx(0, abs=1e-12)
    sizes, damages = [each.bytes for each in outline], [each.kl for each in outline]
    assert sizes == sorted(set(sizes)) and damages == sorted(set(damages), reverse=True)
    slopes = np.diff(damages) / np.diff(sizes)
    assert all(slopes[1:] >= slopes[:-1] - 1e-18)
    assert store.outline("sample") is outline


def test_scores_appear_once_the_recipe_is_chosen(tmp_path: Path) -> None:
    """Their tables are there long before, and do not change any more."""
    path = write_run(tmp_path)
    stages = json.loads((path / "run.json").read_text())["stages"]
    change_record(path, stages={name: each for name, each in stages.items() if name != "recipe"})
    store = Store(tmp_path)
    assert store.scores("sample") is None and store.outline("sample") == []
    assert store.squared_errors("sample") == {}
    change_record(path, stages=stages)
    assert store.scores("sample") is not None and store.outline("sample")


def test_files_that_come_and_go(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    (path / "recipe.json").rename(path / "away")
    store = Store(tmp_path)
    assert store.recipe("sample") is None
    (path / "away").rename(path / "recipe.json")
    assert store.recipe("sample").bits["5.qkv"] == 8
    for name in ("units.parquet", "tokens.parquet", "proof.json", "activations.safetensors"):
        (path / name).unlink()
    assert store.table("sample", "units") == []
    assert store.token_index("sample") is None
    assert store.window("sample", 0) == []
    assert store.proof("sample") is None
    assert store.array("sample", "histogram_edges") is None
    shutil.rmtree(path)
    with pytest.raises(UnknownRunError):
        store.recipe("sample")


def visit(store: Store, count: int) -> None:
    for number in range(count):
        store.table(f"r{number}", "units")


def test_kept_entries_are_bounded(
    tmp_path: Path, reads: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "KEPT", 4)
    for number in range(7):
        write_run(tmp_path, f"r{number}")
    store = Store(tmp_path)
    visit(store, 7)
    for number in (6, 5, 4, 3):
        store.table(f"r{number}", "units")
    assert reads.total() == 7
    visit(store, 3)
    assert reads.total() == 10


def test_kept_bytes_are_bounded(
    tmp_path: Path, reads: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = (
        store_module.OBJECTS * RunDirectory(write_run(tmp_path, "r0")).read_table("units").nbytes
    )
    for number in range(1, 6):
        write_run(tmp_path, f"r{number}")
    monkeypatch.setattr(store_module, "KEPT_BYTES", int(2.5 * weight))
    reads.clear()
    store = Store(tmp_path)
    visit(store, 6)
    for number in (5, 4):
        store.table(f"r{number}", "units")
    assert reads.total() == 6
    store.table("r3", "units")
    assert reads.total() == 7
    # What alone is over the bound is still kept until the next comes.
    monkeypatch.setattr(store_module, "KEPT_BYTES", 1)
    store.table("r0", "units")
    store.table("r0", "units")
    assert reads["r0", "units"] == 2


def test_changes_do_not_add_up(
    tmp_path: Path, reads: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file read again takes the place of what it was; it does not push others out."""
    first, second = write_run(tmp_path, "r0"), write_run(tmp_path, "r1")
    weight = store_module.OBJECTS * RunDirectory(first).read_table("units").nbytes
    monkeypatch.setattr(store_module, "KEPT_BYTES", int(2.5 * weight))
    store = Store(tmp_path)
    store.table("r0", "units")
    for _ in range(5):
        touch_later(second / "units.parquet")
        store.table("r1", "units")
    reads.clear()
    store.table("r0", "units")
    assert reads.total() == 0


def test_one_window_of_many_row_groups(tmp_path: Path) -> None:
    table = make_tokens(9, 50)
    path = write_run(tmp_path)
    write_tokens(path, table, row_group=64)
    store = Store(tmp_path)
    rows = store.window("sample", 4)
    assert rows == table.slice(200, 50).to_pylist()
    assert store.window("sample", 4) is rows
    assert store.window("sample", 999_999_999) == []


def test_last_event_of_a_torn_log(tmp_path: Path) -> None:
    path = write_run(tmp_path) / "progress.jsonl"
    store = Store(tmp_path)
    assert store.progress("sample").stage == "proof"
    event = {"time": "", "stage": "sweep", "done": 2, "total": 8, "eta": None}
    path.write_text(json.dumps(event) + '\n{"time": "2026", "stage": "swe')
    found = store.progress("sample")
    assert (found.stage, found.done, found.total, found.eta) == ("sweep", 2, 8, None)
    for text in ("", "\n\n", '{"stage": 1}\n[]\n7\nnull\n', "\xff\xfe"):
        path.write_text(text, encoding="latin1")
        assert store.progress("sample") is None
    path.unlink()
    assert store.progress("sample") is None
    # Only the end of a long log is read; its first line is cut anywhere.
    path.write_text((json.dumps(event) + "\n") * 5000)
    assert store.progress("sample").done == 2


def test_damaged_files_are_their_own_trouble(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    write_run(tmp_path, "whole")
    for name in ("units.parquet", "tokens.parquet", "activations.safetensors", "proof.json"):
        whole = (path / name).read_bytes()
        (path / name).write_bytes(whole[: len(whole) // 2])
    (path / "recipe.json").write_text('{"units": 3}')
    store = Store(tmp_path)
    with pytest.raises(InputError, match=r"units\.parquet cannot be read"):
        store.table("sample", "units")
    with pytest.raises(InputError, match="is not a recipe"):
        store.recipe("sample")
    for read in (store.token_index, store.proof):
        with pytest.raises((InputError, ValueError, OSError)):
            read("sample")
    with pytest.raises((InputError, ValueError, OSError)):
        store.window("sample", 0)
    with pytest.raises(InputError, match=r"activations\.safetensors cannot be read"):
        store.array("sample", "histogram_edges")
    assert len(store.table("sample", "blocks")) == 24
    assert {run.state for run in store.list_runs()} == {"done"}
    assert len(store.table("whole", "units")) == 96
    assert store.token_index("whole").windows


def test_arrays_by_name(tmp_path: Path) -> None:
    write_run(tmp_path)
    store = Store(tmp_path)
    edges = store.array("sample", "histogram_edges")
    assert edges.shape == (770,)
    assert store.array("sample", "histogram_edges") is edges
    assert store.array("sample", "no.such") is None


@pytest.mark.parametrize("name", ["sample", "sample-smollm2"])
def test_the_committed_runs_open(name: str) -> None:
    """On every page that shows a run, and in no case with a path of whoever made it."""
    folder = ROOT / "reports" / name
    store = Store(folder.parent)
    record = store.summary(name).record
    assert record is not None and record.state == "done"
    blocks = [row for row in store.table(name, "blocks") if row["view"] == "isolated"]
    assert len(blocks) == record.source.blocks
    assert str(record.measured.flagged[0]) in write_verdict(record, ["0.qkv"])
    index = store.token_index(name)
    assert index is not None and len(index.windows) == record.ppl_definition.windows
    said = "".join(path.read_text() for path in folder.glob("*.json*"))
    assert '"/' not in said
