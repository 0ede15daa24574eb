"""Offline meta-RL: to search for a goal, learned from data of agents that never had to search.

    python -m chapters.borel [--seeds 5] [--first-seed 0] [--quick] [--plot DIR] [--json]
                             [--reflective]

Dorfman, Shenfeld & Tamar, "Offline Meta Learning of Exploration", 2021, arXiv 2008.02598: BOReL.
In our words, with the numbers that the lines of the code carry:

    given episodes of agents, each trained in a task of its own, and the tasks' rewards
    l.1   relabel: before an episode of a task comes one of another task's agent, with the rewards
          that this task would have paid for it
    l.2   until done, the VAE: q_phi(z|tau_:t), the belief after t steps, and r^_psi(s', z)
    l.3       phi, psi: a step down, for some t, with z ~ q_phi(z|tau_:t),
                  sum over all steps i, also those after t, of (r^(s_i', z) - r_i)^2
                  + beta sum over t of KL(q_phi(z|tau_:t) || q_phi(z|tau_:t-1)), at first N(0, I)
    l.4   hyper-states x_t = (s_t, q_phi(z|tau_:t)) of all data
    l.5   Q(x, a) by offline RL
    at test, in a task that was never met, without any training
    l.6   for each step of two episodes:
    l.7       act by Q(x_t, .), and let the belief take in what was paid

"Data-set collection becomes even harder", says the slide. The agents of the data knew their goals,
so that where one goes says where its goal is, before anything is paid. A belief that is trained on
that takes the goal to be wherever its own agent goes, and a place that did not pay for one that
will. Which it is the data cannot tell: MDP ambiguity, in the paper's words. After l.1 paths say
nothing, and rewards alone do.

The claim: only after relabelling does a visit that was not paid tell that the goal is elsewhere;
and so the agent searches, which none in the data did.

Read from the top: the data, l.1; Q, l.4 and 5; the test, l.6 and 7; `run`, which has it all; what
is printed. arena.py has the world and the agents of the data, belief.py the VAE, l.2 and 3. Rows:

    relabelled         all that is above
    another's belief   the same, but each acts on what another one has seen, in another task
    not relabelled     without l.1: the episode that comes before is the task's own agent's, too
    reflective         with --reflective: before the last episode come two that are relabelled, so
                       that there are two failures and a success; and three episodes at test.
                       Inspired by Rafailov et al. 2021, "The Reflective Explorer", who construct
                       exploration out of offline data. How they do we could not verify.
    goal known         what there is to gain

Said plainly: what holds in every seed is the mechanism. How much it is worth in return depends on
the seed of Q as well: relabelled - not is between 3 and 23 on seeds 0 to 4, and on one of them an
agent that was not relabelled finds every goal by the second episode, only later. To have found a
goal says little, since an agent on another one's belief still wanders past seven of ten. And all
get half at most of what there is to gain. Of `reflective` we claim nothing.

Smaller than in the paper: a point in a half-disc and nine moves, so that Q-learning takes the place
of SAC; the smaller of two values, and targets within the bounds of a discounted sum, as the greedy
move would leave the data; inputs of Q standardised. A mean over steps for the GRU, an option of the
published code. All first episodes are replaced, where the published code draws them at random.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

import autodiff as ad
from chapters import common
from chapters.arena import FLOOR, MOVES, RADIUS, Arena, collect, detours, walks
from chapters.belief import VAE, train_vae
from chapters.common import EACH, OWN, Chapter, above, below, cell, difference, table
from chapters.models import Moments, adam_step
from chapters.offline import Data
from envs import distance
from metarl import noise_at
from policies import Network


@dataclass(frozen=True)
class Options:
    tasks: int = 40  # in the data
    episodes: int = 40  # of each
    blunders: tuple = (0.1, 0.75)  # the share of moves at random, from episode to episode
    latent: int = 5  # numbers in z
    width: int = 64  # of hidden layers
    beta: float = 0.05  # the weight of KL
    vae_steps: int = 3000
    vae_batch: int = 32  # meta-episodes
    prefixes: int = 3  # t's in a step of the VAE
    draws: int = 64  # of z, for what the decoder expects
    q_steps: int = 20_000
    q_batch: int = 256  # transitions
    gamma: float = 0.9
    tau: float = 0.01  # how far the target network follows in a step
    step_size: float = 0.001  # of Adam
    test_tasks: int = 100
    reflective: bool = False


QUICK = Options(vae_steps=100, q_steps=400)
WORLD = Arena()

# Noise of its own: (seed, OWN, 0) tasks and data; (1, n) whose episodes go first, of n; 2 the VAE;
# 3 Q; 4 tasks and visits of the test; 5 draws of z after a visit; (0, OWN, 6) those of the picture.


# --- l.1: the data ---
def relabelled(data, goals, donors, rng):
    """Data (T, K, H) of episodes of the tasks donors (T, K), with the rewards of `goals` (T, 2)."""
    episode = rng.integers(data.rewards.shape[1], size=donors.shape)
    taken = Data(*[part[donors, episode] for part in data])
    return taken._replace(rewards=WORLD.rewards(taken.next_obs, goals[:, None, None]))


def meta_episodes(data, goals, relabel, n, rng):
    """Data (T, K, n H): before each episode of a task n - 1 others.

    relabel: these are of other tasks. If not they are the task's own, whose rewards stay as they
    were paid.
    """
    T, K, _ = data.rewards.shape
    parts = []
    for _ in range(n - 1):
        shift = rng.integers(1, T, (T, K))  # from 1 on: no task is its own donor
        if not relabel:
            shift = np.zeros_like(shift)
        donors = (np.arange(T)[:, None] + shift) % T
        parts.append(relabelled(data, goals, donors, rng))  # l.1
    parts.append(data)
    return Data(*[np.concatenate(steps, 2) for steps in zip(*parts, strict=True)])


# --- l.4 and 5: Q ---
class Transitions(NamedTuple):
    """Of hyper-states, (N, ...)."""

    x: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_x: np.ndarray


def hyper_states(vae, w, D):
    """The Transitions of the meta-episodes D (N, n).

    An episode's end is followed by the next one's start; at the last end the agent stays.
    """
    q = vae.beliefs(w, D.next_obs, D.rewards)
    then = np.concatenate([D.obs[:, 1:], D.next_obs[:, -1:]], 1)
    x = np.concatenate([D.obs, q[:, :-1]], -1)
    next_x = np.concatenate([then, q[:, 1:]], -1)
    parts = (x, D.actions, D.rewards, next_x)
    return Transitions(*[part.reshape(-1, *part.shape[2:]) for part in parts])


def q_network(o):
    """From a hyper-state to the value of each move."""
    return Network(2 + 2 * o.latent, len(MOVES), (o.width, o.width), "relu")


def both(o, theta, x):
    """Q (2, B, moves) of two networks theta (2, P) at x (B, ...)."""
    return q_network(o).apply(theta, np.broadcast_to(x, (2, *x.shape)))


def best_move(o, theta, x):
    """The greedy action (B,), by the smaller value."""
    return both(o, theta, x).min(0).argmax(-1)


def td_error(o, theta, target, batch):
    """(2,): the mean squared error of two networks, which learn from the smaller of their values.

    No data say what a move is worth that no agent has made, and where a value errs upwards, the
    greedy move finds it. The smaller of two values, and the bounds of what a discounted sum of
    rewards can be, keep such errors from feeding on themselves.
    """
    greedy = best_move(o, ad.value(theta), batch.next_x)
    Q_next = both(o, target, batch.next_x).min(0)
    value = np.take_along_axis(Q_next, greedy[:, None], -1)[:, 0]
    y = (batch.rewards + o.gamma * value).clip(0, 1 / (1 - o.gamma))
    a = np.broadcast_to(batch.actions[:, None], (2, len(y), 1))
    Q = ad.take_along_axis(both(o, theta, batch.x), a, -1)[..., 0]
    error = Q - y.astype(Q.dtype)
    return ad.mean(error * error, 1)


def train_q(o, transitions, seed):
    """theta (2, P), from transitions alone: the target, which is a mean over the latest steps."""
    rng = noise_at(seed, OWN, 3)
    theta = np.stack([q_network(o).init(rng) for _ in range(2)]).astype(np.float32)
    target = theta
    moments = Moments()
    for _ in range(o.q_steps):
        i = rng.integers(len(transitions.x), size=o.q_batch)
        batch = Transitions(*[part[i] for part in transitions])
        loss = partial(td_error, o, target=target, batch=batch)
        theta, moments = adam_step(loss, theta, o.step_size, moments)  # l.5
        target = target + o.tau * (theta - target)
    return target


def of_float32(D):
    """The Data D in float32, in which the networks are; moves stay whole numbers."""
    return Data(*[part.astype(np.float32) for part in D])._replace(actions=D.actions)


class Agent(NamedTuple):
    """What was learned: the VAE with its w, and theta of Q, whose inputs are standardised."""

    vae: VAE
    w: np.ndarray
    theta: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def learn(o, D, seed):
    """The Agent of meta-episodes D (T, K, n): arrays alone, no world."""
    T, K, *_ = D.rewards.shape
    D = of_float32(Data(*[part.reshape(T * K, *part.shape[2:]) for part in D]))
    vae = VAE(o.latent, o.width)
    w = train_vae(o, vae, D, seed)
    transitions = hyper_states(vae, w, D)  # l.4
    mean = transitions.x.mean(0)
    std = transitions.x.std(0)
    x = (transitions.x - mean) / std
    next_x = (transitions.next_x - mean) / std
    theta = train_q(o, transitions._replace(x=x, next_x=next_x), seed)
    return Agent(vae, w, theta, mean, std)


# --- l.6 and 7: the test ---
def search(o, agent, world, goals, n, believer):
    """n episodes on each of the goals (T, 2), from the origin: Data (T, 1, n H), and the beliefs
    before their steps, (T, n H, 2 latent).

    believer (T,): whose belief each of the agents acts on.
    """
    vae, w, theta, mean, std = agent
    h = np.zeros((len(goals), o.width), np.float32)
    steps = []
    beliefs = []
    for _ in range(n):
        state = world.reset(goals, (len(goals),), None)
        for _ in range(world.horizon):  # l.6
            q = vae.belief(w, h)
            x = (np.concatenate([state, q[believer]], -1) - mean) / std
            action = best_move(o, theta, x.astype(np.float32))
            new, reward, _ = world.step(state, action, goals, None)
            h = h + vae.seen(w, new.astype(np.float32), reward.astype(np.float32))  # l.7
            steps.append((state, action, reward, new))
            beliefs.append(q)
            state = new
    D = Data(*[np.stack(part, 1)[:, None] for part in zip(*steps, strict=True)])
    return D, np.stack(beliefs, 1)


def as_row(D, n):
    """{column: number}, of n episodes: mean returns, and the share of goals found by then."""
    rewards = D.rewards.reshape(len(D.rewards), n, -1)
    returns = rewards.sum(2).mean(0)
    found = ((rewards > 0).any(2).cumsum(1) > 0).mean(0)
    row = {f"return {e + 1}": returns[e] for e in range(n)}
    return row | {f"found by {e + 1}": found[e] for e in range(n)}


def expected_after(o, agent, visit, goals, rng):
    """The reward that the decoder expects at goals (T, 2) in an episode, visit (T, 1, H), from its
    first arrival there on, in the mean over these steps and T.
    """
    seen = of_float32(Data(*[part[:, 0] for part in visit]))
    goals = goals.astype(np.float32)[:, None]
    arrived = distance(seen.next_obs - goals) < 0.2
    since = np.maximum.accumulate(arrived, 1)
    q = agent.vae.beliefs(agent.w, seen.next_obs, seen.rewards)[:, 1:]
    eps = rng.standard_normal((o.draws, o.latent), np.float32)
    return agent.vae.expected_reward(agent.w, goals, q, eps)[since].mean()


def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs."""
    rng = noise_at(seed, OWN, 0)
    goals = WORLD.sample_tasks(o.tasks, rng)
    data = collect(o, WORLD, goals, rng)
    rng = noise_at(seed, OWN, 4)
    held_out = WORLD.sample_tasks(o.test_tasks, rng, "test")
    detour, others = detours(WORLD, held_out, rng)
    known = walks(WORLD, held_out, 2, rng)
    itself = np.arange(o.test_tasks)
    another = np.roll(itself, 1)

    learned_from = {"relabelled": (True, 2), "not relabelled": (False, 2)}
    if o.reflective:
        learned_from["reflective"] = (True, 3)
    rows = {}
    picture = {"o": o, "goals": held_out}
    for name, (relabel, n) in learned_from.items():
        D = meta_episodes(data, goals, relabel, n, noise_at(seed, OWN, 1, n))
        agent = learn(o, D, seed)
        searched, beliefs = search(o, agent, WORLD, held_out, n, itself)
        picture[name] = (agent, searched, beliefs)
        rng = noise_at(seed, OWN, 5)
        rows[name] = as_row(searched, n)
        rows[name]["elsewhere"] = expected_after(o, agent, detour, others, rng)
        rows[name]["own goal"] = expected_after(o, agent, known, held_out, rng)
        if name == "relabelled":
            confused, _ = search(o, agent, WORLD, held_out, n, another)
            rows["another's belief"] = as_row(confused, n)
    rows["goal known"] = as_row(known, 2)
    return rows, picture


