"""MAML, Meta-SGD and Reptile outside reinforcement learning:
regression on sine waves from five points.

    python -m benchmarks.sinusoid [--seed 0]

A task is y = A sin(x - phase), A uniform in [0.1, 5], phase in [0, pi], x in [-5, 5] (Finn et al.
2017, section 5.1); the network has two hidden layers of 40 relu units. Prints the mean squared
error on 600 new tasks after 0, 1, 5 and 10 gradient steps on the same five points, with 95 %
intervals over tasks, beside the published one.
"""

import argparse
import time

import numpy as np

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from policies import Policy

NETWORK = Policy(1, 1, hidden=(40, 40), activation="relu")  # its mean is the regressor
SHOTS, TASKS, P = 5, 25, NETWORK.size
# Inner and, at first, outer step size; it falls to 0 over the second half of training
ALPHA, BETA = (0.01, 0.003)
PUBLISHED = {"MAML": ("0.67", "0.38", "0.35")}


def sample_tasks(n, rng):
    """n waves: functions of x (n, points, 1) to y of the same shape."""
    A, phase = rng.uniform(0.1, 5, (n, 1, 1)), rng.uniform(0, np.pi, (n, 1, 1))
    return lambda x: A * np.sin(x - phase)


def points(wave, n, rng):
    x = rng.uniform(-5, 5, (TASKS, n, 1))
    return x, wave(x)


def loss(theta, x, y):
    """(T,): the mean squared error of each task; theta (T, P), x and y (T, points, 1)."""
    return ad.mean((NETWORK.mode(theta, x) - y) ** 2, (1, 2))


def step(theta, alpha, x, y, create_graph=False):
    return theta - alpha * grad(ad.sum(loss(theta, x, y)), theta, create_graph=create_graph)


def maml(z, wave, rng, learn_alpha=False):
    """The meta-gradient of the losses on 15 further points after one step and after two; z:
    theta and log alpha (2P,).

    Both losses, as in MAML++ (Antoniou et al. 2019): with the first alone, further steps make
    things worse.
    """
    z = Tensor(np.tile(z, (TASKS, 1)))
    theta, alpha, total = z[:, :P], ad.exp(z[:, P:]), 0
    given, asked = points(wave, SHOTS, rng), points(wave, 15, rng)
    for _ in range(2):
        theta = step(theta, alpha, *given, create_graph=True)
        total = total + loss(theta, *asked)
    g = grad(ad.sum(total), z).data.mean(0)
    return g if learn_alpha else np.append(g[:P], np.zeros(P))


def meta_sgd(z, wave, rng):
    return maml(z, wave, rng, learn_alpha=True)


def reptile(z, wave, rng):
    """phi - phi_k in place of a gradient (Nichol et al. 2018), after five steps,
    each on five new points.
    """
    theta = Tensor(np.tile(z[:P], (TASKS, 1)))
    for _ in range(5):
        theta = step(theta, ALPHA, *points(wave, SHOTS, rng))
    return np.append(z[:P] - theta.data.mean(0), np.zeros(P))


def train(direction, iterations, seed):
    """z = theta and log alpha (2P,), moved by Adam against `direction`."""
    rng, m, v = np.random.default_rng(seed), 0, 0
    z = np.append(NETWORK.init(rng), np.full(P, np.log(ALPHA)))
    for t in range(iterations):
        g, m, v = metarl.adam(direction(z, sample_tasks(TASKS, rng), rng), m, v, t + 1)
        z = z - BETA * min(1, 2 - 2 * t / iterations) * g
    return z


def errors(z, seed, n=600):
    """(n, 11): the errors on 100 evenly spaced points of new tasks after 0, 1, ...,
    10 steps on five points.
    """
    rng = np.random.default_rng((seed, 1))
    wave, x, grid = (
        sample_tasks(n, rng),
        rng.uniform(-5, 5, (n, SHOTS, 1)),
        np.tile(np.linspace(-5, 5, 100), (n, 1)),
    )
    theta, alpha, columns = Tensor(np.tile(z[:P], (n, 1))), np.exp(z[P:]), []
    for _ in range(11):
        columns.append(loss(theta.data, grid[..., None], wave(grid[..., None])))
        theta = step(theta, alpha, x, wave(x))
    return np.stack(columns, 1)


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--seed", type=int, default=0)
    seed = p.parse_args().seed
    print(
        f"{'mean squared error':20}{'iterations':>12}{'CPU s':>9}  after 0, 1, 5 and 10 steps, and as published"
    )
    for name, f, iterations in [
        ("untrained", None, 0),
        ("MAML", maml, 6000),
        ("Meta-SGD", meta_sgd, 3000),
        ("Reptile", reptile, 4000),
    ]:
        start = time.process_time()
        z = train(f, iterations, seed)
        seconds = time.process_time() - start
        e = errors(z, seed)[:, [0, 1, 5, 10]]
        cells = [
            f"{m:.2f} ± {1.96 * s / len(e) ** 0.5:.2f}"
            for m, s in zip(e.mean(0), e.std(0), strict=True)
        ]
        published = " / ".join(PUBLISHED.get(name, ("-",)))
        print(
            f"{name:20}{iterations:12}{seconds:9.1f}  {'  '.join(cells)}   {published}", flush=True
        )


if __name__ == "__main__":
    main()
