"""The policy network, rollouts, and the losses that policy gradients differentiate.

Read `Policy` first: a network over one flat parameter vector. `rollout` then runs it in a batch of tasks. The functions
below it compute, from the episodes of each task alone, what multiplies grad log pi; at last `surrogate`, whose gradient
is the policy gradient, with what decides on its Hessian, and `sampling_term`. `c` is a Setting: the options of a run.

    theta          (P,) shared by all tasks, or (T, P), one row per task
    T, K, H        tasks, episodes per task, horizon
    obs, actions   (T, K, H, obs_dim), and (T, K, H, action_dim) or, for discrete actions, integers (T, K, H)
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

import autodiff as ad

ACTIVATIONS = {"tanh": ad.tanh_, "relu": ad.relu_}


@dataclass(frozen=True)
class Policy:
    """A multilayer perceptron with a Gaussian head, or a categorical one if `discrete`; `hidden=()` is linear.

    Layout of theta: for each layer its weights (inputs x outputs, row by row) and its biases; the Gaussian head ends
    with the logarithm of the standard deviation of each action (the same in all states). Methods take theta (P,) or
    (T, P) and obs (T, ..., obs_dim); arrays or, in `log_prob`, Tensors.
    """

    obs_dim: int
    action_dim: int
    discrete: bool = False
    hidden: tuple = (64, 64)
    activation: str = "tanh"
    deterministic: bool = False
    std: float = 1.0

    @property
    def widths(self):
        return (self.obs_dim, *self.hidden, self.action_dim)

    @property
    def size(self):
        """P, the number of parameters."""
        weights = sum((i + 1) * o for i, o in zip(self.widths, self.widths[1:], strict=False))
        return weights + (0 if self.discrete else self.action_dim)

    def init(self, rng):
        """Weights uniform with variance 2 / (inputs + outputs) (Glorot & Bengio 2010), biases 0, std as given. (P,)"""
        theta = np.full(self.size, 0.0 if self.discrete else math.log(self.std))
        for w, b, (i, o) in self._layers():
            theta[w], theta[b] = rng.uniform(-1, 1, i * o) * math.sqrt(6 / (i + o)), 0
        return theta

    def _layers(self):
        """For each layer the slices of theta that hold its weights and its biases, and its (inputs, outputs)."""
        start = 0
        for i, o in zip(self.widths, self.widths[1:], strict=False):
            yield slice(start, start + i * o), slice(start + i * o, start + (i + 1) * o), (i, o)
            start += (i + 1) * o

    def _network(self, theta):
        """The function from obs to the means or logits, in the shape of obs up to its last axis."""
        lead, activation = theta.shape[:-1], ACTIVATIONS[self.activation]
        parts = lambda w, b, size: (
            theta[..., w].reshape(*lead, *size),
            theta[..., b].reshape(*lead, 1, size[1]),
        )
        layers = [parts(*layer) for layer in self._layers()]

        def output(obs):
            x = obs.reshape(*lead, -1, self.obs_dim)  # one matrix product per parameter vector
            for n, (w, b) in enumerate(layers):
                x = ad.affine(activation(x) if n > 0 else x, w, b)
            return x.reshape(*obs.shape[:-1], self.action_dim)

        return output

    def _log_std(self, theta, ndim):
        """The log standard deviations, with axes of length 1 to broadcast over arrays of `ndim` axes."""
        log_std = theta[..., self.size - self.action_dim :]
        return log_std.reshape(*theta.shape[:-1], *[1] * (ndim - theta.ndim), self.action_dim)

    def mode(self, theta, obs):
        """The most probable action; of equally probable ones the first."""
        return replace(self, deterministic=True).act(theta, obs, None)

    def act(self, theta, obs, rng):
        """A sampled action: the inverse of the cumulative distribution at a uniform number, or mean + std * noise.

        The mode if the policy is deterministic.
        """
        return self.actor(theta, obs.ndim)(obs, rng)

    def actor(self, theta, ndim=3):
        """`act` as a function of obs, with `ndim` axes, and rng: what does not change from step to step is done once."""
        network, std = self._network(theta), self.discrete or ad.exp(self._log_std(theta, ndim))

        def act(obs, rng):
            output = network(obs)
            if self.deterministic:
                return output.argmax(-1) if self.discrete else output
            if not self.discrete:
                return output + std * rng.standard_normal(output.shape).astype(output.dtype)
            cumulative = np.exp(ad.log_softmax(output)).cumsum(-1)
            u = rng.random(output.shape[:-1])
            return (cumulative[..., :-1] <= u[..., None]).sum(
                -1
            )  # the last sum is 1 up to rounding

        return act

    def log_prob(self, theta, obs, action):
        """log pi(action | obs), summed over the action's dimensions: the shape of obs up to its last axis."""
        output = self._network(theta)(obs)
        if self.discrete:
            return ad.take_along_axis(ad.log_softmax(output), action[..., None], -1)[..., 0]
        log_std = self._log_std(theta, output.ndim)
        z = (action - output) * ad.exp(-log_std)
        return (
            -0.5 * ad.sum(z * z, -1)
            - ad.sum(log_std, -1)
            - 0.5 * self.action_dim * math.log(2 * math.pi)
        )

    def kl(self, theta, other, obs):
        """The Kullback-Leibler divergence of pi_other from pi_theta, KL(theta || other), in the shape of log_prob."""
        p, q = self._network(theta)(obs), self._network(other)(obs)
        if self.discrete:
            p, q = ad.log_softmax(p), ad.log_softmax(q)
            return ad.sum(ad.exp(p) * (p - q), -1)
        log_p, log_q = self._log_std(theta, p.ndim), self._log_std(other, q.ndim)
        ratio, shift = ad.exp(log_p - log_q), (p - q) * ad.exp(-log_q)
        return ad.sum(log_q - log_p + 0.5 * (ratio * ratio + shift * shift - 1), -1)


