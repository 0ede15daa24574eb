"""stopping.py: when strategies stop, and when they do not. Strategies and functions are those of
test_es.py.
"""

import itertools
import warnings

import numpy as np
import pytest

import es
from stopping import window
from tests.test_es import ALL, INF, ellipsoid, every, noise_at, rotation, run, sphere


def test_nothing_to_stop_for():
    for make in ALL.values():
        s = make(np.ones(3), 0.5, rng=noise_at())
        assert s.stop() == {}
        run(s, sphere, 20)
        assert s.stop() == {}


def stopping(strategy, f, most=2000):
    for _ in range(most):
        strategy.tell(x := strategy.ask(), f(x))
        if reasons := strategy.stop():
            return reasons
    raise AssertionError("no reason to stop")


@pytest.mark.parametrize("name", ["openai", "snes", "xnes", "cma", "sep"])
def test_tolfun_on_a_flat_function(name):
    s = ALL[name](np.ones(3), 0.5, rng=noise_at())
    for value in 5.0, INF:
        s = ALL[name](np.ones(3), 0.5, rng=noise_at())
        reasons = stopping(s, lambda x, value=value: np.full(len(x), value))
        assert reasons["tolfun"] == 0
        assert s.t == s.recent == 10 + np.ceil(30 * 3 / s.popsize)


def test_tolfun_needs_all_of_the_last_generation_and_the_whole_window():
    s = es.CMAES(np.ones(3), 0.5, rng=noise_at())
    run(s, lambda x: np.ones(len(x)), s.recent - 1)
    assert "tolfun" not in s.stop()
    s.tell(x := s.ask(), np.where(np.arange(len(x)) == 3, 1 + 1e-9, 1.0))
    assert "tolfun" not in s.stop()
    s.tell(x := s.ask(), np.where(np.arange(len(x)) == 3, 1 + 1e-13, 1.0))
    assert 0 < s.stop()["tolfun"] < 1e-12
    for value in 1 + 1e-9, 1 - 1e-9:
        s.tell(x := s.ask(), np.full(len(x), value))
        assert "tolfun" not in s.stop()


@pytest.mark.parametrize("name", ["snes", "xnes", "cma", "sep"])
def test_contracting_distributions(name):
    s = ALL[name](np.zeros(3), 0.5, rng=noise_at())
    s.sigma = s.sigma * 1.01e-12
    assert "tolx" not in s.stop()
    s.sigma = s.sigma * 0.98
    assert s.stop() == {"tolx": pytest.approx(0.5 * 1.01e-12 * 0.98)}
    s = es.SNES(np.zeros(3), 0.5)
    s.sigma = np.array([0.5, 1e-13, 0.5])  # one coordinate alone does not do
    assert s.stop() == {}
    for make in es.XNES, es.CMAES:
        assert make(np.zeros(3), 1e-200).stop() == {}  # whose square is 0


@pytest.mark.parametrize("name", ["snes", "xnes", "cma", "sep"])
def test_diverging_distributions(name):
    s = ALL[name](np.zeros(3), 0.5, rng=noise_at())
    reasons = stopping(s, lambda x: x[:, 0] + 0.9 * x[:, 1])
    assert reasons.keys() <= {"tolxup", "conditioncov"}
    s = ALL[name](np.zeros(3), 0.5, rng=noise_at())
    s.sigma = s.sigma * 9.9e3
    assert s.stop() == {}
    s.sigma = s.sigma * 1.02
    assert s.stop() == {"tolxup": pytest.approx(0.5 * 9.9e3 * 1.02)}


@pytest.mark.parametrize("ratio, stops", [(0.99e7, False), (1.01e7, True)])
def test_condition_number(ratio, stops):
    """At 45 degrees, where the correlation matrix has the condition of the covariance matrix."""
    Q = np.array([[1.0, -1], [1, 1]]) / np.sqrt(2)
    xnes, cma = es.XNES(np.zeros(2), 1.0), es.CMAES(np.zeros(2), 1.0)
    cma.D = np.array([ratio**-0.5, ratio**0.5])
    cma.B, xnes.B = Q, Q * cma.D @ rotation(2, 8)
    for s in xnes, cma:
        assert s.stop() == ({"conditioncov": pytest.approx(ratio**2, rel=1e-6)} if stops else {})


@pytest.mark.parametrize("ratio", [1e7, 1e12])
def test_other_units_do_not_make_the_condition_worse(ratio):
    """Coordinates in units that differ by any factor, correlated or not: no reason to stop."""
    lengths = np.array([1.0, 1 / ratio, ratio])
    for name in "snes", "xnes", "cma", "sep":
        s = ALL[name](np.zeros(3), 1.0)
        if name == "xnes":
            s.B = lengths[:, None] * np.linalg.cholesky(0.5 + 0.5 * np.eye(3))
        elif name == "cma":
            s.C = (0.5 + 0.5 * np.eye(3)) * lengths * lengths[:, None]
            s.factorise()
        elif name == "snes":
            s.sigma = lengths
        else:
            s.D = lengths
        assert s.stop().keys() <= {"tolxup"}, name


