"""The chapter on what first order loses: its coefficients against theory and against oracles."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import autodiff as ad
from autodiff import Tensor, grad
from chapters import minibatches, nichol
from chapters.common import over_seeds
from harness.results import interval
from harness.settings import Setting
from policies import surrogate
from tests import oracles

KS = pytest.mark.parametrize("k", nichol.STEPS)


# --- Nichol's coefficients ---
@KS
@pytest.mark.parametrize(
    "problem, name",
    [("quadratics", "MAML, log-prob"), ("trees", "MAML, dice")]  # each with the Hessian of its loss
    + list(itertools.product(("quadratics", "trees"), ("FOMAML", "Reptile"))),
)
def test_coefficients_are_those_of_theory(problem, name, k):
    ab, off = nichol.measured(problem, name, k, 0, 0)
    assert_allclose(ab, [nichol.theory(name, k)], rtol=1e-4)
    assert off < 0.01


@KS
def test_second_term_of_the_hessian_of_log_prob(k):
    """-(k - 1) (H + E[the Hessian of log pi times the reward to go]) grad L,
    with the oracle's expectations.
    """
    tasks, theta = minibatches.problems()["trees"]
    inner, term = 0, 0
    for task in tasks:
        env, (g, H) = task.family, task.exact(theta)
        p, every = oracles.probabilities(env, theta), np.arange(len(oracles.episodes(env)[1]))
        weights = oracles.advantages(env, every)
        own = (
            -np.einsum("m,mt,mtij->ij", p, weights, oracles.step_hessians(env, theta, "log-prob"))
            / env.horizon
        )
        inner, term = inner + H @ g / 2, term - (k - 1) * (H + own) @ g / 2
    ab, off = nichol.measured("trees", "MAML, log-prob", k, 0, 0)
    assert_allclose(ab, [[1, -term @ inner / (inner @ inner)]], rtol=1e-4)
    across = term - inner * (term @ inner) / (inner @ inner)
    assert_allclose(off, 100 * np.linalg.norm(across) / np.linalg.norm(term), rtol=1e-4)


@pytest.mark.parametrize("name", ["MAML, dice", "MAML, log-prob", "FOMAML"])
def test_expected_steps_are_those_of_the_oracle(name):
    (task, _), theta = minibatches.problems()["trees"]
    options = (
        dict(env=task.family, policy=task.policy, inner_steps=1)
        | nichol.PLAIN
        | nichol.ALGORITHMS[name]
    )
    steps = nichol.expected_steps(task, name, 2, theta)[:, 0]
    for alpha, step in zip(nichol.ALPHAS, steps, strict=True):
        exact = oracles.program_expectation(Setting(alpha=alpha, **options), theta, 1, 1)
        assert_allclose(-task.family.horizon * step, exact, atol=1e-14)


def test_gradients_of_quadratics():
    task, theta = minibatches.Quadratic(np.random.default_rng(1)), np.array([0.4, -1.1])
    x = Tensor(np.tile(theta, (3, 1)))
    D = type(task.D)(*(a.swapaxes(0, 1) for a in task.D[:4]))
    c = Setting(env=task, policy=task, **nichol.PLAIN)
    g = grad(ad.sum(surrogate(c, x, D)), x).data
    assert_allclose(
        g, [A @ (theta - centre) for A, centre in zip(task.A, task.c, strict=True)], rtol=1e-14
    )
    assert_allclose(g.mean(0), task.exact(theta)[0], rtol=1e-14)


def test_sampled_steps_agree_with_the_closed_form(monkeypatch):
    monkeypatch.setattr(nichol, "BATCH", 400)
    for name, k in (("FOMAML", 3), ("Reptile", 2)):
        ab, _ = nichol.measured("point mass", name, k, 1600, 0)
        mean, half = interval(ab).values()
        assert_array_equal(abs(mean - nichol.theory(name, k)) < 2 * half, True)
        assert (half < 0.5 * mean).all()


def test_coefficients_of_a_parabola():
    average, inner, rest = np.array([2.0, 0, 0]), np.array([0, 0.5, 0]), np.array([0, 0, 0.75])
    steps = [
        [n * average - alpha * (3 * inner + rest) + alpha**2 for n in (1, 5)]
        for alpha in nichol.ALPHAS
    ]
    ab, off = nichol.coefficients(np.array(steps), average, inner)
    assert_allclose(ab, [[1, 3], [5, 3]], rtol=1e-9)
    assert_allclose(off, 100 * 0.75 / np.hypot(1.5, 0.75), rtol=1e-9)


def test_what_is_kept_is_b_over_a_in_per_cent_of_mamls():
    assert nichol.share(3, 1.0, 4.0) == 100
    assert nichol.share(3, 2.0, 4.0) == 50
    assert nichol.share(4, 1.0, 3.0) == 50
    kept = [nichol.share(k, *nichol.theory("Reptile", k)) for k in nichol.STEPS]
    assert_allclose(kept, 25)


def test_rows_of_a_run(monkeypatch):
    """Each algorithm as theory says, but for an `a` that is twice as large: half is kept."""

    def measured(problem, name, k, lifetimes, seed):
        a, b = nichol.theory(name, k)
        return np.array([[2 * a - 1, b], [2 * a + 1, b]]), 7.0

    monkeypatch.setattr(nichol, "measured", measured)
    rows, _ = nichol.run(nichol.QUICK, 0)
    assert rows["trees, Reptile, k = 3"] == {"a": 6, "b": 3, "b / theory": 1, "off, %": 7}
    assert rows["kept by MAML, dice"] == {"trees": 50, "point mass": 50}
    assert set(rows["kept by FOMAML"].values()) == {25}
    judged = {c.claim: c.holds for c in nichol.claims(over_seeds([rows, rows]))}
    assert not judged["MAML keeps it: dice, trees"]
    assert not judged["FOMAML keeps 50 %: apart from that, trees"]
