"""The policy network, rollouts, and the losses that policy gradients differentiate.

How to read it, from top to bottom:

1. `Network`, a multilayer perceptron over one flat parameter vector, and `Policy`, which makes a
   distribution of actions out of its output.
2. `rollout` runs the policies of a batch of tasks and gives their `Trajectories`.
3. Returns, baselines and `advantages`: from the episodes of each task alone, what multiplies
   grad log pi.
4. `surrogate`, whose gradient is the policy gradient, with what decides on its Hessian,
   ESTIMATORS; and `sampling_term`.

    theta          (P,) shared by all tasks, or (T, P), one row per task
    T, K, H        tasks, episodes per task, horizon
    obs, actions   (T, K, H, obs_dim), and (T, K, H, action_dim) or, if discrete, integers (T, K, H)
    D              Trajectories
    c              the options of a run: any object with these attributes (see metarl.py)
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

import autodiff as ad

# --- The network and the policy ---

# The action of a discrete policy whose logits are not finite. Without it they would choose arm 0,
# as every comparison with NaN is false, and look sound. `rollout` pays NaN for it.
NO_ACTION = -1

# They overwrite their argument, the output of an affine layer, which nothing else needs.
ACTIVATIONS = {"tanh": ad.tanh_, "relu": ad.relu_}


@dataclass(frozen=True)
class Network:
    """A multilayer perceptron whose weights are slices of a flat vector; `hidden=()` is linear.

    Layout of theta: for each layer its weights (inputs x outputs, row by row), then its biases. A
    vector may be longer: what follows belongs to others. Methods take theta (P,) for all, or (T, P)
    for each of T; arrays or Tensors.
    """

    inputs: int
    outputs: int
    hidden: tuple = (64, 64)
    activation: str = "tanh"

    @property
    def widths(self):
        """The number of units in each layer, from the inputs to the outputs."""
        return (self.inputs, *self.hidden, self.outputs)

    @property
    def size(self):
        """P, the number of parameters."""
        return sum((i + 1) * o for i, o in pairwise(self.widths))

    def init(self, rng):
        """Weights uniform with variance 2 / (inputs + outputs), biases 0: (P,).

        Glorot & Bengio 2010, equation 16.
        """
        parts = []
        for i, o in pairwise(self.widths):
            bound = math.sqrt(6 / (i + o))
            parts.append(rng.uniform(-1, 1, i * o) * bound)
            parts.append(np.zeros(o))
        return np.concatenate(parts)

    def layers(self, theta):
        """The weights (..., i, o) and biases (..., 1, o) of each layer, out of theta (..., P)."""
        batch = theta.shape[:-1]
        layers = []
        start = 0
        for i, o in pairwise(self.widths):
            middle = start + i * o
            end = middle + o
            w = theta[..., start:middle].reshape(*batch, i, o)
            b = theta[..., middle:end].reshape(*batch, 1, o)
            layers.append((w, b))
            start = end
        return layers

    def at(self, theta):
        """The network with the parameters theta: a function from x to outputs, as in `apply`."""
        batch = theta.shape[:-1]
        layers = self.layers(theta)
        activation = ACTIVATIONS[self.activation]

        def network(x):
            h = x.reshape(*batch, -1, self.inputs)  # one matrix product per parameter vector
            for n, (w, b) in enumerate(layers):
                if n > 0:
                    h = activation(h)
                h = ad.affine(h, w, b)
            return h.reshape(*x.shape[:-1], self.outputs)

        if not self.hidden and theta.ndim == 2 and isinstance(theta, np.ndarray):
            return linear_by_rows(network, *layers[0])
        return network

    def apply(self, theta, x):
        """x (..., inputs), or (T, ..., inputs) for theta (T, P), to the same with outputs last."""
        return self.at(theta)(x)


def linear_by_rows(network, w, b):
    """The linear network x @ w + b, with a faster way for x (T, 1, i), w (T, i, o) and b (T, 1, o).

    That is a population of T members with an episode each. matmul would spend its time between T
    tiny products; einsum takes one element of the matrices after the other, for all T at once. For
    that the arrays are in Fortran order, T numbers side by side (see Point.reset in envs.py). Of
    arrays only: of Tensors `affine` records what a gradient needs.
    """
    w = np.asfortranarray(w)
    b = np.asfortranarray(b)

    def faster(x):
        if x.ndim != 3 or x.shape[1] != 1:
            return network(x)
        output = np.einsum("tki,tio->tko", x, w)
        output += b  # in place: of large populations a step is then a tenth faster
        return output

    return faster


@dataclass(frozen=True)
class Policy:
    """A network with a Gaussian head, or a categorical one if `discrete`.

    The network gives the means of the actions, or the logits of the arms. A Gaussian policy has
    action_dim parameters more, at the end of theta: the logarithm of the standard deviation of each
    action, the same in all states. Methods take theta (P,) or (T, P) and obs (T, ..., obs_dim);
    arrays or, in `log_prob` and `kl`, Tensors. If `deterministic`, it acts by the mode.
    """

    obs_dim: int
    action_dim: int
    discrete: bool = False
    hidden: tuple = (64, 64)
    activation: str = "tanh"
    deterministic: bool = False
    std: float = 1.0

    @property
    def network(self):
        """What maps observations to means or logits."""
        return Network(self.obs_dim, self.action_dim, self.hidden, self.activation)

    @property
    def size(self):
        """P, the number of parameters."""
        if self.discrete:
            return self.network.size
        return self.network.size + self.action_dim

    def at(self, theta):
        """The network with the parameters theta. ValueError for more or fewer than `size`."""
        if theta.shape[-1] != self.size:
            raise ValueError(f"theta has {theta.shape[-1]} numbers, the policy takes {self.size}")
        return self.network.at(theta)

    def init(self, rng):
        """The network's first parameters, and the standard deviation as given: (P,)."""
        theta = self.network.init(rng)
        if self.discrete:
            return theta
        return np.append(theta, np.full(self.action_dim, math.log(self.std)))

    def log_std(self, theta, ndim):
        """The log deviations, with axes of length 1 to broadcast over arrays of `ndim` axes."""
        log_std = theta[..., self.size - self.action_dim :]
        ones = (1,) * (ndim - theta.ndim)
        return log_std.reshape(*theta.shape[:-1], *ones, self.action_dim)

    def mode(self, theta, obs):
        """The most probable action; of equally probable ones the first."""
        return replace(self, deterministic=True).act(theta, obs, None)

    def act(self, theta, obs, rng):
        """A sampled action, or if `deterministic` the mode; NO_ACTION for logits not finite."""
        return self.actor(theta, obs.ndim)(obs, rng)

    def actor(self, theta, ndim=3):
        """`act` as a function of obs and rng: what stays from step to step is done once.

        ndim: the number of axes of obs. In a rollout obs is (T, K, obs_dim).
        """
        network = self.at(theta)
        if not self.discrete:
            std = ad.exp(self.log_std(theta, ndim))

        def act(obs, rng):
            output = network(obs)
            if self.discrete:
                if self.deterministic:
                    arm = output.argmax(-1)
                else:
                    arm = sample_categorical(output, rng)
                return np.where(np.isfinite(output).all(-1), arm, NO_ACTION)
            if self.deterministic:
                return output
            noise = np.empty_like(output)  # of its dtype and order
            noise[...] = rng.standard_normal(output.shape)
            return output + std * noise

        return act

    def log_prob(self, theta, obs, action):
        """log pi(action | obs), summed over the dimensions of the action; a number for each obs."""
        output = self.at(theta)(obs)
        if self.discrete:
            log_pi = ad.log_softmax(output)
            return ad.take_along_axis(log_pi, action[..., None], -1)[..., 0]
        log_std = self.log_std(theta, output.ndim)
        z = (action - output) * ad.exp(-log_std)
        constant = 0.5 * self.action_dim * math.log(2 * math.pi)
        return -0.5 * ad.sum(z * z, -1) - ad.sum(log_std, -1) - constant

    def kl(self, theta, other, obs):
        """KL(pi_theta || pi_other), the Kullback-Leibler divergence in each of obs, as log_prob."""
        p = self.at(theta)(obs)
        q = self.at(other)(obs)
        if self.discrete:
            log_p = ad.log_softmax(p)
            log_q = ad.log_softmax(q)
            return ad.sum(ad.exp(log_p) * (log_p - log_q), -1)
        log_std_p = self.log_std(theta, p.ndim)
        log_std_q = self.log_std(other, q.ndim)
        ratio = ad.exp(log_std_p - log_std_q)
        shift = (p - q) * ad.exp(-log_std_q)
        return ad.sum(log_std_q - log_std_p + 0.5 * (ratio * ratio + shift * shift - 1), -1)


