"""The task families, against transitions worked out from their definitions."""

from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import beta, kstest, norm

import envs
from chapters.swirl import Swirl
from envs import Bandit, FourCorners, LinearBandit, PointMass, SparsePointMass, TurnedPointMass
from metarl import noise_at
from policies import Common, Policy, rollout

ENVS = [
    PointMass(),
    SparsePointMass(),
    TurnedPointMass(),
    FourCorners(),
    Bandit(),
    Bandit(arms=2, prior=((2, 5), (5, 2))),
    LinearBandit(),
    Swirl(),
]


def goals(n, split="test"):
    return PointMass().sample_tasks(n, noise_at(1), split)


def some_action(env, shape, rng, dtype="f8"):
    if env.discrete:
        return rng.integers(env.action_dim, size=shape)
    return rng.standard_normal((*shape, env.action_dim)).astype(dtype)


# --- Every family. A family of your own goes into ENVS, and has to pass these. ---


@pytest.mark.parametrize("env", ENVS, ids=lambda env: type(env).__name__)
def test_splits_share_no_task(env):
    """By construction: the cell of a training task has the other colour,
    also after a cast to float32.
    """
    if getattr(env, "splits_coincide", False):
        return
    train, test = (env.sample_tasks(200_000, noise_at(2), split) for split in ("train", "test"))
    assert not {row.tobytes() for row in train.astype("f4")} & {
        row.tobytes() for row in test.astype("f4")
    }


@pytest.mark.parametrize("env", ENVS, ids=lambda env: type(env).__name__)
@pytest.mark.parametrize("shape", [(), (5,), (3, 4)])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_shapes_and_dtypes(env, shape, dtype):
    """One task without a batch, a batch of episodes of one task, K episodes of each of T tasks."""
    tasks = env.sample_tasks(max(1, len(shape) and shape[0]), noise_at(3)).astype(dtype)
    assert tasks.shape[1] == env.task_dim
    tasks = {0: tasks[0], 1: tasks[0], 2: tasks[:, None]}[len(shape)]
    state = env.reset(tasks, shape, noise_at(4))
    assert env.observe(state).shape == (*shape, env.obs_dim)
    action = some_action(env, shape, noise_at(5), dtype)
    state, reward, done = env.step(state, action, tasks, noise_at(6))
    assert env.observe(state).dtype == np.asarray(reward).dtype == dtype
    assert np.shape(reward) == np.shape(done) == shape and np.asarray(done).dtype == bool
    if hasattr(env, "optimal_return"):
        assert env.optimal_return(tasks).shape == tasks.shape[:-1]


