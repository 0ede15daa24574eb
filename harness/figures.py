"""Pictures of a run: as text, with no package at all, and as SVG, with matplotlib.

A picture shows the adaptation to tasks of the meta-test, done as there but under noise of its own,
so that the numbers of a run do not depend on its pictures. What can be drawn a family tells:

    goals(tasks) -> (T, 2)      its observations are positions in the plane: the paths to the goals
    means(tasks) -> (T, arms)   a bandit with these mean rewards: the probabilities of the arms

A family that has neither gets the curve of its training alone. Read what is drawn (`adaptations`),
then how: as text, or as SVG.
"""

import contextlib
import io
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

import metarl
from harness.checkpoints import Stop, replacing
from harness.terminal import say

PLOTS = ("paths.svg", "learning.svg")
ARMS = 10  # of a bandit; the others are not drawn
BLOCKS = "▁▂▃▄▅▆▇█"


# --- What is drawn ---
class View(NamedTuple):
    """What a picture shows of a policy in a task, and how."""

    words: str
    behaviour: Callable  # (c, theta (T, P), tasks) -> what theta does, an entry for each task
    target: Callable  # tasks -> what would be best, an entry for each task
    as_text: Callable  # (behaviours, target) -> lines
    as_panel: Callable  # (panel, behaviours, target)


def view(family):
    """The View of a family, or None where it does not tell what could be drawn."""
    if family.discrete and hasattr(family, "means"):
        words = "the probabilities of the arms"
        return View(words, probabilities, family.means, text_bars, draw_arms)
    if not family.discrete and family.obs_dim == 2 and hasattr(family, "goals"):
        words = "the path of the mean action, without noise, from o to the goal X"
        return View(words, paths, family.goals, text_maps, draw_paths)
    return None


def chosen(c, n):
    """Up to n tasks of the meta-test, (T, D).

    The first is the farthest from the origin, each other the one farthest from those before.
    """
    noise = metarl.noise_at(c.seed, metarl.TEST, metarl.TASKS)
    tasks = metarl.sample_tasks(c, c.test_tasks, noise, "test")
    rows = [np.linalg.norm(tasks, axis=1).argmax()]
    while len(rows) < min(n, len(tasks)):
        apart = np.linalg.norm(tasks[:, None] - tasks[rows], axis=2)
        rows.append(apart.min(1).argmax())
    return tasks[rows]


def adaptations(c, theta, n):
    """How meta-parameters theta (P or 2P,) adapt to each of n tasks: [(behaviours, target)].

    behaviours: for a point mass its paths, for a bandit its probabilities (arms,), before and after
    1, 2, ... c.test_steps adaptation steps. target: the goal (2,), or the mean rewards (arms,).
    """
    tasks = chosen(c, n)
    as_in_the_test = replace(c, episodes=c.adapt_episodes)
    address = (c.seed, metarl.TEST, metarl.PICTURES)
    adapted = metarl.adapted_by_step(as_in_the_test, theta, tasks, address)
    seen = view(c.family)
    by_step = [seen.behaviour(c, theta_k, tasks) for theta_k in adapted]
    by_task = zip(*by_step, strict=True)
    return list(zip(by_task, seen.target(tasks), strict=True))


def noise_of_the_family(c):
    """For its reset and its steps. The same for all parameters, so that all begin alike."""
    # Adaptation step k has the address that ends with k
    return metarl.noise_at(c.seed, metarl.TEST, metarl.PICTURES, c.test_steps)


def paths(c, theta, tasks):
    """Where the mean actions of theta (T, P) lead in each task, the way the policy knows.

    A list of T arrays (steps + 1, 2): the positions up to the end of the episode.
    """
    noise = noise_of_the_family(c)
    tasks = tasks[:, None]  # one episode each, as the second axis
    state = c.family.reset(tasks, (len(tasks), 1), noise)
    position = c.family.observe(state)
    positions = [position]
    running = np.ones((len(tasks), 1), bool)
    steps = np.zeros((len(tasks), 1), int)
    for _ in range(c.family.horizon):
        action = c.pi.mode(theta, position)
        state, _, done = c.family.step(state, action, tasks, noise)
        position = c.family.observe(state)
        positions.append(position)
        steps[running] += 1
        running &= ~done
    positions = np.stack(positions, 2)[:, 0]  # (T, horizon + 1, 2)
    return [path[: n + 1] for path, n in zip(positions, steps[:, 0], strict=True)]


