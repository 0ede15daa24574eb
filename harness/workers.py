"""Where chunks of work are done: in processes of this machine, or by the workers of a Dask cluster.

`workers` yields a `map` for metarl.in_chunks. It gives what the builtin gives, to the last bit,
whoever does the work and whatever happens to the workers: a chunk is a pure function of its
arguments, the address of its noise among them, so one that is lost is simply done again.

Read `workers`, then `PersistentMap`. Below them are workers of each kind, `Processes` and `Dask`.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import traceback
from collections import deque
from concurrent.futures import wait
from functools import partial
from multiprocessing import connection, resource_tracker

import numpy as np

ATTEMPTS = 3  # in a row that finish no chunk, after which `workers` gives up
PATIENCE = 10  # seconds for a Dask scheduler to answer
MOST_PROCESSES = 61 if sys.platform == "win32" else 1000  # Windows waits for no more at once


@contextlib.contextmanager
def workers(spec):
    """A `map` over N processes for N, over as many as there are cores for 0, over a Dask cluster
    for tcp://HOST:PORT.

    Not over threads: the small steps of a rollout hold Python's lock. Where the system has no
    processes to give, 0 means this one. Raises ConnectionError, in words for the user, where there
    are no such workers, or where they are lost again and again.
    """
    start = Dask if isinstance(spec, str) else Processes
    try:
        persistent = PersistentMap(start, spec or cores())
    except ConnectionError:
        if spec != 0:
            raise
        yield lambda f, *columns: map(partial(quietly, f), *columns)
        return
    try:
        yield persistent
    finally:
        persistent.pool.stop()


class PersistentMap:
    """A `map` that survives its workers.

    Where one is lost, all are started or connected anew, and do only the chunks that were not done.
    """

    def __init__(self, start, spec):
        """start: Processes or Dask. spec: a number of processes or the address of a cluster."""
        self.start = start
        self.spec = spec
        self.pool = start(spec)

    def __call__(self, f, *columns):
        """[f(*chunk) for each chunk], where a chunk is an entry of each of the columns.

        An error of f is raised: that of the first chunk that has one.
        """
        chunks = dict(enumerate(zip(*columns, strict=True)))
        results = {}
        failures = 0  # in a row
        while True:
            missing = {i: chunk for i, chunk in chunks.items() if i not in results}
            done, problem = self.pool.attempt(f, missing)
            results.update(done)
            if len(results) == len(chunks):
                return [results[i] for i in chunks]
            failures += 1
            if done:
                failures = 0
            if failures == ATTEMPTS:
                why = f"lost {failures} times in a row, with no chunk done: {problem}"
                raise ConnectionError(f"--workers {self.spec}: {why}")
            self.pool.stop()
            self.pool = self.start(self.spec)


def quietly(f, *chunk):
    """f(*chunk) without NumPy's warnings: main switches them off in its own thread alone, not in
    those of Dask's workers or in processes that start from nothing.
    """
    with np.errstate(all="ignore"):
        return f(*chunk)


# --- Processes ---


def cores():
    """The number of cores that this process may use, at most MOST_PROCESSES."""
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    return min(available, MOST_PROCESSES)


class Processes:
    """n processes, and to each a pipe of its own.

    The pools of Python's library have one pipe for all results, and locks on it. A worker that dies
    with half of a result in the pipe, or with a lock, leaves the others and this process waiting
    for ever. Here nothing is shared, so that nothing can be left behind. The far end of a pipe is
    open in its worker alone: when that dies, however it dies, the system closes the end and tells
    this process. And here nobody waits but the caller of `attempt`, whom Ctrl-C reaches.
    """

    def __init__(self, n):
        """Start them. Raises ConnectionError where there cannot be so many.

        On Linux they are copies of this one (fork), there in milliseconds; elsewhere they start
        from nothing (spawn).
        """
        method = "fork" if sys.platform == "linux" else "spawn"
        context = multiprocessing.get_context(method)
        self.crew = {}  # our end of a pipe: the process at the other
        try:
            if n > MOST_PROCESSES:
                raise ValueError(f"at most {MOST_PROCESSES}")
            if context.get_start_method() == "spawn" and sys.platform != "win32":
                # It comes with the first process, and to start it Python unblocks SIGINT: before
                # SIGINT is blocked, then.
                resource_tracker.ensure_running()
            with without_sigint():
                for _ in range(n):
                    self.add_one(context)
        except Exception as error:  # noqa: BLE001 - each system has its own limit and error
            self.stop()
            why = f"cannot have so many: {error}"
            raise ConnectionError(f"--workers {n}: {why}") from None
        except KeyboardInterrupt:
            self.stop()
            raise

    def add_one(self, context):
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs,), daemon=True)
        process.start()
        self.crew[ours] = process
        theirs.close()  # the worker has it; open here, the next one would get a copy too

    def attempt(self, f, chunks):
        """Do the chunks, {index: arguments of f}, until all are done or a worker is lost.

        Returns {index: result}, and what was wrong, or None. An error of f is raised.
        """
        waiting = deque(chunks.items())
        idle = list(self.crew)
        busy = {}  # {pipe: index of the chunk whose result comes through it}
        results = {}
        errors = {}
        try:
            while waiting or busy:
                while waiting and idle:
                    i, chunk = waiting.popleft()
                    pipe = idle.pop()
                    busy[pipe] = i
                    pipe.send((f, chunk))
                for pipe in connection.wait(busy):
                    result, error, trace = pipe.recv()
                    i = busy.pop(pipe)
                    idle.append(pipe)
                    if error is None:
                        results[i] = result
                    else:
                        error.__cause__ = InWorker(trace)
                        errors[i] = error
                        waiting.clear()  # the chunks before i are done or busy
        except (EOFError, OSError):
            return results, "a process ended in the middle of its work"
        except BaseException:
            self.stop()  # or late results would be taken for those of other chunks
            raise
        if errors:
            raise errors[min(errors)]
        return results, None

    def stop(self):
        """End them at once, whatever they do. May be called again."""
        with without_sigint():
            for process in self.crew.values():
                process.kill()
            for pipe, process in self.crew.items():
                process.join()
                pipe.close()


def work(pipe):
    """The life of a worker: a chunk comes through the pipe, its result goes back."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is left to the main process
    threading.Thread(target=end_with_the_main_process, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):  # the main process has ended
        while True:
            message = pipe.recv_bytes()
            pipe.send_bytes(answer(message))


