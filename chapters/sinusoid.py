"""MAML in twenty lines: regression on sine waves from five points. The first file to read.

    python -m chapters.sinusoid [--seeds 5] [--first-seed 0] [--quick] [--plot DIR] [--json]

A task is a sine wave. The network sees five points of it, takes a step of gradient descent, and is
judged on other points. What is learned is theta, its weights before that step: a place from which
one step goes far. There are no policies, episodes or rewards here; all else is as in metarl.py.

Read it from the top. First the tasks; then `step`, the inner loop, which adapts to a task; then the
outer loop: `maml`, which follows the gradient through the step, and two relatives. What comes after
that, `train` and the table, holds no surprise.

    in code      shape     meaning
    theta        (T, P)    weights and biases of the network, a row for each of T tasks
    theta, phi   (P,)      those that all tasks begin with (phi in Reptile)
    theta_prime  (T, P)    theta after a step of each task
    z            (2P,)     theta and log alpha, where step sizes are learned too (meta_sgd)
    wave                   T tasks, as a function from x (T, n, 1) to y of the same shape
    D, D_prime             points (x, y), (T, n, 1) each: those to adapt to, those to be judged on
    alpha, beta            step size of the inner and of the outer loop

The setting is that of Finn, Abbeel & Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of
Deep Networks", 2017, arXiv 1703.03400, section 5.1: y = A sin(x - phase), A uniform in [0.1, 5],
phase in [0, pi], x in [-5, 5]; two hidden layers of 40 relu units. Judged is the mean squared error
on 600 new waves after 0, 1, 5 and 10 steps on the same five points.

Said plainly: the meta-loss sums two steps, as MAML++ does (Antoniou et al. 2019); trained for one
step alone the network gets worse with more. 6,000 iterations for MAML's 70,000.
"""

from dataclasses import dataclass

import numpy as np

import autodiff as ad
from autodiff import Tensor, grad
from chapters import common
from chapters.common import EACH, Chapter, below, table
from metarl import adam
from policies import Network

NETWORK = Network(1, 1, hidden=(40, 40), activation="relu")
P = NETWORK.size  # how many parameters it has, in one flat vector
TASKS = 25  # T, in each iteration
SHOTS = 5  # points to adapt to
QUERIES = 15  # points to be judged on
ALPHA = 0.01
BETA = 0.003  # at first; it falls to 0 over the second half of training


@dataclass(frozen=True)
class Options:
    maml: int = 6000  # iterations
    meta_sgd: int = 3000
    reptile: int = 4000
    test_tasks: int = 600


QUICK = Options(maml=300, meta_sgd=200, reptile=300, test_tasks=100)


# --- Tasks ---
def sample_tasks(n, rng):
    """n waves, as one function from x (n, points, 1) to y of the same shape."""
    amplitude = rng.uniform(0.1, 5, (n, 1, 1))
    phase = rng.uniform(0, np.pi, (n, 1, 1))
    return lambda x: amplitude * np.sin(x - phase)


def points(wave, n, rng):
    """D: n points (x, y) of each of TASKS waves, (T, n, 1) each."""
    x = rng.uniform(-5, 5, (TASKS, n, 1))
    return x, wave(x)


# --- The inner loop: from theta to theta' ---
def loss(theta, x, y):
    """(T,): L, the mean squared error of each task. theta (T, P), x and y (T, n, 1)."""
    error = NETWORK.apply(theta, x) - y
    return ad.mean(error**2, (1, 2))


def step(theta, alpha, x, y, create_graph=False):
    """theta' = theta - alpha grad L(theta), for all tasks at once. (T, P)

    One gradient of the sum serves all tasks: the loss of task i depends on row i of theta alone, so
    that row i of the gradient is the gradient of task i.

    create_graph: record how the gradient came about, as the loss is recorded anyway. Then theta' is
    a function of theta that can be differentiated; else the gradient is a constant.
    """
    g = grad(ad.sum(loss(theta, x, y)), theta, create_graph=create_graph)
    return theta - alpha * g


# --- The outer loop: where should theta go, so that its theta' is better? ---
def for_each_task(theta):
    """theta (P,), or z (2P,), once for each task, so that each gets a gradient of its own."""
    return Tensor(np.tile(theta, (TASKS, 1)))


def loss_after_adaptation(theta, alpha, wave, rng):
    """(T,): L(theta') on points D' that the step has not seen; a function of theta, all the way.

    Of one step and of two, added up, as in MAML++ (Antoniou et al. 2019): trained for the
    first alone, the network gets worse with more steps.
    """
    D = points(wave, SHOTS, rng)
    D_prime = points(wave, QUERIES, rng)
    theta_prime = theta
    total = 0
    for _ in range(2):
        theta_prime = step(theta_prime, alpha, *D, create_graph=True)
        total = total + loss(theta_prime, *D_prime)
    return total


def maml(theta, wave, rng):
    """(P,): the meta-gradient (Finn et al. 2017, Algorithm 2), the mean over tasks.

    By theta, not by theta': it passes back through the step. Of one step, in a task, it is

        d L(theta') / d theta = (I - alpha H) grad L(theta'),  H the Hessian of L at theta on D.

    Nobody computes H. The step is recorded, and `grad` differentiates whatever is.
    """
    theta = for_each_task(theta)
    after = loss_after_adaptation(theta, ALPHA, wave, rng)
    meta_gradient = grad(ad.sum(after), theta)
    return meta_gradient.data.mean(0)


