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
    # k: inner steps so far
    metarl.noise_at = lambda start, k: Prepared(noise(path)[k][:, start : start + len(tasks)])
    return metarl.meta_gradient(c, theta, tasks, address)


def contestant(inputs, alpha, gamma):
    """The meta-gradient as a function of no arguments."""
    T, K, H = inputs.sizes
    options = dict(
        alpha=alpha, gamma=gamma, baseline="time", standardise=False, episodes=K, inner_steps=1
    )
    options |= dict(
        hidden=tuple(int(n) for n in inputs.widths[1:-1]), dtype=str(inputs.theta.dtype), tasks=T
    )
    c = Setting(
        algo="maml", estimator="log-prob", env=Clamped(horizon=H), learn_alpha=False, **options
    )
    pool = ExitStack()
    map = pool.enter_context(workers(0))

    def meta_gradient():
        return metarl.in_chunks(
            partial(chunk, inputs.path), c, inputs.theta, inputs.goals, (), map=map
        )[0].mean(0)

    meta_gradient.pool = pool  # until the process ends
    return meta_gradient
