"""The adaptor to gymnasium: gymnasium's own checks,
and the same episodes as a rollout, number for number.
"""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import envs
from harness.settings import make_family
from metarl import noise_at
from policies import Policy, rollout

ROOT = Path(__file__).parents[1]
NAMES = [*envs.FAMILIES, "bandit:arms=2,horizon=2", "pointmass:radius=0.1,box=0.1"]


def adaptor():
    pytest.importorskip("gymnasium")
    from benchmarks import gymnasium_env

    return gymnasium_env


def task_env(name, dtype="float64"):
    module, family = adaptor(), make_family(name)
    return module.TaskEnv(family, family.sample_tasks(2, noise_at(1), "test")[1].astype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_gymnasium_checks_the_environment(name, dtype):
    env = task_env(name, dtype)
    from gymnasium.utils.env_checker import check_env

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings(
            "ignore", message=r".*(minimum|maximum) value is|.*does(n't| not) have a spec|.*a spec"
        )
        warnings.filterwarnings("ignore", message=r".*symmetric and normalized space")
        check_env(env)
    obs, info = env.reset(seed=0)
    assert obs.dtype == dtype and env.observation_space.contains(obs) and info == {}


@pytest.mark.parametrize("name", NAMES)
def test_gymnasium_checks_each_step_of_a_registered_environment(name):
    """By gymnasium.make, whose wrappers look at all that goes in and out; twice from one seed."""
    gymnasium = pytest.importorskip("gymnasium")

    spec = gymnasium.envs.registration.EnvSpec("Task-v0", entry_point=lambda: task_env(name))
    first, second = [], []
    for episode in (first, second):
        env = gymnasium.make(spec)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=r".*(minimum|maximum) value is")
            warnings.filterwarnings("ignore", message=r".*symmetric and normalized space")
            episode.append(env.reset(seed=7, options={}))
            env.action_space.seed(7)
            while not (len(episode) > 1 and any(episode[-1][2:4])):
                episode.append(env.step(env.action_space.sample()))
    for one, other in zip(first, second, strict=True):
        assert_array_equal(one[0], other[0])
        assert one[1:] == other[1:]
    terminated, truncated = first[-1][2:4]
    assert truncated == (len(first) - 1 == env.unwrapped.family.horizon)
    assert terminated or truncated


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("name", NAMES)
def test_whatever_the_task_and_the_action_are_made_of_observations_are_in_their_space(name, dtype):
    env = task_env(name, dtype)
    kind = "float64" if dtype == "int64" else dtype
    actions = [0, np.int32(1), np.array(1)]
    if not env.family.discrete:
        half = np.full(env.family.action_dim, 0.5)
        actions = [half, half.astype("float32"), half.tolist(), [1] * len(half), 9 * half]
    env.reset(seed=0)
    for action in actions:
        obs, reward, *_ = env.step(action)
        assert env.observation_space.contains(obs) and obs.dtype == kind
        assert np.isfinite(reward)
        env.reset()


# --- Misuse ends as in the environments of gymnasium.make ---
def test_misuse_is_refused_as_by_cart_pole():
    pytest.importorskip("gymnasium")
    import gymnasium

    for env in (task_env("bandit:arms=2"), gymnasium.make("CartPole-v1", disable_env_checker=True)):
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(0)
        env.reset(seed=0)
        for action in (-1, 2, 0.5, np.nan, [0], np.array([0]), None, "0", np.array(0.0)):
            with pytest.raises(AssertionError, match="invalid"):
                env.step(action)
        for action in (0, np.int64(1), True):
            env.step(action)


NO_ACTIONS = (
    [0.5],
    0.5,
    [0.5, 0.5, 0.5],
    [[0.5, 0.5]],
    [np.nan, 0.0],
    ["0", "0"],
    [None, 0.5],
    [[0.5], [0.5, 0.5]],
    np.array([0.5j, 0]),
    None,
    "go",
)


@pytest.mark.parametrize("action", NO_ACTIONS, ids=str)
def test_what_is_no_action_of_two_numbers_is_refused_and_moves_nothing(action):
    env = task_env("pointmass")
    env.reset(seed=0)
    with pytest.raises(AssertionError, match="invalid"):
        env.step(action)
    assert_array_equal(env.observation(), [0, 0])
    assert_array_equal(env.step([9.0, -np.inf])[0], [0.1, -0.1])  # clipped, as by Pendulum


