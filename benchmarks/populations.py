"""How fast are the episodes of a population, here and in JAX?

    python -m benchmarks.populations [--rounds 15]

Linear policies on the point mass, each with a goal of its own, one episode of 100 steps without
noise, as black boxes judge their members. Printed are million environment steps per second, medians
over turns, of which each is the best of three calls in a row:

    one process     all rows at once in this process: policies.rollout
    all cores       an equal part of the rows in each of as many processes as there are cores
    JAX             jit + vmap + scan, compiled before, in a process of its own with its own threads
                    (left out where JAX is not installed)

Each process has its parameters before the clock starts. Our messages to processes are part of the
time, those to the process of JAX are not. The returns are compared first: the program ends with
status 1 if they differ.
"""

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np

HORIZON = 100
SIZES = (500, 2000, 8000)
PAUSE = 0.05  # seconds before a turn: threads may go on waiting at full speed for a while
IN_A_ROW = 3  # calls in a turn
TOLERANCE = {"float32": 1e-3, "float64": 1e-10}  # of a mean reward


def inputs(dtype, n):
    """Parameters (n, 8), of which the last two, log deviations, do nothing, and goals (n, 2)."""
    rng = np.random.default_rng(0)
    theta = rng.standard_normal((n, 8))
    goals = rng.uniform(-0.5, 0.5, (n, 2))
    return theta.astype(dtype), goals.astype(dtype)


# --- This project ---
@cache
def part_of(dtype, n, part, parts):
    """One of equal parts of the inputs, made once in each process."""
    theta, goals = inputs(dtype, n)
    rows = slice(part * n // parts, (part + 1) * n // parts)
    return theta[rows], goals[rows]


def returns(dtype, n, part=0, parts=1):
    """(n / parts,): the returns of one part of the rows."""
    from envs import PointMass  # here: the process of JAX runs this file without the project
    from policies import Policy, rollout

    theta, goals = part_of(dtype, n, part, parts)
    env = PointMass(HORIZON)
    policy = Policy(2, 2, hidden=(), deterministic=True)
    return rollout(env, policy, theta, goals, 1, None, keep=False).returns


def by_processes(map, processes, dtype, n):
    """(n,): the same, a part of the rows by each of the processes."""
    columns = zip(*((dtype, n, i, processes) for i in range(processes)), strict=True)
    return np.concatenate(list(map(returns, *columns)))


# --- JAX: run as a script, in a process of its own ---
def jax_returns(theta, goals):
    """A function of no arguments: the returns (n,), all that is compiled being compiled."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", theta.dtype == np.float64)

    def episode(theta, goal):
        w = theta[:4].reshape(2, 2)
        b = theta[4:6]

        def step(carry, _):
            position, running = carry
            position = position + 0.1 * jnp.clip(position @ w + b, -1, 1)
            offset = position - goal
            reward = -jnp.sqrt((offset * offset).sum()) * running
            ends = (jnp.abs(offset) < 0.01).all()
            return (position, running * (1 - ends)), reward

        start = (jnp.zeros(2, theta.dtype), jnp.ones((), theta.dtype))
        _, rewards = jax.lax.scan(step, start, None, length=HORIZON)
        return rewards.sum()

    compiled = jax.jit(jax.vmap(episode))
    arguments = (jnp.asarray(theta), jnp.asarray(goals))
    compiled(*arguments).block_until_ready()
    return lambda: compiled(*arguments).block_until_ready()


def serve(dtype, n, path):
    """Write the returns to the path; then, for each line of the input, seconds to the output."""
    call = jax_returns(*inputs(dtype, int(n)))
    np.save(path, np.asarray(call()))
    print("ready", flush=True)
    for _ in sys.stdin:
        print(seconds(call), flush=True)


class Jax:
    """The process that runs `serve`."""

    def __init__(self, dtype, n, directory):
        path = Path(directory) / f"{dtype}-{n}.npy"
        command = [sys.executable, Path(__file__), dtype, str(n), path]
        names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
        environment = {name: value for name, value in os.environ.items() if name not in names}
        streams = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.process = subprocess.Popen(command, env=environment, text=True, **streams)
        if self.process.stdout.readline() != "ready\n":
            words = " ".join(map(str, command[1:4]))
            raise SystemExit(f"JAX: the process has failed; see python {words} RETURNS.npy")
        self.returns = np.load(path)

    def __call__(self):
        """The seconds of a call, by its own clock."""
        print(file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


# --- The race ---
def seconds(f, *arguments):
    """Of one call, the best of some in a row: the first ones wake up what slept."""
    best = np.inf
    for _ in range(IN_A_ROW):
        start = time.perf_counter()
        f(*arguments)
        best = min(best, time.perf_counter() - start)
    return best


def race(dtype, n, rounds, map, processes, jax):
    """{column: median seconds}; `jax` the process, or None."""
    ours = returns(dtype, n)
    compare(dtype, ours, "the parts by processes", by_processes(map, processes, dtype, n))
    contestants = {
        "one process": lambda: seconds(returns, dtype, n),
        "all cores": lambda: seconds(by_processes, map, processes, dtype, n),
    }
    if jax is not None:
        compare(dtype, ours, "JAX", jax.returns)
        contestants["JAX"] = jax
    times = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            time.sleep(PAUSE)
            times[name].append(contestant())
    return {name: np.median(column) for name, column in times.items()}


def compare(dtype, ours, name, other):
    """End the program if the returns differ."""
    error = np.abs(ours - other).max() / HORIZON
    if not error < TOLERANCE[dtype]:
        raise SystemExit(f"the returns in {dtype} differ from those of {name} by {error:.1e}")


def table(rounds, map, processes):
    """Print million environment steps per second."""
    has_jax = importlib.util.find_spec("jax") is not None
    columns = ["one process", "all cores"] + ["JAX"] * has_jax
    title = "population rollouts, M steps/s"
    print(f"\n{title:32}" + "".join(f"{name:>14}" for name in columns))
    for dtype in ("float32", "float64"):
        for n in SIZES:
            with contextlib.ExitStack() as stack:
                jax = None
                if has_jax:
                    directory = stack.enter_context(tempfile.TemporaryDirectory())
                    jax = stack.enter_context(Jax(dtype, n, directory))
                medians = race(dtype, n, rounds, map, processes, jax)
            rates = [n * HORIZON / medians[name] / 1e6 for name in columns]
            label = f"{n:,} rows, {dtype}"
            print(f"{label:32}" + "".join(f"{rate:14.0f}" for rate in rates))
    if not has_jax:
        print("JAX is not installed: pip install jax")


def main():
    from benchmarks.common import parser
    from harness.workers import cores, workers

    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=15)
    a = p.parse_args()
    with workers(0) as map:
        table(a.rounds, map, cores())


if __name__ == "__main__":
    if len(sys.argv) == 4 and not sys.argv[1].startswith("-"):
        serve(*sys.argv[1:])
    else:
        main()
