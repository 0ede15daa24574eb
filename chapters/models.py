"""What the chapters that learn a model share: the model, a step of Adam, and the planner.

x (..., inputs), y (..., outputs)   state and action before a transition, and the change it makes
theta (P,)                          parameters of the model, or (B, P), a row for each of B robots
plans (B, n, H, A)                  n plans of H actions, A numbers each, for each of B robots
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from policies import Policy


@dataclass(frozen=True)
class Dynamics:
    """p_theta(y|x): a Gaussian. A network gives the mean of y.

    The deviations are the same for all x; their logarithms are the last parameters. That is what
    policies.py calls a Gaussian policy, with y for the action.
    """

    inputs: int
    outputs: int
    hidden: tuple

    @property
    def gaussian(self):
        return Policy(self.inputs, self.outputs, hidden=self.hidden)

    @property
    def size(self):
        """P, the number of parameters."""
        return self.gaussian.size

    def init(self, rng):
        """The first parameters (P,): deviations of 1."""
        return self.gaussian.init(rng)

    def mean(self, theta, x):
        """The mean of y, (..., outputs)."""
        return self.gaussian.network.apply(theta, x)

    def log_p(self, theta, x, y):
        """log p_theta(y|x), (...)."""
        return self.gaussian.log_prob(theta, x, y)


# --- Adam ---
class Moments(NamedTuple):
    """What Adam remembers: its two moments, and the number t of steps taken.

    Numbers, or arrays that broadcast with the parameters: then each row can begin anew by itself.
    """

    m: np.ndarray | float = 0.0
    v: np.ndarray | float = 0.0
    t: np.ndarray | int = 0


def adam_step(loss, w, step_size, moments):
    """w after a step of Adam down loss(w), and the moments.

    loss(w) may have an axis, say a loss of each row of w: the step goes down the sum. If each row
    decides only its own loss, each takes a step of its own.
    """
    x = Tensor(w)
    g = grad(ad.sum(loss(x)), x).data
    m, v, t = moments
    direction, m, v = metarl.adam(g, m, v, t + 1)
    return w - step_size * direction, Moments(m, v, t + 1)


# --- The planner ---
@dataclass(frozen=True)
class CEM:
    """The cross-entropy method (Rubinstein 1999): a Gaussian over plans moves to its best ones."""

    plans: int = 64
    rounds: int = 3
    elites: int = 8
    std: float = 1.0  # of each action in the first round
    bound: float = 2.0  # actions are between -bound and bound

    def plan(self, cost, mean, rng):
        """A plan for each robot, (B, H, A): the mean of the last elites.

        mean (B, H, A): the first round draws plans around it.
        cost: from plans (B, n, H, A) to what each would cost, (B, n).
        """
        B, H, A = mean.shape
        std = np.full(mean.shape, self.std)
        robot = np.arange(B)[:, None]
        for _ in range(self.rounds):
            eps = rng.standard_normal((B, self.plans, H, A))
            plans = mean[:, None] + std[:, None] * eps
            plans = plans.clip(-self.bound, self.bound)
            best = cost(plans).argsort(1)[:, : self.elites]
            elites = plans[robot, best]  # (B, self.elites, H, A)
            mean = elites.mean(1)
            std = elites.std(1)
        return mean


def later(plan):
    """The `mean` for the next step, when the first action of a plan (B, H, A) is done.

    It is the rest of the plan, with the last action twice.
    """
    return np.concatenate([plan[:, 1:], plan[:, -1:]], 1)