def sample_categorical(logits, rng):
    """For logits (..., n) an index (...): the inverse of the cumulative distribution.

    It is the number of cumulative probabilities that a uniform number has passed. The last of them,
    1 up to rounding, is left out, so that no index is n.
    """
    cumulative = np.exp(ad.log_softmax(logits)).cumsum(-1)
    u = rng.random(logits.shape[:-1])
    return (cumulative[..., :-1] <= u[..., None]).sum(-1)


# --- Episodes ---


class Trajectories(NamedTuple):
    """K episodes of each of T tasks.

    `mask` is True up to the end of an episode, the last step included; rewards are 0 after it.
    Observations and actions after it may be anything, even NaN: use `kept`.
    """

    obs: np.ndarray  # (T, K, H, obs_dim)
    actions: np.ndarray  # (T, K, H, action_dim), or integers (T, K, H)
    rewards: np.ndarray  # (T, K, H)
    mask: np.ndarray  # (T, K, H), bool
    log_pi: np.ndarray | None = (
        None  # (T, K, H), log pi_old, if actions are judged under another pi
    )

    @property
    def returns(self):
        """(T,): the mean undiscounted return of each task."""
        return self.rewards.sum(2).mean(1)

    def kept(self, x):
        """x (T, K, H, ...), an array or a Tensor, with 0 after the end of an episode.

        It is selected, not multiplied: 0 times NaN is NaN, in values and in gradients.
        """
        mask = self.mask.reshape(self.mask.shape + (1,) * (x.ndim - 3))
        return ad.where(mask, x, 0)


