"""Who does the work changes no number: processes, threads, Dask, MPI, killed or lost in between."""

import contextlib
import importlib.util
import json
import logging
import multiprocessing
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import fields
from functools import partial
from itertools import islice
from multiprocessing import connection
from pathlib import Path

import numpy as np
import pytest

import metarl
from harness import cli
from harness.settings import Setting
from harness.workers import PersistentMap, Processes, attempt, cores, workers
from tests.command_line import ROOT, arguments, children, rows, started, until

SIZE = dict(tasks=12, test_tasks=7)  # three chunks, the last smaller; two
ALGOS = ["maml", "reptile"]
needs_dask = pytest.mark.skipif(
    not importlib.util.find_spec("distributed"), reason="needs dask[distributed]"
)
posix = pytest.mark.skipif(os.name != "posix", reason="sends signals")
linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")


# --- What chunks may meet, as functions that a worker can import ---


def add(a, b):
    return a + b


def who(*_):
    """The process, its limits of threads, its division by zero, whether it ignores Ctrl-C."""
    limits = [os.environ[f"{name}_NUM_THREADS"] for name in ("OPENBLAS", "MKL", "OMP")]
    ignores = signal.getsignal(signal.SIGINT) == signal.SIG_IGN and (
        os.name != "posix" or blocked()
    )
    return os.getpid(), limits, np.ones(1) / np.zeros(1), ignores


def blocked():
    """Whether SIGINT is: in a worker from its birth, before Python could ignore it."""
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def once(path, i, kill=True):
    """i; but who comes here first is killed without warning, if `kill`. Counts calls in `path`."""
    with open(path / str(i), "a") as file:
        file.write("x")
    if kill and (path / str(i)).read_text() == "x":
        os.kill(os.getpid(), signal.SIGKILL)
    return i


def deadly(i):
    os._exit(7)


def wrong(i):
    raise ZeroDivisionError(f"in chunk {i}")


# --- The same numbers ---


