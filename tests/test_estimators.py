"""The meta-gradient estimators that metarl.py runs,
against problems whose meta-gradients are known exactly.

First the oracles themselves; then the estimators in expectation, over all that can happen; then
sampled.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from benchmarks.estimators import EPISODES, cosines, es_estimates
from metarl import noise_at
from policies import ESTIMATORS, rollout
from tests.oracles import (
    BANDIT,
    EXIT,
    MASS,
    THETA,
    TREE,
    LinearGaussian,
    derivative,
    episodes,
    expectation,
    gradient,
    hessian,
    meta_gradient,
    meta_value,
    probabilities,
    program_expectation,
    setting,
    value,
    weighted,
)

PROBLEMS = pytest.mark.parametrize("env", [BANDIT, TREE, EXIT], ids=["bandit", "tree", "exit"])
ESTIMATOR = pytest.mark.parametrize("estimator", ESTIMATORS)


def off(estimate, exact):
    """The relative error in per cent."""
    return 100 * np.linalg.norm(estimate - exact) / np.linalg.norm(exact)


def differences(f, x, h=1e-5):
    return np.stack([f(x + e) - f(x - e) for e in h * np.eye(len(x))], -1) / (2 * h)


def rows(theta, n):
    return Tensor(np.tile(theta, (n, 1)))


def jacobian(g, theta):
    """(T, P, P): of g (T, P), each row a function of the same row of theta."""
    return np.stack([grad(ad.sum(g[:, i]), theta).data for i in range(g.shape[1])], 1)


def standard_errors(samples, exact):
    """How many of its standard errors the mean of the samples (n, ...) is off, where they vary;
    else how far.
    """
    error = samples.std(0) / np.sqrt(len(samples))
    return (samples.mean(0) - exact) / np.where(error > 1e-12, error, 1e-9)


# --- The oracles ---
@PROBLEMS
def test_episodes_are_what_rollouts_produce(env):
    D, p = episodes(env)[0], probabilities(env, THETA[env])
    E = rollout(env, setting(env).pi, THETA[env][None], np.zeros((1, 1)), 20000, noise_at(1))
    steps = [
        np.stack([x.obs.argmax(-1), x.actions, x.rewards, 1 + 0 * x.rewards], -1)[0]
        * x.mask[0, ..., None]
        for x in (E, D)
    ]
    same = (steps[0][:, None] == steps[1]).all((2, 3))
    assert (same.sum(1) == 1).all()
    assert_allclose(p.sum(), 1, rtol=1e-14)
    assert abs(standard_errors(same, p)).max() < 4


@PROBLEMS
def test_derivatives_of_the_oracles(env):
    theta = THETA[env]
    assert_allclose(gradient(env, theta), derivative(lambda x: value(env, x), theta), atol=1e-15)
    assert_allclose(gradient(env, theta), differences(lambda x: value(env, x), theta), atol=1e-9)
    assert_allclose(hessian(env, theta), differences(lambda x: gradient(env, x), theta), atol=1e-9)
    limit = (np.eye(len(theta)) + 0.7 * hessian(env, theta)) @ gradient(
        env, theta + 0.7 * gradient(env, theta)
    )
    assert_allclose(meta_gradient(env, theta, 0.7), limit, atol=1e-15)
    for options in (dict(N=None, steps=2), dict(N=1, steps=2), dict(N=2, baseline="time")):
        exact = differences(lambda x, o=options: meta_value(env, x, 0.7, **o), theta)
        assert_allclose(meta_gradient(env, theta, 0.7, **options), exact, atol=1e-9)


def test_derivatives_of_the_point_mass():
    env = LinearGaussian()
    assert_allclose(env.gradient(MASS), differences(env.value, MASS), atol=1e-8)
    assert_allclose(env.hessian(MASS), env.hessian(MASS).T, atol=1e-7)
    returns = (
        rollout(env, setting(env).pi, MASS[None], np.zeros((1, 1)), 40000, noise_at(2))
        .rewards[0]
        .sum(1)
    )
    assert abs(standard_errors(returns, env.value(MASS))) < 4


# --- In expectation: every estimator, every outcome ---
FIGURES = [  # N, estimator, sampling term, what is expected: theta = (.2, -.1, .3), alpha = 1
    (None, "dice", False, (0.13691535, -0.10118676, -0.03572859)),
    (None, "lvc", False, (0.13691535, -0.10118676, -0.03572859)),
    (None, "log-prob", False, (0.10839120, -0.09056079, -0.01783042)),
    (None, "first-order", False, (0.13152310, -0.10668625, -0.02483685)),
    (1, "log-prob", True, (0.13066142, -0.10066881, -0.02999261)),
    (1, "first-order", False, (0.12196522, -0.10205865, -0.01990657)),
    (1, "log-prob", False, (0.10132593, -0.08815838, -0.01316754)),
    (1, "lvc", False, (0.13072830, -0.10124646, -0.02948184)),
    (4, "log-prob", True, (0.13495097, -0.10099606, -0.03395492)),
    (4, "first-order", False, (0.12916027, -0.10560041, -0.02355986)),
    (4, "log-prob", False, (0.10640106, -0.08992016, -0.01648090)),
    (4, "lvc", False, (0.13561785, -0.10143288, -0.03418497)),
]


@pytest.mark.parametrize("N, estimator, sampling_term, expected", FIGURES)
def test_figures_of_the_bandit(N, estimator, sampling_term, expected):
    c = setting(BANDIT, estimator=estimator, sampling_term=sampling_term)
    assert_allclose(program_expectation(c, THETA[BANDIT], N), expected, atol=5e-9)
    if estimator == "dice" or sampling_term:
        assert_allclose(meta_gradient(BANDIT, THETA[BANDIT], 1, N), expected, atol=5e-9)


@pytest.mark.parametrize(
    "estimator, error", [("dice", 0), ("lvc", 9.3), ("log-prob", 21.5), ("first-order", 10.8)]
)
def test_figures_of_the_tree(estimator, error):
    """A bandit cannot show what is missing from LVC:
    that an action also decides which states follow.
    """
    exact = meta_gradient(TREE, THETA[TREE], 1)
    assert_allclose(
        exact, [0.052411, -0.052411, 0.169506, -0.169506, -0.036522, 0.036522], atol=5e-7
    )
    estimate = program_expectation(setting(TREE, estimator=estimator), THETA[TREE])
    assert_allclose(off(estimate, exact), error, atol=0.05 if error else 1e-12)


@PROBLEMS
@ESTIMATOR
@pytest.mark.parametrize("N", [None, 1, 3])
def test_expectations_are_those_of_the_formulas(env, estimator, N):
    """Also with episodes that end early, which do not count for less."""
    expected = expectation(env, THETA[env], 0.7, estimator, N)
    assert_allclose(
        program_expectation(setting(env, 0.7, estimator=estimator), THETA[env], N),
        expected,
        atol=1e-15,
    )


@PROBLEMS
def test_dice_is_exact_in_the_limit_for_any_number_of_steps(env):
    """Its third derivatives are right as well."""
    for k in (1, 2, 3):
        estimate = program_expectation(setting(env, estimator="dice", inner_steps=k), THETA[env])
        assert_allclose(estimate, meta_gradient(env, THETA[env], 1, steps=k), atol=1e-14)


@PROBLEMS
def test_bias_of_dice_is_a_series_in_the_inverse_number_of_episodes(env):
    """c / N + d / N^2 + ...: nothing is left of it once the first two terms are eliminated."""
    exact = meta_gradient(env, THETA[env], 1)
    a, b, c = (
        program_expectation(setting(env, estimator="dice"), THETA[env], N) for N in (2, 4, 8)
    )
    assert off(c, exact) > 0.5 and off((a - 6 * b + 8 * c) / 3, exact) < off(c, exact) / 5


@PROBLEMS
@pytest.mark.parametrize("N, k", [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2)])
def test_log_prob_with_the_sampling_term_is_unbiased(env, N, k):
    """E-MAML estimates the gradient of J^II_N, for any number of episodes and steps."""
    c = setting(env, 0.7, "emaml", inner_steps=k)
    assert_allclose(
        program_expectation(c, THETA[env], N), meta_gradient(env, THETA[env], 0.7, N, k), atol=1e-14
    )


@PROBLEMS
def test_first_order_with_the_sampling_term_drops_the_hessian_alone(env):
    c = setting(env, 0.7, "emaml", estimator="first-order")
    expected = expectation(env, THETA[env], 0.7, "first-order", 2, sampling_term=True)
    assert_allclose(program_expectation(c, THETA[env], 2), expected, atol=1e-15)
    assert off(expected, meta_gradient(env, THETA[env], 0.7, 2)) > 1


@pytest.mark.parametrize("env, k", [(BANDIT, 1), (TREE, 1), (BANDIT, 2)])
def test_sampling_term_stays_exact_with_a_baseline(env, k):
    """The outer advantages lose 1 / N to a baseline that contains them;
    the sampling term leaves out its own episode.

    So the two parts are the terms of the gradient of J^II_N, of steps on advantages, up to the
    factor on the first.
    """
    N, options = 2, dict(baseline="time", inner_steps=k)
    chain = program_expectation(setting(env, estimator="log-prob", **options), THETA[env], N, N)
    both = program_expectation(setting(env, algo="emaml", **options), THETA[env], N, N)
    exact = meta_gradient(env, THETA[env], 1, N, k, "time")
    assert_allclose(N / (N - 1) * chain + (both - chain), exact, atol=1e-14)


def test_standardised_advantages_and_the_sampling_term_have_one_unit():
    """On the same episodes both parts of the gradient are those without standardisation,
    over the deviation in D'.
    """
    theta, tasks = rows(THETA[TREE], 1), np.zeros((1, 1))
    D, D_prime = (
        rollout(TREE, setting(TREE).pi, theta.data, tasks, 6, noise_at(8, k)) for k in range(2)
    )
    to_come = D_prime.rewards[0, :, ::-1].cumsum(-1)
    deviation = (to_come - to_come.mean(0)).std()

    def gradient(algo, standardise):
        options = dict(baseline="time", standardise=standardise, estimator="first-order")
        # A step that leaves the outer episodes as they are
        c = setting(TREE, 1e-12, algo, **options)
        loss, _ = metarl.meta_loss(c, theta, lambda k, _: (D, D_prime)[k])
        return grad(ad.sum(loss), theta).data

    for algo in ("fomaml", "emaml"):
        assert_allclose(gradient(algo, True) * deviation, gradient(algo, False), rtol=1e-6)


@PROBLEMS
@pytest.mark.parametrize("N, options", [(None, dict(estimator="dice")), (2, dict(algo="emaml"))])
def test_learned_step_sizes_get_exact_gradients(env, N, options):
    """Meta-SGD: each parameter's step is multiplied by the exp of a meta-parameter of its own."""
    P, x = len(THETA[env]), np.append(THETA[env], 0.3 * np.cos(np.arange(len(THETA[env]))))
    exact = derivative(lambda x: meta_value(env, x[:P], 0.7 * np.exp(x[P:]), N), x)
    assert_allclose(
        program_expectation(setting(env, 0.7, learn_alpha=True, **options), x, N), exact, atol=1e-14
    )


