"""Stage 5: the evolution strategies, generation by generation."""

import numpy as np

import es

from .loops_es import signed, strategy_by_loops
from .vectors import Case, Replay, noise, slip

STAGE = "5-evolution-strategies"
CONSTANTS = {
    es.OpenAIES: ("lr",),
    es.SNES: ("u", "eta_sigma"),
    es.XNES: ("u", "eta_sigma", "eta_B"),
    es.CMAES: ("w", "mu_eff", "c_1", "c_mu", "c_sigma", "d_sigma", "c_c", "chi_n", "gap"),
}


def strategy(method, options, x, f, noise, not_unique):
    """In each generation: the points that are asked for,
    and the state after the points x with values f are told.

    The eigenvectors of CMA-ES are given that sign which `signed` gives them, before the next points
    are asked for.
    """
    s, columns = es.METHODS[method](**options), []
    for points, values, draw in zip(x, f, noise, strict=True):
        s.rng = Replay([draw])
        asked = s.ask()
        s.tell(points, values)
        more = {}
        if isinstance(s, es.CMAES) and not s.diagonal:
            s.B = s.B if not_unique else signed(s.B)
            more = {"inverse_root": s.B / s.D @ s.B.T}
        columns.append({"asked": asked, **s.state(), **more})
    fields = {
        name: np.stack([c[name] for c in columns])
        for name in columns[0]
        if name not in ("t", "history")
    }
    constants = {name: getattr(s, name) for name in CONSTANTS[type(s)]}
    fields = {name: value for name, value in fields.items() if name not in not_unique}
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
SCALED = "w[i] if w[i] >= 0 else w[i] * n / sum(white[i] ** 2)"
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
def bowl(x):
    return (np.arange(1, x.shape[-1] + 1) * x**2).sum(-1) + 0.5 * x[:, 0] * x[:, -1]


def case(
    name, method, why, generations=5, not_unique=(), tolerance=1e-9, far=None, odd=False, **options
):
    """A run on `bowl`.

    What is told is rounded, so not quite what was asked for; in generation 3 one point is another.

    In generation 2 two values are equal, in generation 4 one is NaN, and one infinite. `odd`: in
    generation 3 the best point is out of reach, in generation 5 all but two are moved to a bound.
    """
    s = es.METHODS[method](**options)
    s.rng, xs, fs = noise(name), [], []
    for t in range(generations):
        x = np.round(s.ask(), 3)
        x[0] = np.round(x[0] + 0.3, 3) if t == 2 else x[0]
        x = x if t != far else np.round(s.mean + 4 * s.sigma + (x - s.mean), 3)
        if odd and t == 2:
            x[0] = np.round(s.mean + 20 * s.axes()[0].max() * (-1.0) ** np.arange(s.n), 3)
        if odd and t == 4:
            x[:, 0] = np.minimum(x[:, 0], np.sort(x[:, 0])[2])
        f = np.round(bowl(x), 3)
        if odd and t == 2:
            f[0] = -1.0
        if t == 1:
            f[1] = f[-1]
        if t == 3:
            f[[0, 2]] = np.nan, np.inf
        s.tell(x, f)
        xs.append(x)
        fs.append(f)
        if method == "cma-es" and not s.diagonal and not not_unique:
            s.B = signed(s.B)
    inputs = {
        "method": method,
        "options": options,
        "x": np.array(xs),
        "f": np.array(fs),
        "noise": s.rng.draws,
    }
    faults = [(words, slip(strategy_by_loops, *edits)) for words, *edits in FAULTS.get(name, ())]
    return Case(
        name, "strategy", why, "loop form", {**inputs, "not_unique": not_unique}, tolerance, faults
    )


def strategies():
    start = {"x0": np.array([1.0, -0.5, 0.75]), "sigma0": 0.5}
    four = {"x0": np.array([1.0, -0.5, 0.75, 0.25]), "sigma0": 0.5, "popsize": 8}
    yield case(
        "openai-es: ranks", "openai-es", "antithetic pairs, centred ranks", popsize=6, **start
    )
    options = {"popsize": 6, "fitness": "standardised", "lr": 0.25, "weight_decay": 0.125}
    yield case(
        "openai-es: standardised",
        "openai-es",
        "values less their mean over their deviation",
        **start,
        **options,
    )
    why = "values less their mean; an infinite one counts as the worst finite one"
    yield case("openai-es: raw", "openai-es", why, popsize=6, fitness="raw", lr=0.125, **start)
    why = "moments of the gradient, corrected for their start at 0"
    yield case("openai-es: adam", "openai-es", why, popsize=6, optimizer="adam", lr=0.125, **start)
    yield case("snes", "snes", "a step size for each coordinate", popsize=7, **start)
    yield case("xnes", "xnes", "B moves by a matrix exponential", popsize=7, **start)
    why = "paths, negative weights, eigenvectors up to their sign"
    yield case("cma-es", "cma-es", why, **four)
    why = "a generation far away stalls p_c (h_sigma = 0), and sigma grows"
    yield case("cma-es: far", "cma-es", why, far=2, **four)
    yield case(
        "cma-es: diagonal", "cma-es", "variances alone, learned faster", diagonal=True, **four
    )
    why = "B and D serve 2 generations; where eigenvalues are equal, eigenvectors are not unique, "
    why += "but C^(-1/2) is"
    many = {"x0": np.linspace(-1, 1, 23).round(2), "sigma0": 0.5, "popsize": 2}
    yield case("cma-es: late", "cma-es", why, generations=2, not_unique=("B",), **many)

    why = "a point out of reach counts as nearer; moved to a bound, none has a weight below 0"
    told = {"popsize": 8, "odd": True, **start}
    for method in es.METHODS:
        yield case(f"{method}: told", method, why, **told)


def rejected():
    x0, one = np.array([1.0, 2.0]), {"sigma0": 1.0, "popsize": 4}
    x, f = np.zeros((1, 4, 2)), np.arange(4.0)[None]
    for name, method, options, points, values, why in (
        ("no dimensions", "snes", {**one, "x0": np.zeros(0)}, x, f, "x0 has at least one element"),
        ("x0 not finite", "snes", {**one, "x0": np.array([1.0, np.nan])}, x, f, "x0 is finite"),
        ("sigma0 0", "cma-es", {"x0": x0, "sigma0": 0.0, "popsize": 4}, x, f, "a positive number"),
        ("population of 1", "xnes", {"x0": x0, "sigma0": 1.0, "popsize": 1}, x, f, "at least 2"),
        (
            "odd pairs",
            "openai-es",
            {"x0": x0, "sigma0": 1.0, "popsize": 5},
            x,
            f,
            "pairs need an even number",
        ),
        (
            "points of another size",
            "cma-es",
            {**one, "x0": x0},
            x[..., :1],
            f,
            "x has shape (popsize, n)",
        ),
        ("points not finite", "cma-es", {**one, "x0": x0}, x + np.inf, f, "x is finite"),
        ("nothing to rank", "snes", {**one, "x0": x0}, x, f * np.nan, "all values are NaN"),
        (
            "values of another number",
            "snes",
            {**one, "x0": x0},
            x,
            f[:, 1:],
            "f has shape (popsize,)",
        ),
    ):
        draws = [
            {"kind": "standard_normal", "values": np.zeros((2 if method == "openai-es" else 4, 2))}
        ]
        inputs = {
            "method": method,
            "options": options,
            "x": points,
            "f": values,
            "noise": draws,
            "not_unique": [],
        }
        yield Case(name, "strategy", why, "the definition", inputs, rejects=True)


def cases():
    yield from strategies()
    yield from rejected()
