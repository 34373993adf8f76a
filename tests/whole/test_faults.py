"""A run that is killed, starved, denied or damaged anywhere ends in one clear line or goes on to
the numbers of one that was not; what was finished is never lost.

`make test` tries some of the faults, `make test-faults` all, and says how many.
"""

import errno
import hashlib
import json
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from awqscope.diagnose.runs.directory import RunDirectory
from tests.help.faults import Ended, ForkServer, damage

MakeModel = Callable[..., Path]
TALLY: Counter[str] = Counter()
# Where something may happen: at the start, inside and at the end of every stage.
EVENTS = (
    *(("search", 1), ("search", 2), ("sweep", 1), ("sweep", 5), ("estimate", 1), ("estimate", 7)),
    *(("exact", 1), ("exact", 4), ("recipe", 1), ("requantize", 1), ("requantize", 2)),
    *(("proof", 1), ("proof", 2)),
)
HOWS = ("truncate", "flip", "flip end", "empty", "remove", "directory", "noise")
# Every kind of file of a run that can be gone on with, and of a finished one.
UNFINISHED = (
    *("run.json", "progress.jsonl", "awq/block-0000.w4.safetensors", "blocks.parquet"),
    *("units.parquet", "linears.parquet", "promotions.parquet", "tokens.parquet"),
    *("activations.parquet", "activations.safetensors", "weights.parquet", "recipe.json"),
    *("work/sweep.safetensors", "work/sweep-0000.safetensors", "work/exact-0000.safetensors"),
    *(".lock", "awq", "work"),
)
CHECKPOINT = ("checkpoint/model.safetensors", "checkpoint/config.json", "checkpoint")
FINISHED = (
    *(name for name in UNFINISHED if not name.startswith("work")),
    *(*CHECKPOINT, "checkpoint/tokenizer.json", "checkpoint/README.md", "proof.json"),
)
CLEAR = {2: "awqscope: ", 130: "awqscope: interrupted; ", 143: "awqscope: interrupted; "}


@dataclass(frozen=True)
class Case:
    """A fault in a run's first attempt (None: it is killed at `at`), and what is damaged before the
    second. says: part of what the first attempt must say. quick: tried in every test run."""

    name: str
    do: str
    at: tuple[str, int]
    options: dict[str, Any] = field(default_factory=dict)
    codes: tuple[int, ...] = (2,)
    says: str = ""
    inside: str = "run"
    between: tuple[str, str] | None = None
    quick: bool = False

    @property
    def fault(self) -> dict[str, Any]:
        stage, event = self.at
        return {
            "do": self.do,
            "stage": stage,
            "event": event,
            "with": self.options,
            "in": self.inside,
        }


def _some(hows: tuple[str, ...], turn: int) -> list[str]:
    """Three of the ways to damage a file, others for each file."""
    return [hows[(turn + step) % len(hows)] for step in (0, 2, 5)]


def _kills() -> Iterator[Case]:
    kinds = ((signal.SIGKILL, -9, 1), (signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 4))
    for number, code, step in kinds:
        for at in EVENTS[::step]:
            name = f"{number.name} at {at[0]} {at[1]}"
            quick = number is signal.SIGKILL and at == ("sweep", 5)
            yield Case(name, "signal", at, {"number": int(number)}, (code,), quick=quick)
    for number in (signal.SIGKILL, signal.SIGSEGV):
        name = f"{number.name} of the proof"
        says = f"ended by signal {int(number)}"
        yield Case(name, "signal", ("", 0), {"number": int(number)}, says=says, inside="proof")


def _full_disks() -> Iterator[Case]:
    for turn, at in enumerate(EVENTS):
        for room in (0, (3000, 30_000)[turn % 2]):
            name = f"files of {room} bytes at most from {at[0]} {at[1]}"
            codes = (0, 2) if room else (2,)
            yield Case(name, "fill disk", at, {"bytes": room}, codes)
    for turn, number in enumerate((errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES)):
        for at in EVENTS[turn:-1:3]:
            name = f"{errno.errorcode[number]} at a write from {at[0]} {at[1]}"
            yield Case(name, "deny writes", at, {"number": 1 + turn % 2, "errno": number})
    name = "files of 100 bytes at most in the proof"
    yield Case(name, "fill disk", ("", 0), {"bytes": 100}, says="disk is full", inside="proof")


