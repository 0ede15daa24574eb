"""What the offline chapters share: data sets, which somebody else collected.

Data     obs, actions, next_obs (T, K, H, ...), rewards (T, K, H)
         of T tasks, K episodes of each, H steps of each

Nothing here trains. What trains offline gets Data, and no environment that it could step.
"""

from typing import NamedTuple

import numpy as np

from envs import distance


class Data(NamedTuple):
    """Arrays of what was seen, done and paid; shapes above."""

    obs: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_obs: np.ndarray


def record(env, tasks, state, act, rng):
    """Data of env.horizon steps from states (T, K, ...), by act(obs (T, K, ...), t) -> actions.

    For worlds in which no episode ends early: `done` is not looked at.
    """
    each = tasks[:, None]  # a task for all of its episodes
    steps = []
    for t in range(env.horizon):
        obs = env.observe(state)
        actions = act(obs, t)
        state, rewards, _ = env.step(state, actions, each, rng)
        steps.append((obs, actions, rewards, env.observe(state)))
    return Data(*[np.stack(part, 2) for part in zip(*steps, strict=True)])  # H after T and K


def demonstrator(towards, shape, skill, noise, rng):
    """act(obs, t) of demonstrators of mixed skill: u * (where to go) + (1 - u) * (a drift) + noise.

    towards  from obs (T, K, 2) to unit vectors (T, K, 2) or (T, 1, 2), where an expert would go
    shape    (T, K); u and the drift, a unit vector, are fixed for each episode
    skill    (lowest, highest): u is uniform between them; (0, 0) are random walks, each of which
             keeps to its drift but for the noise
    noise    the deviation of what each step adds
    """
    u = rng.uniform(*skill, shape)[..., None]
    angle = rng.uniform(-np.pi, np.pi, shape)
    drift = np.stack([np.cos(angle), np.sin(angle)], -1)

    def act(obs, t):
        eps = noise * rng.standard_normal(obs.shape)
        return u * towards(obs) + (1 - u) * drift + eps

    return act


def unit(offset):
    """Vectors (..., 2) made 1 long; of length 0 they stay."""
    length = distance(offset)[..., None]
    return offset / np.where(length > 0, length, 1)


def of_tasks(data, i):
    """The Data of tasks i, an array of indices or a slice; their episodes stay together."""
    return Data(*[part[i] for part in data])


def of_episodes(data, k):
    """The Data of episodes k (T, n) of each task."""
    rows = np.arange(len(k))[:, None]
    return Data(*[part[rows, k] for part in data])
