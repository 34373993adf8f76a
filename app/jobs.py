"""Starting and stopping awqscope's own commands: what to start is decided purely, then done.

A command is a process of its own that outlives the page and the server. Its output goes to a log
whose lock it inherits: the system lets go of that lock however the process ends, so that whoever
reads the log, now or after a restart, knows whether somebody still writes it.
"""

import fcntl
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from app.commands.common import default_out, parse_bytes
from app.store import RunSummary, Store, read_tail
from diagnose.compare_spec import CompareSpec
from diagnose.rundir import RunDirectory, take_lock
from diagnose.sources import parse_spec
from diagnose.spec import RunSpec
from mixedprec.errors import InputError
from mixedprec.families import find_family, list_units
from mixedprec.recipe import Recipe, check_names, save_recipe
from mixedprec.scheme import Scheme
from mixedprec.untrusted import read_json

LOGS = ".logs"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
# Without dots no recipe's name can be another's `.result.json`.
RECIPE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,59}")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
LARGEST = 2**31 - 1
TAIL_LINES = 40
# -P: a folder called app where the dashboard was started must not stand in for this package.
PYTHON = (sys.executable, "-P", "-m", "app.cli")
# What a run is asked to stop with, in turn. Python drops an interrupt that falls into a destructor,
# and a process begun in the background may ignore them all; a killed run resumes all the same.
SIGNALS = (signal.SIGINT, signal.SIGINT, signal.SIGTERM)
PATIENCE = 5.0
GLANCE = 0.2


class RefusedError(Exception):
    """A request that cannot be started. fields: field -> what is wrong with it."""

    def __init__(self, problems: Mapping[str, str]):
        super().__init__("; ".join(f"{field}: {said}" for field, said in problems.items()))
        self.fields = problems


@dataclass(frozen=True)
class RunRequest:
    """What the form asks for: a run's name and the options of `awqscope run`; see RunSpec."""

    model: str = ""
    name: str = ""
    calib: str = "wikitext2:train"
    valid: str = "wikitext2:test"
    bits: int = 4
    rescue_bits: int = 8
    group_size: int = 128
    symmetric: bool = False
    seq_len: int | None = None
    windows: int | None = None
    calib_windows: int = 128
    calib_seq_len: int = 512
    z: float = 3.5
    ratio: float = 3.0
    delta_ppl: float | None = None
    top_k: int | None = None
    whole_blocks: bool = False
    keep_fp16: tuple[str, ...] = ()
    verify_units: int = 12
    seed: int = 0
    max_memory: str = "8GiB"

    def to_spec(self) -> RunSpec:
        """The run that is asked for. InputError for options that make no sense."""
        options = {key: value for key, value in asdict(self).items() if key != "name"}
        return RunSpec(**{**options, "max_memory": parse_bytes(self.max_memory)})


TEXTS = ("model", "name", "calib", "valid", "max_memory")
FLAGS = ("symmetric", "whole_blocks")
DECIMALS = ("z", "ratio", "delta_ppl")
DEFAULTS = {field.name: field.default for field in fields(RunRequest)}
WHOLE = tuple(key for key in DEFAULTS if key not in (*TEXTS, *FLAGS, *DECIMALS, "keep_fp16"))


@dataclass(frozen=True)
class Requantization:
    """A recipe of a run that was given to `awqscope requantize`. state: running, done (`result` is
    what the command printed) or failed (`log` says why)."""

    name: str
    state: str
    result: Mapping[str, Any] | None
    log: str


def read_request(values: Mapping[str, Any]) -> tuple[RunRequest, dict[str, str]]:
    """The request in a form's values, and the fields that hold something else than they should.
    What is left empty is as by default."""
    problems: dict[str, str] = {}
    found: dict[str, Any] = {}
    for key, default in DEFAULTS.items():
        value = values.get(key)
        if key in FLAGS:
            found[key] = value is True
        elif key == "keep_fp16":
            listed = value if isinstance(value, list) else []
            found[key] = tuple(str(unit).strip() for unit in listed)
        elif value is None or value == "":
            found[key] = default
        elif key in TEXTS:
            text = str(value).strip()
            found[key] = os.path.expanduser(text) if text.startswith("~/") else text
        else:
            number = _read_number(value)
            if number is None or (key in WHOLE and not number.is_integer()):
                problems[key] = "Give a whole number" if key in WHOLE else "Give a number"
                found[key] = default
            else:
                found[key] = int(number) if key in WHOLE else number
    return RunRequest(**found), problems


