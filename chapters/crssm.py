"""A world model that is told the context: it dreams of many worlds, and a policy learns in dreams.

    python -m chapters.crssm [--seeds 5] [--first-seed 0] [--quick] [--plot DIR] [--json]

Prasanna, Farid, Rajan & Biedenkapp, "Dreaming of Many Worlds: Learning Contextual World Models Aids
Zero-Shot Generalization", 2024, arXiv 2403.10967 (cRSSM). Worlds differ by a context c that can be
seen, say a mass or a length. One model of all of them learns from some; in a new one, whose c it is
told, it dreams what will happen, and its policy acts, without a step of learning. In our words,
with the numbers that the lines of the code carry:

    given contexts of training; a world model phi and a policy pi_theta
    l.1   while not done:
    l.2     act in the world, in each context, by pi_theta(a|h, z, c); in the first round at random
    l.3     phi: steps down the loss of the world model, on episodes of all rounds, with their c
    l.4     dream: start where an episode does, and act by pi_theta in the world of phi, told c
    l.5     theta: steps up the reward that is dreamed, with the gradient through the dream

The claim: this helps in contexts that training never met, even outside its range; and the model
keeps its state and the context apart: in the middle of an episode it can dream how it would go on
in another world. In cRSSM the context is in what moves the state (h) and in the decoders, but not
in what is inferred of the state (prior, posterior). Beside it: the context hidden; and the context
concatenated to the observations, as one more number to be seen.

Read from the top: the three kinds of agent; `learn`, l.1 to 5; `run`, with the test; what is
printed. rssm.py has the world model and its loss, turned.py the world, models.py Adam.

Said plainly: in return, inside the range, cRSSM and concatenation tie; the gap that the paper shows
is on pixels, and here are none. They part in counterfactual dreams, in part by construction: a
context that is concatenated enters with an observation, and a dream has none. Told the new one with
the last observation, it dreams better, still a few times worse than cRSSM. Where both are told a
false context from the first observation on, as in the dreams that the authors recorded, they are
nearly as wrong as each other. Outside the range all are far from who knows the world. With the
context hidden, an agent is no fool: it sees in its first steps which way it went.

Smaller than in the paper: a context of one number, positions for pixels, 13,500 steps of the world.
z is Gaussian, where theirs is categorical; a dream is a whole episode, so that there is no critic
and no discount, and the gradient goes through it; no symlog, no free bits, no normalised layers.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

import autodiff as ad
from chapters import common, rssm, turned
from chapters.common import EACH, OWN, Chapter, above, below, difference, table
from chapters.models import CEM, Moments, adam_step
from chapters.rssm import RSSM
from metarl import noise_at
from policies import Network

PLANNER = CEM(plans=64, rounds=10, elites=8, bound=1.0)  # of who knows the world


@dataclass(frozen=True)
class Options:
    contexts: int = 100  # of training, in [-1, 1]
    episodes: int = 3  # in each of them, in each round
    steps: int = 15  # T, in an episode
    rounds: int = 3
    first_model_steps: int = 1000  # in the first round
    model_steps: int = 500  # in each later one
    beta: float = 0.004  # Adam's step size for phi; in each round it falls to a tenth
    batch: int = 48  # episodes in a step
    policy_steps: int = 120  # in a round
    policy_beta: float = 0.01
    dreams: int = 100  # in a step
    dream_noise: float = 0.1  # deviation of what is added to actions, before the tanh, in dreams
    world_noise: float = 0.5  # and in the world, to see more of it
    hidden: tuple = (32,)  # of the policy
    test_contexts: int = 20  # inside the range of training; as many outside
    test_episodes: int = 10  # in each of them
    seen: int = 5  # observations before a counterfactual dream
    dreamed: int = 9  # steps of a dream that are compared to the world


QUICK = Options(
    contexts=10,
    rounds=2,
    first_model_steps=40,
    model_steps=20,
    policy_steps=10,
    test_episodes=2,
)

# Noise of its own: (seed, OWN, 0) contexts of training; 1 phi at first, 2 theta; of round i = 0, 1
# ... (3, i) the world and actions in it, (4, i) steps of phi, (5, i) steps of theta; 6 the worlds
# of the test, 7 actions at random and plans in them.


# --- Three kinds of agent ---
# What one is shown of positions o (B, n, 2) and contexts c (B, 1): observations (B, n, O), for its
# eyes, and contexts (B, C), for the cell that moves its state and for what it decodes.
def hidden(o, c):
    return o, c[:, :0]


def concatenated(o, c):
    c_at_all_times = np.broadcast_to(c[:, None], (*o.shape[:2], 1))
    return np.concatenate([o, c_at_all_times], -1), c[:, :0]


def apart(o, c):
    return o, c


KINDS = {
    "hidden": (hidden, RSSM(observation=2, context=0)),
    "concatenated": (concatenated, RSSM(observation=3, context=0)),
    "cRSSM": (apart, RSSM(observation=2, context=1)),
}


class Agent(NamedTuple):
    """A world model with its parameters phi, a policy with its parameters theta, and what both are
    shown of the world.
    """

    shown: object  # function
    model: RSSM
    phi: np.ndarray
    pi: Network
    theta: np.ndarray

    def follow(self, o, a, c):
        """Its State at the last of the observations o (B, n, O), with the actions a (B, n - 1, 2)
        between them, both as it is shown them; z is the mean of the posterior.
        """
        f = self.model.at(self.phi)
        no_noise = np.zeros((*o.shape[:2], self.model.z))
        states, _ = rssm.observe(f, self.model.before(len(o)), o, a, c, no_noise)
        return states.last()

    def acting(self, c, std, rng):
        """A way to act in the world, in contexts c (B, 1), with noise of so much deviation."""

        def act(o, a):
            observations, shown_c = self.shown(o, c)
            state = self.follow(observations, a, shown_c)
            eps = std * rng.standard_normal((len(c), 2))
            return action(self.pi.at(self.theta), state, shown_c, eps)

        return act


def action(pi, state, c, eps):
    """a (B, 2) ~ pi(a|h, z, c), between -1 and 1."""
    return ad.tanh(pi(state.with_context(c)) + eps)


def newborn(o, kind, seed):
    """An Agent of this kind that has learned nothing."""
    shown, model = KINDS[kind]
    pi = Network(model.h + model.z + model.context, 2, o.hidden)
    phi = model.init(noise_at(seed, OWN, 1))
    theta = pi.init(noise_at(seed, OWN, 2))
    return Agent(shown, model, phi, pi, theta)


# --- l.1 to 5 ---
class Episodes(NamedTuple):
    o: np.ndarray  # (N, T + 1, 2), positions
    a: np.ndarray  # (N, T, 2)
    r: np.ndarray  # (N, T)
    c: np.ndarray  # (N, 1)

    def drawn(self, n, rng):
        """n of them."""
        i = rng.integers(len(self.o), size=n)
        return Episodes(*[column[i] for column in self])


def learn(o, kind, seed):
    """An Agent that has learned in o.rounds rounds. Only l.2 takes steps of the world."""
    agent = newborn(o, kind, seed)
    of_training = noise_at(seed, OWN, 0).uniform(-1, 1, (o.contexts, 1))
    c = np.repeat(of_training, o.episodes, 0)
    rounds = []
    for i in range(o.rounds):  # l.1
        rng = noise_at(seed, OWN, 3, i)
        if i == 0:
            act = turned.wander(rng)
        else:
            act = agent.acting(c, o.world_noise, rng)
        positions, a = turned.play(act, c, o.steps, rng)  # l.2
        rounds.append(Episodes(positions, a, turned.reward(positions[:, 1:]), c))
        data = Episodes(*map(np.concatenate, zip(*rounds, strict=True)))
        steps = o.first_model_steps if i == 0 else o.model_steps
        phi = learned_phi(o, agent, data, steps, noise_at(seed, OWN, 4, i))
        agent = agent._replace(phi=phi)
        theta = learned_theta(o, agent, data, noise_at(seed, OWN, 5, i))
        agent = agent._replace(theta=theta)
    return agent


def learned_phi(o, agent, data, steps, rng):
    """phi after so many steps of Adam."""
    phi = agent.phi
    moments = Moments()
    for n in range(steps):
        batch = data.drawn(o.batch, rng)
        observations, c = agent.shown(batch.o, batch.c)
        eps = rng.standard_normal((*observations.shape[:2], agent.model.z))
        loss = partial(rssm.loss, agent.model, o=observations, a=batch.a, r=batch.r, c=c, eps=eps)
        beta = o.beta * (1 - 0.9 * n / steps)
        phi, moments = adam_step(loss, phi, beta, moments)  # l.3
    return phi


def learned_theta(o, agent, data, rng):
    """theta after o.policy_steps steps of Adam, up the return of dreams."""
    theta = agent.theta
    moments = Moments()
    for _ in range(o.policy_steps):
        batch = data.drawn(o.dreams, rng)
        observation, c = agent.shown(batch.o[:, :1], batch.c)
        start = agent.follow(observation, batch.a[:, :0], c)
        eps_z = rng.standard_normal((o.dreams, o.steps, agent.model.z))
        eps_a = o.dream_noise * rng.standard_normal((o.dreams, o.steps, 2))
        loss = partial(minus_return, agent, start=start, c=c, eps_z=eps_z, eps_a=eps_a)
        theta, moments = adam_step(loss, theta, o.policy_beta, moments)  # l.5
    return theta


def minus_return(agent, theta, start, c, eps_z, eps_a):
    """The mean of dreams from the States start (B, ...), whose actions depend on theta."""
    f = agent.model.at(agent.phi)
    pi = agent.pi.at(theta)

    def act(t, state):
        return action(pi, state, c, eps_a[:, t])

    states = rssm.dream(f, start, act, c, eps_z)  # l.4
    rewards = f["reward"](states.with_context(c))[..., 0]
    return -ad.mean(ad.sum(rewards, 1))


# --- The test ---
def worlds(o):
    """{place: contexts (B, 1)}."""
    return turned.inside_and_outside(o.test_contexts, o.test_episodes)


def returns(o, acting, seed):
    """{place: mean return} for a function from contexts (B, 1) to a way to act in them."""
    row = {}
    for place, c in worlds(o).items():
        positions, _ = turned.play(acting(c), c, o.steps, noise_at(seed, OWN, 6))
        row[place] = turned.reward(positions[:, 1:]).sum(1).mean()
    return row


class Told(NamedTuple):
    """Contexts (B, 1) that a model is told: c at first; newest_c with the last observation before
    it dreams; dream_c in the dream.
    """

    c: np.ndarray
    newest_c: np.ndarray
    dream_c: np.ndarray


def dreamed(o, agent, positions, a, told, seen):
    """Positions (B, o.dreamed, 2) in a dream, after so many observations were seen, of the actions
    that were taken in the world.
    """
    observations, c = agent.shown(positions[:, : seen - 1], told.c)
    newest, _ = agent.shown(positions[:, seen - 1 : seen], told.newest_c)
    _, dream_c = agent.shown(positions, told.dream_c)
    observations = np.concatenate([observations, newest], 1)
    start = agent.follow(observations, a[:, : seen - 1], c)
    to_come = a[:, seen - 1 :]
    f = agent.model.at(agent.phi)
    no_noise = np.zeros((len(a), o.dreamed, agent.model.z))
    states = rssm.dream(f, start, lambda t, state: to_come[:, t], dream_c, no_noise)
    return f["observation"](states.with_context(dream_c))[..., :2]


def error(o, agent, positions, a, told, seen):
    """Squared error of a dream, over the squared way gone: 1 is the error of standing still."""
    dream = dreamed(o, agent, positions, a, told, seen)
    way = positions[:, seen : seen + o.dreamed]
    gone = way - positions[:, seen - 1 : seen]
    return ((dream - way) ** 2).sum() / (gone**2).sum()


def dream_errors(o, agent, seed):
    """{column: error} of dreams beside the world, in which actions are at random."""

    def played(c):
        wander = turned.wander(noise_at(seed, OWN, 7))
        return turned.play(wander, c, o.steps, noise_at(seed, OWN, 6))

    c, outside = worlds(o).values()
    wrong = turned.another(c)
    inside = played(c)
    changed = played(turned.exchanged(c, wrong, o.seen, o.steps))
    return {
        "inside": error(o, agent, *inside, Told(c, c, c), 1),
        "outside": error(o, agent, *played(outside), Told(outside, outside, outside), 1),
        "wrong c": error(o, agent, *inside, Told(wrong, wrong, wrong), 1),
        "no change": error(o, agent, *inside, Told(c, c, c), o.seen),
        "told after": error(o, agent, *changed, Told(c, c, wrong), o.seen),
        "told with it": error(o, agent, *changed, Told(c, wrong, wrong), o.seen),
        "told before": error(o, agent, *changed, Told(wrong, wrong, wrong), o.seen),
    }


def tested(o, kind, agent, seed):
    """Rows of an agent: what it returns, also where it is told another context; and its dreams."""
    rng = noise_at(seed)  # of which nothing is used

    def acting(c):
        return agent.acting(c, 0.0, rng)

    def misled(c):
        return agent.acting(turned.another(c), 0.0, rng)

    return {
        kind: returns(o, acting, seed),
        f"{kind}, misled": returns(o, misled, seed),
        f"dreams, {kind}": dream_errors(o, agent, seed),
    }


def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs."""

    def known(c):
        return turned.knowing(PLANNER, c, o.steps, noise_at(seed, OWN, 7))

    def at_random(c):
        return turned.wander(noise_at(seed, OWN, 7))

    rows = {"world known": returns(o, known, seed), "at random": returns(o, at_random, seed)}
    agents = {kind: learn(o, kind, seed) for kind in KINDS}
    for kind, agent in agents.items():
        rows |= tested(o, kind, agent, seed)
    return rows, {"o": o, "agents": agents}


