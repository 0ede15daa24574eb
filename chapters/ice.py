"""The world of famle.py: a robot on ice, whose compass may be wrong.

It pushes itself along, by an action that says how hard and where to:

    v' = 0.8 v + 0.025 (thrust + 1) (cos b, sin b)      b = angle + sign pi bearing
    p' = p + v'

A situation is what is wrong with the compass: it is turned by an angle, and may be mirrored.

    state       (..., 4)   position p and velocity v
    action      (..., 2)   thrust and bearing, each in [-1, 1]
    situation   (..., 2)   angle in radians, and sign, 1 or -1
"""

import numpy as np

DRAG = 0.2
PUSH = 0.025
NOISE = 0.005  # the deviation of what a step adds to v
DISTANCE = 2.0  # of a goal from the start
NEAR = 0.2  # that close to its goal a robot has arrived
GOALS = 3  # in each of the held-out situations


def situations(degrees):
    """(2 n, 2): a compass turned by each of n angles, as it is and mirrored."""
    return np.array([(np.radians(angle), sign) for angle in degrees for sign in (1, -1)])


SIMULATED = situations(range(0, 360, 60))
HELD_OUT = situations(range(30, 360, 60))  # between those


# --- What a model of it learns: from x to y, velocities in units of PUSH ---
def x_of(state, action):
    """(..., 4): all that a change of v depends on, but for the situation."""
    return np.concatenate([state[..., 2:4] / PUSH, action], -1)


def change(situation, x):
    """y (..., 2), the change of v, without noise."""
    v = x[..., 0:2]
    thrust = x[..., 2:3]
    bearing = x[..., 3]
    b = situation[..., 0] + situation[..., 1] * np.pi * bearing
    return (thrust + 1) * np.stack([np.cos(b), np.sin(b)], -1) - DRAG * v


def noisy_change(situation, x, rng):
    """y as it is in the world."""
    y = change(situation, x)
    return y + NOISE / PUSH * rng.standard_normal(y.shape)


def moved(state, y):
    """The state after a change y."""
    v = state[..., 2:4] + PUSH * y
    return np.concatenate([state[..., 0:2] + v, v], -1)


def simulate(n, rng):
    """x (N, n, 4) and y (N, n, 2): n transitions in each of the N simulated situations.

    The robots act at random.
    """
    N = len(SIMULATED)
    state = np.zeros((N, 4))
    x = []
    y = []
    for _ in range(n):
        action = rng.uniform(-1, 1, (N, 2))
        x.append(x_of(state, action))
        y.append(noisy_change(SIMULATED, x[-1], rng))
        state = moved(state, y[-1])
    return np.stack(x, 1), np.stack(y, 1)


# --- The test ---
def robots(rng):
    """The situations (B, 2) of the robots in the test, and their goals (B, 2)."""
    situation = np.repeat(HELD_OUT, GOALS, 0)
    direction = rng.uniform(0, 2 * np.pi, len(situation))
    return situation, DISTANCE * np.stack([np.cos(direction), np.sin(direction)], -1)


def distance(state, goal):
    """(...), from the goal."""
    return np.sqrt(((state[..., 0:2] - goal) ** 2).sum(-1))


def is_nearest(situation, i):
    """(B,): whether simulated situation i (B,) is one of the two nearest to situation (B, 2)."""
    away = situation - SIMULATED[i]
    cosine = np.cos(away[:, 0])
    return (away[:, 1] == 0) & (cosine > np.cos(np.radians(31)))  # it is 30 from both
