"""What a run says, and to whom: terminals, streams that take nothing, Ctrl-C at odd moments."""

import errno
import io
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import metarl
from harness import checkpoints, cli, terminal
from harness.settings import Setting
from metarl import ALGORITHMS
from tests.command_line import ROOT, arguments, rows, started, until

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals, a shell or a terminal")


# --- Progress ---
def reported(monkeypatch, capsys, term="xterm", columns=200, times=(0, 10, 20, 30)):
    """What a run of three iterations, of 10 seconds each, reports on a terminal."""
    clock = iter(times)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr.isatty", lambda: True, raising=False)
        patch.setenv("TERM", term)
        patch.setenv("COLUMNS", str(columns))
        patch.setattr(terminal.time, "perf_counter", lambda: next(clock))
        report = terminal.progress(Setting(iterations=3), 0, quiet=False)
        for t in (1, 2, 3):
            report({"t": t, "pre": -2.0 * t, "post": -1.0})
    return capsys.readouterr().err


def test_progress_is_one_line_on_a_terminal(monkeypatch, capsys):
    """Each report takes the place of that before it. Whatever comes next begins a line."""
    first, second, third, rest = reported(monkeypatch, capsys).split("\n")
    assert first == (
        "maml 1/3, 20 s left: return -2.00 in the first episodes, -1.00 in the last, "
        "0.1 iterations/s\033[K"
    )
    assert second.startswith("\033[Fmaml 2/3, 10 s left: return -4.00 ")
    assert third.startswith("\033[Fmaml 3/3, 0 s left: return -6.00 ") and rest == ""


def test_progress_fits_the_terminal(monkeypatch, capsys):
    """A line that does not could not be written again."""
    lines = reported(monkeypatch, capsys, columns=40).splitlines()
    assert [line.removeprefix("\033[F").removesuffix("\033[K") for line in lines] == [
        f"maml {t}/3, {left} s left: return -{2 * t}.00 in the first"[:39]
        for t, left in ((1, 20), (2, 10), (3, 0))
    ]


def test_a_dumb_terminal_gets_plain_lines(monkeypatch, capsys):
    err = reported(monkeypatch, capsys, term="dumb")
    assert "\033" not in err and "\r" not in err
    assert [line.split(":")[0] for line in err.splitlines()] == [
        "maml 1/3, 20 s left",
        "maml 2/3, 10 s left",
        "maml 3/3, 0 s left",
    ]


def test_where_there_is_no_terminal_a_line_comes_every_few_seconds(monkeypatch, capsys):
    clock = iter([0, 3, 6, 9])
    with monkeypatch.context() as patch:
        patch.setattr(terminal.time, "perf_counter", lambda: next(clock))
        report = terminal.progress(Setting(iterations=9), 0, quiet=False)
        for t in (1, 2, 3):
            report({"t": t, "pre": -2.0, "post": -1.0})
    assert capsys.readouterr().err.startswith("maml 2/9, 21 s left: ")


def test_progress_of_a_resumed_run_is_that_since_it_goes_on(monkeypatch, capsys):
    times = iter([100.0, 108.0])
    with monkeypatch.context() as patch:
        patch.setattr(terminal.time, "perf_counter", lambda: next(times))
        report = terminal.progress(Setting(iterations=60), 50, quiet=False)
        report({"t": 58, "pre": -2.0, "post": -1.0})
    line = capsys.readouterr().err
    assert line.startswith("maml 58/60, 2 s left: ") and line.endswith(" 1.0 iterations/s\n")


# --- Streams that take nothing ---
class Broken(io.StringIO):
    """A stream that takes so many texts, and then raises the error of this number."""

    def __init__(self, number, good=0):
        super().__init__()
        self.number = number
        self.good = good

    def write(self, text):
        if self.good == 0:
            raise OSError(self.number, os.strerror(self.number))
        self.good -= 1
        return super().write(text)


