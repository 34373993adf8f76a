"""What the dashboard knows of the runs in a directory: read when needed, kept while unchanged.

A run is found by its name in the listing; a name from an address is never joined to a path. What
has been read is kept by the file's time and size, the least used first out, so that memory does not
grow with the pages visited.
"""

import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from awqscope.app.token_index import (
    COLUMNS,
    TokenIndex,
    TokenQuestion,
    find_text,
    find_tokens,
    index_tokens,
)
from awqscope.app.verdicts import Verdicts
from awqscope.diagnose.explain.explanation import read_explained
from awqscope.diagnose.gate.block_texts import BlockTexts, read_block_texts
from awqscope.diagnose.gate.evidence import (
    TokenEvidence,
    read_finished,
    read_numbers,
    take_evidence,
)
from awqscope.diagnose.gate.findings import Missing
from awqscope.diagnose.gate.shares import Cost, read_block_costs
from awqscope.diagnose.gate.texts import RunNumbers
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.notes import FILE, Notes, find_notes
from awqscope.diagnose.runs.record import AnyRecord, Record
from awqscope.diagnose.runs.scores import (
    add_groups,
    list_scored,
    read_scores,
    read_squared_errors,
)
from awqscope.diagnose.studies.study import read_answer, studies_of
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.baselines import Contestant, read_contest
from awqscope.mixedprec.recipes.recipe import Recipe, load_recipe
from awqscope.mixedprec.recipes.scores import Prediction, Scores
from awqscope.mixedprec.recipes.solver import predict_outline

KEPT = 2048
KEPT_BYTES = 64 * 2**20
WORST_OF_BLOCK = 20
TAIL_BYTES = 20_000
WHOLE_TEXT = TokenQuestion()
# Python objects take several times what Arrow or JSON do.
OBJECTS = 8

Row = Mapping[str, Any]


class UnknownRunError(LookupError):
    """No run of that name is in the directory."""


@dataclass(frozen=True)
class RunSummary:
    """A run as the list shows it. state: done, running, stopped (no process works on it), failed,
    or damaged (its record cannot be read: `error` and `remedy` say why; `record` is None). notes:
    what people say of it, nothing where their file cannot be read, as `notes_error` says."""

    name: str
    state: str
    record: AnyRecord | None
    error: str = ""
    remedy: str = ""
    notes: Notes = field(default_factory=Notes)
    notes_error: str = ""


@dataclass(frozen=True)
class Progress:
    """The last event of a run: step `done` of `total` of `stage`; eta in seconds, if known."""

    stage: str
    done: int
    total: int
    eta: float | None


@dataclass(frozen=True)
class Race:
    """A recipe measured beside its rivals: how it came to be, and the contest, itself first."""

    provenance: Mapping[str, Any]
    contestants: Sequence[Contestant]