@pytest.mark.parametrize("estimator", ["lvc", "dice"])
def test_sampling_is_not_counted_twice(estimator):
    with pytest.raises(ValueError, match=estimator):
        setting(BANDIT, estimator=estimator, sampling_term=True)


def test_with_a_constant_baseline_log_prob_is_first_order():
    """E[(r - J) Hessian of log pi] = 0 for softmax arms: a "second-order" run can be a no-op;
    LVC's is not.
    """
    theta, J = THETA[BANDIT], value(BANDIT, THETA[BANDIT])
    g = {
        e: program_expectation(setting(BANDIT, estimator=e), theta, constant=J) for e in ESTIMATORS
    }
    assert_allclose(g["log-prob"], g["first-order"], atol=1e-15)
    assert_allclose(g["lvc"], meta_gradient(BANDIT, theta, 1), atol=1e-15)


# --- The surrogates themselves ---
@ESTIMATOR
def test_surrogates_agree_to_first_order(estimator):
    """Whatever the estimator, the inner step is the policy gradient:
    grad log pi times the rewards to come, over H.
    """
    env, theta = EXIT, rows(THETA[EXIT], 1)
    c = setting(env)
    D = rollout(env, c.pi, theta.data, np.zeros((1, 1)), 5, noise_at(3))
    to_come = D.rewards[..., ::-1].cumsum(-1)[..., ::-1]
    expected = grad(ad.sum(c.pi.log_prob(theta, D.obs, D.actions) * to_come), theta).data / (
        5 * env.horizon
    )
    assert_allclose(
        grad(ad.sum(metarl.surrogate(c, theta, D, estimator)), theta).data, -expected, rtol=1e-13
    )


