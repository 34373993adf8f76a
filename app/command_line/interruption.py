"""Ctrl-C, and what asks a command to end as Ctrl-C does: one exit code each.

The first raises KeyboardInterrupt, and the work that it interrupts leaves whole files behind. Those
that follow while the process is ending are ignored. One that comes PATIENCE seconds later, because
ending hangs, ends the process at once, which a run survives as it survives `kill -9`.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from awqscope.diagnose.machine.signals import ENDING, asked_to_end

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
PATIENCE = 10.0
# How long after Python dropped an interrupt it is raised again.
AGAIN_AFTER = 0.02


class Interruption:
    """Whether a command was asked to end, and how it is to end then."""

    def __init__(self) -> None:
        self._number: signal.Signals | None = None
        self._since = 0.0

    @property
    def code(self) -> int:
        """The exit code: 128 and the signal, as shells have it."""
        return CODES[self._number or signal.SIGINT]

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Heed a signal."""
        if self._number is None:
            self._number, self._since = signal.Signals(number), time.monotonic()
            asked_to_end.set()
            raise KeyboardInterrupt
        if time.monotonic() - self._since > PATIENCE:
            os._exit(self.code)

    def insist(self, number: int, frame: FrameType | None) -> None:
        """Raise again what was dropped."""
        raise KeyboardInterrupt

    def notice_dropped(self, dropped: Any) -> None:
        """Raise an interrupt again that Python dropped because it came inside a destructor or a
        callback; Python reports such errors to this hook."""
        if self._number is not None and issubclass(dropped.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_AFTER)
            return
        sys.__unraisablehook__(dropped)

    @property
    def was_asked(self) -> bool:
        """Whether a signal came."""
        return self._number is not None


_current: Interruption | None = None


@contextlib.contextmanager
def interruptible(*, until_exit: bool = False) -> Iterator[Interruption]:
    """Inside, the process is asked to end by any of ENDING that it does not ignore already, as one
    started in the background does Ctrl-C, and one under `nohup` the end of its terminal. A block
    inside another is part of it. until_exit: the process ends after the block, and nothing that
    comes from there on changes how."""
    global _current
    if _current is not None or threading.current_thread() is not threading.main_thread():
        yield _current or Interruption()
        return
    found = _current = Interruption()
    before: dict[signal.Signals, Any] = {
        number: signal.signal(number, found.handle)
        for number in ENDING
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, found.insist)
    hook, sys.unraisablehook = sys.unraisablehook, found.notice_dropped
    try:
        yield found
    finally:
        _current = None
        asked_to_end.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        ends = until_exit and found.was_asked
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if ends else handler)
