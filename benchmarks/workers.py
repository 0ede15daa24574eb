"""What are workers worth?

Speed-up of a default iteration of MAML, and what sending a chunk away costs.

    python -m benchmarks.workers [--algo maml] [--env pointmass] [--rounds 5]

Opens pools of 1, 2, 4, ... processes up to the number of cores, which is the default, as many
threads and, where it is installed, a Dask cluster of two processes on this machine; then lets them
take turns, a few iterations each, so that whatever else the machine does slows all alike. Prints
iterations per second (from the median time), speed-up over this process alone, efficiency (speed-up
per worker), and the time that a chunk takes beyond its work: that of an empty one with the same
arguments.
"""

import argparse
import importlib.util
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from statistics import median

import metarl  # before NumPy: BLAS then takes one thread here, as in workers
from harness.settings import Setting
from harness.workers import workers

TURN = 5  # iterations


def empty(c, theta, tasks, address):
    return (tasks,)


def seconds(f, *arguments):
    """Of one call, over TURN in a row."""
    start = time.perf_counter()
    for _ in range(TURN):
        f(*arguments)
    return (time.perf_counter() - start) / TURN


def cluster(stack):
    """The address of a Dask scheduler with two worker processes, which end with the stack."""
    from distributed import LocalCluster

    options = dict(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    return stack.enter_context(
        LocalCluster(**options, silence_logs=logging.CRITICAL)
    ).scheduler_address


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--algo", default="maml")
    p.add_argument("--env", default="pointmass")
    p.add_argument("--rounds", type=int, default=5)
    a = p.parse_args()
    c, cores = Setting(algo=a.algo, env=a.env), os.cpu_count() or 1
    state = metarl.initial_state(c)
    tasks = metarl.sample_tasks(c, c.tasks, metarl.noise_at(0))
    counts = sorted({1, 2, cores} | {2**i for i in range(1, cores.bit_length())})
    with ExitStack() as stack:
        places = {f"{n} processes": (n, n) for n in counts}
        if importlib.util.find_spec("distributed"):
            places["Dask, 2 processes"] = (2, cluster(stack))
        each = {
            k: partial(metarl.in_chunks, map=stack.enter_context(workers(v)))
            for k, (_, v) in places.items()
        }
        places[threads := f"{cores} threads"] = cores, None
        each[threads] = partial(
            metarl.in_chunks, map=stack.enter_context(ThreadPoolExecutor(cores)).map
        )
        each = {"this process": metarl.in_chunks} | each
        iteration = lambda in_chunks: next(metarl.train(c, state, in_chunks))
        nothing = lambda in_chunks: in_chunks(empty, c, state["theta"], tasks, ())
        for warm_up in list(each.values()) * 2:
            iteration(warm_up)
        times = {name: [] for name in each}
        for _ in range(a.rounds):
            for name, one in each.items():
                times[name].append((seconds(iteration, one), seconds(nothing, one)))
    chunks = len(range(0, c.tasks, metarl.CHUNK))
    print(
        f"{a.algo}, {a.env}: {c.tasks} tasks in {chunks} chunks, {cores} cores; {a.rounds} times {TURN} iterations"
    )
    print(
        f"{'workers':20}{'iterations/s':>14}{'speed-up':>10}{'efficiency':>12}{'ms per empty chunk':>20}"
    )
    medians = {
        name: [median(column) for column in zip(*pairs, strict=True)]
        for name, pairs in times.items()
    }
    for name, (work, overhead) in medians.items():
        gain, n = medians["this process"][0] / work, places.get(name, (1,))[0]
        print(
            f"{name:20}{1 / work:14.2f}{gain:10.2f}{gain / n:12.0%}{1000 * overhead / chunks:20.2f}"
        )


if __name__ == "__main__":
    main()
