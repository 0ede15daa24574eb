"""What does each algorithm reach on each family by default, and does adapting further ever harm?

    python -m benchmarks.families [--envs NAME ...] [--algos NAME ...] [--seeds 5] [--first-seed 0]

Prints, for each family and algorithm with its defaults, the mean return on held-out tasks after 0,
1, 2 and 3 adaptation steps, over seeds; the smallest gain of a step in the mean over seeds; and the
smallest in a single seed, with half the width of its 95 % interval over tasks. All of it takes some
30 minutes on two cores; --envs and --algos choose.
"""

import numpy as np

import envs
import metarl
from benchmarks.common import in_columns, mean_and_half, parser, side_by_side, train
from harness.results import by_task
from harness.settings import Setting


def returns(algo, env, seed):
    """Tasks (n, D) and returns (n, steps + 1) on held-out tasks, after a run by the defaults."""
    c = Setting(algo=algo, env=env, seed=seed)
    with np.errstate(all="ignore"):
        return metarl.meta_test(c, train(c))


def smallest_gain(runs):
    """Of runs [(tasks, returns)] the smallest mean gain of a step, and half of its interval."""
    gains = []
    for tasks, after in runs:
        steps = np.diff(after, axis=1)
        gains += [mean_and_half(by_task(tasks, step)) for step in steps.T]
    return min(gains)


def line(algo, runs):
    """A row of the table."""
    means = np.mean([after.mean(0) for _, after in runs], 0)
    gain, half = smallest_gain(runs)
    cells = [f"{mean:.2f}" for mean in means]
    cells.append(f"{np.diff(means).min():.2f}")
    cells.append(f"{gain:.2f} ± {half:.2f}")
    return f"  {algo:12}{in_columns(cells[:-1], 10)}{cells[-1]:>18}"


def main():
    p = parser(__doc__)
    p.add_argument("--envs", nargs="+", default=list(envs.FAMILIES), metavar="NAME")
    p.add_argument("--algos", nargs="+", default=list(metarl.ALGORITHMS), metavar="NAME")
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--first-seed", type=int, default=0)
    a = p.parse_args()
    seeds = range(a.first_seed, a.first_seed + a.seeds)
    jobs = [(algo, env, seed) for env in a.envs for algo in a.algos for seed in seeds]
    results = side_by_side(returns, jobs)
    heads = ("k = 0", "1", "2", "3", "gain")
    for env in a.envs:
        print(f"{env:14}{in_columns(heads, 10)}{'in a single seed':>18}")
        for algo in a.algos:
            print(line(algo, [next(results) for _ in seeds]), flush=True)


if __name__ == "__main__":
    main()
