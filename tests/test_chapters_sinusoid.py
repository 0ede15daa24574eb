"""The chapter on sine waves: gradients against differences, errors by hand, training helps."""

import numpy as np
import pytest

from autodiff import Tensor
from chapters import sinusoid


def test_waves_and_their_points():
    rng = np.random.default_rng(0)
    wave = sinusoid.sample_tasks(sinusoid.TASKS, rng)
    x, y = sinusoid.points(wave, 400, rng)
    amplitude = np.sqrt(wave(0 * x[:, :1]) ** 2 + wave(np.full_like(x[:, :1], np.pi / 2)) ** 2)
    assert x.shape == y.shape == (25, 400, 1) and np.abs(x).max() <= 5
    assert (
        (amplitude >= 0.1).all()
        and (amplitude <= 5).all()
        and (np.abs(y) <= amplitude + 1e-12).all()
    )
    assert (wave(0 * x[:, :1]) <= 0).all(), "sin(-phase) with the phase in [0, pi]"


def test_step_and_loss_against_differences():
    rng = np.random.default_rng(0)
    theta, x = rng.standard_normal((2, sinusoid.P)), rng.uniform(-5, 5, (2, 5, 1))
    loss = lambda theta: sinusoid.loss(theta, x, np.sin(x))
    moved = sinusoid.step(Tensor(theta), 0.01, x, np.sin(x)).data
    direction = rng.standard_normal((2, sinusoid.P))
    slope = (loss(theta + 1e-6 * direction) - loss(theta - 1e-6 * direction)) / 2e-6
    np.testing.assert_allclose(((theta - moved) * direction).sum(1), 0.01 * slope, rtol=1e-5)
    w = [
        theta[0, a:b]
        for a, b in ((0, 40), (40, 80), (80, 1680), (1680, 1720), (1720, 1760), (1760, 1761))
    ]
    hidden = np.maximum(x[0] * w[0] + w[1], 0)
    hidden = np.maximum(hidden @ w[2].reshape(40, 40) + w[3], 0)
    assert loss(theta)[0] == pytest.approx(
        np.mean((hidden @ w[4][:, None] + w[5] - np.sin(x[0])) ** 2)
    )


def post_adaptation_loss(z, seed):
    """What `meta_sgd` differentiates, written for each task by itself; z: theta and log alpha."""
    rng, total = np.random.default_rng(seed), 0
    wave = sinusoid.sample_tasks(sinusoid.TASKS, rng)
    given, asked = sinusoid.points(wave, 5, rng), sinusoid.points(wave, 15, rng)
    for i in range(sinusoid.TASKS):
        theta = Tensor(z[None, : sinusoid.P])
        for _ in range(2):
            theta = sinusoid.step(theta, np.exp(z[sinusoid.P :]), *(p[i : i + 1] for p in given))
            total += sinusoid.loss(theta.data, *(p[i : i + 1] for p in asked))[0]
    return total / sinusoid.TASKS


def test_meta_gradients_against_differences():
    rng, P = np.random.default_rng(1), sinusoid.P
    z = np.append(sinusoid.NETWORK.init(rng), np.full(P, np.log(0.01)))
    direction, noise = rng.standard_normal(2 * P), lambda: np.random.default_rng(2)
    rate, sample = np.append(np.zeros(P), direction[P:]), noise()
    wave = sinusoid.sample_tasks(sinusoid.TASKS, sample)
    g = sinusoid.meta_sgd(z, wave, sample)
    for part in (direction - rate, rate):
        ahead, behind = (post_adaptation_loss(z + h * part, 2) for h in (1e-6, -1e-6))
        assert g @ part == pytest.approx((ahead - behind) / 2e-6, rel=1e-4)
    sample = noise()
    wave = sinusoid.sample_tasks(sinusoid.TASKS, sample)
    np.testing.assert_allclose(sinusoid.maml(z[:P], wave, sample), g[:P], rtol=1e-9, atol=1e-12)


def test_reptile_of_a_perfect_learner_stays():
    """Where the loss is 0 there is no step:
    all waves are the network's own function, the constant 0.
    """
    z = np.zeros(sinusoid.P)
    assert not sinusoid.reptile(z, lambda x: 0 * x, np.random.default_rng(0)).any()
    g = sinusoid.reptile(z, lambda x: 0 * x + 1, np.random.default_rng(0))
    # From 0 towards 1 in five steps along 2 (b - 1): the only slope
    bias = 1 - (1 - 2 * sinusoid.ALPHA) ** 5
    assert np.flatnonzero(g).tolist() == [1760] and g[1760] == pytest.approx(-bias)


def test_errors_after_each_step_with_the_learned_rates():
    rng, n, P = np.random.default_rng(3), 3, sinusoid.P
    z = np.append(sinusoid.NETWORK.init(rng), np.log(rng.uniform(0.01, 0.05, P)))
    measured, noise = sinusoid.errors(z, 7, n), np.random.default_rng((7, 1))
    wave, x = sinusoid.sample_tasks(n, noise), noise.uniform(-5, 5, (n, 5, 1))
    theta = Tensor(np.tile(z[:P], (n, 1)))
    grid = np.linspace(-5, 5, 100)[None, :, None] * np.ones((n, 1, 1))
    for k in range(3):
        error = (sinusoid.NETWORK.apply(theta.data, grid) - wave(grid)) ** 2
        np.testing.assert_allclose(measured[:, k], error.mean((1, 2)))
        theta = sinusoid.step(theta, np.exp(z[P:]), x, wave(x))


def test_training_helps_and_is_reproducible():
    trained = [sinusoid.train(sinusoid.maml, 40, seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(trained[0], trained[1])
    assert not np.array_equal(trained[0], trained[2])
    before, after = (
        sinusoid.errors(z, 0, n=50).mean(0) for z in (sinusoid.train(None, 0, 0), trained[0])
    )
    assert before.shape == (11,) and after[1] < before[1]
