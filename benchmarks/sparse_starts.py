"""What does a policy gradient need where rewards are sparse?

    python -m benchmarks.sparse_starts [--seeds 5] [--first-seed 0] [--rows NAME ...]

Trains MAML on sparse-pointmass for 150 iterations, 24 million environment steps, from two starts:

    usual     the random initialisation
    ring      fitted, without any reward, to leave the origin in whatever direction the first noise
              decides, and to stop on the unit circle. It is told where goals can be, not where one
              is

Prints of the untrained and the trained start: the share of episodes, without adaptation, that see
their goal, for goals within 30 degrees of the ends of the half-circle and for all; and the mean
return on 120 held-out tasks after k steps of 40 episodes each. In the end the mean over seeds.
Each start has step sizes that suit it. Eight minutes on two cores.
"""

from dataclasses import replace

import numpy as np

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from benchmarks.common import in_columns, parser, side_by_side, train_from
from harness.settings import Setting
from metarl import noise_at
from policies import rollout

COMMON = {
    "env": "sparse-pointmass",
    "hidden": (32,),
    "inner_steps": 3,
    "learn_alpha": True,
    "episodes": 40,
    "iterations": 150,
    "test_tasks": 120,
    "dtype": "float32",
}
RING = {"alpha": 0.15, "beta": 0.0003}
ROWS = {  # name: the start, and what differs from COMMON
    "usual, dice": ("usual", {"algo": "maml", "estimator": "dice", "beta": 0.001}),
    "ring, first order": ("ring", {"algo": "fomaml", **RING}),
    "ring, lvc": ("ring", {"algo": "maml", "estimator": "lvc", **RING}),
    "ring, dice": ("ring", {"algo": "maml", "estimator": "dice", **RING}),
}
COLUMNS = ("ends", "all", "k = 0", "1", "2", "3")

OWN = 3  # stands in addresses where metarl.py has INIT, TRAIN or TEST


# --- The start that explores ---
def ring(position):
    """The mean action at positions (n, 2): outwards within the unit circle, inwards beyond it.

    And a little upwards at the origin, since goals have y >= 0.
    """
    r = np.linalg.norm(position, axis=1, keepdims=True)
    outwards = position / np.maximum(r, 0.15)
    upwards = 0.3 * np.exp(-((r / 0.2) ** 2)) * np.array([0, 1])
    return np.tanh(5 * (1 - r)) * outwards + upwards


def fitted(c, target, steps=6000, n=1024):
    """theta (P,) whose mean action is the target, by Adam on squared errors at random positions."""
    theta = c.pi.init(noise_at(c.seed, metarl.INIT))
    rng = noise_at(c.seed, OWN, 0)
    m = v = 0
    for t in range(steps):
        position = rng.uniform(-1.5, 1.5, (n, 2))
        x = Tensor(theta)
        error = c.pi.network.apply(x, position) - target(position)
        g = grad(ad.sum(error * error) / n, x).data
        step, m, v = metarl.adam(g, m, v, t + 1)
        beta = 0.005 * (1 - t / steps)
        theta = theta - beta * step
    return theta


# --- What is measured ---
def seen(c, theta):
    """The shares of episodes, before adaptation, that see their goal: at the ends, and of all."""
    tasks = metarl.sample_tasks(c, 2 * c.test_tasks, noise_at(c.seed, OWN, 1), "test")
    D = rollout(c.family, c.pi, theta, tasks, c.episodes, noise_at(c.seed, OWN, 2), keep=False)
    share = (D.rewards > 0).any(2).mean(1)
    at_the_ends = tasks[:, 1] < np.sin(np.pi / 6)
    return [share[at_the_ends].mean(), share.mean()]


def measured(c, x):
    """The numbers of COLUMNS, for x (2P,)."""
    _, returns = metarl.meta_test(c, x)
    return [*seen(c, x[: c.pi.size]), *returns.mean(0)]


def run(name, seed):
    """The numbers of COLUMNS before and after training, (2, 6)."""
    start, options = ROWS[name]
    c = Setting(**COMMON, **options, seed=seed)
    state = metarl.initial_state(c)
    if start == "ring":
        theta = fitted(replace(c, dtype="float64"), ring)
        x = np.append(theta, np.zeros(theta.size))  # log factors 0: step sizes as given
        state["theta"] = x.astype(c.dtype)
    with np.errstate(all="ignore"):
        before = measured(c, state["theta"])
        after = measured(c, train_from(c, state))
    return np.array([before, after])


def line(name, seed, numbers):
    """A row of the table."""
    cells = in_columns([f"{number:.2f}" for number in np.ravel(numbers)], 7)
    return f"{name:20}{seed:>6}{cells}"


def main():
    p = parser(__doc__)
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--first-seed", type=int, default=0)
    p.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="NAME")
    a = p.parse_args()
    seeds = range(a.first_seed, a.first_seed + a.seeds)
    jobs = [(name, seed) for name in a.rows for seed in seeds]
    print(f"{'':26}{'before training':^42}{'after training':^42}")
    print(f"{'start, estimator':20}{'seed':>6}{in_columns(2 * COLUMNS, 7)}")
    results = {name: [] for name in a.rows}
    for (name, seed), numbers in zip(jobs, side_by_side(run, jobs), strict=True):
        results[name].append(numbers)
        print(line(name, seed, numbers), flush=True)
    for name, each in results.items():
        print(line(name, "mean", np.mean(each, 0)))


if __name__ == "__main__":
    main()
