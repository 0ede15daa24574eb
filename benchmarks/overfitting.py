"""Meta-overfitting: MAML on few training tasks, and on test tasks unlike the training ones.

    python -m benchmarks.overfitting [--seeds 10]

The point mass with horizon 50 and goals in [-0.5, 0.5]^2. First table: MAML trained on 1, 2, 4, 16,
64 goals over and over, or on new ones each time, adapts to its training goals and to 40 held-out
ones; regret is the optimum less the return, after 0 and 3 steps of 20 episodes, and the gap is what
the regret on held-out goals exceeds that on training goals by. A smaller pool is the beginning of a
larger. Second table: the agents trained on unlimited goals, and untrained ones, on the held-out
goals moved in a direction that the seed draws, so that they leave the box. Scores are in per cent
of the way from standing still at the origin to the optimum. Means over seeds 0, 1, ... with 95 %
intervals.
"""

from dataclasses import dataclass

import numpy as np

import envs
import metarl
from benchmarks.common import cells, in_columns, mean_and_half, parser, side_by_side, train
from benchmarks.diversity import adapted, scores
from harness.settings import Setting

POOLS = (1, 2, 4, 16, 64, 0)  # 0: unlimited
SHIFTS = (0.0, 0.25, 0.5, 1.0, 2.0)
SMALL = dict(
    hidden=(32,),
    tasks=10,
    beta=0.01,
    estimator="lvc",
    adapt_episodes=20,
    test_episodes=20,
    iterations=100,
)
HELD_OUT = 40


@dataclass(frozen=True)
class FewGoals(envs.PointMass):
    """The point mass whose training goals come from a pool of the first `pool` that `draw` draws;
    0: from all.
    """

    horizon: int = 50
    pool: int = 0
    draw: int = 0

    def goals_for_training(self):
        """(pool, 2)"""
        return super().sample_tasks(max(POOLS), np.random.default_rng(self.draw))[: self.pool]

    def sample_tasks(self, n, rng, split="train"):
        if split == "train" and self.pool:
            return self.goals_for_training()[rng.integers(self.pool, size=n)]
        return super().sample_tasks(n, rng, split)


def moved(tasks, shift, seed):
    """The tasks (T, 2) moved by `shift` in the seed's direction."""
    angle = metarl.noise_at(seed, metarl.TEST, metarl.TASKS, 1).uniform(-np.pi, np.pi)
    return tasks + shift * np.array([np.cos(angle), np.sin(angle)])


def regrets(c, theta, tasks, address):
    """(2,): the mean regret after no and after all steps."""
    returns = adapted(c, theta, tasks, *address)
    return (c.family.optimal_return(tasks)[:, None] - returns).mean(0)[[0, -1]]


def run(pool, seed):
    """Regrets (2, 2) on training and held-out goals; scores (2, S) of trained and untrained agents
    at SHIFTS, None but for unlimited goals.
    """
    c = Setting(env=FewGoals(pool=pool, draw=seed), seed=seed, **SMALL)
    theta = train(c)
    noise = metarl.noise_at(seed, metarl.TEST, metarl.TASKS, 0)
    seen = metarl.sample_tasks(c, HELD_OUT, noise)
    if 0 < pool <= HELD_OUT:
        seen = np.resize(c.family.goals_for_training(), seen.shape)
    noise = metarl.noise_at(seed, metarl.TEST, metarl.TASKS)
    held_out = metarl.sample_tasks(c, HELD_OUT, noise, "test")
    address = (seed, metarl.TEST, metarl.INNER)
    both = [regrets(c, theta, seen, (*address, 0)), regrets(c, theta, held_out, (*address, 1))]
    if pool:
        return np.array(both), None

    final = []
    for agent in (theta, metarl.initial_state(c)["theta"]):
        by_shift = []
        for shift in SHIFTS:
            goals = moved(held_out, shift, seed)
            returns = adapted(c, agent, goals, *address, 1)
            by_shift.append(scores(c.family, goals, returns)[:, -1].mean())
        final.append(by_shift)
    return np.array(both), np.array(final)


def table(seeds=10):
    """{pool: regrets (seeds, training or held-out, after 0 or 3 steps)};
    scores (seeds, trained or not, SHIFTS).
    """
    jobs = [(pool, seed) for pool in POOLS for seed in range(seeds)]
    results = dict(zip(jobs, side_by_side(run, jobs), strict=True))
    by_pool = {pool: np.stack([results[pool, seed][0] for seed in range(seeds)]) for pool in POOLS}
    return by_pool, np.stack([results[0, seed][1] for seed in range(seeds)])


def name_of(pool):
    return str(pool or "unlimited")


def conclusion(by_pool, far):
    gap = {pool: r[:, 1, 1] - r[:, 0, 1] for pool, r in by_pool.items()}
    apart = []
    for pool in POOLS:
        mean, half = mean_and_half(gap[pool])
        if abs(mean) > half:
            apart.append(name_of(pool))
    gain = (far[:, 0] - far[:, 1]).mean(0)
    worth = [f"{g:+.0f} at {shift:g}" for shift, g in zip(SHIFTS, gain, strict=True)]
    return (
        f"gap after 3 steps: from {gap[1].mean():.1f} with one training task "
        f"to {gap[0].mean():.1f} with unlimited ones; "
        f"apart from 0 with: {', '.join(apart) or 'none'}\n"
        f"what training is worth on shifted goals, trained - untrained: {', '.join(worth)}"
    )


def main():
    p = parser(__doc__)
    p.add_argument("--seeds", type=int, default=10, help="0 to N - 1, at least 2")
    seeds = p.parse_args().seeds
    if seeds < 2:
        p.error("--seeds must be at least 2")
    by_pool, far = table(seeds)
    print(f"regret (optimum - return) of MAML, seeds 0 to {seeds - 1}")
    print(f"{'training':10}{'training tasks':>28}{'held-out tasks':>28}{'gap':>14}")
    print(f"{'tasks':10}{in_columns([f'after {k}' for k in (0, 3, 0, 3, 3)], 14)}")
    for pool, r in by_pool.items():
        columns = np.column_stack([r[:, 0], r[:, 1], r[:, 1, 1] - r[:, 0, 1]])
        print(f"{name_of(pool):<10}{in_columns(cells(columns, 1), 14)}")
    print(
        "\nper cent of the way from standing still to the optimum after 3 steps, "
        "held-out goals moved by"
    )
    print(f"{'':10}{in_columns([f'{shift:g}' for shift in SHIFTS], 14)}")
    for i, name in enumerate(("trained", "untrained")):
        print(f"{name:10}{in_columns(cells(far[:, i], 0), 14)}")
    print(conclusion(by_pool, far))


if __name__ == "__main__":
    main()
