"""Stage 4: adaptation, meta-gradients, trust regions, and one iteration of each outer loop."""

from unittest import mock

import numpy as np

import autodiff as ad
import metarl
import policies
from autodiff import Tensor, grad
from harness.settings import Setting

from .loops_es import signed
from .loops_outer import fitness_by_loops, iteration_by_loops
from .loops_steps import meta_gradient_by_loops, trust_region_by_loops
from .vectors import Case, Streams, noise, slip

STAGE = "4-steps"


# --- What the project computes ---
def setting(c):
    """The Setting of a dictionary of options."""
    c = dict(c)
    env = ",".join(f"{name}={value!r}" for name, value in c.pop("options").items())
    hidden = tuple(c.pop("hidden"))
    hidden = {"policy": "mlp", "hidden": hidden} if hidden else {"policy": "linear"}
    return Setting(env=f"{c.pop('family')}:{env}", **hidden, **c)


def meta_gradient(c, x, tasks, noise):
    """Everything on the way from x (P,) or (2P,) to the loss of each task after adaptation,
    and its gradient.
    """
    reptile, c = c["algo"] == "reptile", setting(c)
    with mock.patch.object(metarl, "noise_at", Streams(noise)):
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
    with mock.patch.object(metarl, "noise_at", Streams(noise)):
        (product,) = metarl.fisher_product(v, c, x, tasks, address)
        (trial,) = metarl.trial(new, c, x, tasks, address)
    return {"fisher_product": product, "kl": trial[:, 0], "gain": trial[:, 1]}


def fitness(c, x, tasks, noise):
    c = setting(c)
    with mock.patch.object(metarl, "noise_at", Streams(noise)):
        return {"values": metarl.fitness(c, x, tasks, (0, metarl.TRAIN, 0, metarl.INNER, 0))[0]}


def iteration(c, state, noise):
    """The state after one iteration, and the tasks that it took."""
    c, t = setting(c), int(state["t"])
    with mock.patch.object(metarl, "noise_at", Streams(noise)):
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
POINT = {"family": "pointmass", "options": {"horizon": 4, "box": 0.3, "radius": 0.1}}
BANDIT = {"family": "bandit", "options": {"arms": 3, "horizon": 3, "prior": []}}
PLAIN = {
    **POINT, "hidden": [], "activation": "tanh", "std": 1.0,
    "alpha": 0.5, "alpha_decay": 0.5, "beta": 0.125, "beta_alpha": 0.25, "epsilon": 0.5,
    "tasks": 2, "episodes": 3, "inner_steps": 1, "inner_optimizer": "sgd",
    "estimator": "log-prob", "sampling_term": False, "learn_alpha": False,
    "outer": "adam", "max_norm": 10.0,
    "gamma": 0.9, "lam": 1.0, "baseline": "time", "standardise": True,
}  # fmt: skip
SHORT = {"episodes": 2, "options": {**POINT["options"], "horizon": 3}}  # where the check is slow
BOX = {
    "inner": "hc", "inner_sigma": 0.25, "deterministic": True, "population": 6, "sigma": 0.25,
    "fitness": "ranks",
    "nes": "snes", "learn_alpha": True, "episodes": 4,
}  # fmt: skip
DIFFERENCES = (
    "loop form; derivatives by differences, episodes held fixed, in decimal arithmetic of 60 digits"
)


def start(c, draw):
    """x (P,) or (2P,): a policy not far from 0, with little noise, so that some episodes end."""
    P = setting(c).pi.size
    return np.append(
        draw.standard_normal(P) * 0.5, draw.standard_normal(P * c["learn_alpha"]) * 0.5
    )


