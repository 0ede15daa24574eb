"""Minimise a function with a strategy of es.py, called as scipy.optimize.minimize is.

    from harness.minimize import minimize
    result = minimize(lambda x: (x**2).sum(), [3.0, -2.0], 0.5)
    result.x, result.fun, result.success, result.message

How to read it, from top to bottom:
    minimize     what the arguments mean; one run, or several with growing populations
    run          one run: ask, evaluate, tell, until there is a reason to stop
    Objective    what is evaluated: within the bounds, counted, the best point kept
    ...          what the arguments may be
"""

import inspect

import numpy as np

from es import METHODS, NotFinite, check, numbers

CONVERGED = {"target", "tolx", "tolfun"}  # reasons to stop that are success
FINAL = {"target", "max_evaluations", "callback", "interrupted"}  # reasons for no other run


def minimize(
    fun,
    x0,
    sigma0,
    method="cma-es",
    target=-np.inf,
    max_evaluations=None,
    *,
    args=(),
    bounds=None,
    callback=None,
    restarts=0,
    **options,
):
    """Minimise fun(x, *args), a number, over x (n,), from x0 with standard deviation sigma0.

    method           a key of es.METHODS; `options` (popsize, rng, ...) go to its strategy
    target           ends when fun <= target
    max_evaluations  ends after the generation in which these are spent; 1e4 n unless given
    bounds           (lower, upper) for each coordinate, None for none, or scipy.optimize.Bounds.
                     What is outside is moved to the bound, evaluated and told there (`repaired` in
                     es.py says why that converges).
    callback         called after each generation as callback(x) with the best point so far, or as
                     callback(intermediate_result=...) if that is its parameter; StopIteration ends
    restarts         so many more runs, unless a reason in FINAL comes first, each with twice the
                     population and its first mean from N(x0, sigma0^2): IPOP (Auger & Hansen 2005).
                     max_evaluations is for all of them

    Returns a scipy.optimize.OptimizeResult: x and fun (the best evaluation), nfev, nit, success,
    status, message, and stop, {reason: value} of the end of the run that found x, or of the last
    run if one of them is in FINAL.
    Reasons are those of `stop` in es.py, target, max_evaluations, callback, interrupted (Ctrl-C),
    and notfinite (a generation of NaN). status: 0 (success) for target, tolx and tolfun, if fun is
    below inf; 1 for max_evaluations; 99 for callback, as in SciPy; 2 otherwise.
    Raises ValueError where arguments are not allowed, TypeError for keywords that are unknown.
    """
    check(method in METHODS, f"method must be one of {', '.join(METHODS)}, not {method!r}")
    check_options(method, options)
    strategy = METHODS[method](x0, sigma0, **options)
    if max_evaluations is None:
        max_evaluations = 10_000 * strategy.n
    check_at_least("max_evaluations", max_evaluations, 1)
    check_at_least("target", target, -np.inf)
    check_at_least("restarts", restarts, 0)
    check(restarts % 1 == 0, f"restarts must be a whole number, not {restarts!r}")
    x0 = strategy.mean
    objective = Objective(fun, args, x0, *limits(bounds, x0))

    nit = 0
    for k in range(int(restarts) + 1):
        if k > 0:
            start = objective.repair(x0 + sigma0 * strategy.rng.standard_normal(x0.size))
            larger = {"popsize": 2 * strategy.popsize, "rng": strategy.rng}
            strategy = METHODS[method](start, sigma0, **options | larger)
        best = objective.fun
        reasons = run(strategy, objective, target, max_evaluations, callback)
        nit += int(strategy.t)
        if k == 0 or objective.fun < best or reasons.keys() & FINAL:
            stop = reasons
        if reasons.keys() & FINAL:
            break
    return result_of(objective, nit, stop)


def run(strategy, objective, target, max_evaluations, callback):
    """One run, to its end: {reason: value}."""
    reasons = {}
    try:
        while not reasons:
            x = objective.repair(strategy.ask())
            f = [objective(p) for p in x]
            reasons = told(strategy, x, f)
            if objective.fun <= target:
                reasons["target"] = objective.fun
            if objective.nfev >= max_evaluations:
                reasons["max_evaluations"] = objective.nfev
            if callback is not None and raises_stop(callback, objective):
                reasons["callback"] = "StopIteration"
    except KeyboardInterrupt:
        reasons["interrupted"] = "Ctrl-C"
    return reasons