def _read_number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def request_like(spec: Mapping[str, Any]) -> RunRequest:
    """A request for a run like the one with this spec, without its name; options that this version
    does not know are left out, and of several texts to measure on all but the first."""
    known = {key: value for key, value in spec.items() if key in DEFAULTS and key != "name"}
    if not isinstance(known.get("valid", ""), str):
        known["valid"] = known["valid"][0]
    known["keep_fp16"] = tuple(known.get("keep_fp16", ()))
    known["max_memory"] = write_bytes(known.get("max_memory", parse_bytes(RunRequest.max_memory)))
    return RunRequest(**known)


def write_bytes(count: int) -> str:
    """An amount of memory as `parse_bytes` reads it."""
    gib, rest = divmod(count, 2**30)
    return str(count) if rest else f"{gib}GiB"


def suggest_name(model: str, taken: Collection[str]) -> str:
    """A free name for a run of `model`."""
    name = default_out(model).name[:90]
    number = 2
    free = name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free


def check_request(request: RunRequest, taken: Collection[str]) -> dict[str, str]:
    """field -> what is wrong with it; empty for a request that can be started. Looks at the files
    that it names, as the command would; what the hub holds only the command will know."""
    problems: dict[str, str] = {}
    if not NAME.fullmatch(request.name):
        problems["name"] = "Use up to 100 letters, digits, dots, - and _, not first a dot or -"
    elif request.name in taken:
        problems["name"] = "There is one of that name already; choose another"
    for key in ("calib", "valid"):
        _note(problems, key, lambda key=key: _check_text(getattr(request, key)))
    for key in WHOLE:
        _note(problems, key, lambda key=key: _check_whole(key, getattr(request, key)))
    _note(problems, "rescue_bits", lambda: _check_rescue(request.bits, request.rescue_bits))
    _note(problems, "max_memory", lambda: parse_bytes(request.max_memory))
    config: dict[str, Any] = {}
    _note(problems, "model", lambda: config.update(read_config(request.model)))
    _note(problems, "keep_fp16", lambda: _check_units(request.keep_fp16, config))
    longest = config.get("max_position_embeddings")
    if isinstance(longest, int) and request.seq_len is not None and request.seq_len > longest:
        problems.setdefault("seq_len", f"The model has {longest} positions; give at most that")
    return problems


def _note(problems: dict[str, str], key: str, check: Any) -> None:
    """Keep what a check of a field says, unless something is said already."""
    try:
        check()
    except InputError as error:
        # The field's label stands where the command line names its option.
        said = re.sub(r"^--[a-z-]+ ", "", str(error))
        problems.setdefault(key, said[:1].upper() + said[1:])


def _check_printable(text: str) -> None:
    if not text.isprintable():
        raise InputError("it holds characters that cannot be printed", "type it again")


def _check_text(spec: str) -> None:
    _check_printable(spec)
    parse_spec(spec)


def _check_whole(key: str, value: int | None) -> None:
    """Refuse a whole number as the command line would, whatever the other options are."""
    if value is None:
        return
    if abs(value) > LARGEST:
        raise InputError(f"{value} is too large", f"give at most {LARGEST}")
    if key in ("bits", "rescue_bits"):
        Scheme(value, RunRequest.group_size, False)
        return
    options: dict[str, Any] = {"model": "", "calib": "", "valid": "", key: value}
    RunSpec(**options)


def _check_rescue(bits: int, rescue: int) -> None:
    if rescue <= bits:
        raise InputError(f"{rescue} is not above {bits} bits", "rescue at more than the rest gets")


def read_config(model: str) -> dict[str, Any]:
    """config.json of a model directory; empty for what can only be an id on the hub. InputError for
    a directory that no run could use."""
    _check_printable(model)
    path = Path(model)
    if not model:
        raise InputError("a model is needed", "give its directory, or its id on the hub")
    if not path.exists():
        if HUB_ID.fullmatch(model):
            return {}
        raise InputError(f"there is no model directory {model}", "check the path")
    if not path.is_dir():
        raise InputError(f"{model} is a file", "give the directory that holds config.json")
    try:
        config = read_json(path / "config.json")
    except FileNotFoundError as error:
        raise InputError(
            f"{model} has no config.json", "give the directory of a Hugging Face model"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path / 'config.json'} cannot be read", "download the model again"
        ) from error
    if not isinstance(config, dict):
        raise InputError(f"{path / 'config.json'} is damaged", "download the model again")
    find_family(str(config.get("model_type", "")))
    if not any(path.glob("*.safetensors")):
        raise InputError(
            f"{model} holds no safetensors file", "pickles are never loaded; convert it first"
        )
    return config