def _shortages() -> Iterator[Case]:
    for at in EVENTS:
        name = f"no more memory from {at[0]} {at[1]}"
        # The second is where the checkpoint's weights are written.
        quick = at in (("sweep", 1), ("requantize", 2))
        yield Case(name, "limit memory", at, {"bytes": 0}, (0, 2), quick=quick)
    says = "not enough memory"
    options = {"bytes": 0}
    yield Case("no memory for the proof", "limit memory", ("", 0), options, (2,), says, "proof")
    for at in EVENTS[::2]:
        name = f"read-only from {at[0]} {at[1]}"
        quick = at == ("exact", 1)
        yield Case(name, "take rights", at, {"folder": "OUT"}, (2,), "cannot be", quick=quick)


def _files_that_change() -> Iterator[Case]:
    places = (("search", 1), ("sweep", 2), ("estimate", 2), ("exact", 2), ("requantize", 1))
    for turn, at in enumerate(places):
        for how in _some(HOWS, turn):
            name = f"weights: {how} at {at[0]} {at[1]}"
            options = {"path": "MODEL/model.safetensors", "how": how}
            quick = name == "weights: remove at estimate 2"
            yield Case(name, "damage", at, options, (2,), "model.safetensors", quick=quick)
    paths = ("run.json", "awq/block-0001.w4.safetensors", "work/sweep-0000.safetensors")
    for turn, path in enumerate(paths):
        for how in _some(HOWS, turn):
            options = {"path": f"OUT/{path}", "how": how}
            yield Case(f"{path}: {how} in the run", "damage", ("sweep", 5), options, (2, 0))


def _damage_between_attempts() -> Iterator[Case]:
    kill = {"number": int(signal.SIGKILL)}
    for at, paths in ((("requantize", 1), UNFINISHED), (("proof", 1), CHECKPOINT)):
        for turn, path in enumerate(paths):
            for how in _some(HOWS, turn):
                name = f"{path}: {how} between attempts"
                quick = name == "units.parquet: noise between attempts"
                between = (path, how)
                yield Case(name, "signal", at, kill, (-9,), between=between, quick=quick)


CASES = (
    *_kills(),
    *_full_disks(),
    *_shortages(),
    *_files_that_change(),
    *_damage_between_attempts(),
)


def mark(case: Case) -> Any:
    return pytest.param(case, id=case.name, marks=() if case.quick else pytest.mark.faults)


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def lazy_server() -> Iterator[ForkServer]:
    """Of the faults of memory, which may hit what is imported late."""
    server = ForkServer(lazy=True)
    yield server
    server.close()


@pytest.fixture(scope="module")
def texts(text_file: Path) -> list[object]:
    """The options of every run here, in several chunks, with a block flagged."""
    options = {
        "--calib": text_file,
        "--valid": text_file,
        "--group-size": 64,
        "--seq-len": 64,
        "--windows": 8,
        "--calib-windows": 2,
        "--calib-seq-len": 64,
        "--top-k": 1,
        "--verify-units": 1,
        "--chunk-windows": 4,
    }
    return [part for option in options.items() for part in option]