class Trajectories(NamedTuple):
    """K episodes of each of T tasks. `mask` is True up to the end of an episode; rewards are 0 after it."""

    obs: np.ndarray  # (T, K, H, obs_dim)
    actions: np.ndarray  # (T, K, H, action_dim), or integers (T, K, H)
    rewards: np.ndarray  # (T, K, H)
    mask: np.ndarray  # (T, K, H), bool
    log_pi: np.ndarray | None = (
        None  # (T, K, H), of the actions under the policy that took them, if recorded
    )

    @property
    def returns(self):
        """(T,): the mean undiscounted return of each task."""
        return self.rewards.sum(2).mean(1)


def rollout(env, policy, theta, tasks, K, rng, keep=True):
    """K episodes in each task: Trajectories, whose obs and actions are None unless `keep`. theta (P,) or (T, P)."""
    tasks, shape = tasks[:, None], (len(tasks), K)
    state, steps = env.reset(tasks, shape, rng), []
    act = policy.actor(theta) if hasattr(policy, "actor") else partial(policy.act, theta)
    for _ in range(env.horizon):
        obs = env.observe(state)
        action = act(obs, rng)
        state, reward, done = env.step(state, action, tasks, rng)
        steps.append((obs, action, reward, done) if keep else (reward, done))
    *taken, rewards, done = (np.stack(column, 2) for column in zip(*steps, strict=True))
    mask = done.cumsum(2) == done  # no end before this step
    return Trajectories(*(taken or [None, None]), np.where(mask, rewards, 0), mask)


