"""Is it meta-learning that adapts, or would any start do with a good step size?

    python -m benchmarks.baselines [--env all] [--algos maml fomaml reptile cma-es]
                                   [--seeds 1] [--first-seed 0]

On the same held-out tasks under the same noise:

- each algorithm, trained with its defaults;
- its rivals: `joint`, one policy for all tasks, with the options of the first algorithm that takes
  policy gradients and until it has taken as many environment steps; and untrained, the first
  parameters. (Where the inner loop is hill climbing, as of cma-es, the untrained rival climbs too.)

Then each of them adapts with the alpha that suits it best (hill climbing: with the best noise of
its queries, inner-sigma), joint and untrained also with their best std: joint is trained with each.
Best after one step need not be best after three, so the choice is made twice, once for each column.
It is made on training tasks; held-out tasks only measure. Values of alpha are apart by sqrt(2), and
there are more of them where the best would be the first or the last. A * marks a value at the
border of its grid all the same. (An untrained start may do best without noise: with std 0.)

Prints for each family and seed the mean return before and after adaptation, then the differences of
each algorithm and its rivals with paired 95 % intervals over tasks.

How to read it: `contest` is the comparison in one family; before it stands how a rival is trained,
then how its values are chosen.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

import envs
import metarl
from benchmarks.common import mean_and_half, parser, side_by_side
from harness.results import by_task
from harness.settings import Setting, family_name, ignored, joint_beside
from metarl import INNER, TASKS, noise_at

ALGORITHMS = ("maml", "fomaml", "reptile", "cma-es")
STEPS = (1, 3)  # adaptation steps after which rivals are compared
STDS_OF_JOINT = (0.125, 0.25, 0.5, 1.0)
STDS_OF_UNTRAINED = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
RATIO = 2**0.5  # of neighbours in the grid of alpha
NEAR = 3  # neighbours at each side of the default that are always tried
FAR = 10  # and at most
CHOICE = 3  # stands in addresses where metarl.py has INIT, TRAIN or TEST

# What an outer loop can learn in a family, beside what any start can do.
TO_LEARN = {
    "pointmass": "a centred start and the right step size, nothing else",
    "sparse-pointmass": "how to explore: nothing is paid until the goal is near",
    "turned-pointmass": "a start from which one step tells the dynamics",
    "fourcorners": "how to explore: nothing tells of the goal until the right corner is near",
    "bandit": "the right step size: all arms are alike beforehand",
    "linear-bandit": "which arms pay as a rule, and to stay ready to leave them",
}


# --- Training ---
def trained(c, env_steps=None):
    """The state after the iterations of c, or after as many as take so many environment steps."""
    states = metarl.train(c, metarl.initial_state(c))
    with np.errstate(all="ignore"):  # with some std it may go anywhere
        for state in states:
            if env_steps is None:
                over = state["t"] >= c.iterations
            else:
                over = state["env_steps"] >= env_steps
            if over:
                return state


def with_stds(c, stds):
    """The setting c with each std; c alone where actions have none.

    The gradient of log pi by the mean action has the unit 1 / std. So a step that moves the mean by
    as many std has an alpha that goes with std^2: there the search for the best one begins.
    """
    if "std" in ignored(c):
        return [c]
    return [replace(c, std=std, alpha=c.alpha * (std / c.std) ** 2) for std in stds]


# --- The choice of alpha and std ---
class Chosen(NamedTuple):
    """What suits a rival best after so many steps, and what it reaches with that."""

    c: Setting
    at_border: set  # those of the names "value" and "std" whose choice is the last of its grid
    tasks: np.ndarray  # (n, D), held out
    returns: np.ndarray  # (n, test_steps + 1)


def knob(c):
    """The option that is chosen: the inner step size or, for hill climbing, its noise."""
    if c.inner == "hc":
        return "inner_sigma"
    return "alpha"


def on_training_tasks(c, x):
    """The mean return of x after each number of STEPS, on training tasks under their own noise."""
    tasks = metarl.sample_tasks(c, c.test_tasks, noise_at(c.seed, CHOICE, TASKS), "train")
    c = replace(c, episodes=c.adapt_episodes, test_episodes=min(10, c.test_episodes))
    with np.errstate(all="ignore"):  # a long step may end anywhere
        address = (c.seed, CHOICE, INNER)
        [returns] = metarl.in_chunks(metarl.returns_by_step, c, x, tasks, address)
        means = returns.mean(0)[list(STEPS)]
    return np.nan_to_num(means, nan=-np.inf)


def over_grid(f, start):
    """{value: f(value)} for values around start; f returns a number for each column.

    The grid is widened until every column has its best within, but not without end.
    """
    results = {i: f(start * RATIO**i) for i in range(-NEAR, NEAR + 1)}
    while True:
        best = best_of_columns(results)
        beyond = {i - 1 for i in best if i == min(results)}
        beyond |= {i + 1 for i in best if i == max(results)}
        beyond = {i for i in beyond if abs(i) <= FAR}
        if not beyond:
            return {start * RATIO**i: results[i] for i in sorted(results)}
        results |= {i: f(start * RATIO**i) for i in beyond}


def best_of_columns(results):
    """For results {key: a number for each column} the key of the largest number in each column."""
    keys = list(results)
    return [keys[i] for i in np.argmax([results[key] for key in keys], 0)]


def choose(candidates):
    """[Chosen] for each number of STEPS, of the candidates [(c, x)], which differ in std."""
    results = {}
    grids = []
    for i, (c, x) in enumerate(candidates):

        def f(value, c=c, x=x):
            return on_training_tasks(replace(c, **{knob(c): value}), x)

        by_value = over_grid(f, getattr(c, knob(c)))
        grids.append(list(by_value))
        results |= {(i, value): means for value, means in by_value.items()}

    chosen = []
    for i, value in best_of_columns(results):
        c, x = candidates[i]
        c = replace(c, **{knob(c): value})
        at_border = set()
        if value in (grids[i][0], grids[i][-1]):
            at_border.add("value")
        if len(candidates) > 1 and i in (0, len(candidates) - 1):
            at_border.add("std")
        with np.errstate(all="ignore"):
            tasks, returns = metarl.meta_test(c, x)
        chosen.append(Chosen(c, at_border, tasks, returns))
    return chosen


# --- The comparison ---
def contest(settings):
    """For settings {algorithm: c} of one family and seed, what comes of all rivals.

    Returns {rival: [Chosen for each number of STEPS]} and {algorithm: the names of its rivals}.
    """
    states = {algo: trained(c) for algo, c in settings.items()}
    results = {algo: choose([(c, states[algo]["theta"])]) for algo, c in settings.items()}
    rivals = {algo: [] for algo in settings}

    by_gradient = [algo for algo, c in settings.items() if knob(c) == "alpha"]
    if by_gradient:
        first = by_gradient[0]
        beside = joint_beside(settings[first])
        env_steps = states[first]["env_steps"]
        joint = [(c, trained(c, env_steps)["theta"]) for c in with_stds(beside, STDS_OF_JOINT)]
        results["joint"] = choose(joint)
        untrained = with_stds(beside, STDS_OF_UNTRAINED)
        results["untrained"] = choose([(c, metarl.initial_state(c)["theta"]) for c in untrained])
        rivals |= {algo: ["joint", "untrained"] for algo in by_gradient}

    for algo, c in settings.items():
        if knob(c) == "inner_sigma":
            results["untrained, hc"] = choose([(c, metarl.initial_state(c)["theta"])])
            rivals[algo] = ["untrained, hc"]
    return results, rivals


def row(name, chosen):
    """A rival: before and after adaptation, with what was chosen for it."""
    text = f"{name:24}"
    for steps, best in zip(STEPS, chosen, strict=True):
        means = best.returns.mean(0)
        value = f"{getattr(best.c, knob(best.c)):.2g}"
        std = "" if "std" in ignored(best.c) else f"{best.c.std:.2g}"
        value += "*" if "value" in best.at_border else ""
        std += "*" if "std" in best.at_border else ""
        text += f"{means[0]:10.2f}{means[steps]:9.2f}{value:>9}{std:>7}"
    return text


def difference(name, ours, theirs):
    """An algorithm minus a rival after so many steps, paired by task."""
    text = f"{name:24}"
    for steps, a, b in zip(STEPS, ours, theirs, strict=True):
        difference = by_task(a.tasks, a.returns[:, steps] - b.returns[:, steps])
        mean, half = mean_and_half(difference)
        text += f"{'':10}{mean:9.2f} ± {half:<13.2f}"
    return text.rstrip()


def main():
    p = parser(__doc__)
    p.add_argument("--env", default="all")
    p.add_argument("--algos", nargs="+", default=ALGORITHMS)
    p.add_argument("--seeds", type=int, default=1)
    p.add_argument("--first-seed", type=int, default=0)
    a = p.parse_args()
    names = list(envs.FAMILIES) if a.env == "all" else [a.env]
    seeds = range(a.first_seed, a.first_seed + a.seeds)
    runs = [(env, seed) for env in names for seed in seeds]
    jobs = []
    for env, seed in runs:
        jobs.append(({algo: Setting(algo=algo, env=env, seed=seed) for algo in a.algos},))

    print(f"{'':24}" + "".join(f"{'r_0':>10}{f'r_{k}':>9}{'alpha':>9}{'std':>7}" for k in STEPS))
    results = side_by_side(contest, jobs)
    for (env, seed), (chosen, rivals) in zip(runs, results, strict=True):
        print(f"\n{env}, seed {seed}: {TO_LEARN.get(family_name(env), '')}", flush=True)
        for name, each in chosen.items():
            print(row(name, each))
        for algo, others in rivals.items():
            for other in others:
                text = difference(f"{algo} - {other}", chosen[algo], chosen[other])
                print(text, flush=True)


if __name__ == "__main__":
    main()
