"""Offline meta-RL with advantage weighting: simple offline RL inside, and outside too.

    python -m chapters.macaw [--seeds 5] [--first-seed 0] [--ablations] [--quick] [--plot DIR]
                             [--json]

Mitchell, Rafailov, Peng, Levine & Finn, "Offline Meta-Reinforcement Learning with Advantage
Weighting" (MACAW), 2021, arXiv 2008.06043, Algorithms 1 and 2. V_phi is a value function, pi_theta
a policy. In our words, with the numbers that the lines of the code carry:

    meta-training, on data that others have collected
    l.1   while not done:
    l.2     some of the tasks; of each of them episodes D, and others D'
    l.3       phi' = phi - alpha grad L_V(phi, D)
    l.4       theta' = theta - alpha grad L_pi(theta, phi', D)
    l.5     phi: a step down the sum over tasks of L_V(phi', D')
    l.6     theta: a step down the sum over tasks of L_AWR(theta', phi', D')
            the step sizes alpha, one for each tensor, and lambda are learned along with these
    meta-test
    l.7   l.3 and l.4 with some episodes D of a new task

    L_V    the mean of (V(s) - R)^2, where R is the return-to-go in the data
    L_AWR  the mean of -w log pi(a|s), advantage-weighted regression: imitate an action the more,
           the larger its advantage A = R - V(s); w is exp(A / temperature)
    L_pi   L_AWR + lambda times the mean of (A(s, a) - A)^2, where A(s, a) is a head of the policy

Without the head, theta' would know of the rewards only through weights on imitation. These are
positive: an action is imitated more or less, but none is avoided, and where the policy does what
the data do it learns nothing. The head has to tell how good an action was from features that it
shares with the policy. So its gradient moves these, and with them the policy, whatever was done.

World: a point mass, paid minus its distance to a goal in a box. Each of 80 tasks comes with 20
episodes of demonstrators of all skills, which D' are from, and 20 random walks, which D are from.
Meta-training gets these arrays and no world. Of a new task there are five random walks: 100 steps
that know nothing of the goal, but for what they were paid.

The claim: from these, one step finds the way.

Read awr.py first: the networks, with the paper's weight transform, and the losses. Then from the
top: adaptation, l.3 and 4; meta-training; the test, l.7; what it has to beat; `run`; what is
printed. goals.py has the world and its data.

The columns: the return in new tasks before the step, after it, and after one on the data of another
task, which must be worse.
The rows: MACAW; meta-BC, which imitates all actions alike, inside and outside, and so sees no
reward; multi-task, which has no step inside: it trains on all tasks at once, with plain layers, and
then takes steps of Adam on the new task's data, as many as turn out to be best. With --ablations
MACAW without weight transform, without head, without both.

Said plainly: one step finds the direction rather than the place, so that the return stays far from
the best possible. "before" can be any policy, as nothing asks it to be good: standing still returns
-15.3, so another task's data and multi-task say more. The weight transform and the head add about
0.5 each, and only without both is much lost; where z was three times as long at first, the
transform added nothing. The best count of steps for multi-task is chosen on the returns themselves.

Smaller than in the paper: a point mass for simulated robots; 32 units in a layer and 16 numbers in
z; one step in a test. The paper draws D and D' from one buffer. Ours are whitened advantages, the
time as an input of V, ten times the advantage as the target of the head, and small first z and W.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

import autodiff as ad
from autodiff import Tensor, grad
from chapters import common, goals
from chapters.awr import (
    L_AWR,
    L_BC,
    L_V,
    L_head,
    advantages,
    features,
    first,
    mean_action,
    shapes,
    unpack,
)
from chapters.common import EACH, OWN, Chapter, above, cell, table
from chapters.goals import exchanged, mean_return
from chapters.models import Moments, adam_step
from chapters.offline import of_episodes, of_tasks
from metarl import noise_at


@dataclass(frozen=True)
class Options:
    train_tasks: int = 80
    test_tasks: int = 100
    episodes: int = 20  # of each kind in the data of a task
    noise: float = 0.5  # in the actions of the data
    iterations: int = 1500
    tasks: int = 8  # in an iteration
    inner_episodes: int = 5  # D, also in a test
    outer_episodes: int = 10  # D'
    hidden: int = 32
    std: float = 0.4  # of the policy's actions, held
    d: int = 16  # of the weight transform; 0: none
    head: bool = True  # whether L_pi has one
    gamma: float = 0.9
    alpha: float = 0.05  # the first step size of each tensor
    lam: float = 0.1  # the first lambda
    beta: float = 0.001  # Adam's step size
    beta_rates: float = 0.01  # the same for the logarithms of alpha and lambda
    fine_tuning: tuple = (0, 1, 10, 30, 100, 300)  # counts of steps after multi-task training
    ablations: bool = False


QUICK = Options(iterations=60, fine_tuning=(0, 1, 10, 30))
ABLATIONS = {
    "no weight transform": {"d": 0},
    "no head": {"head": False},
    "neither": {"d": 0, "head": False},
}

# Rows and columns.
OURS = "MACAW"
MULTI_TASK = "multi-task"
COUNTS = "multi-task, steps"
WHEN = ("before", "after", "another's data")

# Noise of its own: (seed, OWN, 0) to 4 are in goals.py; 5 parameters at first; 6 batches.


# --- l.3 and l.4: adaptation ---
def descend(tensors, alpha, loss):
    """The tensors, rows of tasks, after a gradient step down the loss (T,) of each.

    The gradient is recorded, so that it can be differentiated again: l.5 and l.6 are of second
    order.
    """
    gradients = grad(ad.sum(loss), tensors, create_graph=True)
    return [w - a * g for w, a, g in zip(tensors, alpha, gradients, strict=True)]


def rows_of(tensors, T):
    """The tensors with a row for each task, so that each task has a gradient of its own."""
    return [ad.broadcast_to(tensor, (T, *tensor.shape)) for tensor in tensors]


def adapt(o, x, D):
    """phi' and theta' of each task: lists of Tensors (T, ...)."""
    T = len(D.obs)
    m = unpack(o, x)
    phi = rows_of(m.phi, T)
    theta = rows_of(m.theta, T)
    phi_prime = descend(phi, m.alpha_phi, L_V(o, phi, D))  # l.3
    A = advantages(o, phi_prime, D)
    h = features(o, theta, D.obs)
    L_pi = L_AWR(o, theta, h, A, D)
    if o.head:
        L_pi = L_pi + m.lam * L_head(o, theta, h, A, D)
    theta_prime = descend(theta, m.alpha_theta, L_pi)  # l.4
    return phi_prime, theta_prime


# --- l.1, 2, 5 and 6: meta-training ---
def outer_loss(o, phi, theta, D):
    """What phi' and theta' are judged by. The head is not among it: it serves adaptation alone.

    As A is constant, here and in `adapt`, the first loss concerns phi and its step sizes alone, the
    second theta, its step sizes and lambda. So one step down the sum is l.5 and l.6.
    """
    A = advantages(o, phi, D)
    h = features(o, theta, D.obs)
    return L_V(o, phi, D) + L_AWR(o, theta, h, A, D)


def meta_loss(o, x, D, D_prime):
    phi_prime, theta_prime = adapt(o, x, D)
    return outer_loss(o, phi_prime, theta_prime, D_prime)


def train(o, known, seed, loss=meta_loss):
    """x (P,), out of the Known: arrays, and no world that could be asked."""
    x = first(o, noise_at(seed, OWN, 5))
    of_phi, of_theta = shapes(o)
    rates = len(of_phi) + len(of_theta) + 1  # the last numbers of x: the step sizes and lambda
    beta = np.full(len(x), o.beta, x.dtype)
    beta[-rates:] = o.beta_rates
    rng = noise_at(seed, OWN, 6)
    moments = Moments()
    for _ in range(o.iterations):  # l.1
        i = rng.choice(o.train_tasks, o.tasks, replace=False)  # l.2
        D = some_episodes(of_tasks(known.walks, i), o.inner_episodes, rng)
        D_prime = some_episodes(of_tasks(known.demonstrations, i), o.outer_episodes, rng)
        of_x = partial(loss, o, D=D, D_prime=D_prime)
        x, moments = adam_step(of_x, x, beta, moments)  # l.5, l.6
    return x


def some_episodes(data, n, rng):
    """n episodes of each task, without replacement."""
    T, K = data.rewards.shape[:2]
    shuffled = rng.random((T, K)).argsort(1)
    return of_episodes(data, shuffled[:, :n])


# --- l.7: the test on new tasks ---
def tested(o, theta, tasks):
    """Data of a test of the mean actions of pi_theta in the tasks (T, 2)."""
    constants = [ad.value(tensor) for tensor in theta]

    def act(obs, t):
        return mean_action(o, constants, features(o, constants, obs))

    return goals.test(act, tasks)


def adapted(o, x, new, step=adapt):
    """{when: Data of a test in the New tasks}: before, and after either step."""
    x = Tensor(x)
    policies = {
        "before": unpack(o, x).theta,
        "after": step(o, x, new.D)[1],
        "another's data": step(o, x, exchanged(new).D)[1],
    }
    return {when: tested(o, theta, new.tasks) for when, theta in policies.items()}


# --- What it has to beat ---
def imitate(o, x, D):
    """Adaptation in meta-BC: phi, which it does not use, and theta'."""
    m = unpack(o, x)
    theta = rows_of(m.theta, len(D.obs))
    loss = L_BC(o, theta, features(o, theta, D.obs), D)
    return m.phi, descend(theta, m.alpha_theta, loss)