def probabilities(c, theta, tasks):
    """(T, arms): with what probability the policy theta (T, P) pulls each arm of a bandit."""
    arms = np.arange(c.family.action_dim)
    tasks = tasks[:, None]
    shape = (len(tasks), len(arms))
    obs = c.family.observe(c.family.reset(tasks, shape, noise_of_the_family(c)))
    if c.deterministic:
        return (c.pi.mode(theta, obs) == arms).astype(float)
    return np.exp(c.pi.log_prob(theta, obs, np.broadcast_to(arms, shape)))


def columns(lines):
    """The numbers in lines of log.csv, bytes: (iterations, 5). What is damaged is left out."""
    rows = []
    for line in lines:
        with contextlib.suppress(ValueError):
            row = [float(x) for x in line.split(b",")]
            if len(row) == 5:
                rows.append(row)
    return np.array(rows).reshape(-1, 5)


def when(k):
    """In words, after k adaptation steps."""
    if k == 0:
        return "before adaptation"
    if k == 1:
        return "after 1 step"
    return f"after {k} steps"


# --- As text ---
def text(c, theta, lines):
    """The adaptation of theta (P or 2P,) to one task, and the returns over the iterations.

    No adaptation where the family has no View. lines: of log.csv.
    """
    parts = []
    if view(c.family) is not None:
        parts.append(text_of_adaptation(c, theta))
    post = columns(lines)[:, 2]
    if post.size > 0:
        ends = f"from {post[0]:.2f} to {post[-1]:.2f}"
        parts.append(f"\nReturn in training, last episodes, {ends}:\n{sparkline(post)}")
    return "\n".join(parts)


def text_of_adaptation(c, theta):
    """A title of two lines, and the behaviour before the first and after the last step."""
    [(behaviours, target)] = adaptations(c, theta, 1)
    ends = [0]
    if c.test_steps > 0:
        ends.append(c.test_steps)
    kind = "held-out task"
    if getattr(c.family, "splits_coincide", False):
        kind = "task"
    seen = view(c.family)
    times = " and ".join(when(k) for k in ends)
    title = f"\nThe {kind} farthest from the origin, {times}:\n{seen.words}\n"
    return title + seen.as_text([behaviours[k] for k in ends], target)


def text_maps(paths, goal, width=35, height=15):
    """Each path (n, 2) in a frame of its own, side by side, from o to the goal X, (2,)."""
    paths = [path[np.isfinite(path).all(1)] for path in paths]
    # All maps have one scale. It is found in three steps: the box that holds everything, in units
    # of the plane; the room in a frame, in columns and rows from the first to the last; then how
    # many units a column must stand for if the box is to fit. A row stands for twice as many, since
    # characters are about twice as high as wide.
    everything = np.concatenate([*paths, goal[None]])
    low = everything.min(0)
    high = everything.max(0)
    room = np.array([width - 1, height - 1])
    character = np.array([1, 2])
    scale = ((high - low) / character / room).max()
    if scale == 0:  # a single point
        scale = 1

    def place(points):
        """Rows and columns of the frame, from its upper left corner, at points (n, 2)."""
        from_the_middle = (points - (low + high) / 2) / character / scale
        x, y = np.rint(from_the_middle + room / 2).astype(int).T
        return height - 1 - y, x

    maps = []
    for path in paths:
        canvas = np.full((height, width), " ")
        canvas[place(dense(path))] = "·"  # what comes later covers what is there
        canvas[place(path[:1])] = "o"
        canvas[place(goal[None])] = "X"
        maps.append(framed(canvas))
    side_by_side = zip(*maps, strict=True)
    return "\n".join("  ".join(row) for row in side_by_side)


