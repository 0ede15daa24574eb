"""A model that infers its task: a payload on a tether whose length nobody tells.

    python -m chapters.latent_model [--seeds 5] [--first-seed 0] [--quick] [--plot DIR] [--json]

Belkhale, Li, Kahn, McAllister, Calandra & Levine, "Model-Based Meta-Reinforcement Learning for
Flight with Suspended Payloads", 2021, arXiv 2004.11345. One model p_theta(s'|s, a, z) is shared by
all payloads. What is a payload's own is z, a number, of which there is a belief q(z) = N(mu,
sigma^2), with the prior N(0, 1). In our words, with the numbers that the lines of the code carry:

    training
    l.1   flights with payloads 1 ... K
    l.2   while not done:
    l.3     theta and all q_k: a step up the ELBO of the transitions (s_i, a_i, s'_i) of each k,
                sum_i E_{z ~ q_k} log p_theta(s'_i|s_i, a_i, z) - KL(q_k || N(0, 1))
    flight, with theta frozen and q at the prior
    l.4   at every step:
    l.5     q: some steps up the ELBO of the latest transitions
    l.6     plan with z = mu
    l.7     take the first action of the plan, and observe the transition

The claim: with z inferred, payloads that training never met fly as if their tethers were known;
without z they cannot. Here a payload is even exchanged in flight, without a word.

Read from the top: the ELBO and training, l.1 to 3; inference, l.5; the flight, l.4, 6 and 7; `run`,
which flies with all that is to be compared; what is printed. payload.py has the world, models.py
the network, Adam and the planner.

Said plainly: in the 15 steps after an exchange z is no better than a history, as the transitions
that it is inferred from must first be those of the new payload. A belief that has seen nothing
predicts worse than no z at all: the model takes the prior's mean for a payload, and is sure. z is
not the length: its sign is the run's, and outside the lengths of training two of it can mean one
payload. The model with a history has the training of all others; with four times that its error is
a fifth less, still nearly twice that of z.

Smaller than in the paper: a simulated payload seen from above, at small angles, and no camera; a
circle to fly, and no pick-up. The state is observed whole, so that z comes without a history, where
theirs has both. Five payloads in training; one network, whose deviations are learned; one Adam for
theta and q. That inference has several starts is ours.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

import autodiff as ad
from chapters import common, payload
from chapters.common import EACH, OWN, Chapter, above, below, table
from chapters.models import CEM, Dynamics, Moments, adam_step, later
from metarl import noise_at

PLANNER = CEM(plans=64, rounds=3, elites=8, std=0.7, bound=1.5)
QUICK_PLANNER = CEM(plans=12, rounds=2, elites=3, std=0.7, bound=1.5)


@dataclass(frozen=True)
class Options:
    lengths: tuple = (0.2, 0.3, 0.45, 0.67, 1.0)  # of the tethers in training, m
    held_out: tuple = (0.22, 0.25, 0.37, 0.55, 0.8, 0.9)
    outside: tuple = (0.15, 0.17, 1.2, 1.4)
    flights: int = 8  # with each payload in training
    flight_steps: int = 100
    hidden: tuple = (64, 64)
    train_steps: int = 1500
    beta: float = 0.003  # Adam's step size; it falls to a tenth
    batch: int = 64  # transitions of each payload in a step
    first_log_sigma: float = -2.0  # of q_k; where q_k start wide or apart, payloads can get lost
    memory: int = 5  # transitions that the model with a history is told
    test_steps: int = 120
    exchange: int = 60  # the step at which a held-out payload becomes another
    window: int = 10  # latest transitions, from which q is inferred
    infer_steps: int = 10
    infer_beta: float = 0.05
    horizon: int = 10  # actions in a plan
    cem: CEM = PLANNER


QUICK = Options(hidden=(32, 32), train_steps=300, infer_steps=4, cem=QUICK_PLANNER)

# Noise of its own: (seed, OWN, 0) flights of training; (1, n) theta at first and the batches of a
# model with n inputs; 2 gusts; (3, t) plans at step t; (4, t) draws of z there; 5 the flights on
# which predictions are measured, 6 draws of z for them.


class Model(NamedTuple):
    """p_theta(y|x, c). What a model is told besides x is its context c (B, e): z, a length, the
    transitions before, or nothing.
    """

    net: Dynamics
    theta: np.ndarray  # (P,), frozen
    x_std: np.ndarray  # by which x and y are divided before the network sees them
    y_std: np.ndarray
    slides: bool  # whether the context is a history, which moves on in a plan


# --- l.3: the ELBO ---
# A belief about each of B payloads: q (B, 2), mu and log sigma.
def kl(q):
    """KL(N(mu, sigma^2) || N(0, 1)), (B,)."""
    mu = q[..., 0]
    log_sigma = q[..., 1]
    return 0.5 * (mu * mu + ad.exp(2 * log_sigma) - 1) - log_sigma


def z_of(q, eps):
    """Draws of z, mu + sigma eps, as the context of transitions: eps (B, n), z (B, n, 1)."""
    z = q[..., 0:1] + ad.exp(q[..., 1:2]) * eps
    return z[..., None]


def negative_elbo(net, theta, q, x, y, eps, each=1.0):
    """(B,): KL - sum of log p(y|x, z) over transitions x (B, n, 6), y (B, n, 4), each with a z of
    its own; each stands for so many.
    """
    told = ad.concatenate([x, z_of(q, eps)], -1)
    return kl(q) - each * ad.sum(net.log_p(theta, told, y), -1)


# --- l.1 to 3: training ---
def loss_of(net, w, x, y, eps, each):
    """A loss for each payload, of w = (theta, q); of theta alone, where no q is being learned."""
    theta = w[: net.size]
    q = w[net.size :].reshape(-1, 2)
    if len(q) == 0:
        return -ad.sum(net.log_p(theta, x, y), -1)
    return negative_elbo(net, theta, q, x, y, eps, each)


def train(o, net, x, y, q, seed):
    """theta (P,) and q (K, 2) or (0, 2), from x (K, N, e), y (K, N, 4) and the first q."""
    K, N, _ = x.shape
    rng = noise_at(seed, OWN, 1, net.inputs)
    w = np.concatenate([net.init(rng), q.ravel()])
    moments = Moments()
    for t in range(o.train_steps):  # l.2
        k = np.arange(K)[:, None]
        i = rng.integers(N, size=(K, o.batch))
        eps = rng.standard_normal(i.shape)
        loss = partial(loss_of, net, x=x[k, i], y=y[k, i], eps=eps, each=N / o.batch)
        beta = o.beta * (1 - 0.9 * t / o.train_steps)
        w, moments = adam_step(loss, w, beta, moments)  # l.3
    w.flags.writeable = False  # from here on theta is frozen
    return w[: net.size], w[net.size :].reshape(-1, 2)


def history(o, x, y):
    """For each transition (..., N, 10) the o.memory ones before it, in a row; first there are 0."""
    pairs = np.concatenate([x, y], -1)
    *batch, N, width = pairs.shape
    padded = np.concatenate([np.zeros((*batch, o.memory, width)), pairs], -2)
    return np.concatenate([padded[..., i : i + N, :] for i in range(o.memory)], -1)


def told_length(length):
    """The context of the model that knows lengths (...): their logarithms about 0, (..., 1)."""
    return np.log(length)[..., None] + 0.8


def learn(o, seed):
    """{name: Model}, all from the same transitions, and q (K, 2) of the payloads."""
    x, y = payload.wander(o.lengths, o.flights, o.flight_steps, noise_at(seed, OWN, 0))  # l.1
    x_std = x.std((0, 1, 2))
    y_std = y.std((0, 1, 2))
    x = x / x_std
    y = y / y_std
    length = np.broadcast_to(np.array(o.lengths)[:, None, None], x.shape[:3])
    told = {
        "no z": x[..., :0],
        "history": history(o, x, y),
        "length known": told_length(length),
    }
    K = len(o.lengths)
    x_rows = x.reshape(K, -1, 6)
    y_rows = y.reshape(K, -1, 4)
    no_q = np.zeros((0, 2))
    models = {}
    for name, c in told.items():
        x_and_c = np.concatenate([x_rows, c.reshape(K, x_rows.shape[1], c.shape[-1])], -1)
        net = Dynamics(x_and_c.shape[-1], 4, o.hidden)
        theta, _ = train(o, net, x_and_c, y_rows, no_q, seed)
        models[name] = Model(net, theta, x_std, y_std, slides=name == "history")
    net = Dynamics(6 + 1, 4, o.hidden)
    q = np.tile([0.0, o.first_log_sigma], (K, 1))
    theta, q = train(o, net, x_rows, y_rows, q, seed)
    models["z"] = Model(net, theta, x_std, y_std, slides=False)
    return models, q


# --- l.5: inference ---
PRIOR = np.zeros(2)
STARTS = np.array([[mu, -1.0] for mu in (-2, -1, 0, 1, 2)])


class Belief(NamedTuple):
    q: np.ndarray  # (B, 2)
    moments: Moments


def prior(B):
    """What is believed of B payloads before they fly."""
    return Belief(np.tile(PRIOR, (B, 1)), Moments(*np.zeros((3, B, 2))))


def infer(o, model, belief, x, y, rng):
    """The belief after steps of Adam on q alone, up the ELBO of x (B, n, 6) and y (B, n, 4).

    A q that has run to a wrong z, say since the payload is another one, could stay there. So where
    one of STARTS explains the transitions better, q goes on from that.
    """
    q, moments = belief
    loss = partial(negative_elbo, model.net, model.theta, x=x, y=y)
    eps = rng.standard_normal(x.shape[:2])
    losses = np.array([loss(start, eps=eps) for start in STARTS])
    better = (losses.min(0) < loss(q, eps=eps))[:, None]
    q = np.where(better, STARTS[losses.argmin(0)], q)
    moments = Moments(*[np.where(better, 0, part) for part in moments])
    for _ in range(o.infer_steps):
        eps = rng.standard_normal(x.shape[:2])
        q, moments = adam_step(partial(loss, eps=eps), q, o.infer_beta, moments)
    return Belief(q, moments)


# --- What a model is told in flight ---
# From the step t and all transitions until then, x (B, t, 6) and y (B, t, 4), to c (B, e).
def nothing(e):
    """No context, or the prior's mean."""
    return lambda t, x, y: np.zeros((len(x), e))


