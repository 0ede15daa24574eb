"""What are workers worth? MAML and evolution strategies, by processes and on Dask.

    python -m benchmarks.workers [--env pointmass] [--rounds 5]

Speed-ups of default iterations of MAML, of ES-MAML, of ES-MAML with MAML's network and of NES;
messages and predictions for these and for ES-MAML with a million members.

Speed-up. These take turns, a few iterations each, so that whatever else the machine does slows all
alike: this process alone; pools of 1, of 2 and of as many processes as there are cores; as many
threads; and, where it is installed, a Dask cluster of two processes on this machine. Iterations per
second are those of the median time.

Messages. The bytes that are sent for a chunk, and for each of the rows of theta that it works on:
one for each task, of black boxes one for each member on each task. "if rows": the bytes of the row
itself, which would be sent were it not made by the worker (ES-MAML) or shared by tasks (NES, MAML).
Milliseconds of a chunk's work, and those of an empty chunk, which are the price of its message.

Prediction. Nobody here has a thousand machines: for W workers an iteration is predicted to take

    rest + (chunks / W, rounded up) * seconds of a chunk + chunks * seconds of a message,

where the rest is what this process does alone, as it draws tasks and moves theta. Chunks and the
rest are measured in this process, undisturbed; messages with two workers on this machine, passing
one after the other. Of a real network, of slow workers and of large results it knows nothing.
"""

import importlib.util
import logging
import math
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median

import metarl  # before NumPy: BLAS then takes one thread here, as in workers
from benchmarks.common import in_columns, parser
from harness.settings import Setting
from harness.workers import cores, workers

TURN = 3  # iterations
WORKERS = (1, 2, 4, 8, 16, 32, 64, 100, 1000)
CLUSTER = 1_000_000  # members


def settings(env):
    """{name: setting}."""
    return {
        "maml": Setting(algo="maml", env=env),
        "es-maml": Setting(algo="es-maml", env=env),
        "es-maml, network": Setting(algo="es-maml", env=env, policy="mlp"),
        "nes": Setting(algo="nes", env=env),
    }


