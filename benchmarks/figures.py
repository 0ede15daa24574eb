"""The pictures of the README, from nothing: trains what they show and writes docs/NAME.svg.

    python -m benchmarks.figures [--only NAME ...]

    paths        the classic figure of MAML: paths on held-out point masses before and after 1, 2, 3 adaptation steps
    arms         the same for bandits whose last two arms are good as a rule: the probabilities of the arms
    learning     the return after adaptation in training over environment steps, by the defaults of each algorithm
    compare      benchmarks.compare: the return on held-out tasks over environment steps, and by adaptation steps
    estimators   benchmarks.estimators: bias, deviation and direction of estimates of the meta-gradient

Error bars are 95 % intervals over three seeds. Runs go in parallel, two at a time; those of `compare` are kept where that
benchmark keeps its own, and not done again. The same numbers give the same bytes.
"""

import argparse
from itertools import islice
from pathlib import Path

import numpy as np

import metarl
from benchmarks import compare, estimators
from harness import figures
from harness.checkpoints import replacing
from harness.results import interval
from harness.settings import Setting
from harness.workers import workers

DOCS, KEPT = Path(__file__).parent.parent / "docs", Path("runs/compare")
SEEDS = range(3)
POINTS = 12  # of a learning curve, each the mean over some iterations
BUDGET = 4e6  # environment steps of each run of `compare`
COMPARED = ("joint", "maml", "reptile", "es-maml", "cma-es", "cma-es-pg")
ESTIMATES = 4000
LEAST = 0.1  # % of bias; what is smaller is drawn there
STEPS = "environment steps (millions)"

PATHS = [("maml", "pointmass", 0)]
ARMS = [("maml", "bandit:prior=((1,3),(1,3),(1,3),(2,1),(2,1))", 0)]
LEARNING = [
    (algo, "pointmass", seed) for algo in ("maml", "reptile", "nes", "cma-es") for seed in SEEDS
]


def train(algo, env, seed):
    """A run by the defaults: its setting, last theta, and (iterations, 2) environment steps and return after adaptation."""
    c = Setting(algo=algo, env=env, seed=seed)
    states = list(islice(metarl.train(c, metarl.initial_state(c)), c.iterations))
    return c, states[-1]["theta"], np.array([(s["env_steps"], s["post"]) for s in states])


# --- What is drawn: the arguments of figures.svg, from {job: what `train` returned} and the map of `workers` ---
def adapting(runs, map):
    [(c, theta, _)] = runs.values()
    return figures.draw_adaptation, c, theta


def learning(runs, map):
    """{algorithm: (millions of environment steps, mean over seeds, half width of its interval)}, and the optimum."""
    curves, optimal = {}, []
    for c, _, log in runs.values():
        curves.setdefault(c.algo, []).append(thinned(log))
        tasks = metarl.sample_tasks(
            c, c.test_tasks, metarl.noise_at(c.seed, metarl.TEST, metarl.TASKS), "test"
        )
        optimal.append(c.family.optimal_return(tasks).mean())
    for algo, seeds in curves.items():
        (steps, post), (_, half) = (interval(np.array(seeds))[name].T for name in ("mean", "ci95"))
        curves[algo] = (steps / 1e6, post, half)
    return draw_learning, curves, np.mean(optimal)


def thinned(log):
    """The means of the rows of log over at most POINTS blocks of iterations, as long as each other by their logarithm."""
    starts = np.unique(np.geomspace(1, len(log) + 1, POINTS + 1)[:-1].astype(int)) - 1
    return np.add.reduceat(log, starts) / np.diff([*starts, len(log)])[:, None]


def comparison(runs, map):
    results = compare.compare(KEPT, algos=COMPARED, budget=BUDGET, seeds=len(SEEDS), map=map)
    optimal = np.mean([run["optimal"] for run in results[COMPARED[0]]])
    return draw_comparison, {name: compare.curves(runs) for name, runs in results.items()}, optimal


def estimates(runs, map):
    with np.errstate(over="ignore"):  # ES with noise beyond what a point mass bears
        rows = estimators.table(ESTIMATES)
    cosines = {method: row["deep tree"] for method, baseline, row in rows if baseline == "time"}
    return draw_estimates, estimators.bias_table(ESTIMATES), cosines


