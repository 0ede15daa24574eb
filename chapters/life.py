"""The world of epg.py and components.py, a life in it, and the outer loop over lives.

How to read it, from top to bottom:

1. `Sector`, the world, a family of tasks as those of envs.py.
2. `Life`, the options that both programs share.
3. `Parts`, what a life is made of, and `live`, the inner loop; parts that all lives can have.
4. `evolve`, the outer loop, whatever part of a life it moves.
5. The test: `learning_curve`, `best_alpha`, a picture.

    n, S, K, H                  lives side by side, learning steps in each, episodes, horizon
    theta, births  (n, P)       a policy for each life
    x              (Q,)         what evolution moves; (n, Q), for each life its member
    parts_of(o, x, theta)       the Parts of lives, of x (n, Q) and births theta (n, P)

The line numbers `EPG l.N` are those in the head of epg.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

import autodiff as ad
import es
from autodiff import Tensor, grad
from chapters.common import OWN
from envs import Point, checkerboard
from harness.settings import Setting
from metarl import noise_at
from policies import Common, Policy, rollout, surrogate


# --- The world ---
@dataclass(frozen=True)
class Sector(Point):
    """The open plane. Task: a goal, within 45 degrees of a heading and 0.5 to 1 from the origin.

    Standing still returns -15.0 in the mean, the best policy that knows the goal -2.2.
    """

    heading: float = 0.0  # radians
    horizon: int = 20

    def sample_tasks(self, n, rng, split="train"):
        """Goals (n, 2)."""
        u = checkerboard(n, rng, split, 2)
        angle = self.heading + np.pi / 4 * (2 * u[:, 0] - 1)
        radius = 0.5 + 0.5 * u[:, 1]
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


AHEAD = Sector()
BEHIND = Sector(heading=np.pi)  # never trained on


# --- Options ---
@dataclass(frozen=True)
class Life:
    """Options of a life and of evolution, of which only `generations` differs between chapters."""

    hidden: tuple = (16,)  # units of the policy
    std: float = 0.5  # deviation of actions at birth
    steps: int = 8  # S, learning steps in a life
    episodes: int = 8  # K, for a step
    loss_units: int = 16  # of the learned loss
    alpha: float = 1.0  # step size on a learned loss
    alphas: tuple = (0.03, 0.06, 0.125, 0.25, 0.5, 1.0)  # policy gradient has the best of them
    generations: int = 200
    members: int = 64  # in antithetic pairs
    sigma: float = 0.1  # deviation of the members
    beta: float = 0.03  # Adam's step size on their mean
    test_lives: int = 200


def policy(o):
    return Policy(2, 2, hidden=o.hidden, std=o.std)


# Noise has an address, as in metarl.py; all of these begin with (seed, OWN).
START = 0  # x at first, by the chapters
DIRECTIONS = 1  # of evolution
GENERATION = 2  # (GENERATION, t): the lives of generation t
TESTED = 3  # the lives of the test
CHOICE = 4  # those in which a step size is chosen

# What follows the address of some lives:
TASKS = 0
BIRTHS = 1
EPISODES = 2  # (EPISODES, k): those of step k; in evolution k = S are those that measure the return
MEASURE = 3  # (MEASURE, k): in the test, those that measure the return after k steps


# --- A life: the inner loop ---
class Parts(NamedTuple):
    """What n lives are made of. Evolution may move any of them.

    loss: from theta, a Tensor (n, P), and its Trajectories to a loss for each life, (n,).
    log_stds: the log deviations of actions in each step, and last of those that are judged. None:
    they are theta's own, and change with it.
    """

    births: np.ndarray  # (n, P), the policies before the first step
    alphas: np.ndarray  # (S,) or (n, S), the size of each step
    loss: Callable
    log_stds: np.ndarray | None = None  # (n, S + 1)


def live(o, world, parts, tasks, address, pairs=False):
    """n lives on tasks (n, 2): the policies [theta (n, P)] before and after each step.

    pairs: rows 0 and 1, 2 and 3, ... live under the same noise.
    """
    S = parts.alphas.shape[-1]
    theta = exploring(parts, parts.births, 0)
    path = [theta]
    for k in range(S):
        D = episodes(o, world, theta, tasks, (*address, EPISODES, k), pairs)  # EPG l.4
        leaf = Tensor(theta)
        loss = ad.sum(parts.loss(leaf, D))  # each row has a gradient of its own
        g = grad(loss, leaf).data
        theta = theta - parts.alphas[..., k : k + 1] * g  # EPG l.5
        theta = exploring(parts, theta, k + 1)
        path.append(theta)
    return path


def exploring(parts, theta, k):
    """theta with the deviations that `parts` has for the episodes after k steps, if it has any.

    The last two numbers of a theta are the log deviations of the two entries of an action.
    """
    if parts.log_stds is None:
        return theta
    log_std = parts.log_stds[:, k : k + 1]
    return np.concatenate([theta[:, :-2], log_std, log_std], 1)


def episodes(o, world, theta, tasks, address, pairs=False, keep=True):
    """K episodes in each of n lives: Trajectories."""
    rng = noise_at(*address)
    if pairs:
        rng = Common(rng, 2)
    return rollout(world, policy(o), theta, tasks, o.episodes, rng, keep)


def births(o, n, rng):
    """n random policies (n, P)."""
    return np.stack([policy(o).init(rng) for _ in range(n)])


def policy_gradient(o):
    """The loss of a life by hand: that of policies.py, whose gradient is the policy gradient."""
    return partial(surrogate, Setting(policy=policy(o)))


def by_hand(o, theta, alpha):
    """Parts of lives that learn by plain policy gradient, born as theta (n, P)."""
    return Parts(theta, np.full(o.steps, alpha), policy_gradient(o))


# --- Evolution: the outer loop ---
def evolve(o, x, parts_of, seed):
    """x (Q,) after o.generations of OpenAI-ES (Salimans et al. 2017), from x.

    A member is judged by one life. The two of a pair, x + sigma eps and x - sigma eps, share birth,
    task and noise.
    """
    rng = noise_at(seed, OWN, DIRECTIONS)
    strategy = es.OpenAIES(x, o.sigma, o.members, rng, optimizer="adam", lr=o.beta)
    half = o.members // 2  # the number of pairs
    for t in range(o.generations):  # EPG l.1
        address = (seed, OWN, GENERATION, t)
        # `ask` gives x + sigma eps of all pairs, then x - sigma eps of all. Here the two of a pair
        # follow each other, as `live` wants them; `tell` takes members in any order.
        plus, minus = strategy.ask().reshape(2, half, -1)  # EPG l.2
        members = np.stack([plus, minus], 1).reshape(o.members, -1)
        tasks = AHEAD.sample_tasks(half, noise_at(*address, TASKS))  # EPG l.3
        theta = births(o, half, noise_at(*address, BIRTHS))
        parts = parts_of(o, members, np.repeat(theta, 2, 0))
        F = fitness(o, parts, np.repeat(tasks, 2, 0), address)
        strategy.tell(members, -F)  # EPG l.7
    return strategy.mean


def fitness(o, parts, tasks, address):
    """(n,): the return of each life's last policy, on fresh episodes. Lives come in pairs."""
    last = live(o, AHEAD, parts, tasks, address, pairs=True)[-1]
    at_the_end = (*address, EPISODES, o.steps)
    return episodes(o, AHEAD, last, tasks, at_the_end, pairs=True, keep=False).returns  # EPG l.6


