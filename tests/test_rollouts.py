"""Rollouts: the fast ways, for populations and for states judged later, against plain loops."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import policies
from envs import Bandit, FourCorners, PointMass, SparsePointMass, TurnedPointMass
from metarl import noise_at
from policies import Network, Policy, rollout

POINTS = [PointMass(horizon=7, box=0.2, radius=0.1), SparsePointMass(), TurnedPointMass()]
POINTS += [FourCorners(horizon=9)]
ENVS = [*POINTS, Bandit()]


def a_batch(env, T, hidden=(), deterministic=False, dtype="f8"):
    """A policy, parameters (T, P) and tasks (T, D)."""
    policy = Policy(env.obs_dim, env.action_dim, env.discrete, hidden, deterministic=deterministic)
    theta = noise_at(1).standard_normal((T, policy.size)).astype(dtype)
    return policy, theta, env.sample_tasks(T, noise_at(2)).astype(dtype)


def one_episode(env, policy, theta, task, noise):
    """Rewards and mask (H,) of an episode alone; `noise` holds what is added to each action."""
    state = env.reset(task, (), None)
    rewards = np.zeros(env.horizon)
    mask = np.zeros(env.horizon, bool)
    for t in range(env.horizon):
        mean = policy.mode(theta, env.observe(state))
        std = np.exp(theta[-2:])
        state, reward, done = env.step(state, mean + std * noise[t], task, None)
        rewards[t] = reward
        mask[t] = True
        if done:
            break
    return rewards, mask


@pytest.mark.parametrize("env", POINTS, ids=lambda env: type(env).__name__)
@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("hidden", [(), (4,)])
def test_rollouts_equal_episodes_one_by_one(env, K, hidden):
    """K = 1: a population, for which linear policies have a way of their own."""
    policy, theta, tasks = a_batch(env, 5, hidden)
    D = rollout(env, policy, theta, tasks, K, noise_at(3), keep=False)
    rng = noise_at(3)
    noise = np.array([rng.standard_normal((5, K, 2)) for _ in range(env.horizon)])
    for i, k in np.ndindex(5, K):
        rewards, mask = one_episode(env, policy, theta[i], tasks[i], noise[:, i, k])
        assert_allclose(D.rewards[i, k], rewards, rtol=1e-10, atol=1e-12)
        assert_array_equal(D.mask[i, k], mask)


def test_some_of_these_episodes_end_early():
    policy, theta, tasks = a_batch(POINTS[0], 5)
    D = rollout(POINTS[0], policy, theta, tasks, 3, noise_at(3), keep=False)
    lengths = D.mask.sum(2)
    assert lengths.min() < 7 == lengths.max()


@pytest.mark.parametrize("env", ENVS, ids=lambda env: type(env).__name__)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("keep", [True, False])
def test_it_is_the_same_whenever_states_are_judged(env, dtype, keep, monkeypatch):
    """At the end, all at once, or each as it is reached. What is kept of black boxes is the same,
    too, but for the order of their sums.
    """
    policy, theta, tasks = a_batch(env, 6, dtype=dtype)
    at_the_end = rollout(env, policy, theta, tasks, 2, noise_at(3), keep=keep)
    monkeypatch.setattr(policies, "AT_ONCE", 0)
    at_once = rollout(env, policy, theta, tasks, 2, noise_at(3), keep=keep)
    other = rollout(env, policy, theta, tasks, 2, noise_at(3), keep=not keep)
    for name in ("obs", "actions", "rewards", "mask"):
        assert_array_equal(getattr(at_the_end, name), getattr(at_once, name))
    for name in ("rewards", "mask"):
        assert_array_equal(getattr(at_the_end, name), getattr(other, name))
        assert getattr(at_the_end, name).shape == (6, 2, env.horizon)
    assert at_the_end.rewards.dtype == dtype


@pytest.mark.parametrize("env", ENVS, ids=lambda env: type(env).__name__)
def test_the_layout_of_what_is_given_does_not_matter(env):
    policy, theta, tasks = a_batch(env, 6)
    D = rollout(env, policy, theta, tasks, 1, noise_at(3))
    other = rollout(
        env, policy, np.asfortranarray(theta), np.repeat(tasks, 2, 0)[::2], 1, noise_at(3)
    )
    for a, b in zip(D[:4], other[:4], strict=True):
        assert_array_equal(a, b)


class Walled(PointMass):
    """A family that is made from another: a `step` of its own has to be asked."""

    def step(self, state, action, tasks, rng):
        state, reward, done = super().step(state, action, tasks, rng)
        return state.clip(-0.05, 0.05), reward - 1, done


class Paid(PointMass):
    """Another reward, but no step of its own."""

    def judge(self, state, tasks):
        reward, done = super().judge(state, tasks)
        return reward - 1, done


@pytest.mark.parametrize("keep", [True, False])
def test_what_a_class_changes_is_asked(keep):
    plain = PointMass(radius=0.0)
    policy, theta, tasks = a_batch(plain, 6)
    D = rollout(plain, policy, theta, tasks, 1, noise_at(3), keep=keep)
    paid = rollout(Paid(radius=0.0), policy, theta, tasks, 1, noise_at(3), keep=keep)
    assert_array_equal(paid.rewards, D.rewards - 1)
    walled = rollout(Walled(radius=0.0), policy, theta, tasks, 1, noise_at(3), keep=keep)
    farthest = np.sqrt((np.abs(tasks) ** 2).sum(1)) + 0.15 * np.sqrt(2)
    assert (walled.rewards[:, 0] >= -1 - farthest[:, None]).all()
    assert not np.allclose(walled.rewards, paid.rewards)


class Walk:
    """A walk over whole numbers, that pays where one is; with discrete actions."""

    obs_dim = task_dim = 1
    action_dim = 2
    discrete = judges_states = True
    horizon = 4

    def reset(self, tasks, shape, rng):
        return np.zeros((*shape, 1))

    def observe(self, state):
        return state

    def step(self, state, action, tasks, rng):
        state = self.advance(state, action, tasks, rng)
        return state, *self.judge(state, tasks)

    def advance(self, state, action, tasks, rng):
        return state + action[..., None]

    def judge(self, state, tasks):
        return state[..., 0], np.zeros(state.shape[:-1], bool)


def test_no_action_is_paid_nan_however_states_are_judged():
    policy = Policy(1, 2, discrete=True, hidden=())
    theta = np.array([[0.0, 0, 0, 0], [np.nan, 0, 0, 0]])
    D = rollout(Walk(), policy, theta, np.zeros((2, 1)), 1, noise_at(3), keep=False)
    assert np.isfinite(D.returns[0])
    assert np.isnan(D.returns[1])


@pytest.mark.parametrize("inputs, outputs", [(1, 5), (2, 2), (4, 3)])
@pytest.mark.parametrize("shape", [(6, 1), (6, 4), (6, 1, 3), (6, 4, 3)])
def test_linear_networks_equal_a_matrix_product_for_each_member(inputs, outputs, shape):
    network = Network(inputs, outputs, hidden=())
    theta = noise_at(1).standard_normal((6, network.size + 2))
    x = noise_at(2).standard_normal((*shape, inputs))
    y = network.apply(theta, x)
    assert y.shape == (*shape, outputs)
    for i in range(6):
        w = theta[i, : inputs * outputs].reshape(inputs, outputs)
        b = theta[i, inputs * outputs : network.size]
        assert_allclose(y[i], x[i] @ w + b, rtol=1e-12)
