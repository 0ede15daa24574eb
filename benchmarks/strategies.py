"""What the evolution strategies cost: evaluations to the target, time per generation,
population evaluations.

    python -m benchmarks.strategies [--seeds 25] [--dims 5 10 20] [--skip evaluations time steps]

pycma, cmaes and evosax run beside ours where they are installed (pip install cma cmaes evosax): the
first two in both tables, evosax, jitted and in float32 as it comes, in that of the times alone.
They take turns of some generations each, so that whatever else the machine does slows all alike.
"""

import importlib.util
import os
import platform
import time
import warnings
from functools import partial
from importlib.metadata import version

import numpy as np

import es
import metarl
from benchmarks.common import parser
from harness.settings import Setting


def sphere(x):
    return (x**2).sum(1)


def ellipsoid(x):
    return x**2 @ 10 ** (6 * np.arange(x.shape[1]) / (x.shape[1] - 1))


def rosenbrock(x):
    head = x[:, :-1]
    tail = x[:, 1:]
    return (100 * (tail - head**2) ** 2 + (1 - head) ** 2).sum(1)


def rotated(x):
    """The ellipsoid in a random, fixed basis for each dimension."""
    n = x.shape[1]
    if n not in BASES:
        BASES[n] = np.linalg.qr(np.random.default_rng(n).standard_normal((n, n)))[0]
    return ellipsoid(x @ BASES[n])


BASES = {}


class Pycma:
    def __init__(self, x0, sigma0, popsize=None, rng=None):
        import cma

        options = dict(verbose=-9, tolfun=0, tolfunhist=0, tolx=0)
        options["seed"] = int(rng.integers(1, 2**31))
        if popsize:
            options["popsize"] = popsize
        self.strategy = cma.CMAEvolutionStrategy(x0, sigma0, options)
        self.popsize = self.strategy.popsize
        self.ask = self.strategy.ask
        self.tell = self.strategy.tell

    def values(self, x, f):
        """What `tell` takes, from the population and its fitness:
        made while the clock stands still.
        """
        return x, f.tolist()


class Cmaes:
    def __init__(self, x0, sigma0, popsize=None, rng=None):
        from cmaes import CMA

        seed = int(rng.integers(2**31))
        self.strategy = CMA(mean=x0, sigma=sigma0, seed=seed, population_size=popsize)
        self.popsize = self.strategy.population_size
        self.tell = self.strategy.tell

    def ask(self):
        return [self.strategy.ask() for _ in range(self.popsize)]

    def values(self, x, f):
        return (list(zip(x, f.tolist(), strict=True)),)


class Evosax:
    """One of evosax's algorithms; ask and tell return when the numbers are there."""

    def __init__(self, name, x0, sigma0, popsize, rng):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import evosax.algorithms
        import jax

        self.jax = jax
        self.key = jax.random.key(int(rng.integers(2**31)))
        x0 = jax.numpy.asarray(x0)
        algorithm = getattr(evosax.algorithms, name)(population_size=popsize, solution=x0)
        self.params = algorithm.default_params
        if name == "CMA_ES":
            self.params = self.params.replace(std_init=sigma0)
        self.state = algorithm.init(self.key, x0, self.params)
        self.jitted_ask = jax.jit(algorithm.ask)
        self.jitted_tell = jax.jit(algorithm.tell)

    def ask(self):
        result = self.jitted_ask(self.key, self.state, self.params)
        x, self.state = self.jax.block_until_ready(result)
        return x

    def values(self, x, f):
        self.key = self.jax.random.split(self.key)[0]
        return x, self.jax.numpy.asarray(f)

    def tell(self, x, f):
        result = self.jitted_tell(self.key, x, f, self.state, self.params)
        self.state, _ = self.jax.block_until_ready(result)


def even(make):
    """The strategy with a population rounded up to pairs."""
    return lambda x0, sigma0, popsize, rng: make(x0, sigma0, popsize + popsize % 2, rng)


