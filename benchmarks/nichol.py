"""What ignoring the meta-gradient loses: the two terms of an outer step, measured beside theory.

    python -m benchmarks.nichol [--lifetimes 20000] [--seed 0]

With g_1, ..., g_k the gradients of k minibatches of a task, of which the first k - 1 (Reptile: all
k) make inner steps of size alpha, the expected outer step is (Nichol et al. 2018, section 5)

    a AvgGrad - b alpha AvgGradInner + O(alpha^2)         MAML       a = 1   b = 2 (k - 1)
    AvgGrad = E[grad L]: to the minimum of the mean loss  FOMAML     a = 1   b = k - 1
    AvgGradInner = E[H_1 g_2]: to where the gradients     Reptile    a = k   b = k (k - 1) / 2
    of two minibatches of a task agree                    (the sum of g_1, ..., g_k)

What metarl.py runs makes the steps at three alpha; the parabola through them gives both terms, and
their projections on AvgGrad and AvgGradInner are a and b; `off` is the part of the second term
across AvgGradInner. On quadratics (two tasks of three minibatches) and trees (two decision
processes, a minibatch is an episode) the expectation is over all courses of sampling, exact; on the
point mass (four goals, 20 episodes a minibatch) the mean over --lifetimes, with 95 % intervals, the
same noise at each alpha. Trees and point mass are those of tests/oracles.py, their terms in closed
form.
"""

import argparse
import itertools
from concurrent.futures import ProcessPoolExecutor

import numpy as np

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from harness.cli import interval
from harness.settings import Setting
from policies import Trajectories
from tests import oracles

STEPS = (2, 3, 4)
ALPHAS = (1e-4, 2e-4, 3e-4)
BATCH = 2000  # lifetimes on the point mass that are worked on together
ALGORITHMS = {
    "MAML, dice": dict(algo="maml", estimator="dice"),
    "MAML, log-prob": dict(algo="maml", estimator="log-prob"),
    "FOMAML": dict(algo="fomaml"),
    "Reptile": dict(algo="reptile"),
}
# Gradients without bias
PLAIN = dict(baseline="none", standardise=False, gamma=1.0, alpha_decay=1.0, episodes=20)
GOALS = np.array([[0.3, 0.4], [1.0, -1.0], [-0.5, 0.2], [0.8, 0.6]])
OTHER_TREE = oracles.Tabular(((0, 0), (0.2, 0.7), (1, 0.1)), ((1, 2), (0, 0), (0, 0)), horizon=2)


def theory(name, k):
    """a and b."""
    return {"maml": (1, 2 * (k - 1)), "fomaml": (1, k - 1), "reptile": (k, k * (k - 1) / 2)}[
        ALGORITHMS[name]["algo"]
    ]


# --- Tasks: family, policy, grad L and its Hessian; all minibatches D (1, M, ...) and their chances, if few ---
class Quadratic:
    """Minibatches are losses 1/2 (theta - c)' A (theta - c), as episodes of one step that pays 1.

    The observation tells which, the log-probability is minus the loss: the surrogate's estimator
    must be log-prob.
    """

    horizon, obs_dim, action_dim, discrete = 1, 1, 1, False
    family = policy = property(lambda self: self)

    def __init__(self, noise, size=3, dims=2):
        squares = noise.standard_normal((size, dims, dims))
        self.A, self.c = squares @ squares.swapaxes(1, 2), noise.standard_normal((size, dims))
        which = np.arange(float(size))[None, :, None]
        self.D = Trajectories(
            which[..., None], which, np.ones_like(which), np.ones(which.shape, bool)
        )

    def log_prob(self, theta, obs, action):
        which = obs[:, 0, 0, 0].astype(int)
        d = theta - self.c[which]
        Ad = ad.matmul(self.A[which], ad.reshape(d, (*d.shape, 1)))[..., 0]
        return ad.reshape(-0.5 * ad.sum(d * Ad, -1), obs.shape[:-1])

    def chances(self, theta):
        return np.full((len(theta), len(self.A)), 1 / len(self.A))

    def exact(self, theta):
        return np.einsum("mij,mj->i", self.A, theta - self.c) / len(self.A), self.A.mean(0)


class Decisions:
    """A family of tests/oracles.py, with L = -J / H;
    minibatches are the episodes of a tabular one.
    """

    def __init__(self, family):
        self.family, self.policy = family, "linear"
        if family.discrete:
            self.policy, self.D = (
                oracles.Softmax(family.obs_dim, family.action_dim, True),
                oracles.episodes(family)[0],
            )

    def chances(self, theta):
        return oracles.probabilities(self.family, theta)

    def exact(self, theta):
        J = oracles if self.family.discrete else type(self.family)
        return [
            -derivative(self.family, theta) / self.family.horizon
            for derivative in (J.gradient, J.hessian)
        ]


class Goals(oracles.LinearGaussian):
    """The point mass with the goal for a task."""

    def step(self, state, action, tasks, rng):
        state = state + action
        return state, -((state - tasks) ** 2).sum(-1), np.zeros(state.shape[:-1], bool)


def problems():
    """{name: (tasks, theta)}"""
    noise = np.random.default_rng(0)
    return {
        "quadratics": ([Quadratic(noise), Quadratic(noise)], noise.standard_normal(2)),
        "trees": ([Decisions(oracles.TREE), Decisions(OTHER_TREE)], oracles.THETA[oracles.TREE]),
        "point mass": ([Decisions(Goals(goal=tuple(goal))) for goal in GOALS], oracles.MASS),
    }


