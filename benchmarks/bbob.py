"""CMA-ES on the 24 noiseless BBOB functions: the share of the targets that it reaches.

    python -m benchmarks.bbob [--dims 2 5 10] [--instances 5] [--budget 2000] [--each]

needs the functions, pip install coco-experiment; pycma and cmaes run beside ours where they are
installed (pip install cma cmaes). One run after the other in one process: some 10 minutes.

A problem is one function in one dimension n, moved and turned in one of its instances. Its targets
are the 51 values 10^2, 10^1.8, ..., 10^-8 above the optimum. A library starts at 0 with sigma = 2,
then at random points of [-4, 4]^n, each time until its own reasons to stop end the run, all by its
defaults, until it has reached the last target or spent budget * n evaluations.
"""

import importlib.util
import time
import warnings

import numpy as np

import es
from benchmarks.common import parser
from benchmarks.strategies import machine

FUNCTIONS = range(1, 25)
TARGETS = 10.0 ** np.linspace(2, -8, 51)
SIGMA0 = 2.0


class Pycma:
    def __init__(self, x0, sigma0, rng):
        import cma

        options = {"verbose": -9, "seed": int(rng.integers(1, 2**31))}
        self.strategy = cma.CMAEvolutionStrategy(x0, sigma0, options)
        self.ask = self.strategy.ask
        self.stop = self.strategy.stop

    def tell(self, x, f):
        self.strategy.tell(x, list(f))


class Cmaes:
    def __init__(self, x0, sigma0, rng):
        from cmaes import CMA

        self.strategy = CMA(mean=x0, sigma=sigma0, seed=int(rng.integers(2**31)))
        self.stop = self.strategy.should_stop

    def ask(self):
        return [self.strategy.ask() for _ in range(self.strategy.population_size)]

    def tell(self, x, f):
        self.strategy.tell(list(zip(x, f, strict=True)))


def ours(x0, sigma0, rng):
    return es.CMAES(x0, sigma0, rng=rng)


LIBRARIES = {"ours": (None, ours), "pycma": ("cma", Pycma), "cmaes": ("cmaes", Cmaes)}


def share(make, problem, n, budget, rng):
    """The share of the targets that are reached within the budget of evaluations."""
    optimum = problem.best_value()
    above = np.inf
    spent = 0
    x0 = np.zeros(n)
    while above > TARGETS[-1] and spent < budget:
        strategy = make(x0, SIGMA0, rng)
        while above > TARGETS[-1] and spent < budget and not strategy.stop():
            x = strategy.ask()
            f = [problem(p) for p in x]
            strategy.tell(x, f)
            spent += len(f)
            above = min(above, min(f) - optimum)
        x0 = rng.uniform(-4, 4, n)
    return (above <= TARGETS).mean()


def shares(makers, n, instances, budget):
    """{library: (functions, instances)} in n dimensions."""
    from cocoex import BareProblem

    table = {name: np.zeros((len(FUNCTIONS), instances)) for name in makers}
    for i, function in enumerate(FUNCTIONS):
        for j in range(instances):
            problem = BareProblem("bbob", function, n, 1 + j)
            for name, make in makers.items():
                rng = np.random.default_rng([n, function, j])
                table[name][i, j] = share(make, problem, n, budget * n, rng)
    return table


def row(first, values):
    print(f"{first:>12}", *(f"{value:8.3f}" for value in values), flush=True)


def installed(package):
    return package is None or importlib.util.find_spec(package) is not None


def main():
    p = parser(__doc__)
    p.add_argument("--dims", type=int, nargs="+", default=[2, 5, 10])
    p.add_argument("--instances", type=int, default=5, help="of each function")
    p.add_argument("--budget", type=int, default=2000, help="evaluations per dimension")
    p.add_argument("--each", action="store_true", help="a line for each function as well")
    a = p.parse_args()
    if not installed("cocoex"):
        print("benchmarks.bbob needs the BBOB functions: pip install coco-experiment")
        return 2
    warnings.simplefilter("ignore")  # pycma warns of missing plot libraries
    start = time.perf_counter()
    print(machine())
    makers = {}
    for name, (package, make) in LIBRARIES.items():
        if installed(package):
            makers[name] = make
        else:
            print(f"{name} is not installed: pip install {package} puts it beside ours")
    print(
        f"Share of 51 targets from 1e2 to 1e-8 on 24 functions in {a.instances} instances, "
        f"{a.budget} n evaluations with restarts"
    )
    print(" " * 12, *(f"{name:>8}" for name in makers))
    for n in a.dims:
        table = shares(makers, n, a.instances, a.budget)
        if a.each:
            for i, function in enumerate(FUNCTIONS):
                row(f"n = {n}, f{function}", [rates[i].mean() for rates in table.values()])
        row(f"n = {n}", [rates.mean() for rates in table.values()])
    print(f"{(time.perf_counter() - start) / 60:.0f} minutes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