def dense(path):
    """The path (n, 2) with 50 points for each step, straight from one to the next: no gaps."""
    n = len(path)
    t = np.linspace(0, n - 1, 50 * n)
    return np.stack([np.interp(t, np.arange(n), x) for x in path.T], 1)


def framed(canvas):
    """The lines of a canvas of characters, (height, width), with a frame around them."""
    edge = "─" * canvas.shape[1]
    lines = ["│" + "".join(row) + "│" for row in canvas]
    return [f"┌{edge}┐", *lines, f"└{edge}┘"]


def text_bars(probabilities, means, width=20):
    """A line for each of the best arms: its mean reward, and a bar for each of `probabilities`.

    means, and each of probabilities: (arms,).
    """
    lines = []
    for arm in best(means):
        bars = [bar(p[arm], width) for p in probabilities]
        lines.append(f"arm {arm + 1:<3} mean {means[arm]:6.2f}  " + "   ".join(bars))
    return "\n".join(lines)


def bar(p, width):
    """A bar as long as the probability p, none where it is not a number, and p in figures."""
    length = int(np.nan_to_num(p) * width + 0.5)
    return f"{'█' * length:{width}} {p:5.3f}"


def best(means):
    """The numbers of the best ARMS arms, the best first."""
    return np.argsort(-means, kind="stable")[:ARMS]


def sparkline(values, width=72):
    """A character for each value, or for the mean of several, from the lowest to the highest.

    What is not finite is left blank.
    """
    parts = np.array_split(values, min(width, len(values)))
    values = np.array([part.mean() for part in parts])
    known = np.isfinite(values)
    height = np.full(len(values), 0.5)
    if known.any():
        low = values[known].min()
        high = values[known].max()
        if high > low:
            height = (values - low) / (high - low)
    line = ""
    for h, finite in zip(height, known, strict=True):
        if finite:
            line += BLOCKS[min(int(8 * h), 7)]
        else:
            line += " "
    return line


# --- As SVG ---
# An algorithm looks the same in all pictures: a colour that the colour-blind tell apart (Okabe &
# Ito 2008; emaml's is from Tol's muted scheme), and for black and white a line and a marker.
LOOKS = {
    "maml": ("#0072B2", "-", "o"),
    "fomaml": ("#56B4E9", "--", "s"),
    "emaml": ("#882255", "-.", "P"),
    "joint": ("#000000", ":", "X"),
    "reptile": ("#E69F00", (0, (8, 2)), "^"),
    "es-maml": ("#009E73", (0, (5, 1, 1, 1)), "D"),
    "nes": ("#CC79A7", (0, (5, 1, 1, 1, 1, 1)), "*"),
    "cma-es": ("#D55E00", (0, (4, 2)), "v"),
}
OTHER = ("#555555", "-", "o")  # any other algorithm
# The steps of an adaptation go from light to dark: before it, after 1, 2, 3 steps
STEP_LOOKS = [
    ("#AAAAAA", ":", "o"),
    ("#5DC863", "-", "s"),
    ("#21918C", "--", "^"),
    ("#3B2F70", "-.", "D"),
]
GOAL = "#F0E442"  # yellow, which no algorithm has
STYLE = {
    "svg.hashsalt": "metarl",
    "font.size": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.markersize": 5,
    "figure.constrained_layout.use": True,
}


def look(colour, line, marker):
    """The look of a curve, as matplotlib's arguments."""
    return {"color": colour, "linestyle": line, "marker": marker, "markerfacecolor": "white"}


def look_of(name):
    """The look of an algorithm.

    "NAME-pg", which is NAME with policy gradients for inner loop, has its colour and marker, but
    filled, on a dotted line.
    """
    plain = name.removesuffix("-pg")
    style = look(*LOOKS.get(plain, OTHER))
    if name != plain:
        style["linestyle"] = ":"
        style["markerfacecolor"] = style["color"]
    return style


class Curve(NamedTuple):
    """What draw_curves draws."""

    look: dict
    x: np.ndarray  # (points,)
    y: np.ndarray  # (points,)
    low: np.ndarray | None = None  # (points,), the ends of an interval
    high: np.ndarray | None = None


