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

import itertools

import numpy as np

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from benchmarks.common import in_columns, interval, parser, side_by_side
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
    by_algo = {
        "maml": (1, 2 * (k - 1)),
        "fomaml": (1, k - 1),
        "reptile": (k, k * (k - 1) / 2),
    }
    return by_algo[ALGORITHMS[name]["algo"]]


# --- Tasks: family, policy, `exact` (grad L and its Hessian) ---
# Where minibatches are few, D (1, M, ...) holds them all, and `chances` tells how likely each is
class Quadratic:
    """Minibatches are losses 1/2 (theta - c)' A (theta - c), as episodes of one step that pays 1.

    The observation tells which, the log-probability is minus the loss: the surrogate's estimator
    must be log-prob.
    """

    horizon = obs_dim = action_dim = 1
    discrete = False
    family = policy = property(lambda self: self)

    def __init__(self, noise, size=3, dims=2):
        squares = noise.standard_normal((size, dims, dims))
        self.A = squares @ squares.swapaxes(1, 2)
        self.c = noise.standard_normal((size, dims))
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
        self.family = family
        self.policy = "linear"
        if family.discrete:
            self.policy = oracles.Softmax(family.obs_dim, family.action_dim, True)
            self.D, _ = oracles.episodes(family)

    def chances(self, theta):
        return oracles.probabilities(self.family, theta)

    def exact(self, theta):
        J = oracles if self.family.discrete else type(self.family)
        g = J.gradient(self.family, theta)
        H = J.hessian(self.family, theta)
        return -g / self.family.horizon, -H / self.family.horizon


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
    """(3, n, P): theta before minus theta after, over the step size, of n lifetimes on minibatches
    of `sample(alpha)`.
    """
    # Reptile steps on all k minibatches; the others keep the last one for the outer gradient
    steps = k if name == "Reptile" else k - 1
    out = []
    for alpha in ALPHAS:
        options = dict(env=task.family, policy=task.policy, alpha=alpha, inner_steps=steps)
        c = Setting(**options, **PLAIN, **ALGORITHMS[name])
        x = Tensor(np.tile(theta, (n, 1)))
        if name == "Reptile":
            path, _ = metarl.adapt(c, x, sample(alpha))
            out.append((theta - path[-1].data) / alpha)
        else:
            loss, _ = metarl.meta_loss(c, x, sample(alpha))
            out.append(grad(ad.sum(loss), x).data)
    return np.array(out)


def expected_steps(task, name, k, theta):
    """(3, 1, P): the expectation over all sequences of k minibatches."""
    M = task.D.rewards.shape[1]
    sequences = np.array(list(itertools.product(range(M), repeat=k)))
    weights = np.ones((3, M**k, 1))

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
    c = Setting(env=task.family, policy="linear", **PLAIN)
    goals = np.tile(GOALS, (BATCH // len(GOALS), 1))

    def batch(i):
        episodes = metarl.sampler(c, goals, (seed, i))  # the same noise at each alpha
        return outer_steps(task, name, k, theta, lambda alpha: episodes, BATCH)

    return np.concatenate([batch(i) for i in range(n // BATCH)], 1)


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
    average = np.mean([g for g, _ in exact], 0)
    inner = np.mean([H @ g for g, H in exact], 0)
    if problem == "point mass":
        steps = sampled_steps(tasks[0], name, k, theta, lifetimes, seed)
        ab, off = coefficients(steps, average, inner)
        return problem, name, k, *interval(ab).values(), off
    steps = np.mean([expected_steps(task, name, k, theta) for task in tasks], 0)
    ab, off = coefficients(steps, average, inner)
    return problem, name, k, ab[0], np.zeros(2), off


def table(lifetimes=20000, seed=0):
    """A `row` for each problem, algorithm and k; dice is for losses that are returns, not for
    quadratics.
    """
    jobs = list(itertools.product(problems(), ALGORITHMS, STEPS, [lifetimes], [seed]))
    jobs = [job for job in jobs if job[:2] != ("quadratics", "MAML, dice")]
    return list(side_by_side(row, jobs))


def kept(rows, problem, name):
    """Weight on AvgGradInner per unit of AvgGrad, % of theory for MAML: mean over k, as text."""
    shares = []
    for p, n, k, (a, b), *_ in rows:
        if (p, n) == (problem, name):
            _, theory_b = theory("MAML, dice", k)
            shares.append(100 * b / a / theory_b)
    return f"{np.mean(shares):.1f}" if shares else "-"


def conclusion(rows):
    """What each algorithm keeps of the weight that theory gives MAML on AvgGradInner."""
    lines = ["weight on AvgGradInner per unit of AvgGrad, % of theory for MAML: mean over k"]
    lines.append(f"{'':16}{in_columns(problems(), 12)}")
    for name in ALGORITHMS:
        shares = [kept(rows, problem, name) for problem in problems()]
        lines.append(f"{name:16}{in_columns(shares, 12)}")
    return "\n".join(lines)


def main():
    p = parser(__doc__)
    help = f"on the point mass, in batches of {BATCH}"
    p.add_argument("--lifetimes", type=int, default=20000, help=help)
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