@pytest.mark.parametrize(
    "stream",
    [
        None,
        Broken(errno.ENOSPC),
        Broken(errno.EIO, good=4),
        Broken(errno.EPIPE),
        Broken(errno.EBADF),
    ],
)
def test_a_run_goes_on_where_nobody_reads_its_progress(stream, tmp_path, capsys, monkeypatch):
    """Closed, full, or gone after some lines. Nothing goes to another stream instead."""
    monkeypatch.setattr(sys, "stderr", stream)
    assert cli.main([*arguments(), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "result.json").exists()
    assert capsys.readouterr().out.startswith("pointmass: mean return on 3 held-out tasks,\n")
    monkeypatch.setattr(sys, "stderr", stream)
    assert cli.main(["--alpha", "-1"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("number", [None, errno.EPIPE, errno.EIO])
def test_nobody_has_to_read_the_results(number, tmp_path, capsys, monkeypatch):
    stream = None
    if number is not None:
        stream = Broken(number)
    monkeypatch.setattr(sys, "stdout", stream)
    assert cli.main([*arguments(), "--out", str(tmp_path), "--quiet"]) == 0
    assert (tmp_path / "result.json").exists() and capsys.readouterr().err == ""


def test_results_that_cannot_be_written_are_said_once_they_are_safe(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Broken(errno.ENOSPC))
    assert cli.main([*arguments(), "--out", str(tmp_path), "--quiet"]) == 2
    assert capsys.readouterr().err == "metarl: standard output: No space left on device\n"
    assert (tmp_path / "result.json").exists()


@posix
@pytest.mark.parametrize(
    "redirections, status, said",
    [
        (">&- 2>&-", 0, ""),
        ("</dev/null >/dev/full", 2, "metarl: standard output: No space left on device\n"),
        (">/dev/full 2>/dev/full", 2, ""),
    ],
)
def test_redirections_of_a_shell(redirections, status, said, tmp_path):
    """Python itself would complain when it flushes at its end, and exit with status 120."""
    if "/dev/full" in redirections and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    flags = [*arguments(), "--out", tmp_path / "run", "--workers", "1", "--quiet"]
    command = shlex.join([sys.executable, "metarl.py", *map(str, flags)])
    run = ["sh", "-c", f"exec {command} {redirections}"]
    done = subprocess.run(run, check=False, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (status, said)
    assert (tmp_path / "run" / "result.json").exists()


@posix
def test_a_closed_pipe_and_a_terminal_that_goes_away(tmp_path):
    """Results into a pipe that nobody reads, progress on a terminal that goes away in mid-run."""
    ours, theirs = os.openpty()
    streams = dict(stdout=subprocess.PIPE, stderr=theirs)
    flags = [*arguments(iterations=60), "--out", tmp_path]
    with started("metarl.py", *flags, **streams) as process:
        process.stdout.close()
        os.close(theirs)
        until(lambda: rows(tmp_path) >= 2, process)
        os.close(ours)
        assert process.wait(timeout=60) == 0
        process.stdout = None  # there is nothing to be read
    assert rows(tmp_path) == 60 and (tmp_path / "result.json").exists()


def test_help_into_streams_that_take_nothing(capsys, monkeypatch):
    for stream in (None, Broken(errno.EPIPE)):
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as end:
            cli.main(["--help"])
        assert end.value.code == 0
    monkeypatch.setattr(sys, "stdout", Broken(errno.ENOSPC))
    assert cli.main(["--help"]) == 2
    assert capsys.readouterr().err == "metarl: standard output: No space left on device\n"


# --- Commands to be pasted ---
@posix
@pytest.mark.parametrize("name", ["a b", "it's", "-x", "--out", "$HOME;*", "ü"])
def test_commands_to_be_pasted_are_words_of_a_shell(name, tmp_path, capsys, monkeypatch):
    """After Ctrl-C, after a full disk, and where a directory is taken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["my programs/metarl.py"])
    with monkeypatch.context() as patch:
        patch.setitem(ALGORITHMS, "maml", interrupt)
        assert cli.main([*arguments(), f"--out={name}", "--quiet"]) == 130
    interrupted = capsys.readouterr().err
    assert cli.main([*arguments(), f"--out={name}", "--quiet"]) == 2
    taken = capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.RunDirectory, "keep", full)
        assert cli.main([f"--resume={name}", "--quiet"]) == 2
    no_space = capsys.readouterr().err
    assert "No space left" in no_space
    for line in (interrupted, no_space):
        words = shlex.split(line.split("; go on with: ")[1])
        assert words[:2] == ["python", "my programs/metarl.py"]
        assert cli.prepare(words[2:])[3].resolve() == tmp_path / name
    words = shlex.split(taken[taken.rindex("--resume") :])
    assert cli.prepare(words)[3].resolve() == tmp_path / name


def interrupt(c, state, address, in_chunks):
    raise KeyboardInterrupt


def full(record, state):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_half_a_row_of_the_log_is_an_error(tmp_path):
    """Of what a full disk takes a part, the system says how much, and no more."""
    c = Setting(tasks=2, episodes=2, policy="linear")
    state = metarl.initial_state(c)
    record = checkpoints.RunDirectory(tmp_path, c, state, 0.0)

    class Short(io.BytesIO):
        name = "log.csv"

        def write(self, line):
            return super().write(line[:5])

    record.log = Short()
    with pytest.raises(OSError, match="No space left.*log.csv"):
        record.keep(state)


# --- Ctrl-C where it is not expected ---
# The program, to which SIGINT comes when it begins to import a module
AT_AN_IMPORT = """
import os, runpy, signal, sys
module = sys.argv.pop()
class Finder:
    def find_spec(name, path, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
runpy.run_path("metarl.py", run_name="__main__")
"""


@posix
@pytest.mark.parametrize("module", ["numpy", "policies", "harness.cli"])
def test_ctrl_c_during_the_imports(module):
    with started("-c", AT_AN_IMPORT, module) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "metarl: interrupted\n")


# A module by Cython registers its arrays when it is imported, and ignores all errors of that
AT_A_REGISTRATION = """
import abc, os, runpy, signal, sys
real = abc.ABCMeta.register
def register(cls, subclass):
    if subclass.__module__ == "numpy.random._generator":
        os.kill(os.getpid(), signal.SIGINT)
    return real(cls, subclass)
abc.ABCMeta.register = register
runpy.run_path("metarl.py", run_name="__main__")
"""


@posix
def test_ctrl_c_where_an_import_would_lose_it():
    with started("-c", AT_A_REGISTRATION, *arguments(), "--quiet") as process:
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and err.startswith("metarl: interrupted")


@posix
def test_a_background_job_of_a_script_ignores_ctrl_c(tmp_path):
    """It came with SIGINT ignored, as jobs do that a script puts into the background."""

    def ignore():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    flags = [*arguments(iterations=100), "--out", tmp_path, "--quiet"]
    with started("metarl.py", *flags, preexec=ignore) as process:
        until(lambda: rows(tmp_path) >= 2, process)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1] == "" and process.returncode == 0
    assert rows(tmp_path) == 100