def numbers(directory):
    """All that a run leaves behind, without its seconds."""
    c, state, _ = cli.load(directory / "checkpoint.npz")
    rows = [row.rsplit(",", 1)[0] for row in (directory / "log.csv").read_text().splitlines()]
    result = json.loads((directory / "result.json").read_text())
    result.pop("seconds")
    return c, {name: value.tobytes() for name, value in state.items()}, rows, result


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The numbers of runs without workers, by algorithm."""
    out = tmp_path_factory.mktemp("plain")
    for algo in ALGOS:
        assert cli.main([*arguments(algo=algo, **SIZE), "--out", str(out / algo), "--quiet"]) == 0
    return {algo: numbers(out / algo) for algo in ALGOS}


@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize("n", [0, 1, 2, 4])
def test_a_run_has_the_same_bits_with_any_number_of_processes(algo, n, plain, tmp_path, capfd):
    flags = [*arguments(algo=algo, **SIZE), "--workers", str(n), "--out", str(tmp_path), "--quiet"]
    assert cli.main(flags) == 0
    assert numbers(tmp_path) == plain[algo] and capfd.readouterr().err == ""
    assert multiprocessing.active_children() == []


def test_workers_serve_training_the_test_and_the_baselines(tmp_path, monkeypatch):
    served = []

    @contextlib.contextmanager
    def watched(spec):
        yield lambda f, *columns: served.append(f.__name__) or map(f, *columns)

    monkeypatch.setattr(cli, "workers", watched)
    flags = arguments(algo="reptile", iterations=2, compare="joint")
    assert cli.main([*flags, "--workers", "2", "--quiet"]) == 0
    tests = ["returns_by_step"]
    assert served == ["reptile_adapt"] * 2 + tests * 2 + ["meta_gradient"] * 2 + tests


def test_the_number_of_workers_may_change_on_resume(plain, tmp_path):
    run = str(tmp_path)
    flags = [*arguments(**SIZE | dict(iterations=1)), "--workers", "1", "--out", run, "--quiet"]
    assert cli.main(flags) == 0
    assert cli.main(["--resume", run, "--iterations", "2", "--workers", "2", "--quiet"]) == 0
    assert cli.main(["--resume", run, "--iterations", "3", "--quiet"]) == 0
    assert numbers(tmp_path) == plain["maml"]


def test_the_program_itself_with_workers(plain, tmp_path):
    """metarl.py is __main__, which workers import under another name; no BLAS setting is given."""
    environment = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    flags = [*arguments(**SIZE), "--workers", "2", "--out", str(tmp_path), "--quiet"]
    command = [sys.executable, str(ROOT / "metarl.py"), *flags]
    streams = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    done = subprocess.run(command, check=False, cwd=tmp_path.parent, env=environment, **streams)
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(tmp_path) == plain["maml"]


def states_and_returns(map):
    """Two iterations and a meta-test of each algorithm through a `map`, as bytes."""
    found, in_chunks = [], partial(metarl.in_chunks, map=map)
    for algo in ALGOS:
        c = Setting(
            algo=algo,
            hidden=(4,),
            episodes=3,
            test_episodes=3,
            adapt_episodes=3,
            test_steps=1,
            **SIZE,
        )
        for state in islice(metarl.train(c, metarl.initial_state(c), in_chunks), 2):
            found += [state[name].tobytes() for name in sorted(state)]
        found += [a.tobytes() for a in metarl.meta_test(c, state["theta"], in_chunks)]
    return found


def executor(kind):
    if kind == "threads":
        return ThreadPoolExecutor(2)
    if kind == "processes":
        return ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
    return pytest.importorskip("mpi4py.futures").MPIPoolExecutor(2)


@pytest.mark.parametrize("kind", ["threads", "processes", "mpi"])
def test_each_takes_the_map_of_any_executor(kind):
    with executor(kind) as pool:
        assert states_and_returns(pool.map) == states_and_returns(map)


# --- What workers are like ---


def meet(path, i, n):
    """The process and what it makes of a division by zero, once n chunks have come as far."""
    (path / str(i)).touch()
    until(lambda: len(list(path.iterdir())) == n)
    return os.getpid(), np.geterr()["divide"]


def test_a_number_of_numpy_is_a_number_of_workers():
    with workers(np.int64(1)) as each_map:
        assert each_map(add, [1, 2], [3, 4]) == [4, 6]


def test_by_default_there_are_as_many_processes_as_cores(tmp_path):
    n = cores()
    with workers(0) as each_map:
        assert each_map(add, range(20), range(20)) == list(range(0, 40, 2))
        pids, warnings = zip(*each_map(meet, [tmp_path] * n, range(n), [n] * n), strict=True)
        assert len({*pids, os.getpid()}) == n + 1 and set(warnings) == {"ignore"}
        with pytest.raises(ZeroDivisionError, match="in chunk 0"):
            list(each_map(wrong, range(3)))
    assert multiprocessing.active_children() == []


def test_where_there_can_be_no_processes_the_default_is_this_one(tmp_path, monkeypatch):
    def refuse(self, context):
        raise OSError("no more processes")

    monkeypatch.setattr(Processes, "add_one", refuse)
    with workers(0) as each_map:
        assert list(each_map(meet, [tmp_path], [0], [1])) == [(os.getpid(), "ignore")]
    with (
        pytest.raises(ConnectionError, match="--workers 2: cannot have so many: no more processes"),
        workers(2),
    ):
        pass


@linux
def test_cores_are_those_that_this_process_may_use():
    program = "import os; from harness import workers; one = min(os.sched_getaffinity(0)); "
    program += "os.sched_setaffinity(0, {one}); print(workers.cores())"
    assert subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True) == "1\n"


def test_no_more_cores_than_windows_takes_processes(monkeypatch):
    monkeypatch.setattr("harness.workers.MOST_PROCESSES", 61)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(200), raising=False)
    assert cores() == 61
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert cores() == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)  # unknown
    assert cores() == 1


def test_so_many_processes_as_nobody_has(monkeypatch):
    """One after the other starts, until one does not; then those that did are ended."""
    real = Processes.add_one

    def add_three(self, context):
        if len(self.crew) == 3:
            raise OSError("no more processes")
        real(self, context)

    monkeypatch.setattr(Processes, "add_one", add_three)
    with pytest.raises(ConnectionError, match="--workers 5: cannot have so many: no more"):
        PersistentMap(Processes, 5)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    "method", [m for m in multiprocessing.get_all_start_methods() if m != "forkserver"]
)
def test_results_come_in_order_and_from_other_processes(method, capfd, monkeypatch):
    get = multiprocessing.get_context
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: get(method))
    with workers(2) as each_map:
        assert each_map(add, range(20), range(20)) == list(range(0, 40, 2))
        assert each_map(add, [], []) == []
        for pid, limits, ratio, ignores in each_map(who, range(4)):
            assert pid != os.getpid() and ratio == np.inf and ignores
            assert limits == [
                os.environ[f"{name}_NUM_THREADS"] for name in ("OPENBLAS", "MKL", "OMP")
            ]
    assert capfd.readouterr().err == ""  # not a warning of NumPy's either
    assert os.name != "posix" or not blocked()


def test_one_thread_for_blas_where_the_user_has_not_said_otherwise():
    program = "import metarl, test_workers as t\nif __name__ == '__main__':\n"
    program += " with t.workers(1) as m: print(m(t.who, [0])[0][1])\n"
    environment = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    out = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    assert out == "['1', '1', '1']\n"


def test_errors_of_a_chunk_are_its_own():
    """Not those of lost workers: no repetition, and the error as it was, with where it was."""
    with workers(1) as each_map, pytest.raises(ZeroDivisionError, match="in chunk 0") as raised:
        each_map(wrong, range(3))
    assert 'raise ZeroDivisionError(f"in chunk {i}")' in str(raised.value.__cause__)


def slowly_wrong(i):
    """The first chunk takes longest; chunk 1 comes to nothing as well."""
    if i == 0:
        time.sleep(0.2)
    if i in (0, 1):
        wrong(i)
    return os.getpid()


def test_the_error_is_that_of_the_first_chunk_that_has_one():
    """As with the builtin. The workers go on, and what they did is not mixed up with later work."""
    with workers(2) as each_map:
        before = set(each_map(slowly_wrong, range(2, 20)))
        with pytest.raises(ZeroDivisionError, match="in chunk 0"):
            each_map(slowly_wrong, range(20))
        assert each_map(add, range(20), range(20)) == list(range(0, 40, 2))
        assert set(each_map(slowly_wrong, range(2, 20))) <= before


def leave_a_trace(path, i):
    (path / str(i)).touch()
    if i == 1:
        wrong(i)


def test_no_chunk_begins_after_an_error(tmp_path):
    with workers(1) as each_map, pytest.raises(ZeroDivisionError, match="in chunk 1"):
        each_map(leave_a_trace, [tmp_path] * 9, range(9))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def at_home(i):
    """The process, and those in which its own default workers work."""
    with workers(0) as each_map:
        return os.getpid(), {pid for pid, *_ in each_map(who, range(i))}


def test_a_worker_has_no_workers():
    """The cores are busy already: by default it does all work itself."""
    with workers(2) as each_map:
        for pid, others in each_map(at_home, [3, 3]):
            assert others == {pid} != {os.getpid()}


class Unsendable(Exception):
    """Pickle makes it again from its message alone, which is not what it takes."""

    def __init__(self, i, j):
        super().__init__(f"{i} and {j}")


def unsendable(i):
    if i == 0:
        return lambda: i
    if i == 1:
        raise Unsendable(i, i)
    raise Unsendable(lambda: i, i)


@pytest.mark.parametrize("i, words", [(0, "lambda"), (1, "Unsendable: 1 and 1"), (2, "Unsendable")])
def test_what_cannot_be_sent_back_is_an_error_of_its_chunk(i, words):
    with workers(1) as each_map:
        with pytest.raises(Exception, match=words):
            each_map(unsendable, [i])
        with pytest.raises(Exception, match="lambda"):
            each_map(lambda i: i, [i])  # nor can that be sent there
        assert each_map(add, [1], [2]) == [3]


def test_an_interrupted_call_leaves_nothing_to_the_next(monkeypatch):
    """Whoever catches the interruption may go on: late results are of no chunk of the next call."""
    real = connection.wait

    def interrupted(pipes):
        monkeypatch.setattr(connection, "wait", real)
        raise KeyboardInterrupt

    with workers(2) as each_map:
        monkeypatch.setattr(connection, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            each_map(add, [1, 2, 3], [1, 2, 3])
        assert each_map(add, [4, 5, 6], [4, 5, 6]) == [8, 10, 12]
    assert multiprocessing.active_children() == []


# --- Workers that die ---


@posix
def test_a_killed_worker_costs_the_chunks_that_were_not_finished(tmp_path):
    with workers(1) as each_map:
        assert each_map(once, [tmp_path] * 6, range(6), [i == 1 for i in range(6)]) == list(
            range(6)
        )
        assert [len((tmp_path / str(i)).read_text()) for i in range(6)] == [1, 2, 1, 1, 1, 1]
        assert each_map(add, [1, 2], [3, 4]) == [4, 6]


@linux
def test_a_worker_that_dies_in_the_middle_of_a_result(tmp_path, monkeypatch):
    """With half of it in the pipe: nobody waits for the other half, and the chunk is repeated."""
    real = connection.Connection.send_bytes

    def send_bytes(pipe, message):
        with contextlib.suppress(FileExistsError):
            (tmp_path / "died").touch(exist_ok=False)
            os.write(pipe.fileno(), struct.pack("!i", len(message)) + message[: len(message) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        real(pipe, message)

    monkeypatch.setattr(connection.Connection, "send_bytes", send_bytes)
    with workers(2) as each_map:
        assert each_map(add, range(20), range(20)) == list(range(0, 40, 2))
        assert (tmp_path / "died").exists()
    assert multiprocessing.active_children() == []


@posix
def test_no_number_of_killed_workers_ends_a_run_that_gets_on(tmp_path):
    with workers(1) as each_map:
        assert each_map(once, [tmp_path] * 4, range(4)) == list(range(4))
        assert [len((tmp_path / str(i)).read_text()) for i in range(4)] == [2, 2, 2, 2]


def test_only_what_is_lost_is_done_again():
    class Half:
        """An executor that loses every second chunk, and takes four."""

        def submit(self, f, *arguments):
            self.taken = getattr(self, "taken", 0) + 1
            if self.taken > 4:
                raise BrokenPipeError("full")
            future = Future()
            lost = self.taken % 2 == 0
            future.set_exception(BrokenPipeError("lost")) if lost else future.set_result(
                f(*arguments)
            )
            return future

    chunks = {i: (i, 10) for i in range(3, 9)}
    results, problem = attempt(Half(), add, chunks)
    assert results == {3: 13, 5: 15} and str(problem) == "lost"


class Unreliable:
    """Starts pools of which each does so many chunks as `plan` says, and loses the others."""

    def __init__(self, *plan):
        self.plan = iter(plan)
        self.log = []

    def start(self, spec):
        left = next(self.plan)
        if left is None:
            raise ConnectionError("gone")
        self.log.append("start")
        return Fleeting(left, self.log)


class Fleeting:
    def __init__(self, left, log):
        self.left = left
        self.log = log

    def attempt(self, f, chunks):
        done = dict(islice(chunks.items(), self.left))
        self.left -= len(done)
        return {i: f(*chunk) for i, chunk in done.items()}, "lost"

    def stop(self):
        self.log.append("stop")


def test_failures_count_in_a_row():
    """Two are forgiven as often as they come, if a chunk is done in between."""
    unreliable = Unreliable(0, 0, 1, 0, 0, 1, 0, 0, 1)
    assert PersistentMap(unreliable.start, 9)(add, [1, 2, 3], [10, 20, 30]) == [11, 22, 33]
    assert unreliable.log == ["start", "stop"] * 8 + ["start"]  # the last is for the next call
    unreliable = Unreliable(1, 0, 0, 0, 9)
    with pytest.raises(ConnectionError, match="--workers 9: lost 3 times .*: lost"):
        PersistentMap(unreliable.start, 9)(add, [1, 2, 3], [10, 20, 30])


def test_workers_are_ended_also_if_no_others_can_be_started(monkeypatch):
    unreliable = Unreliable(1, None)
    monkeypatch.setattr("harness.workers.Processes", unreliable.start)
    with pytest.raises(ConnectionError, match="gone"), workers(2) as each_map:
        each_map(add, [1, 2], [10, 20])
    assert unreliable.log[:2] == ["start", "stop"] and "start" not in unreliable.log[2:]
    unreliable = Unreliable(9)
    monkeypatch.setattr("harness.workers.Processes", unreliable.start)
    with pytest.raises(ZeroDivisionError), workers(2) as each_map:
        raise ZeroDivisionError
    assert unreliable.log == ["start", "stop"]


def test_workers_that_only_die_are_given_up(tmp_path, capsys, monkeypatch):
    with workers(2) as each_map, pytest.raises(ConnectionError, match="--workers 2: lost 3 times"):
        each_map(deadly, range(3))
    real = metarl.ALGORITHMS["maml"]

    def doomed(c, state, address, in_chunks):
        return (
            in_chunks.keywords["map"](deadly, range(3))
            if state["t"] == 2
            else real(c, state, address, in_chunks)
        )

    monkeypatch.setitem(metarl.ALGORITHMS, "maml", doomed)
    assert cli.main([*arguments(**SIZE), "--workers", "1", "--out", str(tmp_path), "--quiet"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("metarl: --workers 1: lost 3 times") and err.count("\n") == 1
    assert cli.load(tmp_path / "checkpoint.npz")[1]["t"] == 2


# How Linux starts workers, and how other systems do
SPAWN = "import multiprocessing as m, sys; from harness import cli; get = m.get_context\n"
SPAWN += "m.get_context = lambda _: get('spawn'); sys.exit(cli.main())"
METHODS = {"fork": ["metarl.py"], "spawn": ["-c", SPAWN]}
by_all_methods = pytest.mark.parametrize("method", METHODS)


def run_by(method, *flags):
    return started(*METHODS[method], *flags, "--quiet")


@linux
@by_all_methods
def test_workers_killed_in_a_real_run(method, tmp_path):
    """One after 2 iterations, both after 20: the run ends with the numbers of one left alone."""
    run, flags = tmp_path / "run", arguments(**SIZE | dict(iterations=60))
    assert cli.main([*flags, "--out", str(tmp_path / "plain"), "--quiet"]) == 0
    with run_by(method, *flags, "--out", run, "--workers", "2") as process:
        for least, number in ((2, 1), (20, 2)):
            until(
                lambda least=least: rows(run) >= least and len(children(process.pid)) == 2, process
            )
            for pid in children(process.pid)[:number]:
                os.kill(pid, signal.SIGKILL)
        assert process.communicate(timeout=60)[1] == "" and process.returncode == 0
    assert numbers(run) == numbers(tmp_path / "plain")


@linux
@by_all_methods
@pytest.mark.parametrize("least", [0, 3])
def test_ctrl_c_with_workers(least, method, tmp_path):
    """To all processes at once, as a terminal sends it, while they work or are being started."""
    run, flags = tmp_path / "run", arguments(**SIZE | dict(iterations=10**6))
    with run_by(method, *flags, "--out", run, "--workers", "2") as process:
        until(lambda: rows(run) >= least and len(children(process.pid)) == 2, process)
        workers = children(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and err.count("\n") == 1
    if least > 0:  # else it may have come before there was anything to go on with
        assert f"--resume {run}" in err
        assert cli.load(run / "checkpoint.npz")[1]["t"] == rows(run) >= least
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


# Workers that stop for ever, in the middle of a result, and do not care for SIGTERM
STUCK = """
import os, pathlib, signal, struct, sys, time
from multiprocessing.connection import Connection
from harness import cli
sent = []
def send_bytes(pipe, message):
    sent.append(message)
    message = struct.pack("!i", len(message)) + message
    if len(sent) < 6:
        os.write(pipe.fileno(), message)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(pipe.fileno(), message[:-1])
        pathlib.Path(sys.argv[-1]).touch()
        time.sleep(1000)