def end_with_the_main_process():
    """What ends a worker: its pipe does not, of whose ends in this process a fork has copies."""
    multiprocessing.parent_process().join()  # until it ends, however: by a signal, too
    os._exit(1)


def answer(message):
    """From (f, chunk) to (result, None, ""), or (None, error, its traceback); all pickled."""
    try:
        f, chunk = pickle.loads(message)
        return pickle.dumps((quietly(f, *chunk), None, ""))
    except Exception as error:  # noqa: BLE001 - it is raised again, in the main process
        return pickle.dumps((None, sendable(error), traceback.format_exc()))


def sendable(error):
    """The error, or if it does not survive pickle, another that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:  # noqa: BLE001 - pickle calls code of the error, which may raise anything
        return RuntimeError(f"{type(error).__name__}: {error}")


class InWorker(Exception):
    """Where in a worker an error arose, as text: the cause of that error here."""


@contextlib.contextmanager
def without_sigint():
    """Block SIGINT. Processes that are started within inherit that: even before they come to
    `work`, Ctrl-C does not end them."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- Dask ---


class Dask:
    """The cluster whose scheduler is at tcp://HOST:PORT."""

    def __init__(self, address):
        """Connect to it. Raises ConnectionError if none is there."""
        try:
            from distributed import Client
        except ImportError:
            needed = 'needs Dask: pip install "dask[distributed]"'
            raise ConnectionError(f"--workers {address}: {needed}") from None
        logging.disable()  # of what goes wrong Dask logs pages
        try:
            greet(address)  # a Client itself would wait for ever if nobody answered
            self.client = Client(address, timeout=PATIENCE, set_as_default=False)
        except Exception as error:  # noqa: BLE001 - who listens there may answer anything
            logging.disable(logging.NOTSET)
            why = str(error) or "no answer"
            raise ConnectionError(f"--workers {address}: no Dask scheduler there: {why}") from None

    def attempt(self, f, chunks):
        """As that of Processes, but an error of f counts as a worker that was lost: Dask's own
        errors are of many classes. It comes back in each attempt, and is reported in the end.
        """
        executor = self.client.get_executor(pure=False)
        return attempt(executor, f, chunks)

    def stop(self):
        """Leave it."""
        self.client.close()
        logging.disable(logging.NOTSET)


def attempt(executor, f, chunks):
    """Do the chunks by an executor.

    Returns {index: result} of those that were not lost, and the last error, or None.
    """
    futures = {}
    problem = None
    try:
        for i, chunk in chunks.items():
            futures[i] = executor.submit(quietly, f, *chunk)
    except Exception as error:  # noqa: BLE001 - the executor broke before it had all chunks
        problem = error
    wait(futures.values())
    results = {}
    for i, future in futures.items():
        try:
            results[i] = future.result()
        except Exception as error:  # noqa: BLE001
            problem = error
    return results, problem


def greet(address):
    """Raise an error unless whoever is at tcp://HOST:PORT answers in time, and as Dask does."""
    from distributed.comm import connect

    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    socket.create_connection((host.strip("[]"), port), timeout=PATIENCE).close()

    async def shake_hands():
        connection = await asyncio.wait_for(connect(address), PATIENCE)
        connection.abort()

    asyncio.run(shake_hands())