# --- What is printed ---
def gain(rows):
    """What relabelling adds to the returns of both episodes."""
    more = difference(rows, "relabelled", "not relabelled")
    return more["return 1"] + more["return 2"]


def report(rows):
    searched = [name for name in rows if name != "reflective"]
    columns = ("return 1", "return 2", "found by 1", "found by 2")
    decoded = [name for name in rows if "elsewhere" in rows[name]]
    text = f"""
Two episodes on held-out goals: returns, and the share of goals found by the end of each
{table(rows, searched, columns)}
Reward that is expected at the goal of another task since a visit that was not paid,
and at the own goal since one that was
{table(rows, decoded, ("elsewhere", "own goal"))}
Both returns, relabelled - not relabelled: {cell(gain(rows))}
"""
    if "reflective" in rows:
        returns = table(rows, ["reflective"], ("return 1", "return 2", "return 3"))
        found = table(rows, ["reflective"], ("found by 1", "found by 2", "found by 3"))
        text += f"\nThree episodes\n{returns}{found}"
    return text


def claims(rows):
    ours = rows["relabelled"]
    visited = ours["elsewhere"] / rows["not relabelled"]["elsewhere"]
    found = ours["found by 2"]
    # As a difference, since of short runs both returns can be 0.
    steered = ours["return 2"] - 2 * rows["another's belief"]["return 2"]
    return [
        below("a visit tells: expected there, relabelled / not", 0.5, visited, EACH),
        above("it searches: found by episode 2", 0.5, found, EACH),
        above("by its belief: return 2 - twice that on another's", 0, steered, EACH),
        above("and gains: both returns, relabelled - not", 0, gain(rows)),
    ]