def _check_units(names: Sequence[str], config: Mapping[str, Any]) -> None:
    """Refuse names that can be no unit, or that are none of a model whose config is known."""
    for name in names:
        if not re.fullmatch(r"\d{1,5}\.[a-z_]{1,40}", name, re.ASCII):
            raise InputError(f"{name!r} is no unit", "name units like 3.down")
    blocks = config.get("num_hidden_layers")
    if names and isinstance(blocks, int) and blocks > 0:
        check_names(list(names), list_units(find_family(config["model_type"]), blocks))


def run_command(request: RunRequest, root: Path) -> list[str]:
    """The command that carries out a request, into a directory below `root`."""
    return spec_command(request.to_spec(), root / request.name)


def resume_command(spec: Mapping[str, Any], out: Path) -> list[str]:
    """The command that goes on with the run in `out`, from its record's spec. InputError for a
    record of another version."""
    kind = CompareSpec if "candidate" in spec else RunSpec
    return spec_command(kind.from_json(dict(spec)), out)


def spec_command(spec: RunSpec | CompareSpec, out: Path) -> list[str]:
    """`awqscope run` or `compare` with every option of a spec. A value is never an argument of its
    own, so that none can be taken for an option."""
    if isinstance(spec, CompareSpec):
        command, models = "compare", {"reference": spec.reference, "candidate": spec.candidate}
    else:
        command, models = "run", {"model": spec.model}
    options = []
    for key, value in asdict(spec).items():
        option = f"--{key.replace('_', '-')}"
        if key in models or value is None or value is False:
            continue
        if value is True:
            options.append(option)
        elif isinstance(value, tuple):
            options += [f"{option}={entry}" for entry in value]
        else:
            options.append(f"{option}={value}")
    return [*PYTHON, command, *options, f"--out={out}", "--", *models.values()]


def requantize_command(run: Path, recipe: Path, out: Path) -> list[str]:
    """The command that makes and measures the checkpoint of a recipe."""
    options = [f"--recipe={recipe}", f"--out={out}", "--prove", "--json"]
    return [*PYTHON, "requantize", *options, "--", str(run)]


