"""The world of latent_model.py: a payload on a tether, seen from above.

A vehicle takes commands of velocity and is followed by a payload that swings under it, at small
angles, with the tether's length L:

    u' = -9.8 / L (p - vehicle) - 0.4 u

    state    (..., 6)   the payload's position p and velocity u, the vehicle's position
    action   (..., 2)   the vehicle's velocity, m/s
    length   (...)      of the tether, m
"""

import numpy as np

DT = 0.1  # seconds in a step
GRAVITY = 9.8
DRAG = 0.4
GUST = 0.02  # the deviation of what a step adds to u
RADIUS = 0.5  # of the circle that the payload is to fly, m
PERIOD = 24  # steps


def circle(t):
    """Where the payload ought to be at step t, (2,)."""
    angle = 2 * np.pi * t / PERIOD
    return RADIUS * np.array([np.cos(angle), np.sin(angle)])


def distance_squared(state, t):
    """Of the payload to where it ought to be at step t, (...)."""
    return ((state[..., 0:2] - circle(t)) ** 2).sum(-1)


def at_rest(*shape):
    """States (*shape, 6): the payload hangs under the vehicle, where the circle begins."""
    state = np.zeros((*shape, 6))
    state[..., 0:2] = circle(0)
    state[..., 4:6] = circle(0)
    return state


def step(state, action, length, rng):
    """The state after a step."""
    p = state[..., 0:2]
    u = state[..., 2:4]
    vehicle = state[..., 4:6]
    dt = DT / 4
    for _ in range(4):
        pull = -GRAVITY / length[..., None] * (p - vehicle)
        u = u + dt * (pull - DRAG * u)
        p = p + dt * u
        vehicle = vehicle + dt * action
    u = u + GUST * rng.standard_normal(u.shape)
    return np.concatenate([p, u, vehicle], -1)


# --- What a model of it learns: from x to y ---
def x_of(state, action):
    """(..., 6): all that a change depends on; where in the world the payload is does not matter."""
    offset = state[..., 0:2] - state[..., 4:6]
    return np.concatenate([offset, state[..., 2:4], action], -1)


def y_of(state, new):
    """(..., 4): the change of p and u."""
    return new[..., 0:4] - state[..., 0:4]


def moved(state, action, y):
    """The state after a change y. The vehicle does as it is told, which is known."""
    vehicle = state[..., 4:6] + DT * action
    return np.concatenate([state[..., 0:4] + y, vehicle], -1)


def wander(lengths, flights, steps, rng):
    """Flights with actions at random: x (K, flights, steps, 6) and y, with each of K lengths."""
    length = np.array(lengths)[:, None]
    state = at_rest(len(lengths), flights)
    action = np.zeros((len(lengths), flights, 2))
    x = []
    y = []
    for _ in range(steps):
        action = 0.4 * action + 0.9 * rng.standard_normal(action.shape)  # deviation 1
        new = step(state, action, length, rng)
        x.append(x_of(state, action))
        y.append(y_of(state, new))
        state = new
    return np.stack(x, 2), np.stack(y, 2)


# --- The test ---
def in_flight(o):
    """Lengths (H, B) of the tethers: the held-out ones, each exchanged for the third after it at
    o.exchange, then the outside ones; and for each flight one that never has the same, (B,).
    """
    n = len(o.held_out)
    third = np.roll(np.arange(n), -3)
    exchanged = np.arange(o.test_steps)[:, None] >= o.exchange
    held_out = np.where(exchanged, np.array(o.held_out)[third], o.held_out)
    outside = np.tile(o.outside, (o.test_steps, 1))
    other = np.concatenate([third, n + np.roll(np.arange(len(o.outside)), -2)])
    return np.concatenate([held_out, outside], 1), other


def errors(o, states):
    """{column: root mean square distance to the circle, in cm}; the first steps do not count."""
    squared = np.stack([distance_squared(s, t) for t, s in enumerate(states)])
    n = len(o.held_out)
    e = o.exchange
    parts = {
        "held out": squared[e // 2 : e, :n],
        "exchanged": squared[e : e + e // 4, :n],
        "settled": squared[e + e // 2 :, :n],
        "outside": squared[e // 2 :, n:],
    }
    return {column: 100 * np.sqrt(part.mean()) for column, part in parts.items()}
