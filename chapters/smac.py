"""Offline meta-RL, then exploration that nobody rewards: the agent labels it itself.

    python -m chapters.smac [--seeds 5] [--first-seed 0] [--quick] [--plot DIR] [--json]
                            [--ablations]

Pong, Nair, Smith, Huang & Levine, "Offline Meta-Reinforcement Learning with Online
Self-Supervision", 2022, arXiv 2107.03974 (SMAC). In our words, with the numbers that the lines of
the code carry:

    given data sets D_i of training tasks i with rewards, recorded by somebody else
    phase 1, offline
    l.1   while not done:
    l.2     for some i a history h and transitions h', both out of D_i
    l.3     z ~ q_phi(z|h)
    l.4     phi: a step down the mean of (r_phi(s, a, z) - r)^2 over h', plus the
                 KL divergence of q_phi(z|h) from N(0, I)
    l.5     w: a step down the mean of (Q_w(s, a, z) - r - gamma Q_w'(s', a', z))^2, where
                 a' ~ pi_theta(a|s', z) and w' follows w slowly
    l.6     theta: a step up the mean of exp(A / lambda) log pi_theta(a|s, z), where
                 A = Q_w(s, a, z) - Q_w(s, pi_theta(s, z), z)
    phase 2, in the world, which pays nothing
    l.7   while not done:
    l.8     episodes by pi_theta(a|s, z), z ~ N(0, I)
    l.9     get rewards r_phi(s, a, z'), where z' ~ q_phi(z|h) for an offline history h of the same
            task; and are added to D_i
    l.10    l.2, 3, 5 and 6, some times
    the test, on tasks never met
    l.11  a few episodes by pi_theta(a|s, z), z ~ N(0, I), with rewards: a history h
    l.12  an episode by pi_theta(a|s, z), z ~ q_phi(z|h)

In phase 1 every history is a demonstrator's. In the test it is the agent's own, such as q_phi has
never seen. What is lost by that is the gap. Phase 2 closes it: there histories are the agent's own
too. The rewards in them need not be true for that; they have to fit each other. To those of l.8 one
more episode is added, by z ~ q_phi of them and their labels.

The claim: there is a gap, and phase 2 closes most of it without a reward, nearly as if it were
paid.

The rows: `phase 1`, and for phase 2
    decoder     l.4 goes on; all histories h of l.10 are new episodes, with labels of phase 1's phi
    shuffled    the same with labels by the z' of a random task, drawn afresh at each labelling
    none        as many steps as there, on the offline data, and no new episode
and with --ablations
    frozen      as `decoder` but, as published, without l.4
    mixed       as `decoder` but, as published, with h out of all episodes in D_i, new or not
    true        as `decoder` but the world pays
The columns: whose the history in l.12 is. The agent's own of l.11; a demonstrator's in the task; a
demonstrator's in another task.

Read from the top: phase 1; exploration, labels and `phase_2`; the test; what is printed. l.2 to 6
are in smac_agent.py: read it after `phase_1`. direction.py has the world, offline.py the data.

Said plainly: the share that is closed is of the gap after phase 1. Phase 2 also helps after a
demonstrator's history, so that own ones stay worse than these, by 2 to 3. That all histories of
phase 2 are new is ours, and it counts: see `mixed` and `frozen`. `shuffled` is worse than no phase
2 at all, so it does not tell what new states and actions do without labels; a trial, with h out of
all of D_i and labels shuffled once a round, found that they keep up to half of the gain. The world
is kind: two actions tell the direction. Of goals at a distance a trial found that phase 2 does not
close the gap, even if paid: a distance from one place means a ring, and a product of Gaussians
cannot intersect rings. And demonstrators must be diverse, or their decoder is wrong where the agent
explores.

Smaller than in the paper: a point for an ant; 10 episodes of 20 steps for each task; small
networks, and a held deviation of actions. The weight of the KL divergence is .001, theirs .1, and
lambda 1, theirs 100. z is drawn for an episode; in their code at every step. From their code, not
from the paper: climbing Q_w in phase 2; that l.4 can go on, which is off there. Tests act by means.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from chapters import common
from chapters.common import EACH, OWN, Chapter, above, below, cell, table
from chapters.direction import Direction, Unpaid, demonstrations, origins, turned_to_the_right
from chapters.offline import Data, of_episodes, of_tasks, record
from chapters.smac_agent import decoded, first_agent, pi, q, update, z_of
from metarl import noise_at


@dataclass(frozen=True)
class Options:
    train_tasks: int = 100
    test_tasks: int = 100
    demonstrations: int = 10  # episodes of each training task
    skill: tuple = (0.5, 1.0)  # of the demonstrators, from the worst to the best
    data_noise: float = 0.5  # the deviation of their actions
    hidden: tuple = (64, 64)  # of all networks
    latent: int = 5  # numbers in z
    std: float = 0.2  # the deviation of the agent's actions
    context: int = 2  # episodes in a history
    tasks: int = 16  # in a step
    batch: int = 32  # transitions h' of each of them
    steps: int = 1000  # of phase 1
    rounds: int = 10  # of phase 2
    round_steps: int = 100
    step_size: float = 0.001  # Adam's
    kl_weight: float = 0.001
    gamma: float = 0.9
    tau: float = 0.01  # how far w' moves towards w in a step
    temperature: float = 1.0  # lambda
    trials: int = 4  # tests of each task, over which returns are averaged
    ablations: bool = False


QUICK = Options(steps=150, rounds=3, round_steps=20, trials=1)

# Noise of its own: (seed, OWN, 0) training tasks; 1 their demonstrators; 2 the networks at first;
# 3 the steps of phase 1; of round i (4, i) exploration and labels, (5, i) the steps; 6 held-out
# tasks, 7 their demonstrators, 8 exploration in them, 9 who gets whose history.


# --- l.1 to 6: phase 1 ---
def phase_1(o, data, seed):
    """The agent after phase 1, out of the Data of the training tasks alone."""
    agent = first_agent(o, seed)
    rng = noise_at(seed, OWN, 3)
    for _ in range(o.steps):  # l.1
        agent = update(o, agent, data, rng)
    return agent


# --- l.7 to 10: phase 2 ---
def act(o, world, agent, tasks, z, rng=None):
    """Data of an episode for each z (T, K, latent); without rng all actions are their means."""

    def action(obs, t):
        a = pi(o, agent.theta, obs, z)
        if rng is not None:
            a = a + o.std * rng.standard_normal(a.shape, np.float32)
        return a

    return record(world, tasks, origins(world, tasks, z.shape[1]), action, rng)


def prior_z(o, T, rng):
    """z ~ N(0, I) for the episodes of a history, (T, context, latent)."""
    return rng.standard_normal((T, o.context, o.latent), np.float32)


def explored(o, world, agent, tasks, label, rng):
    """l.8 and 9: new episodes of each task, with labels.

    After those with z ~ N(0, I) one more with z ~ q_phi(z|h), where h are these: their labels stand
    for rewards, so that nothing reads the world's.
    """
    first = act(o, world, agent, tasks, prior_z(o, len(tasks), rng), rng)  # l.8
    first = label(first)  # l.9
    mean, variance = q(o, agent.phi, first)
    z = z_of(mean, variance, rng.standard_normal(mean.shape, np.float32))
    then = act(o, world, agent, tasks, z, rng)
    return together(first, label(then))


def together(*parts):
    """Data of the same tasks with the episodes of all parts."""
    return Data(*[np.concatenate(arrays, 1) for arrays in zip(*parts, strict=True)])


def labeller(o, phi, data, rng, how):
    """label(d): the Data d with the rewards that phi expects, by offline histories of the tasks.

    The mean of q_phi(z|h) stands for a draw of z'. What rewards d has is not looked at.
    """
    T, K, _ = data.rewards.shape

    def label(d):
        h = of_episodes(data, rng.integers(K, size=(T, o.context)))
        z, _ = q(o, phi, h)
        if how == "shuffled":
            z = z[rng.permutation(T)]
        return d._replace(rewards=decoded(o, phi, d.obs, d.actions, z[:, None]))

    return label


def as_paid(d):
    """No label: d with the rewards that the world has paid."""
    return d


def phase_2(o, world, agent, tasks, data, seed, how):
    """The agents [after phase 1, after each round], of one of the rows in the header."""
    phi_1 = agent.phi  # gives all labels, whatever becomes of phi
    oldest = data.rewards.shape[1]  # histories are of episodes from here on: the new ones
    if how in ("none", "mixed"):
        oldest = 0
    agents = [agent]
    buffer = data
    for i in range(o.rounds):  # l.7
        rng = noise_at(seed, OWN, 4, i)
        label = as_paid if how == "true" else labeller(o, phi_1, data, rng, how)
        if how != "none":
            buffer = together(buffer, explored(o, world, agent, tasks, label, rng))
        rng = noise_at(seed, OWN, 5, i)
        for _ in range(o.round_steps):  # l.10
            agent = update(o, agent, buffer, rng, oldest, climb=True, frozen=how == "frozen")
        agents.append(agent)
    return agents


# --- l.11 and 12: the test ---
class HeldOut(NamedTuple):
    """Tasks never met, each of them as often as there are trials."""

    world: Direction
    tasks: np.ndarray  # (T, 2)
    offline: Data  # (T, context, ...), of demonstrators in these tasks
    seed: int


def held_out(o, world, seed):
    tasks = world.sample_tasks(o.test_tasks, noise_at(seed, OWN, 6), "test")
    tasks = np.tile(tasks, (o.trials, 1))
    offline = recorded(o, world, tasks, o.context, noise_at(seed, OWN, 7))
    return HeldOut(world, tasks, offline, seed)


def recorded(o, world, tasks, episodes, rng):
    return demonstrations(world, tasks, episodes, o.skill, o.data_noise, rng)


def own(o, agent, test):
    """l.11: two episodes of the agent's own in each task, with the same noise for all agents."""
    rng = noise_at(test.seed, OWN, 8)
    z = prior_z(o, len(test.tasks), rng)
    return act(o, test.world, agent, test.tasks, z, rng)