def meta_sgd(z, wave, rng):
    """(2P,): the same by z = (theta, log alpha), an alpha for each parameter (Li et al. 2017)."""
    z = for_each_task(z)
    theta = z[:, :P]
    alpha = ad.exp(z[:, P:])
    after = loss_after_adaptation(theta, alpha, wave, rng)
    meta_gradient = grad(ad.sum(after), z)
    return meta_gradient.data.mean(0)


def reptile(phi, wave, rng):
    """(P,): phi - phi_k in place of a gradient (Nichol et al. 2018).

    phi_k: after k = 5 steps, each on new points. Their gradients are constants.
    """
    phi_k = for_each_task(phi)
    for _ in range(5):
        phi_k = step(phi_k, ALPHA, *points(wave, SHOTS, rng))
    return phi - phi_k.data.mean(0)


# --- Training, test, table ---
def train(direction, iterations, seed):
    """theta (P,), or z (2P,) of meta_sgd, after so many steps of Adam against the direction.

    direction: maml, meta_sgd or reptile.
    """
    rng = np.random.default_rng(seed)
    theta = NETWORK.init(rng)
    if direction is meta_sgd:
        theta = np.append(theta, np.full(P, np.log(ALPHA)))
    m = v = 0  # moments of Adam
    for t in range(iterations):
        wave = sample_tasks(TASKS, rng)
        g = direction(theta, wave, rng)
        g, m, v = adam(g, m, v, t + 1)  # from a gradient to the direction of Adam's step
        beta = BETA * min(1, 2 - 2 * t / iterations)
        theta = theta - beta * g
    return theta


def errors(z, seed, n=600):
    """(n, 11): the error of new waves after 0, 1, ..., 10 steps on five points of each.

    Judged on 100 points at equal distances. z: what `train` returned.
    """
    rng = np.random.default_rng((seed, 1))
    wave = sample_tasks(n, rng)
    shots = rng.uniform(-5, 5, (n, SHOTS, 1))
    grid = np.tile(np.linspace(-5, 5, 100)[:, None], (n, 1, 1))
    theta = Tensor(np.tile(z[:P], (n, 1)))
    alpha = ALPHA
    if len(z) > P:
        alpha = np.exp(z[P:])
    columns = []
    for _ in range(11):
        columns.append(loss(theta.data, grid, wave(grid)))  # of arrays: nothing is recorded
        theta = step(theta, alpha, shots, wave(shots))
    return np.stack(columns, 1)


def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs."""
    learned = {
        "untrained": train(None, 0, seed),
        "MAML": train(maml, o.maml, seed),
        "Meta-SGD": train(meta_sgd, o.meta_sgd, seed),
        "Reptile": train(reptile, o.reptile, seed),
    }
    rows = {}
    for name, z in learned.items():
        e = errors(z, seed, o.test_tasks).mean(0)
        rows[name] = {column: e[k] for column, k in COLUMNS.items()}
    return rows, (learned, seed)


# --- What is printed ---
COLUMNS = {"k = 0": 0, "k = 1": 1, "k = 5": 5, "k = 10": 10}
PUBLISHED = {"k = 1": 0.67, "k = 5": 0.38, "k = 10": 0.35}  # of MAML, by Finn et al.


def report(rows):
    published = ", ".join(f"{error:g} after {k[4:]}" for k, error in PUBLISHED.items())
    return f"""
Mean squared error on new waves after k steps on the same five points
{table(rows, list(rows), COLUMNS)}
Published of MAML: {published}
"""


def claims(rows):
    after = {name: row["k = 1"] for name, row in rows.items()}
    untrained = after["untrained"]
    return [
        below("as published: MAML, k = 1", 0.8, rows["MAML"]["k = 1"]),
        below("as published: MAML, k = 10", 0.45, rows["MAML"]["k = 10"]),
        below("a step goes far: MAML / untrained, k = 1", 0.25, after["MAML"] / untrained, EACH),
        below("without the gradient: Reptile / untrained", 0.3, after["Reptile"] / untrained, EACH),
        below("step sizes too: Meta-SGD - MAML, k = 1", 0, after["Meta-SGD"] - after["MAML"], EACH),
    ]


def draw(figure, picture):
    """A new wave, its five points, and the networks before and after 1 and 10 steps."""
    learned, seed = picture
    rng = np.random.default_rng((seed, 2))
    wave = sample_tasks(1, rng)
    shots = rng.uniform(-5, 5, (1, SHOTS, 1))
    grid = np.linspace(-5, 5, 100)[None, :, None]
    figure.set_size_inches(8, 3)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, name in zip(panels, ("untrained", "MAML"), strict=True):
        theta = Tensor(learned[name][None])
        panel.plot(grid[0, :, 0], wave(grid)[0, :, 0], color="0.8", linewidth=4, label="the wave")
        panel.plot(shots[0, :, 0], wave(shots)[0, :, 0], "k^", label="what is seen")
        for k in range(11):
            if k in (0, 1, 10):
                y = NETWORK.apply(theta.data, grid)
                panel.plot(grid[0, :, 0], y[0, :, 0], label=f"after {k} steps")
            theta = step(theta, ALPHA, shots, wave(shots))
        panel.set(title=name, xlabel="x")
    panels[0].legend()


CHAPTER = Chapter("sinusoid", __doc__, Options(), QUICK, run, report, claims, draw)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