def told(strategy, x, f):
    """Tell, and return the reasons to stop."""
    try:
        strategy.tell(x, f)
    except NotFinite as error:
        return {"notfinite": str(error)}
    return strategy.stop()


def raises_stop(callback, objective):
    """Call it with the best so far; whether it raises StopIteration."""
    from scipy.optimize import OptimizeResult  # here, as it is slow to import

    result = OptimizeResult(x=objective.x.copy(), fun=objective.fun, nfev=objective.nfev)
    try:
        if list(inspect.signature(callback).parameters) == ["intermediate_result"]:
            callback(intermediate_result=result)
        else:
            callback(result.x)
    except StopIteration:
        return True
    return False


def result_of(objective, nit, stop):
    """The result after nit generations that ended for the reasons `stop`."""
    from scipy.optimize import OptimizeResult

    if stop.keys() & CONVERGED and objective.fun < np.inf:
        status = 0
    elif "max_evaluations" in stop:
        status = 1
    elif "callback" in stop:
        status = 99
    else:
        status = 2
    return OptimizeResult(
        x=objective.x,
        fun=objective.fun,
        nfev=objective.nfev,
        nit=nit,
        success=status == 0,
        status=status,
        message=", ".join(f"{reason}: {value}" for reason, value in stop.items()),
        stop=stop,
    )


class Objective:
    """fun at points (n,) within the bounds; how often it was evaluated, and where it was best."""

    def __init__(self, fun, args, x0, lower, upper):
        if not isinstance(args, tuple):
            args = (args,)  # as SciPy does
        self.function = fun
        self.args = args
        self.lower = lower
        self.upper = upper
        self.nfev = 0
        self.x = x0
        self.fun = np.inf

    def __call__(self, x):
        value = np.asarray(self.function(x.copy(), *self.args))
        is_number = value.size == 1 and value.dtype.kind in "biuf"
        check(is_number, f"fun must return a number, not {value!r}")
        value = float(value.item())
        self.nfev += 1
        if value < self.fun:
            self.fun = value
            self.x = x
        return value

    def repair(self, x):
        """x (popsize, n) or (n,), moved to the nearest point within the bounds."""
        return np.clip(x, self.lower, self.upper)


# --- What the arguments may be ---


def limits(bounds, x0):
    """Lower and upper bounds, each (n,), infinite where there are none."""
    n = x0.size
    try:
        if bounds is None:
            bounds = [(None, None)] * n
        if hasattr(bounds, "lb"):  # scipy.optimize.Bounds
            lower = np.broadcast_to(bounds.lb, n)
            upper = np.broadcast_to(bounds.ub, n)
        else:
            lower = [-np.inf if low is None else low for low, _ in bounds]
            upper = [np.inf if high is None else high for _, high in bounds]
        lower = numbers(lower)
        upper = numbers(upper)
        is_ordered = lower.shape == upper.shape == (n,) and (lower <= upper).all()
    except (TypeError, ValueError):
        is_ordered = False
    wanted = f"{n} pairs of numbers, lower <= upper"
    check(is_ordered, f"bounds must be {wanted}, not {bounds!r}")
    is_inside = (lower <= x0).all() and (x0 <= upper).all()
    check(is_inside, f"x0 must be within the bounds, not {x0}")
    return lower, upper


def check_at_least(name, value, least):
    number = numbers(value)
    holds = number.ndim == 0 and number >= least
    check(holds, f"{name} must be a number of at least {least}, not {value!r}")


def check_options(method, options):
    """Raise TypeError for an option that the strategy does not take."""
    known = list(inspect.signature(METHODS[method]).parameters)[2:]  # after x0 and sigma0
    for name in options:
        if name not in known:
            also = f"with method {method!r} it also takes {', '.join(known)}"
            raise TypeError(f"minimize() takes no {name!r}; {also}")
