"""Many priors for one model: a robot chooses the simulated situation that is most like its own.

    python -m chapters.famle [--seeds 5] [--first-seed 0] [--quick] [--plot DIR] [--json]

Kaushik, Anne & Mouret, "Fast Online Adaptation in Robotics through Meta-Learning Embeddings of
Simulated Priors", 2020, arXiv 2003.04663 (FAMLE). Anne, Wilkinson & Li, "Meta-Reinforcement
Learning for Adaptive Motor Control in Changing Robot Dynamics and Environments", 2021, arXiv
2101.07599, use it for walking. One model y = f_theta(x, h) is shared by all situations: from
velocity and action, x, to the change of the velocity, y. Each situation has an embedding of its
own, h_i, a few numbers. In our words, with the numbers that the lines of the code carry:

    in simulation
    l.1   transitions (x, y) in situations 1 ... N; theta and h_1 ... h_N at random
    l.2   for t = 0, 1, ...:
    l.3     a situation i at random
    l.4     theta~, h~: k gradient steps from theta, h_i, down the error on transitions of i
    l.5     theta += epsilon (theta~ - theta), h_i += epsilon (h~ - h_i)
    on the robot, to which its situation is not told
    l.6   at every step:
    l.7     i: of all h_i the one under which, with theta, the latest transitions are likeliest
    l.8     theta', h': k gradient steps from theta, h_i, down the error on these transitions
    l.9     plan with f_theta'(x, h')
    l.10    take the first action of the plan, and observe the transition

l.2 to 5 are Reptile, on theta and one row of h: (theta, h_i) is a prior, from which a few steps
lead to a model of situation i and of those like it. At every step of the robot l.8 starts from a
prior, never from what the step before has come to.

The claim: where situations differ much, no single prior is near all of them. A robot that can
choose among many arrives in fewer steps than one that adapts a single prior.

The rows: dynamics known; FAMLE; without l.8, so that the prior itself is the model; without l.7,
with an h drawn once for each robot (h at random) or at every step (h anew); one prior, without h,
with k gradient steps and with 3 k; no prior, but random parameters. Rows with l.8 are tried with
four step sizes. In the claims FAMLE's is always the same; of what it is compared with the best one
counts, in each seed anew and on the test itself, which can only favour the others. The row without
a prior, of which nothing is claimed, has one step size.

Read from the top: the model and its gradient steps; meta-training, l.1 to 5; the choice and the
model of each robot, l.7 and 8; the drive, l.6, 9 and 10; `run`, which drives with all that is to be
compared; what is printed. ice.py has the world, models.py Adam and the planner.

Said plainly: a single prior whose step size was tuned on the test itself arrives in five of six
drives, with three times the gradient steps in nine of ten. In the paper, as others quote it (we
have not seen its table), a single prior arrives in 40 %: here that is so with small steps alone.
Choosing is not all of the gain: an h that is drawn anew at every step, and adapted, does better
than a single prior, since the mistakes of one h are not those of the next. FAMLE wants small steps:
with the longest it loses most of its lead. And the world is made for it: where an action is a push
along two axes, not a bearing, any prior adapts at once.

Smaller than in the paper: a point on ice for walking robots; one network; the cross-entropy method
for random shooting; Adam for gradient descent. Their code takes situations in turn and chooses
every few steps. The single prior is Reptile's, as all is here, where theirs is MAML's.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

import autodiff as ad
from chapters import common, ice
from chapters.common import EACH, OWN, Chapter, above, below, cell, table
from chapters.models import CEM, Moments, adam_step, later
from metarl import noise_at
from policies import Network

PLANNER = CEM(plans=64, rounds=3, elites=8, std=1.0, bound=1.0)
QUICK_PLANNER = CEM(plans=16, rounds=2, elites=4, std=1.0, bound=1.0)


@dataclass(frozen=True)
class Options:
    transitions: int = 500  # in each of the simulated situations
    embedding: int = 5  # numbers in h
    hidden: tuple = (64, 64)
    iterations: int = 1000  # of meta-training
    epsilon: float = 0.5  # falls to 0
    steps: int = 10  # k, in l.4 and in l.8
    alpha: float = 0.01  # Adam's step size in l.4
    batch: int = 32  # transitions in a step of l.4
    betas: tuple = (0.001, 0.003, 0.01, 0.03)  # Adam's step size in l.8: all are tried
    memory: int = 10  # latest transitions
    horizon: int = 5  # actions in a plan
    limit: int = 50  # steps of a drive, at most
    cem: CEM = PLANNER


QUICK = Options(
    hidden=(32, 32), iterations=300, steps=6, betas=(0.003, 0.01), limit=25, cem=QUICK_PLANNER
)

# Noise of its own: (seed, OWN, 0) transitions in simulation; (1, e) meta-training with e numbers in
# h; 2 goals; 3 noise in the world; (4, t) plans at step t; 5 the situation at random
# of each robot, (6, t) another at step t; 7 parameters without a prior.


# --- The model, and gradient steps on it ---
# w is theta and h in one vector, (P + e,), or a row for each of B robots.
def f(net, w, x):
    """y as predicted, (..., n, 2), for x (..., n, 4)."""
    theta = w[..., : net.size]
    h = w[..., None, net.size :]  # (..., 1, e)
    h_of_each = ad.broadcast_to(h, (*x.shape[:-1], h.shape[-1]))
    return net.apply(theta, ad.concatenate([x, h_of_each], -1))


def error(net, w, x, y):
    """The sum of squares over transitions (..., n): (...).

    It is -log p(y|x), but for a factor and a constant, if noise is Gaussian with one deviation in
    all of y: so what is likeliest has the least error.
    """
    miss = f(net, w, x) - y
    return ad.sum(miss * miss, (-2, -1))


def adapted(net, w, batches, step_size):
    """w after a step of Adam for each of the batches (x, y)."""
    moments = Moments()
    for x, y in batches:
        w, moments = adam_step(partial(error, net, x=x, y=y), w, step_size, moments)
    return w


# --- l.1 to 5: meta-training in simulation ---
class Prior(NamedTuple):
    """Where adaptation starts. With e = 0 all h are empty: one prior for all situations."""

    net: Network
    theta: np.ndarray  # (P,)
    h: np.ndarray  # (N, e)


def untrained(o, e, rng):
    """The Prior before meta-training, which has learned nothing."""
    net = Network(4 + e, 2, o.hidden)
    theta = net.init(rng)
    return Prior(net, theta, rng.standard_normal((len(ice.SIMULATED), e)))


def meta_step(o, prior, x, y, epsilon, rng):
    """The Prior after an iteration; x (N, n, 4), y (N, n, 2)."""
    net, theta, h = prior
    N, n, _ = x.shape
    i = rng.integers(N)  # l.3
    rows = rng.integers(n, size=(o.steps, o.batch))  # a batch for each gradient step
    w = np.concatenate([theta, h[i]])
    w_tilde = adapted(net, w, zip(x[i, rows], y[i, rows], strict=True), o.alpha)  # l.4
    w = w + epsilon * (w_tilde - w)  # l.5
    h = h.copy()
    h[i] = w[net.size :]
    return Prior(net, w[: net.size], h)


def meta_train(o, e, x, y, seed):
    """The Prior with e numbers in each h."""
    rng = noise_at(seed, OWN, 1, e)
    prior = untrained(o, e, rng)
    for t in range(o.iterations):  # l.2
        epsilon = o.epsilon * (1 - t / o.iterations)
        prior = meta_step(o, prior, x, y, epsilon, rng)
    return prior


# --- l.7: the choice of a prior ---
# A choice is a function. It gets the step t, the numbers b (B,) of the robots on their way, and
# their latest transitions, x (B, n, 4) and y (B, n, 2), and gives a simulated situation for each,
# i (B,).
def likeliest(prior, first):
    """The choice of FAMLE, by theta and h of the prior, whatever l.8 made of them before.

    In the first step there are no transitions, and it is at random: `first`, for all robots.
    """

    def choice(t, b, x, y):
        if t == 0:
            return first[b]
        each = [np.concatenate([prior.theta, h]) for h in prior.h]
        errors = [error(prior.net, w, x, y) for w in each]  # (N, B)
        return np.argmin(errors, 0)

    return choice


def given(i):
    """For each robot its number in i, at all steps: chosen by nobody, where i is at random."""
    return lambda t, b, x, y: i[b]


def anew(N, seed):
    """At random, one of N, drawn again at each step."""
    return lambda t, b, x, y: noise_at(seed, OWN, 6, t).integers(N, size=len(b))


# --- l.8: the model of each robot ---
# A model is a function too. It gets the same as a choice, and gives a function that predicts
# y (B, n, 2) from x (B, n, 4).
def adapting(prior, choice, steps, beta):
    """The chosen prior after so many gradient steps on the latest transitions."""

    def model(t, b, x, y):
        i = choice(t, b, x, y)  # l.7
        theta = np.tile(prior.theta, (len(b), 1))
        w = np.concatenate([theta, prior.h[i]], 1)
        w = adapted(prior.net, w, [(x, y)] * steps, beta)  # l.8
        return partial(f, prior.net, w)

    return model


def known(situation):
    """The true dynamics of robots in situations (B, 2)."""
    return lambda t, b, x, y: partial(ice.change, situation[b, None])


# --- l.6, 9 and 10: the drive ---
class Drive(NamedTuple):
    states: np.ndarray  # (B, H + 1, 4); of each robot those after its arrival do not count
    x: np.ndarray  # (B, H, 4)
    y: np.ndarray  # (B, H, 2)
    steps: np.ndarray  # (B,), until it arrived; o.limit if it did not
    arrived: np.ndarray  # (B,), bool


def costs(predict, state, goal, plans):
    """(B, n): the sum of distances (B, n, H) to the goal, if predictions are right."""
    B, n, H, _ = plans.shape
    state = np.broadcast_to(state[:, None], (B, n, 4))
    total = np.zeros((B, n))
    for j in range(H):
        y = predict(ice.x_of(state, plans[:, :, j]))
        state = ice.moved(state, y)
        total += ice.distance(state, goal[:, None])
    return total


def drive(o, model, situation, goal, seed):
    """The Drive of B robots. Only the world knows their situations (B, 2), goals are told."""
    B = len(goal)
    rng = noise_at(seed, OWN, 3)
    state = np.zeros((B, 4))
    states = [state]
    x = np.zeros((B, 0, 4))
    y = np.zeros((B, 0, 2))
    plan = np.zeros((B, o.horizon, 2))
    steps = np.zeros(B, int)
    b = np.arange(B)  # robots on their way; others go on by their last plan, and nobody counts
    for t in range(o.limit):  # l.6
        predict = model(t, b, x[b, -o.memory :], y[b, -o.memory :])  # l.7, l.8
        cost = partial(costs, predict, state[b], goal[b])
        plan[b] = o.cem.plan(cost, plan[b], noise_at(seed, OWN, 4, t))  # l.9
        x_now = ice.x_of(state, plan[:, 0])
        y_now = ice.noisy_change(situation, x_now, rng)  # l.10
        state = ice.moved(state, y_now)
        states.append(state)
        x = np.concatenate([x, x_now[:, None]], 1)
        y = np.concatenate([y, y_now[:, None]], 1)
        plan = later(plan)
        steps[b] += 1
        b = b[ice.distance(state, goal)[b] > ice.NEAR]
        if len(b) == 0:
            break
    arrived = ~np.isin(np.arange(B), b)
    return Drive(np.stack(states, 1), x, y, steps, arrived)


# --- The test ---
OURS = 0.003  # FAMLE's step size in the claims; of what it is compared with, the best one counts


def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs."""
    x, y = ice.simulate(o.transitions, noise_at(seed, OWN, 0))  # l.1
    many = meta_train(o, o.embedding, x, y, seed)
    one = meta_train(o, 0, x, y, seed)
    none = untrained(o, 0, noise_at(seed, OWN, 7))
    situation, goal = ice.robots(noise_at(seed, OWN, 2))
    N = len(many.h)
    first = noise_at(seed, OWN, 5).integers(N, size=len(goal))
    chosen = likeliest(many, first)
    at_random = given(first)  # of priors without h, where all choices are the same, any one
    models = {  # by row and step size, if they have one
        ("dynamics known", ""): known(situation),
        ("without l.8", ""): adapting(many, chosen, steps=0, beta=0),
        ("no prior, 0.01", ""): adapting(none, at_random, o.steps, 0.01),
    }
    for beta in o.betas:
        models |= {
            ("FAMLE", beta): adapting(many, chosen, o.steps, beta),
            ("h at random", beta): adapting(many, at_random, o.steps, beta),
            ("h anew", beta): adapting(many, anew(N, seed), o.steps, beta),
            ("one prior", beta): adapting(one, at_random, o.steps, beta),
            ("one prior, 3 k", beta): adapting(one, at_random, 3 * o.steps, beta),
        }
    drives = {key: drive(o, model, situation, goal, seed) for key, model in models.items()}
    rows = {name: {} for name, _ in drives}
    for (name, beta), d in drives.items():
        rows[name][f"steps {beta}".strip()] = d.steps.mean()
        rows[name][f"arrived {beta}".strip()] = 100 * d.arrived.mean()
    ours = drives["FAMLE", OURS]
    n = o.memory
    everyone = np.arange(len(goal))
    i = chosen(n, everyone, ours.x[:, :n], ours.y[:, :n])
    rows["choice"] = {"nearest": ice.is_nearest(situation, i).mean()}
    return rows, {"goal": goal, "drives": drives}


