"""lm-eval's own harness on a model that is in memory. Only this file imports lm-eval, and only when
it is asked to: that takes seconds."""

import contextlib
import functools
import hashlib
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from awqscope.diagnose.studies.tasks.samples import Scored, read_samples
from awqscope.mixedprec.errors import InputError

GENERATES = "generate_until"
# What a task generates at most where it says nothing; lm-eval's own.
GENERATED = 256
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
DIGITS = 16
# What a harness takes at least, and what that is called.
LEAST = {"limit": 1, "shots": 0, "max_length": 2, "batch_size": 1}
NAMES = {
    "limit": "the limit on documents",
    "shots": "the number of examples",
    "max_length": "the length that the model reads",
    "batch_size": "the size of a batch",
}


@dataclass(frozen=True)
class Harness:
    """How tasks are asked. include: folders with further task files. limit: documents of each task,
    None for all. shots: examples before each document, None for as many as the task says.
    max_length: tokens that the model reads at most. InputError for what makes no sense."""

    include: tuple[Path, ...] = ()
    limit: int | None = None
    shots: int | None = None
    max_length: int = 2048
    batch_size: int = 8

    def __post_init__(self) -> None:
        for option, least in LEAST.items():
            value = getattr(self, option)
            if value is not None and not (isinstance(value, int) and value >= least):
                raise InputError(f"{value!r} cannot be {NAMES[option]}", f"give at least {least}")


def check_running(options: Mapping[str, Any], *, has_results: bool, has_names: bool) -> None:
    """Raise InputError for an option of tasks that are run where none are: results of finished ones
    are read, or what is kept is shown. options: by what a user calls them, None where not given."""
    given = next((name for name, value in options.items() if value is not None), None)
    if given is not None and has_results:
        raise InputError(
            f"{given} is of tasks that are run, and results are of finished ones",
            "leave one of them out",
        )
    if given is not None and not has_names:
        raise InputError(f"{given} is of tasks that are run", "name the tasks")


@dataclass(frozen=True)
class Asked:
    """A task that was found. stamp: all that its samples depend on besides the model. manager:
    lm-eval's, which knows it."""

    name: str
    stamp: Mapping[str, Any]
    manager: Any = field(compare=False)


def name_version() -> str:
    """lm-eval with its version. InputError where it is not installed."""
    try:
        return f"lm-eval {version('lm_eval')}"
    except PackageNotFoundError as error:
        raise InputError("lm-eval is not installed", "pip install 'awqscope[tasks]'") from error


@functools.cache
def _open_manager(include: tuple[Path, ...], with_defaults: bool) -> Any:
    from lm_eval.tasks import TaskManager

    paths = [str(path) for path in include] or None
    return TaskManager(include_path=paths, include_defaults=with_defaults)


def _choose_manager(names: Sequence[str], include: tuple[Path, ...]) -> Any:
    """What knows the tasks of these names: the further files alone where they have all of them,
    since lm-eval's own are thousands and take long to look through; else both."""
    if include:
        own = _open_manager(include, False)
        with contextlib.suppress(Exception):
            own.load(list(names))
            return own
    return _open_manager(include, True)


def find_tasks(names: Sequence[str], harness: Harness) -> list[Asked]:
    """The tasks and groups of these names, loaded with their documents. InputError where there is
    no such task or its documents cannot be had, and where the model's length leaves no room for
    what a task generates."""
    made = name_version()
    for path in harness.include:
        if not path.is_dir():
            raise InputError(f"there is no directory {path}", "give --include-path task files")
    with _quietly():
        manager = _choose_manager(names, harness.include)
        return [_find_task(name, manager, harness, made) for name in dict.fromkeys(names)]


