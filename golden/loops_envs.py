"""Stage 2 once more: each family in loops over tasks, episodes and steps, in decimal arithmetic."""

from decimal import Decimal
from functools import partial

import numpy as np

from . import exact


# --- Episodes under given actions ---
def step(family, options, state, action, task, draw, X):
    """One step of one episode: the next state, the reward, and whether the episode ends."""
    if family in ("bandit", "linear-bandit"):
        mean = arm_means(family, task, X)[action]
        reward = (
            Decimal(exact.less(draw, mean))
            if family == "bandit"
            else mean + options["noise"] * draw
        )
        return state, reward, False
    goal = [Decimal("0.5"), Decimal(0)] if family == "turned-pointmass" else task
    move = [exact.clip(a, Decimal(-1), Decimal(1)) / 10 for a in action]
    if family == "turned-pointmass":
        move = turned(move, task[0])
    state = [s + m for s, m in zip(state, move, strict=True)]
    if family == "fourcorners":
        state = [exact.clip(s, Decimal(-5), Decimal(5)) for s in state]
    offset = [s - g for s, g in zip(state, goal, strict=True)]
    distance = sum(x**2 for x in offset).sqrt()
    done = family == "pointmass" and all(exact.less(abs(x), options["radius"]) for x in offset)
    return state, reward_at(family, distance), done


def turned(x, angle):
    cos, sin = exact.cosine(angle), exact.sine(angle)
    return [cos * x[0] - sin * x[1], sin * x[0] + cos * x[1]]


def reward_at(family, distance):
    if family == "sparse-pointmass":
        return 1 - distance if exact.less(distance, Decimal("0.2")) else Decimal(0)
    if family == "fourcorners":
        return -4 + exact.larger(Decimal(0), 4 - distance**2)
    return -distance


def arm_means(family, task, X):
    return (
        list(task)
        if family == "bandit"
        else [sum(a * b for a, b in zip(x, task, strict=True)) for x in X]
    )


def best_return(family, options, task, X):
    """Of the policy that knows the task: the best arm;
    or, simulated, at full speed along each axis to the goal.
    """
    if X is not None or family == "bandit":
        return options["horizon"] * max(arm_means(family, task, X))
    goal = [Decimal("0.5"), Decimal(0)] if family == "turned-pointmass" else list(task)
    aim = turned(goal, -task[0]) if family == "turned-pointmass" else goal
    at, total = [Decimal(0), Decimal(0)], Decimal(0)
    for _ in range(options["horizon"]):
        at = [
            x + max(min(a - x, Decimal("0.1")), Decimal("-0.1"))
            for x, a in zip(at, aim, strict=True)
        ]
        total += reward_at(family, sum((x - a) ** 2 for x, a in zip(at, aim, strict=True)).sqrt())
    return total


def episodes_by_loops(family, options, tasks, actions, noise, X=None):
    names = ("states", "raw_rewards", "done", "obs", "rewards", "mask")
    T, K, H = actions.shape[:3]
    first = [Decimal(1)] if "bandit" in family else [Decimal(0), Decimal(0)]
    fields = {name: np.empty((T, K, H), object) for name in names}
    for i, k in np.ndindex(T, K):
        state, running = first, True
        for t in range(H):
            draw = noise[t]["values"][i, k] if noise else None
            fields["obs"][i, k, t] = state
            state, reward, done = step(family, options, state, actions[i, k, t], tasks[i], draw, X)
            fields["mask"][i, k, t] = running
            kept = reward if running else Decimal(0)
            for name, value in (
                ("states", state),
                ("raw_rewards", reward),
                ("done", done),
                ("rewards", kept),
            ):
                fields[name][i, k, t] = value
            running = running and not done
    fields = {
        name: np.array(value.tolist(), bool if name in ("done", "mask") else object)
        for name, value in fields.items()
    }
    fields["returns"] = np.array([sum(fields["rewards"][i].ravel()) / K for i in range(T)])
    return fields | {
        "optimal_return": np.array([best_return(family, options, task, X) for task in tasks])
    }


# --- Tasks from noise ---
def tasks_by_loops(family, options, n, split, noise):
    if family == "fourcorners":
        corners, (order, first) = [(2, 2), (-2, 2), (-2, -2), (2, -2)], (d["values"] for d in noise)
        return {
            "tasks": np.array([[Decimal(x) for x in corners[(p + int(first)) % 4]] for p in order])
        }
    cells, within = (draw["values"] for draw in noise)
    rows = []
    for i in range(n):
        cell, odd = list(cells[i]), split == "test"
        if sum(cell) % 2 != odd:  # the wrong colour: take the neighbour of the same pair
            cell[0] += -1 if cell[0] % 2 else 1
        u = [(int(c) + w) / 50 for c, w in zip(cell, within[i], strict=True)]
        rows.append(task_at(family, options, u))
    return {"tasks": np.array(rows)}


def task_at(family, options, u):
    """From a point of the unit cube to a task."""
    if family == "pointmass":
        return [options["box"] * (2 * x - 1) for x in u]
    if family == "sparse-pointmass":
        return [exact.cosine(PI * u[0]), exact.sine(PI * u[0])]
    if family == "turned-pointmass":
        return [PI * (2 * u[0] - 1)]
    if family == "linear-bandit":
        return [1 + solved(normal_below, x, Decimal(-9), Decimal(9)) for x in u]
    prior = options["prior"] or [[1, 1]] * options["arms"]
    return [
        solved(partial(beta_below, a, b), x, Decimal(0), Decimal(1))
        for x, (a, b) in zip(u, prior, strict=True)
    ]


PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")


def solved(f, y, low, high):
    """x with f(x) = y between low and high, f increasing: by halving."""
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (middle, high) if f(middle) < y else (low, middle)
    return low


def beta_below(a, b, x):
    """The distribution function of Beta(a, b) for whole a, b:
    at least a of a + b - 1 coins of probability x.
    """
    n, total, term = a + b - 1, Decimal(0), (1 - x) ** (a + b - 1)
    for j in range(n + 1):
        total += term if j >= a else 0
        term *= x / (1 - x) * (n - j) / (j + 1)
    return total


def normal_below(x):
    """Phi(x) = 1/2 + phi(x) (x + x^3/3 + x^5/(3 5) + ...)."""
    term = total = x
    n = 1
    while abs(term) > Decimal("1e-50"):
        n += 2
        term = term * x * x / n
        total += term
    return Decimal("0.5") + (-x * x / 2).exp() / (2 * PI).sqrt() * total