# --- What is printed ---
def report(rows):
    dreams = [name for name in rows if name.startswith("dreams")]
    others = [name for name in rows if name not in dreams]
    return f"""
Return in contexts that training never met, inside and outside its range; misled: told another
{table(rows, others, ("inside", "outside"))}
Error of a dream over the way gone, squared, after one observation
{table(rows, dreams, ("inside", "outside", "wrong c"), digits=3)}
The same after five. From the fifth on the world goes on with another c, of which the model is
told after it (a counterfactual dream), with it, or falsely from the first on
{table(rows, dreams, ("no change", "told after", "told with it", "told before"), digits=3)}"""


def claims(rows):
    ours = rows["dreams, cRSSM"]
    hidden = rows["dreams, hidden"]["inside"]
    concatenated = rows["dreams, concatenated"]["told after"]
    wrong = ours["wrong c"] / ours["inside"]
    gain = difference(rows, "cRSSM", "hidden")
    over_random = difference(rows, "cRSSM", "at random")["inside"]
    share = over_random / difference(rows, "world known", "at random")["inside"]
    return [
        below("dreams are right: error inside", 0.08, ours["inside"], EACH),
        above("with the context hidden they are not", 0.5, hidden, EACH),
        above("dreams listen to c: error with a wrong one / with its own", 10, wrong, EACH),
        below("in the middle of an episode too: counterfactual", 0.3, ours["told after"], EACH),
        above("with the context concatenated they do not", 0.5, concatenated, EACH),
        above("return inside: share of the way from random to known", 0.92, share, EACH),
        above("return inside: cRSSM - hidden", 1.5, gain["inside"], EACH),
        above("return outside: cRSSM - hidden", 6, gain["outside"], EACH),
    ]


