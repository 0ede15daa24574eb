"""The world of borel.py: a sparse point mass in a half-disc, with nine moves; and its data.

    state    (..., 2)   the position, within the walls
    action   (...)      an index into MOVES
    goal     (..., 2)   the task, on the half-circle y >= 0 of radius 1

The reward is 1 - d at a distance d < 0.2 from the goal, else 0: where it is 0, it tells nothing but
that the goal is somewhere else.

Why there are walls: an agent that is trained offline believes in values where nobody has been, and
goes there. Without walls it leaves for good; of a rectangle it likes the corners. In a half-disc
the goals lie along the wall.
"""

from dataclasses import dataclass

import numpy as np

from chapters.offline import record
from envs import SparsePointMass, distance

STEPS = (-0.1, 0.0, 0.1)
MOVES = np.array([(x, y) for x in STEPS for y in STEPS])  # those of a king in chess, and to stay
RADIUS = 1.1  # of the wall around
FLOOR = -0.1  # the lowest y


@dataclass(frozen=True)
class Arena(SparsePointMass):
    horizon: int = 40

    discrete = True
    action_dim = len(MOVES)

    def advance(self, state, action, tasks, rng):
        return self.allowed(state + MOVES[action])

    def allowed(self, position):
        x = position[..., 0]
        y = position[..., 1].clip(FLOOR)
        above = np.stack([x, y], -1)
        too_far = np.maximum(distance(above) / RADIUS, 1)
        return above / too_far[..., None]

    def rewards(self, s, goals):
        """What arriving at s (..., 2) is paid in the tasks `goals` (..., 2)."""
        reward, _ = self.judge(s, goals)
        return reward


def anywhere(shape, rng):
    """Positions (*shape, 2), uniform in the half-disc y >= 0."""
    r = RADIUS * np.sqrt(rng.random(shape))
    angle = np.pi * rng.random(shape)
    return np.stack([r * np.cos(angle), r * np.sin(angle)], -1)


def seeker(goals, blunders, rng):
    """act(obs, t) of agents that know their goals (T, 2), but for some moves at random.

    blunders  (T, K), the share of these in each episode
    """

    def act(obs, t):
        left = distance(obs[..., None, :] + MOVES - goals[:, None, None])
        any_move = rng.integers(len(MOVES), size=blunders.shape)
        blunder = rng.random(blunders.shape) < blunders
        return np.where(blunder, any_move, left.argmin(-1))

    return act


def collect(o, world, goals, rng):
    """The data set: o.episodes of a seeker of each of the goals, from anywhere."""
    shape = (len(goals), o.episodes)
    blunders = rng.uniform(*o.blunders, shape)
    return record(world, goals, anywhere(shape, rng), seeker(goals, blunders, rng), rng)


def detours(world, goals, rng):
    """An episode of each task that goes to the goal of another one, a quarter of a turn away.

    Data (T, 1, H), of which no step is paid; and these other goals (T, 2).
    """
    angle = np.arctan2(goals[:, 1], goals[:, 0])
    elsewhere = (angle + np.pi / 2) % np.pi
    others = np.stack([np.cos(elsewhere), np.sin(elsewhere)], -1)
    blunders = np.full((len(goals), 1), 0.1)
    origin = world.reset(goals, blunders.shape, rng)
    return record(world, goals, origin, seeker(others, blunders, rng), rng), others


def walks(world, goals, n, rng):
    """Data (T, n, H): what there is to gain for who knows the goals (T, 2)."""
    blunders = np.zeros((len(goals), n))
    origin = world.reset(goals, blunders.shape, rng)
    return record(world, goals, origin, seeker(goals, blunders, rng), rng)