def imitation_loss(o, x, D, D_prime):
    _, theta_prime = imitate(o, x, D)
    return L_BC(o, theta_prime, features(o, theta_prime, D_prime.obs), D_prime)


def multi_task_loss(o, x, D, D_prime):
    """What is left of the outer loss without an inner step."""
    m = unpack(o, x)
    return outer_loss(o, m.phi, m.theta, D_prime)


def fine_tuned(o, x, new):
    """(counts,): the mean return after so many steps of Adam as o.fine_tuning says."""
    w = np.tile(x, (len(new.tasks), 1))
    moments = Moments()

    def loss(w):
        m = unpack(o, w)
        return outer_loss(o, m.phi, m.theta, new.D)

    returns = []
    for k in range(o.fine_tuning[-1] + 1):
        if k in o.fine_tuning:
            returns.append(mean_return(tested(o, unpack(o, w).theta, new.tasks)))
        w, moments = adam_step(loss, w, o.beta, moments)
    return np.array(returns)


def multi_task(o, known, new, seed):
    """Its row, and that of its counts of steps."""
    x = train(o, known, seed, multi_task_loss)
    returns = fine_tuned(o, x, new)
    best = returns.argmax()
    of_another = fine_tuned(o, x, exchanged(new))
    row = {"before": returns[0], "after": returns[best], "another's data": of_another[best]}
    counts = {f"{k}": r for k, r in zip(o.fine_tuning, returns, strict=True)}
    return row, counts


