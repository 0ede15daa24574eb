"""Meta-RL without any rewards: a model of the dynamics that has learned to adapt.

    python -m chapters.adaptive_model [--seeds 5] [--first-seed 0] [--quick] [--plot DIR] [--json]

Nagabandi, Clavera, Liu, Fearing, Abbeel, Levine & Finn, "Learning to Adapt in Dynamic, Real-World
Environments through Meta-Reinforcement Learning", 2019, arXiv 1803.11347, Algorithms 1 and 2, in
the form that adapts by a gradient step. Where tasks differ in their dynamics, a model of these is
all that has to adapt, and what teaches a model is s', not a reward. In our words, with the numbers
that the lines of the code carry:

    l.1   theta of the model at random
    l.2   while not done:
    l.3     tasks i; in each of them a past and a future of the same dynamics
    l.4     theta'_i = theta - alpha grad_theta error_i(theta), on the past
    l.5     theta: a step down the error_i(theta'_i), on the future
    evaluation, in a task never trained on
    l.6   theta' from the latest past, by l.4
    l.7   at every step: the action that leads closest to the goal, if the model is right

That is MAML with the error of a prediction in the place of the return. `joint` is the same without
l.4: one model for all tasks, which is fine-tuned by l.4 in the evaluation.

The world is envs.TurnedPointMass: every move is turned by an angle, which is the task. The goal is
known, so that nobody has to be paid.

The claim: an episode of random actions is enough to adapt to dynamics never met, for this model and
not for one that was only trained on all of them.

Read from the top: experience, l.3; the model and its step, l.4; `meta_train`; the evaluation; what
is printed.

Said plainly: what is left after one step is next to all that one step can do. The gradient of a
linear model is a sum of y a^T, in which the turn is multiplied by the covariance of those 20
actions, and one step cannot divide that out: it costs .04 on average, and further steps make up for
it. joint has learned next to nothing: in a step an untrained network adapts as well. In three, with
the best step size, joint comes to act nearly as well as MAML's model after one, since a greedy
action needs no exact model. And somebody knows the goal: absent are rewards, not an aim.

Smaller than in the paper: a point that is turned for legged robots; the past is one episode of
random actions, and theta' is kept for the test, where theirs is made anew at every step from the
latest ones; greedy for one step instead of a plan; alpha is given, not learned; squared errors.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

import autodiff as ad
from autodiff import Tensor, grad
from chapters import common
from chapters.common import EACH, OWN, Chapter, above, below, cell, table
from chapters.models import Moments, adam_step
from envs import TurnedPointMass
from metarl import noise_at
from policies import Network

WORLD = TurnedPointMass()


@dataclass(frozen=True)
class Options:
    hidden: tuple = (50, 50)  # units in each layer of the model
    iterations: int = 1000
    tasks: int = 20  # in an iteration
    alpha: float = 0.1  # inner step size
    beta: float = 0.003  # Adam's step size at first; it falls to 0
    test_tasks: int = 40  # held out
    new_episodes: int = 10  # in each of them, on which the error is measured
    steps: tuple = (0, 1, 3)  # of adaptation, after which all is measured
    alphas: tuple = (0.05, 0.1, 0.2, 0.3, 0.4)  # of which the other models have the best
    grid: int = 11  # actions along each axis, among which is the greedy one


QUICK = Options(iterations=100, test_tasks=10, alphas=(0.1, 0.3))

# Noise of its own: (seed, OWN, 0) theta at first; (1, t) tasks, pasts and futures of iteration t;
# 2 the held-out tasks, 3 their pasts, 4 new episodes.


# --- l.3: experience ---
class Experience(NamedTuple):
    """n transitions in each of T tasks. There is no place for a reward."""

    s: np.ndarray  # (T, n, 2), positions
    a: np.ndarray  # (T, n, 2), actions
    y: np.ndarray  # (T, n, 2), the moves that followed, 10 (s' - s), of length about 1


def wander(angles, K, rng):
    """K episodes of random actions in each of the tasks (T, 1): Experience, n = K horizon.

    The world cuts actions off at 1, which the model has to learn too.
    """
    T = len(angles)
    s = WORLD.reset(angles, (T, K), rng)
    steps = []
    for _ in range(WORLD.horizon):
        a = rng.standard_normal((T, K, 2))
        new = WORLD.advance(s, a, angles[:, None], rng)
        steps.append([s, a, 10 * (new - s)])
        s = new
    columns = [np.stack(column, 2) for column in zip(*steps, strict=True)]  # (T, K, horizon, 2)
    return Experience(*[column.reshape(T, -1, 2) for column in columns])


def past_of_another(past):
    """The past of the task before in place of each one's own."""
    return Experience(*[np.roll(column, 1, 0) for column in past])