def adapted(o, agent, test, h):
    """l.12: an episode of each task, (T, 1, H, ...), by the means of q_phi(z|h) and of actions."""
    z, _ = q(o, agent.phi, h)
    return act(o, test.world, agent, test.tasks, z)


def mean_return(d):
    return d.rewards.sum(-1).mean()


def measured(o, agent, test):
    """The columns of an agent: by whose history it has adapted.

    Another task's is that of any task at random, which in one of a hundred is the same.
    """
    any_task = noise_at(test.seed, OWN, 9).permutation(len(test.tasks))
    histories = {
        "own": own(o, agent, test),
        "demonstrator's": test.offline,
        "another task's": of_tasks(test.offline, any_task),
    }
    return {whose: mean_return(adapted(o, agent, test, h)) for whose, h in histories.items()}


def r_squared(o, agent, test):
    """Of the rewards that the decoder expects on the agent's own exploration: how much of their
    variance it explains, where z comes from a demonstrator in the task.
    """
    d = own(o, agent, test)
    z, _ = q(o, agent.phi, test.offline)
    error = decoded(o, agent.phi, d.obs, d.actions, z[:, None]) - d.rewards
    return 1 - (error * error).mean() / d.rewards.var()


HEADLINE = ("decoder", "shuffled", "none")
ABLATIONS = ("frozen", "mixed", "true")