# fmt: off
class Common:
    """A generator of common random numbers: what it draws for one task serves all n members judged on it."""
    def __init__(self, noise, n): self.noise, self.n = noise, n
    def standard_normal(self, shape): return self.shared(self.noise.standard_normal, shape)
    def random(self, shape): return self.shared(self.noise.random, shape)
    def shared(self, draw, shape): return np.repeat(draw((shape[0] // self.n, *shape[1:])), self.n, 0)
# fmt: on


def returns_to_go(rewards, gamma):
    """sum_{l >= 0} gamma^l r_{t+l} along the last axis."""
    t = np.arange(rewards.shape[-1])
    powers, ahead = (
        (float(gamma) ** t).astype(rewards.dtype),
        t[:, None] - t,
    )  # r_s counts gamma^(s - t) at t <= s
    return rewards @ np.where(ahead >= 0, powers[ahead], 0)


def time_baseline(D, returns):
    """The mean return-to-go at each time step over the episodes of the task that still run. (T, 1, H)"""
    running = np.maximum(D.mask.sum(1, keepdims=True), 1).astype(returns.dtype)
    return (returns * D.mask).sum(1, keepdims=True) / running


def linear_baseline(D, returns):
    """Ridge regression of the returns-to-go on features of state and time, for each task (Duan et al. 2016). (T, K, H)

    Features: o, o^2, t/100, (t/100)^2, (t/100)^3, 1; ridge 1e-5; solved in float64 whatever the dtype.
    """
    T, K, H = returns.shape
    t = np.broadcast_to(np.arange(H)[:, None] / 100, (T, K, H, 1))
    features = (
        np.concatenate([D.obs, D.obs**2, t, t**2, t**3, np.ones_like(t)], -1) * D.mask[..., None]
    )
    x, y = features.reshape(T, K * H, -1), (returns * D.mask).reshape(T, K * H, 1)
    gram = x.swapaxes(1, 2) @ x + 1e-5 * np.eye(x.shape[-1])
    weights = np.linalg.solve(gram, x.swapaxes(1, 2) @ y)
    return (x @ weights).reshape(T, K, H).astype(returns.dtype)


BASELINES = {
    "none": lambda D, returns: np.zeros_like(returns),
    "time": time_baseline,
    "linear": linear_baseline,
}


def advantages(D, baseline="time", gamma=0.99, lam=1.0, standardise=True):
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16) of each step, 0 where the mask is. (T, K, H)

    baseline: a name in BASELINES. standardise: to mean 0 and standard deviation 1 over the steps of each task.
    With lam=1 they are the returns-to-go minus the baseline. No statistic mixes tasks.
    """
    values = BASELINES[baseline](D, returns_to_go(D.rewards, gamma)) * D.mask
    following = np.concatenate([values[..., 1:], np.zeros_like(values[..., :1])], -1)
    A = returns_to_go(D.rewards + gamma * following - values, gamma * lam)
    if standardise:
        mean, deviation = moments(A, D.mask)
        A = (A - mean) * D.mask / deviation
    return A


def moments(A, mask):
    """Mean and standard deviation (plus 1e-8) of A over the steps of each task that the mask keeps, (T, 1, 1) each."""
    n = mask.sum((1, 2), keepdims=True).astype(A.dtype)
    mean = (A * mask).sum((1, 2), keepdims=True) / n
    variance = (((A - mean) * mask) ** 2).sum((1, 2), keepdims=True) / n  # n, not n - 1
    return mean, np.sqrt(variance) + 1e-8  # beside the root


# --- What policy gradients differentiate ---
def dice(r):
    """In each step the ratio of all actions so far less that before it (Farquhar et al. 2019)."""
    so_far = ad.matmul(r, np.triu(np.ones((r.shape[-1],) * 2, r.dtype)))  # r_0 + ... + r_t
    return ad.exp(so_far) - ad.exp(so_far - r)


# From r = log pi(a_t|s_t) / pi_old(a_t|s_t) (T, K, H) to what multiplies the advantages. pi_old is a constant, as a rule
# pi itself: r is 0, but not its derivatives. The gradients agree, the Hessians do not: they decide what a meta-gradient
# sees of the inner step. Of J^I, the return after a step on infinitely many episodes:
ESTIMATORS = {
    "first-order": lambda r: r,  # the inner gradient is a constant (Finn et al. 2017, section 5.2)
    "log-prob": lambda r: (
        r
    ),  # MAML's own code: the Hessian of log pi alone, biased even for one action
    "lvc": ad.exp,  # a ratio for each step: biased where actions decide on later states (Rothfuss et al. 2019)
    "dice": dice,  # unbiased to any order (Foerster et al. 2018), with advantages for rewards
}


def weights(c, D):
    """The advantages (T, K, H) over K H: a mean over episodes and time, in which steps after the end count as zeros."""
    A = advantages(D, c.baseline, c.gamma, c.lam, c.standardise)
    return A / A[0].size


def surrogate(c, theta, D, estimator="log-prob"):
    """(T,): the loss of each task whose gradient is minus the policy gradient, a mean over episodes and time steps.

    theta: Tensor (T, P). The Hessian is what the estimator says, an estimate of that of minus J only for dice.
    """
    log_pi = c.network.log_prob(theta, D.obs, D.actions)
    old = ad.stop_gradient(log_pi) if D.log_pi is None else D.log_pi
    return -ad.sum(ESTIMATORS[estimator](log_pi - old) * weights(c, D), (1, 2))


def sampling_term(c, path, episodes):
    """(T,): the loss whose gradient is minus J(theta') sum_n grad log pi(tau_n) (Stadie et al. 2018).

    tau_n: all episodes of the inner steps. J: the mean return of D' in the units of `weights`, less, if there is a
    baseline, that of the other episodes of the same step, on which tau_n has no influence.
    """
    *inner, D_prime = episodes
    _, deviation = moments(advantages(D_prime, c.baseline, c.gamma, c.lam, False), D_prime.mask)
    unit = D_prime.rewards.shape[2] * (deviation[:, 0] if c.standardise else 1)
    value = lambda D: returns_to_go(D.rewards, c.gamma)[..., 0] / unit  # (T, K)
    loss, J = 0, value(D_prime).mean(1, keepdims=True)
    for theta, D in zip(path, inner, strict=False):
        R, K = value(D), D.rewards.shape[1]
        others = (R.sum(1, keepdims=True) - R) / max(K - 1, 1) if c.baseline != "none" else 0
        log_pi = ad.sum(c.network.log_prob(theta, D.obs, D.actions) * D.mask, 2)
        loss = loss - ad.sum(log_pi * (J - others), 1)
    return loss
