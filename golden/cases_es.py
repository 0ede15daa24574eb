"""Stage 5: the evolution strategies, generation by generation."""

import numpy as np

import es

from . import told_es as told
from .loops_es import signed, strategy_by_loops
from .told_es import bowl, quiet, usual
from .vectors import Case, Replay, noise, slip

STAGE = "5-evolution-strategies"
CONSTANTS = {
    es.OpenAIES: ("lr",),
    es.SNES: ("u", "eta_sigma"),
    es.XNES: ("u", "eta_sigma", "eta_B"),
    es.CMAES: ("w", "mu_eff", "c_1", "c_mu", "c_sigma", "d_sigma", "c_c", "chi_n", "gap"),
}


def strategy(method, options, x, f, noise, not_unique, state=None):
    """In each generation: the points that are asked for,
    and the state after the points x with values f are told.

    The eigenvectors of CMA-ES are given that sign which `signed` gives them, before the next points
    are asked for.
    """
    if method not in es.METHODS:
        raise ValueError(f"there is no method {method}")
    s = es.METHODS[method](**options)
    if state is not None:
        s.restore({**state, "history": np.empty((3, 0))})
    columns = []
    for points, values, draw in zip(x, f, noise, strict=True):
        s.rng = Replay([draw])
        asked = s.ask()
        s.tell(points, values)
        more = {}
        if isinstance(s, es.CMAES) and s.diagonal:
            more = {"inverse_root": 1 / s.D}
        elif isinstance(s, es.CMAES):
            s.B = s.B if not_unique else signed(s.B)
            more = {"inverse_root": s.B / s.D @ s.B.T}
        columns.append({"asked": asked, **s.state(), **more})
    fields = {
        name: np.stack([c[name] for c in columns])
        for name in columns[0]
        if name not in ("t", "history", *not_unique)
    }
    constants = {name: getattr(s, name) for name in CONSTANTS[type(s)]}
    return {**constants, **fields, "history": s.history}


FUNCTIONS = {"strategy": (strategy, strategy_by_loops)}
INTERMEDIATE = {"strategy": {*sum(CONSTANTS.values(), ()), "inverse_root", "p_sigma", "p_c"}}

