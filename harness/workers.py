"""Where chunks of work are done: in processes of this machine, or by the workers of a Dask cluster.

`workers` yields a `map` for metarl.in_chunks. It gives what the builtin gives, to the last bit,
whoever does the work and whatever happens to the workers: a chunk is a pure function of its
arguments, the address of its noise among them, so one that is lost is simply done again.

Read `workers`, then `PersistentMap`. Below them `processes` and `dask` start workers of each kind.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, wait
from functools import partial
from typing import NamedTuple

import numpy as np

ATTEMPTS = 3  # in a row that finish no chunk, after which `workers` gives up
PATIENCE = 10  # seconds for a Dask scheduler to answer
MOST_PROCESSES = 61  # that Windows takes


@contextlib.contextmanager
def workers(spec):
    """A `map` over N processes for N, over as many as there are cores for 0, over a Dask cluster
    for tcp://HOST:PORT.

    Not over threads: the small steps of a rollout hold Python's lock. Where the system has no
    processes to give, 0 means this one. Raises ConnectionError, in words for the user, where there
    are no such workers, or where they are lost again and again.
    """
    start = processes if isinstance(spec, int) else dask
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


class Pool(NamedTuple):
    """Workers that were started."""

    executor: Executor
    stop: Callable  # ends them at once; may be called again
    lost: type  # the error of a chunk whose worker was lost


class PersistentMap:
    """A `map` that survives its workers.

    Where one is lost, all are started or connected anew, and do only the chunks that were not done.
    """

    def __init__(self, start, spec):
        """start: from spec to a Pool. spec: a number of processes or the address of a cluster."""
        self.start = start
        self.spec = spec
        self.pool = start(spec)

    def __call__(self, f, *columns):
        """[f(*chunk) for each chunk], where a chunk is an entry of each of the columns."""
        chunks = dict(enumerate(zip(*columns, strict=True)))
        results = {}
        failures = 0  # in a row
        while True:
            missing = {i: chunk for i, chunk in chunks.items() if i not in results}
            done, problem = attempt(self.pool.executor, self.pool.lost, f, missing)
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


def attempt(executor, lost, f, chunks):
    """Do the chunks, {index: arguments of f}. Returns {index: result} of those that were not lost,
    and the last error of class `lost`, or None.

    Any other error of a chunk is raised. (With Dask every error counts as a worker that was lost;
    one of the chunk itself comes back in each attempt, and is reported in the end.)
    """
    futures = {}
    problem = None
    try:
        with without_sigint():  # an executor starts processes when it is given work
            for i, chunk in chunks.items():
                futures[i] = executor.submit(quietly, f, *chunk)
    except lost as error:  # the executor broke before it had all chunks
        problem = error
    wait(futures.values())
    results = {}
    for i, future in futures.items():
        try:
            results[i] = future.result()
        except lost as error:
            problem = error
    return results, problem


def quietly(f, *chunk):
    """f(*chunk) without NumPy's warnings, which main switches off for its own thread alone."""
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


def processes(n):
    """A Pool of n processes. Raises ConnectionError where there cannot be so many.

    On Linux they are copies of this one (fork), there in milliseconds; elsewhere they start from
    nothing (spawn).
    """
    method = "fork" if sys.platform == "linux" else "spawn"
    context = multiprocessing.get_context(method)
    # The lifeline is a pipe through which nothing is ever sent. Each worker waits at one end. The
    # other end is open in this process alone: when that closes it, or dies, however it dies, the
    # system tells the workers so, and they end too.
    end, lifeline = context.Pipe(duplex=False)
    try:
        executor = ProcessPoolExecutor(n, context, begin, (end, lifeline))
    except (OSError, OverflowError, ValueError) as error:  # each system has its own limit and error
        raise ConnectionError(f"--workers {n}: cannot have so many: {error}") from None

    def stop():
        lifeline.close()
        executor.shutdown()

    return Pool(executor, stop, BrokenExecutor)


def begin(end, lifeline):
    """What a worker does first: leave Ctrl-C to the main process, and watch the lifeline."""
    lifeline.close()  # its own copy, which would keep the line open
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_the_main_process():
        end.poll(None)  # returns when the line is closed
        os._exit(1)

    threading.Thread(target=end_with_the_main_process, daemon=True).start()


@contextlib.contextmanager
def without_sigint():
    """Block SIGINT. Processes that are started within inherit that: even before they come to
    `begin`, Ctrl-C does not end them."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- Dask ---


def dask(address):
    """A Pool: the cluster whose scheduler is at tcp://HOST:PORT. Raises ConnectionError if none is.

    Any error of a chunk counts as a lost worker, since Dask's own are of many classes.
    """
    try:
        from distributed import Client
    except ImportError:
        needed = 'needs Dask: pip install "dask[distributed]"'
        raise ConnectionError(f"--workers {address}: {needed}") from None
    logging.disable()  # of what goes wrong Dask logs pages
    try:
        greet(address)  # a Client itself would wait for ever if nobody answered
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except Exception as error:  # noqa: BLE001 - who listens there may answer anything
        logging.disable(logging.NOTSET)
        why = str(error) or "no answer"
        raise ConnectionError(f"--workers {address}: no Dask scheduler there: {why}") from None

    def stop():
        client.close()
        logging.disable(logging.NOTSET)

    return Pool(client.get_executor(pure=False), stop, Exception)


def greet(address):
    """Raise an error unless whoever is at tcp://HOST:PORT answers in time, and as Dask does."""
    from distributed.comm import connect

    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    socket.create_connection((host.strip("[]"), port), timeout=PATIENCE).close()

    async def shake_hands():
        connection = await asyncio.wait_for(connect(address), PATIENCE)
        connection.abort()

    asyncio.run(shake_hands())
