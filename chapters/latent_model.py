"""A model that infers its task: a payload on a tether whose length nobody tells.

    python -m chapters.latent_model [--seeds 5] [--first-seed 0] [--quick] [--plot DIR] [--json]

Belkhale, Li, Kahn, McAllister, Calandra & Levine, "Model-Based Meta-Reinforcement Learning for
Flight with Suspended Payloads", 2021, arXiv 2004.11345. All payloads share one model
p_theta(s'|s, a, z). What a payload has of its own is z, a number, and nobody says what it means: in
training theta and, for each payload k, a belief q_k(z) = N(mu_k, sigma_k^2) are learned together,
so that they explain the flights. In flight theta is frozen, and a belief q about the payload that
is flown is all that is learned. In our words, with the numbers that the lines of the code carry:

    training
    l.1   flights with payloads 1 ... K
    l.2   while not done:
    l.3     theta and all q_k: a step up the ELBO of the transitions (s_i, a_i, s'_i) of each k,
                sum_i E_{z ~ q_k} log p_theta(s'_i|s_i, a_i, z) - KL(q_k || N(0, 1))
    flight with a new payload, of which q = N(mu, sigma^2) is believed, at first N(0, 1)
    l.4   at every step:
    l.5     q: some steps up the ELBO of the latest transitions
    l.6     plan with z = mu
    l.7     take the first action of the plan, and observe the transition

The claim: with z inferred, payloads that training never met fly as if their tethers were known;
without z they cannot. Here a payload is even exchanged in flight, without a word.

The rows: z inferred; another's z, that of another flight; prior's z, which is 0: l.5 is left out;
and rivals of z, models that are told nothing, the last five transitions, or the length.

Read from the top: the ELBO and training, l.1 to 3; inference, l.5; the flight, l.4, 6 and 7; `run`,
which flies with all that is compared. payload.py has the world; models.py the network, Adam and the
planner; latent_comparison.py what the rivals are told, and what is printed and drawn.

Said plainly: in the 15 steps after an exchange z is no better than a history, as the transitions
that it is inferred from must first be those of the new payload. A z drawn before anything was seen
predicts worse than no z at all: the model takes any z for a payload's, and is sure. z is not the
length: in one run it grows with the length, in another it falls, and outside the lengths of
training two values of z can mean the same payload. The model with a history is trained as long as
the others; trained four times as long its error is a fifth less, still nearly twice that of z.

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
from chapters import latent_comparison as comparison
from chapters.common import OWN, Chapter
from chapters.latent_comparison import claims, draw, report
from chapters.models import CEM, Dynamics, Moments, adam_step, later
from metarl import noise_at

PLANNER = CEM(plans=64, rounds=3, elites=8, std=0.7, bound=1.5)
QUICK_PLANNER = CEM(plans=12, rounds=2, elites=3, std=0.7, bound=1.5)


@dataclass(frozen=True)
class Options(payload.Flights):
    hidden: tuple = (64, 64)
    train_steps: int = 1500
    beta: float = 0.003  # Adam's step size; it falls to a tenth
    batch: int = 64  # transitions of each payload in a step
    # At first all q_k are narrow, with mu = 0. Wide ones can stay wide, and tell nothing; from
    # different mu they can end in a wrong order, as in one dimension they cannot pass each other.
    first_log_sigma: float = -2.0
    memory: int = 5  # transitions that the model with a history is told
    window: int = 10  # latest transitions, from which q is inferred
    infer_steps: int = 10  # of Adam on q, at each step of a flight
    infer_beta: float = 0.05
    horizon: int = 10  # actions in a plan
    cem: CEM = PLANNER


QUICK = Options(hidden=(32, 32), train_steps=300, infer_steps=4, cem=QUICK_PLANNER)

# Noise of its own: (seed, OWN, 0) flights of training; (1, n) theta at first and the batches of a
# model with n inputs; 2 gusts; (3, t) plans at step t; (4, t) draws of z there; 5 the flights on
# which predictions are measured, 6 draws of z for them.


# --- l.3: the ELBO ---
# Of each of B payloads, in training K, there are n transitions: x (B, n, 6) is s and a, y (B, n, 4)
# the change to s', both scaled. A belief is held as its mu and log sigma: q is (B, 2), or (2,) for
# the same belief about all.
def kl(q):
    """KL(N(mu, sigma^2) || N(0, 1)), (B,)."""
    mu = q[..., 0]
    log_sigma = q[..., 1]
    return 0.5 * (mu * mu + ad.exp(2 * log_sigma) - 1) - log_sigma


def z_of(q, eps):
    """z = mu + sigma eps, a draw for each transition: eps (B, n), z (B, n, 1)."""
    z = q[..., 0:1] + ad.exp(q[..., 1:2]) * eps
    return z[..., None]


def negative_elbo(net, theta, q, x, y, eps, weight=1.0):
    """KL - weight * sum of log p_theta(y|x, z), (B,), with a draw of z for each transition.

    weight: how many transitions each of these stands for.
    """
    x_and_z = ad.concatenate([x, z_of(q, eps)], -1)
    return kl(q) - weight * ad.sum(net.log_p(theta, x_and_z, y), -1)


# --- l.1 to 3: training ---
class Model(NamedTuple):
    """p_theta(y|x, c). Its context c (B, e) is what it is told beside x: z, or what a rival is."""

    net: Dynamics
    theta: np.ndarray  # (P,), frozen
    x_std: np.ndarray  # by which x and y are divided before the network sees them
    y_std: np.ndarray
    slides: bool = False  # whether c is a history, to which planned transitions are added


def split(net, w):
    """theta (P,) and q (K, 2) out of w, the vector in which they are learned together."""
    return w[: net.size], w[net.size :].reshape(-1, 2)


def train(o, net, x, y, q, seed, loss=negative_elbo):
    """theta (P,) and q (K, 2), from x (K, N, 6), y (K, N, 4) and the first q.

    Rivals have no q, which then is (0, 2), and their x has c at its end: (K, N, 6 + e).
    """
    K, N, _ = x.shape
    rng = noise_at(seed, OWN, 1, net.inputs)
    k = np.arange(K)[:, None]  # with i (K, batch) it picks transitions of each payload
    weight = N / o.batch  # the sum over a batch stands for that over all transitions

    def loss_of_batch(w, i, eps):
        theta, q = split(net, w)
        return loss(net, theta, q, x[k, i], y[k, i], eps, weight)

    w = np.concatenate([net.init(rng), q.ravel()])
    moments = Moments()
    for t in range(o.train_steps):  # l.2
        i = rng.integers(N, size=(K, o.batch))
        eps = rng.standard_normal((K, o.batch))
        beta = o.beta * (1 - 0.9 * t / o.train_steps)
        w, moments = adam_step(partial(loss_of_batch, i=i, eps=eps), w, beta, moments)  # l.3
    w.flags.writeable = False  # from here on theta is frozen
    return split(net, w)


def learn(o, seed):
    """{name: Model}, all from the same flights, and q (K, 2) of the payloads in them."""
    K = len(o.lengths)
    length = np.repeat(o.lengths, o.flights)  # of each flight; only rivals are told
    x, y = payload.wander(length, o.flight_steps, noise_at(seed, OWN, 0))  # l.1
    x_std = x.std((0, 1))
    y_std = y.std((0, 1))
    x = x / x_std
    y = y / y_std
    x_of_each = x.reshape(K, -1, 6)  # of each payload, in all its flights
    y_of_each = y.reshape(K, -1, 4)

    net = Dynamics(6 + 1, 4, o.hidden)
    first_q = np.tile([0.0, o.first_log_sigma], (K, 1))
    theta, q = train(o, net, x_of_each, y_of_each, first_q, seed)
    models = {"z": Model(net, theta, x_std, y_std)}

    no_q = np.zeros((0, 2))
    for name, c in comparison.told(length, x, y, o.memory).items():
        net = Dynamics(6 + c.shape[-1], 4, o.hidden)
        x_and_c = np.concatenate([x, c], -1).reshape(K, -1, net.inputs)
        theta, _ = train(o, net, x_and_c, y_of_each, no_q, seed, comparison.negative_log_p)
        models[name] = Model(net, theta, x_std, y_std, slides=name == "history")
    return models, q


# --- l.5: inference ---
STARTS = np.array([[mu, -1.0] for mu in (-2, -1, 0, 1, 2)])  # mu, log sigma


def prior(B):
    """q (B, 2) = N(0, 1), for payloads that have not flown; and Adam's moments, none."""
    return np.zeros((B, 2)), Moments(*np.zeros((3, B, 2)))