# A few large operations cost less than many small ones, as long as they stay in the cache. So if
# there are at most so many steps in all, a family that can judge states is asked once, at the end.
AT_ONCE = 100_000


def rollout(env, policy, theta, tasks, K, rng, keep=True):
    """K episodes in each task, acting by theta (P,) or (T, P): Trajectories.

    keep: store observations and actions too. Without, they are None, which saves time where only
    returns count.
    """
    tasks = np.asfortranarray(tasks[:, None])  # (T, 1, D): they broadcast over the episodes
    T = len(tasks)
    state = env.reset(tasks, (T, K), rng)
    act = policy.actor(theta)
    few = T * K * env.horizon <= AT_ONCE
    judged_later = few and not env.discrete and getattr(env, "judges_states", False)
    outcomes = []
    kept = []
    for _ in range(env.horizon):
        obs = env.observe(state)
        action = act(obs, rng)
        if judged_later:
            state = env.advance(state, action, tasks, rng)
            outcomes.append([state])
        else:
            state, reward, done = env.step(state, action, tasks, rng)
            if env.discrete:
                reward = np.where(action == NO_ACTION, np.nan, reward)
            outcomes.append([reward, done])
        if keep:
            kept.append([obs, action])

    # Policy gradients work along time, so the steps of an episode lie side by side in memory. Where
    # only returns count, each step is added to those before for all episodes: these do.
    columns = over_time(outcomes, "C" if keep else "F")
    if judged_later:
        [states] = columns
        columns = env.judge(states, tasks[:, :, None])
    rewards, done = columns
    obs, actions = over_time(kept, "C") if keep else (None, None)
    mask = until_the_end(done)
    return Trajectories(obs, actions, np.where(mask, rewards, 0), mask)


