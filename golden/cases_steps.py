"""Stage 4: adaptation, meta-gradients, trust regions, and one iteration of each outer loop."""

from unittest import mock

import numpy as np

import autodiff as ad
import metarl
import policies
from autodiff import Tensor, grad
from harness.settings import Setting

from . import loops_es
from .exact import digits, exact, rounded
from .loops_es import signed
from .loops_outer import fitness_by_loops, iteration_by_loops
from .loops_steps import meta_gradient_by_loops, trust_region_by_loops
from .options_steps import (
    BOX,
    BY_HAND,
    FAULTS,
    FITNESS,
    ITERATIONS,
    META,
    OTHER_DRAWS,
    STOCHASTIC,
    TRUST,
    options_of,
)
from .vectors import Case, Streams, noise, slip

STAGE = "4-steps"


# --- What the project computes ---
def setting(c):
    """The Setting of a dictionary of options."""
    c = dict(c)
    env = ",".join(f"{name}={value!r}" for name, value in c.pop("options").items())
    hidden = tuple(c.pop("hidden"))
    hidden = {"policy": "mlp", "hidden": hidden} if hidden else {"policy": "linear"}
    at_a_test = {"adapt_episodes": 2}  # which no case is
    return Setting(env=f"{c.pop('family')}:{env}", **hidden, **c, **at_a_test)


def with_noise(noise):
    """Noise from recorded draws, or from the Streams that records them."""
    streams = noise if isinstance(noise, Streams) else Streams(noise)
    return mock.patch.object(metarl, "noise_at", streams)


def meta_gradient(c, x, tasks, noise):
    """Everything on the way from x (P,) or (2P,) to the loss of each task after adaptation,
    and its gradient.
    """
    reptile, c = c["algo"] == "reptile", setting(c)
    with with_noise(noise):
        sample = metarl.sampler(c, tasks, (0, metarl.TRAIN, 0, metarl.INNER, 0))
        leaf = Tensor(np.tile(x, (len(tasks), 1)))
        path, episodes = metarl.adapt(c, leaf, sample)
        if not reptile:
            episodes.append(sample(c.inner_steps, path[-1].data))
        fields = {}
        for k, D in enumerate(episodes):
            A = policies.advantages(D, c.baseline, c.gamma, c.lam, c.standardise)
            fields |= {
                f"obs{k}": D.obs,
                f"actions{k}": D.actions,
                f"rewards{k}": D.rewards,
                f"mask{k}": D.mask,
            }
            fields[f"A{k}"] = A
            if k < c.inner_steps:
                theta = Tensor(path[k].data)
                fields[f"g{k}"] = grad(
                    ad.sum(metarl.surrogate(c, theta, D, c.estimator)), theta
                ).data
                fields[f"theta{k + 1}"] = path[k + 1].data
        if not reptile:
            fields["meta_gradient"] = metarl.meta_gradient(
                c, x, tasks, (0, metarl.TRAIN, 0, metarl.INNER, 0)
            )[0]
    return fields


def trust_region(c, x, tasks, noise, v, new):
    """For each task the Fisher matrix after adaptation times v;
    divergence and improvement of `new`.
    """
    c, address = setting(c), (0, metarl.TRAIN, 0, metarl.INNER, 0)
    with with_noise(noise):
        (product,) = metarl.fisher_product(v, c, x, tasks, address)
        (trial,) = metarl.trial(new, c, x, tasks, address)
    return {"fisher_product": product, "kl": trial[:, 0], "gain": trial[:, 1]}


def fitness(c, x, tasks, noise):
    c = setting(c)
    with with_noise(noise):
        return {"values": metarl.fitness(c, x, tasks, (0, metarl.TRAIN, 0, metarl.INNER, 0))[0]}


def iteration(c, state, noise):
    """The state after one iteration, and the tasks that it took."""
    c, t = setting(c), int(state["t"])
    with with_noise(noise):
        after = next(metarl.train(c, {name: np.asarray(value) for name, value in state.items()}))
        n = c.population // 2 if c.algo == "es-maml" else c.tasks
        tasks = metarl.sample_tasks(c, n, metarl.noise_at(0, metarl.TRAIN, t, metarl.TASKS))
    return {**after, **({"B": signed(after["B"])} if c.algo == "cma-es" else {}), "tasks": tasks}


