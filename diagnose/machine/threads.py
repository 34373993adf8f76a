"""With how many threads to compute, and how they wait for each other. Imports no torch: how they
wait has to be said before torch is imported.

torch splits a sum or a product among threads by OpenMP, thousands of times a second, and they wait
for the last of them each time. GNU's OpenMP, which torch's builds for Linux bring, lets them wait
by spinning. On a machine with other work the one that is waited for has no core as long as others
spin on it, and two threads take ten times as long as one. Threads that wait passively give their
core back at once: what other work then costs is its share of the cores.
"""

import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from awqscope.diagnose.entries.threads import Threads

THREADS, POLICY, SPINS = "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
PASSIVE = "passive"
ROOT = Path("/")
# Below, other work is not worth a word.
LITTLE = 0.5


@dataclass(frozen=True)
class Cores:
    """What a process may have of the machine's cores, and what else wants them.

    machine: how many there are. allowed: on how many of them it may run. quota: how many cores'
    worth of time its control groups let it have, None for any. load: processes that ran or wanted
    to, the mean of the last minute. named: OMP_NUM_THREADS, where it says one. gives_way: whether
    its threads wait for each other without holding a core.
    """

    machine: int
    allowed: int
    quota: float | None = None
    load: float = 0.0
    named: int | None = None
    gives_way: bool = True

    @property
    def room(self) -> float:
        """How many cores' worth of time it may have."""
        return self.allowed if self.quota is None else min(self.quota, self.allowed)

    @property
    def whole(self) -> int:
        """The cores that it can keep busy: of a part of one more, that one."""
        return max(1, math.ceil(self.room))

    @property
    def taken(self) -> float:
        """How much of its room other work wants, as far as that has no cores elsewhere."""
        return max(0.0, self.load - (self.machine - self.room))


def wait_passively() -> None:
    """Have threads that wait for each other give their core back; what the user has set stays. The
    processes that this one starts do the same. Once torch is imported it is too late."""
    if "torch" not in sys.modules and POLICY not in os.environ and SPINS not in os.environ:
        os.environ[POLICY] = PASSIVE


def choose_threads(cores: Cores, processes: int | None = 1) -> Threads:
    """How many threads to compute with. processes: that share the cores; None for tasks on other
    machines, which have a thread each unless OMP_NUM_THREADS says otherwise.

    Other work takes none away from threads that give way: the system then shares the cores fairly,
    and as many threads as cores have most of them. Where they spin, each needs a core for itself.
    """
    if cores.named:
        return Threads(each=cores.named, alone=cores.named, reason=f"{THREADS} is set")
    free = cores.whole if cores.gives_way else round(cores.room - cores.taken)
    alone = min(cores.whole, max(1, free))
    each = 1 if processes is None else max(1, alone // processes)
    return Threads(each=each, alone=alone, reason=_explain(cores))


def _explain(cores: Cores) -> str:
    """What a process may have of the cores, in words."""
    said = f"{cores.room:.3g} {'core' if cores.room == 1 else 'cores'}"
    if cores.room < cores.allowed:
        said += " by its control group's quota"
    elif cores.allowed < cores.machine:
        said += f" of {cores.machine} allowed"
    if cores.taken < LITTLE:
        return said
    if cores.gives_way:
        return f"{said}, shared with other work (load {cores.load:.1f})"
    return f"{said}, of which other work takes {min(cores.taken, cores.room):.1f}"


def keep_threads(begun: Threads, cores: Cores) -> Threads:
    """Those that a run was begun with, whatever the machine does now."""
    reason = "as the run was begun with"
    if cores.named not in (None, begun.each):
        reason += f", not the {cores.named} of {THREADS}: its numbers depend on it"
    return begun.changed(reason=reason)


def write_threads(threads: Threads, processes: int | None = 1) -> str:
    """What was chosen, in words."""
    said = f"{threads.each} {'thread' if threads.each == 1 else 'threads'}"
    if processes is None:
        said += " a task"
    elif processes > 1:
        said += f" for each of {processes} processes"
    return f"{said}: {threads.reason}"


def read_cores(root: Path = ROOT) -> Cores:
    """What this process may have of the machine's cores now. root: where /proc and /sys are."""
    machine = os.cpu_count() or 1
    # Not on macOS, which ties no process to cores.
    affinity = getattr(os, "sched_getaffinity", None)
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):
        load = 0.0
    return Cores(
        machine=machine,
        allowed=len(affinity(0)) if affinity else machine,
        quota=read_quota(root),
        load=load,
        named=read_named(),
        gives_way=os.environ.get(POLICY, "").strip().lower() == PASSIVE
        and os.environ.get(SPINS, "0").strip() == "0",
    )


def read_named() -> int | None:
    """OMP_NUM_THREADS, where it says one."""
    first = os.environ.get(THREADS, "").partition(",")[0]
    return int(first) if first.isdecimal() and int(first) > 0 else None


def read_quota(root: Path = ROOT) -> float | None:
    """How many cores' worth of time the control groups of this process let it have, the least of
    its own and all above it; None where they do not say."""
    found = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if kinds and "cpu" not in kinds.split(","):
            continue
        # Version 2 has one tree for all, version 1 one for each kind.
        tree = root / "sys/fs/cgroup" / ("cpu" if kinds else "")
        for folder in _list_upwards(tree, path):
            limit = _read_new(folder) if not kinds else _read_old(folder)
            found += [limit] if limit else []
    return min(found, default=None)


def _list_upwards(tree: Path, path: str) -> Iterator[Path]:
    """A group's folder and those above it. A container may name the group as its host does, and
    see its own in the tree's place."""
    here = Path(path.strip("/"))
    for part in (here, *here.parents):
        if ".." not in part.parts:
            yield tree / part


def _read_new(folder: Path) -> float | None:
    """The quota of a group of version 2."""
    return _divide(*_read(folder / "cpu.max").split()[:2])


def _read_old(folder: Path) -> float | None:
    """The quota of a group of version 1, which has -1 for none."""
    return _divide(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _divide(quota: str = "", period: str = "") -> float | None:
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return cores if cores > 0 else None


def _read(path: Path) -> str:
    """A file's text, empty where there is none."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
