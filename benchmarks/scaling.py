"""How time and memory of a meta-gradient grow,
and what it costs beside a policy gradient and a rollout.

    python -m benchmarks.scaling [--dtype float64] [--rounds 7]

Four tables. Growth: from T=20 tasks, K=20 episodes, H=100 steps, width 64 and one inner step of
`--algo maml`, one of them is doubled at a time; the settings take turns; memory is the peak of a
process of its own. Cost: on the same episodes, sampled before, the meta-gradient against the two
policy gradients that it is made of (the theory of reverse-mode differentiation promises a small
constant), and against the rollouts. Populations: rollouts of linear policies, here and in JAX, as
benchmarks/populations.py has it. Processes: the meta-gradient by 1, 2, 4, ... processes.

Seconds are medians by the clock; CPU s are medians of processor time in all threads, which a busy
machine hardly changes.
"""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial

import numpy as np

import autodiff as ad
import metarl  # before NumPy: BLAS then takes one thread here, as in workers
from autodiff import Tensor, grad
from benchmarks import populations
from benchmarks.common import parser
from envs import PointMass
from harness.settings import Setting
from harness.workers import cores, workers
from policies import rollout, surrogate

from .peers import measured, peak

BASE = {"tasks": 20, "episodes": 20, "horizon": 100, "width": 64, "inner_steps": 1}
LARGE = {"tasks": 40, "width": 100, "dtype": "float64"}


def setting(horizon=100, width=64, **options):
    env = PointMass(horizon=horizon, radius=0.0)  # no episode ends early
    plain = dict(estimator="log-prob", standardise=False)
    return Setting(env=env, hidden=(width, width), **plain, **options)


def meta_gradient(c, map):
    """A function of no arguments: one meta-gradient for c.tasks tasks."""
    theta = metarl.initial_state(c)["theta"]
    tasks = metarl.sample_tasks(c, c.tasks, metarl.noise_at(0))
    return lambda: metarl.in_chunks(metarl.meta_gradient, c, theta, tasks, (0,), map=map)


def take_turns(functions, rounds):
    """The medians (n, 2) of the seconds and of the processor time of n functions,
    which take turns.
    """
    for f in functions:
        f()
    return np.median([[measured(f) for f in functions] for _ in range(rounds)], 0)


def peak_memory(options):
    """MB; of the process that calls it."""
    with workers(0) as map:
        f = meta_gradient(setting(**options), map)
        for _ in range(3):
            f()
        return peak()


def in_a_process(f, *arguments):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(f, *arguments).result()


def growth(dtype, rounds, map):
    changes = [{}, *({name: 2 * value} for name, value in BASE.items())]
    options = [{**BASE, **change, "dtype": dtype} for change in changes]
    times = take_turns([meta_gradient(setting(**o), map) for o in options], rounds)
    title = f"meta-gradient, {dtype}"
    head = f"{title:28}{'seconds':>10}{'growth':>8}"
    print(f"\n{head}{'CPU s':>10}{'growth':>8}{'MB':>7}")
    for change, o, row in zip(changes, options, times, strict=True):
        name = ", ".join(f"{k} {v}" for k, v in change.items()) or "base"
        wall, cpu = row
        wall_growth, cpu_growth = row / times[0]
        memory = in_a_process(peak_memory, o) or float("nan")
        line = f"{name:28}{wall:10.4f}{wall_growth:8.2f}"
        line += f"{cpu:10.4f}{cpu_growth:8.2f}{memory:7.0f}"
        print(line)
    (T, T_cpu), (K, K_cpu) = times[1:3] / times[0]
    print(
        f"twice the tasks {T:.2f} ({T_cpu:.2f} of CPU), "
        f"twice the episodes {K:.2f} ({K_cpu:.2f}): must 2.1, aim 2"
    )
    memory = in_a_process(peak_memory, LARGE) or float("nan")
    size = "T=40, K=20, H=100, 2-100-100-2, float64"
    print(f"peak memory at {size}: {memory:.0f} MB (must 400, aim 200)")


def cost(dtype, rounds):
    """Of one chunk of tasks, in this process."""
    c = setting(dtype=dtype)
    tasks = metarl.sample_tasks(c, metarl.CHUNK, metarl.noise_at(0))
    x = Tensor(np.tile(metarl.initial_state(c)["theta"], (len(tasks), 1)))
    (_, theta_prime), [D] = metarl.adapt(c, x, metarl.sampler(c, tasks, (0,)))
    leaf = Tensor(theta_prime.data)

    def episodes(theta, address):
        noise = metarl.noise_at(address)
        return rollout(c.family, c.pi, theta.data, tasks, c.episodes, noise)

    D_prime = episodes(leaf, 1)

    def policy_gradient(theta, D):
        return grad(ad.sum(surrogate(c, theta, D)), theta)

    def of_both():
        loss, _ = metarl.meta_loss(c, x, lambda k, theta: (D, D_prime)[k])
        return grad(ad.sum(loss), x)

    parts = {
        "rollout before": partial(episodes, x, 0),
        "rollout after": partial(episodes, leaf, 1),
        "inner policy gradient": partial(policy_gradient, x, D),
        "outer policy gradient": partial(policy_gradient, leaf, D_prime),
        "meta-gradient, sampled": of_both,
    }
    times = dict(zip(parts, take_turns(parts.values(), 2 * rounds)[:, 1], strict=True))
    title = f"of {len(tasks)} tasks, {dtype}"
    print(f"\n{title:28}{'CPU s':>10}")
    for name, value in times.items():
        print(f"{name:28}{value:10.4f}")
    before, after, inner, outer, full = times.values()
    ratio = full / (inner + outer)
    print(
        "meta-gradient / (inner + outer policy gradient), sampling apart: "
        f"{ratio:.2f} (must 2.5, aim 2)"
    )
    print(f"meta-gradient with its rollouts / rollouts: {1 + full / (before + after):.2f}")


def processes(dtype, rounds):
    n = cores()
    counts = sorted({1, n} | {2**i for i in range(1, n.bit_length())})
    with ExitStack() as stack:
        maps = [map, *(stack.enter_context(workers(count)) for count in counts)]
        times = take_turns([meta_gradient(setting(dtype=dtype), m) for m in maps], rounds)
    print(f"\n{'processes, ' + dtype:28}{'seconds':>10}{'speed-up':>10}{'CPU s':>10}")
    for name, (wall, cpu) in zip(["none but this one", *counts], times, strict=True):
        print(f"{name!s:28}{wall:10.4f}{times[0, 0] / wall:10.2f}{cpu:10.4f}")


def main():
    p = parser(__doc__)
    p.add_argument("--dtype", choices=["float32", "float64"], default="float64")
    p.add_argument("--rounds", type=int, default=7)
    a = p.parse_args()
    start = time.perf_counter()
    with workers(0) as map:
        growth(a.dtype, a.rounds, map)
        cost(a.dtype, a.rounds)
        populations.table(a.rounds, map, cores())
    processes(a.dtype, a.rounds)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
