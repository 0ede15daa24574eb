"""More of the algorithms that learn by gradients, beside test_metarl.py.

The meta-gradient with the network written out and against differences, more invariances, and the
optimisers against their formulas.
"""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import autodiff as ad
import metarl
from autodiff import Tensor
from harness.settings import Setting
from metarl import adapt, meta_gradient, noise_at, sampler
from policies import surrogate
from test_metarl import (
    ADDRESS,
    HILL,
    SMALL,
    START,
    episodes_of,
    give_noise_of,
    gradient,
    outer_step,
    quadratic_setting,
    slow_advantages,
    small_problem,
)


# --- The meta-gradient ---
def slow_network(c, theta, x):
    """The means of the actions, layer by layer, and the rest of theta (P,): the log deviations."""
    start = 0
    for i, o in itertools.pairwise(c.pi.network.widths):
        if start > 0:
            x = ad.tanh(x)
        W = ad.reshape(theta[start : start + i * o], (i, o))
        b = theta[start + i * o : start + (i + 1) * o]
        x = x @ W + b
        start += (i + 1) * o
    return x, theta[start:]


def written_out(c, theta, D):
    """`slow_loss` of test_metarl.py with the network and the distribution written out too."""
    mean, log_std = slow_network(c, theta, D.obs)
    z = (D.actions - mean) / ad.exp(log_std)
    log_pi = ad.sum(-0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi), -1)
    A = slow_advantages(c, D)
    return -ad.sum(log_pi * A) / A.size


def test_meta_gradient_equals_a_loop_over_tasks_and_layers():
    """As test_meta_gradient_equals_a_loop_over_tasks, but without a policy."""
    c, theta, tasks = small_problem()
    g, _ = meta_gradient(c, theta, tasks, ADDRESS)
    first_order = c.changed(algo="fomaml", estimator="first-order")
    g_first_order, _ = meta_gradient(first_order, theta, tasks, ADDRESS)

    def loss_on(D):
        return lambda theta: written_out(c, theta, D)

    inner_losses = []
    theta_prime = []
    for i in range(3):
        loss = loss_on(episodes_of(c, np.tile(theta, (3, 1)), tasks, 0, i))
        inner_losses.append(loss)
        theta_prime.append(theta - c.alpha * gradient(loss, theta))
    for i in range(3):
        outer_loss = loss_on(episodes_of(c, np.stack(theta_prime), tasks, 1, i))
        g_prime = gradient(outer_loss, theta_prime[i])
        H_g_prime = ad.hvp(inner_losses[i], theta, g_prime)
        assert_allclose(g[i], g_prime - c.alpha * H_g_prime, rtol=1e-9, atol=1e-12)
        assert_allclose(g_first_order[i], g_prime, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("inner_steps", [1, 2])
def test_meta_gradient_equals_differences(inner_steps):
    """Central differences of L(theta - alpha grad L(theta; D); D'), all episodes held fixed."""
    c, theta, tasks = small_problem()
    c = replace(c, inner_steps=inner_steps, alpha_decay=0.7)
    thetas = np.tile(theta, (3, 1))
    sample = sampler(c, tasks, ADDRESS)
    path, episodes = adapt(c, Tensor(thetas), sample)
    episodes = [*episodes, sample(inner_steps, path[-1].data)]
    *inner, D_prime = metarl.with_log_pi(c, path, episodes)

    def inner_gradient(theta, D):
        return gradient(lambda leaf: ad.sum(surrogate(c, leaf, D)), theta)

    def outer_loss(theta):
        alpha = c.alpha
        for D in inner:
            theta = theta - alpha * inner_gradient(theta, D)
            alpha = c.alpha * 0.7
        return surrogate(c, theta, D_prime).sum()

    g, _ = meta_gradient(c, theta, tasks, ADDRESS)
    rng = noise_at(1)
    for _ in range(20):
        v = rng.standard_normal(thetas.shape)
        slope = (outer_loss(thetas + 1e-5 * v) - outer_loss(thetas - 1e-5 * v)) / 2e-5
        assert_allclose((g * v).sum(), slope, rtol=1e-6)


# --- Invariances ---
def test_permuted_tasks_permute_their_results(monkeypatch):
    c, theta, tasks = small_problem()
    g, log = meta_gradient(c, theta, tasks, ADDRESS)
    order = [2, 0, 1]
    give_noise_of(order, 3, monkeypatch)
    permuted, permuted_log = meta_gradient(c, theta, tasks[order], ADDRESS)
    assert_array_equal(permuted, g[order])
    assert_array_equal(permuted_log, log[order])


def test_batched_reptile_is_the_mean_of_serial_reptile(monkeypatch):
    c = Setting(algo="reptile", **SMALL)
    tasks = metarl.sample_tasks(c, 3, noise_at(3))
    phi = c.pi.init(noise_at(5))
    phi_k, _ = metarl.reptile_adapt(c, phi, tasks, ADDRESS)
    for i in range(3):
        give_noise_of([i], 3, monkeypatch)
        alone, _ = metarl.reptile_adapt(c, phi, tasks[[i]], ADDRESS)
        assert_allclose(alone, phi_k[[i]], rtol=1e-12, atol=1e-15)


# --- Optimisers ---
class PaperAdam:
    """Algorithm 1 of Kingma & Ba, from START."""

    def __init__(self):
        self.theta = START.copy()
        self.m = np.zeros(2)
        self.v = np.zeros(2)
        self.t = 0

    def step(self, alpha, g):
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * g
        self.v = 0.999 * self.v + 0.001 * g**2
        m_hat = self.m / (1 - 0.9**self.t)
        v_hat = self.v / (1 - 0.999**self.t)
        self.theta = self.theta - alpha * m_hat / (np.sqrt(v_hat) + 1e-8)


def test_adam_takes_the_paper_s_steps():
    """In the inner loop of Reptile, whose step size decays after the first step."""
    c = quadratic_setting("reptile", HILL, alpha=0.1, inner_steps=3, alpha_decay=0.5)
    c = replace(c, inner_optimizer="adam")
    paper = PaperAdam()
    for alpha in (0.1, 0.05, 0.05):
        paper.step(alpha, HILL.A[0] @ paper.theta)
    assert_allclose(START - outer_step(c, START), paper.theta, rtol=1e-13)


def test_outer_optimisers():
    """SGD and Adam over three steps; the first gradient, of length 5, is scaled to max_norm."""
    c = Setting(algo="maml", learn_alpha=False, beta=0.1, max_norm=2.0)
    gradients = [np.array([3.0, 4.0]), np.array([0.3, -0.1]), np.zeros(2)]
    clipped = [np.array([1.2, 1.6]), *gradients[1:]]
    start = {"theta": START, "m": np.zeros(2), "v": np.zeros(2)}
    sgd = start
    adam = start
    paper = PaperAdam()
    for t in range(3):
        sgd = metarl.descend(replace(c, outer="sgd"), sgd | {"t": t}, gradients[t])
        adam = metarl.descend(c, adam | {"t": t}, gradients[t])
        paper.step(0.1, clipped[t])
        assert_allclose(adam["theta"], paper.theta, rtol=1e-13)
    assert_allclose(sgd["theta"], START - 0.1 * np.sum(clipped, 0), rtol=1e-14)
