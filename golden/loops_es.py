"""Stage 5 once more: the evolution strategies straight from their papers,
in loops and decimal arithmetic.

Each function takes what a generation starts from, and returns what it ends with;
`strategy_by_loops` chains them.
"""

from decimal import ROUND_CEILING, Decimal

import numpy as np

from .exact import MARGIN, below
from .loops_policies import solve

HALF = Decimal("0.5")


# --- Matrices ---
def identity(n):
    return np.array([[Decimal(i == j) for j in range(n)] for i in range(n)])


def eigen(A):
    """Eigenvalues, ascending, and -vectors, one a column, of a symmetric matrix:
    Jacobi's rotations.
    """
    A, n = A.copy(), len(A)
    V = identity(n)
    while max([abs(A[i, j]) for i in range(n) for j in range(i)], default=0) > Decimal("1e-50"):
        for p in range(n):
            for q in range(p):
                if A[p, q]:
                    tau = (A[q, q] - A[p, p]) / (2 * A[p, q])
                    t = (1 if tau >= 0 else -1) / (abs(tau) + (1 + tau * tau).sqrt())
                    c = 1 / (1 + t * t).sqrt()
                    R = np.array([[c, t * c], [-t * c, c]])
                    A[:, [p, q]] = A[:, [p, q]] @ R
                    A[[p, q]] = R.T @ A[[p, q]]
                    V[:, [p, q]] = V[:, [p, q]] @ R
    order = sorted(range(n), key=lambda i: A[i, i])
    return np.array([A[i, i] for i in order]), V[:, order]


def signed(V):
    """The columns with that sign which makes the element of the largest absolute value positive."""
    V = V.copy()
    for j in range(V.shape[1]):
        second, first = [0, *sorted(abs(V[:, j]))][-2:]
        margin = 1e-6 if isinstance(first, float) else MARGIN
        if not (first == second == 0 or first - second > margin):
            raise AssertionError(f"{first} and {second} are too close for a decision")
        V[:, j] *= 1 if max(V[:, j]) == first else -1
    return V


def expm(A):
    term = total = identity(len(A))
    for k in range(1, 60):
        term = term @ A / k
        total = total + term
    return total


# --- Ranks ---
def shared(u, f):
    """For each point the mean of u over the ranks that its ties take up;
    ranks count from the smallest f.
    """
    weights = []
    for x in f:
        smaller = sum(y != x and below(y, x) for y in f)
        ties = sum(y == x for y in f)
        weights.append(sum(u[smaller : smaller + ties]) / ties)
    return np.array(weights)


# --- Points that were not asked for ---
def shortening(z):
    """1, or what makes a step z, longer than sqrt(n) + 6, as long as sqrt(n) + 2n/(n + 2)."""
    n = Decimal(len(z))
    length = sum(a * a for a in z).sqrt()
    if below(n.sqrt() + 6, length):
        return (n.sqrt() + 2 * n / (n + 2)) / length
    return Decimal(1)


def repaired(x):
    """Whether three points have a coordinate in common."""
    columns = [[p[j] for p in x] for j in range(len(x[0]))]
    return any(column.count(value) >= 3 for column in columns for value in column)


def utilities(popsize):
    raw = [
        max(Decimal(0), (Decimal(popsize) / 2 + 1).ln() - Decimal(k).ln())
        for k in range(1, popsize + 1)
    ]
    return [r / sum(raw) for r in raw]


# --- OpenAI-ES ---
def openai_constants(n, popsize, sigma0, lr=None, **options):
    return {"lr": sigma0**2 if lr is None else lr}


def openai_state(n, options):
    return {
        "sigma": options["sigma0"],
        "m": np.array([Decimal(0)] * n),
        "v": np.array([Decimal(0)] * n),
    }


def openai_ask(s, z):
    return [*(s["mean"] + s["sigma"] * e for e in z), *(s["mean"] - s["sigma"] * e for e in z)]


def shaped(f, fitness):
    n = len(f)
    if fitness == "ranks":
        return shared([Decimal(k) / (n - 1) for k in range(n)], f) - HALF
    finite = [y for y in f if y.is_finite()] or [Decimal(0)]
    f = [max(min(finite), min(y, max(finite))) for y in f]
    mean = sum(f) / n
    if fitness == "raw" or min(f) == max(f):
        return np.array([y - mean for y in f])
    deviation = (sum((y - mean) ** 2 for y in f) / n).sqrt()
    return np.array([(y - mean) / deviation for y in f])


def openai_tell(s, k, x, f, t, fitness="ranks", optimizer="sgd", weight_decay=0, **options):
    n, popsize = len(s["mean"]), len(f)
    F = shaped(f, fitness)
    eps = [(p - s["mean"]) / s["sigma"] for p in x]
    eps = [e * shortening(e) for e in eps]
    g = sum(F[i] * eps[i] for i in range(popsize)) / (popsize * s["sigma"])
    g = g + weight_decay * s["mean"]
    if optimizer == "adam":
        one, two = Decimal("0.9"), Decimal("0.999")
        s["m"] = one * s["m"] + (1 - one) * g
        s["v"] = two * s["v"] + (1 - two) * g**2
        m, v = s["m"] / (1 - one**t), s["v"] / (1 - two**t)
        g = np.array([m[j] / (v[j].sqrt() + Decimal("1e-8")) for j in range(n)])
    s["mean"] = s["mean"] - k["lr"] * g