def test_a_step_after_the_end_is_warned_of():
    env = task_env("bandit:arms=2,horizon=2")
    env.reset(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert env.step(0)[2:4] == (False, False)
        assert env.step(0)[2:4] == (False, True)
    with pytest.warns(UserWarning, match="after the end"):
        env.step(0)
    env.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.step(0)


def test_what_is_asked_of_an_environment_is_kept_or_refused():
    gymnasium = pytest.importorskip("gymnasium")

    env = task_env("pointmass")
    given = np.array([0.1, 0.2])
    env = type(env)(env.family, given)
    given[:] = 5.0
    assert_array_equal(env.task, [0.1, 0.2])
    for task in (["a", "b"], [1j, 2.0], [None, 1.0]):
        with pytest.raises(TypeError):
            type(env)(env.family, task)
    with pytest.raises(gymnasium.error.UnsupportedMode, match="human"):
        type(env)(env.family, given, render_mode="human")
    with pytest.warns(UserWarning, match="no render modes"):
        assert env.render() is None


def test_reset_goes_on_with_its_noise_and_a_seed_begins_it_anew():
    env = task_env("linear-bandit")

    def rewards(**options):
        env.reset(**options)
        return [env.step(0)[1] for _ in range(3)]

    first, second, again = rewards(seed=1), rewards(), rewards(seed=1)
    assert first == again != second
    assert rewards(seed=2) != first


@pytest.mark.parametrize("name", NAMES)
def test_episodes_are_those_of_a_rollout(name):
    """The policy and the environment draw from one generator, in the same order as in `rollout`."""
    env = task_env(name)
    policy = Policy(env.family.obs_dim, env.family.action_dim, env.family.discrete, (3,))
    theta = policy.init(noise_at(2))
    for seed in range(5):
        D = rollout(env.family, policy, theta, env.task[None], 1, noise_at(seed))
        noise, ended, t = noise_at(seed), False, 0
        env.np_random = noise
        obs, _ = env.reset()
        while not ended:
            assert_array_equal(obs, D.obs[0, 0, t])
            action = policy.act(theta, obs[None, None], noise)[0, 0]
            obs, reward, terminated, truncated, _ = env.step(action)
            assert_array_equal(action, D.actions[0, 0, t])
            assert type(reward) is float and reward == D.rewards[0, 0, t]
            ended, t = terminated or truncated, t + 1
        assert t == D.mask[0, 0].sum()
        assert truncated == (t == env.family.horizon)


def test_reaching_the_goal_terminates_and_the_horizon_truncates():
    env = task_env("pointmass:horizon=3,radius=0.1,box=0.5")
    env.task = np.array([0.15, 0.0])
    env.reset()
    assert env.step([0.4, 0.0])[2:4] == (False, False)
    assert env.step([0.4, 0.0])[2:4] == (True, False)
    env.reset()
    assert [env.step([0.0, 0.0])[2:4] for _ in range(3)] == [
        (False, False),
        (False, False),
        (False, True),
    ]
    env.task = np.array([0.35, 0.0])
    env.reset()
    assert [env.step([1.0, 0.0])[2:4] for _ in range(3)] == [
        (False, False),
        (False, False),
        (True, True),  # as gymnasium's time limit has it
    ]


def test_a_batch_of_tasks_is_refused():
    env = task_env("pointmass")
    with pytest.raises(ValueError, match=r"task of shape \(1, 2\): must be one task, \(2,\)"):
        type(env)(env.family, env.task[None])


# The latter's episodes end early
@pytest.mark.parametrize("name", ["turned-pointmass", "pointmass:radius=0.1,box=0.1"])
def test_mean_return_is_that_of_the_rollout(name):
    from_gymnasium = adaptor().mean_return
    env = task_env(name)
    policy = Policy(2, 2, hidden=(3,), deterministic=True)
    theta = policy.init(noise_at(2))
    D = rollout(env.family, policy, theta, env.task[None], 2, noise_at(0))
    mean = from_gymnasium(env, lambda obs: policy.mode(theta, obs[None])[0], 2)
    assert mean == pytest.approx(D.returns[0], rel=1e-12)


def test_an_agent_of_stable_baselines3_learns_here():
    env = task_env("bandit:arms=2")
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.env_checker import check_env

    from benchmarks.gymnasium_env import foreign

    check_env(env)
    env.task = np.array([0.0, 1.0])
    points = list(foreign(env, [512, 2048], 20, 0))
    assert [steps for steps, _ in points] == [512, 2048]
    assert points[1][1] > 8  # of 10 pulls; at random 5


def test_without_gymnasium_one_line_says_what_to_install():
    hide = "import sys; sys.modules['gymnasium'] = None; import runpy; "
    code = hide + "runpy.run_module('benchmarks.gymnasium_env', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "benchmarks.gymnasium_env: needs gymnasium: pip install gymnasium\n"
