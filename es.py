"""Evolution strategies: OpenAI-ES, SNES, xNES and CMA-ES, in NumPy. All of them minimise.

Each one keeps a normal distribution over x, and repeats three steps ("ask and tell"):
    x = strategy.ask()              sample a population, one point a row                (popsize, n)
    f = [fitness(p) for p in x]     evaluate it, smaller is better                      (popsize,)
    strategy.tell(x, f)             use the fitness to move the distribution
`tell` accepts points that were never asked for, of which those too far away count as nearer
(`shortening`), and points that were moved to a bound (`repaired`). `restore(state())` rebuilds a
strategy after any generation, bit for bit, but for its generator of noise. The loop in one call,
as scipy.optimize.minimize has it, is harness/minimize.py.

How to read it, from top to bottom:
    Strategy    what they share: arguments, the best point, saving; points not asked for
    OpenAIES    a gradient for the mean alone                 Salimans et al. 2017, arXiv 1703.03864
    SNES        natural gradient, a step size per coordinate  Wierstra et al. 2014, JMLR 15, 949-980
    XNES        natural gradient, full covariance             the same
    CMAES       full covariance, paths, negative weights      Hansen, arXiv 1604.00772v2
    stop        when going on is a waste: stopping.py

    in code           shape             in the papers
    mean              (n,)              theta, mu, m      mean of the distribution
    sigma             scalar or (n,)    sigma             step size, a standard deviation
    popsize           integer           n, lambda         points per generation
    n                 integer           d, n              dimension; in papers on ES the population
    eps, s, z         (popsize, n)      epsilon, s, z     standard normal noise of each point
    u, w              (popsize,)        u, w              utility or weight of each rank, best first
"""

from contextlib import suppress

import numpy as np

from stopping import reasons_to_stop, window


class NotFinite(ValueError):
    """`tell` was given points that are not finite, or fitness that is NaN at every point."""


def check(holds, message, error=ValueError):
    """Raise the error with the message unless it holds."""
    if not holds:
        raise error(message)


def numbers(value):
    """value as an array of floats; one NaN for booleans, text, ragged lists and other objects."""
    try:
        array = np.asarray(value)
    except ValueError:  # ragged
        return np.array(np.nan)
    if array.dtype.kind not in "iuf":
        return np.array(np.nan)
    return array.astype(float)


def positive(name, value):
    """value as a float; ValueError unless it is a positive, finite number."""
    number = numbers(value)
    is_positive = number.ndim == 0 and 0 < number < np.inf
    check(is_positive, f"{name} must be a positive number, not {value!r}")
    return float(number)


