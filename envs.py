"""Task families: batches of small Markov decision processes, as pure functions of explicit state.

A task is a row of numbers, a batch of tasks an (n, D) array. Everything broadcasts: with tasks of shape (T, 1, D)
and states of shape (T, K, ...) one call steps K episodes of each of T tasks. A family has

    obs_dim, action_dim, discrete, horizon, task_dim   what a policy and a rollout need to know
    splits_coincide                                    True where training and test tasks are the same by definition
    sample_tasks(n, rng, split)                        -> (n, D), split "train" or "test"; the splits share no task
    reset(tasks, shape, rng)                           -> state of `shape` episodes
    observe(state)                                     -> (..., obs_dim)
    step(state, action, tasks, rng)                    -> state, reward (...), done (...)
    optimal_return(tasks)                              -> (...): the mean return of the best policy that knows the task

`done` ends an episode before the horizon; what comes after is for the rollout to mask. States, rewards and
observations take the dtype of the tasks.
"""

from dataclasses import dataclass, fields

import numpy as np

CELLS = 50  # per axis, even


def checkerboard(n, rng, split, dims):
    """n points uniform in [0, 1]^dims, training ones on the black cells of a checkerboard, test ones on the white.

    So the two splits have the same distribution up to the size of a cell and never share a task. A hundredth of
    a cell is left out at each border, lest rounding carry a point over. Returns (n, dims).
    """
    if split not in ("train", "test"):
        raise ValueError(f"split {split!r}: must be 'train' or 'test'")
    if n < 1:
        raise ValueError(f"{n} tasks: must be at least 1")
    cells = rng.integers(CELLS, size=(n, dims))
    cells[:, 0] ^= (
        cells.sum(1) + (split == "test")
    ) % 2  # the neighbour along the first axis has the other colour
    return (cells + rng.uniform(0.01, 0.99, (n, dims))) / CELLS


@dataclass(frozen=True)
class PointMass:
    """MAML's 2-D navigation (Finn et al. 2017, section 5.3): go to a goal that only the reward knows.

    The point starts at the origin; action 1 moves it by 0.1, at most 0.1 per axis and step. The reward is minus
    the distance to the goal after the move; closer than `radius` in both axes, the episode ends.
    Task: the goal, uniform in [-box, box]^2. Observation: the position.
    """

    horizon: int = 100
    box: float = 0.5
    radius: float = 0.01  # 0: an episode never ends before the horizon

    obs_dim = action_dim = task_dim = 2
    discrete = splits_coincide = False

    def __post_init__(self):
        _require(self.horizon >= 1, "horizon", self.horizon, "at least 1")
        _require(0 < self.box < np.inf, "box", self.box, "above 0 and finite")
        _require(0 <= self.radius <= 0.1, "radius", self.radius, "in [0, 0.1], no more than a step")

    def sample_tasks(self, n, rng, split="train"):
        return self.box * (2 * checkerboard(n, rng, split, 2) - 1)

    def reset(self, tasks, shape, rng):
        return np.zeros((*shape, 2), tasks.dtype)

    def observe(self, state):
        return state

    def step(self, state, action, tasks, rng):
        state = state + 0.1 * np.clip(action, -1, 1)
        offset = state - tasks
        return state, -np.sqrt((offset**2).sum(-1)), (np.abs(offset) < self.radius).all(-1)

    def optimal_return(self, tasks):
        """Straight to the goal, each axis at full speed: -sum_t |max(|goal| - 0.1 t, 0)|."""
        t = np.arange(1, self.horizon + 1)[:, None]
        left = np.maximum(np.abs(tasks[..., None, :]) - 0.1 * t, 0)
        return -np.sqrt((left**2).sum(-1)).sum(-1)


FAMILIES = {"pointmass": PointMass}


def make(name, **options):
    """The family called `name`, with its dataclass fields as options; ValueError for a name or option unknown."""
    if name not in FAMILIES:
        raise ValueError(f"environment {name!r}: must be one of {', '.join(FAMILIES)}")
    known = [f.name for f in fields(FAMILIES[name])]
    for option in options:
        if option not in known:
            raise ValueError(f"option {option!r} of environment {name}: must be one of {', '.join(known)}")
    return FAMILIES[name](**options)


def _require(holds, name, value, allowed):
    if not holds:
        raise ValueError(f"{name} {value!r}: must be {allowed}")