def over_time(steps, order):
    """Of H steps, each some arrays (T, K, ...), the arrays (T, K, H, ...), in memory by `order`."""
    columns = []
    for arrays in zip(*steps, strict=True):
        T, K, *rest = arrays[0].shape
        column = np.empty((T, K, len(arrays), *rest), arrays[0].dtype, order)
        columns.append(np.stack(arrays, 2, out=column))
    return columns


def until_the_end(done):
    """The mask (T, K, H), out of which steps end an episode (T, K, H).

    All episodes run on to the horizon. A step counts if no step before it has ended the episode.
    """
    goes_on = ~done
    mask = np.ones_like(done)
    for t in range(1, done.shape[2]):
        np.logical_and(mask[..., t - 1], goes_on[..., t - 1], out=mask[..., t])
    return mask


class Common:
    """A generator of common random numbers: what it draws for a task serves n members judged on it.

    Rows come task by task: 0 to n - 1 are the members of the first task.
    """

    def __init__(self, rng, n):
        self.rng = rng
        self.n = n

    def standard_normal(self, shape):
        return self.shared(self.rng.standard_normal, shape)

    def random(self, shape):
        return self.shared(self.rng.random, shape)

    def shared(self, draw, shape):
        rows, *rest = shape
        for_each_task = draw((rows // self.n, *rest))
        return np.repeat(for_each_task, self.n, 0)


# --- Returns, baselines, advantages ---


def returns_to_go(rewards, gamma):
    """sum_{l >= 0} gamma^l r_{t+l} along the last axis. Whole or boolean rewards give float64."""
    R = rewards.astype(np.result_type(rewards, 1.0))  # a copy, whatever the dtype
    gamma = float(gamma)  # of any type, it shall not decide on the dtype
    for t in reversed(range(R.shape[-1] - 1)):
        R[..., t] += gamma * R[..., t + 1]  # R_t = r_t + gamma R_{t+1}
    return R


def mean_over(x, mask, axis):
    """The mean of x over the axes (which stay, with length 1), of the steps that the mask keeps.

    The mean of none is 0. Where all are equal it is their value to the last bit: rounding, of which
    a sum has some, is taken back by a second mean, of what the first one leaves.
    """
    n = np.maximum(mask.sum(axis, keepdims=True), 1).astype(x.dtype)
    mean = np.where(mask, x, 0).sum(axis, keepdims=True) / n
    left = np.where(mask, x - mean, 0)
    return mean + left.sum(axis, keepdims=True) / n


def no_baseline(D, returns):
    """0 everywhere (T, K, H)."""
    return np.zeros_like(returns)


def time_baseline(D, returns):
    """The mean return-to-go at each time step over the task's episodes that still run. (T, 1, H)

    The episode itself is among them, which makes the expected gradient shorter by some 1 / K.
    """
    return mean_over(returns, D.mask, 1)


def linear_baseline(D, returns):
    """Ridge regression of the returns-to-go on features of state and time, in each task. (T, K, H)

    Duan et al. 2016. Features: o, o^2, t/100, (t/100)^2, (t/100)^3, 1; ridge 1e-5; solved in
    float64 whatever the dtype.
    """
    T, K, H = returns.shape
    t = np.arange(H)[:, None] / 100
    t = np.broadcast_to(t, (T, K, H, 1))
    obs = D.kept(D.obs).astype(float)
    features = np.concatenate([obs, obs**2, t, t**2, t**3, np.ones_like(t)], -1)
    x = D.kept(features).reshape(T, K * H, -1)  # steps after the end do not count
    y = D.kept(returns).reshape(T, K * H, 1)
    gram = x.swapaxes(1, 2) @ x + 1e-5 * np.eye(x.shape[-1])
    weights = np.linalg.solve(gram, x.swapaxes(1, 2) @ y)
    return (x @ weights).reshape(T, K, H).astype(np.result_type(returns, 1.0))


# A baseline is a function of the Trajectories and their returns-to-go (T, K, H) to values that
# broadcast to (T, K, H), each of its own task alone.
BASELINES = {"none": no_baseline, "time": time_baseline, "linear": linear_baseline}
# These contain the episode that is compared with them: of a single one they would leave nothing,
# which harness/settings.py refuses.
WITH_THE_EPISODE = ("time", "linear")


def advantages(D, baseline="time", gamma=0.99, lam=1.0, standardise=True):
    """Generalised advantage estimates of each step (T, K, H), 0 after the end of an episode.

    Schulman et al. 2016, equation 16: the sum over l of (gamma lam)^l delta_{t+l}, where
    delta_t = r_t + gamma V_{t+1} - V_t and V is the baseline. With lam = 1 they are the
    returns-to-go minus the baseline.
    baseline: a name in BASELINES. standardise: to mean 0 and standard deviation 1 over the steps of
    each task; 0 where all are equal, as they are with the baseline "time" for equal rewards in
    episodes of one length. No statistic mixes tasks.
    """
    R = returns_to_go(D.kept(D.rewards), gamma)
    # As r_t = R_t - gamma R_{t+1}, delta_t is also E_t - gamma E_{t+1}, with the errors of the
    # baseline E = R - V. So it is exactly 0 where the baseline is right.
    E = D.kept(R - BASELINES[baseline](D, R))
    after_the_last = np.zeros_like(E[..., :1])
    next_E = np.concatenate([E[..., 1:], after_the_last], -1)
    delta = E - gamma * next_E
    A = returns_to_go(delta, gamma * lam)
    if standardise:
        mean, deviation = moments(A, D.mask)
        A = D.kept(A - mean) / deviation
    return A


def moments(A, mask):
    """Mean and standard deviation of A over the steps of each task that the mask keeps.

    (T, 1, 1) each. The deviation is by n, not n - 1; infinite where all are equal (`length`).
    """
    mean = mean_over(A, mask, (1, 2))
    distance = np.where(mask, A - mean, 0)
    n = mask.sum((1, 2), keepdims=True).astype(A.dtype)
    return mean, length(distance, (1, 2)) / np.sqrt(n)


def length(x, axis=None):
    """The Euclidean length of x over the axes, which stay; but infinite where it would be 0.

    So it can be divided by: where all of x is 0, the quotient is 0, and not NaN. Squares are taken
    of x / max |x|: of large and of small numbers they would overflow to infinity or vanish.
    """
    largest = np.abs(x).max(axis, keepdims=True)
    unit = np.where(largest == 0, 1, largest)
    squares = (x / unit) ** 2
    root = unit * np.sqrt(squares.sum(axis, keepdims=True))
    return np.where(largest == 0, np.inf, root)


# --- What policy gradients differentiate ---
# An estimator is what multiplies the advantage A_t: a function of the log-ratios
#     r_t = log pi(a_t|o_t) - log pi_old(a_t|o_t)    (T, K, H).
# pi_old is a constant, as a rule pi itself. Then r is 0, but its derivatives are those of log pi.
# So all estimators have the same gradient, the policy gradient. Their second derivatives differ:
# these are what a meta-gradient sees of the inner step. With the score s_t = grad log pi_t, the sum
# S_t = s_0 + ... + s_t and the Hessian H_t of log pi_t, they are
#
#     log-prob   H_t
#     lvc        H_t + s_t s_t^T
#     dice       H_t + S_t S_t^T - S_{t-1} S_{t-1}^T
#
# What is wanted is the derivative of an expectation, in which theta also decides how probable the
# episode is: that is where the products of scores come from.


def log_ratio(r):
    """MAML's own code: the Hessian of log pi alone, biased even for a single action."""
    return r


def likelihood_ratio(r):
    """Low-variance curvature (Rothfuss et al. 2019): pi / pi_old, a ratio for each step.

    Biased where actions decide on later states.
    """
    return ad.exp(r)


def dice(r):
    """The ratio of all actions so far, less that of those before (Farquhar et al. 2019).

    Unbiased to any order where the advantages are; with rewards in their place it is DiCE (Foerster
    et al. 2018).
    """
    H = r.shape[-1]
    ones = np.triu(np.ones((H, H), r.dtype))
    so_far = ad.matmul(r, ones)  # the cumulative sum r_0 + ... + r_t
    before = so_far - r
    return ad.exp(so_far) - ad.exp(before)


# An entry of your own is an --estimator at once.
ESTIMATORS = {
    "first-order": log_ratio,
    "log-prob": log_ratio,
    "lvc": likelihood_ratio,
    "dice": dice,
}
# For these metarl.py does not record the inner gradients: they are constants, and have no Hessian.
FIRST_ORDER = ("first-order",)
# These have no products of scores, and may go with `sampling_term`, which stands for them.
WITHOUT_SCORES = ("log-prob", "first-order")


def weighted_advantages(c, D):
    """The advantages divided by K H (T, K, H), so that a sum is a mean over episodes and time.

    Steps after the end of an episode count as zeros.
    """
    _, K, H = D.rewards.shape
    A = advantages(D, c.baseline, c.gamma, c.lam, c.standardise)
    return A / (K * H)


def log_pi_of(c, theta, D):
    """log pi of the action of each step of D by theta (T, P): (T, K, H).

    After the end of an episode it is that of a state and an action of zeros.
    """
    return c.pi.log_prob(theta, D.kept(D.obs), D.kept(D.actions))


def surrogate(c, theta, D, estimator="log-prob"):
    """(T,): the loss of each task whose gradient is minus the policy gradient.

    A mean over episodes and time steps. theta: Tensor (T, P). Its Hessian is what the estimator
    says; only that of dice is an unbiased estimate of the Hessian of minus the expected return, and
    it only for advantages without bias (a baseline without the episode, not standardised).
    Where no second derivative is taken, all estimators are the same.
    """
    log_pi = log_pi_of(c, theta, D)
    log_pi_old = ad.stop_gradient(log_pi) if D.log_pi is None else D.log_pi
    r = D.kept(log_pi - log_pi_old)
    ratio = ESTIMATORS[estimator](r)
    return -ad.sum(ratio * weighted_advantages(c, D), (1, 2))


def sampling_term(c, path, episodes):
    """(T,): the loss whose gradient is minus sum_n (J(theta') - b_n) grad log pi(tau_n).

    theta decides where the inner steps lead from given episodes tau_n; it also decides which
    episodes they take. This is the second part (E-MAML, Stadie et al. 2018): episodes after which
    the adapted policy does well are made more probable.
    tau_n: all episodes of the inner steps. J(theta'): the mean discounted return of the episodes
    D' after them. b_n, if there is a baseline, a cheap guess of it: the mean return of the *other*
    episodes of the same step (0 if there is no other). A b_n that tau_n has no influence on leaves
    the expectation as it is, since the expected score is 0; the return of tau_n itself would not.
    (Exactly so without `standardise`, whose unit depends on D'.)
    """
    *inner, D_prime = episodes
    unit = unit_of_surrogate(c, D_prime)

    def discounted_returns(D):  # (T, K), in the unit of the surrogate
        return returns_to_go(D.kept(D.rewards), c.gamma)[..., 0] / unit

    J = discounted_returns(D_prime).mean(1, keepdims=True)
    loss = 0
    for theta, D in zip(path, inner, strict=False):  # the path ends with theta', which took D'
        baseline = 0
        if c.baseline != "none":
            R = discounted_returns(D)
            K = R.shape[1]
            baseline = (R.sum(1, keepdims=True) - R) / max(K - 1, 1)
        log_pi = log_pi_of(c, theta, D)
        log_pi_of_episode = ad.sum(D.kept(log_pi), 2)
        loss = loss - ad.sum(log_pi_of_episode * (J - baseline), 1)
    return loss


def unit_of_surrogate(c, D):
    """(T, 1) or a number: what returns are divided by to be in the unit of the surrogate."""
    H = D.rewards.shape[2]
    if not c.standardise:
        return H
    A = advantages(D, c.baseline, c.gamma, c.lam, standardise=False)
    _, deviation = moments(A, D.mask)
    return H * deviation[:, 0]