def latest(o):
    """The transitions before the one to come, of which itself nothing is told."""

    def context(t, x, y):
        to_come = [(0, 0), (0, 1), (0, 0)]
        return history(o, np.pad(x, to_come), np.pad(y, to_come))[:, -1]

    return context


def inferred(o, model, seed, flight):
    """z = mu of the payload of `flight` (B,): of each flight itself, or of another."""
    belief = prior(len(flight))

    def context(t, x, y):
        nonlocal belief
        x = x[:, -o.window :]
        y = y[:, -o.window :]
        belief = infer(o, model, belief, x, y, noise_at(seed, OWN, 4, t))  # l.5
        return belief.q[flight, :1]

    return context


# --- l.4, 6 and 7: the flight ---
def costs(model, state, c, t, plans):
    """(B, n): what plans (B, n, H, 2) from states (B, 6) at step t cost if the model is right."""
    B, n, H, _ = plans.shape
    state = np.broadcast_to(state[:, None], (B, n, 6))
    c = np.broadcast_to(c[:, None], (B, n, c.shape[-1]))
    total = np.zeros((B, n))
    for h in range(H):
        action = plans[:, :, h]
        x = payload.x_of(state, action) / model.x_std
        y = model.net.mean(model.theta, np.concatenate([x, c], -1))
        state = payload.moved(state, action, y * model.y_std)
        total += payload.distance_squared(state, t + h + 1)
        if model.slides:
            c = np.concatenate([c[..., 10:], x, y], -1)
    return total