META = {  # name: (options, why)
    "first-order": (
        {"algo": "fomaml", "estimator": "first-order"},
        "the inner gradient is a constant",
    ),
    "log-prob": ({"algo": "maml"}, "through one inner step: the Hessian of log pi"),
    "log-prob, mlp": ({"algo": "maml", "hidden": [3]}, "the same with a hidden layer"),
    "log-prob, two steps": (
        {"algo": "maml", "inner_steps": 2},
        "the second step is alpha_decay times as long",
    ),
    "lvc": ({"algo": "maml", "estimator": "lvc"}, "a likelihood ratio for each step"),
    "dice": ({"algo": "maml", "estimator": "dice"}, "the ratio of all actions so far"),
    "dice, mlp": (
        {"algo": "maml", "estimator": "dice", "hidden": [3]},
        "the same with a hidden layer",
    ),
    "sampling term": (
        {"algo": "emaml", "sampling_term": True},
        "what the sampling of the inner episodes contributes",
    ),
    "sampling term, plain": (
        {
            "algo": "emaml",
            "sampling_term": True,
            "estimator": "first-order",
            "baseline": "none",
            "standardise": False,
        },
        "without baseline and units, to first order",
    ),
    "learned step sizes": (
        {"algo": "maml", "learn_alpha": True},
        "x holds theta and the logarithms of factors on alpha",
    ),
    "bandit": (
        {
            "algo": "maml",
            **BANDIT,
            "estimator": "dice",
            "baseline": "none",
            "gamma": 1.0,
            "episodes": 4,
        },
        "a categorical policy; actions drawn first, then rewards",
    ),
    "linear baseline": (
        {"algo": "maml", "baseline": "linear", "lam": 0.8},
        "ridge regression, generalised advantages",
    ),
    "joint": ({"algo": "joint", "inner_steps": 0}, "no inner step: a policy gradient"),
    "reptile": (
        {"algo": "reptile", "inner_steps": 3},
        "three inner steps, none of them differentiated",
    ),
    "reptile, adam": (
        {"algo": "reptile", "inner_steps": 2, "inner_optimizer": "adam"},
        "Adam starts anew in each task",
    ),
}
# fmt: off
WEIGHTS = "D, w = life[\"episodes\"][-1], life[\"weights\"][-1]"
RAW = "w = advantages(c, D, False)[0] / D[\"mask\"].size"
STEP = "theta = theta - step_size(c, k) * scale * g\n    life"
KL = (
    "return [divergence(c, life[\"path\"][-1], path[-1],",
    "return [divergence(c, path[-1], life[\"path\"][-1],",
)
NORM = "g = g * smaller(Decimal(1), c[\"max_norm\"] / norm)"
PAIRS = "[pair[0][0] for pair in results] + [pair[1][0] for pair in results]"
FAULTS = {
    "log-prob": [
        ("the inner gradient is a constant: the second-order term is missing",
         ("life, c.get(\"estimator\") == \"first-order\")", "life, True)")),
        ("the inner step goes up the loss", (STEP, STEP.replace("-", "+"))),
        ("the mean is over the steps that still run, not over K H",
         ("[0] / (K * H)", "[0] / sum(D[\"mask\"].ravel())")),
        ("advantages are not standardised in the outer loss",
         (WEIGHTS, WEIGHTS + "\n    " + RAW)),
        ("the outer loss is that of theta, not of theta'",
         ("log_prob(network_of(c), path[-1],", "log_prob(network_of(c), path[0],")),
        ("the episodes after adaptation are taken with theta, not with theta'",
         ("D = episodes(c, theta, task, i, list(stream), c[\"episodes\"])",
          "D = episodes(c, split(c, x)[0], task, i, list(stream), c[\"episodes\"])")),
    ],
    "log-prob, two steps": [
        ("all steps have the length of the first", ("(1 if k == 0 else c[\"alpha_decay\"])", "1")),
    ],
    "lvc": [("the estimator is log-prob", ("elif c[\"estimator\"] == \"lvc\":", "elif False:"))],
    "dice": [
        ("the ratio is that of the step alone (lvc)",
         ("if c[\"estimator\"] == \"dice\":", "if False:"),
         ("elif c[\"estimator\"] == \"lvc\":", "elif True:")),
        ("the ratio before the step is not subtracted",
         ("(ratio * so_far - before)", "(ratio * so_far)")),
    ],
    "sampling term": [
        ("the mean over inner episodes in place of the sum",
         ("log_pi[k] * (J - others)", "log_pi[k] * (J - others) / K")),
        ("an episode is compared with the mean of all, itself too",
         ("sum(R[:k] + R[k + 1 :]) / max(K - 1, 1)", "sum(R) / K")),
    ],
    "learned step sizes": [
        ("the factors are 1 + s, not exp s",
         ("[s.exp() for s in x[P:]]", "[1 + s for s in x[P:]]")),
    ],
    "reptile, adam": [
        ("Adam's first two steps both count as the first",
         ("adam(g, m, v, k + 1)", "adam(g, m, v, k or 1)")),
    ],
    "trust region": [
        ("the Fisher matrix is that of the adapted parameters", ("return J.T @ H @ J", "return H")),
        ("the divergence is taken the other way round", KL),
    ],
    "hc": [("the last query is kept, not the best",
            ("if below(best, mean_return(D)):", "if True:"))],
    "es": [("the deviation is divided by n - 1",
            ("n * deviation_of(R)", "n * deviation_of(R) * (Decimal(n) / (n - 1)).sqrt()"))],
    "iteration: maml": [
        ("gradients are summed over tasks, not averaged",
         ("for life in lives) / len(lives)\n    if c", "for life in lives)\n    if c")),
        ("Adam counts from 0, not from 1",
         ("int(state[\"t\"]) + 1)\n    beta", "int(state[\"t\"]))\n    beta")),
    ],
    "iteration: maml, sgd": [
        ("each element is clipped, not the length of the gradient",
         (NORM, "g = np.array([max(min(e, c[\"max_norm\"]), -c[\"max_norm\"]) for e in g])")),
    ],
    "iteration: meta-sgd": [("step sizes take the rate of theta",
                             ("[c[\"beta_alpha\"]]", "[c[\"beta\"]]"))],
    "iteration: reptile": [
        ("the difference is divided by alpha",
         ("c[\"epsilon\"] * sum", "c[\"epsilon\"] / c[\"alpha\"] * sum")),
        ("the step goes away from phi_k", ("x + c[\"epsilon\"]", "x - c[\"epsilon\"]")),
    ],
    "iteration: es-maml": [
        ("returns are minimised", ("[-value for value in v]", "v")),
        ("values are told pair by pair, not in the order of the points",
         (PAIRS, "[member[0] for pair in results for member in pair]")),
    ],
}
# fmt: on


