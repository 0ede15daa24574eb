"""What ignoring the meta-gradient loses: the two terms of an outer step, measured beside theory.

    python -m chapters.nichol [--seeds 5] [--first-seed 0] [--quick] [--plot DIR] [--json]

Nichol, Achiam & Schulman, "On First-Order Meta-Learning Algorithms", 2018, arXiv 1803.02999,
section 5. With g_1, ..., g_k the gradients of k minibatches of a task, of which the first k - 1
(Reptile: all k) make inner steps of size alpha, the expected outer step is

    a AvgGrad - b alpha AvgGradInner + O(alpha^2)         MAML       a = 1   b = 2 (k - 1)
    AvgGrad = E[grad L]: to the minimum of the mean loss  FOMAML     a = 1   b = k - 1
    AvgGradInner = E[H_1 g_2]: to where the gradients     Reptile    a = k   b = k (k - 1) / 2
    of two minibatches of a task agree                    (the sum of g_1, ..., g_k)

H_1 is the Hessian of the first minibatch's loss, g_2 the gradient of the second's. What metarl.py
runs makes the outer step at three alpha. The parabola in alpha through the three has two terms that
count: its constant, whose projection on AvgGrad is a, and its slope, whose projection on minus
AvgGradInner is b; `off` is the part of the slope across AvgGradInner, in per cent. What is lost is
said by b / a, in per cent of MAML's.

Three problems. On quadratics (two tasks of three minibatches) and trees (two decision processes, a
minibatch is an episode) the expectation is over all courses of sampling, exact; on the point mass
(four goals, 20 episodes a minibatch) it is the mean over lifetimes, with the same noise at each
alpha. They are in minibatches.py.

The claim: FOMAML keeps half of MAML's weight on AvgGradInner, Reptile a quarter.

Said plainly: "MAML, dice" is MAML as the theory has it. MAML whose inner steps differentiate log pi
alone loses most of the second term, or even points away from it: its Hessian is not that of the
loss (docs/estimators.md). On quadratics, which sample nothing, the two are the same.
"""

import itertools
from dataclasses import dataclass

import numpy as np

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from chapters import common
from chapters.common import EACH, Chapter, above, below, cell, in_columns, table
from chapters.minibatches import GOALS, problems
from harness.settings import Setting
from policies import Trajectories


@dataclass(frozen=True)
class Options:
    lifetimes: int = 4000  # on the point mass, in batches of 2000


QUICK = Options(lifetimes=2000)

STEPS = (2, 3, 4)  # k
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


def theory(name, k):
    """a and b."""
    by_algo = {
        "maml": (1, 2 * (k - 1)),
        "fomaml": (1, k - 1),
        "reptile": (k, k * (k - 1) / 2),
    }
    return by_algo[ALGORITHMS[name]["algo"]]


