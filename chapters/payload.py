"""The world of latent_model.py: a payload on a tether, seen from above.

A vehicle takes commands of velocity. A payload at p follows it, swinging under it at small angles
on a tether of length L:

    p' = u,  u' = -9.8 / L (p - vehicle) - 0.4 u

    state    (..., 6)   the payload's position p and velocity u, the vehicle's position
    action   (..., 2)   the vehicle's velocity, m/s
    length   (...)      of the tether, m

Read from the top: who flies; the world; what a model of it learns; the test flights.
"""

from dataclasses import dataclass

import numpy as np

DT = 0.1  # seconds in a step
SUBSTEPS = 4  # of the integration
GRAVITY = 9.8
DRAG = 0.4
GUST = 0.02  # the deviation of what a step adds to u
RADIUS = 0.5  # of the circle that the payload is to fly, m
PERIOD = 24  # steps for a turn


@dataclass(frozen=True)
class Flights:
    """Who flies, in training and in the test."""

    lengths: tuple = (0.2, 0.3, 0.45, 0.67, 1.0)  # of the tethers in training, m
    flights: int = 8  # with each of them
    flight_steps: int = 100
    held_out: tuple = (0.22, 0.25, 0.37, 0.55, 0.8, 0.9)  # between those of training
    outside: tuple = (0.15, 0.17, 1.2, 1.4)
    test_steps: int = 120
    exchange: int = 60  # the step at which a held-out payload becomes another


def circle(t):
    """Where the payload ought to be at step t, (2,)."""
    angle = 2 * np.pi * t / PERIOD
    return RADIUS * np.array([np.cos(angle), np.sin(angle)])


def distance_squared(state, t):
    """Of the payload to where it ought to be at step t, (...)."""
    return ((state[..., 0:2] - circle(t)) ** 2).sum(-1)


def at_rest(B):
    """States (B, 6): the payload hangs under the vehicle, where the circle begins."""
    state = np.zeros((B, 6))
    state[:, 0:2] = circle(0)
    state[:, 4:6] = circle(0)
    return state


def step(state, action, length, rng):
    """The state after a step."""
    p = state[..., 0:2]
    u = state[..., 2:4]
    vehicle = state[..., 4:6]
    dt = DT / SUBSTEPS
    for _ in range(SUBSTEPS):
        pull = -GRAVITY / length[..., None] * (p - vehicle)
        u = u + dt * (pull - DRAG * u)
        p = p + dt * u
        vehicle = vehicle + dt * action
    u = u + GUST * rng.standard_normal(u.shape)
    return np.concatenate([p, u, vehicle], -1)


# --- What a model of it learns: from x to y ---
def x_of(state, action):
    """(..., 6): all that a change depends on, but for the length of the tether.

    Where in the world the payload is does not matter.
    """
    offset = state[..., 0:2] - state[..., 4:6]
    return np.concatenate([offset, state[..., 2:4], action], -1)


def y_of(state, new):
    """(..., 4): the change of p and u."""
    return new[..., 0:4] - state[..., 0:4]


def moved(state, action, y):
    """The state after a change y. The vehicle does as it is told, which is known."""
    vehicle = state[..., 4:6] + DT * action
    return np.concatenate([state[..., 0:4] + y, vehicle], -1)


def wander(length, steps, rng):
    """B flights with actions at random: x (B, steps, 6) and y (B, steps, 4); length (B,)."""
    B = len(length)
    state = at_rest(B)
    action = np.zeros((B, 2))
    x = []
    y = []
    for _ in range(steps):
        action = 0.4 * action + 0.9 * rng.standard_normal((B, 2))  # of deviation about 1
        new = step(state, action, length, rng)
        x.append(x_of(state, action))
        y.append(y_of(state, new))
        state = new
    return np.stack(x, 1), np.stack(y, 1)


# --- The test flights: first those with o.held_out tethers, then those with o.outside ones ---
def in_flight(o):
    """The length of each tether at each step, (H, B); and for each flight another one, (B,).

    A held-out payload is exchanged at step o.exchange for the one three flights on, whose tether is
    much longer or shorter. The other flight never has the same length at the same time.
    """
    three_on = np.roll(np.arange(len(o.held_out)), -3)
    two_on = np.roll(np.arange(len(o.outside)), -2)
    held_out = np.tile(o.held_out, (o.test_steps, 1))
    held_out[o.exchange :] = held_out[0, three_on]
    outside = np.tile(o.outside, (o.test_steps, 1))
    other = np.concatenate([three_on, len(o.held_out) + two_on])
    return np.concatenate([held_out, outside], 1), other


def errors(o, states):
    """{column: root mean square distance to the circle, in cm} of states (H + 1, B, 6).

    With the settings of the chapter, an exchange at step 60 and H = 120, the columns are: held out,
    from step 30, when the start is over, to the exchange; exchanged, the 15 steps from 60; settled,
    from 90 on; outside, from 30 on, since those are not exchanged.
    """
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