def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs."""
    world = Direction()
    tasks = world.sample_tasks(o.train_tasks, noise_at(seed, OWN, 0))
    data = recorded(o, world, tasks, o.demonstrations, noise_at(seed, OWN, 1))
    test = held_out(o, world, seed)
    agent = phase_1(o, data, seed)
    rows = {"phase 1": measured(o, agent, test)}
    names = HEADLINE + ABLATIONS if o.ablations else HEADLINE
    curves = {}
    for how in names:
        where = world if how == "true" else Unpaid()
        agents = phase_2(o, where, agent, tasks, data, seed, how)
        rows[how] = measured(o, agents[-1], test)
        curves[how] = [mean_return(adapted(o, a, test, own(o, a, test))) for a in agents]
        if how == "decoder":
            after = agents[-1]
    rows["labels"] = {"R^2": r_squared(o, agent, test)}
    rows["optimum"] = {"return": world.optimal_return(test.tasks).mean()}
    paths = {
        "phase 1,\na demonstrator's history": adapted(o, agent, test, test.offline),
        "phase 1,\nits own history": adapted(o, agent, test, own(o, agent, test)),
        "phase 2,\nits own history": adapted(o, after, test, own(o, after, test)),
    }
    return rows, {"curves": curves, "rows": rows, "paths": paths, "tasks": test.tasks}


# --- What is printed ---
def gap(rows):
    """What phase 1 loses where the history is not a demonstrator's but its own, per seed."""
    return rows["phase 1"]["demonstrator's"] - rows["phase 1"]["own"]