# --- Outer steps of the code that runs ---
def outer_steps(task, name, k, theta, sample, n):
    """(3, n, P): the outer steps at ALPHAS, for n lifetimes on minibatches of `sample(alpha)`.

    Of MAML and FOMAML the meta-gradient; of Reptile (theta - phi_k) / alpha.
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
    """(3, 1, P): the expectation over all sequences of k minibatches.

    Each sequence is a lifetime, weighted by how likely it is: the product of the chances of its
    minibatches, which depend on theta, that is on the steps before.
    """
    M = task.D.rewards.shape[1]
    sequences = np.array(list(itertools.product(range(M), repeat=k)))  # (M^k, k)
    weights = np.ones((3, M**k, 1))

    def sample(alpha):
        def minibatch(step, theta):
            chosen = sequences[:, [step]]  # (M^k, 1), the minibatch of each lifetime
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
    """a and b of each lifetime (n, 2), and off, in per cent, of their mean.

    From steps (3, n, P) at ALPHAS, AvgGrad and AvgGradInner (P,).
    """
    # steps = c_0 + c_1 alpha + c_2 alpha^2: three equations for c_0, c_1 and c_2
    powers = np.vander(ALPHAS, increasing=True)  # rows 1, alpha, alpha^2
    first, second, _ = np.tensordot(np.linalg.inv(powers), steps, 1)
    a = first @ average / (average @ average)
    b = -second @ inner / (inner @ inner)
    mean = second.mean(0)
    across = mean + b.mean() * inner  # less its projection, which is -b inner
    return np.stack([a, b], 1), 100 * np.linalg.norm(across) / np.linalg.norm(mean)


def measured(problem, name, k, lifetimes, seed):
    """a and b (n, 2), of each lifetime or of the exact expectation (n = 1); and off."""
    tasks, theta = problems()[problem]
    exact = [task.exact(theta) for task in tasks]
    average = np.mean([g for g, _ in exact], 0)
    inner = np.mean([H @ g for g, H in exact], 0)
    if problem == "point mass":
        steps = sampled_steps(tasks[0], name, k, theta, lifetimes, seed)
    else:
        steps = np.mean([expected_steps(task, name, k, theta) for task in tasks], 0)
    return coefficients(steps, average, inner)


def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs, what each one keeps."""
    rows = {}
    kept = {f"kept by {name}": {} for name in ALGORITHMS}
    for problem, name in itertools.product(problems(), ALGORITHMS):
        if problem == "quadratics" and name == "MAML, dice":
            continue  # dice is for losses that are returns
        shares = []
        for k in STEPS:
            ab, off = measured(problem, name, k, o.lifetimes, seed)
            a, b = ab.mean(0)
            _, theory_b = theory(name, k)
            columns = {"a": a, "b": b, "b / theory": b / theory_b, "off, %": off}
            rows[f"{problem}, {name}, k = {k}"] = columns
            shares.append(share(k, a, b))
        kept[f"kept by {name}"][problem] = np.mean(shares)
    return rows | kept, kept


def share(k, a, b):
    """The weight on AvgGradInner per unit of AvgGrad, in per cent of theory for MAML."""
    theory_a, theory_b = theory("MAML, dice", k)
    return 100 * (b / a) / (theory_b / theory_a)


# --- What is printed ---
def report(rows):
    kept = [name for name in rows if name.startswith("kept")]
    each = [name for name in rows if name not in kept]
    columns = ("a", "b", "b / theory", "off, %")
    lines = [f"{'':22}" + in_columns(problems())]
    for name in kept:
        cells = [cell(rows[name][p], 1) if p in rows[name] else "-" for p in problems()]
        lines.append(f"{name:22}" + in_columns(cells))
    last = "\n".join(lines)
    return f"""
The two terms of an outer step
{table(rows, each, columns, digits=3)}
Weight on AvgGradInner per unit of AvgGrad, % of theory for MAML: mean over k
{last}
"""


def claims(rows):
    judged = [above("MAML keeps it: dice, trees", 99.9, rows["kept by MAML, dice"]["trees"], EACH)]
    for name, part in (("FOMAML", 50), ("Reptile", 25)):
        for problem, number in rows[f"kept by {name}"].items():
            words = f"{name} keeps {part} %: apart from that, {problem}"
            judged.append(below(words, 2, abs(number - part)))
    lost = rows["kept by MAML, log-prob"]["trees"]
    judged.append(below("log pi alone loses it: kept, trees", 20, lost, EACH))
    return judged


def draw(figure, picture):
    """What each algorithm keeps, by problem."""
    figure.set_size_inches(7, 3)
    panel = figure.subplots()
    names = list(picture)
    height = 0.25
    for i, problem in enumerate(problems()):
        with_it = [name for name in names if problem in picture[name]]
        at = [names.index(name) + (i - 1) * height for name in with_it]
        panel.barh(at, [picture[name][problem] for name in with_it], height, label=problem)
    panel.set_yticks(range(len(names)), [name.removeprefix("kept by ") for name in names])
    panel.invert_yaxis()
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set(xlabel="weight on AvgGradInner per unit of AvgGrad, % of MAML's in theory")
    panel.legend()


CHAPTER = Chapter("nichol", __doc__, Options(), QUICK, run, report, claims, draw)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