def meta_gradients():
    for name, (options, why) in META.items():
        c, streams = {**PLAIN, **options}, Streams()
        draw = noise(name)
        x = start(c, draw)
        tasks = (
            0.3 * draw.uniform(-1, 1, (2, 2)) if c["family"] == "pointmass" else draw.random((2, 3))
        )
        meta_gradient(c, x, np.round(tasks, 3), streams.draws)
        inputs = {"c": c, "x": x, "tasks": np.round(tasks, 3), "noise": streams.draws}
        faults = [
            (words, slip(meta_gradient_by_loops, *edits)) for words, *edits in FAULTS.get(name, ())
        ]
        tolerance = 1e-7 if c["baseline"] == "linear" else 1e-9
        yield Case(
            f"meta-gradient: {name}", "meta_gradient", why, DIFFERENCES, inputs, tolerance, faults
        )


def trust_regions():
    for name in ("log-prob", "dice", "sampling term", "learned step sizes"):
        c = {**PLAIN, **META[name][0], "outer": "trpo", **SHORT}
        draw, streams = noise(f"trust region: {name}"), Streams()
        x, tasks = start(c, draw), np.round(draw.uniform(-0.3, 0.3, (2, 2)), 3)
        v, new = draw.standard_normal(x.size), x + 0.05 * draw.standard_normal(x.size)
        trust_region(c, x, tasks, streams.draws, v, new)
        inputs = {"c": c, "x": x, "tasks": tasks, "noise": streams.draws, "v": v, "new": new}
        faults = [
            (words, slip(trust_region_by_loops, *edits)) for words, *edits in FAULTS["trust region"]
        ]
        why = "J^T F' J v; divergence and improvement, on the same episodes, of the policy "
        why += "adapted from `new`"
        checked = DIFFERENCES + "; F and J as whole matrices"
        yield Case(
            f"trust region: {name}",
            "trust_region",
            why,
            checked,
            inputs,
            1e-9,
            faults if name == "log-prob" else (),
        )


INNER = {
    "hc": ({}, "hill climbing: of 4 queries the first is theta; the best is kept"),
    "es": (
        {"inner": "es", "deterministic": False, "learn_alpha": False},
        "an ES step on two pairs of queries",
    ),
}