def latest(D):
    """The task whose goal is found last, of those that are found."""
    paid = D.rewards[:, 0] > 0
    return paid.argmax(1).argmax()


def draw(figure, picture):
    """Where rewards are expected as a search goes on, and the path of the episode until then."""
    o = picture["o"]
    H = WORLD.horizon
    times = (0, H // 2, H, 3 * H // 2)
    figure.set_size_inches(8, 3)
    panels = figure.subplots(2, 4, sharex=True, sharey=True)
    extent = (-RADIUS, RADIUS, FLOOR, RADIUS)
    x = np.linspace(-RADIUS, RADIUS, 89)
    y = np.linspace(FLOOR, RADIUS, 49)
    plane = np.stack(np.meshgrid(x, y), -1).astype(np.float32)
    outside = distance(plane) > RADIUS
    eps = noise_at(0, OWN, 6).standard_normal((o.draws, o.latent), np.float32)
    i = latest(picture["relabelled"][1])
    for row, name in zip(panels, ("relabelled", "not relabelled"), strict=True):
        agent, D, beliefs = picture[name]
        row[0].set_ylabel(name)
        for panel, t in zip(row, times, strict=True):
            expected = agent.vae.expected_reward(agent.w, plane, beliefs[i, t], eps)
            expected[outside] = 0
            image = panel.imshow(expected, "Greys", vmin=0, vmax=1, origin="lower", extent=extent)
            begin = t // H * H  # of the episode
            panel.plot(*D.obs[i, 0, begin : t + 1].T, linewidth=0.9)
            panel.plot(*picture["goals"][i], "o", fillstyle="none")
    for panel, t in zip(panels[0], times, strict=True):
        panel.set_title(f"episode {1 + t // H}, step {t % H}")
    figure.colorbar(image, ax=panels, label="reward that is expected", shrink=0.8)


FLAGS = {"reflective": "three episodes too, out of relabelled ones and a success"}
CHAPTER = Chapter("borel", __doc__, Options(), QUICK, run, report, claims, draw, FLAGS)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
