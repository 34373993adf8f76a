"""Explanations of prompts kept with a run: starting `awqscope explain`, and how each stands.

RUN/explained/NAME.jsonl holds the prompts asked, NAME.log what the command said, NAME.json what it
found. Prompts go to the command in their file: none can be taken for an option.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import launching
from app.store import Store
from mixedprec.errors import InputError

MOST_TOKENS = 4096
LONGEST_PROMPT = 100_000
NUMBERS = range(1, 10_000)


@dataclass(frozen=True)
class Explaining:
    """Prompts of a run that were asked to be explained. state: running, done (Store.explained has
    the result) or failed (`log` says why)."""

    name: str
    state: str
    prompts: tuple[str, ...]
    log: str


def explain_command(run: Path, prompts: Path, out: Path, tokens: int) -> list[str]:
    """The command that explains the prompts of a file."""
    options = [f"--prompts={prompts}", f"--out={out}", f"--tokens={tokens}"]
    return [*launching.PYTHON, "explain", *options, "--", str(run)]


def check_question(prompt: object, tokens: object) -> tuple[str, int]:
    """What is asked, if it can be. InputError for what the command would refuse unseen."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError("there is no prompt", "type some text")
    if len(prompt) > LONGEST_PROMPT:
        raise InputError("the prompt is too long", f"give at most {LONGEST_PROMPT:,} characters")
    if type(tokens) is not int or not 1 <= tokens <= MOST_TOKENS:
        raise InputError("that is no number of tokens", f"give 1 to {MOST_TOKENS}")
    return prompt, tokens


def start_explaining(store: Store, run: str, prompt: str, tokens: int) -> str:
    """Start explaining a prompt in a process of its own; the name of the explanation. InputError
    where it cannot be started."""
    path = store.find(run).path.resolve()
    folder = path / "explained"
    line = json.dumps({"prompt": prompt}) + "\n"
    for number in NUMBERS:
        name = f"prompt-{number}"
        asked, out = folder / f"{name}.jsonl", folder / f"{name}.json"
        if out.exists():
            continue
        try:
            folder.mkdir(exist_ok=True)
            with open(asked, "x", encoding="utf-8") as file:
                file.write(line)
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"{asked} cannot be written ({error.strerror})", "check it") from error
        launching.launch(explain_command(path, asked, out, tokens), folder / f"{name}.log")
        return name
    raise InputError(f"{folder} is full", "remove what is no longer needed")


def list_explaining(store: Store, run: str) -> list[Explaining]:
    """Every explanation of a run, the newest first."""
    folder = store.find(run).path / "explained"
    # Asked first: a process that ends in between has left its result behind.
    busy = {log.stem for log in folder.glob("*.log") if launching.is_locked(log)}
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
    tail = launching.last_lines(folder / f"{name}.log")
    state = "running" if is_busy else "failed"
    return Explaining(name, state, _read_asked(folder / f"{name}.jsonl"), tail)


def _read_asked(path: Path) -> tuple[str, ...]:
    """The prompts of a file that we wrote; none where it is gone or other."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return tuple(str(json.loads(line)["prompt"]) for line in lines)
    except (OSError, ValueError, LookupError, TypeError):
        return ()