def require_plots(out):
    """Raise Stop where there is no directory for plots, or nothing to draw them."""
    if out is None:
        raise Stop(2, f"--plot: needs --out DIR, to write {' and '.join(PLOTS)} there")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise Stop(2, "--plot: needs matplotlib: pip install matplotlib") from None


def write_plots(out, c, theta, lines, optimum):
    """Write PLOTS of a run to the directory `out`, or one line that says why there is no paths.svg.

    theta: (P or 2P,). lines: of log.csv. optimum: a return, or None.
    """
    drawn = {"learning.svg": svg(draw_log, c, lines, optimum)}
    if view(c.family) is not None:
        drawn["paths.svg"] = svg(draw_adaptation, c, theta)
    else:
        name = type(c.family).__name__
        why = f"{name} has neither goals in the plane nor means of arms"
        say(f"metarl: --plot: no paths.svg: {why}")
    for name, picture in drawn.items():
        with replacing(out / name) as file:
            file.write(picture)


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
    """A panel for each of n tasks, before and after at most so many adaptation steps."""
    seen = view(c.family)
    drawn = adaptations(c, theta, n)
    one_plane = not c.family.discrete  # arms are sorted anew in each panel
    panels = figure.subplots(1, len(drawn), sharex=True, sharey=one_plane, squeeze=False)[0]
    for panel, (behaviours, target) in zip(panels, drawn, strict=True):
        seen.as_panel(panel, behaviours[: steps + 1], target)
    panels[0].set_ylabel("y" if one_plane else "arm: its mean reward")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)


def draw_paths(panel, paths, goal):
    """Each path (n, 2), with a marker where it ends."""
    for k, path in enumerate(paths):
        panel.plot(*path.T, **look(*STEP_LOOKS[k]), markevery=[-1], label=when(k), linewidth=1.8)
    start = paths[0][0]
    panel.plot(*start, "x", color="black", label="start")
    star = dict(color=GOAL, markeredgecolor="black", markeredgewidth=0.6, markersize=15)
    panel.plot(*goal, "*", **star, zorder=0, label="goal")
    panel.margins(0.12)  # room for the star
    panel.set(aspect="equal", xlabel="x")


def draw_arms(panel, probabilities, means):
    """For each of the best arms its bars, one for each of the probabilities (arms,)."""
    arms = best(means)
    rows = np.arange(len(arms))
    width = 0.8 / len(probabilities)
    for k, p in enumerate(probabilities):
        colour, *_ = STEP_LOOKS[k]
        middle = rows - 0.4 + (k + 0.5) * width
        panel.barh(middle, p[arms], width, color=colour, label=when(k))
    panel.set_yticks(rows, [f"{arm + 1}: {means[arm]:.2f}" for arm in arms])
    panel.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xlabel="probability of the arm")


def draw_curves(axes, curves, optimum):
    """curves: {label: Curve}. An interval is a light band. optimum: a line, unless it is None."""
    for label, curve in curves.items():
        sparse = max(1, len(curve.x) // 8)
        axes.plot(curve.x, curve.y, **curve.look, label=label, markevery=sparse)
        if curve.low is not None:
            band = dict(color=curve.look["color"], alpha=0.15, linewidth=0)
            axes.fill_between(curve.x, curve.low, curve.high, **band)
    if optimum is not None:
        axes.axhline(optimum, color="grey", linewidth=1, label="optimum")
        axes.autoscale_view(scalex=False)  # with room above the line
    axes.xaxis.set_major_formatter("{x:g}")


def draw_log(figure, c, lines, optimum):
    """The returns in training over environment steps, from the lines of log.csv.

    Of the first and of the last episodes of each iteration: before and after adaptation, but for
    reptile, whose last ones are those of its last inner step.
    """
    _, pre, post, env_steps, _ = columns(lines).T
    millions = env_steps / 1e6
    curves = {
        "first episodes": Curve(look(*STEP_LOOKS[0]), millions, pre),
        "last episodes": Curve(look_of(c.algo), millions, post),
    }
    axes = figure.subplots()
    axes.set(xlabel="environment steps (millions)", ylabel="return in training")
    draw_curves(axes, curves, optimum)
    figure.legend(loc="outside right center")
