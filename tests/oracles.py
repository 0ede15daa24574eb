"""Tabular problems in which everything is a finite sum: what the meta-gradient is,
and what each estimator expects.

Read from top to bottom: problems and their policy; all episodes with their probabilities; values,
and derivatives of them by complex steps; the expectation of each estimator, once from its formula,
once from what `metarl` runs. Last, a point mass whose value has a closed form.

    S, A, H, P    states, actions, horizon, S * A parameters (a logit for each action in each state)
    M             episodes that can happen
    N             inner episodes: None for the limit of infinitely many
    alpha         inner step size in units of the return J;
                  the losses of metarl are in units of J / H

All values are analytic functions of theta, real or complex, of shape (..., P).
"""

import itertools
import math
from collections import Counter
from dataclasses import dataclass
from functools import cache

import numpy as np

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from harness.settings import Setting
from policies import Policy, Trajectories


# --- Problems ---
@dataclass(frozen=True)
class Tabular:
    """A decision process.

    In state s action a pays 1 with probability success[s][a] and leads to following[s][a].

    Episodes start in state 0 and end after `horizon` steps, or where `following` is None. It has
    one task, and the methods that envs.py asks of a family.
    """

    success: tuple
    following: tuple
    horizon: int

    discrete = True
    task_dim = 1
    splits_coincide = True
    obs_dim = property(lambda self: len(self.success))
    action_dim = property(lambda self: len(self.success[0]))

    def sample_tasks(self, n, rng, split="train"):
        return np.zeros((n, 1))

    def reset(self, tasks, shape, rng):
        return np.zeros(shape, int)

    def observe(self, state):
        return np.eye(self.obs_dim)[state]

    def step(self, state, action, tasks, rng):
        reward = rng.random(state.shape) < np.array(self.success)[state, action]
        after = np.array(self.following, float)[state, action]  # None becomes NaN
        return np.nan_to_num(after).astype(int), reward.astype(float), np.isnan(after)


@dataclass(frozen=True)
class Table:
    """In place of a network: a table of logits, theta (S * A,), state by state."""

    states: int
    actions: int

    @property
    def size(self):
        return self.states * self.actions

    def at(self, theta):
        lead = theta.shape[:-1]
        table = ad.reshape(theta, (*lead, self.states, self.actions))

        def logits(obs):
            rows = obs.reshape(*lead, -1, self.states)
            return ad.reshape(ad.matmul(rows, table), (*obs.shape[:-1], self.actions))

        return logits

    def apply(self, theta, obs):
        return self.at(theta)(obs)


class Softmax(Policy):
    """A policy whose logits stand in a Table."""

    network = property(lambda self: Table(self.obs_dim, self.action_dim))


BANDIT = Tabular(((0.9, 0.1, 0.5),), ((0, 0, 0),), horizon=1)
# Action a in state 0 leads to 1 + a
TREE = Tabular(((0, 0), (1, 0), (0, 0.5)), ((1, 2), (0, 0), (0, 0)), horizon=2)
# Action 0 in state 0 ends the episode
EXIT = Tabular(((0.6, 0.2), (0.3, 1)), ((None, 1), (1, 0)), horizon=2)
THETA = {
    BANDIT: np.array([0.2, -0.1, 0.3]),
    TREE: np.array([0.3, -0.2, 0.1, 0.4, -0.5, 0.2]),
    EXIT: np.array([0.4, -0.3, -0.2, 0.1]),
}


# --- All episodes ---
def played(env, actions, rewards):
    """The steps (state, action, reward, running) of an episode,
    and the probability that it pays these rewards.
    """
    state = 0
    running = True
    steps = []
    p = 1.0
    for a, r in zip(actions, rewards, strict=True):
        steps.append((np.eye(env.obs_dim)[state], a, float(r), running))
        # After the end nothing is paid, and action 0 stands for all
        success = env.success[state][a] if running else 0
        p *= (success if r else 1 - success) * (running or a == 0)
        after = env.following[state][a]
        state = after or 0
        running = running and after is not None
    return steps, p


@cache
def episodes(env):
    """All episodes that can happen, as one task's Trajectories (1, M, H, ...),
    and P(rewards | actions) (M,).
    """
    H = env.horizon
    every = itertools.product(
        itertools.product(range(env.action_dim), repeat=H), itertools.product((0, 1), repeat=H)
    )
    possible = [(steps, p) for steps, p in (played(env, a, r) for a, r in every) if p > 0]
    columns = zip(*(zip(*steps, strict=True) for steps, _ in possible), strict=True)
    return Trajectories(*(np.array(x)[None] for x in columns)), np.array([p for _, p in possible])


