"""The world of crssm.py: a robot that is to go to a goal, and whose thrust is turned.

It sees where it is, but not how fast it goes. The context c says by how many right angles its
thrust is turned; so the way to the goal is another in every context.

    v' = 0.8 v + 0.04 R(90 degrees c) a,   p' = p + v'

    p, v (..., 2)   position and velocity
    a (..., 2)      thrust, each between -1 and 1
    c (..., 1)      context: in training between -1 and 1

    o (B, T + 1, 2) all positions of an episode in each of B worlds; a (B, T, 2) its actions
"""

import numpy as np

GOAL = np.array([1.5, 0.0])
GUST = 0.003  # the deviation of what a step adds to v


def step(p, v, a, c):
    """Position and velocity after a step, without a gust."""
    angle = np.pi / 2 * c[..., 0]
    cos = np.cos(angle)
    sin = np.sin(angle)
    x = cos * a[..., 0] - sin * a[..., 1]
    y = sin * a[..., 0] + cos * a[..., 1]
    v = 0.8 * v + 0.04 * np.stack([x, y], -1)
    return p + v, v


def reward(p):
    """Minus the distance to the goal, (...)."""
    return -np.sqrt(((p - GOAL) ** 2).sum(-1))


def play(act, c, T, rng):
    """o and a of episodes of T steps that start at rest near the origin, in the contexts c (B, 1).

    act(o, a): the next action (B, 2), from all positions and actions until now.
    c may also be (B, T, 1), a context for each step.
    """
    B = len(c)
    c = np.broadcast_to(c.reshape(B, -1, 1), (B, T, 1))
    p = 0.1 * rng.standard_normal((B, 2))
    v = np.zeros((B, 2))
    o = p[:, None]
    a = np.zeros((B, 0, 2))
    for t in range(T):
        action = act(o, a)
        _, v = step(p, v, action, c[:, t])
        v = v + GUST * rng.standard_normal(v.shape)
        p = p + v
        o = np.concatenate([o, p[:, None]], 1)
        a = np.concatenate([a, action[:, None]], 1)
    return o, a


# --- Ways to act that learn nothing ---
def wander(rng):
    """At random, much as a step before."""

    def act(o, a):
        before = np.pad(a, [(0, 0), (1, 0), (0, 0)])[:, -1]
        return (0.7 * before + 0.7 * rng.standard_normal(before.shape)).clip(-1, 1)

    return act


def knowing(cem, c, T, rng):
    """By a plan to the end of the episode, with the world and c (B, 1) known, and so v."""
    plan = np.zeros((len(c), T, 2))

    def act(o, a):
        nonlocal plan
        p = o[:, -1]
        v = np.diff(o, axis=1, prepend=o[:, :1])[:, -1]  # p' = p + v'; at first it is at rest
        plan = cem.plan(lambda plans: cost(p, v, c, plans), plan, rng)
        action = plan[:, 0]
        plan = plan[:, 1:]
        return action

    return act


def cost(p, v, c, plans):
    """(B, n): the distances to the goal, summed, that plans (B, n, H, 2) lead along."""
    B, n, H, _ = plans.shape
    p = np.broadcast_to(p[:, None], (B, n, 2))
    v = np.broadcast_to(v[:, None], (B, n, 2))
    total = np.zeros((B, n))
    for h in range(H):
        p, v = step(p, v, plans[:, :, h], c[:, None])
        total -= reward(p)
    return total


# --- The contexts of the test ---
def inside_and_outside(n, episodes):
    """{place: contexts (n * episodes, 1)}: n on a grid inside the range of training, n on both
    sides of it, and each as many times as episodes are to be played in it.
    """
    inside = np.linspace(-0.95, 0.95, n)
    beyond = np.linspace(1.05, 1.5, n // 2)
    outside = np.concatenate([-beyond[::-1], beyond])
    return {
        "inside": np.repeat(inside[:, None], episodes, 0),
        "outside": np.repeat(outside[:, None], episodes, 0),
    }


def another(c):
    """For each of the contexts (B, 1) of a grid the one half a grid away: inside, a right angle."""
    return np.roll(c, len(c) // 2, 0)


def exchanged(c, new_c, seen, T):
    """Contexts (B, T, 1) of the actions: new_c after so many observations were seen, c before.

    The first observation precedes all actions, so that c has one action less than observations.
    """
    t = np.arange(T)[:, None]
    return np.where(t < seen - 1, c[:, None], new_c[:, None])