# --- Faults: what is wrong, and the change of text in loops_es.py that does it ---
# fmt: off
PAIRS = (
    "[*(s[\"mean\"] + s[\"sigma\"] * e for e in z), "
    "*(s[\"mean\"] - s[\"sigma\"] * e for e in z)]"
)
NOISE = (
    "[e * shortening({}) for {} in {}]\n    mean = s[\"mean\"] + s[\"sigma\"] * (s[\"B\"]"
)
FAR = ("below(n.sqrt() + 6, length)", "False")
SCALED = "w[i] if w[i] >= 0 else w[i] * n / squares[i]"
FAULTS = {
    "openai-es: ranks": [
        ("f is maximised", ("s[\"mean\"] - k[\"lr\"] * g", "s[\"mean\"] + k[\"lr\"] * g")),
        ("each pair stands together: e1, -e1, e2, -e2, ...",
         (PAIRS, "[s[\"mean\"] + i * s[\"sigma\"] * e for e in z for i in (1, -1)]")),
        ("tied points take ranks in the order of sampling",
         ("for x in f:\n", "for i, x in enumerate(f):\n"), ("sum(y == x for y in f)", "1"),
         ("sum(y != x and below(y, x) for y in f)", "sum(y < x for y in f) + f[:i].count(x)")),
        ("the gradient is divided by the number of pairs",
         ("(popsize * s[\"sigma\"])", "(popsize // 2 * s[\"sigma\"])")),
        ("the division by sigma is missing", ("(popsize * s[\"sigma\"])", "popsize")),
    ],
    "openai-es: standardised": [
        ("the variance is divided by n - 1",
         ("for y in f) / n).sqrt()", "for y in f) / (n - 1)).sqrt()")),
        ("weight decay pushes away from 0", ("g + weight_decay", "g - weight_decay")),
    ],
    "openai-es: adam": [
        ("m and v are not corrected for their start at 0",
         ("s[\"m\"] / (1 - one**t), s[\"v\"] / (1 - two**t)", "s[\"m\"], s[\"v\"]")),
        ("the correction is that of the generation before",
         ("m, v = s[\"m\"]", "t = max(t - 1, 1); m, v = s[\"m\"]")),
    ],
    "snes": [
        ("1/popsize is not subtracted from the utilities",
         ("(0 if repaired(x) else Decimal(1) / len(f))", "0")),
        ("eta_sigma is not halved",
         ("k[\"eta_sigma\"] / 2 * grad[j]", "k[\"eta_sigma\"] * grad[j]")),
    ],
    "xnes": [
        ("points are sampled with B^T",
         ("s[\"sigma\"] * (s[\"B\"] @ e)", "s[\"sigma\"] * (s[\"B\"].T @ e)")),
        ("the trace stays in the update of B", ("(M - trace * identity(n))", "M")),
        ("B is multiplied from the left",
         ("s[\"B\"] @ expm(k[\"eta_B\"] / 2 * (M - trace * identity(n)))",
          "expm(k[\"eta_B\"] / 2 * (M - trace * identity(n))) @ s[\"B\"]")),
    ],
    "cma-es": [
        ("p_sigma takes y in place of C^(-1/2) y", ("(y, white))", "(y, y))")),
        ("negative weights are not scaled by n / |z|^2", (SCALED, "w[i]")),
        ("negative weights are left out", (SCALED, "max(w[i], Decimal(0))")),
        ("C decays by c_mu, not by c_mu times the sum of the weights", ("c_mu * sum(w)", "c_mu")),
        ("y is taken from the new mean",
         ("    scaled = [", "    y = [v - y_w for v in y]\n    scaled = [")),
        ("eigenvalues are taken for lengths of axes",
         ("Decimal(\"1e-20\")).sqrt() for", "Decimal(\"1e-20\")) for")),
    ],
    "cma-es: far": [
        ("p_c is never stalled", ("h = Decimal(below(", "h = Decimal(True or below(")),
        ("what a stalled p_c takes from the variance is not made up",
         ("c_1 * (1 - h) * c_c * (2 - c_c) - c_1", "-c_1")),
    ],
    "openai-es: told": [("points too far away count in full", FAR)],
    "snes: told": [
        ("points too far away count in full", FAR),
        ("weights below 0 of points that were moved to a bound", ("0 if repaired(x) else ", "")),
    ],
    "xnes: told": [
        ("the length is that of x, not that of B^-1 x",
         (NOISE.format("e", "e", "noise"),
          NOISE.format("(p - s[\"mean\"]) / s[\"sigma\"]", "e, p", "zip(noise, x, strict=True)"))),
    ],
    "cma-es: told": [
        ("points too far away count in full", FAR),
        ("weights below 0 of points that were moved to a bound",
         ("    if repaired(x):\n", "    if False:\n")),
        ("z is shortened, y is not", ("y = [a * v for a", "y = [v for a")),
    ],
    "cma-es: diagonal": [
        ("c_1 and c_mu are those of the full form", ("Decimal(n + 2) / 3 if diagonal else 1", "1")),
    ],
    "cma-es: late": [
        ("C is decomposed in every generation", ("if t % k[\"gap\"] == 0", "if True")),
    ],
}
# fmt: on


# --- The cases ---
def signs_set(s):
    if isinstance(s, es.CMAES) and not s.diagonal:
        s.B = signed(s.B)


def lived(name, method, generations, options):
    """The state after some generations on `bowl`, in 64ths: what is as good as the best so far
    is so however numbers are rounded.
    """
    s = es.METHODS[method](**options, rng=noise(f"{name}: before"))
    for _ in range(generations):
        x = s.ask()
        s.tell(x, np.round(64 * bowl(x)) / 64)
        signs_set(s)
    return {name: value for name, value in s.state().items() if name != "history"}


def case(
    name, method, why, change=usual, generations=5, not_unique=(), state=None, digits=3, **options
):
    """A run on `bowl` from the start, or from a state.

    What is told is rounded, so not quite what was asked for, and changed by change(t, x, f, s).
    """
    s = es.METHODS[method](**options)
    if state is not None:
        s.restore({**state, "history": np.empty((3, 0))})
    draws, xs, fs = noise(name), [], []
    s.first = s.t
    for _ in range(generations):
        s.rng = draws
        x = np.round(s.ask(), 3)
        f = np.round(bowl(x), 3)
        change(s.t + 1, x, f, s)
        x = np.round(x, digits)
        s.tell(x, f)
        xs.append(x)
        fs.append(f)
        if not not_unique:
            signs_set(s)
    inputs = {"method": method, "options": options, "x": np.array(xs), "f": np.array(fs)}
    inputs |= {"noise": draws.draws, "not_unique": not_unique}
    if state is not None:
        inputs["state"] = state
    faults = [(words, slip(strategy_by_loops, *edits)) for words, *edits in FAULTS.get(name, ())]
    return Case(name, "strategy", why, "loop form", inputs, 1e-9, faults)