def chances(env, theta):
    """pi(. | s) of each state: (..., S, A)."""
    z = theta.reshape(*theta.shape[:-1], env.obs_dim, env.action_dim)
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def probabilities(env, theta):
    """P(episode; theta): (..., M)."""
    D, p_rewards = episodes(env)
    states = D.obs[0].argmax(-1)
    actions = D.actions[0]
    return p_rewards * np.where(D.mask[0], chances(env, theta)[..., states, actions], 1).prod(-1)


def scores(env, theta):
    """grad log pi of each step, 0 after the end: (..., M, H, P)."""
    D, _ = episodes(env)
    pi = chances(env, theta)[..., D.obs[0].argmax(-1), :]
    taken = (np.eye(env.action_dim)[D.actions[0]] - pi) * D.mask[0, :, :, None]
    return (D.obs[0][..., None] * taken[..., None, :]).reshape(*pi.shape[:-1], -1)


def batches(M, N):
    """All ways to draw N of M episodes, regardless of order, (B, N),
    and the number of orders of each, (B,).
    """
    chosen = list(itertools.combinations_with_replacement(range(M), N))
    orders = [
        math.factorial(N) // math.prod(map(math.factorial, Counter(c).values())) for c in chosen
    ]
    return np.array(chosen), np.array(orders, float)


# --- Values and derivatives ---
def derivative(f, x):
    """The derivative of an analytic f at x (P,), along a new last axis,
    to the last digit (Squire & Trapp 1998).
    """
    return np.stack([f(x + 1e-30j * e).imag / 1e-30 for e in np.eye(len(x))], -1)


def value(env, theta):
    """J(theta), the expected return."""
    return probabilities(env, theta) @ episodes(env)[0].rewards[0].sum(-1)


def gradient(env, theta):
    """grad J (..., P) as the expected return times the score of the episode (Williams 1992)."""
    weights = probabilities(env, theta) * episodes(env)[0].rewards[0].sum(-1)
    return (weights[..., None] * scores(env, theta).sum(-2)).sum(-2)


def hessian(env, theta):
    return derivative(lambda x: gradient(env, x), theta)


def advantages(env, batch, baseline="none"):
    """(N, H): the rewards still to come in each episode,
    or what they exceed their mean over running episodes by.
    """
    D, _ = episodes(env)
    rewards = D.rewards[0, batch]
    mask = D.mask[0, batch]
    A = np.array([[rewards[n, t:].sum() for t in range(env.horizon)] for n in range(len(batch))])
    if baseline == "time":
        A = A - np.array(
            [A[mask[:, t], t].mean() if mask[:, t].any() else 0 for t in range(env.horizon)]
        )
    return A * mask


def adapted(env, theta, alpha, batch, baseline="none"):
    """theta' of one step of gradient ascent on a batch of inner episodes."""
    weights = advantages(env, batch, baseline)[..., None]
    return theta + alpha * (weights * scores(env, theta)[batch]).sum((0, 1)) / len(batch)


def meta_value(env, theta, alpha, N=None, steps=1, baseline="none"):
    """J^I, the value after steps along grad J, for N None;
    else J^II_N, the expected value after sampled steps.
    """
    if steps == 0:
        return value(env, theta)
    if N is None:
        return meta_value(env, theta + alpha * gradient(env, theta), alpha, N, steps - 1)
    p = probabilities(env, theta)
    return sum(
        orders
        * p[batch].prod()
        * meta_value(
            env, adapted(env, theta, alpha, batch, baseline), alpha, N, steps - 1, baseline
        )
        for batch, orders in zip(*batches(len(p), N), strict=True)
    )


def meta_gradient(env, theta, alpha, N=None, steps=1, baseline="none"):
    return derivative(lambda x: meta_value(env, x, alpha, N, steps, baseline), theta)


# --- Expectations of estimators, once from their formulas, once from what metarl.py runs ---
def squares(x):
    return x[..., None] * x[..., None, :]


HESSIANS = {  # of log pi: own, its gradients: s, their sums up to each step: past
    "first-order": lambda own, s, past: 0 * own,
    "log-prob": lambda own, s, past: own,
    "lvc": lambda own, s, past: own + squares(s),
    "dice": lambda own, s, past: own + np.diff(squares(past), axis=1, prepend=0),
}


def step_hessians(env, theta, estimator):
    """What multiplies the advantage of each step in the estimate of the Hessian of J:
    (M, H, P, P).
    """
    s = scores(env, theta)
    return HESSIANS[estimator](derivative(lambda x: scores(env, x), theta), s, s.cumsum(1))


