"""Task diversity: MAML, Reptile and joint training as the box of goals grows.

    python -m benchmarks.diversity [--boxes 0.125 0.5 1 2] [--seeds 5]

The point mass with horizon 50 and goals uniform in [-box, box]^2: the larger the box, the more the
tasks ask for different policies. All three train on the same budget of environment steps and adapt
to the same 40 held-out tasks, three steps of 20 episodes; MAML and Reptile take three in training,
too, and differ in the meta-gradient alone. At the test each has, of ALPHAS, the inner step size
that suits 40 training tasks best. Scores are in per cent of the way from standing still at the
origin, the best there is without adaptation, to the optimum: 0 and 100 in every box. Means over
seeds 0, 1, ... with 95 % intervals; `worst` is that of the worst seed, `lost` the share of held-out
tasks, of all seeds, on which standing still would have been better.
"""

from dataclasses import replace

import numpy as np

import envs
import metarl
from benchmarks.common import cells, in_columns, mean_and_half, parser, side_by_side, train
from harness.settings import Setting

BOXES = (0.125, 0.5, 1.0, 2.0)
ALPHAS = (0.125, 0.25, 0.5, 1.0, 2.0)  # 0.5 in training
NAMES = {"maml": "MAML", "reptile": "Reptile", "joint": "joint"}
BUDGET = 300  # rollouts of 10 tasks, 20 episodes each, of a training run
SMALL = dict(
    hidden=(32,), tasks=10, beta=0.01, estimator="lvc", adapt_episodes=20, test_episodes=20
)


def setting(algo, box, seed):
    steps = 0 if algo == "joint" else 3
    rollouts = steps if algo == "reptile" else steps + 1
    env = envs.PointMass(horizon=50, box=box)
    size = dict(inner_steps=steps, iterations=BUDGET // rollouts)
    return Setting(algo=algo, env=env, seed=seed, **size, **SMALL)


def adapted(c, theta, tasks, *address):
    """(T, 4): the mean returns after 0 to 3 steps of each task."""
    c = replace(c, episodes=c.adapt_episodes)
    return metarl.in_chunks(metarl.returns_by_step, c, theta, tasks, address)[0]


def scores(family, tasks, returns):
    """(T, 4) from returns (T, 4): per cent of the way from standing still to the optimum
    of the average task.
    """
    still = family.horizon * family.reward_at(envs.distance(tasks))
    best = family.optimal_return(tasks)
    return 100 * (returns - still[:, None]) / (best - still).mean()


def run(algo, box, seed):
    """The scores (40, 4) of held-out tasks, and the alpha that they were adapted with."""
    c = setting(algo, box, seed)
    theta = train(c)
    noise = metarl.noise_at(seed, metarl.TEST, metarl.TASKS, 0)
    tasks = metarl.sample_tasks(c, 40, noise, "train")
    address = (seed, metarl.TEST, metarl.INNER, 0)
    choices = [replace(c, alpha=alpha) for alpha in ALPHAS]
    suits = [adapted(choice, theta, tasks, *address)[:, -1].mean() for choice in choices]
    c = choices[int(np.argmax(suits))]
    return scores(c.family, *metarl.meta_test(c, theta)), c.alpha


def table(boxes=BOXES, seeds=5):
    """{(algorithm, box): (scores (seeds, 40, 4), alphas (seeds,))}"""
    jobs = [(algo, box, seed) for box in boxes for algo in NAMES for seed in range(seeds)]
    results = dict(zip(jobs, side_by_side(run, jobs), strict=True))
    rows = {}
    for box in boxes:
        for algo in NAMES:
            by_seed = [results[algo, box, seed] for seed in range(seeds)]
            rows[algo, box] = [np.stack(column) for column in zip(*by_seed, strict=True)]
    return rows


def conclusion(rows, boxes):
    """Who is ahead in which box, and who spreads over seeds, from the scores after three steps."""
    final = {key: s[:, :, -1].mean(1) for key, (s, _) in rows.items()}
    text = []
    for algo in ("reptile", "joint"):
        signs = []
        for box in boxes:
            mean, half = mean_and_half(final["maml", box] - final[algo, box])
            signs.append(f"{mean:+.0f} ± {half:.0f}")
        ahead = f"MAML - {NAMES[algo]} after 3 steps, by box, paired over seeds"
        text.append(f"{ahead}: {', '.join(signs)}")
    for algo, name in NAMES.items():
        means = [final[algo, box].mean() for box in boxes]
        spread = [final[algo, box].std(ddof=1) for box in boxes]
        lowest = int(np.argmin(means))
        loosest = int(np.argmax(spread))
        text.append(
            f"{name}: lowest in the box {boxes[lowest]:g} ({means[lowest]:.0f} %); least steady "
            f"over seeds in {boxes[loosest]:g} (standard deviation {spread[loosest]:.1f})"
        )
    return "\n".join(text)


def main():
    p = parser(__doc__)
    p.add_argument("--boxes", type=float, nargs="+", default=BOXES)
    p.add_argument("--seeds", type=int, default=5, help="0 to N - 1, at least 2")
    a = p.parse_args()
    if a.seeds < 2 or min(a.boxes) <= 0:
        p.error("--seeds must be at least 2, --boxes above 0")
    print(
        "per cent of the way from standing still to the optimum, "
        f"40 held-out tasks, seeds 0 to {a.seeds - 1}"
    )
    heads = in_columns([f"after {k}" for k in range(4)], 14)
    print(f"{'box':>6} {'':8}{heads}{'worst':>8}{'lost, %':>8}  alpha")
    rows = table(a.boxes, a.seeds)
    for (algo, box), (s, alphas) in rows.items():
        line = f"{box:6g} {NAMES[algo]:8}{in_columns(cells(s.mean(1), 1), 14)}"
        final = s[:, :, -1]
        used = " ".join(f"{x:g}" for x in np.unique(alphas))
        print(f"{line}{final.mean(1).min():8.1f}{100 * (final < 0).mean():8.1f}  {used}")
    print(conclusion(rows, a.boxes))


if __name__ == "__main__":
    main()
