"""Ctrl-C and the signals that end a command as it does: the exit code, whatever they fall into."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from awqscope.app.command_line.common import reports_errors
from awqscope.app.command_line.interruption import CODES, Interruption, interruptible
from awqscope.diagnose.machine.signals import held_back, kept
from tests.help.root import ROOT

# A command line of one command, which `body` ends: as a real one does, without its imports.
PROGRAM = """
import atexit, os, signal, sys, time
import typer
from awqscope.app.command_line import interruption
from awqscope.app.command_line.common import reports_errors

def work():
    global done
    {body}

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(reports_errors(work))
with interruption.interruptible(until_exit=True):
    app()
"""


def carry_out(body: str) -> subprocess.CompletedProcess[str]:
    """Run PROGRAM with `body`, which must end it; a fresh process with signals as a shell has."""

    def reset() -> None:
        for number in CODES:
            signal.signal(number, signal.SIG_DFL)

    lines = body.strip().replace("\n", "\n    ")
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=lines)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        preexec_fn=reset,
        check=False,
    )


def assert_ended(done: subprocess.CompletedProcess[str], number: signal.Signals) -> None:
    assert done.returncode == CODES[number], done.stderr
    assert done.stderr == "awqscope: interrupted; nothing was written\n"


@pytest.mark.parametrize("number", CODES)
def test_each_signal_has_its_exit_code(number: signal.Signals) -> None:
    assert CODES[number] == 128 + number
    done = carry_out(f"os.kill(os.getpid(), {int(number)})\ntime.sleep(1000)")
    assert_ended(done, number)


def test_what_was_written_is_gone_on_from(tmp_path: Path) -> None:
    done = carry_out(f"""
from pathlib import Path
from awqscope.mixedprec.files.atomic import write_text
write_text(Path({str(tmp_path / "part")!r}), "a part")
signal.raise_signal(signal.SIGINT)
""")
    assert done.returncode == CODES[signal.SIGINT]
    assert done.stderr == "awqscope: interrupted; the same command again goes on from here\n"


@pytest.mark.parametrize("second", CODES)
def test_a_second_one_while_it_is_leaving_changes_nothing(second: signal.Signals) -> None:
    done = carry_out(f"""
try:
    signal.raise_signal(signal.SIGINT)
finally:
    for _ in range(3):
        signal.raise_signal({int(second)})
    print("left whole")
""")
    assert_ended(done, signal.SIGINT)
    assert done.stdout == "left whole\n"


@pytest.mark.parametrize("second", CODES)
def test_one_while_the_interpreter_ends_changes_nothing(second: signal.Signals) -> None:
    done = carry_out(f"""
atexit.register(os.kill, os.getpid(), {int(second)})
signal.raise_signal(signal.SIGTERM)
""")
    assert_ended(done, signal.SIGTERM)


def test_one_that_python_drops_is_raised_again() -> None:
    """An exception in a destructor goes nowhere: without another the process would go on."""
    done = carry_out("""
class Held:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0)

held = Held()
del held
while True:
    time.sleep(1000)
""")
    assert_ended(done, signal.SIGINT)


def test_one_that_a_library_makes_an_error_of_is_one_all_the_same() -> None:
    done = carry_out("""
try:
    signal.raise_signal(signal.SIGTERM)
except KeyboardInterrupt:
    raise RuntimeError("a callback failed")
""")
    assert_ended(done, signal.SIGTERM)


def test_one_that_a_library_swallows_ends_the_work_at_its_next_step() -> None:
    done = carry_out("""
from awqscope.app.terminal.progress import show_progress
with show_progress() as on_progress:
    on_progress("search", 0, 3)
    try:
        signal.raise_signal(signal.SIGTERM)
    except:
        pass
    signal.raise_signal(signal.SIGINT)
    on_progress("search", 1, 3)
    print("went on")
""")
    assert done.returncode == CODES[signal.SIGTERM], done.stderr
    assert done.stderr.splitlines() == [
        "AWQ search: 0%",
        "awqscope: interrupted; nothing was written",
    ]
    assert done.stdout == ""


def test_leaving_that_hangs_is_ended_by_another() -> None:
    done = carry_out("""
interruption.PATIENCE = -1.0
try:
    signal.raise_signal(signal.SIGTERM)
finally:
    signal.raise_signal(signal.SIGINT)
    time.sleep(1000)
""")
    assert done.returncode == CODES[signal.SIGTERM], done.stderr


def test_what_is_ignored_stays_ignored() -> None:
    """A shell starts what runs in the background deaf to Ctrl-C, `nohup` to the terminal's end."""
    script = PROGRAM.format(
        body="signal.raise_signal(signal.SIGINT); signal.raise_signal(signal.SIGHUP)\n"
        "    print('goes on', flush=True); signal.raise_signal(signal.SIGTERM); time.sleep(1000)"
    )

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    ended = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        preexec_fn=ignore,
        check=False,
    )
    assert ended.stdout == "goes on\n"
    assert_ended(ended, signal.SIGTERM)


def test_handlers_are_put_back() -> None:
    before = {number: signal.getsignal(number) for number in (*CODES, signal.SIGALRM)}
    hook = sys.unraisablehook

    def work() -> None:
        assert isinstance(getattr(signal.getsignal(signal.SIGTERM), "__self__", None), Interruption)
        raise KeyboardInterrupt("nothing was written")

    app = typer.Typer(rich_markup_mode=None)
    app.command()(reports_errors(work))
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 130
    assert result.stderr == "awqscope: interrupted; nothing was written\n"
    assert {number: signal.getsignal(number) for number in before} == before
    assert sys.unraisablehook is hook


@pytest.mark.parametrize("others", [0, 2])
def test_signals_wait_while_a_process_is_begun(others: int) -> None:
    """Ignored meanwhile, as they were, they would be lost. Threads of libraries do not wait."""
    seen: list[int] = []
    over = threading.Event()
    threads = [threading.Thread(target=over.wait) for _ in range(others)]
    for thread in threads:
        thread.start()
    with kept():
        for number in CODES:
            signal.signal(number, lambda number, frame: seen.append(number))
        with held_back():
            for number in CODES:
                os.kill(os.getpid(), number)
            assert seen == []
        # Another thread may take a signal a moment after it was sent.
        while len(seen) < len(CODES):
            time.sleep(0.001)
        assert sorted(seen) == sorted(CODES)
    over.set()


def test_what_a_library_sets_up_is_undone() -> None:
    before = {number: signal.getsignal(number) for number in CODES}
    with kept():
        for number in CODES:
            signal.signal(number, signal.SIG_IGN)
    assert {number: signal.getsignal(number) for number in CODES} == before


def test_a_block_inside_another_is_part_of_it() -> None:
    with interruptible() as outer, interruptible() as inner:
        assert inner is outer


def test_the_dashboard_ends_well_by_any_of_them(tmp_path: Path) -> None:
    """Ctrl-C is how it is told to end; what ends a service is the same."""
    command = [sys.executable, "-m", "awqscope.app.cli", "dashboard", str(tmp_path), "--port", "0"]
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert process.stderr is not None
        assert "http://" in process.stderr.readline()
        process.send_signal(number)
        _, said = process.communicate()
        assert (process.returncode, said) == (0, "")