def test_axes_of_coordinates_in_other_units_are_precise():
    """Where `eigh` sees zeros, or negative numbers: in closed form."""
    s = es.CMAES(np.zeros(2), 1.0)
    for unit, scale in itertools.product((1e-4, 1e-8, 1e-12), (1.0, 1e6)):
        s.C = scale**2 * np.array([[1.0, 0.6 * unit], [0.6 * unit, unit**2]])
        s.factorise()
        np.testing.assert_allclose(s.D.max(), scale, rtol=unit)
        np.testing.assert_allclose(s.D.min(), scale * 0.8 * unit, rtol=1e-3)  # 1 - 0.6^2 = 0.8^2
        np.testing.assert_allclose((s.B * s.D**2) @ s.B.T, s.C, rtol=1e-3)


def halfelli(x):
    """Hansen's: half of an ellipsoid, and as many coordinates that hardly count."""
    half = x.shape[1] // 2
    return ellipsoid(x[:, :half]) + 1e-8 * sphere(x[:, half:])


@pytest.mark.parametrize("seed", range(4))
def test_a_condition_of_1e14_is_solved_where_only_units_differ(seed):
    s = es.CMAES(np.ones(6), 0.5, rng=noise_at(seed))
    while s.best[1] > 1e-10:
        s.tell(x := s.ask(), halfelli(x))
        assert s.best[1] <= 1e-10 or not s.stop(), s.stop()


