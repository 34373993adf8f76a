"""The signals by which a user or a system asks a command to end, and who heeds them.

The process that the user started heeds them, and ends what it began. Processes that it starts
leave them to it, even where a signal is sent to a whole group.
"""

import contextlib
import multiprocessing.resource_tracker
import signal
import threading
from collections.abc import Iterator

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Set once this process was asked to end. A library that an interrupt comes in may turn it into an
# error of its own; code that catches one knows by this what it was.
asked_to_end = threading.Event()


def leave_to_parent() -> None:
    """Ignore these signals in this process, which its parent ends."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Signals wait for the end of the block: processes started inside are not hit before they
    `leave_to_parent`, and none that comes meanwhile is lost."""
    # It lets signals through when it begins; where it runs already it leaves them alone.
    multiprocessing.resource_tracker.ensure_running()
    waiting: list[int] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        # The mask is this thread's, and what it starts has it too; any other thread of this process
        # takes a signal all the same, and Python then handles it here.
        with kept():
            if threading.current_thread() is threading.main_thread():
                for number in ENDING:
                    if signal.getsignal(number) not in (signal.SIG_IGN, None):
                        signal.signal(number, lambda came, frame: waiting.append(came))
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for came in waiting:
            signal.raise_signal(came)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Put the handlers of these signals back after the block, whatever a library set inside."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