THREE = {"x0": np.array([1.0, -0.5, 0.75]), "sigma0": 0.7}
FOUR = {"x0": np.array([1.0, -0.5, 0.75, 0.25]), "sigma0": 0.7, "popsize": 8}
DECAY = {"lr": 0.3, "weight_decay": 0.11}


def gradients():
    def openai(name, why, popsize=6, **more):
        return case(f"openai-es: {name}", "openai-es", why, popsize=popsize, **THREE, **more)

    yield openai("ranks", "antithetic pairs, centred ranks")
    why = "values less their mean over their deviation"
    yield openai("standardised", why, fitness="standardised", **DECAY)
    why = "values less their mean; an infinite one counts as the worst finite one"
    why += "; a decay below 0 pushes away from 0"
    yield openai("raw", why, fitness="raw", lr=0.2, weight_decay=-0.06)
    why = "moments of the gradient, corrected for their start at 0"
    yield openai("adam", why, optimizer="adam", lr=0.3)
    why = "from a state, sigma included: the decay is part of the gradient whose moments Adam takes"
    options = {"popsize": 6, "optimizer": "adam", **DECAY, **THREE}
    yield case(
        "openai-es: adam, later",
        "openai-es",
        why,
        quiet,
        2,
        state={**lived("openai-es", "openai-es", 5, options), "sigma": np.array(0.43)},
        **options,
    )
    why = "nothing finite, both infinities, all equal: where all count as equal F is 0, g the decay"
    for fitness in ("ranks", "standardised", "raw"):
        more = {"fitness": fitness, "lr": 0.2, "weight_decay": 0.09}
        yield openai(f"extremes, {fitness}", why, change=told.extremes, generations=3, **more)
    for size, factor in (("large", 1e304), ("small", 1e-200)):
        more = {"fitness": "standardised", "change": told.scaled(factor), "generations": 1}
        yield openai(f"{size} values", "on any scale of f the same", **more)


def natural_gradients():
    yield case("snes", "snes", "a step size for each coordinate", popsize=7, **THREE)
    yield case("xnes", "xnes", "B moves by a matrix exponential", popsize=7, **THREE)
    for method, size in (("snes", 2), ("xnes", 3)):
        options = {"popsize": 7, **THREE}
        state = lived(method, method, 6, options)
        why = "from a state in the middle of a run"
        yield case(f"{method}: later", method, why, quiet, 2, state=state, **options)
        why = "nothing finite, both infinities, all equal"
        yield case(f"{method}: extremes", method, why, told.extremes, 3, **options)
        one = {"x0": np.array([0.75]), "sigma0": 0.7, "popsize": size}
        yield case(f"{method}: one dimension", method, f"n = 1, popsize = {size}", quiet, 2, **one)


def covariances():
    def cma(name, why, change=usual, generations=5, **more):
        return case(f"cma-es: {name}", "cma-es", why, change, generations, **more)

    why = "paths, negative weights, eigenvectors up to their sign"
    yield case("cma-es", "cma-es", why, **FOUR)
    why = "a generation far away stalls p_c (h_sigma = 0), and sigma grows"
    yield cma("far", why, told.far_at_2, **FOUR)
    yield cma("diagonal", "variances alone, learned faster", diagonal=True, **FOUR)
    yield cma("diagonal, far", "p_c is stalled", told.far_at_2, 3, diagonal=True, **FOUR)
    why = "nothing finite, both infinities, all equal: ties in the order of sampling"
    yield cma("extremes", why, told.extremes, 3, **FOUR)
    seven = {**THREE, "popsize": 7}
    yield cma("odd", "mu = 3 of 7: the weight of the fourth is 0", **seven)
    why = "from a state; p_c is stalled in generation 8"
    yield cma("later", why, told.far_at_8, 3, state=lived("cma-es", "cma-es", 6, seven), **seven)
    yield from limits(cma)


