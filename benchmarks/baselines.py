"""Is it meta-learning that adapts, or any start with a good step size?

    python -m benchmarks.baselines [--env pointmass] [--algos maml fomaml reptile] [--seed 0]

Trains each algorithm and `joint` with their defaults, adapts them and the untrained initialisation to the same
held-out tasks under the same noise with every alpha of a grid, and gives to each the alpha that suits it best after
three steps, on those very tasks. Prints the returns over the grid; then, for each algorithm, its adaptation
r_3 - r_0 at its default alpha, and its r_3 minus that of each baseline, with paired 95 % intervals over tasks.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np

import envs
import metarl
from cli import interval
from metarl import Setting

GRID = (0.06, 0.125, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0, 2.0, 4.0, 8.0, 16.0)


def train(c):
    """The parameters after all iterations."""
    states = metarl.train(c, metarl.initial_state(c))
    return next(islice(states, c.iterations - 1, None))["theta"]


def returns_over_grid(name, env, seed):
    """{alpha: returns (tasks, steps + 1)} over the grid; at None those of the default alpha."""
    c = Setting(algo="joint" if name == "untrained" else name, env=env, seed=seed)
    theta = metarl.initial_state(c)["theta"] if name == "untrained" else train(c)
    settings = {None: c} | {alpha: replace(c, alpha=alpha) for alpha in GRID}
    return {alpha: metarl.meta_test(setting, theta)[1] for alpha, setting in settings.items()}


def paired(difference):
    mean, half = (x.item() for x in interval(difference[:, None]).values())
    verdict = "beyond 0" if mean > half else "below 0" if mean < -half else "not apart from 0"
    return f"{mean:8.2f} ± {half:.2f}  {verdict}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--env", default="pointmass")
    p.add_argument("--algos", nargs="+", default=["maml", "fomaml", "reptile"])
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    names = [*a.algos, "joint", "untrained"]
    with ProcessPoolExecutor(2) as pool:
        found = pool.map(returns_over_grid, names, [a.env] * len(names), [a.seed] * len(names))
        results = dict(zip(names, found, strict=True))
    coincide = " on the training tasks themselves" if envs.make(a.env).splits_coincide else ""
    print(f"{a.env}, seed {a.seed}: mean return after 3 steps{coincide}, by alpha")
    print(f"{'alpha':10}" + "".join(f"{alpha:>8}" for alpha in GRID))
    best = {}
    for name, by_alpha in results.items():
        r3 = [by_alpha[alpha][:, -1] for alpha in GRID]
        best[name] = r3[int(np.nanargmax([r.mean() for r in r3]))]
        print(f"{name:10}" + "".join(f"{r.mean():8.2f}" for r in r3))
    for algo in a.algos:
        own = results[algo][None]
        print(f"{algo}, default alpha: adaptation r_3 - r_0    {paired(own[:, -1] - own[:, 0])}")
        for name in ("joint", "untrained"):
            print(f"{algo} - {name}, r_3 at each one's best alpha  {paired(best[algo] - best[name])}")


if __name__ == "__main__":
    main()
