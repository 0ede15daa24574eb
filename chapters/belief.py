"""The belief of borel.py: a VAE that tells the task from any part of what was seen in it.

VariBAD (Zintgraf et al. 2020, arXiv 1910.08348), which BOReL takes over, l.2 and 3 in borel.py:

    z             (..., latent)       what there is to know about a task
    q_phi(z|.)    (..., 2 latent)     a belief: the means of a Gaussian, then its log variances
    r^_psi(s', z) (...)               the reward of arriving at s', decoded
    w             (P,)                all parameters, phi and psi, one vector

Meta-episodes: next_obs (B, n, 2) and rewards (B, n), n steps in one task, over its episodes.
Read: what is done with Gaussians; the VAE; its loss; training.
"""

from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import numpy as np

import autodiff as ad
from chapters.common import OWN
from chapters.models import Moments, adam_step
from metarl import noise_at
from policies import Network


# --- Gaussians ---
def halves(q):
    """The means and the log variances of q, each (..., latent)."""
    middle = q.shape[-1] // 2
    return q[..., :middle], q[..., middle:]


def kl(q, p):
    """KL(q || p), (...)."""
    mu_q, log_q = halves(q)
    mu_p, log_p = halves(p)
    shift = mu_q - mu_p
    variance = ad.exp(log_q - log_p)  # in the unit of p's
    distance = shift * shift * ad.exp(-log_p)
    return 0.5 * ad.sum(variance + distance - 1 + log_p - log_q, -1)


def draw_z(q, eps):
    """z ~ q, from eps ~ N(0, I)."""
    mu, log_variance = halves(q)
    return mu + ad.exp(0.5 * log_variance) * eps


# --- The VAE ---
@dataclass(frozen=True)
class VAE:
    """q_phi(z|tau_:t) = g(h_t) of a sum over steps, h_t = h_{t-1} + f(s', r); and r^_psi(s', z).

    As a sum has no order, a belief forgets it. In a world that stays as it is it says nothing.
    """

    latent: int
    width: int  # of hidden layers, and of h

    @property
    def networks(self):
        """f, g and r^."""
        narrow = self.width // 2
        f = Network(2 + 1, self.width, (self.width,), "relu")
        g = Network(self.width, 2 * self.latent, (self.width,), "relu")
        decoder = Network(2 + self.latent, 1, (narrow, narrow), "relu")
        return f, g, decoder

    def parameters(self, w):
        """Those of f, g and r^, out of w."""
        f, g, _ = accumulate(network.size for network in self.networks)
        return w[:f], w[f:g], w[g:]

    def init(self, rng):
        w = np.concatenate([network.init(rng) for network in self.networks])
        return w.astype(np.float32)

    def seen(self, w, next_obs, rewards):
        """f(s', r), what steps (...) add to h: (..., width)."""
        f, _, _ = self.networks
        phi, _, _ = self.parameters(w)
        x = np.concatenate([next_obs, 5 * rewards[..., None]], -1)
        return 0.1 * ad.relu(f.apply(phi, x))

    def belief(self, w, h):
        """g(h), (..., 2 latent)."""
        _, g, _ = self.networks
        _, phi, _ = self.parameters(w)
        return g.apply(phi, h)

    def beliefs(self, w, next_obs, rewards):
        """Before each of the n steps and after the last: (B, n + 1, 2 latent)."""
        n = next_obs.shape[-2]
        earlier = np.tri(n + 1, n, -1, dtype=np.float32)  # in row t a 1 for each step before t
        h = ad.matmul(earlier, self.seen(w, next_obs, rewards))
        return self.belief(w, h)

    def reward(self, w, s, z):
        """r^(s', z), (...), for s' (..., 2) and z (..., latent), which broadcast."""
        _, _, decoder = self.networks
        _, _, psi = self.parameters(w)
        shape = np.broadcast_shapes(s.shape[:-1], z.shape[:-1])
        s = np.broadcast_to(s, (*shape, 2))
        z = ad.broadcast_to(z, (*shape, self.latent))
        return decoder.apply(psi, ad.concatenate([s, z], -1))[..., 0]

    def expected_reward(self, w, s, q, eps):
        """The mean of r^(s', z) over z ~ q, by draws eps (draws, latent): (...)."""
        z = draw_z(q[..., None, :], eps)
        return self.reward(w, s[..., None, :], z).mean(-1)


# --- l.3: the loss ---
def negative_elbo(vae, w, next_obs, rewards, t, eps, beta):
    """(B,), of B meta-episodes, at their prefixes t (m,), with eps (B, m, latent)."""
    q = vae.beliefs(w, next_obs, rewards)
    z = draw_z(q[:, t], eps)
    # Each z is asked for the rewards of all steps, so that a belief is about what is to come, too.
    predicted = vae.reward(w, next_obs[:, None], z[:, :, None])
    error = predicted - rewards[:, None]
    misfit = ad.mean(ad.sum(error * error, -1), 1)
    # A belief moves away from the one before only for what the step has told; the first is held
    # to N(0, I), whose mean and log variance are 0.
    first = np.zeros((len(rewards), 1, 2 * vae.latent), np.float32)
    previous = ad.concatenate([first, q[:, :-1]], 1)
    return misfit + beta * ad.sum(kl(q, previous), 1)


# --- l.2 and 3: training ---
def train_vae(o, vae, D, seed):
    """w, from meta-episodes: the Data D (N, n)."""
    rng = noise_at(seed, OWN, 2)
    N, n = D.rewards.shape
    w = vae.init(rng)
    moments = Moments()
    for _ in range(o.vae_steps):  # l.2
        i = rng.integers(N, size=o.vae_batch)
        t = rng.integers(n + 1, size=o.prefixes)
        eps = rng.standard_normal((o.vae_batch, o.prefixes, o.latent), np.float32)
        batch = dict(next_obs=D.next_obs[i], rewards=D.rewards[i], t=t, eps=eps)
        loss = partial(negative_elbo, vae, beta=o.beta, **batch)
        w, moments = adam_step(loss, w, o.step_size, moments)  # l.3
    return w
