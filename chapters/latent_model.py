"""A model that infers its task: a payload on a tether whose length nobody tells.

    python -m chapters.latent_model [--seeds 5] [--first-seed 0] [--quick] [--plot DIR] [--json]

Belkhale, Li, Kahn, McAllister, Calandra & Levine, "Model-Based Meta-Reinforcement Learning for
Flight with Suspended Payloads", 2021, arXiv 2004.11345, Algorithm 1. A model p_theta(s'|s, a, z) is
shared by all payloads; what is a payload's own is z, a number, of which there is a belief, q =
N(mu, sigma^2), with the prior N(0, 1). In our words, with the numbers that the code carries:

    training
    l.1   flights with payloads k = 1 ... K
    l.2   while not done:
    l.3     theta and all q_k: a step up the ELBO of the transitions,
                sum_k sum_i E_{z ~ q_k} log p_theta(s'_i|s_i, a_i, z) - KL(q_k || N(0, 1))
    test: theta is frozen, q starts at the prior
    l.4   at every step:
    l.5     plan with z = mu, and take the first action
    l.6     observe the transition
    l.7     q: some steps up the ELBO of the latest transitions

The claim: a model that infers z flies payloads that it never met as if it knew their tethers, and
one without z cannot. In flight the payload is exchanged without a word.

Read from the top: the world; the data, l.1; the ELBO and training, l.2 and 3; inference, l.7; the
flight, l.4 to 6; `run`, which flies with what it has to beat; what is printed. models.py has the
network, Adam and the planner.

Said plainly: PLACEHOLDER.

Smaller than in the paper: PLACEHOLDER.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

import autodiff as ad
from chapters import common
from chapters.common import EACH, OWN, Chapter, below, above, table
from chapters.models import CEM, Dynamics, Moments, adam_step, later
from metarl import noise_at


@dataclass(frozen=True)
class Options:
    payloads: tuple = (0.2, 0.3, 0.45, 0.67, 1.0)  # lengths of the tethers in training, in m
    held_out: tuple = (0.22, 0.25, 0.37, 0.55, 0.8, 0.9)
    outside: tuple = (0.15, 0.17, 1.2, 1.4)
    flights: int = 8  # with each payload in training
    flight_steps: int = 100
    hidden: tuple = (64, 64)
    train_steps: int = 1500
    step_size: float = 0.003  # Adam's; it falls linearly to a tenth
    batch: int = 64  # transitions of each payload
    first_log_sigma: float = -2.0  # of q_k in training; q_k wider or apart can lose payloads
    memory: int = 5  # transitions that the model with a history sees
    test_steps: int = 120
    exchange: int = 60  # the step at which a held-out payload is exchanged
    window: int = 10  # transitions that q is inferred from
    infer_steps: int = 10  # of Adam on q, at every step of a flight
    infer_size: float = 0.05
    horizon: int = 10
    cem: CEM = CEM()


QUICK = Options(train_steps=200, hidden=(32, 32), cem=CEM(plans=24, rounds=2, elites=4))

# Noise of its own: (seed, OWN, 0) flights of training; (1, width of the context) a model's theta at
# first and its batches; 2 gusts; (3, t) plans at step t; (4, t) z in inference at step t; 5 flights
# on which predictions are measured, 6 z there.


# --- The world ---
# state (..., 6): the payload's position p and velocity u, the vehicle's position; two numbers each
DT = 0.1  # seconds in a step
GRAVITY = 9.8
DRAG = 0.4
GUST = 0.02  # deviation of what u gets in a step
RADIUS = 0.5  # of the circle that the payload is to fly, in m
PERIOD = 24  # steps


def circle(t):
    """Where the payload ought to be at step t (2,)."""
    angle = 2 * np.pi * t / PERIOD
    return RADIUS * np.array([np.cos(angle), np.sin(angle)])


def at_rest(shape):
    """States (*shape, 6): the payload hangs under the vehicle, at the beginning of the circle."""
    state = np.zeros((*shape, 6))
    state[..., 0:2] = state[..., 4:6] = circle(0)
    return state


def world_step(state, action, length, rng):
    """The state after an action (..., 2), the vehicle's velocity; length (...) of the tether."""
    p = state[..., 0:2]
    u = state[..., 2:4]
    vehicle = state[..., 4:6]
    for _ in range(4):
        pull = -GRAVITY / length[..., None] * (p - vehicle)
        u = u + DT / 4 * (pull - DRAG * u)
        p = p + DT / 4 * u
        vehicle = vehicle + DT / 4 * action
    u = u + GUST * rng.standard_normal(u.shape)
    return np.concatenate([p, u, vehicle], -1)