FUNCTIONS = {
    "meta_gradient": (meta_gradient, meta_gradient_by_loops),
    "trust_region": (trust_region, trust_region_by_loops),
    "fitness": (fitness, fitness_by_loops),
    "iteration": (iteration, iteration_by_loops),
}

# --- The cases ---
DIFFERENCES = (
    "loop form; derivatives by differences, episodes held fixed, in decimal arithmetic of 60 digits"
)


def begin(name):
    """For the case called `name` the source of its inputs, and of the noise in its episodes."""
    name = OTHER_DRAWS.get(name, name)
    return noise(name), Streams(name=name)


def start(c, draw):
    """x (P,) or (2P,): a policy not far from 0, with little noise, so that some episodes end."""
    P = setting(c).pi.size
    learned = P if c.get("learn_alpha") else 0
    theta = draw.standard_normal(P) * 0.5
    return np.append(theta, draw.standard_normal(learned) * 0.5)


def near(c, draw):
    """Two tasks that a few steps are enough for."""
    if c["family"] == "bandit":
        # Never a number of three decimals, as are those that are compared with them
        return np.round(draw.random((2, c["options"]["arms"])), 3) * 0.999 + 0.0005
    if c["family"] == "turned-pointmass":
        return np.round(draw.uniform(-3, 3, (2, 1)), 3)
    size = {"sparse-pointmass": 0.2, "fourcorners": 2.0}.get(c["family"], 0.3)
    return np.round(size * draw.uniform(-1, 1, (2, 2)), 3)


def faults_of(case, oracle):
    return [(words, slip(oracle, *edits)) for words, *edits in FAULTS.get(case, ())]


def meta_gradients():
    for name, (options, why) in META.items():
        name = f"meta-gradient: {name}"
        c = options_of("meta_gradient", options)
        draw, streams = begin(name)
        x, tasks = start(c, draw), near(c, draw)
        meta_gradient(c, x, tasks, streams)
        inputs = {"c": c, "x": x, "tasks": tasks, "noise": streams.draws}
        tolerance = 1e-7 if c["baseline"] == "linear" else 1e-9
        faults = faults_of(name, meta_gradient_by_loops)
        yield Case(name, "meta_gradient", why, DIFFERENCES, inputs, tolerance, faults)


def trust_regions():
    for name, (options, more) in TRUST.items():
        name = f"trust region: {name}"
        c = options_of("trust_region", options)
        draw, streams = begin(name)
        x, tasks = start(c, draw), near(c, draw)
        v, new = draw.standard_normal(x.size), x + 0.05 * draw.standard_normal(x.size)
        trust_region(c, x, tasks, streams, v, new)
        inputs = {"c": c, "x": x, "tasks": tasks, "noise": streams.draws, "v": v, "new": new}
        why = "J^T F' J v; divergence and improvement, on the same episodes, of the policy "
        why += f"adapted from `new`{more}"
        checked = DIFFERENCES + "; F and J as whole matrices"
        faults = faults_of(name, trust_region_by_loops)
        yield Case(name, "trust_region", why, checked, inputs, 1e-9, faults)


def fitnesses():
    for name, (options, why) in FITNESS.items():
        name = f"fitness: {name}"
        c = options_of("fitness", {"algo": "nes"}, BOX, options)
        draw, streams = begin(name)
        tasks = BY_HAND.get(name, {}).get("tasks", near(c, draw))
        x = np.array([[start(c, draw) for _ in range(3)] for _ in tasks]).round(4)
        fitness(c, x, tasks, streams)
        inputs = {"c": c, "x": x, "tasks": tasks, "noise": streams.draws}
        why += "; all members of a task share its noise"
        faults = faults_of(name, fitness_by_loops)
        yield Case(name, "fitness", why, "loop form", inputs, 1e-9, faults)