class Jobs:
    """Starts and stops commands on the runs of a store."""

    def __init__(self, store: Store):
        self.store = store
        self._lock = Lock()

    def taken(self) -> set[str]:
        """Names that no new run can have."""
        try:
            there = set(os.listdir(self.store.root))
        except OSError:
            there = set()
        return there | {path.stem for path in self._logs() if is_locked(path)}

    def start(self, request: RunRequest, problems: Mapping[str, str] = {}) -> str:
        """Start a run and return its name, made from the model's where none is given. RefusedError
        for a request that cannot be carried out, or one with `problems` when it was read;
        InputError where nothing can be started."""
        with self._lock:
            taken = self.taken()
            if not request.name:
                request = RunRequest(
                    **{**asdict(request), "name": suggest_name(request.model, taken)}
                )
            problems = {**check_request(request, taken), **problems}
            if problems:
                raise RefusedError(problems)
            launch(run_command(request, self.store.root), self._log(request.name))
        return request.name

    def resume(self, name: str) -> None:
        """Go on with a stopped or failed run. InputError where that cannot be."""
        run = self.store.summary(name)
        if run.record is None or run.state not in ("stopped", "failed"):
            raise InputError(f"{name} is {run.state}", "only what has stopped can go on")
        out = self.store.find(name).path.absolute()
        with self._lock:
            launch(
                resume_command(run.record["spec"], out), self._log(name), directory=begun_in(run)
            )

    def cancel(self, name: str) -> None:
        """Ask the process that works on a run to stop, until it does. InputError if nobody does."""
        run = self.store.find(name)
        if not _signal(run, SIGNALS[0]):
            raise InputError(f"nobody works on {name}", "reload the page")
        Thread(target=_insist, args=(run,), daemon=True).start()

    def is_alive(self, name: str) -> bool:
        """Whether a process that was started for the run of this name still is there."""
        return any(path.stem == name and is_locked(path) for path in self._logs())

    def log_tail(self, name: str) -> str:
        """The end of what the commands started for a run have said."""
        found = next((path for path in self._logs() if path.stem == name), None)
        return "" if found is None else last_lines(found)

    def requantize(self, name: str, recipe: Recipe, out_name: str) -> None:
        """Make and measure the checkpoint of a recipe, in RUN/recipes/OUT. InputError for a name
        that cannot be used."""
        run = self.store.find(name).path.absolute()
        folder = run / "recipes"
        if not RECIPE_NAME.fullmatch(out_name):
            raise InputError(f"{out_name!r} is no name", "use up to 60 letters, digits, - and _")
        with self._lock:
            path, out = folder / f"{out_name}.json", folder / out_name
            if path.exists() or out.exists():
                raise InputError(f"there is a recipe {out_name} already", "choose another name")
            save_recipe(path, recipe)
            launch(
                requantize_command(run, path, out),
                folder / f"{out_name}.log",
                folder / f"{out_name}.result.json",
                begun_in(self.store.summary(name)),
            )

    def requantizations(self, name: str) -> list[Requantization]:
        """Every recipe of a run that was requantized from the dashboard, the newest first."""
        logs = (self.store.find(name).path / "recipes").glob("*.log")
        newest = sorted(logs, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return [read_requantization(log) for log in newest]

    def _log(self, name: str) -> Path:
        return self.store.root / LOGS / f"{name}.log"

    def _logs(self) -> list[Path]:
        # A name from an address is looked for here, never joined to a path.
        return list((self.store.root / LOGS).glob("*.log"))


def begun_in(run: RunSummary) -> str | None:
    """Where a run was started, which is what the paths in its spec are relative to; None where
    that is not known, or not there any more."""
    directory = (run.record or {}).get("directory")
    return directory if directory and os.path.isdir(directory) else None


def launch(
    command: Sequence[str], log: Path, result: Path | None = None, directory: str | None = None
) -> None:
    """Start a command that outlives this process, in `directory` or here. Its output goes to the
    end of `log`, which it keeps locked, but for its stdout where a file for the result is given.
    InputError where it cannot be started, or one with this log is at work."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as said, open(result or os.devnull, "wb") as printed:
            take_lock(said)
            said.write(f"$ {shlex.join(['awqscope', *command[len(PYTHON) :]])}\n".encode())
            said.flush()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=printed if result else said,
                stderr=said,
                cwd=directory,
                start_new_session=True,
            )
    except BlockingIOError as error:
        raise InputError(f"{log.stem} is being worked on", "wait for it to end") from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"it cannot be started ({error})", "look at the disk and at its path"
        ) from error
    Thread(target=process.wait, daemon=True).start()


def is_locked(log: Path) -> bool:
    """Whether the process that writes a log still is there."""
    try:
        with open(log, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def last_lines(log: Path) -> str:
    """The end of a log."""
    return "\n".join(read_tail(log).splitlines()[-TAIL_LINES:])


def read_requantization(log: Path) -> Requantization:
    """How the requantization with this log stands: done once its result is whole."""
    result = None
    state = "running" if is_locked(log) else "failed"
    if state != "running":
        try:
            result = read_json(log.with_suffix(".result.json"))
            state = "done"
        except (OSError, ValueError):
            pass
    return Requantization(log.stem, state, result, last_lines(log))


def _signal(run: RunDirectory, number: signal.Signals) -> bool:
    """Send a signal to the process that works on a run; whether there is one. InputError where that
    is another's, or on another machine."""
    pid = run.holder()
    if pid is None:
        return False
    if not _has_open(pid, run.path / ".lock"):
        raise InputError(f"process {pid} is on another machine", "stop it there")
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise InputError(f"process {pid} belongs to another user", "ask them to stop it") from error
    return True


def _has_open(pid: int, path: Path) -> bool:
    """Whether a process of this machine has a file open; taken for granted where the system does
    not show it. On a shared disk the number in a lock may be that of another machine's process."""
    if not os.path.isdir("/proc/self/fd"):
        return True
    try:
        return any(entry.samefile(path) for entry in Path(f"/proc/{pid}/fd").iterdir())
    except PermissionError:
        return True
    except OSError:
        return False


def _insist(run: RunDirectory) -> None:
    """Wait for a run that was asked to stop, asking again more firmly."""
    for number in (*SIGNALS[1:], None):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if run.holder() is None:
                return
            time.sleep(GLANCE)
        if number is not None:
            _signal(run, number)
