"""Where chunks of work are done: in processes of this machine, or by the workers of a Dask scheduler.

`workers` yields a `map` for metarl.in_chunks. It gives what the builtin gives, to the last bit, whoever does the work and
whatever happens to them: a chunk is a pure function of its arguments, so one that is lost is simply done again.
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
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, wait
from functools import partial

import numpy as np

ATTEMPTS = 3  # in a row without a chunk done, before `workers` gives up
PATIENCE = 10  # seconds for a Dask scheduler to answer


@contextlib.contextmanager
def workers(spec):
    """A `map`: over N processes for N, as many as there are cores for 0, over a Dask cluster for tcp://HOST:PORT.

    Not over threads: the small steps of a rollout hold Python's lock. Where the system has no processes to give, 0 means
    this one. Workers that are lost are started or connected anew, and do only the chunks that were not done.
    Raises ConnectionError, in words for the user, where that is in vain, or impossible to begin with.
    """
    start, default = (processes if isinstance(spec, int) else dask), spec == 0
    spec = spec or cores()
    try:
        pool, stop, lost = start(spec)
    except ConnectionError:
        if not default:
            raise
        yield lambda f, *columns: map(partial(quietly, f), *columns)
        return

    def persistent(f, *columns):
        nonlocal pool, stop
        chunks, results, failures = dict(enumerate(zip(*columns, strict=True))), {}, 0
        while True:
            done, problem = attempt(
                pool, lost, f, {i: chunks[i] for i in chunks if i not in results}
            )
            results |= done
            if len(results) == len(chunks):
                return [results[i] for i in chunks]
            failures = 0 if done else failures + 1
            if failures == ATTEMPTS:
                raise ConnectionError(
                    f"--workers {spec}: lost {failures} times before any work was done: {problem}"
                )
            stop()
            pool, stop, _ = start(spec)

    try:
        yield persistent
    finally:
        stop()


def attempt(pool, lost, f, chunks):
    """Results by index of those chunks that are not lost, and the problem, if any."""
    futures, results, problem = {}, {}, None
    try:
        with without_sigint():
            for i, chunk in chunks.items():
                futures[i] = pool.submit(quietly, f, *chunk)
    except lost as error:
        problem = error
    wait(futures.values())
    for i, future in futures.items():
        try:
            results[i] = future.result()
        except lost as error:
            problem = error
    return results, problem


def quietly(f, *chunk):
    with np.errstate(all="ignore"):  # which the main program sets for one thread of one process
        return f(*chunk)


# --- Processes ---


def cores():
    """The number of cores that this process may use, at most 61: Windows takes no more processes."""
    return min(
        61,
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    )


def processes(n):
    """An executor, a function that ends it at once, and the error that says that a worker was lost.

    On Linux the processes are copies of this one (fork), there in milliseconds; elsewhere they start from nothing (spawn).
    """
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    end, lifeline = context.Pipe(duplex=False)
    try:
        pool = ProcessPoolExecutor(n, context, begin, (end, lifeline))
    except (
        OSError,
        OverflowError,
        ValueError,
    ) as error:  # Windows takes 61, others what they can count
        raise ConnectionError(f"--workers {n}: cannot have so many: {error}") from None
    return pool, lambda: (lifeline.close(), pool.shutdown()), BrokenExecutor


def begin(end, lifeline):
    """A process leaves Ctrl-C to the main one, and ends when that closes its end of the line, or is killed."""
    lifeline.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=lambda: (end.poll(None), os._exit(1)), daemon=True).start()


@contextlib.contextmanager
def without_sigint():
    """Processes that are started within inherit that SIGINT is blocked: even before `begin` they leave it alone."""
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
    """As `processes`, for the cluster whose scheduler is at tcp://HOST:PORT. Whatever it raises, the chunk is lost."""
    try:
        from distributed import Client
        from distributed.comm import connect
    except ImportError:
        raise ConnectionError(
            f'--workers {address}: needs Dask: pip install "dask[distributed]"'
        ) from None
    logging.disable()  # of what goes wrong Dask logs pages

    async def greet():
        (await asyncio.wait_for(connect(address), PATIENCE)).abort()

    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    try:
        socket.create_connection((host.strip("[]"), port), timeout=PATIENCE).close()
        asyncio.run(greet())  # a Client itself would wait for ever if nobody answered
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except Exception as error:  # noqa: BLE001 - who listens there may answer anything
        logging.disable(logging.NOTSET)
        why = str(error) or "no answer"
        raise ConnectionError(f"--workers {address}: no Dask scheduler there: {why}") from None

    def stop():
        client.close()
        logging.disable(logging.NOTSET)

    return client.get_executor(pure=False), stop, Exception
