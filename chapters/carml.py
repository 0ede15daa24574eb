"""An unsupervised curriculum: tasks that are fitted, again and again, to what the agent does.

    python -m chapters.carml [--seeds 5] [--first-seed 0] [--quick] [--plot DIR] [--json]

Jabri, Hsu, Gupta, Eysenbach, Levine & Finn, "Unsupervised Curricula for Visual Meta-Reinforcement
Learning", 2019, arXiv 1912.04226 (CARML). In our words, with the numbers that the lines carry:

    given a world without rewards
    l.1   a reservoir of trajectories of the untrained policy
    l.2   while not done:
    l.3     fit a mixture q(s, z) = pi_z q(s|z) to the reservoir, by EM:
              EM l.1   while not done:
              EM l.2     E: rho_nk, the probability of z = k given trajectory n, is proportional
                         to pi_k prod_t q(s_nt|k): one z for all of its states
              EM l.3     M: mu, variance and pi, at which the trajectories are most probable
    l.4     for some iterations:
    l.5       tasks z ~ pi
    l.6       with the reward r_z(s) = lambda log q(s|z) - log q(s)
    l.7       theta: an iteration of meta-RL on them, here of MAML
    l.8     adapt to tasks z ~ pi, and add the trajectories after adaptation to the reservoir

With lambda = 1 the reward is an estimate, from one state, of the mutual information of z and s: go
where no other skill goes. With less, (lambda - 1) log q(s|z) is added, which grows with the squared
distance from mu: go to what is new.

The claim: where tasks follow the agent, they spread over the world, they are told apart better and
better, and they teach it more than those of the first round do in as many iterations.

Read from the top: the mixture and EM, l.3; `carml`, all of it; `run`, which tests theta on goals;
what is printed. swirl.py has the world, the tasks of skills, and the setting of MAML.

Said plainly: one round catches up at three steps of adaptation. The cells that are visited do not
grow from round to round, they fall first; and one round sometimes visits more, unrecognised. (One
round: the tasks stay those of the first, through all rounds.) Trajectories for the reservoir take
an eighth more steps of the world than MAML on goals does.

Smaller than in the paper: positions in a box for pictures, so that q is a mixture of Gaussians on
what is seen, with one variance for all (with one for each, the widest would own all that is far);
MAML for a recurrent learner; six rounds. That the reservoir is kept whole and lambda is 0.99 could
not be checked against the paper.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

import autodiff as ad
import metarl
from autodiff import Tensor
from chapters import common, swirl
from chapters.common import EACH, OWN, Chapter, above, below, cell, difference, meta_train, table
from chapters.swirl import NOWHERE, Skills, meta_test, setting
from metarl import noise_at
from policies import rollout


@dataclass(frozen=True)
class Options(swirl.Training):
    std: float = 0.4  # deviation of actions at first
    iterations: int = 15  # of MAML, in a round
    rounds: int = 6
    skills: int = 8  # K
    em_steps: int = 30
    lam: float = 0.99  # lambda
    first: int = 80  # random walks in the reservoir: few, as they stay in it
    adapted_tasks: int = 32  # that the policy is adapted to at the end of a round
    kept: int = 10  # of o.episodes trajectories in each of them, for the reservoir


QUICK = Options(iterations=3, rounds=3, test_goals=10, alphas=(0.06, 0.25))

# Noise of its own: (seed, OWN, 0) random walks; of round i = 1, 2, ... (i, 0) EM; (i, 1, 0) and
# (i, 1, 1) the episodes before and after adaptation; (i, 1, 2) the tasks that it adapts to.


# --- l.3: the mixture, fitted by EM ---
class Mixture(NamedTuple):
    """q(s, z) = pi_z N(s; mu_z, variance I)."""

    mu: np.ndarray  # (K, 2)
    variance: float
    pi: np.ndarray  # (K,)


def log_q(m, s):
    """log q(s|z) for all z, (..., K), at s (..., 2)."""
    return -squares(s, m.mu) / (2 * m.variance) - np.log(2 * np.pi * m.variance)


def squares(s, mu):
    """The squared distances (..., K) of s (..., 2) from mu (K, 2)."""
    x = s[..., 0, None] - mu[:, 0]
    y = s[..., 1, None] - mu[:, 1]
    return x * x + y * y


def e_step(m, s):
    """rho (N, K) for trajectories s (N, H, 2), and what EM makes larger.

    The agent has one skill for a whole trajectory, so that the logarithms of its states add up.
    What EM makes larger: the log probability of the trajectories, plus the sum of log pi, a prior
    that lets no z die out.
    """
    log_joint = np.log(m.pi) + log_q(m, s).sum(1)
    log_marginal = ad.logsumexp(log_joint, 1, keepdims=True)
    rho = np.exp(log_joint - log_marginal)
    return rho, log_marginal.sum() + np.log(m.pi).sum()


def m_step(m, s, rho):
    """The Mixture at which what EM makes larger is largest, given rho.

    n, the sum of a z's rho, is how many trajectories it owns. With the prior pi counts n + 1.
    """
    N, H, _ = s.shape
    n = rho.sum(0)[:, None]
    mu = rho.T @ s.sum(1) / np.where(n > 0, n * H, 1)
    mu = np.where(n > 0, mu, m.mu)
    variance = (rho * squares(s, mu).sum(1)).sum() / (2 * N * H)
    return Mixture(mu, variance, (n[:, 0] + 1) / (N + len(n)))


def start(s, K, rng):
    """The Mixture that EM starts from: k-means++ (Arthur & Vassilvitskii 2007) on the means of
    trajectories. The first centre is one of them at random. Each next one is drawn with a
    probability proportional to its squared distance from the nearest centre so far.
    """
    means = s.mean(1)
    centres = means[[rng.integers(len(means))]]
    while len(centres) < K:
        nearest = squares(means, centres).min(1)
        new = rng.choice(len(means), p=nearest / nearest.sum())
        centres = np.append(centres, means[[new]], 0)
    return Mixture(centres, s.var((0, 1)).mean(), np.full(K, 1 / K))


def fit(o, s, rng, shuffle=False):
    """The Mixture of o.skills for trajectories s (N, H, 2).

    shuffle: the control, in which at each time the states are permuted across trajectories.
    """
    if shuffle:
        s = permuted(s, rng)
    m = start(s, o.skills, rng)
    for _ in range(o.em_steps):  # EM l.1
        rho, _ = e_step(m, s)  # EM l.2
        m = m_step(m, s, rho)  # EM l.3
    return m


def permuted(s, rng):
    """s (N, H, 2), the states of each time in an order of their own."""
    columns = [s[rng.permutation(len(s)), t] for t in range(s.shape[1])]
    return np.stack(columns, 1)


# --- l.1 to 8 ---
def r_z(m, lam, s):
    """The reward of all skills, (..., K), at s (..., 2).

    By Bayes log q(s) = log q(s|z) + log pi_z - log q(z|s). Put into l.6, that gives
    (lambda - 1) log q(s|z) + log q(z|s) - log pi_z, of which the last is left out: it is the same
    in all states, so that no advantage knows of it.
    """
    log_q_s_given_z = log_q(m, s)
    log_q_z_given_s = ad.log_softmax(np.log(m.pi) + log_q_s_given_z)
    return (lam - 1) * log_q_s_given_z + log_q_z_given_s


def carml(o, seed, refit=True, shuffle=False):
    """x (2P,) after all rounds; {round: {column: number}}; and a picture of each round.

    refit: without, tasks stay those of the first round.
    """
    state = None
    walks = random_walks(o, seed)
    reservoir = walks[: o.first]  # l.1
    rounds = {}
    pictures = []
    for i in range(1, o.rounds + 1):  # l.2
        if i == 1 or refit:
            m = fit(o, reservoir, noise_at(seed, OWN, i, 0), shuffle)  # l.3
        tasks = Skills(o.world, partial(r_z, m, o.lam), m.pi)  # l.5, l.6
        c = setting(o, tasks, seed)
        state = meta_train(c, state)  # l.4, l.7
        z, s = adapted(o, c, state["theta"], (seed, OWN, i, 1))  # l.8
        kept = s[:, : o.kept].reshape(-1, *s.shape[2:])
        reservoir = np.concatenate([reservoir, kept])
        s = s.reshape(-1, *s.shape[2:])
        rounds[f"round {i}"] = measures(m, z, s)
        pictures.append((m.mu, z[::16], s[::16]))
    return state["theta"], rounds, pictures


def random_walks(o, seed):
    """Trajectories (n, H, 2) of the untrained policy, whose rewards are NaN; as many as after
    adaptation in a round.
    """
    pi = setting(o, o.world, seed).pi
    theta = swirl.untrained(o, seed)
    n = o.adapted_tasks * o.episodes
    return rollout(o.world, pi, theta, NOWHERE[None], n, noise_at(seed, OWN, 0)).obs[0]


def adapted(o, c, x, address):
    """The skill of each trajectory (n,), and trajectories (tasks, K, H, 2) after one step."""
    z = c.family.sample_tasks(o.adapted_tasks, noise_at(*address, 2))
    x = np.tile(x, (len(z), 1))
    sample = metarl.sampler(c, z, address)
    path, _ = metarl.adapt(c, Tensor(x), sample)
    D = sample(1, path[-1].data)
    return np.repeat(z.argmax(1), o.episodes), D.obs


def measures(m, z, s):
    """{column: number} of a round: of its means, and of trajectories s (n, H, 2) for skills z (n,).

    spread: the root mean square of the distance of mu from their centre. recognised: the share of
    trajectories whose most probable skill is the one they were paid for.
    """
    away = m.mu - m.mu.mean(0)
    rho, _ = e_step(m, s)
    return {
        "spread": np.sqrt((away**2).sum(1).mean()),
        "cells": cells(s),
        "recognised": (rho.argmax(1) == z).mean(),
    }


def cells(s):
    """The share of the 10 x 10 cells of the box in which there is a state of s (n, H, 2)."""
    column, row = np.minimum((s + 1) * 5, 9).astype(int).reshape(-1, 2).T
    return len(np.unique(10 * row + column)) / 100


def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs."""
    on_goals = setting(o, o.world, seed)
    theta, rounds, pictures = carml(o, seed)
    one_round, rounds_of_one, _ = carml(o, seed, refit=False)
    shuffled, _, _ = carml(o, seed, shuffle=True)
    as_long = setting(o, o.world, seed, iterations=o.iterations * o.rounds)
    returns = {
        "scratch": swirl.fine_tuned(o, seed, swirl.untrained(o, seed)),
        "CARML": meta_test(on_goals, theta),
        "one round": meta_test(on_goals, one_round),
        "shuffled": meta_test(on_goals, shuffled),
        "MAML on goals": meta_test(on_goals, meta_train(as_long)["theta"]),
    }
    rows = {name: swirl.as_row(numbers) for name, numbers in returns.items()}
    rows |= {f"CARML, {name}": row for name, row in rounds.items()}
    rows |= {f"one round, {name}": row for name, row in rounds_of_one.items()}
    rows["random walk"] = {"cells": cells(random_walks(o, seed))}
    return rows, pictures


