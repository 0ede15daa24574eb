"""The task families, against transitions worked out from their definitions."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest

import envs
from envs import PointMass
from metarl import rng
from policies import Policy, rollout

ENVS = [PointMass()]


def goals(n, split="test"):
    return PointMass().sample_tasks(n, rng(1), split)


# --- Every family ---


@pytest.mark.parametrize("env", ENVS, ids=lambda env: type(env).__name__)
def test_splits_share_no_task(env):
    """By construction: the cell of a training task has the other colour, also after a cast to float32."""
    if env.splits_coincide:
        return
    train, test = (env.sample_tasks(200_000, rng(2), split) for split in ("train", "test"))
    assert not {row.tobytes() for row in train.astype("f4")} & {row.tobytes() for row in test.astype("f4")}


@pytest.mark.parametrize("env", ENVS, ids=lambda env: type(env).__name__)
@pytest.mark.parametrize("shape", [(), (5,), (3, 4)])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_shapes_and_dtypes(env, shape, dtype):
    """One task without a batch, a batch of episodes of one task, K episodes of each of T tasks."""
    tasks = env.sample_tasks(max(1, len(shape) and shape[0]), rng(3)).astype(dtype)
    assert tasks.shape[1] == env.task_dim
    tasks = {0: tasks[0], 1: tasks[0], 2: tasks[:, None]}[len(shape)]
    state = env.reset(tasks, shape, rng(4))
    assert env.observe(state).shape == (*shape, env.obs_dim)
    noise = rng(5)
    action = (
        noise.integers(env.action_dim, size=shape)
        if env.discrete
        else noise.standard_normal((*shape, env.action_dim))
    )
    state, reward, done = env.step(state, action if env.discrete else action.astype(dtype), tasks, rng(6))
    assert env.observe(state).dtype == np.asarray(reward).dtype == dtype
    assert np.shape(reward) == np.shape(done) == shape and np.asarray(done).dtype == bool
    assert env.optimal_return(tasks).shape == tasks.shape[:-1]


@pytest.mark.parametrize("env", ENVS, ids=lambda env: type(env).__name__)
def test_step_is_a_pure_function(env):
    tasks = env.sample_tasks(3, rng(3))[:, None]
    state = env.reset(tasks, (3, 4), rng(4))
    before = state.copy()
    action = np.ones((3, 4), int) if env.discrete else np.full((3, 4, env.action_dim), 0.3)
    first, again = (env.step(state, action, tasks, rng(6)) for _ in range(2))
    assert_array_equal(state, before)
    for a, b in zip(first, again, strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("env", ENVS, ids=lambda env: type(env).__name__)
def test_bad_arguments_are_refused(env):
    with pytest.raises(ValueError, match="split 'valid': must be 'train' or 'test'"):
        env.sample_tasks(3, rng(0), "valid")
    with pytest.raises(ValueError, match="0 tasks: must be at least 1"):
        env.sample_tasks(0, rng(0))
    with pytest.raises(ValueError, match="horizon 0: must be at least 1"):
        replace(env, horizon=0)


def test_make():
    assert envs.make("pointmass", horizon=7) == PointMass(horizon=7)
    with pytest.raises(ValueError, match="environment 'maze': must be one of .*pointmass"):
        envs.make("maze")
    with pytest.raises(ValueError, match="option 'size' of environment pointmass: must be one of horizon"):
        envs.make("pointmass", size=3)


# --- The checkerboard ---


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_checkerboard(dims):
    """Colours alternate between neighbours and tell the splits apart; both are uniform; no point near a border."""
    points = {split: envs.checkerboard(50_000, rng(7), split, dims) for split in ("train", "test")}
    for split, x in points.items():
        cells = np.floor(x * envs.CELLS).astype(int)
        assert (cells.sum(1) % 2 == (split == "test")).all()
        assert cells.min() >= 0 and cells.max() < envs.CELLS
        offset = x * envs.CELLS - cells
        assert offset.min() > 0.0099 and offset.max() < 0.9901
        for axis in range(dims):
            test = kstest(x[:, axis], "uniform")
            assert test.pvalue > 1e-3 if dims > 1 else test.statistic < 1.5 / envs.CELLS  # one cell in two
    assert envs.CELLS % 2 == 0  # or a cell at the border would have no neighbour to move to
    if dims == 2:
        quadrants = (points["train"] > 0.5) @ [1, 2]
        assert_allclose(np.bincount(quadrants) / 50_000, 0.25, atol=0.01)


# --- PointMass ---


def test_pointmass_moves_and_rewards():
    """Action 1 moves by 0.1, at most 0.1 per axis; the reward is minus the distance after the move."""
    env, goal = PointMass(), np.array([0.3, -0.4])
    state = env.reset(goal, (), rng(0))
    assert_array_equal(env.observe(state), [0, 0])
    for action, position in [
        ([0.5, -0.25], [0.05, -0.025]),
        ([7, 1], [0.15, 0.075]),
        ([-1, -9], [0.05, -0.025]),
    ]:
        state, reward, done = env.step(state, np.array(action, float), goal, rng(0))
        assert_allclose(env.observe(state), position, rtol=1e-14)
        assert_allclose(reward, -np.hypot(*(np.array(position) - goal)), rtol=1e-14)
        assert not done


@pytest.mark.parametrize(
    "offset, done",
    [
        ([0, 0], True),
        ([0.009, 0.009], True),
        ([0.009, -0.011], False),
        ([-0.011, 0], False),
        ([0.0099, -0.0099], True),
    ],
)
def test_pointmass_ends_close_to_the_goal_in_both_axes(offset, done):
    env, goal = PointMass(), np.array([0.3, -0.4])
    assert env.step(goal + offset, np.zeros(2), goal, rng(0))[2] == done
    assert not replace(env, radius=0.0).step(goal + 0.0, np.zeros(2), goal, rng(0))[2]


def follow(env, tasks, action_of):
    """Returns of a deterministic controller, one episode per task, in a loop over tasks and steps."""
    returns = []
    for task in tasks:
        state, total = env.reset(task, (), rng(0)), 0.0
        for _ in range(env.horizon):
            state, reward, done = env.step(state, action_of(state, task), task, rng(0))
            total += reward
            if done:
                break
        returns.append(total)
    return np.array(returns)


def test_pointmass_optimum():
    """-sum_t |max(|g| - 0.1 t, 0)|: reached by the controller that knows the goal, -0.506 on average."""
    env, tasks = PointMass(), goals(200)
    greedy = follow(env, tasks, lambda state, goal: (goal - state) / 0.1)
    assert_allclose(env.optimal_return(tasks), greedy, atol=1e-12)
    assert_allclose(env.optimal_return(np.array([0.25, -0.1])), -(0.15 + 0.05), rtol=1e-12)
    assert abs(env.optimal_return(goals(100_000)).mean() + 0.506) < 0.002
    for noise in (0.3, 0.9):
        jitter = rng(8)
        wander = follow(env, tasks, lambda s, g, n=noise, j=jitter: (g - s) / 0.1 + n * j.standard_normal(2))
        assert (wander <= env.optimal_return(tasks) + 1e-12).all()
    assert_array_equal(env.optimal_return(tasks.reshape(2, 100, 2)).ravel(), env.optimal_return(tasks))


def test_pointmass_hovering_at_the_origin():
    """100 times the mean distance of a uniform point of the square to its centre: -38.26."""
    env, tasks = PointMass(), goals(100_000)
    reward = env.step(np.zeros_like(tasks), np.zeros_like(tasks), tasks, rng(0))[1]
    assert abs(100 * reward.mean() + 38.26) < 0.1
    assert_allclose(follow(env, tasks[:5], lambda s, g: np.zeros(2)), 100 * reward[:5])


def test_pointmass_box_and_limits():
    tasks = PointMass(box=2.0).sample_tasks(1000, rng(0))
    assert tasks.min() < -1.9 and tasks.max() > 1.9 and np.abs(tasks).max() < 2
    for option, value in [("box", 0.0), ("box", np.inf), ("radius", 0.2), ("radius", -1.0)]:
        with pytest.raises(ValueError, match=option):
            PointMass(**{option: value})


# --- Rollouts: what becomes of the end of an episode ---


def test_rollout_equals_a_loop_over_episodes():
    """Each episode stepped alone with the same noise; after its end rewards are 0 and the mask is False."""
    env, policy, tasks = PointMass(horizon=15, radius=0.1), Policy(2, 2, hidden=(4,)), 0.4 * goals(3)
    thetas = np.stack([policy.init(rng(9, i)) for i in range(3)])
    D = rollout(env, policy, thetas, tasks, 5, rng(10))
    noise = rng(10)
    eps = np.stack([noise.standard_normal((3, 5, 2)) for _ in range(15)], 2)
    assert D.mask.any(2).all() and not D.mask.all()
    for i, k in np.ndindex(3, 5):
        state, running = env.reset(tasks[i], (), rng(0)), True
        for t in range(15):
            mean, std = policy.mode(thetas[i], state), np.exp(thetas[i, -2:])
            assert D.mask[i, k, t] == running
            if running:
                assert_allclose(D.obs[i, k, t], state, rtol=1e-12)
                assert_allclose(D.actions[i, k, t], mean + std * eps[i, k, t], rtol=1e-12)
                state, reward, done = env.step(state, D.actions[i, k, t], tasks[i], rng(0))
                assert_allclose(D.rewards[i, k, t], reward, rtol=1e-12)
                running = not done
            else:
                assert D.rewards[i, k, t] == 0
    assert_allclose(D.returns, D.rewards.sum(2).mean(1))


def test_rollout_shared_parameters_equal_repeated_ones():
    env, policy, tasks = PointMass(horizon=9), Policy(2, 2, hidden=(4,)), goals(3)
    theta = policy.init(rng(9))
    shared, batched = (rollout(env, policy, p, tasks, 5, rng(10)) for p in (theta, np.tile(theta, (3, 1))))
    for a, b in zip(shared, batched, strict=True):
        assert_allclose(a, b, rtol=1e-12)
    assert [x.shape for x in shared] == [(3, 5, 9, 2), (3, 5, 9, 2), (3, 5, 9), (3, 5, 9)]