def expectation(env, theta, alpha, estimator, N=None, sampling_term=False):
    """E[(I + alpha H) grad J(theta')], H an estimate of the Hessian;
    plus that of J(theta') sum_n grad log pi(tau_n).

    One inner step, no baseline. In the limit, N None, H is its own expectation.
    """
    C = step_hessians(env, theta, estimator)
    p = probabilities(env, theta)
    S = scores(env, theta).sum(1)
    M = len(p)

    def through(theta_prime, batch, weights):
        H = np.einsum("n,nt,ntij->ij", weights, advantages(env, batch), C[batch])
        return (np.eye(len(theta)) + alpha * H) @ gradient(env, theta_prime)

    if N is None:
        return through(theta + alpha * gradient(env, theta), np.arange(M), p)
    total = 0
    for batch, orders in zip(*batches(M, N), strict=True):
        theta_prime = adapted(env, theta, alpha, batch)
        term = value(env, theta_prime) * S[batch].sum(0) if sampling_term else 0
        total = total + orders * p[batch].prod() * (
            through(theta_prime, batch, np.full(N, 1 / N)) + term
        )
    return total


def setting(env, alpha=1.0, algo="maml", **options):
    """Undiscounted, no baseline, unless `options` say otherwise; alpha in units of J."""
    policy = Softmax(env.obs_dim, env.action_dim, env.discrete) if env.discrete else "linear"
    plain = dict(baseline="none", standardise=False, gamma=1.0, alpha_decay=1.0)
    return Setting(
        algo=algo, env=env, policy=policy, alpha=alpha * env.horizon, **(plain | options)
    )


def weighted(env, p, constant=0.0):
    """All episodes, their rewards, less a constant, times M p,
    so that means are expectations under p (T, M).
    """
    D, _ = episodes(env)
    rewards = (D.rewards - constant) * p[..., None] * p.shape[-1]
    return Trajectories(*(np.broadcast_to(x, (len(p), *x.shape[1:])) for x in D[:4]))._replace(
        rewards=rewards
    )


def program_expectation(c, theta, N=None, outer=None, constant=0.0):
    """The expectation, in units of J, of the estimate of `metarl.meta_loss`:
    one row for each course of sampling.

    N: inner episodes in each step; outer: episodes after them. For None the sum over all episodes,
    weighted by their probability, stands for the mean over sampled ones. constant: is subtracted
    from the rewards of the inner steps.
    """
    env = c.family
    k = c.inner_steps
    draws = [batches(len(episodes(env)[1]), n) if n else None for n in [N] * k + [outer]]
    rows = np.array(list(itertools.product(*(range(len(d[0])) if d else [0] for d in draws))))
    weights = np.ones(len(rows))

    def sample(step, theta):
        nonlocal weights
        p = probabilities(env, theta)
        if draws[step] is None:
            return weighted(env, p, constant if step < k else 0.0)
        batch, orders = (x[rows[:, step]] for x in draws[step])
        weights = weights * orders * np.take_along_axis(p, batch, 1).prod(1)
        return Trajectories(*(x[0, batch] for x in episodes(env)[0][:4]))

    start = Tensor(np.tile(theta, (len(rows), 1)))
    loss, _ = metarl.meta_loss(c, start, sample)
    g = grad(ad.sum(loss), start).data
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
    return -env.horizon * weights @ g


# --- A point mass in closed form ---
@dataclass(frozen=True)
class LinearGaussian:
    """A point mass without walls: actions add to its position (2,),
    it pays minus the squared distance to the goal.

    With a linear Gaussian policy the position stays Gaussian, so that J is a sum over H steps. One
    task, no end.
    """

    horizon: int = 3
    start: tuple = (1.0, -0.5)
    goal: tuple = (0.3, 0.4)

    obs_dim = 2
    action_dim = 2
    task_dim = 1
    discrete = False
    splits_coincide = True

    def sample_tasks(self, n, rng, split="train"):
        return np.zeros((n, 1))

    def reset(self, tasks, shape, rng):
        return np.broadcast_to(self.start, (*shape, 2))

    def observe(self, state):
        return state

    def step(self, state, action, tasks, rng):
        state = state + action
        return state, -((state - self.goal) ** 2).sum(-1), np.zeros(state.shape[:-1], bool)

    def value(self, theta):
        """J from the mean and covariance of each position; theta (8,):
        W (2, 2), b (2,), log std (2,).
        """
        W = np.eye(2) + theta[:4].reshape(2, 2)
        b = theta[4:6]
        std = np.exp(theta[6:])
        mean = np.array(self.start)
        covariance = np.zeros((2, 2))
        J = 0
        for _ in range(self.horizon):
            mean = mean @ W + b
            covariance = W.T @ covariance @ W + np.diag(std**2)
            J = J - ((mean - self.goal) ** 2).sum() - np.trace(covariance)
        return J

    def gradient(self, theta):
        return derivative(self.value, theta)

    def hessian(self, theta):
        """By central differences of the exact gradient: to about eight digits."""
        return (
            np.stack(
                [self.gradient(theta + e) - self.gradient(theta - e) for e in 1e-4 * np.eye(8)]
            )
            / 2e-4
        )


MASS = np.array([-0.3, 0.1, 0.05, -0.2, 0.1, 0.2, -0.7, -0.4])  # theta of a LinearGaussian