# --- What is printed ---
def columns_of(rows, word):
    """The columns of all step sizes that begin with a word."""
    return [column for column in rows["FAMLE"] if column.startswith(word)]


def report(rows):
    by_step_size = [name for name, row in rows.items() if f"steps {OURS}" in row]
    others = [name for name, row in rows.items() if "steps" in row]
    return f"""
Steps to the goal, by the step size of l.8, of robots in situations that were not simulated
{table(rows, by_step_size, columns_of(rows, "steps"))}
Robots that arrived, %
{table(rows, by_step_size, columns_of(rows, "arrived"), 0)}
Steps, and robots that arrived, %, where there is no step size to choose
{table(rows, others, ("steps", "arrived"))}
After {Options.memory} transitions FAMLE's choice is one of the two nearest situations
{cell(rows["choice"]["nearest"])}; by chance 0.17
"""


def best(rows, name):
    """Steps to the goal at the step size that is best in each seed."""
    return np.min([rows[name][column] for column in columns_of(rows, "steps")], 0)


def claims(rows):
    ours = rows["FAMLE"][f"steps {OURS}"]
    arrived = rows["FAMLE"][f"arrived {OURS}"]
    over_one = ours / best(rows, "one prior")
    over_three = ours / best(rows, "one prior, 3 k")
    over_known = ours / rows["dynamics known"]["steps"]
    without = rows["without l.8"]["steps"] / ours
    fewer = "fewer steps: FAMLE / one prior at its best step size"
    thrice = "even where that takes 3 k gradient steps"
    return [
        below(fewer, 0.75, over_one),
        below(fewer, 0.85, over_one, EACH),
        below(thrice, 0.75, over_three),
        below(thrice, 0.85, over_three, EACH),
        above("FAMLE arrives, %", 97, arrived),
        below("FAMLE / dynamics known", 1.5, over_known),
        above("the choice counts: h at random / FAMLE", 1.3, best(rows, "h at random") / ours),
        above("h at random, anew at every step / FAMLE", 1.3, best(rows, "h anew") / ours),
        above("gradient steps count: without l.8 / FAMLE", 1, without),
    ]


def draw(figure, picture):
    """The paths of all robots to their goals; in grey of those that do not arrive."""
    figure.set_size_inches(8, 3.1)
    shown = (("dynamics known", ""), ("FAMLE", OURS), ("one prior", 0.01))
    for panel, key in zip(figure.subplots(1, 3, sharey=True), shown, strict=True):
        d = picture["drives"][key]
        for path, steps, arrived in zip(d.states, d.steps, d.arrived, strict=True):
            colour = "C0" if arrived else "0.7"
            panel.plot(*path[: steps + 1, 0:2].T, color=colour, linewidth=0.7)
        panel.scatter(*picture["goal"].T, s=9, color="C3", zorder=3)
        panel.set_title(f"{key[0]}: {d.steps.mean():.1f} steps")
        panel.set(aspect="equal", xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), xlabel="m")
    figure.axes[0].set_ylabel("m")


CHAPTER = Chapter("famle", __doc__, Options(), QUICK, run, report, claims, draw)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