def inputs(state, action):
    """(..., 6): what the change depends on, which is not where in the world it happens."""
    return np.concatenate([state[..., 0:2] - state[..., 4:6], state[..., 2:4], action], -1)


def moved(state, action, change):
    """The state (..., 6) whose payload has changed so; how the vehicle moves is known."""
    vehicle = state[..., 4:6] + DT * action
    return np.concatenate([state[..., :4] + change, vehicle], -1)


# --- l.1: the data ---
def wander(o, lengths, flights, rng):
    """Transitions of flights with velocities at random: inputs (K, flights, H, 6), changes (.., 4)."""
    lengths = np.array(lengths)[:, None]
    shape = (len(lengths), flights)
    state = at_rest(shape)
    action = np.zeros((*shape, 2))
    xs = []
    changes = []
    for _ in range(o.flight_steps):
        action = 0.8 * action + 0.6 * rng.standard_normal(action.shape)
        new = world_step(state, action, lengths, rng)
        xs.append(inputs(state, action))
        changes.append(new[..., :4] - state[..., :4])
        state = new
    return np.stack(xs, 2), np.stack(changes, 2)


class Scales(NamedTuple):
    """The deviations by which inputs and changes are divided before a network sees them."""

    x: np.ndarray
    y: np.ndarray


def history(o, x, y):
    """For each transition (..., H, e) the o.memory ones before it in a row; zeros before the first."""
    pairs = np.concatenate([x, y], -1)
    H = pairs.shape[-2]
    nothing = np.zeros((*pairs.shape[:-2], o.memory, pairs.shape[-1]))
    padded = np.concatenate([nothing, pairs], -2)
    return np.concatenate([padded[..., i : i + H, :] for i in range(o.memory)], -1)


# --- l.2 and 3: training ---
# q (B, 2): mu and log sigma of each belief.
PRIOR = np.zeros(2)


def kl(q):
    """(B,): KL(N(mu, sigma^2) || N(0, 1))."""
    mu = q[..., 0]
    log_sigma = q[..., 1]
    return 0.5 * (mu * mu + ad.exp(2 * log_sigma) - 1) - log_sigma


def negative_elbo(net, theta, q, x, y, eps, each=1.0):
    """(B,): KL - sum of E_q log p, with z = mu + sigma eps, one draw for a transition.

    x (B, n, 6), y (B, n, 4), eps (B, n); each transition stands for `each`.
    """
    mu = q[..., 0:1]
    sigma = ad.exp(q[..., 1:2])
    z = mu + sigma * eps
    log_p = net.log_p(theta, ad.concatenate([x, z[..., None]], -1), y)
    return kl(q) - each * ad.sum(log_p, -1)


class Model(NamedTuple):
    """p_theta(y|x, context), frozen; a context is z, a length, a history, or nothing."""

    net: Dynamics
    theta: np.ndarray
    scales: Scales
    slides: bool = False  # whether the context is a history, which moves on in a plan


def trained(o, x, y, context, seed):
    """theta (P,) and q (K, 2) on x (K, N, 6), y (K, N, 4), and the context (K, N, e) of each.

    Where the context is None it is z, and q is learned too.
    """
    K, N, _ = x.shape
    width = 1 if context is None else context.shape[-1]
    net = Dynamics(x.shape[-1] + width, y.shape[-1], o.hidden)
    rng = noise_at(seed, OWN, 1, width)
    q = np.tile([0.0, o.first_log_sigma], (K, 1))
    w = np.concatenate([net.init(rng), q.ravel()])
    rows = np.arange(K)[:, None]
    moments = Moments()
    for t in range(o.train_steps):  # l.2
        i = rng.integers(N, size=(K, o.batch))
        eps = rng.standard_normal((K, o.batch))

        def loss(w):
            theta = w[: net.size]
            if context is None:
                q = w[net.size :].reshape(K, 2)
                by_payload = negative_elbo(net, theta, q, x[rows, i], y[rows, i], eps, N / o.batch)
                return ad.mean(by_payload) / N
            told = np.concatenate([x[rows, i], context[rows, i]], -1)
            return -ad.mean(net.log_p(theta, told, y[rows, i]))

        step_size = o.step_size * (1 - 0.9 * t / o.train_steps)
        w, moments = adam_step(loss, w, step_size, moments)  # l.3
    w.flags.writeable = False  # from here on theta is frozen
    return net, w[: net.size], w[net.size :].reshape(K, 2)


