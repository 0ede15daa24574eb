"""The world of macaw.py, the data of its tasks, and the test: a point mass, and a goal in a box.

The reward of a step is minus the distance to the goal. The box has no walls: it says where goals
are, and the point may leave it. `o` is macaw.py's Options; D, too, is what its header calls so.
"""

from typing import NamedTuple

import numpy as np

from chapters.common import OWN
from chapters.offline import Data, demonstrator, of_tasks, record, unit
from envs import PointMass
from metarl import noise_at

WORLD = PointMass(horizon=20, box=1.0, radius=0.0)  # radius 0: no episode ends early
RANDOM_WALKS = (0.0, 0.0)  # skills, as offline.py has them
ALL_SKILLS = (0.0, 1.0)


def collect(tasks, skill, episodes, noise, rng):
    """Data of demonstrators of such skill in the tasks (T, 2), in float32, which is faster."""
    shape = (len(tasks), episodes)
    goals = tasks[:, None]

    def towards(obs):
        return unit(goals - obs)

    act = demonstrator(towards, shape, skill, noise, rng)
    data = record(WORLD, tasks, WORLD.reset(goals, shape, rng), act, rng)
    return Data(*[part.astype(np.float32) for part in data])


class Known(NamedTuple):
    """The data of the tasks of training, which are all that training gets."""

    walks: Data
    demonstrations: Data


class New(NamedTuple):
    """Tasks (T, 2) that training has not met, and random walks there."""

    tasks: np.ndarray
    D: Data


def data_sets(o, seed):
    """Known and New of a seed. Goals of the two lie in fields of a checkerboard, black and white.

    Noise: (seed, OWN, 0) known tasks, 1 new ones; 2 to 4 their data.
    """
    known = WORLD.sample_tasks(o.train_tasks, noise_at(seed, OWN, 0))
    new = WORLD.sample_tasks(o.test_tasks, noise_at(seed, OWN, 1), "test")
    walks = collect(known, RANDOM_WALKS, o.episodes, o.noise, noise_at(seed, OWN, 2))
    demonstrations = collect(known, ALL_SKILLS, o.episodes, o.noise, noise_at(seed, OWN, 3))
    D = collect(new, RANDOM_WALKS, o.inner_episodes, o.noise, noise_at(seed, OWN, 4))
    return Known(walks, demonstrations), New(new, D)


def exchanged(new):
    """The same tasks, each with the random walks of another one."""
    T = len(new.tasks)
    return New(new.tasks, of_tasks(new.D, np.roll(np.arange(T), 1)))


def test(act, tasks):
    """Data (T, 1, H, ...) of an episode in each task by act(obs (T, 1, 2), t) -> actions.

    One is enough: a point mass has no noise.
    """
    state = WORLD.reset(tasks[:, None], (len(tasks), 1), None)
    return record(WORLD, tasks, state, act, None)


def mean_return(data):
    """Over tasks and episodes, of the sum of rewards."""
    return data.rewards.sum(2).mean()
