"""Evolution strategies: OpenAI-ES, SNES, xNES and CMA-ES, in NumPy. All of them minimise.

Each one keeps a normal distribution over x, and repeats three steps ("ask and tell"):
    x = strategy.ask()              sample a population, one point a row                       (popsize, n)
    f = [fitness(p) for p in x]     evaluate it, smaller is better                             (popsize,)
    strategy.tell(x, f)             use the fitness to move the distribution
`tell` accepts points that were never asked for; `state()` rebuilds a strategy after any generation, bit for bit.

Read in this order:
    OpenAIES    a gradient estimate for the mean alone             Salimans et al. 2017, arXiv 1703.03864v2
    SNES        natural gradient, one step size per coordinate     Wierstra et al. 2014, JMLR 15, 949-980
    XNES        natural gradient, full covariance                  the same
    CMAES       full covariance, paths, negative weights           Hansen, arXiv 1604.00772v2
    Strategy    what they share: checks, the best point, saving, when to stop
    minimize    the loop above, called as scipy.optimize.minimize is

    in code           shape             in the papers
    mean              (n,)              theta, mu, m      mean of the distribution
    sigma             scalar or (n,)    sigma             step size, a standard deviation
    popsize           integer           n, lambda         points per generation
    eps, s, z         (popsize, n)      epsilon, s, z     standard normal noise of each point
    u, w              (popsize,)        u, w              utility or weight of each rank, best first
"""

import numpy as np


def require(holds, text, *values):
    if not holds:
        raise ValueError(text.format(*values))


