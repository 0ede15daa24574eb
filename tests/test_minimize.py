"""harness/minimize.py: what of scipy.optimize.minimize it keeps, and what ends it."""

import numpy as np
import pytest
from scipy.optimize import Bounds, OptimizeResult

import es
from harness.minimize import minimize
from tests.test_es import ellipsoid, noise_at, run, sphere, valley

INF = np.inf


@pytest.mark.parametrize("method", ["cma-es", "xnes", "snes"])
def test_minimize(method):
    calls = []

    def f(x):
        calls.append(x)
        return float(ellipsoid(x))

    result = minimize(f, np.ones(4), 0.5, method, rng=noise_at())
    assert isinstance(result, OptimizeResult)
    assert result.success and result.status == 0 and result.stop.keys() <= {"tolfun", "tolx"}
    assert calls[0].shape == (4,) and result.nfev == len(calls) == result.nit * 8
    assert result.fun == ellipsoid(result.x) == min(map(ellipsoid, calls)) < 1e-11
    assert next(iter(result.stop)) in result.message


def test_it_ends_at_target_or_limit():
    result = minimize(sphere, np.ones(3), 0.5, rng=noise_at(), target=0.1)
    assert result.success and result.stop == {"target": result.fun} and result.fun <= 0.1
    result = minimize(sphere, np.ones(3), 0.5, rng=noise_at(), max_evaluations=30)
    assert (result.nfev, result.nit, result.status, result.success) == (35, 5, 1, False)
    assert result.stop == {"max_evaluations": 35} and "max_evaluations" in result.message
    assert minimize(sphere, np.ones(3), 0.5, rng=noise_at(), max_evaluations=1).nfev == 7
    result = minimize(lambda x: x[0], np.ones(3), 0.5, rng=noise_at())
    assert result.status == 2 and not result.success and result.stop.keys() == {"tolxup"}
    falling = iter(range(20_000, 0, -1))  # better at each evaluation: no other reason to stop
    result = minimize(
        lambda x: next(falling), np.ones(1), 0.5, "openai-es", rng=noise_at(), popsize=20, lr=1e-9
    )
    assert result.nfev == 10_000 and result.stop == {"max_evaluations": 10_000}


def test_it_passes_on_its_options():
    result = minimize(
        sphere,
        np.ones(3),
        0.1,
        "openai-es",
        max_evaluations=50,
        popsize=10,
        rng=noise_at(),
        optimizer="adam",
        lr=0.1,
    )
    s = es.OpenAIES(np.ones(3), 0.1, 10, noise_at(), optimizer="adam", lr=0.1)
    run(s, sphere, 5)
    assert np.array_equal(result.x, s.best[0])
    assert minimize(ellipsoid, np.ones(9), 1.0, rng=noise_at(), diagonal=True).success


@pytest.mark.parametrize("name", ["jac", "hess", "constraints", "tol", "options", "diagonal"])
def test_keywords_that_it_does_not_take_are_refused_in_its_name(name):
    with pytest.raises(TypeError, match=rf"^minimize\(\) takes no '{name}'; .* popsize, rng$"):
        minimize(sphere, np.ones(3), 0.5, "snes", **{name: None})


def test_arguments_that_are_not_allowed():
    for words, arguments in (
        ("method must be one of cma-es, xnes, snes, openai-es, not 'nes'", {"method": "nes"}),
        ("max_evaluations must be a number of at least 1, not 0", {"max_evaluations": 0}),
        ("max_evaluations must be a number", {"max_evaluations": "9"}),
        ("restarts must be a number of at least 0, not -1", {"restarts": -1}),
        ("restarts must be a number of at least 0, not True", {"restarts": True}),
        ("target must be a number", {"target": np.nan}),
        ("popsize must be an integer", {"popsize": 1}),
        ("bounds must be 3 pairs of numbers", {"bounds": [(0, 2)]}),
        ("bounds must be 3 pairs of numbers", {"bounds": [("a", 2)] * 3}),
        ("bounds must be 3 pairs of numbers", {"bounds": 3}),
        ("bounds must be 3 pairs of numbers", {"bounds": [(0, 1, 2)] * 3}),
        ("bounds must be 3 pairs of numbers", {"bounds": Bounds([0, 0], 2)}),
        ("bounds must be 3 pairs .* lower <= upper", {"bounds": [(2, 0)] * 3}),
        ("bounds must be 3 pairs .* lower <= upper", {"bounds": [(np.nan, 2)] * 3}),
        ("x0 must be within the bounds", {"bounds": [(0, 2), (0, 2), (1.5, None)]}),
    ):
        with pytest.raises(ValueError, match=words):
            minimize(sphere, np.ones(3), 0.5, **arguments)


