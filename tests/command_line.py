"""Command lines for tests: small runs, as flags, and the program as a process of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import metarl
from harness.settings import Setting, as_given, ignored
from test_metarl import SMALL

ROOT = Path(metarl.__file__).parent


def small(**options):
    """The options of a small run with these, without those that its algorithm ignores."""
    given = SMALL | options
    unused = ignored(Setting(**given))
    return {name: value for name, value in given.items() if name not in unused}


def arguments(**options):
    """The same as flags."""
    flags = []
    for name, value in small(**options).items():
        flags += as_given(name, value).split()
    return flags


def must(holds, words):
    """`assert`, which python -O leaves out."""
    if not holds:
        raise AssertionError(words)


def default_signals():
    """A background job of a script ignores SIGINT, and so does what it starts, but for this."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def started(*command, preexec=default_signals, **options):
    """Python with these arguments, as a process in a group of its own that does not outlive the
    test. Its output is text, in pipes."""
    if os.name == "posix":
        options["preexec_fn"] = preexec
    command = [sys.executable, *map(str, command)]
    streams = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    options = dict(cwd=ROOT, start_new_session=True) | streams | options
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def until(condition, process=None):
    """Wait until it holds; fail where the process has ended, or after a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"it has ended: {process.communicate()}")
        must(time.monotonic() < deadline, "nothing happens")
        time.sleep(0.01)


def rows(run):
    """The number of iterations in the log of a run."""
    log = run / "log.csv"
    if not log.exists():
        return 0
    return len(log.read_text().splitlines()) - 1


def children(pid):
    """The worker processes of a process: its children but for Python's resource tracker."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == str(pid) and b"resource_tracker" not in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found