# --- Where the chunks go ---
def cluster(stack):
    """The address of a Dask scheduler with two worker processes, which end with the stack."""
    from distributed import LocalCluster

    options = dict(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    dask = LocalCluster(**options, silence_logs=logging.CRITICAL)
    return stack.enter_context(dask).scheduler_address


def places(stack, n_cores):
    """{name: (workers, map)}; all that is opened ends with the stack."""
    found = {"this process": (1, map)}
    for n in sorted({1, 2, n_cores}):
        found[f"{n} process" + "es" * (n > 1)] = n, stack.enter_context(workers(n))
    if importlib.util.find_spec("distributed"):
        found["Dask, 2 processes"] = 2, stack.enter_context(workers(cluster(stack)))
    threads = stack.enter_context(ThreadPoolExecutor(n_cores))
    found[f"{n_cores} threads"] = n_cores, threads.map
    return found


# --- What they take ---
def seconds(f, turn=1):
    """Of one call, over `turn` in a row."""
    start = time.perf_counter()
    for _ in range(turn):
        f()
    return (time.perf_counter() - start) / turn


def iteration(c, state, map):
    """The state after one iteration from `state`."""
    return next(metarl.train(c, state, partial(metarl.in_chunks, map=map)))


def times_by_place(c, state, found, rounds):
    """{name: seconds of an iteration, the median}."""
    jobs = {name: partial(iteration, c, state, map) for name, (_, map) in found.items()}
    for job in jobs.values():
        job()  # to warm up
    times = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            times[name].append(seconds(job, TURN))
    return {name: median(column) for name, column in times.items()}


def chunks_of(c, state):
    """The chunks [(f, *arguments)] that an iteration hands to its map, and their results."""
    chunks = []
    results = []

    def noting(f, *columns):
        chunks.extend((f, *arguments) for arguments in zip(*columns, strict=True))
        new = list(map(f, *columns))
        results.extend(new)
        return new

    iteration(c, state, noting)
    return chunks, results


def nothing(*arguments):
    """In place of the work of a chunk."""


@dataclass
class Costs:
    """What the chunks of an iteration cost: seconds and bytes."""

    chunks: int
    rows: int  # of theta that a chunk works on
    chunk: float  # seconds of its work
    rest: float  # seconds of what is done here alone
    sent: int  # bytes of its message
    theta: int  # bytes of these rows


def costs(c, chunks, results, rounds):
    """Measured in this process, as the best of some: one that nothing disturbs."""
    f, *arguments = chunks[0]
    state = metarl.initial_state(c)

    def finished(f, *columns):  # a map that takes no time
        return results

    chunk = min(seconds(partial(f, *arguments)) for _ in range(rounds))
    rest = min(seconds(partial(iteration, c, state, finished)) for _ in range(rounds))
    tasks = arguments[2]
    judged = {"es-maml": 2, "nes": c.population}  # members on each task
    rows = judged.get(c.algo, 1) * len(tasks)
    sent = len(pickle.dumps(chunks[0]))
    return Costs(len(chunks), rows, chunk, rest, sent, rows * state["theta"].nbytes)


def message(map, chunks, rounds):
    """Seconds for each of the chunks by a map, without their work."""
    columns = list(zip(*(arguments for _, *arguments in chunks), strict=True))

    def send():
        list(map(nothing, *columns))

    send()
    return median(seconds(send) for _ in range(rounds)) / len(chunks)


def predicted(cost, message, n):
    """The speed-up by n workers over one process without messages."""
    alone = cost.rest + cost.chunks * cost.chunk
    together = cost.rest + math.ceil(cost.chunks / n) * cost.chunk + cost.chunks * message
    return alone / together


# --- The tables ---
def print_speed_ups(name, times, found):
    print(f"\n{name:22}{'iterations/s':>14}{'speed-up':>10}{'efficiency':>12}")
    alone = times["this process"]
    for place, value in times.items():
        gain = alone / value
        efficiency = gain / found[place][0]
        print(f"  {place:20}{1 / value:14.2f}{gain:10.2f}{efficiency:12.0%}")


def print_messages(all_costs, messages):
    heads = ["chunks", "rows", "bytes", "a row", "if rows", "ms a chunk", "message"]
    print(f"\n{'':18}{in_columns(heads, 11)}")
    for name, cost in all_costs.items():
        sent = f"{cost.sent / cost.rows:,.1f}"
        theta = f"{cost.theta / cost.rows:,.0f}"
        columns = [cost.chunks, cost.rows, f"{cost.sent:,}", sent, theta]
        columns += [f"{1000 * cost.chunk:.1f}", f"{1000 * messages[name]['processes']:.2f}"]
        print(f"{name:18}{in_columns(columns, 11)}")


def print_predictions(all_costs, messages):
    print(f"\n{'predicted speed-up by':30}{in_columns([f'{n:,}' for n in WORKERS], 7)}  workers")
    for name, cost in all_costs.items():
        for place, value in messages[name].items():
            gains = [f"{predicted(cost, value, n):.1f}" for n in WORKERS]
            print(f"{f'{name}, {place}':30}{in_columns(gains, 7)}")


def main():
    p = parser(__doc__)
    p.add_argument("--env", default="pointmass")
    p.add_argument("--rounds", type=int, default=5)
    a = p.parse_args()
    chosen = settings(a.env)
    all_costs = {}
    messages = {}
    with ExitStack() as stack:
        found = places(stack, cores())
        print(f"{a.env}, {cores()} cores; {a.rounds} times {TURN} iterations")
        for name, c in chosen.items():
            times = times_by_place(c, metarl.initial_state(c), found, a.rounds)
            print_speed_ups(name, times, found)
        maps = {"processes": found["2 processes"][1]}
        if "Dask, 2 processes" in found:
            maps["Dask"] = found["Dask, 2 processes"][1]
        chosen[f"es-maml, {CLUSTER:,}"] = chosen["es-maml"].changed(population=CLUSTER)
        for name, c in chosen.items():
            chunks, results = chunks_of(c, metarl.initial_state(c))
            all_costs[name] = costs(c, chunks, results, a.rounds)
            messages[name] = {place: message(m, chunks, a.rounds) for place, m in maps.items()}
    print_messages(all_costs, messages)
    print_predictions(all_costs, messages)


if __name__ == "__main__":
    main()