PEERS = {"pycma": ("cma", Pycma), "cmaes": ("cmaes", Cmaes)}
TIMED = {  # name: (the package that it comes from, if not ours; what makes it)
    "CMA-ES": (None, es.CMAES),
    **PEERS,
    "evosax CMA-ES": ("evosax", partial(Evosax, "CMA_ES")),
    "OpenAI-ES": (None, even(es.OpenAIES)),
    "evosax OpenAI-ES": ("evosax", even(partial(Evosax, "Open_ES"))),
    "sep-CMA-ES": (None, partial(es.CMAES, diagonal=True)),
    "xNES": (None, es.XNES),
    "SNES": (None, es.SNES),
}
# dimensions and population: turns
# (dimensions, population): turns
SIZES = {(10, 10): 40, (100, 17): 15, (1000, 24): 3, (100, 200): 8}
GENERATIONS = 20  # in a turn, at most: more than go by between decompositions
SECONDS = 1.0  # in a turn, at most

# Medians of 25 seeds that were agreed on beforehand: {method: {function: {dimensions: median}}}
EXPECTED = {
    "cma-es": {
        "sphere": {5: 808, 10: 1660, 20: 3120},
        "ellipsoid": {5: 1570, 10: 4260, 20: 13300},
        "rotated": {5: 1570, 10: 4260, 20: 13300},
        "rosenbrock": {5: 1840, 10: 5250, 20: 16800},
    },
    "xnes": {
        "sphere": {5: 1784, 10: 7099},
        "ellipsoid": {5: 2553, 10: 9985},
        "rotated": {5: 2553, 10: 9985},
        "rosenbrock": {5: 3183, 10: 10568},
    },
    "snes": {"sphere": {5: 1057, 10: 2192}, "ellipsoid": {5: 1520, 10: 3083}},
}
MOST = {"cma-es": 1.12, "xnes": 1.15, "snes": 1.15}  # times these medians ours may need
FUNCTIONS = {"sphere": sphere, "ellipsoid": ellipsoid, "rotated": rotated, "rosenbrock": rosenbrock}


def taken(strategy, x, f):
    return strategy.values(x, f) if hasattr(strategy, "values") else (x, f)


def evaluations(make, f, n, seed, limit=100_000):
    """Evaluations until f <= 1e-10, counted to the end of the generation; inf beyond the limit."""
    x0, sigma0 = np.ones(n), 0.5
    if f is rosenbrock:
        x0, sigma0 = np.zeros(n), 0.1
    strategy = make(x0, sigma0, rng=np.random.default_rng(seed))
    spent = 0
    best = np.inf
    while best > 1e-10 and spent < limit:
        x = strategy.ask()
        values = f(np.asarray(x))
        strategy.tell(*taken(strategy, x, values))
        spent += strategy.popsize
        best = min(best, values.min())
    return spent if best <= 1e-10 else np.inf


def median_evaluations(make, f, n, seeds):
    return np.median([evaluations(make, f, n, seed) for seed in range(seeds)])


def evaluation_table(seeds, dims):
    """Print it, and return how many rows need more than they may."""
    peers = {}
    for name, (package, make) in PEERS.items():
        if installed(package):
            peers[name] = make
        else:
            print(f"{name} is not installed: pip install {package} puts it beside ours")
    print(f"Median evaluations to f <= 1e-10 over {seeds} seeds, default population", flush=True)
    head = f"{'':8}{'':12}{'n':>3}{'ours':>9}{'expected':>10}{'most':>8}     "
    print(head, *(f"{name:>8}" for name in peers))
    missed = 0
    for method, functions in EXPECTED.items():
        beside = peers if method == "cma-es" else {}
        for name, by_dims in functions.items():
            f = FUNCTIONS[name]
            for n in (n for n in by_dims if n in dims):
                expected = by_dims[n]
                most = MOST[method] * expected
                ours = median_evaluations(es.METHODS[method], f, n, seeds)
                others = [median_evaluations(make, f, n, seeds) for make in beside.values()]
                verdict = "   ok "
                if ours > most:
                    verdict = "  MORE"
                    missed += 1
                line = f"{method:8}{name:12}{n:3}{ours:9.0f}{expected:10}{most:8.0f}{verdict}"
                print(line, *(f"{other:8.0f}" for other in others), flush=True)
    return missed


def turn(strategy):
    """Milliseconds of ask + tell in the mean over a turn, on the sphere."""
    spent = generations = 0
    while generations < GENERATIONS and spent < SECONDS:
        start = time.perf_counter()
        x = strategy.ask()
        spent += time.perf_counter() - start
        told = taken(strategy, x, sphere(np.asarray(x)))
        start = time.perf_counter()
        strategy.tell(*told)
        spent += time.perf_counter() - start
        generations += 1
    return 1e3 * spent / generations