# --- How ---
def draw_learning(figure, curves, optimum):
    labels = dict(xlabel=STEPS, ylabel="return after adaptation, in training", xscale="log")
    figures.draw_curves(figure.subplots(), curves, optimum, **labels)
    figure.legend(loc="outside right center")


def draw_comparison(figure, curves, optimum):
    """The return after the last adaptation step over environment steps; at the end of the budget after each step."""
    ends = {name: [curve[x] for x in ("returns", "ci95")] for name, curve in curves.items()}
    over = {
        name: (c["env_steps"] / 1e6, *(rows[:, -1] for rows in ends[name]))
        for name, c in curves.items()
    }
    by_k = {name: (range(len(rows[0][-1])), *(r[-1] for r in rows)) for name, rows in ends.items()}
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    k = by_k[COMPARED[0]][0]
    labels = dict(title=f"after {k[-1]} adaptation steps", ylabel="return on held-out tasks")
    figures.draw_curves(left, over, optimum, xlabel=STEPS, **labels)
    figures.draw_curves(
        right, by_k, optimum, xlabel="adaptation steps", xticks=k, title="after all training"
    )
    for axes in (left, right):
        axes.set(yscale="symlog", ylim=(axes.get_ylim()[0], 0))
        axes.yaxis.set_major_formatter("{x:g}")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center")


def draw_estimates(figure, biases, cosines):
    """Two panels of biases and deviations and one of cosines, with a row for each method."""
    methods, panels = list(cosines), figure.subplots(1, 3, sharey=True)
    for panel, problem in zip(panels, dict.fromkeys(row[0] for row in biases), strict=False):
        _, names, *columns = zip(*(row for row in biases if row[0] == problem), strict=True)
        for i, label in enumerate(("bias, $J^I$", "bias, $J^{II}_{10}$", "standard deviation")):
            dots(
                panel,
                i,
                np.maximum(columns[i], LEAST),
                [methods.index(name) for name in names],
                label,
            )
        panel.set(title=problem, xscale="log", xlabel="% of the exact gradient", xlim=(LEAST, 1000))
        panel.set_xticks([LEAST, 1, 10, 100, 1000], [f"≤{LEAST}", 1, 10, 100, 1000])
    for i, episodes in enumerate(estimators.EPISODES):
        dots(
            panels[2],
            3 + i,
            [row[i] for row in cosines.values()],
            range(len(methods)),
            f"{episodes} episodes",
        )
    panels[2].set(title="deep tree", xlabel="cosine with the exact gradient", xlim=(0, 1))
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].invert_yaxis()
    for panel, side in ((panels[0], "left"), (panels[2], "right")):
        figure.legend(
            *panel.get_legend_handles_labels(),
            loc=f"outside lower {side}",
            ncols=3,
            columnspacing=1,
        )


def dots(panel, i, x, y, label):
    panel.plot(x, y, **figures.LOOK[i] | {"ls": ""}, label=label, clip_on=False)
    panel.grid(axis="y", linewidth=0.5)


PICTURES = {"paths": (adapting, PATHS), "arms": (adapting, ARMS), "learning": (learning, LEARNING)}
PICTURES |= {"compare": (comparison, []), "estimators": (estimates, [])}


def main(argv=None):
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--only", nargs="+", choices=PICTURES, default=list(PICTURES), metavar="NAME")
    only = p.parse_args(argv).only
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        p.error("needs matplotlib: pip install matplotlib")
    DOCS.mkdir(exist_ok=True)
    jobs = list(dict.fromkeys(job for name in only for job in PICTURES[name][1]))
    with workers(2) as map:
        runs = dict(zip(jobs, map(train, *zip(*jobs, strict=True)), strict=True)) if jobs else {}
        for name in only:
            content, needed = PICTURES[name]
            picture = figures.svg(*content({job: runs[job] for job in needed}, map))
            with replacing(DOCS / f"{name}.svg") as file:
                file.write(picture)
            print(f"docs/{name}.svg: {len(picture) / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