def limits(cma):
    """Where a minimum, a maximum or a threshold decides."""
    two = {"x0": np.array([1.0, -0.5]), "sigma0": 0.7}
    one = {"x0": np.array([0.75]), "sigma0": 0.7}
    why = "c_mu is 1 - c_1, so alpha and the negative weights are 0; d_sigma has its maximum"
    yield cma("many", why, quiet, 2, popsize=45, **one)
    why = "c_1 is (n + 2)/3 times as large before it limits c_mu"
    yield cma("diagonal, many", why, quiet, 1, popsize=44, diagonal=True, **two)
    yield cma("some", "d_sigma has its maximum, c_mu is not limited", quiet, 2, popsize=14, **two)
    yield cma("three", "mu = 1, and a weight of 0", quiet, 2, popsize=3, **two)
    why = "p_sigma just within the limit of h_sigma in odd generations, just beyond it in even ones"
    inside, beyond = 0.985, 1.015
    four = {"popsize": 4, "digits": 4, **two}
    yield cma("threshold", why, told.threshold((inside, beyond, inside, beyond, inside)), **four)
    why = "just beyond it in odd generations, just within in even ones"
    other = told.threshold((beyond, inside, beyond, inside, beyond))
    yield cma("threshold, the other way", why, other, **four)
    yield cma("leap", "sigma grows by more than e in a generation", told.leap, 2, popsize=6, **two)
    yield from decompositions(cma)


def decompositions(cma):
    start = {"x0": np.array([1.0, -0.5]), "sigma0": 0.7, "popsize": 4}
    state = lived("flat", "cma-es", 3, start)
    state |= {
        "mean": np.array([0.875, -0.25]),
        "C": np.diag([1.25, 0.0]),
        "D": np.array([1.25e-10, 1.125]),
    }
    state |= {"B": np.array([[0.0, 1.0], [1.0, 0.0]]), "p_c": np.array([0.5, 0.0])}
    why = "an eigenvalue of 0 counts as 1e-20 of the largest"
    yield cma("floor", why, told.flat, 1, state=state, **start)
    state = lived("flat", "cma-es", 3, {**start, "diagonal": True})
    state |= {"mean": np.array([0.875, 0.0]), "C": np.array([1.25, 1e-30])}
    state |= {"D": np.array([1.125, 1.25e-10]), "p_c": np.array([0.5, 0.0])}
    why = "variances stay in the order of coordinates; a small one is 1e-20 of the largest"
    more = {"digits": 25, "state": state, "diagonal": True}
    yield cma("diagonal, floor", why, told.nearly_flat, 2, **more, **start)
    many = {"x0": np.linspace(-1, 1, 23).round(2), "sigma0": 0.7, "popsize": 2}
    why = "B and D serve 2 generations; where eigenvalues are equal, eigenvectors are not unique, "
    why += "but C^(-1/2) is"
    yield cma("late", why, quiet, 2, not_unique=("B",), **many)
    fewer = {**many, "x0": np.linspace(-1, 1, 21)}
    yield cma("not late", "gap is just 1, by both rates", quiet, 1, not_unique=("B",), **fewer)
    why = "gap is that of the larger rates, 1"
    yield cma("diagonal, late", why, quiet, 1, diagonal=True, **many)
    state = lived("late", "cma-es", 1, many)
    why = "from a state: generation 2 is a multiple of gap, though the first that is told"
    yield cma("late, from a state", why, quiet, 1, not_unique=("B",), state=state, **many)


def strategies():
    yield from gradients()
    yield from natural_gradients()
    yield from covariances()
    why = "a point out of reach counts as nearer; moved to a bound, none has a weight below 0"
    for method in es.METHODS:
        yield case(f"{method}: told", method, why, told.strange, popsize=8, **THREE)


