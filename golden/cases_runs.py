"""Stage 6: whole short runs, three iterations from the first draw to the last parameters."""

import numpy as np

import metarl

from .cases_steps import DIFFERENCES, begin, setting, with_noise
from .loops_es import signed
from .loops_outer import run_by_loops
from .options_steps import RUNS, options_of
from .vectors import Case

STAGE = "6-runs"


def run(c, noise, iterations):
    """Every state variable at the beginning and after each iteration,
    with a leading axis of iterations + 1.

    The eigenvectors of CMA-ES are given the sign that `signed` gives them, before the next
    iteration.
    """
    c = setting(c)
    with with_noise(noise):
        states = [metarl.initial_state(c)]
        for _ in range(iterations):
            state = next(metarl.train(c, states[-1]))
            states.append({**state, **({"B": signed(state["B"])} if c.algo == "cma-es" else {})})
    return {name: np.stack([s[name] for s in states]) for name in states[0]}


FUNCTIONS = {"run": (run, run_by_loops)}
INTERMEDIATE = {
    "run": ("t", "env_steps", "pre", "post", "m", "v", "sigma", "B", "C", "D", "p_sigma", "p_c")
}


def cases():
    for name, (options, why) in RUNS.items():
        name = f"run: {name}"
        c = options_of("run", options)
        _, streams = begin(name)
        run(c, streams, 3)
        inputs = {"c": c, "noise": streams.draws, "iterations": 3}
        tolerance = 1e-6 if c.get("outer") == "trpo" else 1e-9
        yield Case(name, "run", why, DIFFERENCES, inputs, tolerance)
