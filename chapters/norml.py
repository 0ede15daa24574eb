"""Meta-RL without rewards in the evaluation: an advantage that is learned stands in for them.

    python -m chapters.norml [--seeds 5] [--first-seed 0] [--quick] [--plot DIR] [--json]

Yang, Caluwaerts, Iscen, Tan & Finn, "NoRML: No-Reward Meta Learning", 2019, arXiv 1903.01063,
Algorithm 1. What changes from task to task are the dynamics, and these can be seen without a
reward: in s', where an action has led. So MAML's inner step, which needs the advantage of actions,
takes it from a network of (s, a, s') that the outer loop learns. In our words, with the numbers
that the lines of the code carry:

    l.1   x = (theta, offset, psi): the policy and A_psi at random, the offset 0
    l.2   while not done:
    l.3     tasks i
    l.4     D_i: episodes by theta, whose rewards nobody sees
    l.5     theta'_i = theta + offset + alpha grad_theta mean log pi_theta(a|s) A_psi(s, a, s')
    l.6     D'_i: episodes by theta'_i, with their rewards
    l.7     x: a step up the return of theta'_i, estimated on D'_i, through l.5
    evaluation: l.4 and l.5, once, in a task never trained on

The offset sets theta free. After the step the policy has to reach the goal; before it, it only has
to show how the world moves. With an offset the second need not lie close to the first.

The world is envs.TurnedPointMass: every move is turned by an angle, which is the task.

The claim: one step without rewards adapts to dynamics never met. It reads the episodes, as those of
another task make it worse; and it is the step that adapts, not the offset.

Read from the top: the inner step, l.4 and 5; `norml`, l.2 to 7, an iteration of the form of
metarl.maml; the test; `run`, with all that is compared; what is printed.

Said plainly: with rewards and 40 episodes MAML is ahead in the mean over tasks, not in the worst of
them. On one episode NoRML is far ahead: there every step still has a next state, but rewards have
nothing to be compared with. Before the step theta all but stands still, and what shows how the
world moves is the noise of its actions: the offset is not what makes exploring possible, and is
worth little. The settings decide: with half the deviation of actions and outer steps half as long
again, some seeds come to -1.6, and others lose a range of angles (a worst task of -18 or -25).

Smaller than in the paper: moves of at most 0.1 in episodes of 20 steps, and this world alone; 300
iterations; the policy gradient in l.7 for PPO; alpha is given, not learned; A is told s' - s for
s'. Rewards are dense. The published lead over MAML, which a trial saw with sparse rewards, is not
reproduced here.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from chapters import common
from chapters.common import EACH, OWN, Chapter, above, below, cell, table
from envs import TurnedPointMass
from harness.settings import Setting
from metarl import INIT, INNER, MEASURE, TASKS, TEST, TRAIN, in_chunks, noise_at, sampler
from policies import Network, Policy, rollout, surrogate


@dataclass(frozen=True)
class Options:
    hidden: tuple = (50, 50)  # units in each layer of the policy and of A
    std: float = 0.5  # deviation of actions at first
    iterations: int = 300
    tasks: int = 20  # in an iteration
    episodes: int = 20  # of each of them, before the step and after it
    alpha: float = 1.0  # inner step size
    beta: float = 0.002  # Adam's step size at first; it falls to 0
    max_norm: float = 0.3  # to which a longer outer gradient is cut
    # The same of MAML and joint: what harness/settings.py has for MAML in this world.
    maml_std: float = 0.25
    maml_alpha: float = 0.2
    maml_beta: float = 0.003
    maml_max_norm: float = 10.0
    test_tasks: int = 40  # held out
    adapt_episodes: int = 40  # of each of them, for the step; one alone is tried too
    test_episodes: int = 40  # that measure a return
    alphas: tuple = (0.004, 0.008, 0.015, 0.03, 0.06, 0.125)  # of which joint has the best


QUICK = Options(iterations=20, tasks=10, test_tasks=10, alphas=(0.03, 0.125))

# Noise is that of metarl.py, at its addresses; of its own: (seed, OWN, 0) psi at first.


def setting(o, seed, algo="maml"):
    """The Setting of a run, c: c.family is the world, c.pi the policy."""
    family = TurnedPointMass()
    return Setting(
        algo=algo,
        env=family,
        policy=Policy(family.obs_dim, family.action_dim, hidden=o.hidden, std=o.std),
        baseline="linear",
        alpha=o.alpha,
        beta=o.beta,
        max_norm=o.max_norm,
        iterations=o.iterations,
        tasks=o.tasks,
        episodes=o.episodes,
        test_tasks=o.test_tasks,
        test_episodes=o.test_episodes,
        seed=seed,
        dtype="float32",  # faster by a third
    )


# --- l.1: what is learned ---
def advantage_network(c):
    """The network of A_psi: from (s, a, 10 (s' - s)) to a number."""
    return Network(6, 1, c.pi.hidden)


def first_theta(c):
    return c.pi.init(noise_at(c.seed, INIT)).astype(c.dtype)


def first_x(c):
    """x (2P + Q,)."""
    theta = first_theta(c)
    psi = advantage_network(c).init(noise_at(c.seed, OWN, 0)).astype(c.dtype)
    return np.concatenate([theta, np.zeros_like(theta), psi])


def parts(c, x):
    """theta (..., P), offset (..., P) and psi (..., Q), out of x."""
    P = c.pi.size
    return x[..., :P], x[..., P : 2 * P], x[..., 2 * P :]


# --- l.4 and 5: the inner step ---
def blind(D):
    """D without its rewards: whatever is made out of them is NaN.

    So a step that read them would make theta' NaN, and the run would stop for it.
    """
    return D._replace(rewards=np.full_like(D.rewards, np.nan))


def inner_loss(c, theta, psi, D):
    """(T,): minus the mean of log pi_theta(a|s) A_psi(s, a, s') over the steps of D.

    A is told 10 (s' - s). A move is at most 0.1 and positions are up to 2: in s' itself it would
    have to find a small difference. The last step is left out, as D does not hold its s'.
    """
    s = D.obs[:, :, :-1]
    a = D.actions[:, :, :-1]
    move = 10 * (D.obs[:, :, 1:] - s)
    A = advantage_network(c).apply(psi, np.concatenate([s, a, move], -1))[..., 0]
    log_pi = c.pi.log_prob(theta, s, a)
    return -ad.mean(log_pi * A, (1, 2))


def adapted(c, x, D, create_graph=False):
    """theta' (T, P), a Tensor, from x (T, 2P + Q), a Tensor, and episodes D by its theta.

    create_graph: record the gradient, so that theta' can be differentiated through it.
    """
    theta, offset, psi = parts(c, x)
    loss = ad.sum(inner_loss(c, theta, psi, D))  # each row has a gradient of its own
    g = grad(loss, theta, create_graph=create_graph)
    return theta + offset - c.alpha * g  # l.5


# --- l.2 to 7: the outer loop ---
def meta_loss(c, x, sample):
    """(T,): the loss of each task after the step, as a function of x (T, 2P + Q) before it.

    sample(k, theta) gives the episodes before the step (k = 0) and after it (k = 1).
    """
    theta, _, _ = parts(c, x)
    D = blind(sample(0, theta.data))  # l.4
    theta_prime = adapted(c, x, D, create_graph=True)  # l.5
    D_prime = sample(1, theta_prime.data)  # l.6
    return surrogate(c, theta_prime, D_prime)


def meta_gradient(c, x, tasks, address):
    """[(T, 2P + Q)]: for each task the gradient of `meta_loss` by x (2P + Q,).

    In a list, as in_chunks wants what it puts together.
    """
    x = Tensor(np.tile(x, (len(tasks), 1)))
    loss = meta_loss(c, x, sampler(c, tasks, address))
    return [grad(ad.sum(loss), x).data]


def norml(c, state, address, in_chunks, with_offset=True):
    """One iteration of NoRML. x is state["theta"], as metarl.py has it."""
    tasks = metarl.sample_tasks(c, c.tasks, noise_at(*address, TASKS))  # l.3
    [g] = in_chunks(meta_gradient, c, state["theta"], tasks, (*address, INNER))  # l.4 to 6
    g = g.mean(0)
    if not with_offset:
        P = c.pi.size
        g[P : 2 * P] = 0  # it stays what it was, 0
    return metarl.descend(c, state, g)  # l.7


def meta_train(c, iteration, x):
    """x after c.iterations of `norml` or metarl.maml, in shorter and shorter outer steps."""
    state = {"theta": x, "m": np.zeros_like(x), "v": np.zeros_like(x), "env_steps": 0.0}
    for t in range(c.iterations):  # l.2
        now = replace(c, beta=c.beta * (1 - t / c.iterations))
        state = iteration(now, state | {"t": t}, (c.seed, TRAIN, t), in_chunks)
    return state["theta"]


# --- The test ---
def held_out(c):
    """Angles (n, 1) never trained on."""
    return metarl.sample_tasks(c, c.test_tasks, noise_at(c.seed, TEST, TASKS), "test")


def episodes_before(c, theta, K):
    """D to take a step from: K episodes by theta (P,) in each held-out task."""
    return rollout(c.family, c.pi, theta, held_out(c), K, noise_at(c.seed, TEST, INNER))


def episodes_after(c, theta):
    """Fresh episodes by theta (n, P) or (P,) in each held-out task, for the return."""
    n = c.test_episodes
    return rollout(c.family, c.pi, theta, held_out(c), n, noise_at(c.seed, TEST, MEASURE))


def of_another(D):
    """D with the episodes of the task before in place of each one's own; nobody reads rewards."""
    return D._replace(obs=np.roll(D.obs, 1, 0), actions=np.roll(D.actions, 1, 0))


def stepped(c, x, D):
    """theta' (n, P) by NoRML's step from x (2P + Q,)."""
    x = Tensor(np.tile(x, (len(D.obs), 1)))
    return adapted(c, x, blind(D)).data


def rewarded(c, theta, D):
    """theta' (n, P) by MAML's step from theta (P,): policy gradient, with the rewards of D."""
    theta = Tensor(np.tile(theta, (len(D.obs), 1)))
    path, _ = metarl.adapt(c, theta, lambda k, theta: D, steps=1)
    return path[-1].data


def best_step(o, c, theta, D):
    """The same with the alpha of o.alphas that is best on the held-out tasks: in its favour."""
    steps = [rewarded(replace(c, alpha=alpha), theta, D) for alpha in o.alphas]
    return max(steps, key=lambda theta_prime: episodes_after(c, theta_prime).returns.mean())


def with_norml(o, c):
    """{row: (theta before, theta' after)}: NoRML, and what becomes of it with a part missing."""
    x = meta_train(c, norml, first_x(c))
    theta, offset, _ = parts(c, x)
    D = episodes_before(c, theta, o.adapt_episodes)
    # trained without an offset, from the same x
    bare = meta_train(c, partial(norml, with_offset=False), first_x(c))
    bare_theta, _, _ = parts(c, bare)
    bare_D = episodes_before(c, bare_theta, o.adapt_episodes)
    return {
        "NoRML": (theta, stepped(c, x, D)),
        "one episode": (theta, stepped(c, x, episodes_before(c, theta, 1))),
        "another's episodes": (theta, stepped(c, x, of_another(D))),
        "offset alone": (theta, theta + offset),
        "without offset": (bare_theta, stepped(c, bare, bare_D)),
    }


def with_rewards(o, seed):
    """The same of MAML and of joint, whose steps see rewards.

    The baseline is fitted to the episodes it is taken off: of a single one it leaves little, so
    there MAML goes without.
    """
    o = replace(o, std=o.maml_std, alpha=o.maml_alpha, beta=o.maml_beta, max_norm=o.maml_max_norm)
    c = setting(o, seed)
    theta = meta_train(c, metarl.maml, first_theta(c))
    D = episodes_before(c, theta, o.adapt_episodes)
    one = episodes_before(c, theta, 1)
    no_baseline = replace(c, baseline="none")
    # joint takes no episodes before a step, so that it may have twice as many tasks.
    j = setting(replace(o, tasks=2 * o.tasks), seed, algo="joint")
    policy = meta_train(j, metarl.maml, first_theta(j))
    return {
        "MAML": (theta, rewarded(c, theta, D)),
        "MAML, one episode": (theta, rewarded(no_baseline, theta, one)),
        "joint": (policy, best_step(o, j, policy, episodes_before(j, policy, o.adapt_episodes))),
    }


def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs."""
    c = setting(o, seed)
    compared = with_norml(o, c) | with_rewards(o, seed)
    rows = {}
    episodes = {}
    for name, (theta, theta_prime) in compared.items():
        episodes[name] = (episodes_after(c, theta), episodes_after(c, theta_prime))
        first, last = episodes[name]
        rows[name] = {
            "before": first.returns.mean(),
            "after": last.returns.mean(),
            "worst task": last.returns.min(),
        }
    rows["the angle known"] = {"after": c.family.optimal_return(held_out(c)).mean()}
    return rows, {"angles": held_out(c)[:, 0], "episodes": episodes}


# --- What is printed ---
def report(rows):
    names = [name for name in rows if name != "the angle known"]
    best = cell(rows["the angle known"]["after"])
    return f"""
Return on held-out angles, before and after a step; worst task: the least
after it. MAML and joint see rewards in the step, the others do not
{table(rows, names, ("before", "after", "worst task"))}
The best that knows the angle: {best}; standing still: -10.00
"""


def claims(rows):
    ours = rows["NoRML"]["after"]
    worst = rows["NoRML"]["worst task"]
    return [
        above("adapts without rewards: NoRML", -3.2, ours),
        above("adapts without rewards: NoRML", -4, ours, EACH),
        above("and to each of 40 angles: the worst task", -8, worst, EACH),
        above("from one episode", -6, rows["one episode"]["after"], EACH),
        below("it reads the episodes: with another's", -15, rows["another's episodes"]["after"]),
        below("it is the step that adapts: offset alone", -9, rows["offset alone"]["after"]),
        above("one policy for all cannot: NoRML - joint", 0, ours - rows["joint"]["after"], EACH),
    ]


def draw(figure, picture):
    """Paths of NoRML before the step and after it, and returns after it by angle."""
    figure.set_size_inches(8, 2.9)
    first, last, by_angle = figure.subplots(1, 3)
    episodes = picture["episodes"]
    titles = ("before the step", "after it")
    for panel, title, D in zip((first, last), titles, episodes["NoRML"], strict=True):
        for path in D.obs[:10, 0]:
            panel.plot(path[:, 0], path[:, 1], linewidth=0.8)
        panel.plot(0.5, 0, "k*", markersize=7)
        panel.set(title=title, xlim=(-1, 1), ylim=(-1, 1), xlabel="x", aspect="equal")
    first.set_ylabel("y")
    degrees = np.degrees(picture["angles"])
    for name in ("NoRML", "one episode", "another's episodes"):
        _, D = episodes[name]
        by_angle.plot(degrees, D.returns, ".", label=name)
    by_angle.set(title="return after it", xlabel="angle of the task, degrees", ylim=(-42, 14))
    by_angle.set(xticks=(-180, -90, 0, 90, 180))
    by_angle.legend(fontsize=7, loc="upper left")


CHAPTER = Chapter("norml", __doc__, Options(), QUICK, run, report, claims, draw)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