@pytest.mark.parametrize("env", ENVS, ids=lambda env: type(env).__name__)
def test_step_is_a_pure_function(env):
    tasks = env.sample_tasks(3, noise_at(3))[:, None]
    state = env.reset(tasks, (3, 4), noise_at(4))
    before = deepcopy(state)
    action = np.ones((3, 4), int) if env.discrete else np.full((3, 4, env.action_dim), 0.3)
    first, again = (env.step(state, action, tasks, noise_at(6)) for _ in range(2))
    assert_array_equal(state, before)
    for a, b in zip(first, again, strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("env", ENVS, ids=repr)
def test_members_of_a_task_share_the_noise_of_its_episodes(env):
    """Black boxes judge several members under the noise of one: it is drawn in known ways only."""
    tasks = np.repeat(env.sample_tasks(3, noise_at(3)), 2, 0)[:, None]
    rng = Common(noise_at(4), 2)
    state = env.reset(tasks, (6, 4), rng)
    for t in range(3):
        action = np.repeat(some_action(env, (3, 4), noise_at(5, t)), 2, 0)
        state, reward, done = env.step(state, action, tasks, rng)
        for column in (env.observe(state), reward, done):
            assert_array_equal(column[::2], column[1::2])


@pytest.mark.parametrize("env", ENVS, ids=lambda env: type(env).__name__)
def test_bad_arguments_are_refused(env):
    """Of the families of envs.py; the contract does not ask for these words."""
    if type(env) not in envs.FAMILIES.values():
        return
    with pytest.raises(ValueError, match="split 'valid': must be 'train' or 'test'"):
        env.sample_tasks(3, noise_at(0), "valid")
    with pytest.raises(ValueError, match="0 tasks: must be at least 1"):
        env.sample_tasks(0, noise_at(0))
    with pytest.raises(ValueError, match="horizon 0: must be a whole number of at least 1"):
        replace(env, horizon=0)


@pytest.mark.parametrize("env", ENVS, ids=repr)
def test_a_batch_equals_each_episode_alone(env):
    """T tasks, K episodes and some steps at once,
    and the same episodes one by one with the same noise.
    """
    tasks, noise = env.sample_tasks(3, noise_at(3)), noise_at(5)
    state = env.reset(tasks[:, None], (3, 4), noise_at(4))
    alone = {index: env.reset(tasks[index[0]], (), noise_at(4)) for index in np.ndindex(3, 4)}
    for t in range(5):
        action = some_action(env, (3, 4), noise)
        state, reward, done = env.step(state, action, tasks[:, None], noise_at(6, t))
        drawn = Draws(noise_at(6, t), (3, 4))
        for index in np.ndindex(3, 4):
            alone[index], r, d = env.step(
                alone[index], action[index], tasks[index[0]], drawn.at(index)
            )
            assert_allclose((r, d), (reward[index], done[index]), rtol=1e-12)
            assert_allclose(
                env.observe(alone[index]), env.observe(state)[index], rtol=1e-12, atol=1e-15
            )


class Draws:
    """The noise that a batch draws in one step, handed out episode by episode."""

    def __init__(self, generator, shape):
        self.generator, self.shape = generator, shape

    def at(self, index):
        uniform, normal = (
            Once(self.generator, kind, self.shape, index) for kind in ("random", "standard_normal")
        )
        return type("Noise", (), {"random": uniform, "standard_normal": normal})


class Once:
    def __init__(self, generator, kind, shape, index):
        self.generator, self.kind, self.shape, self.index = generator, kind, shape, index

    def __call__(self, shape):
        assert shape == ()
        state = self.generator.bit_generator.state
        value = getattr(self.generator, self.kind)(self.shape)[self.index]
        self.generator.bit_generator.state = state
        return value


def test_make():
    assert envs.make("pointmass", horizon=7) == PointMass(horizon=7)
    prior = ((1, 9), (5, 5))
    assert envs.make("bandit", arms=2, prior=prior) == Bandit(arms=2, prior=prior)
    assert {name: type(envs.make(name)) for name in envs.FAMILIES} == envs.FAMILIES


def test_make_takes_any_class(monkeypatch):
    class Plain:
        def __init__(self, length=3):
            self.length = length

    monkeypatch.setitem(envs.FAMILIES, "plain", Plain)
    assert envs.make("plain").length == 3
    assert envs.make("plain", length=4).length == 4
    with pytest.raises(ValueError, match="options of environment plain .*: must be among length=3"):
        envs.make("plain", width=4)


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("maze", {}, "environment 'maze': must be one of pointmass"),
        ("pointmass", {"size": 3}, "options of environment pointmass .*size.*: must be among hor"),
        ("bandit", {"arms": "x"}, "arms 'x': must be a whole number"),
        ("bandit", {"arms": 2.5}, "arms 2.5: must be a whole number of at least 2"),
        ("bandit", {"arms": 1}, "arms 1: must be a whole number of at least 2"),
        ("bandit", {"horizon": 0}, "horizon 0: must be a whole number of at least 1"),
        ("bandit", {"prior": ((1, 2),)}, "prior"),
        ("bandit", {"prior": 3}, "prior 3: must be .. or 5 pairs"),
        ("linear-bandit", {"dims": 0}, "dims 0"),
        ("linear-bandit", {"noise": -1}, "noise -1"),
        ("linear-bandit", {"features": -1}, "features -1"),
    ],
)
def test_make_refuses(name, options, words):
    with pytest.raises(ValueError, match=words):
        envs.make(name, **options)


def test_a_value_of_another_type_is_refused_for_a_family_of_one_s_own_too(monkeypatch):
    @dataclass(frozen=True)
    class Maze(PointMass):
        size: int = 3

        def __post_init__(self):
            assert self.size > 0

    monkeypatch.setitem(envs.FAMILIES, "maze", Maze)
    with pytest.raises(ValueError, match="options of environment maze .*: must be like .*size=3"):
        envs.make("maze", size="large")