def fitnesses():
    for name, (options, why) in INNER.items():
        c = {**PLAIN, "algo": "nes", **BOX, **options}
        streams = Streams()
        draw = noise(f"fitness: {name}")
        tasks = np.round(draw.uniform(-0.3, 0.3, (2, 2)), 3)
        x = np.array([[start(c, draw) for _ in range(3)] for _ in tasks]).round(4)
        fitness(c, x, tasks, streams.draws)
        inputs = {"c": c, "x": x, "tasks": tasks, "noise": streams.draws}
        faults = [(words, slip(fitness_by_loops, *edits)) for words, *edits in FAULTS.get(name, ())]
        yield Case(
            f"fitness: {name}",
            "fitness",
            f"{why}; all members of a task share its noise",
            "loop form",
            inputs,
            1e-9,
            faults,
        )


ITERATIONS = {
    "maml": ({"algo": "maml"}, "Adam on the mean over tasks, in its fourth step"),
    "maml, sgd": ({"algo": "maml", "outer": "sgd", "max_norm": 0.0625},
                  "a long gradient is scaled to max_norm"),
    "fomaml": ({"algo": "fomaml", "estimator": "first-order"}, "the first-order form"),
    "emaml": ({"algo": "emaml", "sampling_term": True}, "with the sampling term"),
    "meta-sgd": ({"algo": "maml", "learn_alpha": True},
                 "learned step sizes have a rate of their own"),
    "joint": ({"algo": "joint", "inner_steps": 0}, "no inner loop"),
    "trpo": ({"algo": "maml", "outer": "trpo", **SHORT},
             "conjugate gradients, then shorter and shorter steps"),
    "reptile": ({"algo": "reptile", "inner_steps": 2}, "half of the way to the mean of phi_k"),
    "reptile, serial": ({"algo": "reptile", "inner_steps": 2, "tasks": 1},
                        "one task in an iteration"),
    "es-maml": ({"algo": "es-maml", **BOX},
                "each antithetic pair has a task of its own; ranks, Adam"),
    "es-maml, raw": (
        {"algo": "es-maml", **BOX, **INNER["es"][0], "fitness": "raw", "outer": "sgd"},
        "to the letter of the paper: values, SGD",
    ),
    "nes, snes": ({"algo": "nes", **BOX}, "all members on all tasks, under the same noise"),
    "nes, xnes": ({"algo": "nes", **BOX, "nes": "xnes", "learn_alpha": False},
                  "the same with a full covariance"),
    "cma-es": ({"algo": "cma-es", **BOX, "learn_alpha": False, "population": 10},
               "the same with CMA-ES"),
}  # fmt: skip


def begun(c, draw):
    """A state as it could be after three iterations: optimisers remember moments."""
    state = metarl.initial_state(setting(c))
    state |= {
        "theta": start(c, draw),
        "env_steps": np.array(96.0),
        "pre": np.array(-1.5),
        "post": np.array(-1.25),
    }
    state["t"] = np.array(3)
    if "m" in state:
        state["m"] = np.round(0.1 * draw.standard_normal(state["m"].shape), 3)
        state["v"] = np.round(0.01 + 0.01 * draw.random(state["m"].shape), 4)
    return {name: value[()] for name, value in state.items()}


def iterations():
    for name, (options, why) in ITERATIONS.items():
        c, streams = {**PLAIN, **options}, Streams()
        state = begun(c, noise(f"iteration: {name}"))
        iteration(c, state, streams.draws)
        faults = [
            (words, slip(iteration_by_loops, *edits))
            for words, *edits in FAULTS.get(f"iteration: {name}", ())
        ]
        inputs = {"c": c, "state": state, "noise": streams.draws}
        # Conjugate gradients lose half of the digits: g scaled by any number moves theta by 1e-8.
        tolerance = 1e-6 if c["outer"] == "trpo" else 1e-9
        yield Case(f"iteration: {name}", "iteration", why, DIFFERENCES, inputs, tolerance, faults)


def cases():
    for group in (meta_gradients, trust_regions, fitnesses, iterations):
        yield from group()
