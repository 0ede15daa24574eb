"""What crssm.py holds its agents against: returns in new contexts, and dreams beside the world.

Read from the top: the contexts of the test and returns in them; a dream, and its error; the rows of
an agent; what is printed and drawn. An agent is an Agent of crssm.py: it has `acting`, `shown`,
`follow`, a world model `model` and its parameters `phi`.
"""

from typing import NamedTuple

import numpy as np

from chapters import rssm, turned
from chapters.common import EACH, OWN, above, below, difference, table
from metarl import noise_at


# --- The test ---
def worlds(o):
    """{place: contexts (B, 1)}."""
    return turned.inside_and_outside(o.test_contexts, o.test_episodes)


def returns(o, acting, seed):
    """{place: mean return} for a function from contexts (B, 1) to a way to act in them."""
    row = {}
    for place, c in worlds(o).items():
        rng = noise_at(seed, OWN, 6)
        positions, _ = turned.play(acting(c), c, o.steps, rng)
        rewards = turned.reward(positions[:, 1:])
        row[place] = rewards.sum(1).mean()
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

    def as_taken(t, state):
        return to_come[:, t]

    states = rssm.dream(f, start, as_taken, dream_c, no_noise)
    return f["observation"](states.with_context(dream_c))[..., :2]


def error(o, agent, positions, a, told, seen):
    """Squared error of a dream, over the squared way gone: 1 is the error of standing still."""
    dream = dreamed(o, agent, positions, a, told, seen)
    way = positions[:, seen : seen + o.dreamed]
    gone = way - positions[:, seen - 1 : seen]
    wrong = ((dream - way) ** 2).sum()
    return wrong / (gone**2).sum()


def dream_errors(o, agent, seed):
    """{column: error} of dreams beside the world, in which actions are at random."""

    def played(c):
        wander = turned.wander(noise_at(seed, OWN, 7))
        return turned.play(wander, c, o.steps, noise_at(seed, OWN, 6))

    def compared(played, told, seen):
        positions, a = played
        return error(o, agent, positions, a, told, seen)

    c, outside_c = worlds(o).values()
    wrong_c = turned.another(c)
    right = Told(c, c, c)
    wrong = Told(wrong_c, wrong_c, wrong_c)
    told_after = Told(c, c, wrong_c)
    told_with_it = Told(c, wrong_c, wrong_c)
    inside = played(c)
    outside = played(outside_c)
    changed = played(turned.exchanged(c, wrong_c, o.seen, o.steps))
    right_outside = Told(outside_c, outside_c, outside_c)
    return {
        "inside": compared(inside, right, 1),
        "outside": compared(outside, right_outside, 1),
        "wrong c": compared(inside, wrong, 1),
        "no change": compared(inside, right, o.seen),
        "told after": compared(changed, told_after, o.seen),
        "told with it": compared(changed, told_with_it, o.seen),
        "told before": compared(changed, wrong, o.seen),
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


# --- What is printed ---
def report(rows):
    dreams = [name for name in rows if name.startswith("dreams")]
    others = [name for name in rows if name not in dreams]
    in_the_middle = ("no change", "told after", "told with it", "told before")
    return f"""
Return in contexts that training never met, inside and outside its range; misled: told another
{table(rows, others, ("inside", "outside"))}
Error of a dream over the way gone, squared, after one observation
{table(rows, dreams, ("inside", "outside", "wrong c"), digits=3)}
The same after five. From the fifth on the world goes on with another c, of which the model is
told after it (a counterfactual dream), with it, or falsely from the first on
{table(rows, dreams, in_the_middle, digits=3)}"""


def claims(rows):
    ours = rows["dreams, cRSSM"]
    hidden = rows["dreams, hidden"]["inside"]
    concatenated = rows["dreams, concatenated"]["told after"]
    wrong = ours["wrong c"] / ours["inside"]
    counterfactual = ours["told after"]
    gain = difference(rows, "cRSSM", "hidden")
    way = difference(rows, "cRSSM", "at random")["inside"]
    whole = difference(rows, "world known", "at random")["inside"]
    listens = "dreams listen to c: error with a wrong one / with its own"
    midway = "in the middle of an episode too: counterfactual"
    not_concatenated = "with the context concatenated they do not"
    share = "return inside: share of the way from random to known"
    return [
        below("dreams are right: error inside", 0.08, ours["inside"], EACH),
        above("with the context hidden they are not", 0.5, hidden, EACH),
        above(listens, 10, wrong, EACH),
        below(midway, 0.3, counterfactual, EACH),
        above(not_concatenated, 0.5, concatenated, EACH),
        above(share, 0.92, way / whole, EACH),
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
    agents = picture["agents"].items()
    for (first, later), (kind, agent) in zip(panels.T, agents, strict=True):
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
