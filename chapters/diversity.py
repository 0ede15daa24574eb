"""Task diversity: MAML, Reptile and joint training as the box of goals grows.

    python -m chapters.diversity [--seeds 5] [--first-seed 0] [--quick] [--plot DIR] [--json]

The question is the lecture's: does first-order meta-learning become unstable if tasks are diverse?

The point mass with horizon 50 and goals uniform in [-box, box]^2: the larger the box, the more the
tasks ask for different policies. All three train on the same budget of environment steps, and adapt
to the same 40 held-out tasks by three steps of 20 episodes. MAML and Reptile take three in training
too; MAML needs episodes after them for its meta-gradient, so that it has fewer iterations. At the
test each has, of ALPHAS, the inner step size that suits 40 training tasks best. Scores are in per
cent of the way from standing still at the origin, the best there is without adaptation, to the
optimum: 0 and 100 in every box.

MAML: Finn et al. 2017. Reptile: Nichol et al. 2018. `joint` trains one policy for all tasks, and
adapts it at the test.

Said plainly: where all tasks are alike, one policy for all of them is best, and MAML worst. From
a box of 0.5 on all three lose with diversity; none becomes unsteady over seeds.
"""

from dataclasses import dataclass, replace

import numpy as np

import envs
import metarl
from chapters import common
from chapters.common import Chapter, above, below, cell, in_columns, meta_train, table
from harness.settings import Setting


@dataclass(frozen=True)
class Options:
    boxes: tuple = (0.125, 0.5, 1.0, 2.0)  # half the side
    budget: int = 300  # rollouts of 10 tasks, 20 episodes each, of a training run


QUICK = Options(boxes=(0.125, 2.0), budget=12)

ALPHAS = (0.125, 0.25, 0.5, 1.0, 2.0)  # 0.5 in training
NAMES = {"maml": "MAML", "reptile": "Reptile", "joint": "joint"}
SMALL = {
    "hidden": (32,),
    "tasks": 10,
    "beta": 0.01,
    "estimator": "lvc",  # of the inner step's Hessian, see docs/estimators.md
    "adapt_episodes": 20,
    "test_episodes": 20,
}
STEPS = ("k = 0", "k = 1", "k = 2", "k = 3")


def setting(o, algo, box, seed):
    """As many iterations as the budget allows, of so many rollouts each."""
    steps = 0 if algo == "joint" else 3
    rollouts = steps if algo == "reptile" else steps + 1  # Reptile has none after adaptation
    env = envs.PointMass(horizon=50, box=box)
    iterations = o.budget // rollouts
    return Setting(algo=algo, env=env, seed=seed, inner_steps=steps, iterations=iterations, **SMALL)


def adapted(c, theta, tasks, *address):
    """(T, 4): the mean return of each task after 0 to 3 steps from theta."""
    c = replace(c, episodes=c.adapt_episodes)
    return metarl.in_chunks(metarl.returns_by_step, c, theta, tasks, address)[0]


def scores(family, tasks, returns):
    """(T, 4), in per cent: the returns (T, 4) less that of standing still in each task, over the
    mean over tasks of what the optimum is better than standing still.
    """
    still = family.horizon * family.reward_at(envs.distance(tasks))
    best = family.optimal_return(tasks)
    return 100 * (returns - still[:, None]) / (best - still).mean()


def trained(o, algo, box, seed):
    """The scores (40, 4) of held-out tasks, and the alpha that they were adapted with."""
    c = setting(o, algo, box, seed)
    theta = meta_train(c)["theta"]
    noise = metarl.noise_at(seed, metarl.TEST, metarl.TASKS, 0)
    tasks = metarl.sample_tasks(c, 40, noise, "train")
    address = (seed, metarl.TEST, metarl.INNER, 0)
    choices = [replace(c, alpha=alpha) for alpha in ALPHAS]
    suits = [adapted(choice, theta, tasks, *address)[:, -1].mean() for choice in choices]
    c = choices[int(np.argmax(suits))]
    held_out, returns = metarl.meta_test(c, theta)
    return scores(c.family, held_out, returns), c.alpha


def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs, the same."""
    rows = {}
    for box in o.boxes:
        for algo in NAMES:
            s, alpha = trained(o, algo, box, seed)
            columns = dict(zip(STEPS, s.mean(0), strict=True))
            lost = 100 * (s[:, -1] < 0).mean()  # % of tasks where standing still is better
            rows[row(algo, box)] = columns | {"lost": lost, "alpha": alpha}
    return rows, rows


def row(algo, box):
    return f"box {box:g}, {NAMES[algo]}"


def boxes_of(rows):
    """The boxes that rows are about, in their order."""
    words = [name.removeprefix("box ").partition(",") for name in rows]
    return list(dict.fromkeys(float(box) for box, *_ in words))


# --- What is printed ---
def ahead(rows, other, box):
    """MAML less the other after three steps, (seeds,)."""
    return rows[row("maml", box)]["k = 3"] - rows[row(other, box)]["k = 3"]


def report(rows):
    boxes = boxes_of(rows)
    lines = [f"{'MAML -, by box':16}" + in_columns([f"{box:g}" for box in boxes])]
    for other in ("reptile", "joint"):
        signs = [cell(ahead(rows, other, box), 1) for box in boxes]
        lines.append(f"{NAMES[other]:16}" + in_columns(signs))
    last = "\n".join(lines)
    return f"""
Per cent of the way from standing still to the optimum, 40 held-out tasks, after k steps; the share
of tasks on which standing still is better, %; the step size that suits
{table(rows, list(rows), (*STEPS, "lost", "alpha"), 1)}
After 3 steps, paired over seeds
{last}
"""


def claims(rows):
    boxes = boxes_of(rows)
    alike = boxes[0]
    diverse = boxes[-1]
    reptile = min(rows[row("reptile", box)]["k = 3"].min() for box in boxes)
    return [
        below(f"tasks alike, box {alike:g}: MAML - joint", 0, ahead(rows, "joint", alike)),
        above(f"tasks diverse, box {diverse:g}: MAML - joint", 0, ahead(rows, "joint", diverse)),
        above(f"box {diverse:g}: MAML - Reptile", 0, ahead(rows, "reptile", diverse)),
        above("Reptile is not unstable: its worst seed, any box", 30, np.array([reptile])),
    ]


def draw(figure, picture):
    """Scores after three steps by box, one seed."""
    figure.set_size_inches(5, 3.2)
    panel = figure.subplots()
    boxes = boxes_of(picture)
    for algo, name in NAMES.items():
        panel.plot(boxes, [picture[row(algo, box)]["k = 3"] for box in boxes], "o-", label=name)
    panel.set(xscale="log", xlabel="box: half the side", ylabel="% of the way, after 3 steps")
    panel.set_xticks(boxes, [f"{box:g}" for box in boxes])
    panel.minorticks_off()
    panel.legend()


CHAPTER = Chapter("diversity", __doc__, Options(), QUICK, run, report, claims, draw)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
