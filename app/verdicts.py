"""The gate's verdicts on the runs of a directory: kept while nothing has changed that they are of,
and found behind the page that lists them, so that no list waits for a verdict."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread

from awqscope.app.words.gate.ship import Ship, write_ship
from awqscope.diagnose.gate.evidence import TokenEvidence
from awqscope.diagnose.gate.own import OWN_POLICY, load_own
from awqscope.diagnose.gate.policy import Policy
from awqscope.diagnose.gate.verdict import GateVerdict, judge_run
from awqscope.diagnose.runs.directory import CONTRADICTIONS, RunDirectory
from awqscope.diagnose.studies.tasks.answer import tasks_file
from awqscope.mixedprec.errors import InputError

# What a verdict is made of, besides the tasks.
JUDGED = ("run.json", "tokens.parquet", "blocks.parquet", "proof.json", OWN_POLICY)
DAMAGED = "run it again elsewhere"

Stamp = tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True)
class Judgement:
    """A run's verdict by its own policy, or by the default one where it has none; or why there is
    no verdict."""

    verdict: GateVerdict | None
    fault: InputError | None = None

    @property
    def ship(self) -> Ship:
        """Whether it may ship, in a sentence."""
        if self.verdict is not None:
            return write_ship(self.verdict)
        return Ship("", "" if self.fault is None else self.fault.what)


class Verdicts:
    """Verdicts by the name of the run. find: the run of that name. read: what a gate takes from the
    tokens of a run, as `Store.token_evidence`."""

    def __init__(
        self,
        find: Callable[[str], RunDirectory],
        read: Callable[[str, str], TokenEvidence | None],
    ):
        self._find, self._read = find, read
        self._lock = Lock()
        self._kept: dict[str, tuple[Stamp, Judgement]] = {}
        self._asked: dict[str, None] = {}
        self._is_busy = False

    def look(self, name: str) -> Judgement | None:
        """The verdict on a run if it is known already. LookupError if there is no such run."""
        with self._lock:
            kept = self._kept.get(name)
        return kept[1] if kept and kept[0] == stamp_verdict(self._find(name)) else None

    def find(self, name: str) -> Judgement:
        """The verdict on a finished run, worked out if it is not known. LookupError if there is no
        such run."""
        found = self.look(name)
        if found is None:
            run = self._find(name)
            # Before anything is read: what changes meanwhile is then judged anew.
            stamp = stamp_verdict(run)
            found = self._judge(name, run)
            with self._lock:
                self._kept[name] = stamp, found
        return found

    def judge(self, name: str, policy: Policy) -> GateVerdict:
        """The verdict on a finished run by any policy; nothing of it is kept. InputError where it
        cannot be judged, LookupError if there is no such run."""
        by_token = self._read(name, policy.subject)
        return judge_run(self._find(name), policy, by_token=by_token)

    def ask(self, names: Iterable[str]) -> None:
        """Have the verdicts on these finished runs worked out in the background, one after the
        other."""
        with self._lock:
            self._asked |= dict.fromkeys(names)
            if self._is_busy or not self._asked:
                return
            self._is_busy = True
        Thread(target=self._work, name="verdicts", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                name = next(iter(self._asked), None)
                if name is None:
                    self._is_busy = False
                    return
                del self._asked[name]
            try:
                self.find(name)
            except LookupError:
                # The run is gone since.
                continue

    def _judge(self, name: str, run: RunDirectory) -> Judgement:
        try:
            return Judgement(self.judge(name, load_own(run)))
        except InputError as error:
            return Judgement(None, error)
        except (OSError, *CONTRADICTIONS) as error:
            return Judgement(None, InputError(f"a file of it is damaged ({error})", DAMAGED))


def stamp_verdict(run: RunDirectory) -> Stamp:
    """What tells one state of all that a verdict is made of from the next."""
    paths = [run.path / name for name in JUDGED]
    return tuple(_stamp_file(path) for path in (*paths, tasks_file(run)))


def _stamp_file(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
