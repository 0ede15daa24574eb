"""Pictures of a run: as text, with no package at all, and as SVG by matplotlib, which is imported where it is used.

What is drawn are tasks of the meta-test, adapted to as there but under noise of its own, so that the numbers of a run
do not depend on its pictures. Paths are those of the mean actions, without exploration: the way the policy knows.
"""

import contextlib
import io
from dataclasses import replace
from itertools import islice

import numpy as np

import metarl
from harness.checkpoints import Stop
from policies import rollout

PLOTS = ("paths.svg", "learning.svg")
PICTURES = 4  # what noise is for, beside metarl.TASKS, INNER, MEASURE, ASK
ARMS = 10  # of a bandit; the others are not drawn
BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = str.maketrans("▁▂▃▄▅▆▇█·┌┐└┘─│", "_.:-=+*#.++++-|")
# Colours that the colour-blind tell apart (Okabe & Ito 2008), and for black and white a line and a marker with each
COLOURS = ["#000000", "#E69F00", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#56B4E9"]
LINES = [":", "-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1))]
LOOK = [
    dict(color=c, ls=ls, marker=m, mfc="white")
    for c, ls, m in zip(COLOURS, LINES, "os^Dv*P", strict=True)
]
STYLE = {
    "svg.hashsalt": "metarl",
    "font.size": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
}
STYLE |= {"axes.spines.right": False, "lines.markersize": 5, "figure.constrained_layout.use": True}


# --- What is drawn ---
def chosen(c, n):
    """The largest held-out task, then in turn the one farthest from those before: (T, D), T at most n."""
    tasks = metarl.sample_tasks(
        c, c.test_tasks, metarl.noise_at(c.seed, metarl.TEST, metarl.TASKS), "test"
    )
    rows = [np.linalg.norm(tasks, axis=1).argmax()]
    while len(rows) < min(n, len(tasks)):
        rows.append(np.linalg.norm(tasks[:, None] - tasks[rows], axis=2).min(1).argmax())
    return tasks[rows]


def paths(c, theta, tasks):
    """The path of theta (T, P) in each task of a point mass: positions (n + 1, 2) up to the end of the episode."""
    longer = replace(
        c.family, horizon=c.family.horizon + 1
    )  # observes what the last action leads to
    D = rollout(longer, replace(c.network, deterministic=True), theta, tasks, 1, None)
    return [obs[: n + 1] for obs, n in zip(D.obs[:, 0], D.mask[:, 0].sum(1), strict=True)]


def probabilities(c, theta, tasks):
    """(T, arms): with what probability the policy theta (T, P) pulls each arm of a bandit."""
    arms = np.arange(c.family.arms)
    if c.deterministic:
        return (c.network.mode(theta, np.ones((len(tasks), 1, 1), theta.dtype)) == arms).astype(
            float
        )
    obs = np.ones((len(tasks), len(arms), 1), theta.dtype)
    return np.exp(c.network.log_prob(theta, obs, np.tile(arms, (len(tasks), 1))))


def adaptations(c, theta, n):
    """For each of n held-out tasks: its paths before and after 1, 2, ... adaptation steps, and its goal (2,).

    For a bandit: its probabilities (arms,), and its mean rewards (arms,). theta: meta-parameters (P or 2P,).
    """
    tasks, more = chosen(c, n), replace(c, episodes=c.adapt_episodes)
    steps = metarl.adapted_by_step(more, theta, tasks, (c.seed, metarl.TEST, PICTURES))
    view, target = (probabilities, c.family.means) if c.family.discrete else (paths, c.family.goals)
    views = [view(c, theta_k, tasks) for theta_k in steps]
    return list(zip(zip(*views, strict=True), target(tasks), strict=True))


def columns(lines):
    """(iterations, 5): the numbers in lines of log.csv, bytes; a line that does not hold five is left out."""
    rows = []
    for line in lines:
        with contextlib.suppress(ValueError):
            rows.append([float(x) for x in line.split(b",")])
    return np.array([row for row in rows if len(row) == 5]).reshape(-1, 5)


def when(k):
    return "before adaptation" if k == 0 else f"after {k} step{'s' * (k > 1)}"


# --- As text ---
def printable(text, encoding):
    """The text, in ASCII if the encoding (None: any) does not have all its characters."""
    try:
        text.encode(encoding or "utf-8")
        return text
    except UnicodeEncodeError:
        return text.replace(" ± ", "+/-").translate(ASCII)


def sparkline(values, width=72):
    """A character for each value, or for the mean of several, from the lowest to the highest; blank if not finite."""
    values = np.array([part.mean() for part in np.array_split(values, min(width, len(values)))])
    known = np.isfinite(values)
    low, high = (values[known].min(), values[known].max()) if known.any() else (0, 0)
    height = (values - low) / (high - low) if high > low else np.full(len(values), 0.5)
    return "".join(
        BLOCKS[min(int(8 * h), 7)] if finite else " "
        for h, finite in zip(height, known, strict=True)
    )


def text_maps(paths, goal, width=35, height=15):
    """Each path in a frame of its own, side by side on one scale, from o to the goal X."""
    paths = [path[np.isfinite(path).all(1)] for path in paths]
    low, high = (f([*np.concatenate(paths), goal], 0) for f in (np.min, np.max))
    cells, shape = (
        np.array([width - 1, height - 1]),
        np.array([1, 2]),
    )  # a character is twice as high as wide
    unit, maps = ((high - low) / shape / cells).max() or 1, []
    for path in paths:
        canvas, t = np.full((height, width), " "), np.arange(len(path))
        way = np.transpose(
            [np.interp(np.linspace(0, len(path) - 1, 50 * len(path)), t, x) for x in path.T]
        )
        for mark, points in (("·", way), ("o", path[:1]), ("X", goal[None])):
            x, y = np.rint((points - (low + high) / 2) / shape / unit + cells / 2).astype(int).T
            canvas[height - 1 - y, x] = mark
        edge = "─" * width
        maps.append([f"┌{edge}┐", *(f"│{''.join(row)}│" for row in canvas), f"└{edge}┘"])
    return "\n".join("  ".join(row) for row in zip(*maps, strict=True))


def text_bars(probabilities, means, width=20):
    """A line for each of the best arms: its mean reward, and each of the probabilities (arms,) as a bar."""
    lines = []
    for arm in best(means):
        bars = [
            f"{'█' * int(np.nan_to_num(p[arm]) * width + 0.5):{width}} {p[arm]:5.3f}"
            for p in probabilities
        ]
        lines.append(f"arm {arm + 1:<3} mean {means[arm]:6.2f}  " + "   ".join(bars))
    return "\n".join(lines)


def best(means):
    return np.argsort(-means, kind="stable")[:ARMS]


def text(c, theta, lines):
    """One held-out task before and after adaptation of theta (P or 2P,), and the returns over the iterations."""
    [(steps, target)] = adaptations(c, theta, 1)
    ends = [0, c.test_steps] if c.test_steps else [0]
    what = "probabilities of the arms" if c.family.discrete else "path from o to the goal X"
    picture = (text_bars if c.family.discrete else text_maps)([steps[k] for k in ends], target)
    out = f"\nOne held-out task, {what} {' and '.join(map(when, ends))}:\n{picture}"
    post = columns(lines)[:, 2]
    if post.size:
        out += f"\nReturn after adaptation in training, from {post[0]:.2f} to {post[-1]:.2f}:\n{sparkline(post)}"
    return out


# --- As SVG ---
def require_plots(out):
    """Raise Stop where there is no directory for plots, or nothing to draw them."""
    if out is None:
        raise Stop(2, f"--plot: needs --out DIR, to write {' and '.join(PLOTS)} there")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise Stop(2, "--plot: needs matplotlib: pip install matplotlib") from None


def svg(draw, *arguments):
    """What draw(figure, *arguments) draws, as an SVG file: the same bytes each time."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), io.BytesIO() as file:
        matplotlib.rcdefaults()  # whatever the user prefers
        matplotlib.rcParams.update(STYLE)
        figure = Figure((8, 3))  # inches
        draw(figure, *arguments)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        return file.getvalue()


def draw_adaptation(figure, c, theta, n=4, steps=3):
    """A panel for each of n held-out tasks, before and after at most so many adaptation steps."""
    drawn, draw = adaptations(c, theta, n), draw_arms if c.family.discrete else draw_paths
    panels = figure.subplots(
        1, len(drawn), sharex=True, sharey=not c.family.discrete, squeeze=False
    )[0]
    for panel, (views, target) in zip(panels, drawn, strict=True):
        draw(panel, views[: steps + 1], target)
    panels[0].set(ylabel="arm: its mean reward" if c.family.discrete else "y")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)


def draw_paths(panel, paths, goal):
    for k, path in enumerate(paths):
        panel.plot(*path.T, **LOOK[k], markevery=[-1], label=when(k), linewidth=1.8)
    panel.plot(0, 0, "x", color="black", label="start")
    panel.plot(*goal, "*", color=COLOURS[4], markersize=15, zorder=0, label="goal")
    panel.set(aspect="equal", xlabel="x")


def draw_arms(panel, probabilities, means):
    rows, width = np.arange(len(best(means))), 0.8 / len(probabilities)
    for k, p in enumerate(probabilities):
        panel.barh(
            rows - 0.4 + (k + 0.5) * width, p[best(means)], width, color=COLOURS[k], label=when(k)
        )
    panel.set_yticks(rows, [f"{arm + 1}: {means[arm]:.2f}" for arm in best(means)])
    panel.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xlabel="probability of the arm")


def draw_curves(axes, curves, optimum, **labels):
    """curves: {label: (x, y) or, with the half widths of intervals, (x, y, half)}, and the optimum as a line."""
    for i, (label, (x, y, *_)) in enumerate(curves.items()):
        axes.plot(x, y, **LOOK[i], label=label, markevery=max(1, len(x) // 8))
    axes.axhline(optimum, color="grey", linewidth=1, label="optimum")
    axes.set(
        ylim=axes.get_ylim(), **labels
    )  # before the intervals, which may be far wider than all the rest
    for i, (x, y, *intervals) in enumerate(curves.values()):
        for half in intervals:
            axes.errorbar(x, y, half, color=COLOURS[i], ls="", linewidth=0.8, capsize=2)
    axes.xaxis.set_major_formatter("{x:g}")


def draw_log(figure, lines, optimum):
    log, axes = columns(lines), figure.subplots()
    curves = {
        f"{name} adaptation": (log[:, 3] / 1e6, log[:, i])
        for i, name in ((1, "before"), (2, "after"))
    }
    draw_curves(
        axes, curves, optimum, xlabel="environment steps (millions)", ylabel="return in training"
    )
    figure.legend(loc="outside right center")
