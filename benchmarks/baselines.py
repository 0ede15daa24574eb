"""Is it meta-learning that adapts, or any start with a good step size?

    python -m benchmarks.baselines [--env pointmass] [--algos maml fomaml reptile] [--seed 0]

Trains each algorithm with its defaults, and `joint` beside policy gradients; adapts them and the
untrained initialisation to the same held-out tasks under the same noise, with every value of a grid
for alpha (for hill climbing: for the noise of its queries, --inner-sigma); and gives to each the
value that suits it best after three steps, on those very tasks. Prints the returns over the grid;
then, for each algorithm, its adaptation r_3 - r_0 at its defaults, and its best r_3 minus that of
each baseline, with paired 95 % intervals over tasks.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np

import envs
import metarl
from harness.cli import interval
from harness.settings import Setting

GRID = (0.06, 0.125, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0, 2.0, 4.0, 8.0, 16.0)


def train(c):
    """The parameters after all iterations."""
    states = metarl.train(c, metarl.initial_state(c))
    return next(islice(states, c.iterations - 1, None))["theta"]


def knob(c):
    return "inner_sigma" if c.inner == "hc" else "alpha"


def returns_over_grid(algo, trained, env, seed):
    """{value: returns (tasks, steps + 1)} over the grid, at None those of the defaults;
    trained or as initialised.
    """
    c = Setting(algo=algo, env=env, seed=seed)
    theta = train(c) if trained else metarl.initial_state(c)["theta"]
    settings = {None: c} | {value: replace(c, **{knob(c): value}) for value in GRID}
    with np.errstate(all="ignore"):
        return {value: metarl.meta_test(setting, theta)[1] for value, setting in settings.items()}


def paired(difference):
    mean, half = (x.item() for x in interval(difference[:, None]).values())
    verdict = "beyond 0" if mean > half else "below 0" if mean < -half else "not apart from 0"
    return f"{mean:8.2f} ± {half:.2f}  {verdict}"


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--env", default="pointmass")
    p.add_argument("--algos", nargs="+", default=["maml", "fomaml", "reptile"])
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    settings = {algo: Setting(algo=algo, env=a.env) for algo in a.algos}
    knobs = sorted({knob(c) for c in settings.values()})
    runs = {algo: (algo, True) for algo in a.algos}
    for name in knobs:
        runs |= {"joint": ("joint", True)} if name == "alpha" else {}
        runs[f"untrained, {name}"] = (
            next(algo for algo, c in settings.items() if knob(c) == name),
            False,
        )
    columns = [*zip(*runs.values(), strict=True), [a.env] * len(runs), [a.seed] * len(runs)]
    with ProcessPoolExecutor(2) as pool:
        results = dict(zip(runs, pool.map(returns_over_grid, *columns), strict=True))
    coincide = " on the training tasks themselves" if envs.make(a.env).splits_coincide else ""
    print(f"{a.env}, seed {a.seed}: mean return after 3 steps{coincide}, by {' or '.join(knobs)}")
    print(f"{'':23}" + "".join(f"{value:>8}" for value in GRID))
    best = {}
    for name, by_value in results.items():
        r3 = [by_value[value][:, -1] for value in GRID]
        best[name] = r3[int(np.nanargmax([r.mean() for r in r3]))]
        print(f"{name:23}" + "".join(f"{r.mean():8.2f}" for r in r3))
    for algo, c in settings.items():
        own = results[algo][None]
        print(f"{f'{algo}, by default: adaptation r_3 - r_0':48}{paired(own[:, -1] - own[:, 0])}")
        for name in ["joint"] * (knob(c) == "alpha") + [f"untrained, {knob(c)}"]:
            print(f"{f'{algo} - {name}: best r_3 of each':48}{paired(best[algo] - best[name])}")


if __name__ == "__main__":
    main()
