"""The options of the cases of stages 4 and 6, and the faults that some of them tell apart.

Each number is its own: none is another one, its double, its square, or the product of two others.
So a port that takes one option for another gets other numbers (tests/test_golden.py holds it).
"""

import numpy as np

from harness.settings import IGNORED

POINT = {"family": "pointmass", "options": {"horizon": 5, "box": 0.33, "radius": 0.0815}}
TURNED = {"family": "turned-pointmass", "options": {"horizon": 5}}
SPARSE = {"family": "sparse-pointmass", "options": {"horizon": 5}}
CORNERS = {"family": "fourcorners", "options": {"horizon": 5}}
BANDIT = {"family": "bandit", "options": {"arms": 4, "horizon": 5, "prior": []}}
PLAIN = {
    **POINT, "hidden": [], "activation": "tanh", "std": 0.8,
    "alpha": 0.55, "alpha_decay": 0.62, "beta": 0.12, "beta_alpha": 0.17, "epsilon": 0.73,
    "tasks": 2, "episodes": 3, "inner_steps": 1, "inner_optimizer": "sgd",
    "estimator": "log-prob", "sampling_term": False, "learn_alpha": False,
    "outer": "adam", "max_norm": 9.5,
    "gamma": 0.93, "lam": 0.84, "baseline": "time", "standardise": True,
}  # fmt: skip
BOX = {
    "inner": "hc", "inner_sigma": 0.37, "deterministic": True, "population": 8, "sigma": 0.23,
    "fitness": "ranks", "nes": "snes", "learn_alpha": True,
    "episodes": 5, "options": {**POINT["options"], "horizon": 3},
}  # fmt: skip
BOX_BANDIT = {**BANDIT, "options": {**BANDIT["options"], "horizon": 3}}  # beside BOX
STOCHASTIC = {"deterministic": False, "learn_alpha": False}
# Whole numbers of their own for two inner steps
TWO = {"inner_steps": 2, "tasks": 1}
TWO_OF_BOX = {"inner_steps": 2, "tasks": 5, "episodes": 7}
TWO_OF_REPTILE = {"inner_steps": 2, "tasks": 3, "episodes": 7}
# Adam divides each element of g by its size. If the advantages sum to 0, some elements may be 0 but
# for rounding: so they do not.
ADAM_INSIDE = {
    "inner_steps": 2, "inner_optimizer": "adam", "baseline": "none", "standardise": False,
}  # fmt: skip

# What only an outer loop reads, and what only a run does
OF_ITERATIONS = ("outer", "beta", "beta_alpha", "max_norm", "epsilon", "tasks")
OF_ITERATIONS += ("population", "sigma", "fitness", "nes")
OF_RUNS = ("std",)
UNREAD = {
    "meta_gradient": OF_ITERATIONS + OF_RUNS,
    "trust_region": OF_ITERATIONS + OF_RUNS,
    "fitness": OF_ITERATIONS + OF_RUNS,
    "iteration": OF_RUNS,
    "run": (),
}


def options_of(function, *given):
    """PLAIN with what is given, the later before the earlier; but only what the function reads."""
    c = dict(PLAIN)
    for options in given:
        c |= options
    unread = {*UNREAD[function]}
    for (name, value), names in IGNORED.items():
        if c.get(name) == value:
            unread |= {*names}
    if not c["hidden"]:
        unread.add("activation")
    if function == "run":  # also a policy that does not draw has a deviation in theta
        unread.discard("std")
    if c["family"] == "bandit":
        unread.add("std")
    if c["inner_steps"] < 2:
        unread.add("alpha_decay")
    if c["inner_steps"] < 1:
        unread |= {"alpha", "inner_optimizer"}
    unread -= {"algo", "inner_steps", "estimator"}  # reptile names one, whatever it is
    return {name: value for name, value in c.items() if name not in unread}