# --- l.1 and l.4: the model, and its step ---
def network(o):
    """The model: from (s, a) to the move."""
    return Network(4, 2, o.hidden)


def first_theta(o, seed):
    return network(o).init(noise_at(seed, OWN, 0))


def error(o, theta, e):
    """(T,): the mean square by which theta (T, P) mistakes the moves of the Experience e.

    As y is 10 (s' - s), a move of 0.1, the longest along an axis, counts as 1.
    """
    predicted = network(o).apply(theta, np.concatenate([e.s, e.a], -1))
    return ad.mean((predicted - e.y) ** 2, (1, 2))


def adapt(o, theta, past, alpha, steps=1, create_graph=False):
    """[theta, ..., theta'], Tensors (T, P) before and after each step.

    create_graph: record the gradients, so that theta' can be differentiated through them.
    """
    path = [theta]
    for _ in range(steps):
        loss = ad.sum(error(o, theta, past))  # each row has a gradient of its own
        g = grad(loss, theta, create_graph=create_graph)
        theta = theta - alpha * g  # l.4
        path.append(theta)
    return path


# --- l.2 to 5 ---
def meta_loss(o, theta, past, future, steps):
    """A number: the mean error over tasks after the steps, as a function of theta (P,) before."""
    T = len(past.s)
    for_each = ad.broadcast_to(theta, (T, network(o).size))
    path = adapt(o, for_each, past, o.alpha, steps, create_graph=True)
    return ad.mean(error(o, path[-1], future))


def meta_train(o, seed, steps=1):
    """theta (P,). steps: how often l.4 is taken; with 0 this trains joint."""
    theta = first_theta(o, seed)
    moments = Moments()
    for t in range(o.iterations):  # l.2
        rng = noise_at(seed, OWN, 1, t)
        angles = WORLD.sample_tasks(o.tasks, rng)
        past = wander(angles, 1, rng)  # l.3
        future = wander(angles, 1, rng)
        loss = partial(meta_loss, o, past=past, future=future, steps=steps)
        beta = o.beta * (1 - t / o.iterations)
        theta, moments = adam_step(loss, theta, beta, moments)  # l.5
    return theta


# --- The evaluation ---
def greedy(o, theta, s, goals):
    """(T, 2): the action after which the model theta (T, P) sees s (T, 2) closest to the goal."""
    axis = np.linspace(-1, 1, o.grid)
    a = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    shape = (len(s), len(a), 2)
    s_and_a = np.concatenate([np.broadcast_to(s[:, None], shape), np.broadcast_to(a, shape)], -1)
    after = s[:, None] + 0.1 * network(o).apply(theta, s_and_a)
    squares = ((after - goals[:, None]) ** 2).sum(-1)
    return a[squares.argmin(1)]


def live(o, theta, angles):
    """An episode of greedy actions in each task (T, 1): positions (T, horizon + 1, 2)."""
    s = WORLD.reset(angles, (len(angles),), None)
    path = [s]
    for _ in range(WORLD.horizon):
        a = greedy(o, theta, s, WORLD.goals(angles))  # l.7
        s = WORLD.advance(s, a, angles, None)
        path.append(s)
    return np.stack(path, 1)


def returns(angles, path):
    """(T,): returns of the paths (T, horizon + 1, 2).

    Only here, to judge what was done, rewards are asked for.
    """
    rewards, _ = WORLD.judge(path[:, 1:], angles[:, None])
    return rewards.sum(1)


def held_out(o, seed):
    """Angles (T, 1) never trained on."""
    return WORLD.sample_tasks(o.test_tasks, noise_at(seed, OWN, 2), "test")