@pytest.mark.parametrize("value", [None, "1", [1.0, 2.0], 1j])
def test_a_function_must_return_a_number(value):
    with pytest.raises(ValueError, match="fun must return a number"):
        minimize(lambda x: value, np.ones(3), 0.5)
    for one in np.ones(1), np.ones((1, 1)), True, 1:
        assert minimize(lambda x, one=one: one, np.ones(3), 0.5, max_evaluations=1).fun == 1


def test_args_follow_the_point():
    result = minimize(lambda x, a, b: sphere(x - a) + b, [1.0, 1], 0.5, args=(3, 5), rng=0)
    np.testing.assert_allclose(result.x, 3, atol=1e-5)
    assert result.fun == pytest.approx(5)
    assert minimize(lambda x, a: sphere(x - a), [1.0, 1], 0.5, args=3, rng=0).fun < 1e-11


def test_f_may_write_on_its_argument():
    def f(x):
        value = sphere(x)
        x[:] = np.nan
        return value

    assert minimize(f, np.ones(2), 0.5, rng=noise_at()).fun < 1e-11


# --- Ends that are no success ---
@pytest.mark.parametrize("value", [INF, np.nan])
def test_nothing_finite_is_no_success(value):
    result = minimize(lambda x: value, [1.0, 1], 1)
    assert not result.success and result.status == 2 and result.fun == INF
    assert np.array_equal(result.x, [1, 1]) and result.message


def failing_after(count, f, failure):
    """f that calls `failure` at each evaluation after `count` of them; the points are kept."""
    points = []

    def g(x):
        points.append(x)
        if len(points) > count:
            return failure()
        return f(x)

    return g, points


def test_a_generation_of_nan_keeps_what_was_found():
    f, points = failing_after(100, sphere, lambda: np.nan)
    result = minimize(f, np.ones(3), 0.5, rng=noise_at())
    assert not result.success and result.status == 2 and result.stop.keys() == {"notfinite"}
    assert "NaN" in result.message and len(points) == result.nfev < 115
    assert result.fun == sphere(result.x) == min(map(sphere, points[:100]))


def test_ctrl_c_gives_what_was_found():
    def interrupt():
        raise KeyboardInterrupt

    f, points = failing_after(103, sphere, interrupt)  # amid a generation of 7
    result = minimize(f, np.ones(3), 0.5, rng=noise_at(), restarts=3)
    assert not result.success and result.status == 2 and result.stop.keys() == {"interrupted"}
    assert result.nfev == 103 and result.nit == 14 and "interrupted" in result.message
    assert result.fun == sphere(result.x) == min(map(sphere, points[:103]))


@pytest.mark.parametrize("error", [ZeroDivisionError, StopIteration, es.NotFinite])
def test_what_f_raises_passes(error):
    def f(x):
        raise error

    with pytest.raises(error):
        minimize(f, [1.0], 1)


# --- Callbacks ---
def test_callback_with_the_point():
    seen = []
    result = minimize(sphere, np.ones(3), 0.5, rng=noise_at(), callback=seen.append)
    assert len(seen) == result.nit and np.array_equal(seen[-1], result.x)
    assert (np.diff([sphere(x) for x in seen]) <= 0).all()
    seen[-1][:] = 7
    assert sphere(result.x) == result.fun


def test_callback_with_the_result_so_far_ends_the_run():
    seen = []

    def callback(intermediate_result):
        seen.append(intermediate_result)
        if intermediate_result.fun < 0.1:
            raise StopIteration

    result = minimize(sphere, np.ones(3), 0.5, rng=noise_at(), callback=callback, restarts=2)
    assert (result.status, result.success, result.stop.keys()) == (99, False, {"callback"})
    assert seen[-2].fun >= 0.1 > seen[-1].fun == result.fun and len(seen) == result.nit
    assert all(r.fun == sphere(r.x) for r in seen)


