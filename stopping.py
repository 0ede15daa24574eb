"""When an evolution strategy of es.py had better stop: Hansen's tutorial, Sec. B.3.

`reasons_to_stop` names every reason that there is. It reads the distribution and the history of the
fitness, and changes nothing. Below it are the reasons that take more than a line: `condition`,
`spread_of`, and `stagnates` over a `window` of generations.
"""

import numpy as np


@np.errstate(divide="ignore", over="ignore", invalid="ignore")
def reasons_to_stop(strategy):
    """{reason: value} of every reason to stop, {} while there is none.

    As in the tutorial, but tolx without its condition on p_c; `condition` and `stagnates` say what
    else differs.
    """
    moving = {name: getattr(strategy, name) for name in strategy.MOVING}
    broken = [name for name, value in moving.items() if not np.isfinite(value).all()]
    if broken:
        return {"nonfinite": broken}

    mean = strategy.mean
    length, B = strategy.axes()
    i = int(strategy.t) % strategy.n  # one axis a generation is tested for its effect
    if B is None:
        std = length
        axis = length[i] * (np.arange(strategy.n) == i)
    else:
        relative = length / length.max()  # so that no square underflows
        std = length.max() * np.linalg.norm(B * relative, axis=1)
        axis = length[i] * B[:, i]
    stuck = np.flatnonzero(mean + 0.2 * std == mean)
    best, _, worst = strategy.history

    reasons = {}
    if std.max() < 1e-12 * strategy.sigma0:
        reasons["tolx"] = std.max()
    if length.max() > 1e4 * strategy.sigma0:
        reasons["tolxup"] = length.max()
    ratio = condition(length, B, std)
    if ratio > 1e14:
        reasons["conditioncov"] = ratio
    if (mean + 0.1 * axis == mean).all():
        reasons["noeffectaxis"] = i
    if stuck.size:
        reasons["noeffectcoord"] = stuck.tolist()
    if best.size >= strategy.recent:
        spread = spread_of(np.append(best[-strategy.recent :], worst[-1]))
        if spread <= 1e-12:
            reasons["tolfun"] = spread
    if stagnates(strategy):
        reasons["stagnation"] = best.size
    return reasons


def condition(length, B, std):
    """The condition number of the covariance matrix; where that is above 1e14 and finite, that of
    the correlations.

    Only the latter costs digits: the former is large also where units differ, by std (n,).
    """
    if B is None:
        return 1.0  # nothing is correlated
    of_covariance = (length.max() / length.min()) ** 2
    if not 1e14 < of_covariance < np.inf:
        return of_covariance
    root = B * length / std[:, None]
    if not np.isfinite(root).all():
        return np.inf
    of_correlation = np.linalg.svd(root, compute_uv=False)
    return (of_correlation.max() / of_correlation.min()) ** 2


def spread_of(f):
    """The largest less the smallest; 0, and not inf - inf, where all are equal."""
    if f.min() == f.max():
        return 0.0
    return np.ptp(f)


def window(strategy):
    """The number of generations in which best and median have to become better: a fifth of all.

    But at least as many as in pycma, and at most 20000. The tutorial's 120 + 30 n / popsize are so
    few that on rugged functions (BBOB f23) two runs of three end by chance, before they have begun
    to converge.
    """
    fifth = int(strategy.t) // 5
    least = 100 + int(100 * strategy.n**1.5 / strategy.popsize)
    return min(max(least, fifth), 20000)


def stagnates(strategy):
    """Whether best and median fitness are no better at the end of a window than at its start.

    By the medians of its last and its first 30 %. Not if the best point of all came after the first
    30 %.
    """
    best, median, _ = strategy.history
    if best.size < window(strategy):
        return False
    part = int(0.3 * best.size)
    found = best.argmin()
    best_is_later = found >= part and best[found] <= strategy.best_f
    last = np.median([best[-part:], median[-part:]], axis=1)
    first = np.median([best[:part], median[:part]], axis=1)
    return bool((last >= first).all()) and not best_is_later