# name: (options, why)
META = {
    "first-order": (
        {"algo": "fomaml", "estimator": "first-order"},
        "the inner gradient is a constant",
    ),
    "first-order, two steps, learned": (
        {"algo": "fomaml", "estimator": "first-order", "learn_alpha": True, **TWO},
        "but a factor of it is not",
    ),
    "log-prob": ({"algo": "maml"}, "through one inner step: the Hessian of log pi"),
    "log-prob, mlp": ({"algo": "maml", "hidden": [2]}, "the same with a hidden layer"),
    "log-prob, two steps": (
        {"algo": "maml", **TWO},
        "the second step is alpha_decay times as long",
    ),
    "lvc": ({"algo": "maml", "estimator": "lvc"}, "a likelihood ratio for each step"),
    "lvc, two steps": (
        {"algo": "maml", "estimator": "lvc", **TWO},
        "the Hessian is that of the policy which took the episodes of its step",
    ),
    "lvc, relu": (
        {"algo": "maml", "estimator": "lvc", "hidden": [4], "activation": "relu"},
        "relu in place of tanh",
    ),
    "dice": ({"algo": "maml", "estimator": "dice"}, "the ratio of all actions so far"),
    "dice, mlp": (
        {"algo": "maml", "estimator": "dice", "hidden": [2]},
        "the same with a hidden layer",
    ),
    "dice, two steps, learned": (
        {"algo": "maml", "estimator": "dice", "learn_alpha": True, **TWO},
        "both steps have the same factors",
    ),
    "sampling term": (
        {"algo": "emaml", "sampling_term": True},
        "what the sampling of the inner episodes contributes",
    ),
    "sampling term, two steps": (
        {"algo": "emaml", "sampling_term": True, **TWO},
        "of both steps, in the unit of the episodes after them",
    ),
    "sampling term, one episode": (
        {"algo": "emaml", "sampling_term": True, **TWO, "episodes": 1, "baseline": "none"},
        "there is no other episode to compare with",
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
    "sampling term, linear baseline": (
        {"algo": "emaml", "sampling_term": True, "baseline": "linear"},
        "b_n is a mean of returns here as well",
    ),
    "sampling term, learned step sizes": (
        {"algo": "maml", "sampling_term": True, "learn_alpha": True, **TWO},
        "step sizes move theta_k, which S is a function of; and algo is maml",
    ),
    "sampling term, nothing gained": (
        {"algo": "emaml", "sampling_term": True, **SPARSE},
        "rewards before the step alone: the deviation after it is 0, so S is 0",
    ),
    "learned step sizes": (
        {"algo": "maml", "learn_alpha": True},
        "x holds theta and the logarithms of factors on alpha",
    ),
    "learned step sizes, two steps": (
        {"algo": "maml", "learn_alpha": True, **TWO},
        "the gradient by a factor comes from both steps",
    ),
    "bandit": (
        {"algo": "maml", **BANDIT, "estimator": "dice", "baseline": "none"},
        "a categorical policy; actions drawn first, then rewards",
    ),
    "bandit, plain": (
        {"algo": "maml", **BANDIT, "baseline": "none", "standardise": False},
        "advantages that do not sum to 0: only then the Hessian of log pi counts in a bandit",
    ),
    "bandit, mlp": (
        {"algo": "maml", **BANDIT, "estimator": "lvc", "hidden": [2], "gamma": 0.0},
        "a hidden layer; without discounted rewards, 0^0 = 1",
    ),
    "turned-pointmass": (
        {"algo": "maml", **TURNED, "estimator": "dice"},
        "the task turns the moves, the goal stays",
    ),
    "sparse-pointmass": (
        {"algo": "maml", **SPARSE, "estimator": "lvc"},
        "rewards near the goal alone",
    ),
    "fourcorners": ({"algo": "maml", **CORNERS}, "rewards within a distance of 2"),
    "linear baseline": (
        {"algo": "maml", "baseline": "linear"},
        "ridge regression, generalised advantages",
    ),
    "joint": ({"algo": "joint", "inner_steps": 0}, "no inner step: a policy gradient"),
    "reptile": (
        {"algo": "reptile", "inner_steps": 3, "episodes": 2},
        "three inner steps, none of them differentiated",
    ),
    "reptile, adam": (
        {"algo": "reptile", **ADAM_INSIDE},
        "Adam starts anew in each task",
    ),
    "reptile, bandit": (
        {"algo": "reptile", **ADAM_INSIDE, **BANDIT},
        "Adam with a categorical policy",
    ),
}
TRUST = {
    "log-prob": (META["log-prob"][0], ""),
    "lvc": (META["lvc"][0], ": ratios to the policies on the path of x"),
    "dice": (META["dice"][0], ": ratios to the policies on the path of x"),
    "dice, two steps": ({**META["dice"][0], **TWO}, " in two steps"),
    "first-order": (META["first-order, two steps, learned"][0], ": J is a diagonal, and g"),
    "sampling term": (META["sampling term"][0], ", S included"),
    "sampling term, two steps": (
        META["sampling term, two steps"][0],
        ", S of both steps included",
    ),
    "learned step sizes": (META["learned step sizes"][0], ", which step sizes change as well"),
    "mlp": ({**META["lvc, relu"][0], "hidden": [2]}, ", with a hidden layer"),
    "bandit": (META["bandit"][0], ", categorical"),
}
# Inner loops of black boxes
FITNESS = {
    "hc": ({}, "hill climbing: of 5 queries the first is theta; the best is kept"),
    "hc, stochastic": (
        {**STOCHASTIC, **TWO_OF_BOX, "episodes": 3, "options": {**POINT["options"], "horizon": 5}},
        "a policy that draws; two steps of queries, each from the best of the one before",
    ),
    "hc, relu": (
        {**TURNED, "options": {"horizon": 3}, "hidden": [4], "activation": "relu"},
        "a hidden layer; moves are turned",
    ),
    "hc, ties": (
        {**BOX_BANDIT, "learn_alpha": False},
        "a query as good as the best does not take its place",
    ),
    "hc, bandit": ({**BOX_BANDIT, **STOCHASTIC}, "actions drawn first, then rewards"),
    "es": (
        {"inner": "es", **STOCHASTIC, "episodes": 4, "options": {**POINT["options"], "horizon": 5}},
        "an ES step on two pairs of queries",
    ),
    "es, learned": (
        {"inner": "es"},
        "factors on the step and on its queries; of 5 queries one is not taken",
    ),
    "es, two steps": (
        {"inner": "es", **STOCHASTIC, **TWO_OF_BOX},
        "the second step is as long as the first",
    ),
    "es, bandit": ({"inner": "es", **BOX_BANDIT, **STOCHASTIC}, "with a categorical policy"),
    "es, nothing gained": (
        {"inner": "es", **SPARSE, "options": {"horizon": 3}},
        "all returns are equal: there is no step",
    ),
}
TRPO = {"algo": "maml", "outer": "trpo"}
FIRST_ORDER = {"algo": "fomaml", "estimator": "first-order"}
ITERATIONS = {
    "maml": ({"algo": "maml"}, "Adam on the mean over tasks, in its fourth step"),
    "maml, sgd": ({"algo": "maml", "outer": "sgd", "max_norm": 0.063},
                  "a long gradient is scaled to max_norm"),
    "maml, clipped": ({"algo": "maml", "max_norm": 0.063}, "before Adam sees it"),
    "maml, relu": ({"algo": "maml", **TURNED, "hidden": [2], "activation": "relu"},
                   "a hidden layer; moves are turned"),
    "maml, nothing gained": (
        {"algo": "maml", **SPARSE},
        "all advantages are 0, and so is the gradient: the moments go on",
    ),
    "fomaml": (FIRST_ORDER, "the first-order form"),
    "fomaml, bandit": (
        {**FIRST_ORDER, **BANDIT,
         "options": {**BANDIT["options"], "prior": [[1, 3], [2, 1], [5, 2], [1, 1]]}},
        "tasks from a prior",
    ),
    "emaml": ({"algo": "emaml", "sampling_term": True}, "with the sampling term"),
    "meta-sgd": ({"algo": "maml", "learn_alpha": True},
                 "learned step sizes have a rate of their own"),
    "meta-sgd, sgd": (
        {"algo": "maml", "learn_alpha": True, "outer": "sgd", "max_norm": 0.063, **TWO},
        "the length is that of both halves of the gradient; two inner steps",
    ),
    "meta-sgd, clipped": (
        {"algo": "maml", "learn_alpha": True, "max_norm": 0.063},
        "the length of both halves, before Adam",
    ),
    "joint": ({"algo": "joint", "inner_steps": 0}, "no inner loop"),
    "joint, bandit": ({"algo": "joint", "inner_steps": 0, **BANDIT}, "with a categorical policy"),
    "trpo": (TRPO, "conjugate gradients, then shorter and shorter steps"),
    "trpo, five failures": (
        {**TRPO, **FIRST_ORDER, "alpha": 2.6},
        "five steps go too far",
    ),
    "trpo, no step": (
        {**TRPO, **FIRST_ORDER, "alpha": 2.6},
        "eight steps go too far, seven others lose: x stays",
    ),
    "trpo, bandit": ({**TRPO, **BANDIT}, "conjugate gradients end after three steps"),
    "trpo, mlp": (
        {**TRPO, **BANDIT, "estimator": "lvc", "hidden": [2]},
        "nine steps go too far, five others lose; the last of all is taken",
    ),
    "trpo, fifteen failures": (
        {**TRPO, **TWO, "estimator": "dice"},
        "a sixteenth step would do, but x stays",
    ),
    "trpo, sixteen arms": (
        {**TRPO, **BANDIT, "options": {**BANDIT["options"], "arms": 16}},
        "conjugate gradients take ten steps, where an eleventh would still matter",
    ),
    "trpo, learned": (
        {**TRPO, **BANDIT, "estimator": "lvc", "learn_alpha": True},
        "step sizes are part of x",
    ),
    "trpo, emaml": (
        {"algo": "emaml", "sampling_term": True, "outer": "trpo"},
        "S is part of the loss",
    ),
    "trpo, two steps": ({**TRPO, **TWO, "estimator": "dice"}, "two inner steps"),
    "trpo, nothing gained": ({**TRPO, **SPARSE}, "the gradient is 0: x stays"),
    "reptile": ({"algo": "reptile", **TWO_OF_REPTILE}, "a part of the way to the mean of phi_k"),
    "reptile, serial": ({"algo": "reptile", **TWO}, "one task in an iteration"),
    "reptile, bandit": (
        {"algo": "reptile", **TWO_OF_REPTILE, **BANDIT, **ADAM_INSIDE},
        "Adam anew in each task, with a categorical policy",
    ),
    "es-maml": ({"algo": "es-maml", **BOX},
                "each antithetic pair has a task of its own; ranks, Adam"),
    "es-maml, raw": (
        {"algo": "es-maml", **BOX, **FITNESS["es"][0], "population": 14,
         "fitness": "raw", "outer": "sgd"},
        "to the letter of the paper: values, SGD",
    ),
    "es-maml, standardised": (
        {"algo": "es-maml", **BOX, "inner": "es", "fitness": "standardised"},
        "values over their deviation; an odd number of queries; learned step sizes",
    ),
    "es-maml, bandit": (
        {"algo": "es-maml", **BOX, **BOX_BANDIT, **TWO_OF_BOX, **STOCHASTIC, "population": 10},
        "values that tie; two inner steps",
    ),
    "nes, snes": ({"algo": "nes", **BOX}, "all members on all tasks, under the same noise"),
    "nes, snes, bandit": (
        {"algo": "nes", **BOX, **BOX_BANDIT, **STOCHASTIC, "inner": "es", "population": 7},
        "values that tie; an odd population",
    ),
    "nes, xnes": ({"algo": "nes", **BOX, "nes": "xnes", "learn_alpha": False},
                  "the same with a full covariance"),
    "nes, xnes, two steps": (
        {"algo": "nes", **BOX, "nes": "xnes", **STOCHASTIC, **TWO_OF_BOX},
        "two inner steps with a policy that draws",
    ),
    "cma-es": ({"algo": "cma-es", **BOX, "learn_alpha": False, "population": 11},
               "the same with CMA-ES"),
    "cma-es, stalled": (
        {"algo": "cma-es", **BOX, "learn_alpha": False, "population": 11},
        "p_sigma is long for a second generation: p_c takes no step",
    ),
    "cma-es, bandit": (
        {"algo": "cma-es", **BOX, **BOX_BANDIT, **TWO_OF_BOX, "learn_alpha": False},
        "values that tie; two inner steps",
    ),
    "cma-es, nothing gained": (
        {"algo": "cma-es", **BOX, **CORNERS, "options": {"horizon": 3}, "learn_alpha": False},
        "all values are equal: the points in the order of sampling",
    ),
}  # fmt: skip
RUNS = {
    "maml": ({"algo": "maml"}, "second order, Adam"),
    "maml, mlp": (
        {"algo": "maml", "hidden": [2], "tasks": 1},
        "the same with a hidden layer, on one task in an iteration",
    ),
    "maml, turned-pointmass": (
        {"algo": "maml", "estimator": "lvc", **TURNED, "baseline": "linear"},
        "moves are turned; a linear baseline",
    ),
    "maml, dice, trpo": ({**TRPO, "estimator": "dice"}, "DiCE, TRPO"),
    "maml, bandit": (
        {"algo": "maml", **BANDIT, "alpha": 2.6, "baseline": "none"},
        "a categorical policy",
    ),
    "fomaml": ({**FIRST_ORDER, "outer": "sgd"}, "first order, SGD"),
    "emaml": (
        {"algo": "emaml", "sampling_term": True, "learn_alpha": True},
        "the sampling term, learned step sizes",
    ),
    "joint": ({"algo": "joint", "inner_steps": 0}, "no inner loop"),
    "reptile": ({"algo": "reptile", **TWO_OF_REPTILE}, "two inner steps, a part of the way"),
    "reptile, mlp": (
        {"algo": "reptile", **TWO, "hidden": [4]},
        "the same with a hidden layer",
    ),
    "reptile, adam": (
        {"algo": "reptile", **TWO, **ADAM_INSIDE},
        "Adam forgets from task to task, and from iteration to iteration",
    ),
    "es-maml": ({"algo": "es-maml", **BOX}, "hill climbing inside, OpenAI-ES with Adam outside"),
    "es-maml, bandit": (
        {"algo": "es-maml", **BOX, **BOX_BANDIT, **STOCHASTIC, "inner": "es", "fitness": "raw",
         "population": 14},
        "a categorical policy; an ES step inside",
    ),
    "nes, snes": ({"algo": "nes", **BOX}, "SNES"),
    "nes, xnes": ({"algo": "nes", **BOX, "nes": "xnes", "learn_alpha": False}, "xNES"),
    "cma-es": (
        {"algo": "cma-es", **BOX, "learn_alpha": False, "population": 11},
        "CMA-ES",
    ),
    "cma-es, es": (
        {"algo": "cma-es", **BOX, **STOCHASTIC, "inner": "es", "population": 12, **TURNED,
         "options": {"horizon": 3}},
        "CMA-ES, an ES step inside; moves are turned",
    ),
}  # fmt: skip
# Inputs that are not drawn
PATH = np.array([0.61, -0.47, 0.82, -0.35, 0.53, 0.74, -0.66, 0.29])
BY_HAND = {
    # Goals that are too far for a reward
    "fitness: es, nothing gained": {"tasks": np.array([[0.8, 0.6], [-0.6, 0.8]])},
    # In its second generation not too long, but it would be in the first
    "iteration: cma-es": {"t": 1, "p_sigma": np.round(2.5 * PATH, 3)},
    # Too long in the second, but it would not be in the third
    "iteration: cma-es, stalled": {"t": 1, "p_sigma": np.round(3.6 * PATH, 3)},
}
# Cases whose first draws came too close to a decision, or do not lead where they should
OTHER_DRAWS = {
    "meta-gradient: sampling term, nothing gained": "nothing gained 27",
    "iteration: trpo": "trpo 0",
    "iteration: trpo, five failures": "trpo first 20",
    "iteration: trpo, no step": "trpo first 21",
    "iteration: trpo, bandit": "trpo bandit 1",
    "iteration: trpo, sixteen arms": "trpo arms 5",
    "iteration: trpo, mlp": "trpo mlp 16",
    "iteration: trpo, fifteen failures": "trpo two 47",
    "iteration: trpo, learned": "trpo learned 1",
    "iteration: trpo, emaml": "trpo sampling 2",
    "iteration: trpo, two steps": "trpo two 6",
    "run: maml, dice, trpo": "run 0",
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
    "meta-gradient: log-prob": [
        ("the inner gradient is a constant: the second-order term is missing",
         ("life, c.get(\"estimator\") == \"first-order\")", "life, True)")),
        ("the inner step goes up the loss", (STEP, STEP.replace("-", "+"))),
        ("the mean is over the steps that still run, not over K H",
         ("[0] / (K * H)", "[0] / sum(D[\"mask\"].ravel())")),
        ("advantages are not standardised in the outer loss",
         (WEIGHTS, WEIGHTS + "\n    " + RAW)),
        ("the outer loss is that of theta, not of theta'",
         ("of_policy(log_prob, c, path[-1])", "of_policy(log_prob, c, path[0])")),
        ("the episodes after adaptation are taken with theta, not with theta'",
         ("D = episodes(c, theta, task, i, list(stream), c[\"episodes\"])",
          "D = episodes(c, split(c, x)[0], task, i, list(stream), c[\"episodes\"])")),
    ],
    "meta-gradient: log-prob, two steps": [
        ("all steps have the length of the first", ("(1 if k == 0 else c[\"alpha_decay\"])", "1")),
    ],
    "meta-gradient: lvc": [
        ("the estimator is log-prob", ("elif c[\"estimator\"] == \"lvc\":", "elif False:")),
    ],
    "meta-gradient: dice": [
        ("the ratio is that of the step alone (lvc)",
         ("if c[\"estimator\"] == \"dice\":", "if False:"),
         ("elif c[\"estimator\"] == \"lvc\":", "elif True:")),
        ("the ratio before the step is not subtracted",
         ("(ratio * so_far - before)", "(ratio * so_far)")),
    ],
    "meta-gradient: sampling term": [
        ("the mean over inner episodes in place of the sum",
         ("log_pi[k] * (J - others)", "log_pi[k] * (J - others) / K")),
        ("an episode is compared with the mean of all, itself too",
         ("sum(R[:k] + R[k + 1 :]) / max(K - 1, 1)", "sum(R) / K")),
    ],
    "meta-gradient: learned step sizes": [
        ("the factors are 1 + s, not exp s",
         ("[s.exp() for s in x[P:]]", "[1 + s for s in x[P:]]")),
    ],
    "meta-gradient: reptile, adam": [
        ("Adam's first two steps both count as the first",
         ("adam(g, m, v, k + 1)", "adam(g, m, v, k or 1)")),
    ],
    "trust region: log-prob": [
        ("the Fisher matrix is that of the adapted parameters", ("return J.T @ H @ J", "return H")),
        ("the divergence is taken the other way round", KL),
    ],
    "fitness: hc": [("the last query is kept, not the best",
            ("if new != best and below(best, new):", "if True:"))],
    "fitness: es": [("the deviation is divided by n - 1",
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