# --- Bounds ---
@pytest.mark.parametrize("method", ["cma-es", "xnes", "snes"])
@pytest.mark.parametrize("sigma0", [0.3, 3.0])
def test_bounds(method, sigma0):
    def f(x):
        assert (x >= 0).all() and (x <= 1).all()
        return valley(x)

    result = minimize(f, np.full(5, 0.5), sigma0, method, bounds=[(0, 1)] * 5, rng=1)
    np.testing.assert_allclose(result.x, [0, 1, 0.3, 0, 0.5], atol=1e-6)
    assert result.success and result.fun == valley(result.x)


def test_bounds_on_one_side_or_of_scipy_or_that_fix_a_coordinate():
    shifted = np.array([2.0, -1, 3])
    expected = [2, 0, 1]
    for bounds in (
        [(None, None), (0, None), (1, 1)],
        [(-INF, INF), (0, INF), (1, 1)],
        Bounds([-INF, 0, 1], [INF, INF, 1]),
    ):
        result = minimize(lambda x: sphere(x - shifted), np.ones(3), 0.5, bounds=bounds, rng=0)
        np.testing.assert_allclose(result.x, expected, atol=1e-5)
    result = minimize(lambda x: sphere(x - 3), np.ones(3), 0.5, bounds=Bounds(0, 2), rng=0)
    assert (result.x == 2).all()


# --- Restarts ---
def rastrigin(x):
    return 10 * x.size + (x**2 - 10 * np.cos(2 * np.pi * x)).sum()


def test_restarts_double_the_population_and_solve_what_one_run_does_not():
    one = minimize(rastrigin, np.full(3, 3.0), 2.0, rng=0, target=1e-8)
    assert one.fun > 0.9
    result = minimize(rastrigin, np.full(3, 3.0), 2.0, rng=0, target=1e-8, restarts=6)
    assert result.success and "target" in result.stop and result.nfev > 2 * one.nfev


def test_populations_starts_and_results_of_restarts(monkeypatch):
    begun = []

    class Watched(es.CMAES):
        def __init__(self, x0, sigma0, popsize=None, rng=None, diagonal=False):
            super().__init__(x0, sigma0, popsize, rng, diagonal)
            begun.append((self.popsize, tuple(x0), sigma0))

    monkeypatch.setitem(es.METHODS, "cma-es", Watched)
    points = []

    def f(x):
        points.append(x)
        return rastrigin(x)

    bounds = [(2.5, 9)] * 2
    generations = []
    options = dict(restarts=3, bounds=bounds, callback=generations.append)
    result = minimize(f, np.full(2, 3.5), 1.0, rng=4, **options)
    assert result.nit == len(generations)
    populations, starts, sigmas = zip(*begun, strict=True)
    assert populations == (6, 12, 24, 48) and set(sigmas) == {1.0}
    assert starts[0] == (3.5, 3.5) and len(set(starts)) == 4
    assert np.min(starts) == 2.5 and np.max(starts) < 3.5 + 4
    assert result.nfev == len(points) > 6 * result.nit
    assert result.fun == min(map(rastrigin, points)) == rastrigin(result.x)


def test_the_limit_is_that_of_all_runs():
    result = minimize(rastrigin, np.full(3, 3.0), 2.0, rng=0, restarts=50, max_evaluations=3000)
    assert 3000 <= result.nfev < 3000 + 7 * 2**6
    assert result.status == 1 and not result.success


def test_a_worse_last_run_leaves_the_reasons_of_the_best():
    calls = []

    def f(x):
        calls.append(x)
        return sphere(x) if len(calls) <= first.nfev else INF

    first = minimize(sphere, np.ones(2), 0.5, rng=3)
    result = minimize(f, np.ones(2), 0.5, rng=3, restarts=1)
    assert result.success and result.stop == first.stop and result.fun == first.fun
    assert result.nfev > first.nfev