# --- SNES and xNES ---
def weights(u, x, f):
    return shared(u, f) - (0 if repaired(x) else Decimal(1) / len(f))


def snes_constants(n, popsize, **options):
    return {
        "u": np.array(utilities(popsize)),
        "eta_sigma": (3 + Decimal(n).ln()) / (5 * Decimal(n).sqrt()),
    }


def snes_state(n, options):
    return {"sigma": np.array([options["sigma0"]] * n)}


def snes_ask(s, z):
    return [s["mean"] + s["sigma"] * e for e in z]


def snes_tell(s, k, x, f, t, **options):
    u, n = weights(k["u"], x, f), len(s["mean"])
    noise = [(p - s["mean"]) / s["sigma"] for p in x]
    noise = [e * shortening(e) for e in noise]
    mean = s["mean"] + s["sigma"] * sum(w * e for w, e in zip(u, noise, strict=True))
    grad = sum(w * (e**2 - 1) for w, e in zip(u, noise, strict=True))
    s["sigma"] = np.array([s["sigma"][j] * (k["eta_sigma"] / 2 * grad[j]).exp() for j in range(n)])
    s["mean"] = mean


def xnes_constants(n, popsize, **options):
    eta = (9 + 3 * Decimal(n).ln()) / (5 * n * Decimal(n).sqrt())
    return {"u": np.array(utilities(popsize)), "eta_sigma": eta, "eta_B": eta}


def xnes_state(n, options):
    return {"sigma": options["sigma0"], "B": identity(n)}


def xnes_ask(s, z):
    return [s["mean"] + s["sigma"] * (s["B"] @ e) for e in z]


def xnes_tell(s, k, x, f, t, **options):
    u, n = weights(k["u"], x, f), len(s["mean"])
    noise = [np.array(solve(s["B"], (p - s["mean"]) / s["sigma"])) for p in x]
    noise = [e * shortening(e) for e in noise]
    mean = s["mean"] + s["sigma"] * (s["B"] @ sum(w * e for w, e in zip(u, noise, strict=True)))
    M = sum(w * (np.outer(e, e) - identity(n)) for w, e in zip(u, noise, strict=True))
    trace = sum(M[j, j] for j in range(n)) / n
    s["sigma"] = s["sigma"] * (k["eta_sigma"] / 2 * trace).exp()
    s["B"] = s["B"] @ expm(k["eta_B"] / 2 * (M - trace * identity(n)))
    s["mean"] = mean


# --- CMA-ES: equations of Hansen's tutorial, arXiv 1604.00772v2 ---
def cma_constants(n, popsize, diagonal=False, **options):
    w = [(Decimal(popsize + 1) / 2).ln() - Decimal(i).ln() for i in range(1, popsize + 1)]  # (49)
    mu = popsize // 2
    effective = lambda v: sum(v) ** 2 / sum(a * a for a in v)
    mu_eff, mu_minus = effective(w[:mu]), effective(w[mu:])  # (8)
    faster = Decimal(n + 2) / 3 if diagonal else 1
    c_1 = faster * 2 / ((n + Decimal("1.3")) ** 2 + mu_eff)  # (57)
    rank_mu = 2 * (mu_eff + 1 / mu_eff - 2 + Decimal("0.25")) / ((n + 2) ** 2 + mu_eff)
    c_mu = min(1 - c_1, faster * rank_mu)  # (58)
    alpha = min(  # (50-52)
        1 + c_1 / c_mu, 1 + 2 * mu_minus / (mu_eff + 2), (1 - c_1 - c_mu) / (n * c_mu)
    )
    plus, minus = sum(a for a in w if a > 0), -sum(a for a in w if a < 0)
    c_sigma = (mu_eff + 2) / (n + mu_eff + 5)  # (55)
    d_sigma = 1 + 2 * max(Decimal(0), ((mu_eff - 1) / (n + 1)).sqrt() - 1) + c_sigma  # (55)
    return {
        "w": np.array([a / plus if a >= 0 else alpha * a / minus for a in w]),  # (53)
        "mu_eff": mu_eff, "c_1": c_1, "c_mu": c_mu, "c_sigma": c_sigma, "d_sigma": d_sigma,
        "c_c": (4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n),  # (56)
        "chi_n": Decimal(n).sqrt() * (1 - Decimal(1) / (4 * n) + Decimal(1) / (21 * n * n)),
        "gap": int((1 / (10 * n * (c_1 + c_mu))).to_integral_value(ROUND_CEILING)),
    }  # fmt: skip


def cma_state(n, options):
    s = {
        "sigma": options["sigma0"],
        "p_sigma": np.array([Decimal(0)] * n),
        "p_c": np.array([Decimal(0)] * n),
    }
    s["D"] = np.array([Decimal(1)] * n)
    if options.get("diagonal"):
        return s | {"C": s["D"]}
    return s | {"C": identity(n), "B": identity(n)}


