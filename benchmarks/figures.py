"""The pictures of the README, from nothing: trains what they show and writes docs/NAME.svg.

    python -m benchmarks.figures [--only NAME ...]

    paths        the classic figure of MAML: paths on held-out point masses before and after
                 1, 2, 3 adaptation steps
    arms         the same for bandits whose last two arms are good as a rule: the probabilities
                 of the arms
    learning     the return in the last episodes of an iteration of training (after adaptation; of
                 Reptile before its last step), by the defaults of each algorithm
    compare      benchmarks.compare: the return on held-out tasks over environment steps, and by
                 adaptation steps
    estimators   benchmarks.estimators: bias, deviation and direction of estimates of the
                 meta-gradient

Curves are interquartile means over ten seeds, bands their 95 % bootstrap intervals (Agarwal et al.
2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice"). Runs go in parallel,
two at a time; those of `compare` are kept where that benchmark keeps its own, and not done again.
The same numbers give the same bytes.
"""

import argparse
from itertools import islice
from pathlib import Path

import numpy as np

import metarl
from benchmarks import compare, estimators
from harness import figures
from harness.checkpoints import replacing
from harness.figures import Curve
from harness.settings import Setting
from harness.workers import workers

DOCS = Path(__file__).parent.parent / "docs"
KEPT = Path("runs/compare")
SEEDS = range(10)
RESAMPLES = 2000  # of the seeds, for an interval
POINTS = 16  # of a learning curve, each the mean over some iterations
BUDGET = 4e6  # environment steps of each run of `compare`
LEARNERS = ("maml", "reptile", "nes", "cma-es")
COMPARED = ("joint", "maml", "reptile", "es-maml", "cma-es", "cma-es-pg")
ESTIMATES = 4000
LEAST = 0.1  # % of bias; what is smaller is drawn there
STEPS = "environment steps (millions)"

# What each picture needs trained: (algorithm, family, seed)
PATHS = [("maml", "pointmass", 0)]
ARMS = [("maml", "bandit:prior=((1,3),(1,3),(1,3),(2,1),(2,1))", 0)]
LEARNING = [(algo, "pointmass", seed) for algo in LEARNERS for seed in SEEDS]


def train(algo, env, seed):
    """A run by the defaults. Returns its setting, its last theta, and its log (iterations, 2):
    environment steps so far and the return in the last episodes."""
    c = Setting(algo=algo, env=env, seed=seed)
    states = list(islice(metarl.train(c, metarl.initial_state(c)), c.iterations))
    log = np.array([(state["env_steps"], state["post"]) for state in states])
    return c, states[-1]["theta"], log


# --- Statistics over seeds ---
def interquartile_mean(values):
    """The mean of the middle half of the values, over the first axis.

    At either end a quarter of them is left out, rounded down.
    """
    n = len(values)
    outside = n // 4
    return np.sort(values, axis=0)[outside : n - outside].mean(0)


def bootstrap_interval(values):
    """The ends of a 95 % interval of the interquartile mean over seeds, from values (seeds, ...).

    By the percentile bootstrap: as if as many seeds were drawn again, with replacement, from these.
    A seed is drawn as a whole, with all that it has in the other axes.
    """
    n = len(values)
    drawn = metarl.noise_at(0).integers(n, size=(n, RESAMPLES))
    means = interquartile_mean(values[drawn])
    return np.percentile(means, [2.5, 97.5], axis=0)


def curve_over_seeds(name, x, y):
    """The Curve of an algorithm from x and y (seeds, points): where its seeds are on average."""
    low, high = bootstrap_interval(y)
    return Curve(figures.look_of(name), x.mean(0), interquartile_mean(y), low, high)


# --- What is drawn ---
# Arguments of figures.svg, from {job: what `train` returned} and the map of `workers`


def adapting(runs, map):
    [(c, theta, _)] = runs.values()
    return figures.draw_adaptation, c, theta


def learning(runs, map):
    """{algorithm: Curve over millions of environment steps}, and the optimum."""
    logs = {}
    optimal = []
    for c, _, log in runs.values():
        logs.setdefault(c.algo, []).append(thinned(log))
        noise = metarl.noise_at(c.seed, metarl.TEST, metarl.TASKS)
        tasks = metarl.sample_tasks(c, c.test_tasks, noise, "test")
        optimal.append(c.family.optimal_return(tasks).mean())
    curves = {}
    for algo, seeds in logs.items():
        env_steps, post = np.moveaxis(seeds, 2, 0)
        curves[algo] = curve_over_seeds(algo, env_steps / 1e6, post)
    return draw_learning, curves, np.mean(optimal)


def thinned(log):
    """The means of the rows of log over at most POINTS blocks of iterations.

    The blocks are equally long on a logarithmic axis.
    """
    ends = np.geomspace(1, len(log) + 1, POINTS + 1)
    starts = np.unique(ends[:-1].astype(int)) - 1
    lengths = np.diff([*starts, len(log)])
    return np.add.reduceat(log, starts) / lengths[:, None]