# --- Outer steps of the code that runs ---
def outer_steps(task, name, k, theta, sample, n):
    """(3, n, P): theta before minus theta after, over the step size,
    of n lifetimes on minibatches of `sample(alpha)`.
    """
    # The others keep the last minibatch for the outer gradient
    steps, out = (k if name == "Reptile" else k - 1, [])
    for alpha in ALPHAS:
        options = dict(env=task.family, policy=task.policy, alpha=alpha, inner_steps=steps)
        c, x = (Setting(**options, **PLAIN, **ALGORITHMS[name]), Tensor(np.tile(theta, (n, 1))))
        if name == "Reptile":
            out.append((theta - metarl.adapt(c, x, sample(alpha))[0][-1].data) / alpha)
        else:
            out.append(grad(ad.sum(metarl.meta_loss(c, x, sample(alpha))[0]), x).data)
    return np.array(out)


def expected_steps(task, name, k, theta):
    """(3, 1, P): the expectation over all sequences of k minibatches."""
    M = task.D.rewards.shape[1]
    sequences, weights = (
        np.array(list(itertools.product(range(M), repeat=k))),
        np.ones((3, M**k, 1)),
    )

    def sample(alpha):
        def minibatch(step, theta):
            chosen = sequences[:, [step]]
            weights[ALPHAS.index(alpha)] *= np.take_along_axis(task.chances(theta), chosen, 1)
            return Trajectories(*(x[0, chosen] for x in task.D[:4]))

        return minibatch

    steps = outer_steps(task, name, k, theta, sample, M**k)  # fills in the weights
    return (weights * steps).sum(1, keepdims=True)


def sampled_steps(task, name, k, theta, n, seed):
    """(3, n, P): n lifetimes on the point mass."""
    c, goals = (
        Setting(env=task.family, policy="linear", **PLAIN),
        np.tile(GOALS, (BATCH // len(GOALS), 1)),
    )
    samples = [metarl.sampler(c, goals, (seed, i)) for i in range(n // BATCH)]
    return np.concatenate(
        [outer_steps(task, name, k, theta, lambda _, s=s: s, BATCH) for s in samples], 1
    )


def coefficients(steps, average, inner):
    """a and b of each lifetime (n, 2), and off, in per cent, of their mean:
    from steps (3, n, P) at ALPHAS.
    """
    first, second = np.tensordot(np.linalg.inv(np.vander(ALPHAS, increasing=True))[:2], steps, 1)
    ab = np.stack([first @ average / (average @ average), -second @ inner / (inner @ inner)], 1)
    mean = second.mean(0)
    return ab, 100 * np.linalg.norm(mean + ab[:, 1].mean() * inner) / np.linalg.norm(mean)


def row(problem, name, k, lifetimes, seed):
    """problem, algorithm, k, then [a, b], the half widths of their intervals, and off."""
    tasks, theta = problems()[problem]
    exact = [task.exact(theta) for task in tasks]
    average, inner = np.mean([g for g, _ in exact], 0), np.mean([H @ g for g, H in exact], 0)
    if problem == "point mass":
        ab, off = coefficients(
            sampled_steps(tasks[0], name, k, theta, lifetimes, seed), average, inner
        )
        return problem, name, k, *interval(ab).values(), off
    ab, off = coefficients(
        np.mean([expected_steps(t, name, k, theta) for t in tasks], 0), average, inner
    )
    return problem, name, k, ab[0], np.zeros(2), off


def table(lifetimes=20000, seed=0):
    """A `row` for each problem, algorithm and k;
    dice is for losses that are returns, not for quadratics.
    """
    jobs = list(itertools.product(problems(), ALGORITHMS, STEPS))
    jobs = [job for job in jobs if job[:2] != ("quadratics", "MAML, dice")]
    with ProcessPoolExecutor(2) as pool:
        return list(
            pool.map(row, *zip(*jobs, strict=True), [lifetimes] * len(jobs), [seed] * len(jobs))
        )


def conclusion(rows):
    """What each algorithm keeps of the weight that theory gives MAML on AvgGradInner,
    per unit of AvgGrad.
    """
    text = f"weight on AvgGradInner per unit of AvgGrad, % of theory for MAML: mean over k\n{'':16}"
    text += "".join(f"{problem:>12}" for problem in problems())
    for name in ALGORITHMS:
        text += f"\n{name:16}"
        for problem in problems():
            kept = [
                100 * b / a / theory("MAML, dice", k)[1]
                for p, n, k, (a, b), *_ in rows
                if (p, n) == (problem, name)
            ]
            text += f"{np.mean(kept):12.1f}" if kept else f"{'-':>12}"
    return text


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "--lifetimes", type=int, default=20000, help=f"on the point mass, in batches of {BATCH}"
    )
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    if a.lifetimes < BATCH:
        p.error(f"--lifetimes {a.lifetimes}: must be at least {BATCH}, a batch")
    print(f"{'problem':12}{'':16}{'k':>2}{'a':>14}{'theory':>8}{'b':>15}{'theory':>8}{'off, %':>8}")
    rows = table(a.lifetimes, a.seed)
    for problem, name, k, ab, halves, off in rows:
        cells = [
            f"{x:.3f} ± {half:.3f}" if half else f"{x:.3f}"
            for x, half in zip(ab, halves, strict=True)
        ]
        t = theory(name, k)
        print(f"{problem:12}{name:16}{k:2}{cells[0]:>14}{t[0]:8}{cells[1]:>15}{t[1]:8g}{off:8.1f}")
    print(conclusion(rows))


if __name__ == "__main__":
    main()