def infer(o, model, q, moments, x, y, rng):
    """q and moments after steps of Adam on q alone, up the ELBO of x (B, n, 6) and y (B, n, 4).

    Nothing tells of an exchange but that q explains the latest transitions badly. From there the
    gradient alone can lead away for good, to a z that means no payload. So where one of STARTS
    explains them better, q goes on from that, and Adam begins anew.
    """
    loss = partial(negative_elbo, model.net, model.theta, x=x, y=y)
    eps = rng.standard_normal(x.shape[:2])
    losses = np.array([loss(start, eps=eps) for start in STARTS])  # (starts, B)
    best = STARTS[losses.argmin(0)]  # (B, 2)
    better = (losses.min(0) < loss(q, eps=eps))[:, None]
    q = np.where(better, best, q)
    moments = Moments(*[np.where(better, 0, part) for part in moments])
    for _ in range(o.infer_steps):
        eps = rng.standard_normal(x.shape[:2])
        q, moments = adam_step(partial(loss, eps=eps), q, o.infer_beta, moments)
    return q, moments


def inferred(o, model, seed, B):
    """A function for `fly` that does l.5 and gives the context z = mu, (B, 1).

    Between the steps of a flight it keeps q, and Adam's moments.
    """
    q, moments = prior(B)

    def context(t, x, y):
        nonlocal q, moments
        x = x[:, -o.window :]
        y = y[:, -o.window :]
        q, moments = infer(o, model, q, moments, x, y, noise_at(seed, OWN, 4, t))  # l.5
        return q[:, :1]

    return context