def fly(o, model, context, lengths, seed):
    """B flights with tethers of lengths (H, B): states (H + 1, B, 6), contexts (H, B, e).

    All that the model learns of a payload is what `context` makes out of transitions: neither the
    length nor the exchange.
    """
    H, B = lengths.shape
    gusts = noise_at(seed, OWN, 2)
    states = [payload.at_rest(B)]
    contexts = []
    x = np.zeros((B, 0, 6))
    y = np.zeros((B, 0, 4))
    plan = np.zeros((B, o.horizon, 2))
    for t in range(H):  # l.4
        state = states[-1]
        c = context(t, x, y)
        cost = partial(costs, model, state, c, t)
        plan = o.cem.plan(cost, plan, noise_at(seed, OWN, 3, t))  # l.6
        action = plan[:, 0]
        new = payload.step(state, action, lengths[t], gusts)  # l.7
        x_now = payload.x_of(state, action) / model.x_std
        y_now = payload.y_of(state, new) / model.y_std
        x = np.concatenate([x, x_now[:, None]], 1)
        y = np.concatenate([y, y_now[:, None]], 1)
        states.append(new)
        contexts.append(c)
        plan = later(plan)
    return np.stack(states), np.stack(contexts)


# --- The test ---
SEEN = (0, 1, 2, 5, 10, 50)  # transitions