def closed(rows, how):
    """The share of the gap that a phase 2 has closed."""
    return (rows[how]["own"] - rows["phase 1"]["own"]) / gap(rows)


def report(rows):
    agents = [name for name in rows if "own" in rows[name]]
    shown = {}
    for name in agents:
        shown[name] = rows[name] | {"gap closed": closed(rows, name)}
    columns = ("own", "demonstrator's", "another task's", "gap closed")
    return f"""
Returns in tasks never met, after adaptation to two episodes; whose they were
{table(shown, agents, columns, heading="after")}
The gap: {cell(gap(rows))}; the most that is possible: {cell(rows["optimum"]["return"])}
The decoder of phase 1 on the agent's own exploration: R^2 {cell(rows["labels"]["R^2"])}
"""


def claims(rows):
    ours = rows["decoder"]["own"]
    another = rows["phase 1"]["another task's"]
    fit = rows["labels"]["R^2"]
    judged = [
        above("there is a gap", 2.5, gap(rows), EACH),
        below("the history counts: return after another task's", 3, another, EACH),
        above("labels fit unseen behaviour: R^2 of the decoder", 0.7, fit, EACH),
        above("share of the gap that is closed, decoder", 0.5, closed(rows, "decoder"), EACH),
        above("the same", 0.8, closed(rows, "decoder")),
        above("new data are needed: decoder - none", 1.5, ours - rows["none"]["own"], EACH),
        above("labels count: decoder - shuffled", 0.7, ours - rows["shuffled"]["own"], EACH),
    ]
    if "true" in rows:
        judged += [
            below("nearly as if paid: true - decoder", 1, rows["true"]["own"] - ours),
            above("share of the gap that is closed, frozen", 0.5, closed(rows, "frozen")),
        ]
    return judged


def draw(figure, picture):
    """Paths of held-out tasks before and after phase 2; the return by round."""
    figure.set_size_inches(10.4, 2.8)
    *panels, by_round = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.3))
    for panel, (title, d) in zip(panels, picture["paths"].items(), strict=True):
        paths = turned_to_the_right(d.next_obs[:60, 0], picture["tasks"][:60])
        panel.plot(*paths.T, color="tab:blue", linewidth=0.6, alpha=0.6)
        panel.plot(0, 0, "ko", markersize=3)
        panel.set(title=title, xlim=(-2, 3), ylim=(-2.5, 2.5), aspect="equal")
        panel.set(xlabel="along the task's direction")
    panels[0].set_ylabel("across it")
    before = picture["rows"]["phase 1"]["demonstrator's"]
    by_round.axhline(before, color="0.5", linestyle=":", label="demonstrator's,\nphase 1")
    for how, curve in picture["curves"].items():
        by_round.plot(curve, label=how, linewidth=1)
    by_round.set(title="return,\nits own history", xlabel="round of phase 2")
    by_round.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1, 1))


FLAGS = {"ablations": f"the rows {', '.join(ABLATIONS)} too"}
CHAPTER = Chapter("smac", __doc__, Options(), QUICK, run, report, claims, draw, FLAGS)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
