"""Meta-overfitting: MAML on few training tasks, and on test tasks unlike the training ones.

    python -m chapters.overfitting [--seeds 5] [--first-seed 0] [--quick] [--plot DIR] [--json]

The lecture's rule is never to test on training tasks. What it would hide, and how far a start that
was learned on some tasks carries, is measured here, on the point mass with horizon 50 and goals in
[-0.5, 0.5]^2, with MAML (Finn et al. 2017).

First table: MAML trained on 1, 2, 4, 16, 64 goals over and over, or on new ones each time, adapts
to its training goals and to 40 held-out ones; regret is the optimum less the return, after 0 and 3
steps of 20 episodes, and the gap is the regret on held-out goals less that on training goals. A
smaller pool is the beginning of a larger. Of unlimited goals, 40 new ones take the place of those
that were trained on.

Second table: the agents trained on unlimited goals, and untrained ones, on the held-out goals moved
in a direction that the seed draws, so that the further the more of them leave the box. A start may
happen to suit one direction: over seeds it is no particular one. Scores are in per cent of the way
from standing still at the origin to the optimum.

Said plainly: with 16 training goals of two numbers each MAML no longer overfits, which says little
of tasks that are more than two numbers. Held-out tasks of the same distribution flatter it: far
outside the box what training is worth falls to nearly nothing.
"""

from dataclasses import dataclass

import numpy as np

import envs
import metarl
from chapters import common
from chapters.common import EACH, Chapter, above, below, difference, meta_train, table
from chapters.diversity import SMALL, adapted, scores
from harness.settings import Setting


@dataclass(frozen=True)
class Options:
    pools: tuple = (1, 2, 4, 16, 64, 0)  # numbers of training goals; 0: unlimited
    shifts: tuple = (0.0, 0.25, 0.5, 1.0, 2.0)
    iterations: int = 100
    held_out: int = 40


QUICK = Options(pools=(1, 64, 0), shifts=(0.0, 2.0), iterations=5)

MOST = 64  # goals in a pool


@dataclass(frozen=True)
class FewGoals(envs.PointMass):
    """The point mass whose training goals come from a pool: the first `pool` that `draw` draws.

    pool 0: from all.
    """

    horizon: int = 50
    pool: int = 0
    draw: int = 0

    def goals_for_training(self):
        """(pool, 2)"""
        return super().sample_tasks(MOST, np.random.default_rng(self.draw))[: self.pool]

    def sample_tasks(self, n, rng, split="train"):
        if split == "train" and self.pool:
            return self.goals_for_training()[rng.integers(self.pool, size=n)]
        return super().sample_tasks(n, rng, split)


def moved(tasks, shift, seed):
    """The tasks (T, 2) moved by `shift` in the seed's direction."""
    angle = metarl.noise_at(seed, metarl.TEST, metarl.TASKS, 1).uniform(-np.pi, np.pi)
    return tasks + shift * np.array([np.cos(angle), np.sin(angle)])


def regrets(c, theta, tasks, address):
    """(2,): the mean regret on the tasks before any and after all steps."""
    returns = adapted(c, theta, tasks, *address)
    return (c.family.optimal_return(tasks)[:, None] - returns).mean(0)[[0, -1]]


def seen_goals(o, c):
    """The training goals (held_out, 2) that an agent is tested on.

    A small pool is repeated, of a larger one some are drawn; of unlimited goals some new ones.
    """
    pool = c.family.pool
    if 0 < pool <= o.held_out:
        return np.resize(c.family.goals_for_training(), (o.held_out, 2))
    noise = metarl.noise_at(c.seed, metarl.TEST, metarl.TASKS, 0)
    return metarl.sample_tasks(c, o.held_out, noise)


def held_out_goals(o, c):
    noise = metarl.noise_at(c.seed, metarl.TEST, metarl.TASKS)
    return metarl.sample_tasks(c, o.held_out, noise, "test")


def far_scores(o, c, theta):
    """{shift: mean score after three steps} on held-out goals that are moved."""
    scores_of = {}
    for shift in o.shifts:
        goals = moved(held_out_goals(o, c), shift, c.seed)
        returns = adapted(c, theta, goals, c.seed, metarl.TEST, metarl.INNER, 1)
        scores_of[f"{shift:g}"] = scores(c.family, goals, returns)[:, -1].mean()
    return scores_of


def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs, the same."""
    rows = {}
    far = {}
    for pool in o.pools:
        env = FewGoals(pool=pool, draw=seed)
        c = Setting(env=env, seed=seed, iterations=o.iterations, **SMALL)
        theta = meta_train(c)["theta"]
        address = (seed, metarl.TEST, metarl.INNER)
        before, after = regrets(c, theta, seen_goals(o, c), (*address, 0))
        held_before, held_after = regrets(c, theta, held_out_goals(o, c), (*address, 1))
        rows[name_of(pool)] = {
            "training, k = 0": before,
            "training, k = 3": after,
            "held out, k = 0": held_before,
            "held out, k = 3": held_after,
            "gap, k = 3": held_after - after,
        }
        if pool == 0:
            far["trained"] = far_scores(o, c, theta)
            far["untrained"] = far_scores(o, c, metarl.initial_state(c)["theta"])
    return rows | far, rows


def name_of(pool):
    if pool == 0:
        return "unlimited goals"
    return f"{pool} goals"


# --- What is printed ---
def report(rows):
    pools = [name for name in rows if name.endswith("goals")]
    gain = difference(rows, "trained", "untrained")
    moved_by = {"trained": rows["trained"], "untrained": rows["untrained"], "worth": gain}
    return f"""
Regret (optimum - return) of MAML after k steps, by the number of training goals
{table(rows, pools, list(rows[pools[0]]), 1)}
Per cent of the way from standing still to the optimum after 3 steps; held-out goals moved by
{table(moved_by, list(moved_by), list(gain), 0)}"""


def claims(rows):
    gap = {name: row["gap, k = 3"] for name, row in rows.items() if name.endswith("goals")}
    gain = difference(rows, "trained", "untrained")
    near, *_, far = gain.values()
    return [
        above("it overfits one goal: gap", 2, gap["1 goals"]),
        above("it overfits one goal: gap", 0, gap["1 goals"], EACH),
        below("with 64 goals no longer: size of the gap", 0.5, abs(gap["64 goals"]), EACH),
        above("in the box: what training is worth", 50, near, EACH),
        below("far outside: share of that which is left", 0.4, far / near),
    ]


def draw(figure, picture):
    """Regret after three steps, by the number of training goals."""
    figure.set_size_inches(5, 3.2)
    panel = figure.subplots()
    names = list(picture)
    for goals in ("training", "held out"):
        panel.plot(names, [picture[name][f"{goals}, k = 3"] for name in names], "o-", label=goals)
    panel.set(xlabel="goals in training", ylabel="regret after 3 steps", ylim=(0, None))
    panel.set_xticks(names, [name.removesuffix(" goals") for name in names])
    panel.legend(title="tested on")


CHAPTER = Chapter("overfitting", __doc__, Options(), QUICK, run, report, claims, draw)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
