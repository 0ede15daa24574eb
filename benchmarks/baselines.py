"""Is it meta-learning that adapts, or any start with a good step size?

    python -m benchmarks.baselines [--env pointmass] [--algos maml fomaml reptile] [--seed 0]

Trains each algorithm with its defaults, and `joint` beside policy gradients; adapts them and the
untrained initialisation to the same held-out tasks under the same noise, with every value of a grid
for alpha (for hill climbing: for the noise of its queries, --inner-sigma); and gives to each the
value that suits it best after three steps, on those very tasks. Prints the returns over the grid;
then, for each algorithm, its adaptation r_3 - r_0 at its defaults, and its best r_3 minus that of
each baseline, with paired 95 % intervals over tasks.
"""

from dataclasses import replace

import numpy as np

import metarl
from benchmarks.common import in_columns, mean_and_half, parser, side_by_side, train
from harness.settings import Setting, make_family

GRID = (0.06, 0.125, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0, 2.0, 4.0, 8.0, 16.0)


def knob(c):
    """The option whose value is chosen: the inner step size or, for hill climbing, its noise."""
    if c.inner == "hc":
        return "inner_sigma"
    return "alpha"


def returns_over_grid(algo, trained, env, seed):
    """{value: returns (tasks, steps + 1)} over the grid, at None those of the defaults.

    Of the parameters after training, or of the first ones.
    """
    c = Setting(algo=algo, env=env, seed=seed)
    theta = train(c) if trained else metarl.initial_state(c)["theta"]
    settings = {None: c} | {value: replace(c, **{knob(c): value}) for value in GRID}
    with np.errstate(all="ignore"):
        return {value: metarl.meta_test(setting, theta)[1] for value, setting in settings.items()}


def paired(difference):
    """Of differences (tasks,): mean, interval and what it says."""
    mean, half = mean_and_half(difference)
    if not np.isfinite(mean):
        verdict = "not finite"
    elif mean > half:
        verdict = "beyond 0"
    elif mean < -half:
        verdict = "below 0"
    else:
        verdict = "not apart from 0"
    return f"{mean:8.2f} ± {half:.2f}  {verdict}"


def rows(settings):
    """{row: (algorithm, trained or not)} for the settings {algorithm: c} of the command line."""
    runs = {algo: (algo, True) for algo in settings}
    for name in sorted({knob(c) for c in settings.values()}):
        if name == "alpha":
            runs["joint"] = ("joint", True)
        first = next(algo for algo, c in settings.items() if knob(c) == name)
        runs[f"untrained, {name}"] = (first, False)
    return runs


def main():
    p = parser(__doc__)
    p.add_argument("--env", default="pointmass")
    p.add_argument("--algos", nargs="+", default=["maml", "fomaml", "reptile"])
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    settings = {algo: Setting(algo=algo, env=a.env) for algo in a.algos}
    runs = rows(settings)
    jobs = [(algo, trained, a.env, a.seed) for algo, trained in runs.values()]
    results = dict(zip(runs, side_by_side(returns_over_grid, jobs), strict=True))

    knobs = " or ".join(sorted({knob(c) for c in settings.values()}))
    where = ""
    if getattr(make_family(a.env), "splits_coincide", False):
        where = " on the training tasks themselves"
    print(f"{a.env}, seed {a.seed}: mean return after 3 steps{where}, by {knobs}")
    print(f"{'':23}{in_columns(GRID, 8)}")
    best = {}
    for name, by_value in results.items():
        last = [by_value[value][:, -1] for value in GRID]
        means = [r.mean() for r in last]
        best[name] = last[int(np.nanargmax(means))]
        print(f"{name:23}{in_columns([f'{mean:.2f}' for mean in means], 8)}")

    for algo, c in settings.items():
        own = results[algo][None]
        print(f"{f'{algo}, by default: adaptation r_3 - r_0':48}{paired(own[:, -1] - own[:, 0])}")
        beside = [f"untrained, {knob(c)}"]
        if knob(c) == "alpha":
            beside.insert(0, "joint")
        for name in beside:
            print(f"{f'{algo} - {name}: best r_3 of each':48}{paired(best[algo] - best[name])}")


if __name__ == "__main__":
    main()