# --- What is printed ---
def report(rows):
    by_round = [name for name in rows if ", round " in name]
    walked = cell(rows["random walk"]["cells"])
    text = swirl.tables(rows, "CARML", ("scratch", "one round", "shuffled", "MAML on goals"))
    text += "\nThe means mu of each round, and trajectories after adaptation\n"
    text += table(rows, by_round, ("spread", "cells", "recognised"))
    return text + f"A random walk visits cells: {walked}; recognised by chance: 0.125\n"


def claims(rows):
    gain = difference(rows, "CARML", "scratch")
    over_one = difference(rows, "CARML", "one round")
    shuffled = difference(rows, "shuffled", "scratch")
    first, *_, last = [name for name in rows if name.startswith("CARML, round")]
    *_, last_of_one = [name for name in rows if name.startswith("one round, round")]
    spread = rows[last]["spread"] / rows[first]["spread"]
    seen = rows[last]["recognised"]
    visited = rows[last]["cells"]
    walked = visited.mean() / rows["random walk"]["cells"].mean()
    faster = "faster than scratch: CARML - scratch"
    return [
        above(f"{faster}, k = 1", 2.8, gain["k = 1"]),
        above(f"{faster}, k = 1", 0, gain["k = 1"], EACH),
        above(f"{faster}, k = 2", 1.2, gain["k = 2"]),
        above("following teaches more: CARML - one round, k = 1", 0.5, over_one["k = 1"]),
        above("tasks spread: the means, last round over first", 2, spread, EACH),
        above("tasks are told apart: recognised in the last round", 0.65, seen),
        above("better than with one round", 0.1, seen - rows[last_of_one]["recognised"]),
        above("the world is explored: cells in the last round", 0.65, visited),
        above("the same over a random walk", 2, walked),
        below(
            "trajectories count, without them worse: shuffled - scratch, k = 1",
            -1.5,
            shuffled["k = 1"],
        ),
    ]


def draw(figure, pictures):
    """For each round the means of its tasks, and trajectories after adaptation to them."""
    figure.set_size_inches(2.7 * len(pictures), 3)
    panels = figure.subplots(1, len(pictures), sharey=True)
    for i, (mu, z, s) in enumerate(pictures):
        swirl.draw_paths(panels[i], s, z)
        colours = swirl.COLOURS[: len(mu)]
        panels[i].scatter(*mu.T, s=60, c=colours, edgecolors="black", marker="X", zorder=3)
        panels[i].set_title(f"round {i + 1}")


CHAPTER = Chapter("carml", __doc__, Options(), QUICK, run, report, claims, draw)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
