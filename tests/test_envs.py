"""The task families, against transitions worked out from their definitions."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import envs
from envs import Bandit, FourCorners, LinearBandit, PointMass, SparsePointMass, TurnedPointMass
from metarl import noise_at

ENVS = [
    PointMass(),
    SparsePointMass(),
    TurnedPointMass(),
    FourCorners(),
    Bandit(),
    Bandit(arms=2, prior=((2, 5), (5, 2))),
    LinearBandit(),
]


def goals(n, split="test"):
    return PointMass().sample_tasks(n, noise_at(1), split)


# --- Every family ---


@pytest.mark.parametrize("env", ENVS, ids=lambda env: type(env).__name__)
def test_splits_share_no_task(env):
    """By construction: the cell of a training task has the other colour,
    also after a cast to float32.
    """
    if env.splits_coincide:
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
    noise = noise_at(5)
    action = (
        noise.integers(env.action_dim, size=shape)
        if env.discrete
        else noise.standard_normal((*shape, env.action_dim))
    )
    state, reward, done = env.step(
        state, action if env.discrete else action.astype(dtype), tasks, noise_at(6)
    )
    assert env.observe(state).dtype == np.asarray(reward).dtype == dtype
    assert np.shape(reward) == np.shape(done) == shape and np.asarray(done).dtype == bool
    assert env.optimal_return(tasks).shape == tasks.shape[:-1]


@pytest.mark.parametrize("env", ENVS, ids=lambda env: type(env).__name__)
def test_step_is_a_pure_function(env):
    tasks = env.sample_tasks(3, noise_at(3))[:, None]
    state = env.reset(tasks, (3, 4), noise_at(4))
    before = state.copy()
    action = np.ones((3, 4), int) if env.discrete else np.full((3, 4, env.action_dim), 0.3)
    first, again = (env.step(state, action, tasks, noise_at(6)) for _ in range(2))
    assert_array_equal(state, before)
    for a, b in zip(first, again, strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("env", ENVS, ids=lambda env: type(env).__name__)
def test_bad_arguments_are_refused(env):
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
        action = (
            noise.integers(env.action_dim, size=(3, 4))
            if env.discrete
            else noise.normal(size=(3, 4, 2))
        )
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
        ("bandit", {"prior": 3}, "must be like"),
        ("linear-bandit", {"dims": 0}, "dims 0"),
        ("linear-bandit", {"noise": -1}, "noise -1"),
        ("linear-bandit", {"features": -1}, "features -1"),
    ],
)
def test_make_refuses(name, options, words):
    with pytest.raises(ValueError, match=words):
        envs.make(name, **options)