Connection.send_bytes = send_bytes
sys.exit(cli.main(sys.argv[1:-1]))
"""


@linux
def test_ctrl_c_while_a_worker_is_in_the_middle_of_a_result(tmp_path):
    flags = [*arguments(**SIZE | dict(iterations=10**6)), "--out", tmp_path, "--workers", "1"]
    with started("-c", STUCK, *flags, "--quiet", tmp_path / "stuck") as process:
        until(lambda: (tmp_path / "stuck").exists(), process)
        os.killpg(process.pid, signal.SIGINT)
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and err.count("\n") == 1 and "after 1 iterations" in err
    assert cli.load(tmp_path / "checkpoint.npz")[1]["t"] == 1


@linux
@pytest.mark.parametrize(
    "method, name",
    [("fork", "SIGKILL"), ("spawn", "SIGKILL"), ("fork", "SIGTERM"), ("fork", "SIGHUP")],
)
def test_workers_do_not_outlive_a_killed_run(method, name, tmp_path):
    """Nor one that is terminated, or whose terminal is closed; and it can be resumed."""
    run, flags = tmp_path / "run", arguments(**SIZE | dict(iterations=10**6))
    with run_by(method, *flags, "--out", run, "--workers", "2") as process:
        until(lambda: rows(run) >= 2 and len(children(process.pid)) == 2, process)
        workers = children(process.pid)
        process.send_signal(getattr(signal, name))
        gone = lambda pid: (
            not Path(f"/proc/{pid}").exists()
            or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
        )
        until(lambda: all(map(gone, workers)))
        assert process.wait(timeout=60) == -getattr(signal, name)
        assert process.communicate()[1] == ""
    assert cli.load(run / "checkpoint.npz")[1]["t"] <= rows(run)


# --- The option ---


@pytest.mark.parametrize(
    "value",
    [
        "-1",
        "2.5",
        "two",
        "",
        "nan",
        "tcp://",
        "tcp://host",
        "tcp://:8786",
        "tcp://host:",
        "tcp://host:port",
    ]
    + [
        "udp://host:8786",
        "tcp://host:8786/x",
        "tcp://a b:8786",
        "host:8786",
        "tcp://host:878678",
        "9" * 30,
    ],
)
def test_other_values_are_refused_in_one_line(value, tmp_path, capsys):
    assert cli.main([*arguments(), f"--workers={value}", "--out", str(tmp_path / "run")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and f"--workers {value}".strip() in err and err.count("\n") == 1
    assert (
        "cannot have so many"
        if len(value) == 30
        else "must be a whole number of at least 0, or tcp://"
    ) in err
    assert not (tmp_path / "run").exists()


def test_resume_keeps_refusing_other_options(tmp_path, capsys):
    assert cli.main([*arguments(), "--out", str(tmp_path), "--quiet"]) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for flags, words in (
        (
            ["--tasks", "4", "--workers", "2"],
            "--tasks 4: cannot change in a resumed run; --iterations, --workers",
        ),
        (["--iterations", "4", "--workers", "x"], "--workers x: must be"),
    ):
        assert cli.main(["--resume", str(tmp_path), *flags]) == 2
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_the_setting_does_not_know_of_workers():
    assert "workers" not in {f.name for f in fields(Setting)}


# --- Dask ---


@pytest.mark.skipif(
    bool(importlib.util.find_spec("distributed")), reason="only where Dask is missing"
)
def test_without_dask_one_line_says_what_to_install(tmp_path, capsys):
    flags = [*arguments(), "--workers", "tcp://localhost:8786", "--out", str(tmp_path / "run")]
    assert cli.main(flags) == 2
    err = capsys.readouterr().err
    assert 'pip install "dask[distributed]"' in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes of this machine."""
    distributed = pytest.importorskip("distributed")
    options = dict(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with distributed.LocalCluster(**options, silence_logs=logging.CRITICAL) as cluster:
        yield cluster


@needs_dask
@pytest.mark.parametrize("algo", ALGOS)
def test_a_run_has_the_same_bits_on_dask(algo, cluster, plain, tmp_path, capfd):
    flags = [*arguments(algo=algo, **SIZE), "--out", str(tmp_path), "--quiet"]
    assert cli.main([*flags, "--workers", cluster.scheduler_address]) == 0
    assert numbers(tmp_path) == plain[algo] and capfd.readouterr().err == ""


@needs_dask
def test_each_takes_the_map_of_dask(cluster):
    with cluster.get_client() as client:
        assert states_and_returns(client.get_executor().map) == states_and_returns(map)


@needs_dask
def test_work_goes_to_the_cluster_and_in_order(cluster):
    with workers(cluster.scheduler_address) as each_map:
        assert each_map(add, range(20), range(20)) == list(range(0, 40, 2))
        pids = {pid for pid, *_ in each_map(who, range(20))}
    assert os.getpid() not in pids and len(pids) == 2


@needs_dask
@posix
def test_a_killed_worker_of_dask_changes_nothing(cluster, tmp_path):
    with workers(cluster.scheduler_address) as each_map:
        assert each_map(once, [tmp_path] * 6, range(6), [i == 1 for i in range(6)]) == list(
            range(6)
        )
    assert (tmp_path / "1").read_text() == "xx"


@needs_dask
def test_what_dask_cannot_do_is_given_up_in_one_line(cluster):
    refused = pytest.raises(
        ConnectionError, match=r"--workers tcp://\S+: lost 3 times .*: in chunk 0"
    )
    with workers(cluster.scheduler_address) as each_map, refused:
        each_map(wrong, range(1))


@needs_dask
def test_no_scheduler_there_is_one_line(tmp_path, capfd):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    flags = [*arguments(), "--workers", address, "--quiet"]
    assert cli.main([*flags, "--out", str(tmp_path / "run")]) == 2
    err = capfd.readouterr().err
    assert f"--workers {address}: no Dask scheduler there" in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@needs_dask
@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request, as it is not spoken here", b""])
def test_another_server_there_is_one_line(words, monkeypatch, capfd):
    """One that speaks otherwise, or not at all."""
    monkeypatch.setattr("harness.workers.PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as open_ones:

        def serve():
            for _ in range(2):
                connection = open_ones.enter_context(server.accept()[0])
                connection.sendall(words)

        thread = threading.Thread(target=serve)
        thread.start()
        assert cli.main(["--workers", f"tcp://127.0.0.1:{server.getsockname()[1]}"]) == 2
        thread.join()
    err = capfd.readouterr().err
    assert "no Dask scheduler there" in err and err.count("\n") == 1


@contextlib.contextmanager
def scheduler_and_worker(directory):
    """A scheduler and a worker in processes of their own. Gives the scheduler's and its address."""
    file, name = directory / "scheduler.json", "distributed.cli.dask_"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    flags = ["--no-dashboard", "--scheduler-file", str(file)]
    start = lambda kind, *more: subprocess.Popen(
        [sys.executable, "-m", name + kind, *flags, *more],
        cwd=directory,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    processes = [start("scheduler", "--host", "127.0.0.1", "--port", "0")]
    try:
        until(lambda: file.exists() and file.read_text().endswith("}"))
        processes.append(start("worker", "--nthreads", "1", "--no-nanny"))
        yield processes[0], json.loads(file.read_text())["address"]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@needs_dask
@posix
def test_ctrl_c_and_a_lost_scheduler(tmp_path):
    """Each is one line, with the checkpoint kept; and without Dask the run goes on from there."""
    run, flags = tmp_path / "run", arguments(**SIZE | dict(iterations=10**6))
    with scheduler_and_worker(tmp_path) as (scheduler, address):
        with run_by("fork", *flags, "--out", run, "--workers", address) as process:
            until(lambda: rows(run) >= 2, process)
            process.send_signal(signal.SIGINT)
            err = process.communicate(timeout=60)[1]
            assert process.returncode == 130 and err.count("\n") == 1 and f"--resume {run}" in err
        before = rows(run)
        with run_by("fork", "--resume", run, "--workers", address) as process:
            until(lambda: rows(run) >= before + 2, process)
            scheduler.kill()
            err = process.communicate(timeout=60)[1]
    assert process.returncode == 2 and err.count("\n") == 1 and f"--workers {address}" in err
    t = cli.load(run / "checkpoint.npz")[1]["t"]
    assert t == rows(run) > before
    assert cli.main(["--resume", str(run), "--iterations", str(t + 1), "--quiet"]) == 0
