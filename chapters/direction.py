"""The world of smac.py: walk as far as you can in a direction that nobody tells.

A point in the plane, as in envs.py: it starts at the origin, and an action of size 1 along an axis
moves it by 0.1, a larger one no further. The task d, a unit vector, shows in the reward alone:

    r = 10 (s' - s) . d        ten times the progress along d

Ant-direction, the paper's world, without the ant.
"""

from dataclasses import dataclass

import numpy as np

from chapters.offline import Data, demonstrator, record
from envs import Point, checkerboard


@dataclass(frozen=True)
class Direction(Point):
    """Tasks: unit vectors (n, 2), their angles uniform. Steps are float32, as the tasks are."""

    horizon: int = 20

    def sample_tasks(self, n, rng, split="train"):
        """Directions (n, 2), those for training and those for tests from alternate sectors of 7.2
        degrees: never the same, though close.
        """
        angle = 2 * np.pi * checkerboard(n, rng, split, 1)
        return np.concatenate([np.cos(angle), np.sin(angle)], 1).astype(np.float32)

    def step(self, state, action, tasks, rng):
        """Move, then be paid for the progress."""
        new = self.advance(state, action, tasks, rng)
        reward = 10 * ((new - state) * tasks).sum(-1)
        return new, reward, np.zeros(reward.shape, bool)

    def optimal_return(self, tasks):
        """Both axes at full speed towards d, at each of the steps."""
        return self.horizon * np.abs(tasks).sum(-1)


@dataclass(frozen=True)
class Unpaid(Direction):
    """The same world without rewards: each is NaN, and so is all that is learned from one."""

    def step(self, state, action, tasks, rng):
        new, reward, done = super().step(state, action, tasks, rng)
        return new, np.full_like(reward, np.nan), done


def origins(env, tasks, episodes):
    """States (T, K, 2) in which K episodes of each task begin."""
    return env.reset(tasks, (len(tasks), episodes), None)


def demonstrations(env, tasks, episodes, skill, noise, rng):
    """Data of demonstrators, who know the directions; offline.py says what skill and noise mean."""
    states = origins(env, tasks, episodes)
    shape = (len(tasks), episodes)
    act = demonstrator(lambda obs: tasks[:, None], shape, skill, noise, rng)
    data = record(env, tasks, states, act, rng)
    return Data(*[part.astype(np.float32) for part in data])


def turned_to_the_right(paths, tasks):
    """Paths (T, ..., 2), each turned about the origin so that its direction is (1, 0)."""
    x, y = tasks.T
    along = np.stack([x, y], -1)
    across = np.stack([-y, x], -1)
    turn = np.stack([along, across], -2)
    return np.einsum("tij,t...j->t...i", turn, paths)