def test_dice_is_foersters():
    """To third order their objective: each reward times the box
    of all log-probabilities up to its time.
    """
    env, c = TREE, setting(TREE)
    theta = rows(THETA[env], 1)
    D = rollout(env, c.pi, theta.data, np.zeros((1, 1)), 3, noise_at(4))

    def objective(theta):
        log_pi, total = c.pi.log_prob(theta, D.obs, D.actions), 0
        for n in range(3):
            for t in range(env.horizon):
                x = ad.sum(log_pi[:, n, : t + 1])
                total = total + ad.exp(x - ad.stop_gradient(x)) * D.rewards[0, n, t]
        return total / (3 * env.horizon)

    def derivatives(f):
        g = grad(f(theta), theta, create_graph=True)
        h = grad(ad.sum(g * np.arange(1, 7)), theta, create_graph=True)
        return [x.data for x in (g, h, grad(ad.sum(h * np.arange(1, 7) ** 2), theta))]

    ours = derivatives(lambda x: -ad.sum(metarl.surrogate(c, x, D, "dice")))
    for a, b in zip(ours, derivatives(objective), strict=True):
        assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@PROBLEMS
def test_dice_judges_another_policy_by_the_episodes_of_this_one(env):
    """With the log-probabilities of the policy that took them,
    it is the difference of the two values, over H.
    """
    c, theta, other = setting(env), THETA[env], rows(THETA[env][::-1], 1)
    D = weighted(env, probabilities(env, theta)[None])
    D = D._replace(log_pi=c.pi.log_prob(theta[None], D.obs, D.actions))
    gain = -env.horizon * metarl.surrogate(c, other, D, "dice").data
    assert_allclose(gain, value(env, other.data) - value(env, theta), rtol=1e-12)


