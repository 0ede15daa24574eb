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