class Strategy:
    """What the four strategies share, whatever moves their distribution.

    x0, sigma0    first mean (n,) and standard deviation > 0
    popsize       points per generation, at least 2; 4 + floor(3 ln n) unless given
    rng           numpy.random.Generator, or a seed for one; `ask` alone draws from it
    Raises ValueError for arguments that are not allowed.
    """

    SEEN = ("t", "best_x", "best_f", "history")  # what it remembers of the generations told
    MOVING = ("mean", "sigma")  # what describes its distribution

    def __init__(self, x0, sigma0, popsize=None, rng=None):
        mean = numbers(x0)
        is_vector = mean.ndim == 1 and mean.size > 0 and np.isfinite(mean).all()
        check(is_vector, f"x0 must be a vector of finite numbers, not {x0!r}")
        self.n = mean.size
        self.sigma0 = positive("sigma0", sigma0)
        if popsize is None:
            popsize = 4 + int(3 * np.log(self.n))
        size = numbers(popsize)
        is_count = size.ndim == 0 and 2 <= size < np.inf and size == np.floor(size)
        check(is_count, f"popsize must be an integer of at least 2, not {popsize!r}")
        self.popsize = int(size)
        try:
            self.rng = np.random.default_rng(rng)
        except (TypeError, ValueError):
            text = f"rng must be a seed or a numpy.random.Generator, not {rng!r}"
            raise ValueError(text) from None

        self.mean = mean
        self.sigma = np.float64(self.sigma0)

        self.t = np.int64(0)  # generations told
        self.best_x = mean  # the best point ever told,
        self.best_f = np.float64(np.inf)  # and its fitness; inf before the first
        self.history = np.empty((3, 0))  # best, median, worst fitness of the latest generations

    @property
    def best(self):
        """(x, f) of the best point ever told."""
        return self.best_x, self.best_f

    @property
    def recent(self):
        """The number of latest generations in which the fitness has to change."""
        return 10 + int(np.ceil(30 * self.n / self.popsize))

    def state(self):
        """{name: array} of all that changes with the generations, but the generator of noise."""
        return {name: np.array(getattr(self, name)) for name in self.SEEN + self.MOVING}

    def restore(self, state):
        """Continue from what `state()` returned; other entries are ignored. Returns self.

        Raises ValueError, and changes nothing, if an entry is missing or of another shape or kind.
        """
        entries = {}
        for name, old in self.state().items():
            check(name in state, f"state: {name} is missing")
            new = np.array(state[name])
            wanted = old.shape
            if name == "history":  # which is as long as it is
                wanted = (3, new.size // 3)
            check(new.shape == wanted, f"state: {name} must have shape {wanted}, not {new.shape}")
            is_alike = np.can_cast(new.dtype, old.dtype, "same_kind")
            check(is_alike, f"state: {name} must be {old.dtype}, not {new.dtype}")
            entries[name] = new.astype(old.dtype)[()]  # [()] turns 0-d arrays into scalars
        vars(self).update(entries)
        return self

    def told(self, x, f):
        """Check one generation and remember it.

        Returns x (popsize, n) and f (popsize,), with inf for NaN. Raises NotFinite for an x that is
        not finite and where all of f is NaN, ValueError for other shapes and what is not numbers.
        """
        x = numbers(x)
        f = numbers(f)
        n, popsize = self.n, self.popsize
        fits = x.shape == (popsize, n) and f.shape == (popsize,)
        wanted = f"{(popsize, n)} and {(popsize,)}, of numbers"
        check(fits, f"x and f must have shapes {wanted}, not {x.shape} and {f.shape}")
        check(np.isfinite(x).all(), "x must be finite", NotFinite)
        is_ranked = not np.isnan(f).all()
        check(is_ranked, "f is NaN at every point: there is nothing to rank", NotFinite)
        f = np.where(np.isnan(f), np.inf, f)

        best = f.argmin()
        if f[best] < self.best_f:
            self.best_x = x[best].copy()
            self.best_f = f[best]
        self.t = self.t + 1
        ranked = np.sort(f)
        median = ranked[popsize // 2]  # of two in the middle the larger
        latest = [[ranked[0]], [median], [ranked[-1]]]
        kept = max(window(self), self.recent)
        self.history = np.append(self.history, latest, axis=1)[:, -kept:]
        return x, f

    def steps(self, x):
        """(x - mean) / sigma (popsize, n), to at most 1e100, as its square is taken."""
        with np.errstate(over="ignore"):
            return ((x - self.mean) / self.sigma).clip(-1e100, 1e100)

    def axes(self):
        """Lengths (n,) and directions (n, n), one a column, of the distribution's principal axes.

        None for directions that are those of the coordinates.
        """
        return np.broadcast_to(self.sigma, self.n), None

    def stop(self):
        """{reason: value} of every reason to stop, {} while there is none."""
        return reasons_to_stop(self)


def by_rank(u, f):
    """The weight of each point: u[k] for rank k in f, smallest first, less the mean of u.

    Points of equal fitness share the weights of their ranks.
    """
    _, group, size = np.unique(f, return_inverse=True, return_counts=True)
    start = np.cumsum(size) - size
    shared = np.add.reduceat(u, start) / size
    # Summed as the groups are: if all fitness is equal, every point weighs exactly 0.
    mean = np.add.reduceat(u, [0]) / u.size
    return (shared - mean)[group]


# --- Points that were not asked for ---
# The next two functions leave samples as they are, but where sigma is so small that rounding makes
# them equal.


def shortening(z):
    """The factor (popsize, 1) that shortens the steps z (popsize, n) that no sample takes.

    Samples are standard normal. The strategies learn from squares of steps: a single far point
    would stretch the distribution to where nothing is. So a step longer than sqrt(n) + 6, as is one
    sample in 3e11, counts with a usual length: that to which Hansen, arXiv 1110.4181, clips.
    """
    n = z.shape[1]
    usual = np.sqrt(n) + 2 * n / (n + 2)
    length = np.sqrt((z * z).sum(1, keepdims=True))
    is_far = length > np.sqrt(n) + 6
    return np.where(is_far, usual / np.maximum(length, usual), 1.0)


def repaired(x):
    """Whether some of the points x (popsize, n) were moved to a bound or a grid: three share a
    coordinate.

    They spread less than samples. Weights below 0 subtract the spread of bad points as if it were
    that of samples, and the distribution would grow where it should shrink; so they are left out.
    """
    ordered = np.sort(x, axis=0)
    return bool((ordered[2:] == ordered[:-2]).any())


class OpenAIES(Strategy):
    """Gradient descent on E f(mean + sigma eps): Algorithm 1 of Salimans et al. (it maximises).

    popsize         even: rows i and i + popsize/2 of `ask` are an antithetic pair (Sec. 2.1)
    sigma0          stays as it is
    fitness         "ranks" (centred, -1/2 to 1/2), "standardised" (on any scale of f the same), or
                    "raw" (steps in proportion to f; pairs cancel the mean)
    optimizer       "sgd" or "adam" (Kingma & Ba 2015, Algorithm 1; its moments go on moving the
                    mean where all fitness is equal)
    lr              learning rate > 0; sigma0^2 unless given: with ranks a step is a fraction of
                    sigma
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
        check(known, f"fitness must be ranks, standardised or raw, not {fitness!r}")
        check(optimizer in ("sgd", "adam"), f"optimizer must be sgd or adam, not {optimizer!r}")
        if popsize is None:
            self.popsize += self.popsize % 2
        is_even = self.popsize % 2 == 0
        check(is_even, f"popsize must be even, for antithetic pairs, not {popsize!r}")
        self.fitness = fitness
        self.optimizer = optimizer
        if lr is None:
            lr = self.sigma0 * self.sigma0
        self.lr = positive("lr (sigma0^2 unless given)", lr)
        decay = numbers(weight_decay)
        is_finite = decay.ndim == 0 and np.isfinite(decay)
        check(is_finite, f"weight_decay must be a finite number, not {weight_decay!r}")
        self.weight_decay = float(decay)
        self.m = np.zeros(self.n)
        self.v = np.zeros(self.n)

    def ask(self):
        """Points (popsize, n) around the mean, in antithetic pairs."""
        eps = self.rng.standard_normal((self.popsize // 2, self.n))  # OpenAI-ES l.3
        eps = np.concatenate([eps, -eps])
        return self.mean + self.sigma * eps  # OpenAI-ES l.4

    def tell(self, x, f):
        """Move the mean against the gradient that the points x with fitness f tell."""
        x, f = self.told(x, f)
        g = self.gradient(x, f) + self.weight_decay * self.mean
        if self.optimizer == "adam":
            g = self.adam(g)
        self.mean = self.mean - self.lr * g  # OpenAI-ES l.5, ES-MAML l.6

    def gradient(self, x, f):
        """The gradient (n,) at the mean: sum_i F_i eps_i / (popsize sigma), F from `shaped`."""
        eps = self.steps(x)
        eps = eps * shortening(eps)
        F = self.shaped(f)
        return F @ eps / (self.popsize * self.sigma)  # OpenAI-ES l.5, ES-MAML l.6

    def shaped(self, f):
        """f (popsize,) as the option `fitness` asks; equal fitness gives zeros."""
        if self.fitness == "ranks":  # the worst weighs 1/2, as the mean moves against the gradient
            return by_rank(np.arange(f.size) / (f.size - 1), f)
        finite = f[np.isfinite(f)]
        if finite.size == 0:
            finite = np.zeros(1)
        f = np.clip(f, finite.min(), finite.max())  # inf counts as the worst finite value
        if self.fitness == "raw":
            f = f - finite.min()
            return f - f.mean()
        # On any scale: no difference of halves overflows, and of numbers from 0 to 1 no square.
        f = f / 2 - finite.min() / 2
        _, exponent = np.frexp(f.max())
        f = np.ldexp(f, -exponent)  # divided by a power of 2, which rounds nothing
        f = f - f.mean()
        return f / (f.std() or 1.0)  # the deviation by popsize

    def adam(self, g):
        """The direction of Adam's step."""
        self.m = 0.9 * self.m + (1 - 0.9) * g
        self.v = 0.999 * self.v + (1 - 0.999) * g**2
        m_hat = self.m / (1 - 0.9**self.t)
        v_hat = self.v / (1 - 0.999**self.t)
        return m_hat / (np.sqrt(v_hat) + 1e-8)


def utilities(popsize):
    """u_k = max(0, ln(popsize/2 + 1) - ln k) / (their sum), k = 1 the best (Wierstra et al. 2014).

    `utility` subtracts 1/popsize.
    """
    k = np.arange(1, popsize + 1)
    u = np.maximum(0, np.log(popsize / 2 + 1) - np.log(k))
    return u / u.sum()


def utility(u, x, f):
    """u_k of each point x by its rank in f, less 1/popsize; not less if some were `repaired`."""
    weights = by_rank(u, f)
    if repaired(x):
        weights = weights + u.mean()  # as they were: none is below 0
    return weights


class SNES(Strategy):
    """Separable NES (Wierstra et al., Algorithm 6, Table 1): sigma (n,), one per coordinate."""

    def __init__(self, x0, sigma0, popsize=None, rng=None):
        super().__init__(x0, sigma0, popsize, rng)
        self.sigma = np.full(self.n, self.sigma0)
        self.u = utilities(self.popsize)
        self.eta_mu = 1.0
        self.eta_sigma = (3 + np.log(self.n)) / (5 * np.sqrt(self.n))

    def ask(self):
        """Points (popsize, n): z_k = mu + sigma s_k."""
        s = self.rng.standard_normal((self.popsize, self.n))
        return self.mean + self.sigma * s

    def tell(self, x, f):
        """Move mean and step sizes along the natural gradient."""
        x, f = self.told(x, f)
        s = self.steps(x)
        s = s * shortening(s)
        u = utility(self.u, x, f)
        grad_mu = u @ s  # sum_k u_k s_k
        grad_sigma = u @ (s**2 - 1)  # sum_k u_k (s_k^2 - 1)
        self.mean = self.mean + self.eta_mu * self.sigma * grad_mu
        self.sigma = self.sigma * np.exp(self.eta_sigma / 2 * grad_sigma)


class XNES(Strategy):
    """Exponential NES (Wierstra et al., Algorithm 5, Table 1): covariance sigma^2 B B^T."""

    MOVING = ("mean", "sigma", "B")

    def __init__(self, x0, sigma0, popsize=None, rng=None):
        super().__init__(x0, sigma0, popsize, rng)
        n = self.n
        self.B = np.eye(n)  # its determinant stays 1
        self.u = utilities(self.popsize)
        self.eta_mu = 1.0
        self.eta_sigma = (9 + 3 * np.log(n)) / (5 * n * np.sqrt(n))
        self.eta_B = self.eta_sigma

    def ask(self):
        """Points (popsize, n): z_k = mu + sigma B s_k, where the paper has B^T."""
        s = self.rng.standard_normal((self.popsize, self.n))
        return self.mean + self.sigma * (s @ self.B.T)

    def tell(self, x, f):
        """Move mean, step size and shape along the natural gradient."""
        x, f = self.told(x, f)
        s = solve(self.B, self.steps(x).T).T
        s = s * shortening(s)
        u = utility(self.u, x, f)
        identity = np.eye(self.n)
        grad_mu = u @ s  # sum_k u_k s_k
        grad_M = (s.T * u) @ s - u.sum() * identity  # sum_k u_k (s_k s_k^T - I)
        grad_sigma = np.trace(grad_M) / self.n
        grad_B = grad_M - grad_sigma * identity
        self.mean = self.mean + self.eta_mu * self.sigma * (self.B @ grad_mu)
        self.sigma = self.sigma * np.exp(self.eta_sigma / 2 * grad_sigma)
        # B exp(eta_B/2 grad_B), where exp(V L V^T) = V exp(L) V^T
        L, V = eigh(self.eta_B / 2 * grad_B)
        self.B = self.B @ (V * np.exp(L)) @ V.T

    def axes(self):
        lengths, directions = axes_of_root(self.B)
        return self.sigma * lengths, directions


# Where NumPy would raise, the next three return NaN, which `stop` reports.


def solve(a, b):
    """a^-1 b."""
    try:
        return np.linalg.solve(a, b)
    except np.linalg.LinAlgError:
        return np.full_like(b, np.nan)


def eigh(a):
    """Eigenvalues, ascending, and eigenvectors, of whatever sign."""
    if np.isfinite(a).all():
        return np.linalg.eigh(a)
    return np.full(len(a), np.nan), np.full_like(a, np.nan)


def axes_of_root(a):
    """Lengths (n,) and directions (n, n), one a column, of the axes of the covariance a a^T."""
    if np.isfinite(a).all():
        directions, lengths, _ = np.linalg.svd(a)
        return lengths, directions
    return np.full(len(a), np.nan), np.full_like(a, np.nan)


class CMAES(Strategy):
    """Covariance matrix adaptation: N(mean, sigma^2 C), C = B D^2 B^T (Hansen's tutorial).

    diagonal    sep-CMA-ES (Ros & Hansen 2008): C and D (n,), no B; c_1 and c_mu (n + 2)/3 times as
                large. The arithmetic in which the two differ stands in the last four methods.
    """

    def __init__(self, x0, sigma0, popsize=None, rng=None, diagonal=False):
        super().__init__(x0, sigma0, popsize, rng)
        n = self.n
        self.diagonal = diagonal
        self.choose_parameters()
        self.chi_n = np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))  # E |N(0, I)|
        # C is factorised every so many generations (App. C, l.80, which counts evaluations).
        self.gap = int(np.ceil(1 / (10 * n * (self.c_1 + self.c_mu))))

        self.p_sigma = np.zeros(n)
        self.p_c = np.zeros(n)
        self.D = np.ones(n)
        if diagonal:
            self.C = np.ones(n)
            self.B = None
            self.MOVING = ("mean", "sigma", "p_sigma", "p_c", "C", "D")
        else:
            self.C = np.eye(n)
            self.B = np.eye(n)
            self.MOVING = ("mean", "sigma", "p_sigma", "p_c", "C", "D", "B")

    def choose_parameters(self):
        """The weights of the ranks, and how fast each part of the distribution learns."""
        n = self.n
        faster = (n + 2) / 3 if self.diagonal else 1.0
        self.parents = self.popsize // 2  # the better half, which moves the mean: mu

        k = np.arange(1, self.popsize + 1)
        w = np.log((self.popsize + 1) / 2) - np.log(k)  # (eq. 49)
        plus = w[: self.parents]
        minus = w[self.parents :]
        mu_eff = plus.sum() ** 2 / (plus**2).sum()  # (eq. 8)
        mu_eff_minus = minus.sum() ** 2 / (minus**2).sum()  # (eq. 8)

        c_1 = 2 * faster / ((n + 1.3) ** 2 + mu_eff)  # (eq. 57)
        rate = 2 * faster * (1 / 4 + mu_eff + 1 / mu_eff - 2)
        c_mu = min(1 - c_1, rate / ((n + 2) ** 2 + mu_eff))  # (eq. 58)

        # The negative weights are made so large that C stays positive definite.
        alpha = min(1 + c_1 / c_mu, 1 + 2 * mu_eff_minus / (mu_eff + 2))  # (eqs. 50, 51)
        alpha = min(alpha, (1 - c_1 - c_mu) / (n * c_mu))  # (eq. 52)
        self.w = np.where(w >= 0, w / plus.sum(), alpha * w / -minus.sum())  # (eq. 53)

        self.mu_eff = mu_eff
        self.c_1 = c_1
        self.c_mu = c_mu
        self.c_m = 1.0  # (eq. 54)
        self.c_sigma = (mu_eff + 2) / (n + mu_eff + 5)  # (eq. 55)
        more = max(0.0, np.sqrt((mu_eff - 1) / (n + 1)) - 1)  # for large populations
        self.d_sigma = 1 + 2 * more + self.c_sigma  # (eq. 55)
        self.c_c = (4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n)  # (eq. 56)

    def ask(self):
        """Points (popsize, n) from N(mean, sigma^2 C)."""
        z = self.rng.standard_normal((self.popsize, self.n))  # (eq. 38)
        y = self.root_times(z)  # (eq. 39)
        return self.mean + self.sigma * y  # (eq. 40)

    def tell(self, x, f):
        """Move mean, step size and covariance matrix."""
        x, f = self.told(x, f)

        # Selection and recombination: y_1 belongs to the best point. Ties keep their order.
        order = np.argsort(f, kind="stable")
        y = self.steps(x[order])
        z = self.inverse_root_times(y)  # C^(-1/2) y
        shorter = shortening(z)
        y = y * shorter
        z = z * shorter
        parents = slice(self.parents)
        y_w = self.w[parents] @ y[parents]  # (eq. 41)
        z_w = self.w[parents] @ z[parents]  # C^(-1/2) y_w
        self.mean = self.mean + self.c_m * self.sigma * y_w  # (eq. 42)

        self.control_step_size(z_w)
        w = self.w
        if repaired(x):
            w = np.maximum(w, 0)
        self.adapt_covariance(w, y, z, y_w)

    def control_step_size(self, z_w):
        """sigma grows where the path, a fading sum of steps, is longer than that of random ones."""
        gain = np.sqrt(self.c_sigma * (2 - self.c_sigma) * self.mu_eff)
        self.p_sigma = (1 - self.c_sigma) * self.p_sigma + gain * z_w  # (eq. 43)
        length = np.sqrt(self.p_sigma @ self.p_sigma)
        change = self.c_sigma / self.d_sigma * (length / self.chi_n - 1)
        self.sigma = self.sigma * np.exp(change)  # (eq. 44)

    def adapt_covariance(self, w, y, z, y_w):
        """C grows along the path of the mean and along good steps, and shrinks along bad ones."""
        n = self.n
        # h_sigma = 0 stalls the path p_c while p_sigma is long: sigma is too small, and C would
        # grow in its place. The root is what p_sigma lacks in length in the first generations; t
        # has counted this one already (`told`), as g + 1 does in the tutorial.
        length = np.sqrt(self.p_sigma @ self.p_sigma)
        length = length / np.sqrt(1 - (1 - self.c_sigma) ** (2 * self.t))  # (eq. 45)
        is_short = length < (1.4 + 2 / (n + 1)) * self.chi_n  # (eq. 45)
        h_sigma = 1.0 if is_short else 0.0
        gain = np.sqrt(self.c_c * (2 - self.c_c) * self.mu_eff)
        self.p_c = (1 - self.c_c) * self.p_c + h_sigma * gain * y_w  # (eq. 45)

        squares = np.maximum((z * z).sum(1), 1e-300)  # a point at the mean has none
        w_o = np.where(w >= 0, w, w * n / squares)  # (eq. 46)

        # c_1 p_c p_c^T and c_mu sum_i w_o_i y_i y_i^T: each is given by its weights and its rows.
        rank_one = ([self.c_1], [self.p_c])  # (eq. 47)
        rank_mu = (self.c_mu * w_o, y)  # (eq. 47)
        made_up = self.c_1 * (1 - h_sigma) * self.c_c * (2 - self.c_c)  # where the path stalls
        keep = 1 + made_up - self.c_1 - self.c_mu * w.sum()  # (eq. 47)
        self.C = keep * self.C + self.outer_products(rank_one, rank_mu)  # (eq. 47)
        if self.t % self.gap == 0:
            self.factorise()

    def axes(self):
        return self.sigma * self.D, self.B

    # What differs with `diagonal`.

    def root_times(self, z):
        """B D z for each row of z: N(0, I) becomes N(0, C)."""
        if self.diagonal:
            return z * self.D
        return (z * self.D) @ self.B.T

    def inverse_root_times(self, y):
        """C^(-1/2) y = B D^-1 B^T y for each row of y."""
        if self.diagonal:
            return y / self.D
        return (y @ self.B / self.D) @ self.B.T

    def outer_products(self, *terms):
        """The sum of weight_i row_i row_i^T over all rows of all terms (weights, rows).

        (n, n), or its diagonal (n,). One matrix product for all: for large n that is much faster
        than a sum of matrices.
        """
        weights = np.concatenate([weights for weights, _ in terms])
        rows = np.concatenate([rows for _, rows in terms])
        if self.diagonal:
            return weights @ rows**2
        return (rows.T * weights) @ rows

    def factorise(self):
        """B and D from C = B D^2 B^T."""
        if self.diagonal:
            D2 = self.C
        else:
            D2, self.B = eigh(self.C)
        self.D = np.sqrt(np.maximum(D2, 1e-20 * D2.max()))  # rounding can leave some at or below 0
        # Errors of eigh are relative to the longest axis, those of a Cholesky factor, which has the
        # same axes, to each coordinate: where only units differ, it still has the short axes.
        if not self.diagonal and D2.min() < 1e-10 * D2.max():
            with suppress(np.linalg.LinAlgError):  # not even that one has them: conditioncov
                self.D, self.B = axes_of_root(np.linalg.cholesky(self.C))


METHODS = {"cma-es": CMAES, "xnes": XNES, "snes": SNES, "openai-es": OpenAIES}