def z_from(o, model, x, y, n, rng):
    """n draws of z, (B, n, 1), from the belief that x and y lead to.

    It is for predictions, not for flights, and has 20 times the inference of a step of a flight.
    """
    q, moments = prior(len(x))
    for _ in range(20):
        q, moments = infer(o, model, q, moments, x, y, rng)
    return z_of(q, rng.standard_normal((len(x), n)))


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
            c = comparison.slide(c, x, y)
    return total


def fly(o, model, context, lengths, seed):
    """B flights with tethers of lengths (H, B): states (H + 1, B, 6), contexts (H, B, e).

    At step t the model is told context(t, x, y), out of the transitions until then, x (B, t, 6) and
    y (B, t, 4). The lengths are for the world alone: an exchange is another number from a step on.
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
        c = context(t, x, y)  # l.5, or what a rival does in its place
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
        plan = later(plan)  # where the next one starts
    return np.stack(states), np.stack(contexts)


# --- The test ---
def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs."""
    models, q = learn(o, seed)
    with_z = models["z"]
    lengths, other = payload.in_flight(o)
    B = len(other)
    flown = {
        "no z": (models["no z"], comparison.nothing(0)),
        "history": (models["history"], comparison.latest(o.memory)),
        "z inferred": (with_z, inferred(o, with_z, seed, B)),
        "prior's z": (with_z, comparison.nothing(1)),
        "another's z": (with_z, comparison.of_another(inferred(o, with_z, seed, B), other)),
        "length known": (models["length known"], comparison.known(lengths)),
    }
    rows = {}
    flights = {}
    for name, (model, context) in flown.items():
        flights[name] = fly(o, model, context, lengths, seed)
        rows[name] = payload.errors(o, flights[name][0])
    rows |= comparison.predictions(o, models, partial(z_from, o, with_z), seed)
    return rows, {"o": o, "q": q, "lengths": lengths, "flights": flights}


CHAPTER = Chapter("latent_model", __doc__, Options(), QUICK, run, report, claims, draw)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
