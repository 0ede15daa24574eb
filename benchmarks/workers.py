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

import importlib.util
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from statistics import median

import metarl  # before NumPy: BLAS then takes one thread here, as in workers
from benchmarks.common import parser
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
    dask = LocalCluster(**options, silence_logs=logging.CRITICAL)
    return stack.enter_context(dask).scheduler_address


def places(stack, cores):
    """{name: (workers, in_chunks by them)}; all that is opened ends with the stack."""
    maps = {}
    for n in sorted({1, 2, cores} | {2**i for i in range(1, cores.bit_length())}):
        maps[f"{n} processes"] = n, stack.enter_context(workers(n))
    if importlib.util.find_spec("distributed"):
        dask = workers(cluster(stack))
        maps["Dask, 2 processes"] = 2, stack.enter_context(dask)
    threads = stack.enter_context(ThreadPoolExecutor(cores))
    maps[f"{cores} threads"] = cores, threads.map
    found = {"this process": (1, metarl.in_chunks)}
    for name, (n, map) in maps.items():
        found[name] = n, partial(metarl.in_chunks, map=map)
    return found


def measure(c, found, rounds):
    """{name: (seconds of an iteration, seconds of its chunks when they are empty)}, medians."""
    state = metarl.initial_state(c)
    tasks = metarl.sample_tasks(c, c.tasks, metarl.noise_at(0))

    def iteration(in_chunks):
        next(metarl.train(c, state, in_chunks))

    def nothing(in_chunks):
        in_chunks(empty, c, state["theta"], tasks, ())

    for _, in_chunks in list(found.values()) * 2:
        iteration(in_chunks)  # to warm up
    times = {name: [] for name in found}
    for _ in range(rounds):
        for name, (_, in_chunks) in found.items():
            times[name].append((seconds(iteration, in_chunks), seconds(nothing, in_chunks)))
    return {name: tuple(map(median, zip(*pairs, strict=True))) for name, pairs in times.items()}


def main():
    p = parser(__doc__)
    p.add_argument("--algo", default="maml")
    p.add_argument("--env", default="pointmass")
    p.add_argument("--rounds", type=int, default=5)
    a = p.parse_args()
    c = Setting(algo=a.algo, env=a.env)
    cores = os.cpu_count() or 1
    with ExitStack() as stack:
        found = places(stack, cores)
        medians = measure(c, found, a.rounds)
    chunks = len(range(0, c.tasks, metarl.CHUNK))
    print(
        f"{a.algo}, {a.env}: {c.tasks} tasks in {chunks} chunks, {cores} cores; "
        f"{a.rounds} times {TURN} iterations"
    )
    head = f"{'workers':20}{'iterations/s':>14}{'speed-up':>10}{'efficiency':>12}"
    print(f"{head}{'ms per empty chunk':>20}")
    alone, _ = medians["this process"]
    for name, (work, overhead) in medians.items():
        gain = alone / work
        efficiency = gain / found[name][0]
        line = f"{name:20}{1 / work:14.2f}{gain:10.2f}{efficiency:12.0%}"
        print(f"{line}{1000 * overhead / chunks:20.2f}")


if __name__ == "__main__":
    main()
