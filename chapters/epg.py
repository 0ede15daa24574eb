"""Evolved policy gradients: the loss itself is learned, by evolution over whole lives.

    python -m chapters.epg [--seeds 5] [--first-seed 0] [--quick] [--plot DIR] [--json]

Houthooft, Chen, Isola, Stadie, Wolski, Ho & Abbeel, "Evolved Policy Gradients", 2018, arXiv
1802.04821, Algorithm 1. In our words, with the numbers that the lines of the code carry:

    l.1   while not done:
    l.2     losses phi_v = phi + sigma eps_v, in pairs with eps and -eps
    l.3     each pair gets a task, and a policy theta that is born at random
    l.4     each v, S times: D <- K episodes by theta
    l.5                      theta <- theta - alpha grad_theta L_phi_v(theta, D)
    l.6             at last: F_v <- the return of theta
    l.7     phi: a step along sum_v rank(F_v) eps_v

L_phi is a network's mean over the steps of D. No gradient goes through a life: the outer loop sees
F alone. So the loss may be anything, as long as theta has a gradient.

The claim: a loss that was so learned teaches policies from birth faster than policy gradient does.
It goes on to teach after the life that it was learned for, and it teaches where it was not trained,
for which a learned birth (MAML) is a bad start: goals behind, after training on goals ahead.

What the loss is told decides on the last of these, and two losses are compared:

    open      states, actions, rewards, and the mean and deviation of the policy's actions: what
              EPG's own is told
    closed    rewards and log pi of the actions: it cannot know where anything is

Read life.py first, which has the world, l.1 to 7 but for L_phi, and the test. Then from the top:
what the two losses are told; L_phi; what it is compared with; what is printed.

Said plainly: that closed is as good behind as ahead is a theorem and no feat. Turn a life around,
with its goal, its birth and its noise: all rewards and all log pi stay as they are, so that it
learns the same, turned around. And births and noise are as probable turned around as not. So the
two are the same in the mean over lives; 200 lives leave a small difference. With EPG's own inputs
(open) evolution learns to say "go ahead": it hardly looks at the rewards, and behind it is worse
than standing still. MAML's birth is the best of all ahead, for a twentieth of the steps in the
world; and behind it is late, not lost: 32 steps are enough. How late depends on its training: with
inner steps twice as long, ahead and behind are but 1 to 2 apart. On a larger policy closed is
hardly faster than policy gradient, which has a step size of its own there.

Smaller than in the paper: a point in a plane for simulated robots; a life of 8 steps. The loss is
told the changes of the reward before and after a step, where theirs has convolutions over time, a
memory and a context; no PPO guides the first generations; each loss is judged by a single life,
where theirs has several.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

import autodiff as ad
import metarl
from chapters import common, life
from chapters.common import OWN, Chapter, above, below, difference, table
from chapters.life import AHEAD, BEHIND, Parts, best_alpha, by_hand, learning_curve
from harness.settings import Setting
from metarl import noise_at
from policies import Network


@dataclass(frozen=True)
class Options(life.Life):
    longer: int = 32  # steps of a life that goes on
    larger: tuple = (32, 32)  # units of a policy that no loss was learned for
    maml_iterations: int = 150
    maml_tasks: int = 20  # in an iteration
    maml_alpha: float = 0.25  # its inner step in training


QUICK = Options(generations=20, test_lives=40, maml_iterations=10, alphas=(0.03, 0.06, 0.125))


# --- L_phi: what it is told ---
def rewards_told(D):
    """(n, K, H, 4): of each step its reward, the change since the step before, the change until the
    next, and the mean of all rewards.

    A move along an axis is of 0.1 at most, so ten times a change is of the size of 1. No sum over
    the steps to come is among them: that later rewards count too, evolution has to find out.
    """
    r = D.rewards
    change = 10 * np.diff(r, axis=2)
    none = np.zeros_like(r[..., :1])
    before = np.concatenate([none, change], 2)
    after = np.concatenate([change, none], 2)
    mean = np.broadcast_to(r.mean((1, 2), keepdims=True), r.shape)
    return np.stack([r, before, after, mean], -1)


def closed_inputs(o, theta, D):
    """(n, K, H, 5): rewards, and log pi of what was done.

    If states and actions change their signs, so do the means of that theta whose first weights,
    last weights and last biases have changed theirs: log pi is the same, and its gradient is turned
    as theta is. Births have such signs at random, and last biases of 0.
    """
    log_pi = life.policy(o).log_prob(theta, D.obs, D.actions)
    return ad.concatenate([rewards_told(D), log_pi[..., None]], -1)


def open_inputs(o, theta, D):
    """(n, K, H, 12): states, actions, rewards; mean and log deviation of theta's actions."""
    pi = life.policy(o)
    mu = pi.network.apply(theta, D.obs)
    log_std = ad.broadcast_to(pi.log_std(theta, mu.ndim), mu.shape)
    return ad.concatenate([D.obs, D.actions, rewards_told(D), mu, log_std], -1)


