"""The agent of smac.py: its networks, their losses, and a step of learning, l.2 to 6 there.

The header of smac.py, which has the algorithm in these letters, comes first.

    s, a, r, s'      obs, actions, rewards, next_obs of Data
    z                what the agent believes of its task, (T, 1, latent): a row for each task
    h                histories: Data (T, ...) that z is inferred from
    h_prime          transitions: Data (T, n, ...) of the same tasks, to learn from
    phi, w, theta    parameters of encoder and decoder, of two critics, and of the policy
    o                the Options of smac.py

Nothing here has a world to act in.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

import autodiff as ad
from chapters.common import OWN
from chapters.models import Moments, adam_step
from chapters.offline import Data, of_episodes, of_tasks
from metarl import noise_at
from policies import Network


# --- The networks ---
class Agent(NamedTuple):
    """All parameters, float32; and what Adam remembers of phi, w and theta."""

    phi: np.ndarray  # (P,), of the encoder, then of the decoder
    w: np.ndarray  # (2, P), of two critics
    slow_w: np.ndarray  # w'
    theta: np.ndarray  # (P,), of the policy
    moments: tuple = (Moments(), Moments(), Moments())


def encoder(o):
    """From a transition (s, a, r) to a Gaussian of z: its mean, and what gives its variance."""
    return Network(2 + 2 + 1, 2 * o.latent, o.hidden, "relu")


def decoder(o):
    """From s, a and z to the reward."""
    return Network(2 + 2 + o.latent, 1, o.hidden, "relu")


def critic(o):
    """From s, a and z to Q."""
    return Network(2 + 2 + o.latent, 1, o.hidden, "relu")


def policy(o):
    """From s and z to the mean of the action, before tanh."""
    return Network(2 + o.latent, 2, o.hidden, "relu")


def first_agent(o, seed):
    rng = noise_at(seed, OWN, 2)
    phi = np.concatenate([encoder(o).init(rng), decoder(o).init(rng)])
    w = np.stack([critic(o).init(rng), critic(o).init(rng)])
    theta = policy(o).init(rng)
    return Agent(*[part.astype(np.float32) for part in (phi, w, w, theta)])


def q(o, phi, h):
    """q_phi(z|h) for histories h (T, ...): its mean and its variance, (T, 1, latent).

    The product of the Gaussians N(m_i, v_i) of all transitions i, which is a Gaussian again:

        1 / variance = sum_i 1 / v_i        mean = variance * sum_i m_i / v_i

    1 / v_i is called a precision. As these are sums, no order of transitions matters.
    """
    x = np.concatenate([h.obs, h.actions, h.rewards[..., None]], -1)
    gaussians = encoder(o).apply(phi, x.reshape(len(x), -1, 5))
    means = gaussians[..., : o.latent]
    variances = ad.softplus(gaussians[..., o.latent :]) + 1e-4  # no transition may decide alone
    precisions = 1 / variances
    precision = ad.sum(precisions, 1, keepdims=True)
    mean = ad.sum(precisions * means, 1, keepdims=True) / precision
    return mean, 1 / precision


def z_of(mean, variance, eps):
    """A draw of z."""
    return mean + ad.sqrt(variance) * eps


def beside(z, *parts):
    """The parts (..., n) side by side, and z beside them, repeated along its axes of length 1."""
    z = ad.broadcast_to(z, (*parts[0].shape[:-1], z.shape[-1]))
    return ad.concatenate([*parts, z], -1)


def decoded(o, phi, s, a, z):
    """r_phi(s, a, z), the rewards (...) that the decoder expects."""
    phi_of_decoder = phi[encoder(o).size :]
    return decoder(o).apply(phi_of_decoder, beside(z, s, a))[..., 0]


def Q(o, w, s, a, z):
    """Q_w(s, a, z) by both critics, (2, ...)."""
    x = beside(z, s, a)
    return critic(o).apply(w, ad.broadcast_to(x, (2, *x.shape)))[..., 0]


def lower(both):
    """The lower of what two critics say: where they have not learned enough they disagree."""
    return ad.minimum(both[0], both[1])


def pi(o, theta, s, z):
    """The means (..., 2) of the Gaussian pi_theta(a|s, z), whose deviation is o.std."""
    return ad.tanh(policy(o).apply(theta, beside(z, s)))


# --- l.2 to 6: a step ---
def sample(o, data, rng, oldest=0):
    """A history h (tasks, context, H, ...) and transitions h' (tasks, batch, ...) of some tasks i.

    h is of episodes from the number `oldest` on; h' of all.
    """
    T, K, H = data.rewards.shape
    i = rng.integers(T, size=o.tasks)
    k = rng.integers(oldest, K, size=(o.tasks, o.context))
    n = rng.integers(K * H, size=(o.tasks, o.batch))
    of_i = of_tasks(data, i)
    # With the steps of all episodes in a row, `of_episodes` takes single transitions.
    as_rows = Data(*[part.reshape(o.tasks, K * H, *part.shape[3:]) for part in of_i])
    return of_episodes(of_i, k), of_episodes(as_rows, n)


def reward_loss(o, phi, h, h_prime, eps):
    """The loss of l.4. That z is mean + sqrt(variance) eps gives phi a gradient through it."""
    mean, variance = q(o, phi, h)
    z = z_of(mean, variance, eps)
    error = decoded(o, phi, h_prime.obs, h_prime.actions, z) - h_prime.rewards
    kl = 0.5 * ad.sum(mean * mean + variance - 1 - ad.log(variance), -1)
    return ad.mean(error * error) + o.kl_weight * ad.mean(kl)


def targets(o, agent, h_prime, z, eps):
    """r + gamma Q_w'(s', a', z). Where an episode ends is not looked at: it is cut, not over."""
    s = h_prime.next_obs
    a = pi(o, agent.theta, s, z) + o.std * eps
    return h_prime.rewards + o.gamma * lower(Q(o, agent.slow_w, s, a, z))