@pytest.fixture(scope="module")
def model(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of every run here. A test that changes it puts it back."""
    return Path(shutil.copytree(make_model("llama"), tmp_path_factory.mktemp("model") / "model"))


@pytest.fixture(scope="module")
def runs(
    server: ForkServer,
    texts: list[object],
    model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """One run as it was when it was killed at the first step of each stage, by stage, and as it was
    in the end: `whole`. Tests must not write to them. Faults late in a run start from these."""
    folder = tmp_path_factory.mktemp("runs")
    command = ["run", model, *texts, "--out", folder / "run"]
    kill = {"do": "signal", "event": 1, "with": {"number": int(signal.SIGKILL)}}
    found = {}
    for stage in ("sweep", "estimate", "exact", "recipe", "requantize", "proof"):
        ended = server.run(command, {**kill, "stage": stage})
        assert ended.code == -signal.SIGKILL, ended.err
        found[stage] = Path(shutil.copytree(folder / "run", folder / stage))
    assert server.run(command).code == 0
    assert RunDirectory(folder / "run").read().chunks["sweep"] < 8, "it must take two chunks"
    return {**found, "whole": folder / "run"}


@pytest.fixture(scope="module")
def whole(
    server: ForkServer,
    texts: list[object],
    model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> RunDirectory:
    """A run that nothing happened to. Tests must not write to it."""
    out = tmp_path_factory.mktemp("whole") / "run"
    ended = server.run(["run", model, *texts, "--out", out])
    assert ended.code == 0, ended.err
    return RunDirectory(out)


def assert_clear(ended: Ended) -> None:
    """One line, naming the trouble and the remedy, and no traceback."""
    assert "Traceback" not in ended.err, ended.err
    if ended.code in CLEAR:
        assert ended.last.startswith(CLEAR[ended.code]), ended.err
        assert "; " in ended.last or ": " in ended.last.removeprefix("awqscope: ")
        assert all(part.isprintable() for part in ended.last)


def read_results(run: RunDirectory) -> dict[str, Any]:
    """Everything that a run found, as it can be compared."""
    names = ("blocks", "units", "linears", "weights", "promotions", "activations", "tokens")
    found: dict[str, Any] = {name: run.read_table(name) for name in names}
    record = run.read_searched()
    found |= {name: getattr(record, name) for name in ("state", "headline", "estimator", "sweep")}
    found |= {name: run.read_json(name) for name in ("recipe", "proof")}
    found["recipe"]["provenance"] = None
    # The record names model and recipe by their paths.
    found["recipe"]["model"] = None
    arrays = [*sorted(run.searches.glob("*.safetensors")), run.path / "activations.safetensors"]
    arrays += sorted(run.checkpoint.glob("*.safetensors"))
    found |= {
        str(path.relative_to(run.path)): hashlib.sha256(
            b"".join(
                name.encode() + tensor.numpy().tobytes()
                for name, tensor in sorted(load_file(path).items())
            )
        ).hexdigest()
        for path in arrays
    }
    return found


def assert_same(run: RunDirectory, whole: RunDirectory) -> None:
    """Equal numbers, searches and checkpoint, to the last bit, and nothing left lying about."""
    ours, theirs = read_results(run), read_results(whole)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        same = ours[name].equals(value) if hasattr(value, "equals") else ours[name] == value
        assert same, f"{name} differs"
    assert not run.work.exists()
    assert not list(run.path.rglob("*.tmp")) and not list(run.path.glob(".*partial"))


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, but for the lock and the record of events."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", "progress.jsonl")
    }


@pytest.mark.parametrize("case", map(mark, CASES))
def test_a_fault_ends_clearly_or_is_survived(
    case: Case,
    server: ForkServer,
    lazy_server: ForkServer,
    whole: RunDirectory,
    runs: dict[str, Path],
    texts: list[object],
    make_model: MakeModel,
    model: Path,
    tmp_path: Path,
) -> None:
    TALLY["tried"] += 1
    TALLY["lost"] += 1
    out = tmp_path / "run"
    start = runs.get("proof" if case.inside == "proof" else case.at[0])
    if start is not None:
        shutil.copytree(start, out)
    command = ["run", model, *texts, "--out", out]
    fault = json.loads(json.dumps(case.fault).replace("OUT", str(out)).replace("MODEL", str(model)))
    first = (lazy_server if case.do == "limit memory" else server).run(command, fault)
    if "MODEL" in json.dumps(case.options):
        shutil.rmtree(model)
        shutil.copytree(make_model("llama"), model)
    assert first.code in case.codes, (first.code, first.err)
    assert_clear(first)
    assert case.says in first.err, first.err
    for place in (out, *out.rglob("*")):
        if place.is_dir():
            place.chmod(0o755)
    if case.between:
        damage(out / case.between[0], case.between[1])
    before = hash_files(out)
    again = server.run(command)
    assert_clear(again)
    if again.code == 0:
        assert_same(RunDirectory(out), whole)
    elif case.between == ("checkpoint/model.safetensors", "flip end"):
        # It can be read as well as ever: seeing that it is another is what the proof is for.
        assert again.code == 1, (again.code, again.err)
        assert "THE PROOF FAILED" in again.out
        TALLY["told by the proof"] += 1
    else:
        # Refused: what is there stays as it is, but for what the record says of the refusal.
        assert again.code == 2, (again.code, again.err)
        after = hash_files(out)
        assert {k: v for k, v in after.items() if k != "run.json"}.items() >= {
            k: v for k, v in before.items() if k != "run.json"
        }.items()
        assert case.between or "OUT" in json.dumps(case.options), "it must go on by itself"
    TALLY["refused in one line"] += again.code == 2
    TALLY["went on to the same numbers"] += again.code == 0
    TALLY["lost"] -= 1


COMMANDS: dict[str, tuple[object, ...]] = {
    "show": ("show", "RUN"),
    "show --json": ("show", "RUN", "--json"),
    "gate": ("gate", "RUN"),
    "report": ("report", "RUN", "-o", "HERE/page.html"),
    "recipe": ("recipe", "RUN", "--target-bits", "5", "-o", "HERE/recipe.json"),
    "requantize": ("requantize", "RUN", "--recipe", "RUN/recipe.json", "--out", "HERE/checkpoint"),
    "explain": ("explain", "RUN", "--prompt", "the slow", "--tokens", "2"),
}
QUICK_DAMAGE = {("run.json", "truncate"), ("blocks.parquet", "flip"), ("tokens.parquet", "remove")}


@pytest.mark.parametrize(
    ("path", "how"),
    [
        pytest.param(
            path,
            how,
            id=f"{path}: {how}",
            marks=() if (path, how) in QUICK_DAMAGE else pytest.mark.faults,
        )
        for path in FINISHED
        for how in HOWS
    ],
)
def test_a_damaged_file_of_a_finished_run_is_told(
    path: str, how: str, server: ForkServer, whole: RunDirectory, tmp_path: Path
) -> None:
    """Every command says it in one line, or does not need the file; none changes anything."""
    run = tmp_path / "run"
    shutil.copytree(whole.path, run)
    damage(run / path, how)
    before = hash_files(run)
    for name, arguments in COMMANDS.items():
        TALLY["tried"] += 1
        TALLY["lost"] += 1
        ended = server.run(
            [str(a).replace("RUN", str(run)).replace("HERE", str(tmp_path)) for a in arguments]
        )
        assert ended.code in (0, 1, 2, 3), (name, ended.code, ended.err)
        assert_clear(ended)
        assert hash_files(run) == before, name
        shutil.rmtree(tmp_path / "checkpoint", ignore_errors=True)
        TALLY["refused in one line"] += ended.code == 2
        TALLY["needed nothing of it"] += ended.code != 2
        TALLY["lost"] -= 1


@pytest.mark.parametrize(
    "at",
    [
        pytest.param(at, marks=() if at == ("sweep", 5) else pytest.mark.faults)
        for at in EVENTS[::2]
    ],
)
def test_a_second_process_is_refused_with_the_firsts_pid(
    at: tuple[str, int],
    server: ForkServer,
    whole: RunDirectory,
    runs: dict[str, Path],
    texts: list[object],
    model: Path,
    tmp_path: Path,
) -> None:
    TALLY["tried"] += 1
    TALLY["lost"] += 1
    out = tmp_path / "run"
    if at[0] in runs:
        shutil.copytree(runs[at[0]], out)
    command = ["run", model, *texts, "--out", out]
    answer = tmp_path / "second.json"
    second = {"arguments": [str(part) for part in command], "answer": str(answer)}
    fault = {"do": "run second", "stage": at[0], "event": at[1], "with": second}
    first = server.run(command, fault)
    assert first.code == 0, first.err
    refused = Ended(*json.loads(answer.read_text(encoding="utf-8")))
    assert refused.code == 2
    pid = (out / ".lock").read_text()
    assert refused.last.startswith(f"awqscope: {out} is in use by process {pid}: wait for it")
    assert_same(RunDirectory(out), whole)
    TALLY["went on to the same numbers"] += 1
    TALLY["lost"] -= 1


def test_weights_that_hold_nan_are_named_and_mended(
    server: ForkServer,
    whole: RunDirectory,
    texts: list[object],
    make_model: MakeModel,
    tmp_path: Path,
) -> None:
    """NaN in a weight ends the run; the mended model is another one, and refused for this run."""
    TALLY["tried"] += 1
    TALLY["lost"] += 1
    model, out = tmp_path / "model", tmp_path / "run"
    shutil.copytree(make_model("llama"), model)
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(tensors, model / "model.safetensors")
    command = ["run", model, *texts, "--out", out]
    ended = server.run(command)
    assert ended.code == 2
    assert "tensor model.layers.1.mlp.up_proj.weight in model.safetensors" in ended.last
    shutil.copyfile(make_model("llama") / "model.safetensors", model / "model.safetensors")
    again = server.run(command)
    assert again.code == 2 and "has changed since" in again.last
    TALLY["refused in one line"] += 1
    TALLY["lost"] -= 1