def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs."""
    known, new = goals.data_sets(o, seed)
    variants = {OURS: o}
    if o.ablations:
        variants |= {name: replace(o, **changes) for name, changes in ABLATIONS.items()}
    tests = {}
    for name, variant in variants.items():
        tests[name] = adapted(variant, train(variant, known, seed), new)
    tests["meta-BC"] = adapted(o, train(o, known, seed, imitation_loss), new, imitate)

    rows = {}
    for name, by_when in tests.items():
        rows[name] = {when: mean_return(test) for when, test in by_when.items()}
    rows[MULTI_TASK], rows[COUNTS] = multi_task(replace(o, d=0), known, new, seed)
    rows["data"] = {
        "random walks": mean_return(new.D),
        "demonstrators": mean_return(known.demonstrations),
        "the best possible": goals.WORLD.optimal_return(new.tasks).mean(),
    }
    return rows, {"goals": new.tasks, "walks": new.D.obs, "paths": tests[OURS]}


# --- What is printed ---
def report(rows):
    names = [name for name in rows if name not in (COUNTS, "data")]
    seen = ", ".join(f"{name} {cell(numbers)}" for name, numbers in rows["data"].items())
    return f"""
Return in {goals.WORLD.horizon} steps in new tasks: before and after a step on five random walks,
and after one on those of another task
{table(rows, names, WHEN)}
multi-task, after so many gradient steps
{table(rows, [COUNTS], tuple(rows[COUNTS]))}
In the data: {seen}
"""


def claims(rows):
    after = {name: columns["after"] for name, columns in rows.items() if "after" in columns}
    ours = rows[OURS]
    gain = ours["after"] - ours["before"]
    over_another = ours["after"] - ours["another's data"]
    judged = [
        above("one step on random walks: return after it", -11.5, after[OURS]),
        above("it adapts: after - before", 4, gain, EACH),
        above("to the data: after - another task's data", 3, over_another, EACH),
        above("it does not imitate: MACAW - meta-BC", 3, after[OURS] - after["meta-BC"], EACH),
        above("MACAW - multi-task, best count of steps", 2, after[OURS] - after[MULTI_TASK]),
    ]
    for name in ABLATIONS:
        if name in after:
            judged.append(above(f"MACAW - {name}", 0, after[OURS] - after[name]))
    return judged


def draw(figure, picture):
    """Four new tasks: the random walks, and the paths before and after the step on them."""
    styles = {"before": ("C1", "--"), "another's data": ("C2", ":"), "after": ("C0", "-")}
    figure.set_size_inches(8, 2.6)
    panels = figure.subplots(1, 4, sharex=True, sharey=True)
    for i, panel in enumerate(panels):
        for walk in picture["walks"][i]:
            panel.plot(*walk.T, color="0.75", linewidth=0.8)
        for when, (colour, line) in styles.items():
            path = picture["paths"][when].obs[i, 0]
            panel.plot(*path.T, color=colour, linestyle=line, label=when)
        panel.plot(*picture["goals"][i], "k*", markersize=9, label="goal")
        panel.set(aspect="equal", xlabel="x")
    panels[0].set_ylabel("y")
    panels[0].plot([], color="0.75", label="random walks")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)


FLAGS = {"ablations": "train without weight transform, without head, and without both, too"}
CHAPTER = Chapter("macaw", __doc__, Options(), QUICK, run, report, claims, draw, FLAGS)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