class Strategy:
    """What the four strategies share, whatever moves their distribution. Bad arguments raise ValueError.

    x0, sigma0    first mean (n,) and standard deviation > 0
    popsize       points per generation, at least 2; 4 + floor(3 ln n) unless given
    rng           numpy.random.Generator, or a seed for one; `ask` alone draws from it
    """

    RECORD = ("t", "best_x", "best_f", "history")
    MOVING = ("mean", "sigma")

    def __init__(self, x0, sigma0, popsize=None, rng=None):
        x0 = np.array(x0, float)
        require(
            x0.ndim == 1 and x0.size and np.isfinite(x0).all(),
            "x0 must be a vector of finite numbers, not {}",
            x0,
        )
        require(
            np.ndim(sigma0) == 0 and 0 < sigma0 < np.inf,
            "sigma0 must be a positive number, not {!r}",
            sigma0,
        )
        popsize = 4 + np.floor(3 * np.log(x0.size)) if popsize is None else popsize
        require(
            popsize >= 2 and popsize % 1 == 0,
            "popsize must be an integer of at least 2, not {!r}",
            popsize,
        )
        self.n, self.popsize, self.sigma0, self.rng = (
            x0.size,
            int(popsize),
            float(sigma0),
            np.random.default_rng(rng),
        )
        self.t, self.mean, self.sigma = np.int64(0), x0, np.float64(sigma0)
        self.best_x, self.best_f = x0, np.float64(np.inf)
        self.history = np.empty((3, 0))  # best, median and worst fitness of the latest generations

    # (x, f) of the best point ever told, (x0, inf) before the first; generations in which it has to change
    best = property(lambda self: (self.best_x, self.best_f))
    recent = property(lambda self: 10 + int(np.ceil(30 * self.n / self.popsize)))

    def state(self):
        """Everything that changes from one generation to the next, except the generator: {name: array}."""
        return {name: np.array(getattr(self, name)) for name in self.RECORD + self.MOVING}

    def restore(self, state):
        """Continue from what `state()` returned; entries of other names are ignored. Returns self."""
        for name, old in self.state().items():
            new = np.array(state[name])
            fits = (new.ndim, new.shape[:1]) == (
                old.ndim,
                old.shape[:1],
            )  # history grows along its last axis
            require(fits, "state: {} must have shape {}, not {}", name, old.shape, new.shape)
            setattr(self, name, new[()])  # [()] turns 0-d arrays into scalars: one type, same bits
        return self

    def told(self, x, f):
        """Check one generation and record it. Returns x (popsize, n) and f (popsize,), with inf for NaN.

        The median of the history is the element popsize // 2 in order: of two in the middle the larger.
        """
        x, f = np.asarray(x, float), np.array(f, float)
        have, must = (x.shape, f.shape), ((self.popsize, self.n), (self.popsize,))
        require(have == must, "x and f must have shapes {} and {}, not {} and {}", *must, *have)
        require(np.isfinite(x).all(), "x must be finite")
        require(not np.isnan(f).all(), "f is NaN at every point: there is nothing to rank")
        f[np.isnan(f)] = np.inf
        ranked = np.sort(f)
        if ranked[0] < self.best_f:
            self.best_x, self.best_f = x[f.argmin()].copy(), ranked[0]
        self.t = self.t + 1
        window = min(max(self.recent + 110, int(self.t) // 5), 20000)
        self.history = np.append(self.history, ranked[[0, self.popsize // 2, -1], None], axis=1)[
            :, -window:
        ]
        return x, f

    def axes(self):
        """Lengths (n,) of the principal axes, and directions (n, n), one a column; None if the coordinates'."""
        return np.broadcast_to(self.sigma, self.n), None

    @np.errstate(divide="ignore", over="ignore", invalid="ignore")
    def stop(self):
        """{reason: value} of every reason to stop, {} while there is none: Hansen's tutorial, Sec. B.3."""
        broken = [name for name in self.MOVING if not np.isfinite(getattr(self, name)).all()]
        if broken:
            return {"nonfinite": broken}
        (length, B), i = (
            self.axes(),
            int(self.t) % self.n,
        )  # one axis a generation is tested for its effect
        std = length if B is None else np.linalg.norm(B * length, axis=1)
        axis = length[i] * (np.arange(self.n) == i if B is None else B[:, i])
        stuck = self.mean + 0.2 * std == self.mean
        reasons = {  # tolx without its condition on p_c; a condition number is a ratio of squared lengths
            "tolx": (std.max() < 1e-12 * self.sigma0, std.max()),
            "tolxup": (length.max() > 1e4 * self.sigma0, length.max()),
            "conditioncov": (
                length.min() < 1e-7 * length.max(),
                (length.max() / length.min()) ** 2,
            ),
            "noeffectaxis": ((self.mean + 0.1 * axis == self.mean).all(), i),
            "noeffectcoord": (stuck.any(), np.flatnonzero(stuck).tolist()),
        }
        best, median, worst = self.history
        if best.size >= self.recent:
            f = np.append(best[-self.recent :], worst[-1])
            spread = 0.0 if f.min() == f.max() else np.ptp(f)  # not inf - inf
            reasons["tolfun"] = (spread <= 1e-12, spread)
        if best.size >= self.recent + 110:
            part = int(0.3 * best.size)
            flat = all(np.median(h[-part:]) >= np.median(h[:part]) for h in (best, median))
            reasons["stagnation"] = (flat, best.size)
        return {reason: value for reason, (holds, value) in reasons.items() if holds}


def by_rank(u, f):
    """Weight of each point: u[k] for rank k in f, smallest first, shared by ties; less the mean of u."""
    _, group, size = np.unique(f, return_inverse=True, return_counts=True)
    shared = np.add.reduceat(u, np.cumsum(size) - size) / size
    return (shared - np.add.reduceat(u, [0]) / u.size)[
        group
    ]  # summed alike: equal fitness weighs exactly 0


def eigh(a):
    """Eigenvalues, ascending, and -vectors, of whatever sign; NaN, which stop() reports, where NumPy would raise."""
    return (
        np.linalg.eigh(a)
        if np.isfinite(a).all()
        else (np.full(len(a), np.nan), np.full_like(a, np.nan))
    )


class OpenAIES(Strategy):
    """Gradient descent on E f(mean + sigma eps): Salimans et al. 2017, Algorithm 1, which maximises.

    popsize         even: rows i and i + popsize/2 of `ask` are an antithetic pair (Sec. 2.1); sigma is fixed
    fitness         "ranks" (centred, -1/2 to 1/2), "standardised" or "raw" (less the mean: pairs cancel it)
    optimizer       "sgd" or "adam" (Kingma & Ba 2015, Algorithm 1; momentum goes on under equal fitness)
    lr              learning rate; sigma0^2 unless given: under "ranks" a step is then a fraction of sigma
    weight_decay    the gradient of weight_decay/2 |mean|^2 is added
    """

    MOVING = ("mean", "sigma", "m", "v")

    def __init__(
        self,
        x0,
        sigma0,
        popsize=None,
        rng=None,
        fitness="ranks",
        optimizer="sgd",
        lr=None,
        weight_decay=0.0,
    ):
        super().__init__(x0, sigma0, popsize, rng)
        known = fitness in ("ranks", "standardised", "raw")
        require(known, "fitness must be ranks, standardised or raw, not {!r}", fitness)
        require(optimizer in ("sgd", "adam"), "optimizer must be sgd or adam, not {!r}", optimizer)
        self.popsize += self.popsize % 2 if popsize is None else 0
        require(
            self.popsize % 2 == 0, "popsize must be even, for antithetic pairs, not {!r}", popsize
        )
        self.fitness, self.optimizer, self.weight_decay = fitness, optimizer, weight_decay
        self.lr = self.sigma0**2 if lr is None else lr
        self.m, self.v = np.zeros(self.n), np.zeros(self.n)

    def ask(self):
        eps = self.rng.standard_normal((self.popsize // 2, self.n))  # l.3
        return self.mean + self.sigma * np.concatenate([eps, -eps])  # l.4

    def tell(self, x, f):
        x, f = self.told(x, f)
        g = self.gradient(x, f) + self.weight_decay * self.mean
        if self.optimizer == "adam":
            self.m = 0.9 * self.m + (1 - 0.9) * g
            self.v = 0.999 * self.v + (1 - 0.999) * g**2
            g = self.m / (1 - 0.9**self.t) / (np.sqrt(self.v / (1 - 0.999**self.t)) + 1e-8)
        self.mean = self.mean - self.lr * g  # l.5

    def gradient(self, x, f):
        """Gradient estimate (n,) at the mean: sum_i F_i eps_i / (popsize sigma), F the shaped fitness."""
        eps = (x - self.mean) / self.sigma
        return self.shaped(f) @ eps / (self.popsize * self.sigma)  # l.5

    def shaped(self, f):
        """f (popsize,) as the option `fitness` asks; equal fitness gives zeros. The deviation is by popsize."""
        if self.fitness == "ranks":
            return by_rank(np.arange(f.size) / (f.size - 1), f)
        finite = f[np.isfinite(f)] if np.isfinite(f).any() else np.zeros(1)
        f = (
            np.clip(f, finite.min(), finite.max()) - finite.min()
        )  # inf counts as the worst finite value
        f = f - f.mean()
        return f / (f.std() or 1.0) if self.fitness == "standardised" else f


def utilities(popsize):
    """u_k = max(0, ln(popsize/2 + 1) - ln k) / (their sum), k = 1 the best; `by_rank` subtracts 1/popsize."""
    u = np.maximum(0, np.log(popsize / 2 + 1) - np.log(np.arange(1, popsize + 1)))
    return u / u.sum()


class SNES(Strategy):
    """Separable NES (Wierstra et al. 2014, Algorithm 6, Table 1): sigma (n,), a step size per coordinate."""

    def __init__(self, x0, sigma0, popsize=None, rng=None):
        super().__init__(x0, sigma0, popsize, rng)
        self.sigma, self.u = np.full(self.n, self.sigma0), utilities(self.popsize)
        self.eta_mu, self.eta_sigma = 1.0, (3 + np.log(self.n)) / (5 * np.sqrt(self.n))

    def ask(self):
        s = self.rng.standard_normal((self.popsize, self.n))
        return self.mean + self.sigma * s  # z_k = mu + sigma s_k

    def tell(self, x, f):
        x, f = self.told(x, f)
        s, u = (x - self.mean) / self.sigma, by_rank(self.u, f)
        grad_mu = u @ s  # sum_k u_k s_k
        grad_sigma = u @ (s**2 - 1)  # sum_k u_k (s_k^2 - 1)
        self.mean = self.mean + self.eta_mu * self.sigma * grad_mu
        self.sigma = self.sigma * np.exp(self.eta_sigma / 2 * grad_sigma)


class XNES(Strategy):
    """Exponential NES (Wierstra et al. 2014, Algorithm 5, Table 1): covariance sigma^2 B B^T, det B = 1."""

    MOVING = ("mean", "sigma", "B")

    def __init__(self, x0, sigma0, popsize=None, rng=None):
        super().__init__(x0, sigma0, popsize, rng)
        self.B, self.u, self.eta_mu = np.eye(self.n), utilities(self.popsize), 1.0
        self.eta_sigma = self.eta_B = (9 + 3 * np.log(self.n)) / (5 * self.n * np.sqrt(self.n))

    def ask(self):
        s = self.rng.standard_normal((self.popsize, self.n))
        return self.mean + self.sigma * (
            s @ self.B.T
        )  # z_k = mu + sigma B s_k, where the paper has B^T

    def tell(self, x, f):
        x, f = self.told(x, f)
        s, u = np.linalg.solve(self.B, (x - self.mean).T / self.sigma).T, by_rank(self.u, f)
        grad_mu = u @ s  # sum_k u_k s_k
        grad_M = (s.T * u) @ s - u.sum() * np.eye(self.n)  # sum_k u_k (s_k s_k^T - I)
        grad_sigma = np.trace(grad_M) / self.n
        grad_B = grad_M - grad_sigma * np.eye(self.n)
        self.mean = self.mean + self.eta_mu * self.sigma * (self.B @ grad_mu)
        self.sigma = self.sigma * np.exp(self.eta_sigma / 2 * grad_sigma)
        values, V = eigh(self.eta_B / 2 * grad_B)
        self.B = (
            self.B @ (V * np.exp(values)) @ V.T
        )  # B exp(eta_B/2 grad_B), as exp(V L V^T) = V exp(L) V^T

    def axes(self):
        directions, lengths, _ = np.linalg.svd(self.B)
        return self.sigma * lengths, directions


class CMAES(Strategy):
    """Covariance matrix adaptation: N(mean, sigma^2 C), C = B D^2 B^T. Equations of Hansen's tutorial.

    diagonal    sep-CMA-ES (Ros & Hansen 2008): C and D (n,), no B; c_1 and c_mu (n + 2)/3 times as large
    """

    def __init__(self, x0, sigma0, popsize=None, rng=None, diagonal=False):
        super().__init__(x0, sigma0, popsize, rng)
        n, faster = self.n, (self.n + 2) / 3 if diagonal else 1.0
        w = np.log((self.popsize + 1) / 2) - np.log(np.arange(1, self.popsize + 1))  # (eq. 49)
        self.mu = self.popsize // 2
        plus, minus = w[: self.mu], w[self.mu :]
        mu_eff, mu_eff_minus = (v.sum() ** 2 / (v**2).sum() for v in (plus, minus))  # (eq. 8)
        c_1 = 2 * faster / ((n + 1.3) ** 2 + mu_eff)  # (eq. 57)
        c_mu = min(
            1 - c_1, 2 * faster * (1 / 4 + mu_eff + 1 / mu_eff - 2) / ((n + 2) ** 2 + mu_eff)
        )  # (eq. 58)
        alpha = min(1 + c_1 / c_mu, 1 + 2 * mu_eff_minus / (mu_eff + 2))  # (eqs. 50, 51)
        alpha = min(alpha, (1 - c_1 - c_mu) / (n * c_mu))  # (eq. 52)
        self.w = np.where(w >= 0, w / plus.sum(), alpha * w / -minus.sum())  # (eq. 53)
        self.c_m = 1.0  # (eq. 54)
        self.c_sigma = (mu_eff + 2) / (n + mu_eff + 5)  # (eq. 55)
        self.d_sigma = (
            1 + 2 * max(0.0, np.sqrt((mu_eff - 1) / (n + 1)) - 1) + self.c_sigma
        )  # (eq. 55)
        self.c_c = (4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n)  # (eq. 56)
        self.mu_eff, self.c_1, self.c_mu = mu_eff, c_1, c_mu
        self.chi_n = np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))  # E |N(0, I)|
        self.gap = int(
            np.ceil(1 / (10 * n * (c_1 + c_mu)))
        )  # generations that B and D serve: App. C, l.80
        self.diagonal, self.p_sigma, self.p_c, self.D = (
            diagonal,
            np.zeros(n),
            np.zeros(n),
            np.ones(n),
        )
        self.C, self.B = (np.ones(n), None) if diagonal else (np.eye(n), np.eye(n))
        self.MOVING += (
            ("p_sigma", "p_c", "C", "D") if diagonal else ("p_sigma", "p_c", "C", "D", "B")
        )

    def ask(self):
        z = self.rng.standard_normal((self.popsize, self.n))  # (eq. 38)
        y = z * self.D if self.diagonal else (z * self.D) @ self.B.T  # (eq. 39)
        return self.mean + self.sigma * y  # (eq. 40)

    def tell(self, x, f):
        x, f = self.told(x, f)
        n, mu, mu_eff, w, c_s, c_c = self.n, self.mu, self.mu_eff, self.w, self.c_sigma, self.c_c

        # Selection and recombination; the sort is stable, so that ties keep sampling order
        y = (x[np.argsort(f, kind="stable")] - self.mean) / self.sigma
        z = y / self.D if self.diagonal else (y @ self.B / self.D) @ self.B.T  # C^(-1/2) y
        y_w, z_w = w[:mu] @ y[:mu], w[:mu] @ z[:mu]  # (eq. 41) and C^(-1/2) of it
        self.mean = self.mean + self.c_m * self.sigma * y_w  # (eq. 42)

        # Step-size control
        self.p_sigma = (1 - c_s) * self.p_sigma + np.sqrt(
            c_s * (2 - c_s) * mu_eff
        ) * z_w  # (eq. 43)
        norm = np.sqrt(self.p_sigma @ self.p_sigma)
        self.sigma = self.sigma * np.exp(c_s / self.d_sigma * (norm / self.chi_n - 1))  # (eq. 44)

        # Covariance matrix adaptation; h_sigma stalls p_c while sigma is far too small. t counts this update
        h_sigma = float(
            norm / np.sqrt(1 - (1 - c_s) ** (2 * self.t)) < (1.4 + 2 / (n + 1)) * self.chi_n
        )  # (eq. 45)
        self.p_c = (1 - c_c) * self.p_c + h_sigma * np.sqrt(
            c_c * (2 - c_c) * mu_eff
        ) * y_w  # (eq. 45)
        w_o = np.where(
            w >= 0, w, w * n / np.maximum((z * z).sum(1), 1e-300)
        )  # (eq. 46), no 0 at the mean
        keep = (
            1 + self.c_1 * (1 - h_sigma) * c_c * (2 - c_c) - self.c_1 - self.c_mu * w.sum()
        )  # (eq. 47)
        # keep C + c_1 p_c p_c^T + c_mu sum_i w_o_i y_i y_i^T, with the rank-one term as one more row
        weights, rows = np.append(self.c_1, self.c_mu * w_o), np.vstack([self.p_c, y])  # (eq. 47)
        outer = weights @ rows**2 if self.diagonal else (rows.T * weights) @ rows  # (eq. 47)
        self.C = keep * self.C + outer  # (eq. 47)
        if self.t % self.gap == 0:
            D2, self.B = (self.C, None) if self.diagonal else eigh(self.C)
            self.D = np.sqrt(
                np.maximum(D2, 1e-20 * D2.max())
            )  # rounding can leave eigenvalues at or below 0

    def axes(self):
        return self.sigma * self.D, self.B


METHODS = {"cma-es": CMAES, "xnes": XNES, "snes": SNES, "openai-es": OpenAIES}


def minimize(f, x0, sigma0, method="cma-es", target=-np.inf, max_evaluations=None, **options):
    """Minimise f, which takes one point (n,) and returns a number; popsize, rng, ... go to the strategy.

    Ends after the generation in which stop() has a reason, f <= target, or max_evaluations (1e4 n) are spent.
    Returns a scipy.optimize.OptimizeResult: x and fun (the best evaluation), nfev, nit, message, stop, and
    status: 0 (success) for the target, or points or fitness as good as equal; 1 max_evaluations; 2 otherwise.
    """
    from scipy.optimize import OptimizeResult  # here, as it is slow to import

    require(method in METHODS, "method must be one of {}, not {!r}", ", ".join(METHODS), method)
    strategy, why = METHODS[method](x0, sigma0, **options), {}
    while not why:
        x = strategy.ask()
        strategy.tell(x, [f(p) for p in x.copy()])
        nfev, why = int(strategy.t) * strategy.popsize, strategy.stop()
        if strategy.best_f <= target:
            why["target"] = strategy.best_f
        if nfev >= (max_evaluations or 10_000 * strategy.n):
            why["max_evaluations"] = nfev
    status = (
        0 if why.keys() & {"target", "tolx", "tolfun"} else 1 if "max_evaluations" in why else 2
    )
    message = ", ".join(f"{reason}: {value}" for reason, value in why.items())
    report = {"success": status == 0, "status": status, "message": message, "stop": why}
    return OptimizeResult(
        x=strategy.best_x, fun=strategy.best_f, nfev=nfev, nit=int(strategy.t), **report
    )