def predictions(o, models, seed):
    """Rows of -log p of new transitions of held-out payloads, after so many others were seen."""
    x, y = payload.wander(o.held_out, 2, o.flight_steps, noise_at(seed, OWN, 5))
    x_seen, x_new = (x / models["z"].x_std).swapaxes(0, 1)
    y_seen, y_new = (y / models["z"].y_std).swapaxes(0, 1)
    length = np.broadcast_to(np.array(o.held_out)[:, None], x_new.shape[:2])
    told = {
        "no z": x_new[..., :0],
        "history": history(o, x_new, y_new),
        "length known": told_length(length),
    }
    rng = noise_at(seed, OWN, 6)
    for n in SEEN:
        last = np.s_[:, o.flight_steps - n :]
        belief = prior(len(length))
        for _ in range(20):
            belief = infer(o, models["z"], belief, x_seen[last], y_seen[last], rng)
        told[f"z from {n}"] = z_of(belief.q, rng.standard_normal(length.shape))
    rows = {}
    for name, c in told.items():
        net, theta, *_ = models.get(name, models["z"])
        log_p = net.log_p(theta, np.concatenate([x_new, c], -1), y_new)
        rows[f"predicted, {name}"] = {"-log p": -log_p.mean()}
    return rows


def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs."""
    models, q = learn(o, seed)
    z = models["z"]
    lengths, other = payload.in_flight(o)
    itself = np.arange(len(other))
    flown = {
        "no z": (models["no z"], nothing(0)),
        "history": (models["history"], latest(o)),
        "z inferred": (z, inferred(o, z, seed, itself)),
        "prior's z": (z, nothing(1)),
        "another's z": (z, inferred(o, z, seed, other)),
        "length known": (models["length known"], lambda t, x, y: told_length(lengths[t])),
    }
    rows = {}
    flights = {}
    for name, (model, context) in flown.items():
        flights[name] = fly(o, model, context, lengths, seed)
        rows[name] = payload.errors(o, flights[name][0])
    picture = {"o": o, "q": q, "lengths": lengths, "flights": flights}
    return rows | predictions(o, models, seed), picture


# --- What is printed ---
def report(rows):
    flown = [name for name in rows if not name.startswith("predicted")]
    predicted = [name for name in rows if name.startswith("predicted")]
    columns = ("held out", "exchanged", "settled", "outside")
    return f"""
Distance of the payload to the circle, cm: before the payload is exchanged,
in the 15 steps after, 30 steps after and later; lengths outside those of training
{table(rows, flown, columns)}
-log p of new transitions of held-out payloads; of z after so many others
{table(rows, predicted, ("-log p",))}"""


def ratio(rows, name, other, column="held out"):
    return rows[name][column] / rows[other][column]


def claims(rows):
    ours = "z inferred"
    settled = rows[ours]["settled"] / rows[ours]["held out"]
    outside = ratio(rows, ours, "no z", "outside")
    of_another = ratio(rows, "another's z", ours)
    of_prior = ratio(rows, "prior's z", ours)
    return [
        below("z is needed: error inferred / no z", 0.35, ratio(rows, ours, "no z"), EACH),
        below("as if known: inferred / length known", 1.25, ratio(rows, ours, "length known")),
        below("better than a history: inferred / history", 0.8, ratio(rows, ours, "history")),
        above("it has to be its own: another's z / inferred", 4, of_another, EACH),
        above("prior's z / inferred", 3, of_prior, EACH),
        below("after an exchange: settled / before", 1.3, settled, EACH),
        below("outside the lengths of training: inferred / no z", 0.35, outside, EACH),
    ]


def draw(figure, picture):
    """Flights of the outside payload with the longest tether; z of held-out ones over time."""
    o = picture["o"]
    e = o.exchange
    figure.set_size_inches(8, 3.2)
    path, beliefs = figure.subplots(1, 2, width_ratios=(1, 1.8))
    turn = np.stack([payload.circle(t) for t in range(payload.PERIOD + 1)])
    path.plot(*turn.T, color="0.85", linewidth=6)
    for name in ("no z", "history", "z inferred"):
        states, _ = picture["flights"][name]
        path.plot(*states[e:, -1, :2].T, label=name, linewidth=0.9)
    path.set(title=f"tether of {o.outside[-1]} m, never trained on", aspect="equal")
    path.legend(fontsize=6)
    _, z = picture["flights"]["z inferred"]
    for k, length in enumerate(o.held_out):
        beliefs.plot(z[:, k, 0], label=f"{length} m, then {picture['lengths'][-1, k]}")
    for mu in picture["q"][:, 0]:
        beliefs.axhline(mu, color="0.85", zorder=0)
    beliefs.axvline(e, color="0.5", linestyle=":")
    beliefs.set(title="inferred z; in grey mu of training", xlabel="step", xlim=(0, 1.4 * len(z)))
    beliefs.legend(fontsize=6, loc="right")


CHAPTER = Chapter("latent_model", __doc__, Options(), QUICK, run, report, claims, draw)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