def cma_ask(s, z):
    B = s.get("B", identity(len(s["D"])))
    return [s["mean"] + s["sigma"] * (B @ (s["D"] * e)) for e in z]  # (38-40)


def cma_tell(s, k, x, f, t, diagonal=False, **options):
    n, w, popsize = len(s["mean"]), k["w"], len(f)
    B = s.get("B", identity(n))
    c_s = k["c_sigma"]
    c_c = k["c_c"]
    c_1 = k["c_1"]
    c_mu = k["c_mu"]
    order = sorted(range(popsize), key=lambda i: (f[i], i))  # ties in the order of sampling
    y = [(x[i] - s["mean"]) / s["sigma"] for i in order]
    white = [B @ ((B.T @ v) / s["D"]) for v in y]  # C^(-1/2) y
    factors = [shortening(v) for v in white]
    y = [a * v for a, v in zip(factors, y, strict=True)]
    white = [a * v for a, v in zip(factors, white, strict=True)]
    if repaired(x):
        w = [max(a, Decimal(0)) for a in w]
    mu = popsize // 2
    y_w, z_w = (sum(w[i] * v[i] for i in range(mu)) for v in (y, white))  # (41)
    s["mean"] = s["mean"] + s["sigma"] * y_w  # (42)
    s["p_sigma"] = (1 - c_s) * s["p_sigma"] + (c_s * (2 - c_s) * k["mu_eff"]).sqrt() * z_w  # (43)
    norm = sum(p * p for p in s["p_sigma"]).sqrt()
    s["sigma"] = s["sigma"] * (c_s / k["d_sigma"] * (norm / k["chi_n"] - 1)).exp()  # (44)
    limit = (Decimal("1.4") + Decimal(2) / (n + 1)) * k["chi_n"]
    h = Decimal(below(norm / (1 - (1 - c_s) ** (2 * t)).sqrt(), limit))
    s["p_c"] = (1 - c_c) * s["p_c"] + h * (c_c * (2 - c_c) * k["mu_eff"]).sqrt() * y_w  # (45)
    squares = [sum(v**2) or Decimal(1) for v in white]  # a point at the mean adds nothing
    scaled = [w[i] if w[i] >= 0 else w[i] * n / squares[i] for i in range(popsize)]  # (46)
    product = (lambda a: a * a) if diagonal else (lambda a: np.outer(a, a))
    keep = 1 + c_1 * (1 - h) * c_c * (2 - c_c) - c_1 - c_mu * sum(w)
    rank_mu = sum(scaled[i] * product(y[i]) for i in range(popsize))
    s["C"] = keep * s["C"] + c_1 * product(s["p_c"]) + c_mu * rank_mu  # (47)
    if t % k["gap"] == 0:
        values, vectors = (s["C"], None) if diagonal else eigen(s["C"])
        s["D"] = np.array([max(v, max(values) * Decimal("1e-20")).sqrt() for v in values])
        s |= {} if diagonal else {"B": vectors}


# --- What all of them keep ---
METHODS = {
    "openai-es": (openai_constants, openai_state, openai_ask, openai_tell),
    "snes": (snes_constants, snes_state, snes_ask, snes_tell),
    "xnes": (xnes_constants, xnes_state, xnes_ask, xnes_tell),
    "cma-es": (cma_constants, cma_state, cma_ask, cma_tell),
}


def strategy_by_loops(method, options, x, f, noise, not_unique, state=None):
    constants, first, ask, tell = METHODS[method]
    n, popsize = len(options["x0"]), f.shape[1]
    k = constants(n, **{**options, "popsize": popsize})
    s = {"mean": options["x0"], **first(n, options)}
    told = 0
    best_x = options["x0"]
    best_f = Decimal("inf")
    if state is not None:
        s = {name: state[name] for name in s}
        told = state["t"]
        best_x = state["best_x"]
        best_f = state["best_f"]
    columns = []
    history = []
    for t, (points, values, draw) in enumerate(zip(x, f, noise, strict=True), told + 1):
        asked = np.array(ask(s, draw["values"]))
        values = [Decimal("inf") if v.is_nan() else v for v in values]
        ranked = sorted(values)
        if ranked[0] < best_f:
            best_x, best_f = points[values.index(ranked[0])], ranked[0]
        history.append([ranked[0], ranked[popsize // 2], ranked[-1]])
        tell(s, k, points, values, t, **options)
        if method == "cma-es" and "B" in s:
            s["B"] = s["B"] if not_unique else signed(s["B"])
            columns.append({"inverse_root": s["B"] @ np.diag(1 / s["D"]) @ s["B"].T})
        elif method == "cma-es":
            columns.append({"inverse_root": 1 / s["D"]})
        else:
            columns.append({})
        columns[-1] |= s
        columns[-1] |= {"asked": asked, "best_x": best_x, "best_f": best_f}
    fields = {
        name: np.array([c[name] for c in columns]) for name in columns[0] if name not in not_unique
    }
    return {**k, **fields, "history": np.array(history).T}
