"""One outer loop, any component: the same evolution moves one part of a life after the other.

    python -m chapters.components [--seeds 5] [--first-seed 0] [--quick] [--plot DIR] [--json]

Outer loops have learned most components of reinforcement learning, each in a paper of its own. They
need not differ but in what they call x. Here it is, in turn:

    nothing       the life by hand: policy gradient from a random birth, the best step size
    step sizes    that of each step          as Meta-SGD, Li et al. 2017, arXiv 1707.09835
    exploration   the deviation of actions   as Xu et al. 2018, arXiv 1803.05044
    loss          what a step descends       as EPG, Houthooft et al. 2018, arXiv 1802.04821
    birth         the policy at first        as MAML, Finn et al. 2017, arXiv 1703.03400
    all           all of them at once

The life, and with it all that may be learned, with the numbers that the lines of the code carry:

    l.1   theta <- the birth
    l.2   for k = 1 ... S:
    l.3     D <- K episodes by theta, with the deviation of step k
    l.4     theta <- theta - alpha_k grad_theta loss(theta, D)
    l.5   F <- the return of theta, with the deviation after the last step

and around it evolution, which sees x and F alone: epg.py, l.1 to 7, with x in the place of phi.

What is not learned stays by hand: a random birth; a deviation of 0.5 at first, which then is a part
of theta and changes with it; the loss of policy gradient; one step size, the best of six for random
births, but 1 on a learned loss, as in epg.py.

The claim is the lecture's sentence: each of the parts can be learned, and is worth it. Beside it
the table has the price, on goals behind, where nothing was trained.

Read epg.py first, and life.py, which has the life and evolution. Here are the parts, l.1 to 5; the
rows of the table; what is printed.

Said plainly: the birth is worth most where it was trained, and it alone loses behind: in the mean,
as seeds differ much (-6.7 to -15.0 of the first five). More than half of what exploration gains,
and some of what all gain, is no more than to act without noise at the end: the column "quiet"
compares all without it. What stays by hand is not chosen anew for what is learned beside it: a
learned birth takes steps of the size that is best for random births.

Smaller than in the papers: of these only EPG evolves, the others go up a gradient through the life;
a life is 8 steps of learning, of a point in a plane.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from chapters import common, epg, life
from chapters.common import Chapter, above, below, difference, table
from chapters.life import AHEAD, BEHIND, best_alpha, by_hand, learning_curve
from metarl import noise_at


@dataclass(frozen=True)
class Options(life.Life):
    generations: int = 150


QUICK = Options(generations=8, test_lives=40, alphas=(0.03, 0.06, 0.125))


# --- The parts ---
PARTS = ("step sizes", "exploration", "loss", "birth")
LEARNED = {  # which parts are x in each row of the table
    "nothing": (),
    "step sizes": ("step sizes",),
    "exploration": ("exploration",),
    "loss": ("loss",),
    "birth": ("birth",),
    "all": PARTS,
}


def first_numbers(o, seed):
    """{part: numbers (q,)} that evolution starts from: as by hand; loss and birth are random."""
    rng = noise_at(seed, common.OWN, life.START, 1)
    return {
        "step sizes": np.zeros(o.steps),  # logarithms of factors on what is there without them
        "exploration": np.full(o.steps + 1, np.log(o.std)),  # for each step, and for the end
        "loss": epg.first_phi(o, epg.CLOSED, seed),
        "birth": life.policy(o).init(rng),
    }


def split(first, x):
    """{part: its numbers (n, q)} of x (n, Q), in which the parts of `first` follow each other.

    first: as in `first_numbers`, of the parts that are learned.
    """
    learned = {}
    start = 0
    for part, numbers in first.items():
        end = start + len(numbers)
        learned[part] = x[:, start:end]
        start = end
    return learned


def parts_of(first, alpha, o, x, theta):
    """Parts of lives: those of `first` are in x (n, Q), others by hand; theta: random births."""
    learned = split(first, x)
    parts = by_hand(o, theta, alpha)
    if "birth" in learned:
        parts = parts._replace(births=learned["birth"])  # l.1
    if "exploration" in learned:
        parts = parts._replace(log_stds=learned["exploration"])  # l.3, l.5
    if "loss" in learned:
        taught = epg.taught(epg.CLOSED, o, learned["loss"], theta)
        parts = parts._replace(loss=taught.loss, alphas=taught.alphas)  # l.4
    if "step sizes" in learned:
        parts = parts._replace(alphas=parts.alphas * np.exp(learned["step sizes"]))  # l.4
    return parts


# --- The rows ---
def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs."""
    numbers = first_numbers(o, seed)
    alpha = best_alpha(o, seed, partial(parts_of, {}), epg.NOTHING)
    rows = {}
    curves = {}
    schedules = {}
    for name, learned in LEARNED.items():
        first = {part: numbers[part] for part in learned}
        x = np.concatenate([epg.NOTHING, *first.values()])
        lives = partial(parts_of, first, alpha)
        if learned:
            x = life.evolve(o, x, lives, seed)
        ahead = learning_curve(o, seed, AHEAD, lives, x)
        behind = learning_curve(o, seed, BEHIND, lives, x)
        quiet = learning_curve(o, seed, AHEAD, lives, x, quiet=True)
        rows[name] = {
            "numbers": len(x),
            "ahead": ahead[-1],
            "behind": behind[-1],
            "ahead, quiet": quiet[-1],
        }
        curves[name] = (ahead, behind)
        if name in ("step sizes", "exploration"):
            schedules[name] = np.exp(x)
    schedules["step sizes"] = alpha * schedules["step sizes"]
    return rows, {"curves": curves, "schedules": schedules}


# --- What is printed ---
def report(rows):
    columns = ("ahead", "behind", "ahead, quiet")
    counted = {}
    over_nothing = {}
    for name in rows:
        counted[f"{name} ({rows[name]['numbers'][0]:.0f})"] = rows[name]
        over_nothing[f"{name} - nothing"] = difference(rows, name, "nothing")
    del over_nothing["nothing - nothing"]
    return f"""
Return after 8 steps of learning, by what evolution has learned on goals
ahead (so many numbers). Standing still has -15.0, who knows the goal -2.2.
quiet: without noise on the actions
{table(counted, counted, columns)}
{table(over_nothing, over_nothing, columns, heading="paired")}"""


def claims(rows):
    judged = []
    for name in (*PARTS, "all"):
        gain = difference(rows, name, "nothing")["ahead"]
        judged.append(above(f"{name} is worth learning: - nothing, ahead", 0, gain))
    for name in ("step sizes", "exploration", "loss"):
        sides = np.abs(rows[name]["ahead"] - rows[name]["behind"])
        judged.append(below(f"{name}: as good behind, apart", 0.5, sides))
    judged.append(below("the birth loses behind", -9, rows["birth"]["behind"]))
    return judged


def draw(figure, picture):
    """Return after each step of learning; the step sizes and deviations that were learned."""
    figure.set_size_inches(10, 3.2)
    panels = figure.subplots(1, 3)
    life.draw_curves(panels, picture["curves"])
    for name, numbers in picture["schedules"].items():
        panels[2].plot(numbers, label=name, marker=".")
    panels[2].set(title="learned, each alone", xlabel="steps of learning", yscale="log")
    panels[2].set_ylabel("step size; deviation")
    panels[2].legend(fontsize=6)


CHAPTER = Chapter("components", __doc__, Options(), QUICK, run, report, claims, draw)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