def critic_loss(o, w, h_prime, z, y):
    """The loss of l.5, with targets y, of both critics together."""
    error = Q(o, w, h_prime.obs, h_prime.actions, z) - y
    return ad.sum(ad.mean(error * error, (1, 2)))


def actor_loss(o, theta, w, h_prime, z, climb):
    """The loss of l.6: log pi of the actions that were taken, weighted by exp(A / lambda).

    The weights are divided by their sum, and are constants: theta is not to change A.
    climb: also up Q_w(s, pi_theta(s, z), z), by the gradient through Q_w and pi_theta.
    """
    s = h_prime.obs
    a = h_prime.actions
    mean = pi(o, theta, s, z)
    value = lower(Q(o, w, s, mean, z))
    A = lower(Q(o, w, s, a, z)) - ad.value(value)
    log_weights = ad.log_softmax(A.reshape(-1) / o.temperature)
    weights = np.exp(log_weights).reshape(A.shape)
    error = a - mean
    log_pi = -0.5 * ad.sum(error * error, -1) / o.std**2  # but for a constant
    loss = -ad.sum(weights * log_pi)
    if climb:
        loss = loss - ad.mean(value)
    return loss


def update(o, agent, data, rng, oldest=0, climb=False, frozen=False):
    """The agent after a step on Data of all tasks.

    frozen: without l.4; oldest is for `sample`, climb for `actor_loss`.
    """
    h, h_prime = sample(o, data, rng, oldest)  # l.2
    eps = rng.standard_normal((o.tasks, 1, o.latent), np.float32)
    z = z_of(*q(o, agent.phi, h), eps)  # l.3
    phi = agent.phi
    of_phi, of_w, of_theta = agent.moments
    if not frozen:
        loss = partial(reward_loss, o, h=h, h_prime=h_prime, eps=eps)
        phi, of_phi = adam_step(loss, phi, o.step_size, of_phi)  # l.4
    eps = rng.standard_normal(h_prime.actions.shape, np.float32)
    y = targets(o, agent, h_prime, z, eps)
    loss = partial(critic_loss, o, h_prime=h_prime, z=z, y=y)
    w, of_w = adam_step(loss, agent.w, o.step_size, of_w)  # l.5
    slow_w = agent.slow_w + o.tau * (w - agent.slow_w)
    loss = partial(actor_loss, o, w=w, h_prime=h_prime, z=z, climb=climb)
    theta, of_theta = adam_step(loss, agent.theta, o.step_size, of_theta)  # l.6
    return Agent(phi, w, slow_w, theta, (of_phi, of_w, of_theta))
