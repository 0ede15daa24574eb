"""The policy network, advantages and baselines,
against loops and distributions written from their definitions.
"""

import itertools
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import autodiff as ad
import policies
from autodiff import Tensor, check_grads, grad
from metarl import noise_at
from policies import (
    Network,
    Policy,
    Trajectories,
    advantages,
    linear_baseline,
    returns_to_go,
    time_baseline,
)

KINDS = list(itertools.product([(), (4,), (5, 3)], ["tanh", "relu"], [False, True]))
T, K, H = 3, 4, 6


def network(kind):
    hidden, activation, discrete = kind
    return Policy(obs_dim=2, action_dim=3, discrete=discrete, hidden=hidden, activation=activation)


def batch(policy, dtype="f8"):
    """Parameters (T, P), all non-zero, observations and actions (T, K, H, ...)."""
    noise = noise_at(20)
    theta, obs = 0.7 * noise.standard_normal((T, policy.size)), noise.standard_normal((T, K, H, 2))
    theta, obs = theta.astype(dtype), obs.astype(dtype)
    return theta, obs, policy.act(theta, obs, noise)


def output_of(policy, theta, obs):
    """Means or logits for one observation, from the documented layout of theta,
    in loops over units.
    """
    x, rest = list(obs), list(theta)
    for n, (i, o) in enumerate(itertools.pairwise(policy.network.widths)):
        if n > 0:
            x = [np.tanh(u) if policy.activation == "tanh" else max(u, 0) for u in x]
        W, b, rest = rest[: i * o], rest[i * o : (i + 1) * o], rest[(i + 1) * o :]
        x = [b[k] + sum(x[j] * W[j * o + k] for j in range(i)) for k in range(o)]
    assert len(rest) == (0 if policy.discrete else policy.action_dim)
    return np.array(x), np.array(rest)


# --- The network by itself ---


@pytest.mark.parametrize("hidden", [(), (4,), (5, 3)])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_network_equals_loops_over_its_layers(hidden, activation):
    """For theta (P,) and (T, P), x of any shape; what follows in a longer vector is not read."""
    network = Network(2, 3, hidden, activation)
    rng = noise_at(22)
    theta = rng.standard_normal((T, network.size))
    x = rng.standard_normal((T, K, H, 2))
    y = network.apply(theta, x)
    assert y.shape == (T, K, H, 3)
    act = {"tanh": np.tanh, "relu": lambda u: np.maximum(u, 0)}[activation]
    for i, k, t in np.ndindex(T, K, H):
        h = x[i, k, t]
        rest = theta[i]
        for n, (inputs, outputs) in enumerate(itertools.pairwise((2, *hidden, 3))):
            W = rest[: inputs * outputs].reshape(inputs, outputs)
            b = rest[inputs * outputs : (inputs + 1) * outputs]
            rest = rest[(inputs + 1) * outputs :]
            h = (act(h) if n > 0 else h) @ W + b
        assert rest.size == 0
        assert_allclose(y[i, k, t], h, rtol=1e-12, atol=1e-14)
    longer = np.concatenate([theta, np.full((T, 4), np.nan)], 1)
    assert_array_equal(network.apply(longer, x), y)
    assert_allclose(network.apply(theta[0], x[0]), y[0], rtol=1e-12)
    assert_allclose(network.apply(theta[0], x[0, 0, 0]), y[0, 0, 0], rtol=1e-12)
    assert_allclose(network.at(theta)(x), y)


def test_network_takes_tensors_and_is_differentiable_to_second_order():
    network = Network(2, 3, hidden=(4,))
    rng = noise_at(23)
    theta = rng.standard_normal((T, network.size))
    x = rng.standard_normal((T, K, 2))
    assert_array_equal(network.apply(Tensor(theta), x).data, network.apply(theta, x))
    check_grads(network.apply, (theta, x))
    check_grads(lambda p: network.apply(p, x), theta[0])
    assert network.apply(theta.astype("f4"), x.astype("f4")).dtype == np.float32


def test_network_begins_as_the_policy_does():
    """Weights by Glorot & Bengio, biases 0; the policy adds its standard deviations at the end."""
    network = Network(2, 3, hidden=(4,))
    policy = Policy(2, 3, hidden=(4,), std=0.5)
    theta = network.init(noise_at(24))
    assert theta.shape == (network.size,) == (2 * 4 + 4 + 4 * 3 + 3,)
    assert_array_equal(policy.init(noise_at(24)), [*theta, *np.log([0.5] * 3)])
    assert policy.network == network


