"""The three problems of nichol.py, each a list of tasks with exact gradients and Hessians.

A task has

    family, policy           for metarl.py
    exact(theta)             grad L (P,) and its Hessian (P, P)
    D                        Trajectories (1, M, ...) of all M minibatches, where they are few
    chances(theta)           then: how likely each of them is, (T, M)

Trees and point mass are those of tests/oracles.py, their gradients in closed form there.
"""

import numpy as np

import autodiff as ad
from policies import Trajectories
from tests import oracles

GOALS = np.array([[0.3, 0.4], [1.0, -1.0], [-0.5, 0.2], [0.8, 0.6]])
OTHER_TREE = oracles.Tabular(((0, 0), (0.2, 0.7), (1, 0.1)), ((1, 2), (0, 0), (0, 0)), horizon=2)


class Quadratic:
    """Minibatches are losses 1/2 (theta - c)' A (theta - c), as episodes of one step that pays 1.

    The observation tells which one, the log-probability is minus its loss: so the surrogate, which
    is minus log pi times what is paid, is the loss, if its estimator is log-prob. An object is its
    own family and its own policy.
    """

    horizon = obs_dim = action_dim = 1
    discrete = False
    family = policy = property(lambda self: self)

    def __init__(self, noise, size=3, dims=2):
        roots = noise.standard_normal((size, dims, dims))
        self.A = roots @ roots.swapaxes(1, 2)
        self.c = noise.standard_normal((size, dims))
        which = np.arange(float(size))[None, :, None]
        self.D = Trajectories(
            which[..., None], which, np.ones_like(which), np.ones(which.shape, bool)
        )

    def log_prob(self, theta, obs, action):
        which = obs[:, 0, 0, 0].astype(int)
        d = theta - self.c[which]
        Ad = ad.matmul(self.A[which], ad.reshape(d, (*d.shape, 1)))[..., 0]
        return ad.reshape(-0.5 * ad.sum(d * Ad, -1), obs.shape[:-1])

    def chances(self, theta):
        return np.full((len(theta), len(self.A)), 1 / len(self.A))

    def exact(self, theta):
        return np.einsum("mij,mj->i", self.A, theta - self.c) / len(self.A), self.A.mean(0)


class Decisions:
    """A family of tests/oracles.py, with L = -J / H: J the return, H the horizon.

    Of a tabular one minibatches are its episodes. Its gradients are functions of tests/oracles.py;
    those of the point mass are methods of its class.
    """

    def __init__(self, family):
        self.family = family
        self.policy = "linear"
        if family.discrete:
            self.policy = oracles.Softmax(family.obs_dim, family.action_dim, True)
            self.D, _ = oracles.episodes(family)

    def chances(self, theta):
        return oracles.probabilities(self.family, theta)

    def exact(self, theta):
        oracle = oracles if self.family.discrete else type(self.family)
        g = oracle.gradient(self.family, theta)
        H = oracle.hessian(self.family, theta)
        return -g / self.family.horizon, -H / self.family.horizon


class Goals(oracles.LinearGaussian):
    """The point mass with the goal for a task."""

    def step(self, state, action, tasks, rng):
        state = state + action
        return state, -((state - tasks) ** 2).sum(-1), np.zeros(state.shape[:-1], bool)


def problems():
    """{name: (tasks, theta)}"""
    noise = np.random.default_rng(0)
    return {
        "quadratics": ([Quadratic(noise), Quadratic(noise)], noise.standard_normal(2)),
        "trees": ([Decisions(oracles.TREE), Decisions(OTHER_TREE)], oracles.THETA[oracles.TREE]),
        "point mass": ([Decisions(Goals(goal=tuple(goal))) for goal in GOALS], oracles.MASS),
    }
