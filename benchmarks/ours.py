"""The contestant of this project in peers.py: the function that --algo maml calls,
in the workers of the command line.
"""

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # in place of this directory

import numpy as np

import metarl
from envs import PointMass
from harness.settings import Setting
from harness.workers import workers

BOUND = 0.1  # the most that a step moves in each axis


@dataclass(frozen=True)
class Clamped(PointMass):
    """Moves by the action itself, as in peers.py; ours by a tenth of it. No episode ends early."""

    radius: float = 0.0

    def move(self, action, tasks):
        return action.clip(-BOUND, BOUND)


class Prepared:
    """In place of a generator: noise that was drawn before, (H, tasks, K, 2)."""

    def __init__(self, noise):
        self.steps = iter(noise)

    def standard_normal(self, shape):
        return next(self.steps)


@cache
def noise(path):
    with np.load(path) as arrays:
        return arrays["noise"]


def chunk(path, c, theta, tasks, address):
    """metarl.meta_gradient with the prepared noise; the address is the chunk's first task."""

    def noise_at(start, k):
        """Instead of metarl's, for the inner step k of the chunk that begins with task `start`."""
        return Prepared(noise(path)[k][:, start : start + len(tasks)])

    metarl.noise_at = noise_at
    return metarl.meta_gradient(c, theta, tasks, address)


def contestant(inputs, alpha, gamma):
    """The meta-gradient as a function of no arguments."""
    T, K, H = inputs.sizes
    hidden = tuple(int(n) for n in inputs.widths[1:-1])
    loss = dict(estimator="log-prob", baseline="time", standardise=False, gamma=gamma)
    step = dict(alpha=alpha, learn_alpha=False, inner_steps=1)
    size = dict(tasks=T, episodes=K, hidden=hidden, dtype=str(inputs.theta.dtype))
    c = Setting(algo="maml", env=Clamped(horizon=H), **loss, **step, **size)
    pool = ExitStack()
    in_chunks = partial(metarl.in_chunks, map=pool.enter_context(workers(0)))
    f = partial(chunk, inputs.path)

    def meta_gradient():
        rows, *_ = in_chunks(f, c, inputs.theta, inputs.goals, ())
        return rows.mean(0)

    meta_gradient.pool = pool  # until the process ends
    return meta_gradient
