"""The world of uml.py and carml.py, its skills, and how both programs train and test in it.

How to read it, from top to bottom:

1. `Swirl`, the world, a family of tasks as those of envs.py.
2. `Skills`, the same world with its reward taken away: what unsupervised meta-training sees;
   `Shuffled`, its control.
3. `Training`, the options of meta-training that both share; `setting`.
4. The test on held-out goals: `meta_test`, and `fine_tuned`, what it has to beat.

    s, state      (..., 2)   a position
    z             (..., K)   a skill, as a row of the identity
    r_z(s)        (..., K)   the reward of each skill at s
    theta         (P,)       the meta-policy's parameters; x (2P,), those and log factors on alpha
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import metarl
from autodiff import Tensor
from chapters.common import difference, table
from envs import checkerboard, distance, turned
from harness.settings import Setting
from metarl import INNER, MEASURE, TASKS, TEST, noise_at
from policies import Policy, rollout


# --- The world ---
@dataclass(frozen=True)
class Swirl:
    """A point in [-1, 1]^2, at first the origin, whose moves are turned: a swirl.

    A move at s is turned by 2 |s| radians. So no direction is right everywhere, and to go anywhere
    one has to know the world: an untrained network, whose gradient by the last bias says "walk that
    way", is not good enough. Task: a goal on an annulus; reward: minus the distance to it.
    """

    horizon: int = 20
    turn: float = 2.0  # radians at distance 1

    obs_dim = 2
    action_dim = 2
    task_dim = 2
    discrete = False
    splits_coincide = False
    judges_states = True

    def sample_tasks(self, n, rng, split="train"):
        """Goals (n, 2), 0.7 to 1 from the origin."""
        u = checkerboard(n, rng, split, 2)
        angle = 2 * np.pi * u[:, 0]
        radius = 0.7 + 0.3 * u[:, 1]
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)

    def goals(self, tasks):
        return tasks

    def reset(self, tasks, shape, rng):
        """Positions (*shape, 2) at the origin; in Fortran order, as envs.Point.reset explains."""
        return np.zeros((*shape, 2), np.result_type(tasks, 1.0), order="F")

    def observe(self, state):
        return state

    def step(self, state, action, tasks, rng):
        state = self.advance(state, action, tasks, rng)
        reward, done = self.judge(state, tasks)
        return state, reward, done

    def advance(self, state, action, tasks, rng):
        """The position after a move of at most 0.1 along each axis, turned, within the walls."""
        action = action.astype(state.dtype, copy=False)
        angle = self.turn * distance(state)[..., None]
        move = turned(0.1 * action.clip(-1, 1), angle)
        return (state + move).clip(-1, 1)

    def judge(self, state, tasks):
        reward = -distance(state - tasks)
        return reward, np.zeros(reward.shape, bool)


# --- The world without its reward ---
NOWHERE = np.full(2, np.nan)  # a goal at which every reward is NaN


@dataclass(frozen=True)
class Skills:
    """A world in which a task is a skill z, drawn from p, and is paid r_z(s) at the state s.

    Nothing here can know a true reward: the world is told of no goal but NOWHERE, and its `judge`
    is not called.
    """

    world: Swirl
    reward: Callable  # from states (..., 2) to r_z(s) of all skills (..., K)
    p: np.ndarray  # (K,), the probability of each skill

    obs_dim = 2
    action_dim = 2
    discrete = False
    splits_coincide = True
    judges_states = True
    horizon = property(lambda self: self.world.horizon)
    task_dim = property(lambda self: len(self.p))

    def sample_tasks(self, n, rng, split="train"):
        """Skills (n, K)."""
        z = rng.choice(len(self.p), n, p=self.p)
        return np.eye(len(self.p))[z]

    def reset(self, z, shape, rng):
        return self.world.reset(NOWHERE, shape, rng)

    def observe(self, state):
        """The position alone: which skill is wanted, only the reward can tell."""
        return state

    def step(self, state, action, z, rng):
        state = self.advance(state, action, z, rng)
        reward, done = self.judge(state, z)
        return state, reward, done

    def advance(self, state, action, z, rng):
        return self.world.advance(state, action, NOWHERE, rng)

    def judge(self, state, z):
        reward = (self.reward(state) * z).sum(-1)
        return reward, np.zeros(reward.shape, bool)


class Shuffled(Skills):
    """The control: each batch of episodes of a task is paid for a skill that is drawn anew.

    So what pays before adaptation says nothing of what pays after it. The number of the skill goes
    through the episodes as a third entry of the state.
    """

    def reset(self, z, shape, rng):
        paid = np.floor(rng.random((shape[0], 1, 1)) * len(self.p))
        paid = np.broadcast_to(paid, (*shape, 1))
        return np.concatenate([super().reset(z, shape, rng), paid], -1)

    def observe(self, state):
        return state[..., :2]

    def advance(self, state, action, z, rng):
        position = super().advance(state[..., :2], action, z, rng)
        return np.concatenate([position, state[..., 2:]], -1)

    def judge(self, state, z):
        paid = state[..., 2].astype(int)
        return super().judge(state[..., :2], np.eye(len(self.p))[paid])


def uniform(K):
    """The probabilities (K,) of K skills that are all as probable."""
    return np.full(K, 1 / K)


# --- Meta-training ---
@dataclass(frozen=True)
class Training:
    """Options of meta-training, of which only `std` and `iterations` differ between chapters."""

    world: Swirl = Swirl()
    hidden: tuple = (32, 32)  # units in each layer of all networks
    std: float = 0.5  # deviation of actions at first
    iterations: int = 80  # of MAML
    tasks: int = 16  # in an iteration
    episodes: int = 20  # K, for an inner step; also for one of adaptation
    alpha: float = 0.25  # inner step size, times factors that are learned
    beta: float = 0.002  # Adam's step size on theta
    beta_alpha: float = 0.01  # and on the logarithms of the factors
    test_goals: int = 40  # held out
    test_episodes: int = 40  # that measure a return
    alphas: tuple = (0.03, 0.06, 0.125, 0.25, 0.5, 1.0)  # among which `fine_tuned` chooses


def setting(o, family, seed, **options):
    """The Setting of a run in a family: o of Training, and what is to be otherwise.

    The estimator has to be dice. The reward depends on where earlier moves have led, so the Hessian
    of the inner step needs the products of scores at different times, which lvc leaves out: with it
    meta-training on log D makes the return after adaptation worse.
    """
    options = dict(learn_alpha=True, alpha=o.alpha, iterations=o.iterations) | options
    return Setting(
        algo="maml",
        env=family,
        policy=Policy(family.obs_dim, family.action_dim, hidden=o.hidden, std=o.std),
        estimator="dice",
        beta=o.beta,
        beta_alpha=o.beta_alpha,
        tasks=o.tasks,
        episodes=o.episodes,
        test_tasks=o.test_goals,
        test_episodes=o.test_episodes,
        seed=seed,
        **options,
    )


# --- The test, where the true reward is seen for the first time ---
STEPS = ("k = 0", "k = 1", "k = 2", "k = 3")  # adaptation steps


def goals_of(c):
    """The held-out goals (T, 2)."""
    return metarl.sample_tasks(c, c.test_tasks, noise_at(c.seed, TEST, TASKS), "test")


def meta_test(c, x):
    """(4,): the mean return on held-out goals after 0, 1, 2, 3 adaptation steps.

    x: a start that all goals share, (P or 2P,), or one for each, (T, P). Steps after the first are
    half as long, as alpha_decay has it.
    """
    goals = goals_of(c)
    x = np.broadcast_to(x, (len(goals), x.shape[-1]))
    address = (c.seed, TEST, INNER, 0)
    path, _ = metarl.adapt(c, Tensor(x), metarl.sampler(c, goals, (*address, INNER)), steps=3)
    returns = []
    for k, theta in enumerate(path):
        rng = noise_at(*address, MEASURE, k)
        D = rollout(c.family, c.pi, theta.data, goals, c.test_episodes, rng, keep=False)
        returns.append(D.returns.mean())
    return np.array(returns)


def fine_tuned(o, seed, theta):
    """(4,): the same by plain policy gradient from theta (P,) or (T, P), nothing being learned.

    For each number of steps with the best of o.alphas, chosen on the test goals: in its favour.
    """
    by_alpha = []
    for alpha in o.alphas:
        c = setting(o, o.world, seed, learn_alpha=False, alpha=alpha)
        by_alpha.append(meta_test(c, theta))
    return np.max(by_alpha, 0)


def untrained(o, seed):
    """theta_0 (P,), which meta-training starts from too."""
    return metarl.initial_state(setting(o, o.world, seed, learn_alpha=False))["theta"]


def as_row(returns):
    """{column: number} of returns (4,)."""
    return dict(zip(STEPS, returns, strict=True))


# --- Tables and pictures ---
def tables(rows, ours, others):
    """The returns of all rows that have some, and of `ours` less those of the others, as text."""
    names = [name for name, columns in rows.items() if STEPS[0] in columns]
    paired = {f"- {other}": difference(rows, ours, other) for other in others}
    return f"""
Return on held-out goals after k steps of policy gradient; what was not
meta-trained has the best of some step sizes for each k, chosen on these goals
{table(rows, names, STEPS)}
{table(paired, paired, STEPS, heading=ours + ", paired")}"""


# Eight that the colour-blind tell apart (Okabe & Ito 2008), of the skills. (8, 3)
NAMES = "0072B2 E69F00 009E73 CC79A7 56B4E9 D55E00 F0E442 3C3C3C".split()
COLOURS = np.array([list(bytes.fromhex(colour)) for colour in NAMES]) / 255


def draw_paths(panel, paths, z):
    """Paths (n, H, 2), each in the colour of its skill z (n,)."""
    for path, k in zip(paths, z, strict=True):
        panel.plot(path[:, 0], path[:, 1], color=COLOURS[k % len(COLOURS)], linewidth=0.8)
    draw_walls(panel)


def draw_walls(panel):
    panel.set(xlim=(-1, 1), ylim=(-1, 1), xticks=(-1, 0, 1), yticks=(-1, 0, 1), aspect="equal")