def test_singular_matrices_are_a_reason_to_stop_and_no_error():
    xnes, cma = es.XNES(np.zeros(2), 1.0, rng=noise_at()), es.CMAES(np.zeros(2), 1.0)
    xnes.B = np.ones((2, 2))
    assert "conditioncov" in xnes.stop()
    xnes.tell(x := noise_at().standard_normal((6, 2)), sphere(x))
    assert "nonfinite" in xnes.stop()
    assert np.isnan(xnes.axes()[0]).all()
    xnes.B = np.full((2, 2), np.nan)
    assert np.isnan(xnes.axes()[0]).all()
    cma.C = np.ones((2, 2))
    cma.factorise()
    assert "conditioncov" in cma.stop()
    cma.C = np.zeros((2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        cma.factorise()
        assert cma.stop()
        cma.tell(x, sphere(x))
        assert cma.stop()


def test_no_effect_of_a_coordinate_or_an_axis():
    for make in ALL.values():
        s = make(np.array([1.0, 1e12, 1]), 1e-5)  # one unit in the last place of 1e12 is 1.2e-4
        assert s.stop() == {"noeffectcoord": [1]}
        s.t = np.int64(4)
        assert s.stop() == {"noeffectcoord": [1], "noeffectaxis": 1}
        s = make(np.array([1.0, 1e12, 1]), 1e-3)
        s.t = np.int64(4)
        assert s.stop() == {}
    s = es.CMAES(np.array([1e12, 1e12]), 1.0)
    s.B, s.D = np.array([[0.8, -0.6], [0.6, 0.8]]), np.array([1.0, 1e-6])
    assert s.stop() == {}
    s.t = np.int64(1)
    assert s.stop() == {"noeffectaxis": 1}
    # column 2 is the first coordinate, row 2 is not
    cycle = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    s, xnes = es.CMAES(np.array([1e12, 1.0, 1.0]), 1e-5), es.XNES(np.array([1e12, 1.0, 1.0]), 1e-5)
    s.B, xnes.B = cycle, cycle * [3.0, 2, 1]
    for t, reasons in enumerate([{}, {}, {"noeffectaxis": 2}]):
        s.t = xnes.t = np.int64(t)
        assert s.stop() == xnes.stop() == {"noeffectcoord": [0], **reasons}
    s.B, s.D = np.array([[0.8, -0.6], [0.6, 0.8]]), np.array([1.0, 1e-6])
    xnes = es.XNES(np.array([1e12, 1e12]), 1.0)
    xnes.B = s.B * s.D
    assert xnes.stop() == {}
    xnes.t = np.int64(1)
    assert xnes.stop() == {"noeffectaxis": 1}


def test_stagnation():
    noise = noise_at(1)
    s = es.OpenAIES(np.ones(3), 0.5, rng=noise)
    reasons = stopping(s, lambda x: noise.random(len(x)))
    assert reasons.keys() == {"stagnation"}
    assert window(s) <= s.t < 1000
    s = es.OpenAIES(np.ones(3), 0.5, rng=noise_at(), lr=1e-3)
    for t in range(700):  # better by a hair in each generation, the best or the median alone
        s.tell(x := s.ask(), np.where(np.arange(len(x)) > t % 7, 1.0, 1 - 1e-4 * t))
        assert "stagnation" not in s.stop()


def test_window_of_stagnation():
    s = es.CMAES(np.ones(5), 0.5)  # 100 + 100 n^1.5 / popsize, as in pycma
    assert window(s) == 239
    for t, expected in (1194, 239), (1200, 240), (50_000, 10_000), (200_000, 20_000):
        s.t = np.int64(t)
        assert window(s) == expected
    assert window(es.SNES(np.ones(1000), 0.5)) == 20_000


LEVEL = np.concatenate([[0.0], np.ones(7), [5.0]])


@pytest.mark.parametrize("better", ["best", "median"])
def test_stagnation_takes_both_best_and_median(better):
    s = es.CMAES(np.ones(3), 0.5, popsize=9, rng=noise_at())
    for t in range(window(s) + 30):
        f = LEVEL.copy()
        f[slice(0, 1) if better == "best" else slice(1, 8)] -= 1e-5 * t
        s.tell(s.ask(), f)
        assert "stagnation" not in s.stop()
    s = es.CMAES(np.ones(3), 0.5, popsize=9, rng=noise_at())
    for _ in range(window(s)):
        assert "stagnation" not in s.stop()
        s.tell(s.ask(), LEVEL)
    assert s.stop()["stagnation"] == window(s)


@pytest.mark.parametrize(
    "when, better, stops", [(20, 1, True), (70, 1, False), (156, 1, False), (156, 0, True)]
)
def test_a_run_that_finds_better_points_does_not_stagnate(when, better, stops):
    """A better point in the window ends it for no reason unless it is among the first 30 %."""
    s = es.CMAES(np.ones(3), 0.5, popsize=9, rng=noise_at())
    assert window(s) == 157
    for t in range(157):
        s.tell(s.ask(), LEVEL - np.where((t == when) & (LEVEL == 0), better, 0))
    assert ("stagnation" in s.stop()) == stops


def test_what_was_found_before_the_window_is_not_new():
    s = es.CMAES(np.ones(3), 0.5, popsize=9, rng=noise_at())
    s.best_f = np.float64(-5)
    for t in range(157):
        s.tell(s.ask(), LEVEL - np.where((t == 150) & (LEVEL == 0), 1, 0))
    assert "stagnation" in s.stop()


def test_history_is_the_last_fifth_of_the_run():
    s = es.OpenAIES(np.ones(1), 0.5, popsize=4, rng=noise_at())
    for t in range(1, 1001):
        s.tell(s.ask(), [t + 3, t, t + 2, t + 1])
    assert s.recent == 18 and s.history.shape == (3, 200)
    assert np.array_equal(s.history[:, -1], [1000, 1002, 1003]) and s.history[0, 0] == 801


@every
def test_a_state_that_is_not_finite_is_said(make):
    s = make(np.ones(3), 0.5, rng=noise_at())
    for name in s.MOVING:
        broken = make(np.ones(3), 0.5, rng=noise_at())
        value = np.array(getattr(broken, name))
        value.flat[-1] = np.nan
        setattr(broken, name, value[()])
        assert broken.stop() == {"nonfinite": [name]}


def fuzzed(noise, popsize):
    """Fitness with ties, NaN, infinities and numbers at the ends of the range."""
    f = noise.standard_normal(popsize) * 10.0 ** noise.integers(-300, 300, popsize)
    odd = noise.choice([np.nan, INF, -INF, 1e308, -1e308, 0, 1, 1, 5e-324], popsize)
    f = np.where(noise.random(popsize) < noise.random(), odd, f)
    f[noise.integers(popsize)] = 1.0
    return f


@every
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_generation_leaves_the_state_broken_in_silence(make, seed):
    noise = noise_at(seed)
    s = make(noise.standard_normal(3), 10.0 ** noise.integers(-8, 8), popsize=8, rng=noise)
    if s.__class__ is es.OpenAIES:
        s.fitness = noise.choice(["ranks", "raw", "standardised"])
    for _ in range(60):
        x = s.ask()
        if noise.random() < 0.2:
            x = x * 10.0 ** noise.integers(-160, 160, x.shape)
        if not np.isfinite(x).all():
            break
        s.tell(x, fuzzed(noise, 8))
        broken = [name for name in s.MOVING if not np.isfinite(s.state()[name]).all()]
        assert s.stop().get("nonfinite", []) == broken
        if broken:
            break


@pytest.mark.parametrize("name", ["snes", "xnes", "cma", "sep"])
def test_converged_and_beyond(name):
    """Long after convergence there is always a reason to stop, whatever the numbers do."""
    s = ALL[name](np.ones(2), 0.5, rng=noise_at())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        reasons = stopping(s, sphere)
        assert s.best[1] < 1e-11
        for _ in range(1000):
            x = s.ask()
            if not np.isfinite(x).all():
                break
            s.tell(x, sphere(x))
            assert s.stop()
    assert reasons.keys() <= {"tolfun", "tolx"}