class Kind(NamedTuple):
    """A kind of loss."""

    inputs: Callable
    width: int  # the number of inputs


CLOSED = Kind(closed_inputs, 5)
OPEN = Kind(open_inputs, 12)


# --- L_phi, and the lives that it teaches ---
# Once their first argument is given, `taught`, `plain`, `born_as` and `told_wrong` are what life.py
# calls parts_of.
def network(o, kind):
    return Network(kind.width, 1, (o.loss_units,))


def first_phi(o, kind, seed):
    return network(o, kind).init(noise_at(seed, OWN, life.START))


def learned_loss(o, kind, phi, theta, D):
    """(n,): L_phi of n lives, each with a phi of its own (n, Q)."""
    x = kind.inputs(o, theta, D)  # to a number for each step, (n, K, H, 1)
    return ad.mean(network(o, kind).apply(phi, x), (1, 2, 3))


def taught(kind, o, phi, theta):
    """Parts of lives that are born as theta (n, P) and taught by phi (n, Q)."""
    return Parts(theta, np.full(o.steps, o.alpha), partial(learned_loss, o, kind, phi))


def learn_loss(o, kind, seed):
    """phi (Q,), learned on goals ahead."""
    return life.evolve(o, first_phi(o, kind, seed), partial(taught, kind), seed)


# --- What it is compared with ---
NOTHING = np.zeros(0)  # the x of lives that have nothing learned


def plain(alpha, o, nothing, theta):
    """Parts of lives by policy gradient from random births theta (n, P)."""
    return by_hand(o, theta, alpha)


def born_as(alpha, o, birth, theta):
    """Parts of lives by policy gradient from learned births (n, P)."""
    return by_hand(o, birth, alpha)


def maml(o, seed):
    """A birth (P,), learned by MAML on goals ahead for one step of policy gradient."""
    c = Setting(
        algo="maml",
        env=AHEAD,
        policy=life.policy(o),
        alpha=o.maml_alpha,
        tasks=o.maml_tasks,
        episodes=o.episodes,
        seed=seed,
    )
    states = metarl.train(c, metarl.initial_state(c))
    for _ in range(o.maml_iterations):
        state = next(states)
    return state["theta"]


def told_wrong(parts_of, o, x, theta):
    """The same parts, but each life is told the rewards of another, which has a goal of its own."""
    parts = parts_of(o, x, theta)

    def loss(theta, D):
        return parts.loss(theta, D._replace(rewards=np.roll(D.rewards, 1, 0)))

    return parts._replace(loss=loss)


