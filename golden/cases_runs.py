"""Stage 6: whole short runs, three iterations from the first draw to the last parameters."""

from unittest import mock

import numpy as np

import metarl

from .cases_steps import BANDIT, BOX, DIFFERENCES, PLAIN, SHORT, setting
from .loops_es import signed
from .loops_outer import run_by_loops
from .vectors import Case, Streams

STAGE = "6-runs"


def run(c, noise, iterations):
    """Every state variable at the beginning and after each iteration,
    with a leading axis of iterations + 1.

    The eigenvectors of CMA-ES are given the sign that `signed` gives them, before the next
    iteration.
    """
    c = setting(c)
    with mock.patch.object(metarl, "noise_at", Streams(noise)):
        states = [metarl.initial_state(c)]
        for _ in range(iterations):
            state = next(metarl.train(c, states[-1]))
            states.append({**state, **({"B": signed(state["B"])} if c.algo == "cma-es" else {})})
    return {name: np.stack([s[name] for s in states]) for name in states[0]}


FUNCTIONS = {"run": (run, run_by_loops)}
INTERMEDIATE = {
    "run": ("t", "env_steps", "pre", "post", "m", "v", "sigma", "B", "C", "D", "p_sigma", "p_c")
}
RUNS = {
    "maml": ({"algo": "maml"}, "second order, Adam"),
    "maml, mlp": ({"algo": "maml", "hidden": [2], **SHORT}, "the same with a hidden layer"),
    # four tasks: with two, conjugate gradients make 2e-6 of a difference of 1e-14
    # in the first theta
    "maml, dice, trpo": (
        {"algo": "maml", "estimator": "dice", "outer": "trpo", **SHORT, "tasks": 4},
        "DiCE, TRPO",
    ),
    "maml, bandit": (
        {"algo": "maml", **BANDIT, "alpha": 2.0, "baseline": "none"},
        "a categorical policy",
    ),
    "fomaml": ({"algo": "fomaml", "estimator": "first-order", "outer": "sgd"}, "first order, SGD"),
    "emaml": (
        {"algo": "emaml", "sampling_term": True, "learn_alpha": True},
        "the sampling term, learned step sizes",
    ),
    "joint": ({"algo": "joint", "inner_steps": 0}, "no inner loop"),
    "reptile": ({"algo": "reptile", "inner_steps": 2}, "two inner steps, half of the way"),
    "reptile, mlp": (
        {"algo": "reptile", "inner_steps": 2, "hidden": [3]},
        "the same with a hidden layer",
    ),
    "es-maml": ({"algo": "es-maml", **BOX}, "hill climbing inside, OpenAI-ES with Adam outside"),
    "nes, snes": ({"algo": "nes", **BOX}, "SNES"),
    "nes, xnes": ({"algo": "nes", **BOX, "nes": "xnes"}, "xNES"),
    "cma-es": ({"algo": "cma-es", **BOX, "learn_alpha": False, "population": 10}, "CMA-ES"),
}


def cases():
    for name, (options, why) in RUNS.items():
        c, streams = {**PLAIN, **options}, Streams()
        run(c, streams.draws, 3)
        inputs = {"c": c, "noise": streams.draws, "iterations": 3}
        yield Case(
            f"run: {name}", "run", why, DIFFERENCES, inputs, 1e-6 if c["outer"] == "trpo" else 1e-9
        )