def other_lengths():
    """x alone is wrong: by one number, by step sizes, by one step size for all."""
    plain, learned = {"algo": "maml"}, {"algo": "maml", "learn_alpha": True}
    for name, function, options, change, why in (
        ("x too short", "meta_gradient", plain, -1, "the last log deviation is missing"),
        ("x too long", "meta_gradient", plain, 1, "a number follows the log deviations"),
        ("step sizes that are not learned", "meta_gradient", plain, 8, "they are not asked for"),
        ("no step sizes", "meta_gradient", learned, -8, "they belong to x"),
        ("one step size for all", "meta_gradient", learned, -7, "there is one for each parameter"),
        ("a step size too many", "meta_gradient", learned, 1, "there is one for each parameter"),
        ("members too short", "fitness", {**STOCHASTIC}, -1, "a log deviation is missing"),
        ("members too long", "fitness", {**STOCHASTIC}, 1, "a number follows"),
        ("members without step sizes", "fitness", {}, -8, "they belong to x"),
    ):
        black_box = ({"algo": "nes"}, BOX) if function == "fitness" else ()
        c = options_of(function, *black_box, options)
        draw, streams = begin(name)
        x, tasks = start(c, draw), near(c, draw)
        wrong = np.resize(x, x.size + change)
        if function == "fitness":
            x, wrong = (np.tile(one, (2, 3, 1)) for one in (x, wrong))
        run, _ = FUNCTIONS[function]
        run(c, x, tasks, streams)
        inputs = {"c": c, "x": wrong, "tasks": tasks, "noise": streams.draws}
        yield Case(name, function, why, "the layout of x", inputs, rejects=True)


# --- States from the middle of a run ---
def moments(draw, n):
    """What Adam remembers, m and v."""
    m = np.round(0.1 * draw.standard_normal(n), 3)
    return {"m": m, "v": np.round(0.01 + 0.01 * draw.random(n), 4)}


def full_matrix(draw, n):
    """An n x n matrix that is not symmetric, not far from I."""
    return np.round(np.eye(n) + 0.2 * draw.standard_normal((n, n)), 3)


def covariance(draw, n):
    """C of CMA-ES, and the D and B of another one: those of a generation before."""
    new, old = full_matrix(draw, n), full_matrix(draw, n)
    with digits():
        values, vectors = loops_es.eigen(exact(old) @ exact(old).T)
        shape = {"D": np.array([v.sqrt() for v in values]), "B": signed(vectors)}
    return {"C": np.round(new @ new.T, 5), **rounded(shape)}


def shape_of(c, draw, n):
    """What the strategy of a black box has moved, but for its mean."""
    if c["algo"] == "es-maml":
        return {"sigma": np.array(c["sigma"]), **moments(draw, n)}
    if c.get("nes") == "snes":
        return {"sigma": np.round(0.2 + 0.1 * draw.random(n), 3)}
    if c["algo"] == "nes":
        return {"sigma": np.array(0.291), "B": full_matrix(draw, n)}
    paths = {name: np.round(0.4 * draw.standard_normal(n), 3) for name in ("p_sigma", "p_c")}
    return {"sigma": np.array(0.291), **paths, **covariance(draw, n)}


def begun(c, draw):
    """A state as it could be after three iterations, nothing as it was at first."""
    state = metarl.initial_state(setting(c))
    theta = start(c, draw)
    counts = {"t": 3, "env_steps": 96.0, "pre": -1.5, "post": -1.25}
    moved = {name: np.array(value) for name, value in counts.items()} | {"theta": theta}
    if c["algo"] in metarl.BLACK_BOXES:
        moved |= shape_of(c, draw, theta.size)
    elif "m" in state:
        moved |= moments(draw, theta.size)
    if moved.keys() != state.keys():
        raise AssertionError(f"{moved.keys()} is not all of a state")
    return {name: value[()] for name, value in moved.items()}


def iterations():
    for name, (options, why) in ITERATIONS.items():
        name = f"iteration: {name}"
        c = options_of("iteration", options)
        draw, streams = begin(name)
        state = begun(c, draw) | BY_HAND.get(name, {})
        iteration(c, state, streams)
        inputs = {"c": c, "state": state, "noise": streams.draws}
        # Conjugate gradients lose some digits.
        tolerance = 1e-8 if c.get("outer") == "trpo" else 1e-9
        faults = faults_of(name, iteration_by_loops)
        yield Case(name, "iteration", why, DIFFERENCES, inputs, tolerance, faults)


def cases():
    for group in (meta_gradients, trust_regions, fitnesses, iterations, other_lengths):
        yield from group()