def _find_task(name: str, manager: Any, harness: Harness, made: str) -> Asked:
    if name not in manager.task_index:
        raise InputError(
            f"lm-eval knows no task {name}", "lm-eval ls tasks lists them; --include-path adds some"
        )
    try:
        tasks = manager.load([name])["tasks"]
    except Exception as error:
        raise InputError(
            f"task {name} cannot be loaded ({_first_line(error)})",
            "reach the hub once, or give local task files with --include-path",
        ) from error
    digest = hashlib.sha256()
    for leaf, task in sorted(tasks.items()):
        if task.OUTPUT_TYPE == GENERATES:
            _check_room(leaf, task, harness.max_length)
        if harness.shots and task.get_config("num_fewshot") == 0:
            # lm-eval keeps to that whatever it is asked for, and only logs it.
            raise InputError(
                f"task {leaf} is never given examples: its file says so", "leave out --num-fewshot"
            )
        if getattr(task, "UNSAFE_CODE", False):
            raise InputError(
                f"task {leaf} runs code that the model writes", "lm-eval itself runs it elsewhere"
            )
        config = json.dumps(task.dump_config(), sort_keys=True, default=str)
        digest.update(ADDRESS.sub("", config).encode())
        for document in task.eval_docs:
            digest.update(json.dumps(document, sort_keys=True, default=str).encode())
    stamp = {
        "harness": made,
        "documents": digest.hexdigest()[:DIGITS],
        "limit": harness.limit,
        "shots": harness.shots,
        "max_length": harness.max_length,
    }
    return Asked(name, stamp, manager)


def _check_room(name: str, task: Any, max_length: int) -> None:
    """Raise InputError where what a task generates leaves no room for what it asks."""
    given = task.get_config("generation_kwargs") or {}
    generated = int(given.get("max_gen_toks") or GENERATED)
    if generated >= max_length:
        raise InputError(
            f"task {name} generates {generated} tokens, and the model reads {max_length}",
            f"give --max-length {2 * generated} or more",
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


@dataclass(frozen=True)
class Answered:
    """A task's scores, and by metric, without filters, whether more is better."""

    scored: Scored
    higher_is_better: Mapping[str, bool]


def run_task(
    asked: Asked,
    harness: Harness,
    model: Any,
    tokenizer: Any,
    on_request: Callable[[int, int], None],
) -> Answered:
    """lm-eval's samples of a task, by transformers' `model` where it is. on_request: told of
    requests done and all, about."""
    with _quietly(), _without_commit():
        import lm_eval

        lm = _make_lm(on_request)(
            pretrained=model,
            tokenizer=tokenizer,
            max_length=harness.max_length,
            batch_size=harness.batch_size,
        )
        found = lm_eval.simple_evaluate(
            model=lm,
            tasks=[asked.name],
            num_fewshot=harness.shots,
            limit=harness.limit,
            bootstrap_iters=0,
            task_manager=asked.manager,
        )
    assert found is not None
    higher = {
        metric: said is not False
        for said_of in found["higher_is_better"].values()
        for metric, said in said_of.items()
    }
    return Answered(read_samples(found["samples"]), higher)


def _make_lm(on_request: Callable[[int, int], None]) -> Any:
    """lm-eval's class for transformers' models, which tells how far it is instead of drawing a
    bar."""
    from lm_eval.models.huggingface import HFLM

    class Counting(HFLM):  # type: ignore[misc]
        total, done = 0, 0

        def _begin(self, count: int) -> None:
            self.total, self.done = count, 0

        def _advance(self, rows: int) -> None:
            # Requests that differ by a last token share a row.
            self.done = min(self.total, self.done + rows)
            on_request(self.done, self.total)

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            self._begin(len(requests))
            return super().loglikelihood(requests, disable_tqdm=True)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
            self._begin(len(requests))
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            self._begin(len(requests))
            return super().generate_until(requests, disable_tqdm=True)

        def _model_call(self, inps: Any, *given: Any, **named: Any) -> Any:
            found = super()._model_call(inps, *given, **named)
            self._advance(len(inps))
            return found

        def _model_generate(self, context: Any, *given: Any, **named: Any) -> Any:
            found = super()._model_generate(context, *given, **named)
            self._advance(len(context))
            return found

    return Counting


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Until this ends, nothing of lm-eval and datasets is printed but errors."""
    import datasets

    logger = logging.getLogger("lm_eval")
    before, bars = logger.level, datasets.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with contextlib.redirect_stdout(sys.stderr), _without_bars():
            yield
    finally:
        logger.setLevel(before)
        if not bars:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Until this ends, lm-eval's bar for building requests, which nothing turns off, is none."""
    import lm_eval.api.task as module

    before = module.tqdm
    module.tqdm = functools.partial(before, disable=True)
    try:
        yield
    finally:
        module.tqdm = before


@contextlib.contextmanager
def _without_commit() -> Iterator[None]:
    """Until this ends, lm-eval does not ask git for the commit of the directory that it is in: git
    says so on stderr where there is none, and nobody reads the answer."""
    import lm_eval.evaluator as module

    before = module.get_git_commit_hash
    module.get_git_commit_hash = lambda: None
    try:
        yield
    finally:
        module.get_git_commit_hash = before
