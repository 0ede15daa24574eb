"""2-D navigation, MAML's own experiment: published numbers and measured ones side by side.

    python -m chapters.navigation [--seeds 5] [--first-seed 0] [--quick] [--full] [--plot DIR]

Finn, Abbeel & Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", 2017,
arXiv 1703.03400, section 5.3 and table 4: a point is to walk to a goal that it is not told, in a
square; the mean undiscounted return after 0, 1, 2 and 3 steps of 40 episodes each, with step sizes
0.5, 0.25, 0.25, over 40 goals that are always the same. The world, MAML and its defaults are those
of `python metarl.py`; here the published goals take the place of its held-out ones, and those of
training keep 0.01 away from them.

The first row is MAML. With --full come the other algorithms, and MAML with one thing changed, which
the row's name says: "as published" is the original's network, noise, baseline and optimiser, TRPO.

The claim: better than published in each column after adaptation.

Said plainly: what helps most is less noise in the actions (row "std 1" is as published), then the
estimator; step sizes that are learned help a little. The rows with TRPO have as many iterations as
five minutes allow. A policy whose start is good for all goals (`joint`), with a step size of its
own at the test, is about as good on this family: see benchmarks/baselines.py.
"""

from dataclasses import dataclass

import numpy as np

import envs
import metarl
from chapters import common
from chapters.common import Chapter, above, cell, in_columns, meta_train, table
from harness import figures
from harness.settings import DEFAULTS, Setting


@dataclass(frozen=True)
class Options:
    full: bool = False  # all rows, not MAML alone
    iterations: int = 100


QUICK = Options(iterations=4)

STEPS = ("k = 0", "k = 1", "k = 2", "k = 3")
GOALS = np.random.RandomState(1).uniform(-0.5, 0.5, (40, 2))  # as the authors draw them
PUBLISHED = {
    "MAML, published": (-40.4, -11.7, -3.3, -3.2),
    "untrained, published": (-82.7, -58.0, -53.8, -46.8),
}
AS_PUBLISHED = {
    "hidden": (100, 100),
    "activation": "relu",
    "std": 1.0,
    "learn_alpha": False,
    "estimator": "log-prob",
    "baseline": "linear",
    "outer": "trpo",
    "tasks": 20,
    "iterations": 22,
}
# What differs from the defaults of --algo maml.
ROWS = {
    "maml": {},
    "fomaml": {"algo": "fomaml"},
    "reptile": {"algo": "reptile"},
    "emaml": {"algo": "emaml"},
    "joint": {"algo": "joint"},
    "untrained": {},
    "first-order": {"estimator": "first-order"},
    "log-prob": {"estimator": "log-prob"},
    "dice": {"estimator": "dice"},
    "alpha not learned": {"learn_alpha": False},
    "std 1": {"std": 1.0},
    "20 tasks": {"tasks": 20},
    "linear baseline": {"baseline": "linear"},
    "no baseline": {"baseline": "none"},
    "K = 40": {"episodes": 40, "tasks": 20},
    "trpo": {"outer": "trpo", "iterations": 18},
    "as published": AS_PUBLISHED,
}


@dataclass(frozen=True)
class Navigation(envs.PointMass):
    """The point mass with the published goals for test tasks, and none near them for training."""

    def sample_tasks(self, n, rng, split="train"):
        if split == "test":
            return GOALS[:n]
        goals = rng.uniform(-self.box, self.box, (2 * n + 10, 2))  # more than enough
        to_published = envs.distance(goals[:, None] - GOALS)
        apart = to_published.min(1) > 0.01
        return goals[apart][:n]


def setting(o, name, seed):
    """The Setting of a row: the defaults of its algorithm, with what the row changes.

    Iterations are at most o.iterations.
    """
    changed = ROWS[name]
    algo = changed.get("algo", "maml")
    options = DEFAULTS["pointmass"] | DEFAULTS.get(f"{algo} pointmass", {}) | changed
    options["iterations"] = min(options.get("iterations", 100), o.iterations)
    return Setting(env=Navigation(), seed=seed, **options)


def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs."""
    names = ROWS if o.full else ["maml"]
    rows = {}
    for name in names:
        c = setting(o, name, seed)
        if name == "untrained":
            state = metarl.initial_state(c)
        else:
            state = meta_train(c)
        _, returns = metarl.meta_test(c, state["theta"])
        rows[name] = dict(zip(STEPS, returns.mean(0), strict=True))
        rows[name]["env steps"] = float(state["env_steps"])
        if name == "maml":
            picture = (c, state["theta"])
    return rows, picture


# --- What is printed ---
def report(rows):
    width = max(len(name) for name in PUBLISHED)
    lines = [table(rows, list(rows), STEPS, heading=" " * width).rstrip()]
    for name, returns in PUBLISHED.items():
        cells = [f"{x:.2f}" for x in returns]
        lines.append(f"{name:{width}}" + in_columns(cells))
    best = cell(envs.PointMass().optimal_return(GOALS).mean()[None])
    lines.append(f"The optimum, for who knows the goal: {best}")
    head = "\nMean return on the 40 published goals after k steps"
    return "\n".join([head, *lines]) + "\n"


def claims(rows):
    published = dict(zip(STEPS, PUBLISHED["MAML, published"], strict=True))
    return [above(f"better than published, {k}", published[k], rows["maml"][k]) for k in STEPS[1:]]


def draw(figure, picture):
    """Paths on four of the goals, before and after adaptation steps."""
    c, theta = picture
    figure.set_size_inches(8, 3)
    figures.draw_adaptation(figure, c, theta)


FLAGS = {"full": "all rows, not MAML alone: an hour"}
CHAPTER = Chapter("navigation", __doc__, Options(), QUICK, run, report, claims, draw, FLAGS)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