# --- Sampled ---
@pytest.mark.parametrize(
    "algo, estimator", [("maml", "dice"), ("maml", "first-order"), ("emaml", "log-prob")]
)
def test_a_run_samples_what_was_enumerated(algo, estimator):
    """The mean of `meta_gradient`, with its rollouts, against the expectation over all outcomes."""
    c = setting(TREE, algo=algo, estimator=estimator, episodes=3, inner_steps=2)
    g, _ = metarl.meta_gradient(c, THETA[TREE], np.zeros((20000, 1)), (5,))
    expected = program_expectation(c, THETA[TREE], 3)
    assert abs(standard_errors(-TREE.horizon * g, expected)).max() < 4


def mass_setting(estimator, K):
    return setting(LinearGaussian(), alpha=0.02, estimator=estimator, episodes=K)


@pytest.mark.parametrize("estimator", ["log-prob", "lvc", "dice"])
def test_gradient_and_hessian_of_the_point_mass(estimator):
    """The gradient is unbiased in all of them, the Hessian in dice alone,
    and far off in the others.
    """
    c, theta = mass_setting(estimator, 10), rows(MASS, 4000)
    env = c.family
    D = rollout(env, c.pi, theta.data, np.zeros((4000, 1)), c.episodes, noise_at(6))
    loss = metarl.surrogate(c, theta, D, estimator)
    g = grad(ad.sum(loss), theta, create_graph=True)
    assert abs(standard_errors(-env.horizon * g.data, env.gradient(MASS))).max() < 4
    worst = abs(standard_errors(-env.horizon * jacobian(g, theta), env.hessian(MASS))).max()
    assert worst < 4 if estimator == "dice" else worst > 20


def mean_and_error(estimator, K):
    """Of the composed meta-gradient with K inner and K outer episodes, in units of J."""
    c, n = mass_setting(estimator, K), 160000 // K
    g = -c.family.horizon * metarl.meta_gradient(c, MASS, np.zeros((n, 1)), (7, K))[0]
    return g.mean(0), g.std(0) / np.sqrt(n)


@pytest.mark.parametrize("estimator", ["log-prob", "lvc", "dice"])
def test_meta_gradient_of_the_point_mass(estimator):
    """The bias of dice halves as K doubles, and 2 E[g_2K] - E[g_K] has none left;
    in the others some remains.
    """
    env, alpha = LinearGaussian(), 0.02
    exact = (np.eye(8) + alpha * env.hessian(MASS)) @ env.gradient(
        MASS + alpha * env.gradient(MASS)
    )
    (few, e), (many, e_2) = (mean_and_error(estimator, K) for K in (20, 40))
    worst = abs((2 * many - few - exact) / np.sqrt(4 * e_2**2 + e**2)).max()
    assert worst < 4 if estimator == "dice" else worst > 6
    if estimator == "dice":
        assert off(few, exact) > 50 and 0.45 < off(many, exact) / off(few, exact) < 0.6


# --- What the benchmark adds ---
def test_es_estimates_the_gradient_of_the_return_after_sampled_steps():
    """J^II_N, up to the square of its noise."""
    c = setting(
        BANDIT, algo="es-maml", inner="pg", deterministic=False, learn_alpha=False, episodes=4
    )
    g = es_estimates(c, THETA[BANDIT], 100000, 0.2)
    error = g.std(0) / np.sqrt(len(g))
    assert (
        abs(g.mean(0) - meta_gradient(BANDIT, THETA[BANDIT], 1, 4)).max() < 4 * error.max() < 0.02
    )


def test_cosines_are_of_means_of_as_many_estimates_as_the_episodes_buy():
    exact = np.array([3.0, 4.0])
    assert_allclose(cosines(np.tile(exact, (400, 1)), exact, 40), np.ones(3), rtol=1e-12)
    alternating = np.tile([[1.0, 0.0], [0.0, 1.0]], (200, 1))
    assert_allclose(cosines(alternating, exact, EPISODES[0])[0], 0.7, rtol=1e-12)
    assert_allclose(
        cosines(alternating, exact, EPISODES[0] // 2), np.full(3, 7 / np.sqrt(50)), rtol=1e-12
    )
    assert_allclose(cosines(0 * alternating, exact, 40), np.zeros(3))
