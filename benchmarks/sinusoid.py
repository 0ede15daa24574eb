"""MAML in twenty lines: regression on sine waves from five points. The first file to read.

    python -m benchmarks.sinusoid [--seed 0]

A task is a sine wave. The network sees five points of it, takes a step of gradient descent, and is
judged on other points. What is learned is theta, its weights before that step: a place from which
one step goes far. There are no policies, episodes or rewards here; all else is as in metarl.py.

Read it from the top. First the tasks; then `step`, the inner loop, which adapts to a task; then the
outer loop: `maml`, which follows the gradient through the step, and two relatives. What comes after
that, `train` and the table, holds no surprise.

    in code      shape     meaning
    theta        (T, P)    weights and biases of the network, a row for each of T tasks
    theta, phi   (P,)      those that all tasks begin with (phi in Reptile)
    D, D_prime             points (x, y), (T, n, 1) each: those to adapt to, those to be judged on
    alpha, beta            step size of the inner and of the outer loop

The setting is that of Finn et al. (2017), section 5.1: y = A sin(x - phase), A uniform in [0.1, 5],
phase in [0, pi], x in [-5, 5]; two hidden layers of 40 relu units. Prints the mean squared error on
600 new tasks after 0, 1, 5 and 10 steps on the same five points, with 95 % intervals over tasks,
beside the published one.
"""

import time

import numpy as np

import autodiff as ad
from autodiff import Tensor, grad
from benchmarks.common import parser
from metarl import adam
from policies import Network

NETWORK = Network(1, 1, hidden=(40, 40), activation="relu")
P = NETWORK.size  # how many parameters it has, in one flat vector
TASKS = 25  # T, in each iteration
SHOTS = 5  # points to adapt to
QUERIES = 15  # points to be judged on
ALPHA = 0.01
BETA = 0.003  # at first; it falls to 0 over the second half of training
PUBLISHED = {"MAML": "0.67 / 0.38 / 0.35"}  # after 1, 5 and 10 steps


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
    """theta (P,), or z (2P,), a row of its own for each task."""
    return Tensor(np.tile(theta, (TASKS, 1)))


def loss_after_adaptation(theta, alpha, wave, rng):
    """(T,): L(theta') on points D' that the step has not seen; a function of theta, all the way.

    Of one step and of two, added up, as in MAML++ (Antoniou et al. 2019): trained for the
    first alone, the network gets worse with more steps.
    """
    D = points(wave, SHOTS, rng)
    D_prime = points(wave, QUERIES, rng)
    total = 0
    for _ in range(2):
        theta = step(theta, alpha, *D, create_graph=True)
        total = total + loss(theta, *D_prime)
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
    """theta (P,), or z (2P,) of meta_sgd, after so many steps of Adam against the direction."""
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
    """(n, 11): the error on 100 even points of new waves after 0, 1, ..., 10 steps on five points.

    z: what `train` returned.
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


def report(name, direction, iterations, seed):
    start = time.process_time()
    z = train(direction, iterations, seed)
    seconds = time.process_time() - start
    e = errors(z, seed)[:, [0, 1, 5, 10]]
    half = 1.96 * e.std(0) / np.sqrt(len(e))
    cells = [f"{a:.2f} ± {b:.2f}" for a, b in zip(e.mean(0), half, strict=True)]
    line = f"{name:20}{iterations:12}{seconds:9.1f}  {'  '.join(cells)}"
    print(f"{line}   {PUBLISHED.get(name, '-')}", flush=True)


def main():
    p = parser(__doc__)
    p.add_argument("--seed", type=int, default=0)
    seed = p.parse_args().seed
    head = f"{'mean squared error':20}{'iterations':>12}{'CPU s':>9}"
    print(f"{head}  after 0, 1, 5 and 10 steps; published after 1, 5, 10")
    report("untrained", None, 0, seed)
    report("MAML", maml, 6000, seed)
    report("Meta-SGD", meta_sgd, 3000, seed)
    report("Reptile", reptile, 4000, seed)


if __name__ == "__main__":
    main()