def generation_times(makers, n, popsize, turns):
    """The median turn of each strategy, all of them in turn: {name: milliseconds}."""
    x0 = np.random.default_rng(0).standard_normal(n)
    strategies = [make(x0, 0.5, popsize, np.random.default_rng(1)) for make in makers.values()]
    times = [[turn(strategy) for strategy in strategies] for _ in range(turns + 1)]
    counted = times[1:]  # the first compiles and warms
    return dict(zip(makers, np.median(counted, 0), strict=True))


def time_table():
    print(
        "Milliseconds per generation, ask + tell, one BLAS thread, "
        f"medians of turns of {GENERATIONS} generations"
    )
    makers = {name: make for name, (package, make) in TIMED.items() if installed(package)}
    columns = [generation_times(makers, n, popsize, turns) for (n, popsize), turns in SIZES.items()]
    print(f"{'':18}", *(f"{f'n={n}, pop {popsize}':>16}" for n, popsize in SIZES))
    for name, (package, _) in TIMED.items():
        cells = [f"{column[name]:16.3f}" for column in columns if name in column]
        print(f"{name:18}", *(cells or [f"   not installed: pip install {package}"]))
    print_ratios(columns, "CMA-ES", [*PEERS, "evosax CMA-ES"])
    print_ratios(columns, "OpenAI-ES", ["evosax OpenAI-ES"])
    print(flush=True)


def print_ratios(columns, ours, peers):
    peers = [name for name in peers if name in columns[0]]
    if peers:
        ratios = [min(column[name] for name in peers) / column[ours] for column in columns]
        text = f"fastest peer / {ours}, in the order of the columns:"
        print(text, *(f"{ratio:.2f}" for ratio in ratios))


def steps_table(rounds=5, populations=(24, 500)):
    print(
        "Million environment steps per second of a population evaluation, "
        "the linear policy adapting to 20 tasks"
    )
    print(f"{'':12}{'':10}", *(f"{f'population {n}':>16}" for n in populations))
    for env in ("pointmass", "fourcorners"):
        for dtype in ("float64", "float32"):
            speeds = [speed(env, dtype, n, rounds) for n in populations]
            print(f"{env:12}{dtype:10}", *(f"{x:16.2f}" for x in speeds), flush=True)


def speed(env, dtype, population, rounds):
    """Million steps per second of metarl.fitness in the chunks of a run, of the median round."""
    c = Setting(algo="nes", env=env, dtype=dtype, population=population)
    members = metarl.strategy_of(c, metarl.initial_state(c), metarl.noise_at(0)).ask()
    x = np.broadcast_to(members, (c.tasks, *members.shape))
    tasks = metarl.sample_tasks(c, c.tasks, metarl.noise_at(1))
    rates = []
    for k in range(rounds):
        start = time.perf_counter()
        _, log = metarl.in_chunks(metarl.fitness, c, x, tasks, (2, k))
        seconds = time.perf_counter() - start
        rates.append(log[:, 2].sum() / 1e6 / seconds)
    return np.median(rates)


def installed(package):
    return package is None or importlib.util.find_spec(package) is not None


def machine():
    """The machine and the versions that the numbers were measured with, in one line."""
    packages = [p for p in ("numpy", "cma", "cmaes", "evosax", "jax") if installed(p)]
    versions = [f"{p} {version(p)}" for p in packages]
    return ", ".join([f"{os.cpu_count()} cores, {platform.machine()}", *versions])


def main():
    p = parser(__doc__)
    p.add_argument("--seeds", type=int, default=25)
    p.add_argument("--dims", type=int, nargs="+", default=[5, 10, 20])
    p.add_argument("--skip", nargs="+", choices=["evaluations", "time", "steps"], default=[])
    a = p.parse_args()
    warnings.simplefilter("ignore")  # pycma warns of missing plot libraries
    print(machine())
    missed = 0
    if "evaluations" not in a.skip:
        missed = evaluation_table(a.seeds, a.dims)
    if "time" not in a.skip:
        time_table()
    if "steps" not in a.skip:
        steps_table()
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