# --- The checkerboard ---


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_checkerboard(dims):
    """Colours alternate between neighbours and tell the splits apart; both are uniform;
    no point near a border.
    """
    points = {
        split: envs.checkerboard(50_000, noise_at(7), split, dims) for split in ("train", "test")
    }
    for split, x in points.items():
        cells = np.floor(x * envs.CELLS).astype(int)
        assert (cells.sum(1) % 2 == (split == "test")).all()
        assert cells.min() >= 0 and cells.max() < envs.CELLS
        offset = x * envs.CELLS - cells
        assert offset.min() > 0.0099 and offset.max() < 0.9901
        for axis in range(dims):
            test = kstest(x[:, axis], "uniform")
            # One cell in two
            assert test.pvalue > 1e-3 if dims > 1 else test.statistic < 1.5 / envs.CELLS
    assert envs.CELLS % 2 == 0  # or a cell at the border would have no neighbour to move to
    if dims == 2:
        quadrants = (points["train"] > 0.5) @ [1, 2]
        assert_allclose(np.bincount(quadrants) / 50_000, 0.25, atol=0.01)


# --- PointMass ---


def test_pointmass_moves_and_rewards():
    """Action 1 moves by 0.1, at most 0.1 per axis;
    the reward is minus the distance after the move.
    """
    env, goal = PointMass(), np.array([0.3, -0.4])
    state = env.reset(goal, (), noise_at(0))
    assert_array_equal(env.observe(state), [0, 0])
    for action, position in [
        ([0.5, -0.25], [0.05, -0.025]),
        ([7, 1], [0.15, 0.075]),
        ([-1, -9], [0.05, -0.025]),
    ]:
        state, reward, done = env.step(state, np.array(action, float), goal, noise_at(0))
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
    assert env.step(goal + offset, np.zeros(2), goal, noise_at(0))[2] == done
    assert not replace(env, radius=0.0).step(goal + 0.0, np.zeros(2), goal, noise_at(0))[2]


def follow(env, tasks, action_of):
    """Returns of a deterministic controller, one episode per task,
    in a loop over tasks and steps.
    """
    returns = []
    for task in tasks:
        state, total = env.reset(task, (), noise_at(0)), 0.0
        for _ in range(env.horizon):
            state, reward, done = env.step(state, action_of(state, task), task, noise_at(0))
            total += reward
            if done:
                break
        returns.append(total)
    return np.array(returns)


def test_pointmass_optimum():
    """-sum_t |max(|g| - 0.1 t, 0)|: reached by the controller that knows the goal,
    -0.506 on average.
    """
    env, tasks = PointMass(), goals(200)
    greedy = follow(env, tasks, lambda state, goal: (goal - state) / 0.1)
    assert_allclose(env.optimal_return(tasks), greedy, atol=1e-12)
    assert_allclose(env.optimal_return(np.array([0.25, -0.1])), -(0.15 + 0.05), rtol=1e-12)
    assert abs(env.optimal_return(goals(100_000)).mean() + 0.506) < 0.002
    for noise in (0.3, 0.9):
        jitter = noise_at(8)
        wander = follow(
            env, tasks, lambda s, g, n=noise, j=jitter: (g - s) / 0.1 + n * j.standard_normal(2)
        )
        assert (wander <= env.optimal_return(tasks) + 1e-12).all()
    assert_array_equal(
        env.optimal_return(tasks.reshape(2, 100, 2)).ravel(), env.optimal_return(tasks)
    )


def test_pointmass_hovering_at_the_origin():
    """100 times the mean distance of a uniform point of the square to its centre: -38.26."""
    env, tasks = PointMass(), goals(100_000)
    reward = env.step(np.zeros_like(tasks), np.zeros_like(tasks), tasks, noise_at(0))[1]
    assert abs(100 * reward.mean() + 38.26) < 0.1
    assert_allclose(follow(env, tasks[:5], lambda s, g: np.zeros(2)), 100 * reward[:5])


def test_pointmass_box_and_limits():
    tasks = PointMass(box=2.0).sample_tasks(1000, noise_at(0))
    assert tasks.min() < -1.9 and tasks.max() > 1.9 and np.abs(tasks).max() < 2
    for option, value in [("box", 0.0), ("box", np.inf), ("radius", 0.2), ("radius", -1.0)]:
        with pytest.raises(ValueError, match=option):
            PointMass(**{option: value})


# --- The other families ---


