"""What the strategies of stage 5 are told: points and values, some of them changed on purpose.

A change(t, x, f, s) is made to the points x and values f of generation t, counted from 1, before
the strategy s is told of them.
"""

import numpy as np

import es

from .vectors import Replay


def bowl(x):
    return (np.arange(1, x.shape[-1] + 1) * x**2).sum(-1) + 0.5 * x[:, 0] * x[:, -1]


def by_rank(f):
    """The numbers of the points, the best first."""
    return np.argsort(f, kind="stable")


# Each of the next changes x and f in place.


def usual(t, x, f, s):
    """A point that was not asked for, ties, NaN, infinity, and a best value that is not better."""
    if t == 2:
        first, second, _, fourth, fifth, *_ = by_rank(f)
        f[second] = f[first]
        f[fifth] = f[fourth]
    if t == 3:
        x[0] += 0.3
    if t == 4:  # the last of those that tie for the worst is not a number
        f[[0, 2]] = np.inf, np.nan
    if t == 5:
        f[:] = f - f.min() + s.best_f


def quiet(t, x, f, s):
    """Nothing but a best value that is not better, and one that is."""
    if t - 1 == s.first:
        f[:] = f - f.min() + s.best_f
    else:
        f[0] = s.best_f - 0.125


def far_at_2(t, x, f, s):
    """Generation 2 is far away, all on one side."""
    usual(t, x, f, s)
    if t == 2:
        x += 4 * s.sigma


def far_at_8(t, x, f, s):
    quiet(t, x, f, s)
    if t == 8:
        x += 4 * s.sigma


def extremes(t, x, f, s):
    """All infinite; values of both infinities; all equal, to a number that is rounded."""
    if t == 1:
        f[:] = np.inf
        f[[1, s.popsize // 2]] = np.nan
    if t == 2:
        f[[0, -1]] = -np.inf, np.inf
    if t == 3:
        f[:] = 0.1


def from_step(s, z):
    """The point that the strategy asks for where its noise is z (n,)."""
    rows = s.popsize // 2 if isinstance(s, es.OpenAIES) else s.popsize
    s.rng = Replay([{"kind": "standard_normal", "values": np.tile(z, (rows, 1))}])
    return s.ask()[0]


def strange(t, x, f, s):
    """Points that were not asked for: too far, at the mean, and moved to a bound."""
    n = s.n
    out = (-1.0) ** np.arange(n) / np.sqrt(n)
    if t == 1:  # the third just not too far, the fourth just too far, the worst at the mean
        other = np.where(np.arange(n) == 1, -1, 1) * out[::-1]
        _, _, third, fourth, *_, worst = by_rank(f)
        x[third] = from_step(s, (np.sqrt(n) + 5.95) * other)
        x[fourth] = from_step(s, (np.sqrt(n) + 6.05) * out)
        x[worst] = s.mean
    if t == 2:  # three at a bound, the last coordinate of all
        x[[0, 3, 5], -1] = x[3, -1]
        f[5] = np.nan  # a bad value is no reason to leave its point out
    if t == 3:  # the best is out of reach
        x[0] = s.mean + 20 * s.axes()[0].max() * out * np.sqrt(n)
        f[0] = -1.0
        x[by_rank(f)[-1]] = s.mean + 0.002  # and the worst is next to the mean
    if t == 4:  # no coordinate is that of three points, but one that of two and two
        x[4, 0] = x[1, 0]
        x[7, 0] = x[6, 0]
        x[[2, 3], 1] = x[1, 0]
        x[[5, 6], 2] = x[1, 0]
    if t == 5:  # all but two at a bound, which is 0
        x[:, 0] = np.minimum(x[:, 0] - np.sort(x[:, 0])[2], 0)


def threshold(shares):
    """p_sigma of generation t is as long as shares[t - 1] of the limit beyond which p_c stalls."""

    def change(t, x, f, s):
        parents = by_rank(f)[: s.parents]
        z_w = s.w[: s.parents] @ s.inverse_root_times(s.steps(x[parents]))
        gain = np.sqrt(s.c_sigma * (2 - s.c_sigma) * s.mu_eff)
        limit = (1.4 + 2 / (s.n + 1)) * s.chi_n * np.sqrt(1 - (1 - s.c_sigma) ** (2 * t))
        out = z_w / np.sqrt(z_w @ z_w)
        wanted = shares[t - 1] * limit * out - (1 - s.c_sigma) * s.p_sigma
        x += s.sigma * s.root_times((wanted / gain - z_w)[None])

    return change


def leap(t, x, f, s):
    """All points lie on one side, so far that sigma grows by more than e."""
    x[:] = from_step(s, 5.5 * np.sqrt(1 / s.n) * np.ones(s.n)) + 0.1 * (x - s.mean)


def flat(t, x, f, s):
    """Nothing varies along the second axis."""
    x[:, 1] = s.mean[1]


def nearly_flat(t, x, f, s):
    """What varies along the second axis is less than the floor of D lets through."""
    size = 2.0**-37 if t == s.first + 1 else 2.0**-30  # of the second generation more
    x[:, 1] = s.mean[1] + size * np.array([1, -1, 2, -0.5])


def scaled(factor):
    def change(t, x, f, s):
        f *= factor

    return change
