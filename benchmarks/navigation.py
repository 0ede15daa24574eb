"""2-D navigation on the goals of the MAML paper: published numbers and measured ones side by side.

    python -m benchmarks.navigation [--seeds 5] [--only NAME ...] [--minutes 5]

Finn et al. 2017, table 4: the mean undiscounted return after 0, 1, 2 and 3 steps of 40 episodes
each, with step sizes 0.5, 0.25, 0.25, over 40 goals that are always the same. These goals override
the family's split: training goals are uniform in the same box, but keep 0.01 away from them. The
rows are the defaults of the algorithms; those from `first-order` on differ from the defaults of
`--algo maml` in what their name says. `as published` is the original's network, baseline and
optimiser for as many iterations as fit in --minutes. Runs are independent processes, two at a time;
`seconds` are those of one run's training.
"""

import time
from dataclasses import dataclass
from itertools import islice

import numpy as np

import envs
import metarl
from benchmarks.common import in_columns, parser, side_by_side
from harness.settings import DEFAULTS, Setting

GOALS = np.random.RandomState(1).uniform(-0.5, 0.5, (40, 2))
PUBLISHED = {
    "MAML, published": (-40.4, -11.7, -3.3, -3.2),
    "untrained, published": (-82.7, -58.0, -53.8, -46.8),
}
OLD = dict(
    hidden=(100, 100), activation="relu", std=1.0, learn_alpha=False, estimator="log-prob",
    baseline="linear", outer="trpo", tasks=20,
)  # fmt: skip
ROWS = {
    "maml": {},
    "fomaml": {"algo": "fomaml"},
    "reptile": {"algo": "reptile"},
    "emaml": {"algo": "emaml"},
    "joint": {"algo": "joint"},
    "untrained": {"iterations": 0},
    "first-order": {"estimator": "first-order"},
    "log-prob": {"estimator": "log-prob"},
    "dice": {"estimator": "dice"},
    "alpha not learned": {"learn_alpha": False},
    "std 1": {"std": 1.0},
    "20 tasks": {"tasks": 20},
    "linear baseline": {"baseline": "linear"},
    "no baseline": {"baseline": "none"},
    "K = 40": {"episodes": 40, "tasks": 20},
    "trpo": {"outer": "trpo"},
    "as published": OLD,
}


@dataclass(frozen=True)
class Navigation(envs.PointMass):
    """The point mass with the published goals for test tasks,
    and none within 0.01 of them for training.
    """

    def sample_tasks(self, n, rng, split="train"):
        if split == "test":
            return GOALS[:n]
        goals = rng.uniform(-self.box, self.box, (2 * n + 10, 2))
        apart = np.linalg.norm(goals[:, None] - GOALS, axis=-1).min(1) > 0.01
        return goals[apart][:n]


def run(name, seed, minutes):
    """The returns (40, 4) on the published goals; environment steps, iterations and seconds of
    training.
    """
    algo = ROWS[name].get("algo", "maml")
    options = DEFAULTS["pointmass"] | DEFAULTS.get(f"{algo} pointmass", {}) | ROWS[name]
    iterations = options.pop("iterations", 100)
    c = Setting(env=Navigation(), seed=seed, **options)
    state = metarl.initial_state(c)
    start = time.perf_counter()
    states = metarl.train(c, state)
    while state["t"] < iterations and time.perf_counter() - start < 60 * minutes:
        state = next(states)
    seconds = time.perf_counter() - start
    _, returns = metarl.meta_test(c, state["theta"])
    return returns, float(state["env_steps"]), int(state["t"]), seconds


def line(name, numbers, *rest):
    return f"{name:22}{in_columns([f'{x:.2f}' for x in numbers], 9)}{in_columns(rest, 14)}"


def line_of(name, runs):
    """The means over seeds of what `run` returned."""
    returns, steps, iterations, seconds = zip(*runs, strict=True)
    by_seed = np.mean(returns, 1)
    spread = ""
    if len(by_seed) > 1:
        spread = f"± {by_seed[:, -1].std(ddof=1):.2f}"
    counts = (f"{np.mean(iterations):.0f}", f"{np.mean(steps):,.0f}", f"{np.mean(seconds):.0f}")
    return line(name, by_seed.mean(0), spread, *counts)


def main():
    p = parser(__doc__)
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    p.add_argument("--minutes", type=float, default=5, help="longest training of a run")
    a = p.parse_args()
    print(
        "2-D navigation, the 40 published goals: "
        f"mean return after k steps, over seeds 0 to {a.seeds - 1}"
    )
    heads = ["over seeds", "iterations", "env steps", "seconds"]
    print(f"{'k':22}{in_columns(range(4), 9)}{in_columns(heads, 14)}")
    for name, numbers in PUBLISHED.items():
        print(line(name, numbers))
    results = side_by_side(run, [(name, k, a.minutes) for name in a.only for k in range(a.seeds)])
    for name in a.only:
        print(line_of(name, islice(results, a.seeds)), flush=True)
    optimum = envs.PointMass().optimal_return(GOALS).mean()
    print(line("optimum", [optimum]))


if __name__ == "__main__":
    main()
