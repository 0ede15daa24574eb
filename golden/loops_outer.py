"""Stages 4 and 6 once more: the outer loops, from state to state,
and the inner loops of the black boxes.
"""

from decimal import Decimal
from functools import partial

import numpy as np

from . import loops_envs, loops_es
from .exact import below, smaller
from .loops_policies import deviation_of, init_by_loops
from .loops_steps import (
    adam,
    episodes,
    live,
    mean_return,
    meta_gradient_of_task,
    network_of,
    size,
    split,
    streams_of,
    trust_region_step,
)

BLACK_BOXES = ("es-maml", "nes", "cma-es")


# --- Inner loops without gradients, of one member in task number i ---
def hill_climb(c, theta, scale, task, i, stream):
    D = episodes(c, theta, task, i, stream, 1)
    best, taken = mean_return(D), [D]
    for _ in range(c["episodes"] - 1):
        trial = theta + c["inner_sigma"] * scale * stream.pop(0)["values"][i]
        D = episodes(c, trial, task, i, stream, 1)
        taken.append(D)
        new = mean_return(D)
        if new != best and below(best, new):  # a tie is exact
            theta, best = trial, new
    return theta, taken


def es_gradient(c, theta, scale, task, i, stream):
    taken, g = [], 0
    for _ in range(c["episodes"] // 2):
        eps = stream.pop(0)["values"][i]
        pair = [
            episodes(c, theta + sign * c["inner_sigma"] * scale * eps, task, i, stream, 1)
            for sign in (1, -1)
        ]
        g = g + (mean_return(pair[0]) - mean_return(pair[1])) * eps
        taken += pair
    R, n = [mean_return(D) for D in taken], len(taken)
    return theta + c["alpha"] * scale * g / (n * deviation_of(R)), taken


def fitness_of_member(c, x, task, i, streams):
    """The return after adaptation, that of the first episode, and the environment steps."""
    (theta, scale), everything = split(c, x), []
    for k in range(c["inner_steps"]):
        inner = {"hc": hill_climb, "es": es_gradient}[c["inner"]]
        theta, taken = inner(c, theta, scale, task, i, list(streams[k]))
        everything += taken
    K = 1 if c["deterministic"] else c["episodes"]
    everything.append(episodes(c, theta, task, i, list(streams[-1]), K))
    steps = sum(int(D["mask"].sum()) for D in everything)
    return mean_return(everything[-1]), mean_return(everything[0]), steps


def fitness_by_loops(c, x, tasks, noise):
    members = enumerate(zip(x, tasks, strict=True))
    streams = streams_of(c, noise)
    return {
        "values": np.array(
            [
                [fitness_of_member(c, m, task, i, streams)[0] for m in row]
                for i, (row, task) in members
            ]
        )
    }


# --- The outer loops: from state to state ---
def descend(c, state, g):
    norm = (g @ g).sqrt()
    if norm > 0:
        g = g * smaller(Decimal(1), c["max_norm"] / norm)
    if c.get("outer") == "adam":
        g, state["m"], state["v"] = adam(g, state["m"], state["v"], int(state["t"]) + 1)
    beta = c["beta"]
    if c.get("learn_alpha"):
        beta = np.array([c["beta"]] * size(c) + [c["beta_alpha"]] * size(c))
    state["theta"] = state["theta"] - beta * g


def record(state, firsts, lasts, steps):
    state["pre"], state["post"] = sum(firsts) / len(firsts), sum(lasts) / len(lasts)
    state["env_steps"] += steps


def gradient_loop(c, state, tasks, noise, t):
    """maml, fomaml, emaml, joint and reptile."""
    x = state["theta"]
    lives = [live(c, x, task, i, streams_of(c, noise, t)) for i, task in enumerate(tasks)]
    taken = [life["episodes"] for life in lives]
    steps = sum(int(D["mask"].sum()) for Ds in taken for D in Ds)
    record(
        state, [mean_return(Ds[0]) for Ds in taken], [mean_return(Ds[-1]) for Ds in taken], steps
    )
    if c["algo"] == "reptile":
        state["theta"] = x + c["epsilon"] * sum(life["path"][-1] - x for life in lives) / len(lives)
        return
    g = sum(meta_gradient_of_task(c, x, life) for life in lives) / len(lives)
    if c.get("outer") == "trpo":
        state["theta"] = trust_region_step(c, x, g, lives)
    else:
        descend(c, state, g)


def method(c):
    return {"es-maml": "openai-es", "nes": c.get("nes"), "cma-es": "cma-es"}[c["algo"]]


def strategy_of(c, state):
    """Constants, the state that `loops_es` moves, and its functions of the strategy."""
    n = len(state["theta"])
    constants, start, ask, tell = loops_es.METHODS[method(c)]
    options = {"sigma0": c["sigma"]}
    if method(c) == "openai-es":
        options |= {"fitness": c["fitness"], "optimizer": c["outer"], "lr": c["beta"]}
    s = {"mean": state["theta"], **{key: state[key] for key in start(n, options)}}
    return s, constants(n, c["population"], **options), ask, partial(tell, **options)


def black_box(c, state, tasks, noise, t):
    """es-maml, nes and cma-es."""
    s, k, ask, tell = strategy_of(c, state)
    x, n, streams = ask(s, noise[f"{t}/ask"][0]["values"]), c["population"], streams_of(c, noise, t)
    if c["algo"] == "es-maml":  # members i and i + n/2 are judged on task i
        results = [
            [fitness_of_member(c, x[j], task, i, streams) for j in (i, i + n // 2)]
            for i, task in enumerate(tasks)
        ]
        v = [pair[0][0] for pair in results] + [pair[1][0] for pair in results]
    else:
        results = [
            [fitness_of_member(c, m, task, i, streams) for m in x] for i, task in enumerate(tasks)
        ]
        v = [sum(row[j][0] for row in results) / len(tasks) for j in range(n)]
    flat = [r for row in results for r in row]
    record(state, [r[1] for r in flat], [r[0] for r in flat], sum(r[2] for r in flat))
    tell(s, k, np.array(x), [-value for value in v], int(state["t"]) + 1)
    state["theta"] = s.pop("mean")
    state |= s


def outer_step(c, state, noise, t):
    n = c["population"] // 2 if c["algo"] == "es-maml" else c["tasks"]
    draws = noise[f"{t}/tasks"]
    tasks = loops_envs.tasks_by_loops(c["family"], c["options"], n, "train", draws)["tasks"]
    loop = black_box if c["algo"] in BLACK_BOXES else gradient_loop
    loop(c, state, tasks, noise, t)
    state["t"] += 1
    if "B" in state and c["algo"] == "cma-es":
        state["B"] = loops_es.signed(state["B"])
    return tasks


def iteration_by_loops(c, state, noise):
    state = dict(state)
    tasks = outer_step(c, state, noise, int(state["t"]))
    return {**state, "tasks": tasks}


# --- A run ---
def run_by_loops(c, noise, iterations):
    theta = init_by_loops({**network_of(c), "std": c.get("std")}, noise["init"])["theta"]
    x = np.append(theta, [Decimal(0)] * (size(c) if c.get("learn_alpha") else 0))
    state = {"t": 0, "env_steps": Decimal(0), "pre": Decimal(0), "post": Decimal(0), "theta": x}
    if c["algo"] in BLACK_BOXES:
        state |= loops_es.METHODS[method(c)][1](len(x), {"sigma0": c["sigma"]})
    elif c["algo"] != "reptile" and c.get("outer") == "adam":
        state |= {"m": 0 * x, "v": 0 * x}
    states = [dict(state)]
    for t in range(iterations):
        outer_step(c, state, noise, t)
        states.append(dict(state))
    return {name: np.array([s[name] for s in states]) for name in state}