def comparison(runs, map):
    """{row of benchmarks.compare: Curve} over training, the same over k, and the optimum."""
    options = dict(budget=BUDGET, seeds=len(SEEDS), map=map)
    results = compare.compare(KEPT, algos=COMPARED, **options)
    over_training = {}
    over_k = {}
    for name, seeds in results.items():
        millions = np.array([run["env_steps"] for run in seeds]) / 1e6  # (seeds, points)
        # Of each seed the mean over its tasks: (seeds, points, k + 1)
        returns = np.array([np.mean(run["returns"], axis=1) for run in seeds])
        k = np.broadcast_to(np.arange(returns.shape[2]), returns[:, -1].shape)
        over_training[name] = curve_over_seeds(name, millions, returns[:, :, -1])
        over_k[name] = curve_over_seeds(name, k, returns[:, -1])
    optimum = np.mean([run["optimal"] for run in results[COMPARED[0]]])
    return draw_comparison, over_training, over_k, optimum


def estimates(runs, map):
    with np.errstate(over="ignore"):  # ES with noise beyond what a point mass bears
        rows = estimators.table(ESTIMATES)
    cosines = {}
    for method, baseline, row in rows:
        if baseline == "time":
            cosines[method] = row["deep tree"]
    return draw_estimates, estimators.bias_table(ESTIMATES), cosines


# --- How ---
def draw_learning(figure, curves, optimum):
    axes = figure.subplots()
    axes.set(xscale="log", xlabel=STEPS, ylabel="return in the last episodes, in training")
    figures.draw_curves(axes, curves, optimum)
    figure.legend(loc="outside right center")


def draw_comparison(figure, over_training, over_k, optimum):
    """The return after the last adaptation step over environment steps; after each at the end."""
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    figures.draw_curves(left, over_training, optimum)
    figures.draw_curves(right, over_k, optimum)
    ks = over_k[COMPARED[0]].x
    left.set(title=f"after {ks[-1]:g} adaptation steps", xlabel=STEPS)
    left.set_ylabel("return on held-out tasks")
    right.set(title="after all training", xlabel="adaptation steps", xticks=ks)
    for axes in (left, right):
        lowest = axes.get_ylim()[0]
        axes.set(yscale="symlog", ylim=(lowest, 0))
        axes.yaxis.set_major_formatter("{x:g}")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center")


# Black and grey: colours belong to algorithms. (colour, line, marker) as in harness.figures
BIASES = {
    "bias, $J^I$": ("#000000", "", "o"),
    "bias, $J^{II}_{10}$": ("#000000", "", "s"),
    "standard deviation": ("#777777", "", "^"),
}
BY_EPISODES = [("#BBBBBB", "", "D"), ("#777777", "", "v"), ("#000000", "", "*")]


def draw_estimates(figure, biases, cosines):
    """Two panels of biases and deviations and one of cosines, with a row for each method."""
    methods = list(cosines)
    panels = figure.subplots(1, 3, sharey=True)
    problems = dict.fromkeys(row[0] for row in biases)
    for panel, problem in zip(panels[:2], problems, strict=True):
        rows = [row for row in biases if row[0] == problem]
        y = [methods.index(row[1]) for row in rows]
        for i, (label, style) in enumerate(BIASES.items()):
            x = np.maximum([row[2 + i] for row in rows], LEAST)
            dots(panel, style, x, y, label)
        panel.set(title=problem, xlabel="% of the exact gradient")
        panel.set(xscale="log", xlim=(LEAST, 1000))
        panel.set_xticks([LEAST, 1, 10, 100, 1000], [f"≤{LEAST}", 1, 10, 100, 1000])
    for i, episodes in enumerate(estimators.EPISODES):
        x = [row[i] for row in cosines.values()]
        dots(panels[2], BY_EPISODES[i], x, range(len(methods)), f"{episodes} episodes")
    panels[2].set(title="deep tree", xlim=(0, 1))
    panels[2].set_xlabel("cosine with the exact gradient")
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].invert_yaxis()
    for panel, side in ((panels[0], "left"), (panels[2], "right")):
        place = dict(loc=f"outside lower {side}", ncols=3, columnspacing=1)
        figure.legend(*panel.get_legend_handles_labels(), **place)


def dots(panel, style, x, y, label):
    panel.plot(x, y, **figures.look(*style), label=label, clip_on=False)
    panel.grid(axis="y", linewidth=0.5)


PICTURES = {  # what is drawn, and the jobs it needs
    "paths": (adapting, PATHS),
    "arms": (adapting, ARMS),
    "learning": (learning, LEARNING),
    "compare": (comparison, []),
    "estimators": (estimates, []),
}


def main(argv=None):
    form = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    p.add_argument("--only", nargs="+", choices=PICTURES, metavar="NAME", help="[all]")
    only = p.parse_args(argv).only or list(PICTURES)
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        p.error("needs matplotlib: pip install matplotlib")
    DOCS.mkdir(exist_ok=True)
    jobs = list(dict.fromkeys(job for name in only for job in PICTURES[name][1]))
    with workers(2) as map:
        runs = {}
        if jobs:
            results = map(train, *zip(*jobs, strict=True))
            runs = dict(zip(jobs, results, strict=True))
        for name in only:
            content, needed = PICTURES[name]
            arguments = content({job: runs[job] for job in needed}, map)
            picture = figures.svg(*arguments)
            with replacing(DOCS / f"{name}.svg") as file:
                file.write(picture)
            print(f"docs/{name}.svg: {len(picture) / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