# What is right, but for one thing; shapes fit what is wrong.
RIGHT = {"x0": np.array([1.0, 2.0]), "sigma0": 0.7, "popsize": 4}
TOLD = np.array([[[1.5, 2.0], [0.5, 2.5], [1.0, 1.5], [1.25, 3.0]]])
VALUES = np.array([[3.0, 1.0, 2.0, 0.5]])
# Name, method, the wrong option, why
WRONG_OPTIONS = (
    ("no such method", "cma", {}, "methods are openai-es, snes, xnes, cma-es"),
    ("x0 not finite", "snes", {"x0": np.array([1.0, np.nan])}, "x0 is finite"),
    ("x0 infinite", "openai-es", {"x0": np.array([1.0, -np.inf])}, "x0 is finite"),
    ("sigma0 0", "cma-es", {"sigma0": 0.0}, "a positive number"),
    ("sigma0 below 0", "snes", {"sigma0": -0.7}, "a positive number"),
    ("sigma0 infinite", "xnes", {"sigma0": np.inf}, "a positive, finite number"),
    ("sigma0 not a number", "snes", {"sigma0": np.nan}, "a positive number"),
    ("half a point", "snes", {"popsize": 4.5}, "popsize is a whole number"),
    ("no such shaping", "openai-es", {"fitness": "rank"}, "ranks, standardised or raw"),
    ("no such optimizer", "openai-es", {"optimizer": "adamw"}, "sgd or adam"),
    ("lr 0", "openai-es", {"lr": 0.0}, "a positive number"),
    ("lr infinite", "openai-es", {"lr": np.inf}, "a positive, finite number"),
    ("lr below 0", "openai-es", {"lr": -0.3}, "a positive number"),
    ("lr not a number", "openai-es", {"lr": np.nan}, "a positive number"),
    ("decay infinite", "openai-es", {"weight_decay": np.inf}, "a finite number"),
    ("decay not a number", "openai-es", {"weight_decay": np.nan}, "a finite number"),
)
# Name, method, x, f, why
WRONG_DATA = (
    (
        "points of another size",
        "cma-es",
        TOLD[..., :1],
        VALUES,
        "x has shape (popsize, n)",
    ),
    (
        "too few points",
        "snes",
        TOLD[:, :3],
        VALUES,
        "x has shape (popsize, n)",
    ),
    (
        "too many points",
        "xnes",
        TOLD[:, [0, 1, 2, 3, 3]],
        VALUES,
        "x has shape (popsize, n)",
    ),
    (
        "fewer points and values",
        "openai-es",
        TOLD[:, :2],
        VALUES[:, :2],
        "x has shape (popsize, n), f (popsize,)",
    ),
    (
        "points turned",
        "cma-es",
        np.swapaxes(TOLD, 1, 2),
        VALUES,
        "x has shape (popsize, n)",
    ),
    (
        "too few values",
        "snes",
        TOLD,
        VALUES[:, 1:],
        "f has shape (popsize,)",
    ),
    (
        "too many values",
        "cma-es",
        TOLD,
        VALUES[:, [0, 1, 2, 3, 3]],
        "f has shape (popsize,)",
    ),
    (
        "a point not finite",
        "cma-es",
        np.where(TOLD == 0.5, np.inf, TOLD),
        VALUES,
        "x is finite",
    ),
    (
        "a point not a number",
        "snes",
        np.where(TOLD == 0.5, np.nan, TOLD),
        VALUES,
        "x is finite",
    ),
    (
        "the worst not a number",
        "xnes",
        np.where(TOLD == 2.0, np.nan, TOLD),
        VALUES,
        "x is finite, also where its value is bad",
    ),
    (
        "a bad point not finite",
        "openai-es",
        np.where(TOLD == 2.0, np.inf, TOLD),
        np.where(VALUES == 3.0, np.inf, VALUES),
        "x is finite, also where f is not",
    ),
    (
        "nothing to rank",
        "snes",
        TOLD,
        VALUES * np.nan,
        "all values are NaN",
    ),
    (
        "nothing to sort",
        "cma-es",
        TOLD,
        VALUES * np.nan,
        "all values are NaN",
    ),
)


def refused(name, method, why, x=TOLD, f=VALUES, **wrong):
    options = {**RIGHT, **wrong}
    popsize, n = x.shape[1:]
    rows = popsize // 2 if method == "openai-es" else popsize
    draws = [{"kind": "standard_normal", "values": np.full((rows, n), 0.25)}]
    inputs = {"method": method, "options": options, "x": x, "f": f}
    inputs |= {"noise": draws, "not_unique": []}
    return Case(name, "strategy", why, "the definition", inputs, rejects=True)


def rejected():
    for name, method, wrong, why in WRONG_OPTIONS:
        yield refused(name, method, why, **wrong)
    for name, method, x, f, why in WRONG_DATA:
        yield refused(name, method, why, x, f)
    for fitness in ("standardised", "raw"):
        more = {"f": VALUES * np.nan, "fitness": fitness}
        yield refused(f"nothing for {fitness} values", "openai-es", "all values are NaN", **more)
    more = {"x": TOLD[:, :0], "f": VALUES[:, :0], "popsize": 0}
    yield refused("population of 0", "openai-es", "at least 2", **more)
    more = {"x": TOLD[..., :0], "x0": np.zeros(0)}
    yield refused("no dimensions", "snes", "x0 has at least one element", **more)
    more = {"x": TOLD[:, :1], "f": VALUES[:, :1], "popsize": 1}
    yield refused("population of 1", "xnes", "at least 2", **more)
    more = {"x": TOLD[:, :3], "f": VALUES[:, :3], "popsize": 3}
    yield refused("odd pairs", "openai-es", "pairs need an even number", **more)


def cases():
    yield from strategies()
    yield from rejected()
