"""Explanations of prompts kept with a run: starting `awqscope explain`, and how each stands.

RUN/explained/NAME.jsonl holds the prompts asked, NAME.log what the command said, NAME.json what it
found. Prompts go to the command in their file: none can be taken for an option.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awqscope.app.dashboard.jobs import processes
from awqscope.app.dashboard.jobs.moved import begun_in, find_model
from awqscope.app.store import Store
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.locks import is_locked

TOKENS = 48
MOST_TOKENS = 4096
LONGEST_PROMPT = 100_000
NUMBERS = range(1, 10_000)
DIGITS = re.compile(r"[0-9]{1,6}")


@dataclass(frozen=True)
class Explaining:
    """Prompts of a run that were asked to be explained. state: running, done (Store.explained has
    the result) or failed (`log` says why)."""

    name: str
    state: str
    prompts: tuple[str, ...]
    log: str


def explain_command(
    run: Path, prompts: Path, out: Path, tokens: int, model: str | None = None
) -> list[str]:
    """The command that explains the prompts of a file. model: where the run's model is, if not
    where it was."""
    options = [f"--prompts={prompts}", f"--out={out}", f"--tokens={tokens}"]
    options += processes.name_model(model)
    return [*processes.PYTHON, "explain", *options, "--", str(run)]


def check_question(prompt: object, tokens: object) -> tuple[str, int]:
    """The prompt and the number of tokens that are asked for. InputError for what the command would
    refuse without looking at the model."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError("there is no prompt", "type some text")
    if len(prompt) > LONGEST_PROMPT:
        raise InputError("the prompt is too long", f"give at most {LONGEST_PROMPT:,} characters")
    # A field holds text.
    count = int(tokens) if isinstance(tokens, str) and DIGITS.fullmatch(tokens) else tokens
    if type(count) is not int or not 1 <= count <= MOST_TOKENS:
        raise InputError("that is no number of tokens", f"give 1 to {MOST_TOKENS}")
    return prompt, count


def start_explaining(store: Store, run: str, prompt: str, tokens: int) -> str:
    """Start explaining a prompt in a process of its own; the name of the explanation. InputError
    where it cannot be started."""
    path = store.find(run).path.resolve()
    folder = path / "explained"
    line = json.dumps({"prompt": prompt, "tokens": tokens}) + "\n"
    for number in NUMBERS:
        name = f"prompt-{number}"
        asked = folder / f"{name}.jsonl"
        if (folder / f"{name}.json").exists():
            continue
        try:
            folder.mkdir(exist_ok=True)
            with open(asked, "x", encoding="utf-8") as file:
                file.write(line)
        except FileExistsError:
            continue
        except OSError as error:
            # Made, but not filled: on a full disk the name would be taken for good.
            asked.unlink(missing_ok=True)
            raise InputError(
                f"{asked} cannot be written ({error.strerror})", "look at the disk and its folder"
            ) from error
        try:
            _launch(store, run, name, tokens)
        except InputError:
            asked.unlink()
            raise
        return name
    raise InputError(f"{folder} is full", "remove what is no longer needed")


def _launch(store: Store, run: str, name: str, tokens: int) -> None:
    """Start the command that explains what was asked under a name."""
    path = store.find(run).path.resolve()
    asked, out, log = (path / "explained" / f"{name}{end}" for end in (".jsonl", ".json", ".log"))
    command = explain_command(path, asked, out, tokens, find_model(store, run).option)
    processes.launch(command, log, directory=begun_in(store.summary(run)))


def explain_again(store: Store, run: str, name: str) -> None:
    """Start a failed explanation again. InputError for one that is done or under way."""
    folder = _failed(store, run, name)
    _launch(store, run, name, _read_tokens(folder / f"{name}.jsonl"))


def discard(store: Store, run: str, name: str) -> None:
    """Remove a failed explanation. InputError for one that is done or under way."""
    folder = _failed(store, run, name)
    for end in (".jsonl", ".json", ".log"):
        (folder / f"{name}{end}").unlink(missing_ok=True)


def _failed(store: Store, run: str, name: str) -> Path:
    """The folder of an explanation that failed."""
    if not any(job.name == name and job.state == "failed" for job in list_explaining(store, run)):
        raise InputError(f"{name} has not failed", "reload the page")
    return store.find(run).path / "explained"


def _read_tokens(path: Path) -> int:
    """How many tokens were asked for in a file that we wrote. InputError where it is gone or
    other."""
    try:
        tokens = json.loads(path.read_text(encoding="utf-8").splitlines()[0]).get("tokens", TOKENS)
        return check_question("asked before", tokens)[1]
    except (OSError, ValueError, LookupError, AttributeError) as error:
        raise InputError(f"{path} is gone or damaged", "ask anew") from error


def list_explaining(store: Store, run: str) -> list[Explaining]:
    """Every explanation of a run, the newest first."""
    folder = store.find(run).path / "explained"
    # Asked first: a process that ends in between has left its result behind.
    busy = {log.stem for log in folder.glob("*.log") if is_locked(log)}
    results = store.explained(run)
    times: dict[str, int] = {}
    for path in [*folder.glob("*.log"), *folder.glob("*.json")]:
        times[path.stem] = max(times.get(path.stem, 0), path.stat().st_mtime_ns)
    names = sorted(times, key=lambda name: (-times[name], name))
    return [_read_explaining(folder, name, results.get(name), name in busy) for name in names]


def _read_explaining(
    folder: Path, name: str, result: Mapping[str, Any] | None, is_busy: bool
) -> Explaining:
    """How one explanation stands."""
    if result is not None:
        prompts = tuple(str(entry["prompt"]) for entry in result["prompts"])
        return Explaining(name, "done", prompts, "")
    tail = processes.last_lines(folder / f"{name}.log")
    state = "running" if is_busy else "failed"
    return Explaining(name, state, _read_asked(folder / f"{name}.jsonl"), tail)


def _read_asked(path: Path) -> tuple[str, ...]:
    """The prompts of a file that we wrote; none where it is gone or other."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return tuple(str(json.loads(line)["prompt"]) for line in lines)
    except (OSError, ValueError, LookupError, TypeError):
        return ()
