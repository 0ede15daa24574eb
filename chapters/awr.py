"""The agent of macaw.py: layers with a weight transform, the networks, and their losses.

    o        the Options of macaw.py, whose header has the algorithm: read that first
    s, a     obs and actions of Data
    phi      the parameters of V, the value function
    theta    those of the policy and of its head, which tells advantages of actions

phi and theta are lists of tensors, which may have an axis (T, ...) before their own, a row for each
task.

The weight transform. A layer has a matrix w and biases b, n numbers together. Here these are no
parameters but made out of parameters, which are adapted in their place:

    (w, b) = z W + c        z (1, d), W (d, n), c (1, n)

From one transition a plain layer learns little: a gradient step changes w by the product of what
came in and of what was wrong with what went out, a matrix of rank 1. Here the step also moves z,
and with it w along the rows of W. Each row is a matrix as large as w, of any rank, and
meta-training can choose it.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import NamedTuple

import numpy as np

import autodiff as ad
from autodiff import Tensor
from policies import Network, returns_to_go


# --- The weight transform ---
@dataclass(frozen=True)
class Transformed:
    """A network whose layers are made out of z, W and c. With d = 0 they are plain, for comparison.

    Its parameters are a list of tensors rather than a vector: so each tensor has a gradient of its
    own, and can have a step size of its own.
    """

    network: Network
    d: int

    @property
    def shapes(self):
        """Of the tensors: z, W and c of each layer; if they are plain, w and b."""
        shapes = []
        for ins, outs in pairwise(self.network.widths):
            n = (ins + 1) * outs
            if self.d == 0:
                shapes += [(ins, outs), (1, outs)]
            else:
                shapes += [(1, self.d), (self.d, n), (1, n)]
        return shapes

    def init(self, rng):
        """The first tensors. c is what Network.init gives; z, about 0.3 long, and W are small.

        The larger they are at first, the longer is an inner step, and the less of what is learned
        holds in new tasks.
        """
        layers = self.network.layers(self.network.init(rng))
        if self.d == 0:
            return [tensor for w_and_b in layers for tensor in w_and_b]
        tensors = []
        for w, b in layers:
            c = np.concatenate([w, b]).reshape(1, -1)  # row by row, as a Network has it
            z = 0.3 * np.sqrt(1 / self.d) * rng.standard_normal((1, self.d))
            W = 0.3 * np.sqrt(2 / sum(w.shape)) * rng.standard_normal((self.d, c.size))
            tensors += [z, W, c]
        return tensors

    def weights(self, tensors):
        """The weights and biases of all layers, as the network takes them: (network.size,) or
        (T, network.size).
        """
        batch = tensors[0].shape[:-2]
        layers = tensors
        if self.d > 0:
            z_W_c = zip(tensors[0::3], tensors[1::3], tensors[2::3], strict=True)
            layers = [ad.affine(z, W, c) for z, W, c in z_W_c]
        return ad.concatenate([layer.reshape(*batch, -1) for layer in layers], -1)

    def apply(self, tensors, x):
        """x (..., inputs), or (T, ..., inputs) if there are rows, to the same with outputs last."""
        return self.network.apply(self.weights(tensors), x)


# --- The networks ---
class Nets(NamedTuple):
    V: Transformed  # from (s, t / H) to the value
    trunk: Transformed  # from s; relu of what comes out are the features h
    mean: Transformed  # from h; tanh of what comes out is the mean of the action
    head: Transformed  # from (h, a) to the advantage


def nets(o):
    def net(inputs, outputs, *hidden):
        return Transformed(Network(inputs, outputs, hidden, "relu"), o.d)

    n = o.hidden
    return Nets(V=net(3, 1, n, n), trunk=net(2, n, n), mean=net(n, 2), head=net(n + 2, 1, n))


def shapes(o):
    """Of the tensors of phi, and of theta."""
    V, trunk, mean, head = nets(o)
    return V.shapes, trunk.shapes + mean.shapes + head.shapes


def of_policy(o, theta):
    """The tensors of the trunk, of the mean and of the head, out of theta."""
    _, trunk, mean, _ = nets(o)
    a = len(trunk.shapes)
    b = a + len(mean.shapes)
    return theta[:a], theta[a:b], theta[b:]


def V(o, phi, s):
    """V_phi at s (T, K, H, 2) and its time, as the steps that are left count: (T, K, H)."""
    H = s.shape[2]
    t = np.arange(H, dtype=s.dtype)[:, None] / H
    t = np.broadcast_to(t, (*s.shape[:-1], 1))
    s_and_t = np.concatenate([s, t], -1)
    return nets(o).V.apply(phi, s_and_t)[..., 0]


def features(o, theta, s):
    """h at s (T, K, ..., 2), which the mean and the head share: (T, K, ..., o.hidden)."""
    trunk, _, _ = of_policy(o, theta)
    return ad.relu(nets(o).trunk.apply(trunk, s))


def mean_action(o, theta, h):
    """The mean of pi_theta(a|s), (T, K, ..., 2), from the features of s."""
    _, mean, _ = of_policy(o, theta)
    return ad.tanh(nets(o).mean.apply(mean, h))


def told_advantage(o, theta, h, a):
    """What the head says of actions a where the features are h: (T, K, ...)."""
    _, _, head = of_policy(o, theta)
    h_and_a = ad.concatenate([h, a], -1)
    return nets(o).head.apply(head, h_and_a)[..., 0]


# --- Everything that meta-training learns is one vector ---
class Meta(NamedTuple):
    phi: list  # tensors
    theta: list
    alpha_phi: np.ndarray | Tensor  # a step size for each tensor of phi
    alpha_theta: np.ndarray | Tensor
    lam: np.ndarray | Tensor


def first(o, rng):
    """x (P,): all tensors in a row, then the logarithms of their step sizes and of lambda."""
    tensors = [tensor.ravel() for net in nets(o) for tensor in net.init(rng)]
    log_rates = np.log([o.alpha] * len(tensors) + [o.lam])
    return np.concatenate([*tensors, log_rates]).astype(np.float32)


def unpack(o, x):
    """The Meta that x (P,) or (T, P) stands for."""
    of_phi, of_theta = shapes(o)
    batch = x.shape[:-1]
    tensors = []
    start = 0
    for shape in of_phi + of_theta:
        end = start + prod(shape)
        tensors.append(x[..., start:end].reshape(*batch, *shape))
        start = end
    n = len(of_phi)
    rates = ad.exp(x[..., start:])
    return Meta(tensors[:n], tensors[n:], rates[..., :n], rates[..., n:-1], rates[..., -1])


# --- The losses, for each task (T,) ---
def returns(o, D):
    """R (T, K, H): discounted, and in the unit of a reward."""
    return (1 - o.gamma) * returns_to_go(D.rewards, o.gamma)


def advantages(o, phi, D):
    """A = R - V(s), (T, K, H): constants, through which no gradient passes."""
    constants = [ad.value(tensor) for tensor in phi]
    return returns(o, D) - V(o, constants, D.obs)


def advantage_weights(A):
    """The w of L_AWR: exp(A), after A (T, K, H) is whitened in each task; at most 20 (Peng et al.
    2019).

    Whitening takes the place of a temperature: advantages where the goal is near are smaller.
    """
    mean = A.mean((1, 2), keepdims=True)
    std = A.std((1, 2), keepdims=True)
    return np.exp(np.minimum((A - mean) / std, np.log(20, dtype=A.dtype)))


def L_V(o, phi, D):
    """V is to tell the return-to-go."""
    error = V(o, phi, D.obs) - returns(o, D)
    return ad.mean(error * error, (1, 2))


def log_pi(o, theta, h, a):
    """log pi_theta(a|s), but for a constant, of actions (T, K, H, 2) where the features are h."""
    error = (a - mean_action(o, theta, h)) / o.std
    return -0.5 * ad.sum(error * error, -1)


def L_BC(o, theta, h, D):
    """Behavioural cloning: imitation of all actions alike."""
    return -ad.mean(log_pi(o, theta, h, D.actions), (1, 2))


def L_AWR(o, theta, h, A, D):
    """Advantage-weighted regression: imitation of the better actions."""
    w = advantage_weights(A)
    return -ad.mean(w * log_pi(o, theta, h, D.actions), (1, 2))


def L_head(o, theta, h, A, D):
    """The head is to tell ten times the advantage, as that is but some tenths as a rule.

    The gradient goes to the head and, through h, to the trunk; to the layer of the mean none.
    """
    error = told_advantage(o, theta, h, D.actions) - 10 * A
    return ad.mean(error * error, (1, 2))