def test_sparse_pointmass():
    """Goals on the half-circle; 1 - distance within 0.2 of the goal, else 0;
    the horizon allows a sweep of the arc.
    """
    env = SparsePointMass()
    tasks = env.sample_tasks(20_000, noise_at(1))
    assert_allclose(np.hypot(*tasks.T), 1)
    angle = np.arctan2(tasks[:, 1], tasks[:, 0])
    assert kstest(angle / np.pi, "uniform").statistic < 1.5 / envs.CELLS
    goal = np.array([0.6, 0.8])
    for offset, expected in [
        ([0, 0.1], 0.9),
        ([0.12, 0.16001], 0),
        ([0.12, 0.1599], 1 - np.hypot(0.12, 0.1599)),
    ]:
        _, reward, done = env.step(goal + offset, np.zeros(2), goal, noise_at(0))
        assert_allclose(reward, expected) and not done
    assert 0.1 * env.horizon >= 1 + np.pi
    state, _, _ = env.step(np.zeros(2), np.array([3.0, -0.4]), goal, noise_at(0))
    assert_allclose(state, [0.1, -0.04])


def rotation(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def test_turned_pointmass():
    """The clipped move is turned by the angle; the goal stays at (0.5, 0)."""
    env = TurnedPointMass()
    angles = env.sample_tasks(20_000, noise_at(1))
    assert angles.shape == (20_000, 1) and -np.pi < angles.min() < -3.1 and 3 < angles.max() < np.pi
    for angle in (0.0, 1.0, -2.5):
        state, reward, done = env.step(
            np.array([0.1, 0.2]), np.array([5.0, -0.5]), np.array([angle]), noise_at(0)
        )
        expected = np.array([0.1, 0.2]) + rotation(angle) @ [0.1, -0.05]
        assert_allclose(state, expected, rtol=1e-12)
        assert_allclose(reward, -np.hypot(*(expected - [0.5, 0])), rtol=1e-12) and not done


def test_four_corners():
    """Song et al. 2020: -4 + max(0, 4 - d^2); -400 standing still; -40.3 straight;
    -310.1 committed to one corner.
    """
    env = FourCorners()
    tasks = env.sample_tasks(4, noise_at(1))
    assert sorted(map(tuple, tasks)) == [(-2, -2), (-2, 2), (2, -2), (2, 2)] and env.splits_coincide
    assert len({tuple(env.sample_tasks(1, noise_at(seed))[0]) for seed in range(40)}) == 4
    assert np.unique(env.sample_tasks(10, noise_at(2)), axis=0, return_counts=True)[1].tolist() in (
        [2, 2, 3, 3],
        [2, 3, 3, 2],
        [3, 3, 2, 2],
        [3, 2, 2, 3],
        [2, 3, 2, 3],
        [3, 2, 3, 2],
    )
    assert (follow(env, tasks, lambda s, g: np.zeros(2)) == -400).all()
    assert_allclose(env.optimal_return(tasks).mean(), -40.3, atol=0.05)
    first = tasks[0]
    committed = follow(env, tasks, lambda s, g: (first - s) / 0.1).mean()
    assert_allclose(committed, -310.1, atol=0.05)
    state = np.array([4.95, -4.95])
    state, reward, done = env.step(state, np.array([1.0, -1.0]), np.array([2.0, 2.0]), noise_at(0))
    assert_allclose(state, [5, -5]) and reward == -4 and not done
    _, reward, _ = env.step(
        np.array([2.0, 1.0]), np.array([0.0, 1.0]), np.array([2.0, 2.0]), noise_at(0)
    )
    assert_allclose(reward, -4 + 4 - 0.9**2)


@pytest.mark.parametrize("env", [SparsePointMass(), TurnedPointMass(), FourCorners()], ids=repr)
def test_point_mass_optima_are_reached_and_never_exceeded(env):
    """Each axis at full speed straight to the goal, in the agent's own frame;
    noise never does better.
    """
    tasks = env.sample_tasks(40, noise_at(1))

    def greedy(state, task, noise=0.0, jitter=noise_at(8)):  # noqa: B008
        offset = np.array([0.5, 0]) - state if env.task_dim == 1 else task - state
        offset = rotation(-task[0]) @ offset if env.task_dim == 1 else offset
        return offset / 0.1 + noise * jitter.standard_normal(2)

    best = env.optimal_return(tasks)
    assert_allclose(follow(env, tasks, greedy), best, atol=1e-11)
    for noise in (0.2, 1.0):
        assert (
            follow(env, tasks, lambda s, g, noise=noise: greedy(s, g, noise)) <= best + 1e-11
        ).all()


def test_bandit():
    """Rewards 0 and 1 with the probability of the arm pulled; the best arm is the optimum."""
    env, p = Bandit(arms=3, horizon=7), np.array([0.2, 0.9, 0.5])
    state, n = env.reset(p, (30_000,), noise_at(0)), 30_000
    assert (env.observe(state) == 1).all()
    for arm in range(3):
        _, reward, done = env.step(state, np.full(n, arm), p, noise_at(1, arm))
        assert set(np.unique(reward)) == {0, 1} and not done.any()
        assert abs(reward.mean() - p[arm]) < 4 * np.sqrt(p[arm] * (1 - p[arm]) / n)
    assert env.optimal_return(p) == 7 * 0.9
    tasks = env.sample_tasks(20_000, noise_at(1))
    for arm in range(3):
        assert kstest(tasks[:, arm], "uniform").pvalue > 1e-3


def test_bandit_prior():
    env = Bandit(arms=2, prior=((2, 5), (5, 1)))
    for split in ("train", "test"):
        tasks = env.sample_tasks(20_000, noise_at(1), split)
        for arm, (a, b) in enumerate(env.prior):
            assert kstest(tasks[:, arm], beta(a, b).cdf).pvalue > 1e-3


def test_linear_bandit():
    """The mean is x_a'w, with features that all tasks share, plus noise of the given deviation;
    w is N(1, I).
    """
    env, w = LinearBandit(arms=4, dims=2, noise=0.3, features=5), np.array([0.5, -1.0])
    x = np.random.default_rng(5).standard_normal((4, 2))
    state = env.reset(w, (20_000,), noise_at(0))
    for arm in range(4):
        _, reward, done = env.step(state, np.full(20_000, arm), w, noise_at(1, arm))
        assert kstest(reward, norm(x[arm] @ w, 0.3).cdf).pvalue > 1e-3 and not done.any()
    assert_allclose(env.optimal_return(w), 10 * max(x @ w))
    tasks = env.sample_tasks(20_000, noise_at(1), "test")
    for axis in range(2):
        assert kstest(tasks[:, axis], norm(1, 1).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(tasks.T)[0, 1]) < 0.03
    silent = replace(env, noise=0.0)
    assert_allclose(silent.step(state[0], np.array(2), w, noise_at(0))[1], x[2] @ w)


# --- Rollouts: what becomes of the end of an episode ---


def test_rollout_equals_a_loop_over_episodes():
    """Each episode stepped alone with the same noise;
    after its end rewards are 0 and the mask is False.
    """
    env = PointMass(horizon=15, radius=0.1)
    policy = Policy(2, 2, hidden=(4,))
    tasks = 0.4 * goals(3)
    thetas = np.stack([policy.init(noise_at(9, i)) for i in range(3)])
    D = rollout(env, policy, thetas, tasks, 5, noise_at(10))
    noise = noise_at(10)
    eps = np.stack([noise.standard_normal((3, 5, 2)) for _ in range(15)], 2)
    assert D.mask.any(2).all() and not D.mask.all()
    for i, k in np.ndindex(3, 5):
        state, running = env.reset(tasks[i], (), noise_at(0)), True
        for t in range(15):
            mean, std = policy.mode(thetas[i], state), np.exp(thetas[i, -2:])
            assert D.mask[i, k, t] == running
            if running:
                assert_allclose(D.obs[i, k, t], state, rtol=1e-12)
                assert_allclose(D.actions[i, k, t], mean + std * eps[i, k, t], rtol=1e-12)
                state, reward, done = env.step(state, D.actions[i, k, t], tasks[i], noise_at(0))
                assert_allclose(D.rewards[i, k, t], reward, rtol=1e-12)
                running = not done
            else:
                assert D.rewards[i, k, t] == 0
    assert_allclose(D.returns, D.rewards.sum(2).mean(1))
    light = rollout(env, policy, thetas, tasks, 5, noise_at(10), keep=False)
    assert light.obs is light.actions is light.log_pi is None
    assert_array_equal(light.rewards, D.rewards)
    assert_array_equal(light.mask, D.mask)


def test_rollout_shared_parameters_equal_repeated_ones():
    env, policy, tasks = PointMass(horizon=9), Policy(2, 2, hidden=(4,)), goals(3)
    theta = policy.init(noise_at(9))
    shared, batched = (
        rollout(env, policy, p, tasks, 5, noise_at(10)) for p in (theta, np.tile(theta, (3, 1)))
    )
    for a, b in zip(shared[:4], batched[:4], strict=True):
        assert_allclose(a, b, rtol=1e-12)
    assert [x.shape for x in shared[:4]] == [(3, 5, 9, 2), (3, 5, 9, 2), (3, 5, 9), (3, 5, 9)]