# --- The test ---
def learning_curve(o, seed, world, parts_of, x, split="test", lives=TESTED, quiet=False):
    """(S + 1,): the mean return after 0, 1, ..., S steps of lives that all have x (Q,).

    Goals are held out; goals, births and noise are the same whatever is tested.
    lives: which ones, TESTED or CHOICE.
    quiet: returns are of the policies' most probable actions, without noise.
    """
    n = o.test_lives
    address = (seed, OWN, lives)
    tasks = world.sample_tasks(n, noise_at(*address, TASKS), split)
    theta = births(o, n, noise_at(*address, BIRTHS))
    parts = parts_of(o, np.tile(x, (n, 1)), theta)
    path = live(o, world, parts, tasks, address)
    returns = []
    for k, theta in enumerate(path):
        if quiet:
            theta = np.append(theta[:, :-2], np.full((n, 2), -np.inf), 1)  # log of a deviation of 0
        D = episodes(o, world, theta, tasks, (*address, MEASURE, k), keep=False)
        returns.append(D.returns.mean())
    return np.array(returns)


def best_alpha(o, seed, parts_with, x):
    """The best of o.alphas by the return after the last step, on training goals ahead.

    parts_with(alpha, o, x, theta): the Parts of lives with step size alpha.
    """
    at_the_end = []
    for alpha in o.alphas:
        parts_of = partial(parts_with, alpha)
        returns = learning_curve(o, seed, AHEAD, parts_of, x, split="train", lives=CHOICE)
        at_the_end.append(returns[-1])
    return o.alphas[np.argmax(at_the_end)]


def draw_curves(panels, curves):
    """Return after each step of learning, in two panels, of {name: (ahead, behind)}, (S + 1,)."""
    for i, title in enumerate(("goals ahead", "goals behind")):
        for name, both in curves.items():
            panels[i].plot(both[i], label=name)
        panels[i].set(title=title, xlabel="steps of learning", ylim=(-40, 0))
    panels[0].set_ylabel("return")
    panels[1].legend(loc="lower right", fontsize=6)