def tested(o, seed, theta, alpha, past):
    """{column: numbers (T,)} of held-out tasks, after each number of steps from theta (P,)."""
    angles = held_out(o, seed)
    new = wander(angles, o.new_episodes, noise_at(seed, OWN, 4))
    theta = Tensor(np.tile(theta, (len(angles), 1)))
    path = adapt(o, theta, past, alpha, max(o.steps))  # l.6
    columns = {}
    for k in o.steps:
        adapted = path[k].data
        columns[f"error, k = {k}"] = error(o, adapted, new)
        columns[f"return, k = {k}"] = returns(angles, live(o, adapted, angles))
    return columns


def best_of(candidates):
    """A row made of rows, one for each step size: in each column the best of their numbers.

    It is chosen on the test itself, in favour of who has it.
    """
    row = {}
    for column in candidates[0]:
        best = min if column.startswith("error") else max
        row[column] = best(candidate[column] for candidate in candidates)
    return row


def means(columns):
    return {column: numbers.mean() for column, numbers in columns.items()}


def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs."""
    angles = held_out(o, seed)
    past = wander(angles, 1, noise_at(seed, OWN, 3))
    test = partial(tested, o, seed)
    theta = meta_train(o, seed)
    ours = test(theta, o.alpha, past)
    rows = {
        "MAML": means(ours),
        "another's past": means(test(theta, o.alpha, past_of_another(past))),
    }
    others = {"joint": meta_train(o, seed, steps=0), "untrained": first_theta(o, seed)}
    for name, other in others.items():
        rows[name] = best_of([means(test(other, alpha, past)) for alpha in o.alphas])
    rows["the angle known"] = {"return": WORLD.optimal_return(angles).mean()}
    start = Tensor(np.tile(theta, (len(angles), 1)))
    paths = [live(o, each.data, angles) for each in adapt(o, start, past, o.alpha)]
    return rows, {"angles": angles[:, 0], "errors": ours, "paths": paths}


# --- What is printed ---
def report(rows):
    names = [name for name in rows if name != "the angle known"]
    errors = [column for column in rows["MAML"] if column.startswith("error")]
    of_actions = [column for column in rows["MAML"] if column.startswith("return")]
    best = cell(rows["the angle known"]["return"])
    return f"""
Squared error of the predicted move, in steps, on held-out angles, after k steps
of adaptation to an episode; joint and untrained with their best step size
{table(rows, names, errors, digits=3)}
Return of greedy actions, by the same models
{table(rows, names, of_actions)}
The best that knows the angle: {best}; standing still: -10.00
"""


def claims(rows):
    after = rows["MAML"]["error, k = 1"]
    ratio = after / rows["joint"]["error, k = 1"]
    of_another = rows["another's past"]["error, k = 1"]
    return [
        below("one episode is enough: error after a step", 0.07, after, EACH),
        below("adapting has to be learned: error over joint's", 0.6, ratio, EACH),
        above("it reads the episode: error with another's", 0.5, of_another),
    ]


def draw(figure, picture):
    """Paths of greedy actions before the step and after it, and the error by angle."""
    figure.set_size_inches(8, 2.9)
    first, last, by_angle = figure.subplots(1, 3)
    titles = ("before the step", "after it")
    for panel, title, paths in zip((first, last), titles, picture["paths"], strict=True):
        for path in paths[:10]:
            panel.plot(path[:, 0], path[:, 1], linewidth=0.8)
        panel.plot(0.5, 0, "k*", markersize=7)
        panel.set(title=title, xlim=(-1, 1), ylim=(-1, 1), xlabel="x", aspect="equal")
    first.set_ylabel("y")
    degrees = np.degrees(picture["angles"])
    for column, errors in picture["errors"].items():
        if column.startswith("error"):
            by_angle.semilogy(degrees, errors, ".", label=column.removeprefix("error, "))
    by_angle.set(title="squared error", xlabel="angle of the task, degrees", ylim=(1e-3, 6))
    by_angle.set(xticks=(-180, -90, 0, 90, 180))
    by_angle.legend(ncols=3, fontsize=7, handletextpad=0, columnspacing=1)


CHAPTER = Chapter("adaptive_model", __doc__, Options(), QUICK, run, report, claims, draw)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
