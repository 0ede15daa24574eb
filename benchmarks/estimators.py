"""How good is one estimate of the meta-gradient?

Bias, standard deviation and direction of every estimator.

    python -m benchmarks.estimators [--estimates 8000]

The problems are those of tests/oracles.py, whose exact meta-gradients are known. The first table
has, in per cent of the exact meta-gradient's length, the bias against J^I (the return after a step
along the true gradient) and against J^II_10 (after a step on 10 sampled episodes), summed over all
that can happen, and the standard deviation of one estimate, sampled. The second is the choice of a
meta-optimiser in one table: the cosine of an estimate with the exact gradient of J^I at equal
numbers of episodes. An adaptation takes 20 episodes and is judged by 20 more; an estimate is the
mean over as many adaptations as the episodes suffice for, of which ES needs two for each antithetic
pair (Song et al. 2020, Algorithm 2). ES has, in each column, the best of a grid of standard
deviations for its noise.
"""

import numpy as np

import metarl
from benchmarks.common import parser
from tests import oracles
from tests.oracles import (
    BANDIT,
    MASS,
    THETA,
    TREE,
    LinearGaussian,
    meta_gradient,
    program_expectation,
    setting,
)

K = 20  # inner episodes of an adaptation, and outer
EPISODES = (80, 800, 8000)
SIGMAS = (0.03, 0.1, 0.3, 1.0)
METHODS = {
    "first-order": dict(estimator="first-order"),
    "log-prob": dict(estimator="log-prob"),
    "lvc": dict(estimator="lvc"),
    "dice": dict(estimator="dice"),
    "emaml": dict(algo="emaml"),
    "emaml, first-order": dict(algo="emaml", estimator="first-order"),
}


def deep_tree(depth=4):
    """A binary tree of which the last actions alone pay, and logits for it (2^(depth + 1) - 2,)."""
    noise = np.random.default_rng(0)
    n = 2**depth - 1  # states
    inner = n // 2  # states 2 s + 1 and 2 s + 2 follow state s
    success = [(0, 0)] * inner + [tuple(p) for p in noise.random((n - inner, 2))]
    following = [(2 * s + 1, 2 * s + 2) for s in range(inner)] + [(0, 0)] * (n - inner)
    logits = 0.5 * noise.standard_normal(2 * n)
    return oracles.Tabular(tuple(success), tuple(following), depth), logits


def problems():
    """{name: (problem, theta, alpha in units of the return)} of the second table."""
    mass = (LinearGaussian(), MASS, 0.01)
    return {"tree": (TREE, THETA[TREE], 1.0), "point mass": mass, "deep tree": (*deep_tree(), 5.0)}


def limit(env, theta, alpha):
    """The gradient of J^I (P,)."""
    if env.discrete:
        return meta_gradient(env, theta, alpha)
    theta_prime = theta + alpha * env.gradient(theta)
    return (np.eye(theta.size) + alpha * env.hessian(theta)) @ env.gradient(theta_prime)


def estimates(c, theta, n):
    """n estimates (n, P) from one adaptation each, in units of the return."""
    batches = []
    for i in range(-(-n // 1000)):
        g, _ = metarl.meta_gradient(c, theta, np.zeros((1000, 1)), (0, i))
        batches.append(g)
    return -c.family.horizon * np.concatenate(batches)[:n]


def es_estimates(c, theta, n, sigma):
    """n estimates (n, P) from one antithetic pair each."""
    eps = metarl.noise_at(1).standard_normal((n, theta.size))
    x = np.stack([theta + sigma * eps, theta - sigma * eps], 1)
    v, _ = metarl.fitness(c, x, np.zeros((n, 1)), (2,))
    return (v[:, :1] - v[:, 1:]) / (2 * sigma) * eps


def cosines(g, exact, cost):
    """For each of EPISODES the mean cosine of what these buy:
    means of estimates g (n, P) that cost so many each.

    An estimate of zero, as ES makes one from equal returns, counts as one at a right angle.
    """
    out = []
    for episodes in EPISODES:
        m = episodes // cost
        means = g[: len(g) // m * m].reshape(-1, m, g.shape[1]).mean(1)
        lengths = np.linalg.norm(means, axis=1) * np.linalg.norm(exact)
        out.append(float((means @ exact / np.where(lengths > 0, lengths, 1)).mean()))
    return out


def length(x, g):
    """Of x in per cent of that of g."""
    return 100 * float(np.linalg.norm(x) / np.linalg.norm(g))


def bias_table(n=8000, N=10):
    """[(problem, method, bias against J^I, bias against J^II_N, standard deviation)], in %."""
    rows = []
    for name, env in (("bandit", BANDIT), ("tree", TREE)):
        theta = THETA[env]
        one = meta_gradient(env, theta, 1.0)  # of J^I
        two = meta_gradient(env, theta, 1.0, N)  # of J^II_N
        for method, options in METHODS.items():
            c = setting(env, episodes=N, **options)
            mean = program_expectation(c, theta, N)
            deviation = estimates(c, theta, n).std(0)
            biases = length(mean - one, one), length(mean - two, two)
            rows.append((name, method, *biases, length(deviation, one)))
    return rows


def table(n=8000):
    """[(method, baseline, {problem: [a cosine for each of EPISODES]})] from n adaptations each."""
    rows = [(method, baseline, {}) for method in (*METHODS, "es") for baseline in ("none", "time")]
    black_box = dict(inner="pg", deterministic=False, learn_alpha=False)
    for name, (env, theta, alpha) in problems().items():
        exact = limit(env, theta, alpha)
        for method, baseline, row in rows:
            options = dict(episodes=K, baseline=baseline)
            if method == "es":
                c = setting(env, alpha, "es-maml", **black_box, **options)
                grid = [cosines(es_estimates(c, theta, n // 2, s), exact, 4 * K) for s in SIGMAS]
                row[name] = np.max(grid, 0).tolist()
            else:
                c = setting(env, alpha, **METHODS[method], **options)
                row[name] = cosines(estimates(c, theta, n), exact, 2 * K)
    return rows


def main():
    p = parser(__doc__)
    help = "adaptations that standard deviations and cosines use"
    p.add_argument("--estimates", type=int, default=8000, help=help)
    n = p.parse_args().estimates
    if n < max(EPISODES) // (2 * K):
        p.error(f"--estimates {n}: must be at least {max(EPISODES) // (2 * K)}")
    print(
        "bias and standard deviation of one estimate, % of the exact meta-gradient; "
        "10 episodes, no baseline"
    )
    print(f"{'problem':8} {'estimator':20} {'bias J^I':>9} {'bias J^II':>10} {'std':>6}")
    for row in bias_table(n):
        print("{:8} {:20} {:9.2f} {:10.2f} {:6.0f}".format(*row))
    print("\ncosine of one estimate with the exact meta-gradient, by the episodes that it takes")
    heads = [f"{name}, P={theta.size}" for name, (_, theta, _) in problems().items()]
    print(f"{'':26}" + "".join(f" {head:^20}" for head in heads))
    print(f"{'estimator':20} {'base':5}" + "".join(f" {B:6}" for B in EPISODES) * len(heads))
    with np.errstate(over="ignore"):  # ES with noise beyond what a point mass bears
        for method, baseline, row in table(n):
            cells = [f" {x:6.3f}" for xs in row.values() for x in xs]
            print(f"{method:20} {baseline:5}{''.join(cells)}")


if __name__ == "__main__":
    main()