# --- l.7: inference ---
STARTS = np.array([[mu, -1.0] for mu in (-2.0, -1.0, 0.0, 1.0, 2.0)])


class Belief:
    """q (B, 2) of the payloads of B flights, from the prior on; theta stays as it is."""

    def __init__(self, o, model, B):
        self.o = o
        self.model = model
        self.q = np.tile(PRIOR, (B, 1))
        self.moments = Moments(np.zeros((B, 2)), np.zeros((B, 2)), np.zeros((B, 1)))

    def infer(self, x, y, rng, steps):
        """Some steps of Adam on q alone, up the ELBO of transitions x (B, n, 6), y (B, n, 4).

        One ascent could stay for ever at a wrong z, as after an exchange: so it starts again from
        one of STARTS where that is better.
        """
        def loss(q, eps):
            return negative_elbo(self.model.net, self.model.theta, q, x, y, eps)

        eps = rng.standard_normal(x.shape[:2])
        self.restart(np.array([loss(np.tile(s, (len(x), 1)), eps) for s in STARTS]), loss(self.q, eps))
        for _ in range(steps):
            eps = rng.standard_normal(x.shape[:2])
            self.q, self.moments = adam_step(
                lambda q: loss(q, eps), self.q, self.o.infer_size, self.moments
            )

    def restart(self, losses, loss):
        """Where a start's loss, of losses (starts, B), is less than the own (B,), q is that start."""
        better = (losses.min(0) < loss)[:, None]
        self.q = np.where(better, STARTS[losses.argmin(0)], self.q)
        self.moments = Moments(*(np.where(better, 0.0, part) for part in self.moments))


# --- l.4 to 6: the flight ---
def plan_cost(o, model, state, context, t):
    """What plans (B, n, H, 2) would cost from states (B, 6) at step t, as the model sees it."""

    def cost(plans):
        B, n, H, _ = plans.shape
        s = np.broadcast_to(state[:, None], (B, n, 6))
        c = np.broadcast_to(context[:, None], (B, n, context.shape[-1]))
        total = 0
        for h in range(H):
            action = plans[:, :, h]
            x = inputs(s, action) / model.scales.x
            y = model.net.mean(model.theta, np.concatenate([x, c], -1))
            s = moved(s, action, y * model.scales.y)
            if model.slides:
                c = np.concatenate([c[..., 10:], x, y], -1)
            total = total + ((s[..., :2] - circle(t + h + 1)) ** 2).sum(-1)
        return total

    return cost


def fly(o, model, lengths, context, seed):
    """States (H + 1, B, 6) and contexts (H, B, e) of B flights with tethers of lengths (H, B).

    context: from the step t and the transitions so far, x (B, t, 6) and y (B, t, 4), to what the
    model is told, (B, e). No more of the payload is known to it: neither length nor exchange.
    """
    H, B = lengths.shape
    gusts = noise_at(seed, OWN, 2)
    states = [at_rest((B,))]
    contexts = []
    x = np.zeros((B, 0, 6))
    y = np.zeros((B, 0, 4))
    plan = np.zeros((B, o.horizon, 2))
    for t in range(H):  # l.4
        state = states[-1]
        contexts.append(context(t, x, y))
        cost = plan_cost(o, model, state, contexts[-1], t)
        plan = o.cem.plan(cost, plan, noise_at(seed, OWN, 3, t))
        action = plan[:, 0]  # l.5
        new = world_step(state, action, lengths[t], gusts)  # l.6
        seen = inputs(state, action) / model.scales.x
        change = (new - state)[:, :4] / model.scales.y
        x = np.concatenate([x, seen[:, None]], 1)
        y = np.concatenate([y, change[:, None]], 1)
        states.append(new)
        plan = later(plan)
    return np.stack(states), np.stack(contexts)