# --- The policy ---


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_and_mode_equal_scipy_for_each_observation(kind):
    policy = network(kind)
    theta, obs, actions = batch(policy)
    log_p, mode = policy.log_prob(theta, obs, actions), policy.mode(theta, obs)
    assert log_p.shape == (T, K, H)
    for index in np.ndindex(T, K, H):
        out, log_std = output_of(policy, theta[index[0]], obs[index])
        if policy.discrete:
            expected = out[actions[index]] - np.log(np.exp(out).sum())
            assert mode[index] == np.argmax(out)
        else:
            expected = stats.norm.logpdf(actions[index], out, np.exp(log_std)).sum()
            assert_allclose(mode[index], out, rtol=1e-12, atol=1e-14)
        assert_allclose(log_p[index], expected, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_shared_parameters_and_any_batch_shape(kind):
    policy = network(kind)
    theta, obs, actions = batch(policy)
    whole = policy.log_prob(theta[0], obs, actions)
    assert_allclose(whole, policy.log_prob(np.tile(theta[0], (T, 1)), obs, actions), rtol=1e-12)
    assert_allclose(policy.log_prob(theta[0], obs[0, 0], actions[0, 0]), whole[0, 0], rtol=1e-12)
    assert_allclose(
        policy.log_prob(theta[0], obs[0, 0, 0], actions[0, 0, 0]), whole[0, 0, 0], rtol=1e-12
    )
    assert_allclose(
        policy.log_prob(theta, obs[:, :, 0], actions[:, :, 0])[0], whole[0, :, 0], rtol=1e-12
    )


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_is_differentiable_to_second_order(kind):
    policy = network(kind)
    theta, obs, actions = batch(policy)
    for parameters in (theta, theta[0]):
        check_grads(lambda p: policy.log_prob(p, obs, actions), parameters)


def test_gradient_of_the_gaussian_head_in_closed_form():
    """A linear policy: d log pi / d mean = (a - mean) / std^2, d / d log std = z^2 - 1."""
    policy = Policy(2, 2, hidden=())
    theta = np.array([0.3, -1, 0.2, 0.5, 0.1, -0.2, 0.4, -0.7])
    obs = np.array([[1.5, -2.0]])
    action = np.array([[0.3, 1.2]])
    mean, std = obs[0] @ theta[:4].reshape(2, 2) + theta[4:6], np.exp(theta[6:])
    slope = (action[0] - mean) / std**2
    leaf = Tensor(theta)
    g = grad(policy.log_prob(leaf, obs, action)[0], leaf).data
    assert_allclose(
        g,
        [*np.outer(obs[0], slope).ravel(), *slope, *((action[0] - mean) / std) ** 2 - 1],
        rtol=1e-12,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_initialisation(kind):
    """Weights uniform with variance 2 / (inputs + outputs);
    biases and log standard deviations 0.
    """
    hidden, activation, discrete = kind
    policy = Policy(50, 40, discrete, hidden and (60, 30)[: len(hidden)], activation)
    theta, start = policy.init(noise_at(0)), 0
    assert theta.shape == (policy.size,)
    for i, o in itertools.pairwise(policy.network.widths):
        W, start = theta[start : start + i * o], start + i * o
        limit = np.sqrt(6 / (i + o))
        assert 0.99 * limit < np.abs(W).max() <= limit and abs(W.var() * (i + o) / 2 - 1) < 0.1
        assert not theta[start : start + o].any()
        start += o
    assert not theta[start:].any() and policy.size - start == (0 if discrete else 40)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [-1, 1])
def test_theta_of_another_length_is_refused(kind, more):
    """Whatever follows theta in a longer vector, step sizes say, has to be cut off before."""
    policy = network(kind)
    theta, obs, actions = batch(policy)
    other = np.zeros((T, policy.size + more))
    words = f"theta has {policy.size + more} numbers, the policy takes {policy.size}"
    with pytest.raises(ValueError, match=words):
        policy.act(other, obs, noise_at(25))
    with pytest.raises(ValueError, match=words):
        policy.log_prob(other, obs, actions)
    with pytest.raises(ValueError, match=words):
        policy.kl(theta, other, obs)


def test_sampled_actions_have_the_distribution_of_log_prob():
    noise, n = noise_at(21), 100_000
    gaussian, categorical = Policy(1, 2, hidden=()), Policy(1, 4, discrete=True, hidden=())
    theta = np.array([0.5, -1.0, 0.2, 0.3, -0.5, 0.4])
    actions = gaussian.act(theta, np.ones((n, 1)), noise)
    for axis, (mean, log_std) in enumerate([(0.7, -0.5), (-0.7, 0.4)]):
        assert stats.kstest(actions[:, axis], stats.norm(mean, np.exp(log_std)).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(actions.T)[0, 1]) < 0.01
    logits = np.array([0.1, -1.0, 1.2, 0.4, 0, 0, 0.3, 0])
    counts = np.bincount(categorical.act(logits, np.ones((n, 1)), noise), minlength=4)
    p = np.exp([categorical.log_prob(logits, np.ones((1, 1)), np.array([a]))[0] for a in range(4)])
    assert_allclose(p.sum(), 1, rtol=1e-12)
    assert stats.chisquare(counts, n * p).pvalue > 1e-3


class Fixed:
    """A generator that draws given uniform numbers."""

    def __init__(self, u):
        self.u = np.array(u)

    def random(self, shape):
        return self.u.reshape(shape)


def test_categorical_sampling_inverts_the_cumulative_distribution():
    """Action a for u in [c_{a-1}, c_a); never one past the last, however the sums round."""
    policy = Policy(1, 4, discrete=True, hidden=())
    u = [0, 0.2499, 0.25, 0.4999, 0.75, np.nextafter(1, 0)]
    actions = policy.act(np.zeros(8), np.zeros((6, 1)), Fixed(u))
    assert_array_equal(actions, [0, 0, 1, 1, 3, 3])
    for seed in range(20):
        theta = np.append(noise_at(seed).standard_normal(4), np.zeros(4)).astype("f4")
        assert policy.act(theta, np.zeros((1, 1), "f4") + 1, Fixed([np.nextafter(1, 0)])) < 4


@pytest.mark.parametrize("kind", KINDS)
def test_float32_stays_float32(kind):
    policy = network(kind)
    theta, obs, actions = batch(policy, "f4")
    assert policy.log_prob(theta, obs, actions).dtype == np.float32
    assert policy.discrete or actions.dtype == policy.mode(theta, obs).dtype == np.float32


# --- Returns, baselines, advantages ---


def episodes(seed=30, dtype="f8"):
    """Episodes of random lengths, one of a single step and one that never ends."""
    noise = noise_at(seed)
    lengths = noise.integers(1, H + 1, (T, K))
    lengths[0, 0], lengths[0, 1] = 1, H
    mask = np.arange(H) < lengths[..., None]
    obs, rewards = noise.standard_normal((T, K, H, 2)), noise.standard_normal((T, K, H)) * mask
    return Trajectories(
        obs.astype(dtype), np.zeros((T, K, H, 1), dtype), rewards.astype(dtype), mask
    )


def test_returns_to_go_equal_a_double_sum():
    rewards = noise_at(31).standard_normal((T, K, H))
    G = returns_to_go(rewards, 0.9)
    for i, k, t in np.ndindex(T, K, H):
        assert_allclose(
            G[i, k, t], sum(0.9 ** (u - t) * rewards[i, k, u] for u in range(t, H)), rtol=1e-12
        )
    assert returns_to_go(rewards.astype("f4"), 0.9).dtype == np.float32


def test_time_baseline_is_the_mean_over_episodes_that_run():
    D = episodes()
    G = returns_to_go(D.rewards, 0.9)
    V = time_baseline(D, G)
    for i, t in np.ndindex(T, H):
        running = D.mask[i, :, t]
        assert_allclose(V[i, 0, t], G[i, running, t].mean() if running.any() else 0, rtol=1e-12)


def test_linear_baseline_is_the_ridge_regression_of_each_task():
    """Duan et al. 2016: features o, o^2, t/100, (t/100)^2, (t/100)^3, 1, ridge 1e-5;
    as augmented least squares.
    """
    D = episodes()
    G = returns_to_go(D.rewards, 0.9)
    V = linear_baseline(D, G)
    for i in range(T):
        x, y = [], []
        for k, t in np.argwhere(D.mask[i]):
            s, u = D.obs[i, k, t], t / 100
            x.append([*s, *s**2, u, u**2, u**3, 1])
            y.append(G[i, k, t])
        w = np.linalg.lstsq(
            np.vstack([x, np.sqrt(1e-5) * np.eye(8)]), np.append(y, np.zeros(8)), rcond=None
        )[0]
        assert_allclose(V[i][D.mask[i]], np.array(x) @ w, rtol=1e-6, atol=1e-8)
        assert not V[i][~D.mask[i]].any()
    assert linear_baseline(episodes(dtype="f4"), G.astype("f4")).dtype == np.float32


@pytest.mark.parametrize("baseline", policies.BASELINES)
@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("standardise", [False, True])
def test_advantages_equal_a_loop(baseline, lam, standardise):
    """Schulman et al. 2016, eq. 16: sum_l (gamma lambda)^l delta_{t+l}, delta = r + gamma V' - V,
    up to the end.
    """
    D, gamma = episodes(), 0.9
    V = np.broadcast_to(
        policies.BASELINES[baseline](D, returns_to_go(D.rewards, gamma)), D.rewards.shape
    )
    A = np.zeros((T, K, H))
    for i, k in np.ndindex(T, K):
        n = D.mask[i, k].sum()
        ahead = [V[i, k, t + 1] if t + 1 < n else 0 for t in range(n)]
        delta = [D.rewards[i, k, t] + gamma * ahead[t] - V[i, k, t] for t in range(n)]
        for t in range(n):
            A[i, k, t] = sum((gamma * lam) ** (u - t) * delta[u] for u in range(t, n))
    if standardise:
        for i in range(T):
            valid = A[i][D.mask[i]]
            A[i] = np.where(D.mask[i], (A[i] - valid.mean()) / valid.std(), 0)
    assert_allclose(advantages(D, baseline, gamma, lam, standardise), A, rtol=1e-9, atol=1e-12)


def test_with_lambda_1_advantages_are_returns_minus_baseline():
    D = episodes()
    G = returns_to_go(D.rewards, 0.9)
    A = advantages(D, "linear", 0.9, 1.0, standardise=False)
    assert_allclose(A, (G - linear_baseline(D, G)) * D.mask, rtol=1e-9, atol=1e-10)
    # What is taken where nothing is said
    assert_array_equal(advantages(D), advantages(D, "time", 0.99, 1.0, True))


@pytest.mark.parametrize("baseline", policies.BASELINES)
def test_no_statistic_mixes_tasks_and_none_sees_what_comes_after_the_end(baseline):
    D = episodes()
    A = advantages(D, baseline)
    scale = np.array([1.0, 50.0, 1.0])[:, None, None]
    other = advantages(D._replace(rewards=D.rewards * scale), baseline)
    assert_allclose(other[[0, 2]], A[[0, 2]], rtol=1e-9)
    junk = np.where(D.mask[..., None], D.obs, 1e3)
    assert_allclose(advantages(D._replace(obs=junk), baseline), A, rtol=1e-9, atol=1e-12)
    assert not A[~D.mask].any()


def test_equal_returns_give_no_advantage():
    D = episodes()._replace(rewards=np.zeros((T, K, H)))
    assert not advantages(D, "time").any()


def test_networks_and_policies_are_values():
    """Equal ones are one key of a dictionary, and none can be changed behind its back."""
    assert len({Network(2, 3), Network(2, 3), Network(2, 4)}) == 2
    assert len({Policy(2, 3), Policy(2, 3), Policy(2, 4)}) == 2
    for thing in (Network(2, 3), Policy(2, 3)):
        with pytest.raises(FrozenInstanceError):
            thing.hidden = ()


def test_log_prob_takes_tensors_and_arrays_alike():
    policy = Policy(2, 3, hidden=(4,))
    theta, obs, actions = batch(policy)
    assert isinstance(policy.log_prob(theta, obs, actions), np.ndarray)
    assert_array_equal(
        policy.log_prob(Tensor(theta), obs, actions).data, policy.log_prob(theta, obs, actions)
    )
    assert ad.stop_gradient(Tensor(theta)).inputs == ()