class Store:
    """Read access to the runs below `root`."""

    def __init__(self, root: Path):
        self.root = root
        self._lock = Lock()
        self._kept: OrderedDict[tuple[str, str], tuple[tuple[int, int], Any, int]] = OrderedDict()
        self._weight = 0
        self.verdicts = Verdicts(self.find, self.token_evidence)

    def list_runs(self) -> list[RunSummary]:
        """Every run, newest first; damaged ones last."""
        found = map(self._summarise, self._paths())
        return sorted(found, key=lambda run: run.record.created if run.record else "", reverse=True)

    def summary(self, name: str) -> RunSummary:
        """One run as in the list. UnknownRunError if there is none."""
        return self._summarise(self.find(name).path)

    def find(self, name: str) -> RunDirectory:
        """The run of that name. UnknownRunError if there is none."""
        for path in self._paths(name):
            return RunDirectory(path)
        raise UnknownRunError(name)

    def table(self, name: str, table: str) -> list[dict[str, Any]]:
        """The rows of a small table of a run; empty while the run has none."""
        path = self.find(name).path / f"{table}.parquet"
        return self._keep(path, "rows", lambda: RunDirectory(path.parent).read_table(table)) or []

    def recipe(self, name: str) -> Recipe | None:
        """The run's own recipe, once chosen, its widths as the run has them."""
        path, record = self.find(name).path / "recipe.json", self.summary(name).record

        def read() -> Recipe:
            found = load_recipe(path)
            if not isinstance(record, Record):
                return found
            return found.in_own_groups(record.spec.low.group_size)

        return self._keep(path, "recipe", read)

    def scores(self, name: str) -> Scores | None:
        """What the run's tables say of every unit; None while they do not, and for runs of versions
        that did not keep enough."""
        path = self.find(name).path

        def read() -> Scores | None:
            try:
                return read_scores(path)
            except InputError:
                return None

        # Tables are there before the recipe is; what run.json says of the stages changes last.
        return self._keep(path / "run.json", "scores", read)

    def grouped_scores(self, name: str) -> Scores | None:
        """The scores with every other size of groups that units were scored in besides."""
        scores, path = self.scores(name), self.find(name).path

        def read() -> Scores | None:
            run = RunDirectory(path)
            try:
                return None if scores is None else add_groups(run, scores, list_scored(run))
            except InputError:
                # A unit without a finite KL in some groups: the others' are offered all the same.
                return None

        return self._keep(path / "groups.parquet", "scores", read) or scores

    def outline(self, name: str) -> list[Prediction]:
        """The recipes on the frontier's lower convex hull, over all sizes of groups that were
        scored, the smallest first; empty where nothing is scored."""
        scores, path = self.grouped_scores(name), self.find(name).path
        if scores is None:
            return []
        grouped = path / "groups.parquet"
        file = grouped if grouped.exists() else path / "run.json"
        return self._keep(file, "outline", lambda: predict_outline(scores)) or []

    def squared_errors(self, name: str) -> dict[str, float]:
        """‖ΔW‖² of every unit at the low width; empty for a run that did not keep it."""
        scores, path = self.scores(name), self.find(name).path
        if scores is None:
            return {}
        read = partial(read_squared_errors, path, scores)
        return self._keep(path / "weights.parquet", "squared errors", read) or {}

    def races(self, name: str) -> list[Race]:
        """What `recipe --verify` kept, in the order of file names; damaged files are left out."""

        def read(path: Path) -> Race:
            provenance = load_recipe(path).provenance
            return Race(provenance, read_contest(provenance))

        found = []
        for path in sorted((self.find(name).path / "races").glob("*.json")):
            try:
                found.append(self._keep(path, "race", partial(read, path)))
            except InputError:
                continue
        return [race for race in found if race is not None]

    def proof(self, name: str) -> Mapping[str, Any] | None:
        """proof.json, once written."""
        path = self.find(name).path / "proof.json"
        return self._keep(path, "json", lambda: RunDirectory(path.parent).read_json("proof"))

    def explained(self, name: str) -> dict[str, Mapping[str, Any] | None]:
        """What is kept in the run's explained/, by name; None for anything but an explanation."""
        found = {}
        for path in (self.find(name).path / "explained").glob("*.json"):
            found[path.stem] = self._keep(path, "explained", partial(read_explained, path))
        return found

    def study(self, name: str, study: str) -> Mapping[str, Any] | None:
        """What a run keeps of a study (`diagnose.studies.study.read_answer`); None without it."""
        path = studies_of(self.find(name)) / f"{study}.json"
        return self._keep(path, "study", partial(read_answer, path))

    def array(self, name: str, key: str) -> np.ndarray | None:
        """One array of activations.safetensors, if it is there."""
        path = self.find(name).path / "activations.safetensors"

        def read() -> np.ndarray | None:
            try:
                with safe_open(path, framework="numpy") as file:
                    return file.get_tensor(key) if key in file.keys() else None
            except SafetensorError as error:
                said = f"{path} cannot be read ({error})"
                raise InputError(said, "run it again elsewhere") from error

        return self._keep(path, key, read)

    def token_index(self, name: str, question: TokenQuestion = WHOLE_TEXT) -> TokenIndex | None:
        """Where the damage is in the text; None while there is no token table."""
        path = self.find(name).path / "tokens.parquet"

        def read() -> TokenIndex:
            with pq.ParquetFile(path) as file:
                return index_tokens(file, question)

        return self._keep(path, f"index {question}", read)

    def window(self, name: str, window: int) -> list[dict[str, Any]]:
        """The tokens of one window, read from the row groups that hold it."""
        path = self.find(name).path / "tokens.parquet"
        only = [("window", "==", window)]

        def read() -> pa.Table:
            return pq.read_table(path, filters=only, partitioning=None)

        return self._keep(path, f"window {window}", read) or []

    def found_tokens(self, name: str, window: int, question: TokenQuestion) -> list[int]:
        """The positions of a window's tokens that a question asks for."""
        path = self.find(name).path / "tokens.parquet"

        def read() -> np.ndarray:
            here = pq.read_table(path, columns=COLUMNS, filters=[("window", "==", window)])
            hits = find_text(here, question.text) if question.text else None
            return here["position"].to_numpy()[find_tokens(here, question, hits)]

        found = self._keep(path, f"found {window} {question}", read)
        return [] if found is None else found.tolist()

    def block_tokens(self, name: str, block: int) -> list[dict[str, Any]]:
        """The tokens that suffer most from one block alone, of the windows that know it: rows of
        window, position, text, kl (of all blocks together), block_kl. Worst first."""
        path = self.find(name).path / "tokens.parquet"
        columns = ["window", "position", "text", "kl_uniform", "block_kl"]

        def read() -> pa.Table:
            only = pc.field("block_kl").is_valid()
            known = pq.read_table(path, columns=columns, filters=only, partitioning=None)
            found = known.set_column(4, "block_kl", pc.list_element(known["block_kl"], block))
            found = found.rename_columns(["window", "position", "text", "kl", "block_kl"])
            return found.sort_by([("block_kl", "descending")]).slice(0, WORST_OF_BLOCK)

        return self._keep(path, f"block {block}", read) or []

    def numbers(self, name: str) -> RunNumbers | None:
        """Every number of a run by text, as run.json tells texts; None while it has no tokens."""
        run = self.find(name)
        record = run.read()
        what = f"numbers {record.updated}"
        return self._keep(run.path / "tokens.parquet", what, partial(read_numbers, run, record))

    def block_texts(self, name: str) -> BlockTexts | None:
        """What a run's flagged blocks cost in each of its texts; None while it has no tokens."""
        run = self.find(name)
        record = run.read()
        read = partial(read_block_texts, run, record)
        return self._keep(run.path / "tokens.parquet", f"blocks by text {record.updated}", read)

    def token_evidence(self, name: str, subject: str) -> TokenEvidence | None:
        """What a gate takes from the tokens of a finished run; None where it has none."""
        record, numbers = read_finished(self.find(name)), self.numbers(name)
        return None if numbers is None else take_evidence(numbers, record, subject)

    def block_costs(self, name: str, model: str) -> Mapping[int, Cost] | Missing:
        """What each block costs in one model of a run, by the name its files have for it."""
        run = self.find(name)
        record = run.read()
        what = f"costs {model} {record.updated}"
        read = partial(read_block_costs, run, record, model)
        missing = Missing("the run has no blocks.parquet")
        return self._keep(run.path / "blocks.parquet", what, read) or missing

    def remember(self, path: Path, what: str, read: Callable[[], Any]) -> Any:
        """What `read` gives, from memory while the file is as it was; None if there is no file."""
        return self._keep(path, what, read)

    def progress(self, name: str) -> Progress | None:
        """The last event of the run's log."""
        path = self.find(name).path / "progress.jsonl"
        for line in reversed(read_tail(path).splitlines()):
            try:
                event = json.loads(line)
                return Progress(event["stage"], event["done"], event["total"], event["eta"])
            except (ValueError, KeyError, TypeError):
                continue  # torn by a kill, or cut by the tail
        return None

    def _paths(self, only: str | None = None) -> Iterator[Path]:
        """The runs' directories, or the one of that name."""
        try:
            entries = list(os.scandir(self.root))
        except OSError:
            return
        for entry in entries:
            if entry.name.startswith(".") or only not in (None, entry.name):
                continue
            if os.path.exists(os.path.join(entry.path, "run.json")):
                yield Path(entry.path)

    def _summarise(self, path: Path) -> RunSummary:
        said = self._keep(path / FILE, "notes", partial(find_notes, path)) or (Notes(), "")
        try:
            run = RunDirectory(path)
            record = run.look(
                lambda: self._keep(path / "run.json", "record", run.read) or run.read()
            )
        except InputError as error:
            return RunSummary(path.name, "damaged", None, error.what, error.remedy, *said)
        return RunSummary(path.name, record.state, record, "", "", *said)

    def _keep(self, path: Path, what: str, read: Callable[[], Any]) -> Any:
        """What `read` gives, from memory while the file is as it was; None if there is no file.
        Tables become lists of rows."""
        try:
            status = path.stat()
        except OSError:
            return None
        key, stamp = (str(path), what), (status.st_mtime_ns, status.st_size)
        with self._lock:
            kept = self._kept.get(key)
            if kept and kept[0] == stamp:
                self._kept.move_to_end(key)
                return kept[1]
        found = read()
        weight = _weigh(found, status.st_size)
        if hasattr(found, "to_pylist"):
            found, weight = found.to_pylist(), OBJECTS * weight
        with self._lock:
            self._weight += weight - (self._kept.pop(key)[2] if key in self._kept else 0)
            self._kept[key] = (stamp, found, weight)
            while len(self._kept) > 1 and (len(self._kept) > KEPT or self._weight > KEPT_BYTES):
                self._weight -= self._kept.popitem(last=False)[1][2]
        return found


def _weigh(found: Any, size: int) -> int:
    """About the memory that something read from a file of `size` bytes takes."""
    if found is None:
        return 0
    return getattr(found, "nbytes", OBJECTS * size)


def read_tail(path: Path) -> str:
    """The last lines of a log; empty if there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