# --- What it has to beat, and the test ---
def code(lengths):
    """A length as the model is told it that knows lengths (..., 1)."""
    return np.log(np.array(lengths))[..., None] + 0.8


def no_context(width):
    """The context of a model without z, or at the prior's mean."""
    return lambda t, x, y: np.zeros((len(x), width))


def recent(o):
    """The context that is the last o.memory transitions."""

    def context(t, x, y):
        one_more = [(0, 0), (0, 1), (0, 0)]  # the transition to come, of which nothing is told
        x = np.pad(x[:, -o.memory :], one_more)
        y = np.pad(y[:, -o.memory :], one_more)
        return history(o, x, y)[:, -1]

    return context


def inferring(o, model, seed, flights):
    """The context z = mu of what was inferred in `flights` (B,): one's own, or another's."""
    belief = Belief(o, model, len(flights))

    def context(t, x, y):
        rng = noise_at(seed, OWN, 4, t)
        belief.infer(x[:, -o.window :], y[:, -o.window :], rng, o.infer_steps)  # l.7
        return belief.q[flights, :1]

    return context


def payloads_in_flight(o):
    """Lengths (H, B): the held-out ones, exchanged three further at o.exchange, and the outside."""
    held_out = np.array(o.held_out)
    after = np.roll(held_out, 3)
    late = np.arange(o.test_steps)[:, None] >= o.exchange
    outside = np.tile(o.outside, (o.test_steps, 1))
    return np.concatenate([np.where(late, after, held_out), outside], 1)


def others(o):
    """(B,): for each flight one with another payload, before and after the exchange."""
    n = len(o.held_out)
    return np.concatenate([np.roll(np.arange(n), 3), n + np.roll(np.arange(len(o.outside)), 2)])


def errors(o, states):
    """{column: root mean square distance of the payload to the circle, in cm}."""
    path = np.stack([circle(t) for t in range(len(states))])
    squared = ((states[..., :2] - path[:, None]) ** 2).sum(-1)
    n = len(o.held_out)
    e = o.exchange
    parts = {
        "held out": squared[e // 2 : e, :n],
        "exchanged": squared[e : e + e // 4, :n],
        "settled": squared[e + e // 2 :, :n],
        "outside": squared[e // 2 :, n:],
    }
    return {column: 100 * np.sqrt(part.mean()) for column, part in parts.items()}


def run(o, seed):
    x, y = wander(o, o.payloads, o.flights, noise_at(seed, OWN, 0))
    scales = Scales(x.std((0, 1, 2)), y.std((0, 1, 2)))
    x = x / scales.x
    y = y / scales.y
    K, N = len(o.payloads), x[0, ..., 0].size
    told = {
        "no z": np.zeros((K, N, 0)),
        "history of 5": history(o, x, y).reshape(K, N, -1),
        "length known": np.tile(code(o.payloads)[:, None], (1, N, 1)),
        "z inferred": None,
    }
    x = x.reshape(K, N, -1)
    y = y.reshape(K, N, -1)
    models = {}
    for name, context in told.items():
        net, theta, q = trained(o, x, y, context, seed)
        models[name] = Model(net, theta, scales, name == "history of 5")
    latent = models["z inferred"]
    lengths = payloads_in_flight(o)
    B = lengths.shape[1]
    contexts = {
        "no z": (models["no z"], no_context(0)),
        "history of 5": (models["history of 5"], recent(o)),
        "z inferred": (latent, inferring(o, latent, seed, np.arange(B))),
        "prior's z": (latent, no_context(1)),
        "another's z": (latent, inferring(o, latent, seed, others(o))),
        "length known": (models["length known"], lambda t, x, y: code(lengths[t])),
    }
    rows = {}
    flights = {}
    import time
    for name, (model, context) in contexts.items():
        t0 = time.process_time()
        flights[name] = fly(o, model, lengths, context, seed)
        rows[name] = errors(o, flights[name][0])
        print(name, time.process_time() - t0, rows[name])
    print(q)
    return rows, flights