def draw(figure, picture):
    """Dreams beside the world, full thrust ahead in seven contexts: after one observation; and
    after five, where c changes then.
    """
    o = picture["o"]
    figure.set_size_inches(8, 6)
    panels = figure.subplots(2, 3, sharex=True, sharey=True)
    c = np.linspace(-0.9, 0.9, 7)[:, None]
    new_c = turned.another(c)
    for (first, later), (kind, agent) in zip(panels.T, picture["agents"].items(), strict=True):
        draw_dreams(o, first, agent, Told(c, c, c), 1)
        draw_dreams(o, later, agent, Told(c, c, new_c), o.seen)
        first.set(title=kind, aspect="equal")
        later.set(xlabel="x", aspect="equal")
    panels[0, 0].set_ylabel("dreamed from the first observation on\n\ny")
    panels[1, 0].set_ylabel(f"c changes after observation {o.seen}\n\ny")
    lines, names = panels[0, 0].get_legend_handles_labels()
    panels[0, 0].legend(lines[:2], names[:2])


def draw_dreams(o, panel, agent, told, seen):
    """The world's ways full, dreams dashed, in a colour for each context."""

    def ahead(positions, a):
        return np.tile([1.0, 0.0], (len(positions), 1))

    c = turned.exchanged(told.c, told.dream_c, seen, o.steps)
    positions, a = turned.play(ahead, c, o.steps, noise_at(0))
    dreams = dreamed(o, agent, positions, a, told, seen)
    for k, way in enumerate(positions[:, : seen + o.dreamed]):
        dream = np.concatenate([way[seen - 1 : seen], dreams[k]])
        panel.plot(*way.T, color=f"C{k}", linewidth=3, alpha=0.3, label="world")
        panel.plot(*dream.T, "--", color=f"C{k}", linewidth=1, label="dream")


CHAPTER = Chapter("crssm", __doc__, Options(), QUICK, run, report, claims, draw)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