def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs."""
    birth = maml(o, seed)
    alpha = best_alpha(o, seed, plain, NOTHING)
    alpha_of_maml = best_alpha(o, seed, born_as, birth)
    ways = {
        "closed loss": (partial(taught, CLOSED), learn_loss(o, CLOSED, seed)),
        "open loss": (partial(taught, OPEN), learn_loss(o, OPEN, seed)),
        "policy gradient": (partial(plain, alpha), NOTHING),
        "MAML's birth": (partial(born_as, alpha_of_maml), birth),
    }
    rows = {}
    curves = {}
    for name, (parts_of, x) in ways.items():
        longer = replace(o, steps=o.longer)
        ahead = learning_curve(longer, seed, AHEAD, parts_of, x)
        behind = learning_curve(longer, seed, BEHIND, parts_of, x)
        rows[name] = columns(o, "ahead", ahead) | columns(o, "behind", behind)
        curves[name] = (ahead, behind)

    return rows | controls(o, seed, ways), curves


def controls(o, seed, ways):
    """Rows of the return ahead, after o.steps: lives told others' rewards, losses that nobody has
    trained, and policies larger than those that a loss was trained on.
    """
    larger = replace(o, hidden=o.larger)
    alpha_of_larger = best_alpha(larger, seed, plain, NOTHING)
    lives = {}
    for name, (parts_of, x) in ways.items():
        lives[f"{name}, others' rewards"] = (o, partial(told_wrong, parts_of), x)
    for name, kind in (("closed loss", CLOSED), ("open loss", OPEN)):
        parts_of, phi = ways[name]
        lives[f"{name}, untrained"] = (o, parts_of, first_phi(o, kind, seed))
        lives[f"{name}, larger policy"] = (larger, parts_of, phi)
    by_gradient = partial(plain, alpha_of_larger)
    lives["policy gradient, larger policy"] = (larger, by_gradient, NOTHING)
    rows = {}
    for name, (options, parts_of, x) in lives.items():
        rows[name] = {"ahead": learning_curve(options, seed, AHEAD, parts_of, x)[-1]}
    return rows


def columns(o, where, returns):
    """{column: number} of returns after 0, 1, ..., o.longer steps: three of them."""
    return {
        f"{where}, 1 step": returns[1],
        where: returns[o.steps],
        f"{where}, longer": returns[o.longer],
    }


# --- What is printed ---
def report(rows):
    ways = ("closed loss", "open loss", "policy gradient", "MAML's birth")
    controls = [name for name in rows if name not in ways]
    return f"""
Return on goals ahead after 1 step of learning, after 8, and after 32.
Standing still has -15.0, who knows the goal -2.2
{table(rows, ways, ("ahead, 1 step", "ahead", "ahead, longer"))}
The same on goals behind, where nothing was trained
{table(rows, ways, ("behind, 1 step", "behind", "behind, longer"))}
Controls, after 8 steps
{table(rows, controls, ("ahead",))}"""


def claims(rows):
    closed = rows["closed loss"]
    others = rows["closed loss, others' rewards"]["ahead"]
    faster = difference(rows, "closed loss", "policy gradient")
    birth = rows["MAML's birth"]
    sides = np.abs(closed["ahead"] - closed["behind"])
    further = closed["ahead, longer"] - closed["ahead"]
    late = birth["ahead"] - birth["behind"]
    return [
        above("closed loss learns: ahead", -7.4, closed["ahead"]),
        above("and behind", -7.4, closed["behind"]),
        below("as well: ahead and behind apart", 0.5, sides),
        above("faster than policy gradient: closed - pg", 0.4, faster["ahead"]),
        below("rewards are what it looks at: told others'", -12, others),
        above("it goes on to teach: 32 steps - 8", 0, further),
        below("open loss says go ahead: behind", -15, rows["open loss"]["behind"]),
        above("a learned birth is late behind: ahead - behind", 3, late),
    ]


def draw(figure, curves):
    """Return after each step of learning, ahead and behind."""
    figure.set_size_inches(8, 3.2)
    life.draw_curves(figure.subplots(1, 2, sharey=True), curves)


CHAPTER = Chapter("epg", __doc__, Options(), QUICK, run, report, claims, draw)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
