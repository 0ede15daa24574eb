"""A recurrent world model, the RSSM of Dreamer, with or without a context in it.

Hafner et al., "Learning Latent Dynamics for Planning from Pixels", 2019, arXiv 1811.04551, with the
loss and the GRU of DreamerV3 (Hafner et al. 2023, arXiv 2301.04104). One observation does not tell
the state of the world. So the model keeps a state of its own, in two parts:

    h_t = f(h_{t-1}, z_{t-1}, a_{t-1}, c)   what it remembers: a GRU
    z_t ~ p(z|h_t)                          what it expects of the present: the prior
    z_t ~ q(z|h_t, o_t)                     the same, with the present seen: the posterior
    o_t, r_t from (h_t, z_t, c)             what it decodes: observation and reward

z_t is a Gaussian. While it observes, z comes from q; while it dreams, from p.

    o (B, n, O)       observations
    a (B, n - 1, A)   the actions between them
    r (B, n - 1)      the rewards of these, with the observations after them
    c (B, C)          contexts; C is 0 where the model is told none
    phi (P,)          all parameters
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

import autodiff as ad
from policies import Network

LEAST_STD = 0.05  # of z


class State(NamedTuple):
    """h (..., D) and z (..., Z)."""

    h: np.ndarray
    z: np.ndarray

    def with_context(self, c):
        """(h, z, c) in one, (..., D + Z + C), for states (B, Z) or (B, n, Z)."""
        ones = (1,) * (self.h.ndim - c.ndim)
        c = c.reshape(len(c), *ones, -1)
        c = np.broadcast_to(c, (*self.h.shape[:-1], c.shape[-1]))
        return ad.concatenate([self.h, self.z, c], -1)

    def last(self):
        """The last (B, ...) of (B, n, ...)."""
        return State(self.h[:, -1], self.z[:, -1])


@dataclass(frozen=True)
class RSSM:
    observation: int  # O
    context: int  # C
    action: int = 2  # A
    h: int = 32  # D
    z: int = 8  # Z
    embedding: int = 16  # E
    units: int = 32  # in hidden layers

    @property
    def parts(self):
        """{name: network}, in the order of phi. The context is in three of them: in the input of
        the GRU, and in both decoders. Prior and posterior know of it only by h.
        """
        decoded = self.h + self.z + self.context
        return {
            "input": Network(self.z + self.action + self.context, self.units, ()),
            "gru": Network(self.h + self.units, 3 * self.h, ()),
            "prior": Network(self.h, 2 * self.z, ()),
            "embed": Network(self.observation, self.embedding, ()),
            "posterior": Network(self.h + self.embedding, 2 * self.z, ()),
            "observation": Network(decoded, self.observation, (self.units,)),
            "reward": Network(decoded, 1, (self.units,)),
        }

    def init(self, rng):
        """The first phi (P,)."""
        return np.concatenate([net.init(rng) for net in self.parts.values()])

    def at(self, phi):
        """{name: function}, the parts with their parameters; phi is an array or a Tensor."""
        functions = {}
        start = 0
        for name, net in self.parts.items():
            own = phi[start : start + net.size]
            functions[name] = net.at(own) if net.hidden else linear(net, own)
            start += net.size
        return functions

    def before(self, B):
        """The State of B models that have not yet seen anything."""
        return State(np.zeros((B, self.h)), np.zeros((B, self.z)))


def linear(net, theta):
    """net.at(theta) for a network without hidden layers, in fewer operations: there are many."""
    [(w, b)] = net.layers(theta)
    return lambda x: ad.affine(x, w, b)


# --- A step: the GRU, and the two Gaussians ---
def remember(f, state, a, c):
    """h after the action a (B, A), by the GRU; f is what RSSM.at gives.

    c times a is what a context can mean: which way the action goes. The layer before the GRU makes
    room for such products; if c went straight to the gates, there would hardly be any.
    """
    x = ad.tanh(f["input"](ad.concatenate([state.z, a, c], -1)))
    gates = f["gru"](ad.concatenate([state.h, x], -1))
    D = state.h.shape[-1]
    opened = sigmoid(gates[..., : 2 * D])
    reset = opened[..., :D]
    update = opened[..., D:]
    new = ad.tanh(reset * gates[..., 2 * D :])
    return state.h + update * (new - state.h)


def sigmoid(x):
    """1 / (1 + exp(-x)), several times as fast as ad.sigmoid, which also gets tiny values right."""
    return 0.5 + 0.5 * ad.tanh(0.5 * x)


def gaussian(output):
    """Mean and deviation of z, (..., Z) each, from what a network says, (..., 2Z)."""
    Z = output.shape[-1] // 2
    return output[..., :Z], ad.exp(output[..., Z:]) + LEAST_STD


def draw(output, eps):
    """z with the noise eps (..., Z); with 0 its mean."""
    mean, std = gaussian(output)
    return mean + std * eps


def kl(p, q):
    """KL(p || q), (...), for what networks say of both, (..., 2Z)."""
    mean_p, std_p = gaussian(p)
    mean_q, std_q = gaussian(q)
    ratio = std_p / std_q
    shift = (mean_p - mean_q) / std_q
    return ad.sum(0.5 * (ratio * ratio + shift * shift - 1) - ad.log(ratio), -1)


# --- Observing and dreaming ---
def observe(f, state, o, a, c, eps):
    """(State, what the posterior says) of each of the observations o (B, n, O): (B, n, ...).

    state: before the first of them, which no action precedes. eps (B, n, Z).
    """
    embedded = ad.tanh(f["embed"](o))
    states = []
    said = []
    for t in range(o.shape[1]):
        h = state.h
        if t > 0:
            h = remember(f, state, a[:, t - 1], c)
        said.append(f["posterior"](ad.concatenate([h, embedded[:, t]], -1)))
        state = State(h, draw(said[-1], eps[:, t]))
        states.append(state)
    return over_time(states), ad.stack(said, 1)


def dream(f, state, act, c, eps):
    """The n States (B, n, ...) after a State (B, ...), acting by a = act(t, state); eps (B, n, Z).

    Nothing is observed: z is drawn from the prior.
    """
    states = []
    for t in range(eps.shape[1]):
        h = remember(f, state, act(t, state), c)
        state = State(h, draw(f["prior"](h), eps[:, t]))
        states.append(state)
    return over_time(states)


def over_time(states):
    """n States (B, ...) as one (B, n, ...)."""
    return State(*[ad.stack(parts, 1) for parts in zip(*states, strict=True)])


# --- The loss ---
DECODED = 50.0  # the weight of a squared error: that of a Gaussian with deviation 0.1
EXPECT = 0.5  # of the divergence, as far as it moves the prior
SEEN = 0.1  # as far as it moves the posterior


def loss(model, phi, o, a, r, c, eps):
    """What phi is to make small, a number, for episodes; the mean over them and their steps.

    The prior is to expect what the posterior sees. So that the posterior rather sees than does the
    prior a favour, the prior is drawn to it more than it to the prior.
    """
    f = model.at(phi)
    states, posterior = observe(f, model.before(len(o)), o, a, c, eps)
    prior = f["prior"](states.h)
    known = states.with_context(c)
    o_error = f["observation"](known) - o
    r_error = f["reward"](known[:, 1:])[..., 0] - r
    divergence = EXPECT * kl(ad.stop_gradient(posterior), prior)
    divergence += SEEN * kl(posterior, ad.stop_gradient(prior))
    decoded = ad.mean(ad.sum(o_error * o_error, -1)) + ad.mean(r_error * r_error)
    return DECODED * decoded + ad.mean(divergence)
