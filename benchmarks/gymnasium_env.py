"""A task of a family as a gymnasium.Env, for agents of other libraries;
and one such agent beside ours.

    python -m benchmarks.gymnasium_env [--env pointmass] [--algo fomaml] [--task 0] [--seed 0]

Meta-trains the algorithm with its defaults and adapts it to one held-out task; then lets PPO of
stable-baselines3 (pip install stable-baselines3), untuned and from its own random weights, learn
the same task through the same gymnasium.Env. Prints the mean return on fresh episodes over the
environment steps spent on that task (by ours at most: some episodes end early). On pointmass it
takes about a minute.

    >>> family = envs.make("pointmass")  # after import envs
    >>> env = TaskEnv(family, family.sample_tasks(1, np.random.default_rng(0), "test")[0])
"""

import contextlib

import numpy as np

import metarl
from benchmarks.common import parser, train
from harness.settings import Setting

try:
    import gymnasium
    from gymnasium import logger
    from gymnasium.error import ResetNeeded, UnsupportedMode
    from gymnasium.spaces import Box, Discrete
except ImportError:
    line = "benchmarks.gymnasium_env: needs gymnasium: pip install gymnasium"
    raise (SystemExit if __name__ == "__main__" else ImportError)(line) from None

LATER = 4  # times the steps of our adaptation that PPO is given in the end


class TaskEnv(gymnasium.Env):
    """One task (D,) of a family of envs.py.

    Observations (obs_dim,) have the task's dtype (float64 for whole numbers), rewards are floats.

    Actions: Discrete(action_dim), or a Box [-1, 1]^action_dim, to which they are clipped. What ends
    an episode early terminates it, the horizon truncates it. `reset` knows no options.

    Misuse ends as in the environments of gymnasium.make: AssertionError for an action that is none,
    ResetNeeded for a step before the first `reset`, a warning for one after the end of an episode.
    """

    def __init__(self, family, task, render_mode=None):
        if render_mode is not None:
            raise UnsupportedMode(f"render_mode {render_mode!r}: must be None, as there are none")
        task = np.array(task)
        wanted = (family.task_dim,)
        if task.shape != wanted:
            raise ValueError(f"task of shape {task.shape}: must be one task, {wanted}")
        if not np.issubdtype(task.dtype, np.floating):
            task = task.astype(np.float64, casting="same_kind")  # TypeError for text
        self.family = family
        self.task = task
        self.state = None
        self.ended = False
        self.observation_space = Box(-np.inf, np.inf, (family.obs_dim,), task.dtype)
        if family.discrete:
            self.action_space = Discrete(family.action_dim)
        else:
            self.action_space = Box(-1, 1, (family.action_dim,), task.dtype)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.family.reset(self.task, (), self.np_random)
        self.t = 0
        self.ended = False
        return self.observation(), {}

    def step(self, action):
        if self.state is None:
            raise ResetNeeded("Cannot call env.step() before calling env.reset()")
        if self.ended:
            logger.warn("step() after the end of an episode, without reset(): undefined behaviour")
        action = self.allowed(action)
        result = self.family.step(self.state, action, self.task, self.np_random)
        self.state, reward, done = result
        self.t += 1
        terminated = bool(done)
        truncated = self.t >= self.family.horizon
        self.ended = terminated or truncated
        return self.observation(), float(reward), terminated, truncated, {}

    def allowed(self, action):
        """The action as an array; AssertionError, under python -O as well, if it is none."""
        valid = False
        array = action
        with contextlib.suppress(TypeError, ValueError):  # text, None, lists of unequal lengths
            if not self.family.discrete:
                array = np.asarray(action).astype(self.task.dtype, casting="same_kind")
                np.clip(array, -1, 1, out=array)
            valid = self.action_space.contains(array)
        if not valid:
            raise AssertionError(f"{action!r} ({type(action)}) invalid")
        if self.family.discrete:
            return np.asarray(action, int)  # True is 1, as to gymnasium
        return array

    def render(self):
        logger.warn("render() draws nothing: there are no render modes")

    def observation(self):
        # A copy: for bandits it is the state itself
        return np.array(self.family.observe(self.state), self.task.dtype)


# --- An agent of another library ---
def mean_return(env, act, episodes):
    """The mean undiscounted return of act(obs) -> action over episodes of a gymnasium.Env."""
    total = 0.0
    for _ in range(episodes):
        obs, _ = env.reset()
        ended = False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(act(obs))
            total += reward
            ended = terminated or truncated
    return total / episodes


def foreign(env, budgets, episodes, seed):
    """Environment steps and mean return of PPO after each of the budgets,
    increasing numbers of environment steps.
    """
    try:
        from stable_baselines3 import PPO
    except ImportError:
        raise SystemExit(
            "benchmarks.gymnasium_env: needs PPO: pip install stable-baselines3"
        ) from None
    steps = min(budgets)
    agent = PPO(
        "MlpPolicy", env, n_steps=steps, batch_size=max(64, steps // 32), seed=seed, device="cpu"
    )
    judge = TaskEnv(env.family, env.task)
    judge.reset(seed=seed)
    for budget in budgets:
        agent.learn(budget - agent.num_timesteps, reset_num_timesteps=False)
        yield agent.num_timesteps, mean_return(judge, lambda obs: agent.predict(obs)[0], episodes)


def ours(c, i):
    """The held-out task i (D,), and the returns (test_steps + 1,) on it after each adaptation step
    of a trained run.
    """
    tasks, returns = metarl.meta_test(c, train(c))
    return tasks[i], returns[i]


def main():
    p = parser(__doc__)
    p.add_argument("--env", default="pointmass")
    p.add_argument("--algo", default="fomaml")
    p.add_argument("--task", type=int, default=0, help="which of the held-out tasks [0]")
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    try:
        c = Setting(algo=a.algo, env=a.env, seed=a.seed)
    except ValueError as error:
        p.error(error)
    if not 0 <= a.task < c.test_tasks:
        p.error(f"--task {a.task}: must be from 0 to {c.test_tasks - 1}")
    task, returns = ours(c, a.task)
    spent = [k * c.adapt_episodes * c.family.horizon for k in range(c.test_steps + 1)]
    print(
        f"{a.env}, held-out task {a.task}, seed {a.seed}: "
        f"mean return over {c.test_episodes} fresh episodes"
    )
    print(f"{'agent':12}{'env steps on this task':>24}{'return':>10}")
    for steps, value in zip(spent, returns, strict=True):
        print(f"{a.algo:12}{steps:24,}{value:10.2f}")
    env = TaskEnv(c.family, task)
    for steps, value in foreign(env, [*spent[1:], LATER * spent[-1]], c.test_episodes, a.seed):
        print(f"{'PPO':12}{steps:24,}{value:10.2f}", flush=True)
    print(f"{'optimum':36}{c.family.optimal_return(task):10.2f}")


if __name__ == "__main__":
    main()
