"""The outer optimiser TRPO, and step sizes that are learned:
against explicit matrices and differences.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import dblquad

import autodiff as ad
import es
import metarl
from autodiff import Tensor, grad
from harness.settings import Setting
from metarl import adapt, in_chunks, noise_at, sampler
from policies import Policy, advantages

ADDRESS = (0, metarl.TRAIN, 0, metarl.INNER)


def lifetime(c, x, sample):
    """The path of the inner loop from x, to be differentiated, and its k + 1 Trajectories."""
    path, episodes = adapt(c, x, sample, create_graph=c.estimator != "first-order")
    return path, [*episodes, sample(c.inner_steps, path[-1].data)]


SMALL = dict(
    outer="trpo",
    learn_alpha=False,
    policy="linear",
    tasks=3,
    episodes=4,
    alpha=0.3,
    alpha_decay=0.7,
)


def problem(**options):
    c = Setting(**(SMALL | options))
    if c.env == "pointmass":
        c = replace(c, env=replace(c.family, horizon=12, radius=0.1))
    tasks = 0.5 * metarl.sample_tasks(c, c.tasks, noise_at(7))
    x = noise_at(5).standard_normal(c.pi.size * (1 + c.learn_alpha)) * 0.3
    return c, x, tasks


CASES = pytest.mark.parametrize(
    "options",
    [
        {},
        {"inner_steps": 2},
        {"estimator": "dice"},
        {"algo": "fomaml"},
        {"algo": "emaml"},
        {"algo": "joint"},
        {"learn_alpha": True},
        {
            "env": "bandit:arms=3,horizon=4",
            "alpha": 0.3,
            "tasks": 3,
            "episodes": 4,
            "adapt_episodes": 4,
            "baseline": "time",
            "gamma": 0.9,
        },
    ],
    ids=str,
)


# --- The divergence ---
def test_divergence_of_gaussians_is_the_integral():
    policy = Policy(2, 2, hidden=())
    theta, other = noise_at(1).standard_normal((2, policy.size)) * 0.5
    obs = np.array([0.3, -0.7])

    def integrand(a, b):
        log_p, log_q = (policy.log_prob(x, obs, np.array([a, b])) for x in (theta, other))
        return np.exp(log_p) * (log_p - log_q)

    integral, _ = dblquad(integrand, -9, 9, -9, 9, epsabs=1e-8)
    assert_allclose(policy.kl(theta, other, obs), integral, rtol=1e-6)
    assert policy.kl(other, theta, obs) != pytest.approx(integral, rel=0.01)


def test_divergence_of_categoricals_is_the_sum():
    policy = Policy(2, 4, discrete=True, hidden=(3,))
    thetas = noise_at(1).standard_normal((2, 5, policy.size))
    obs = noise_at(2).standard_normal((5, 6, 2))
    log_p, log_q = (
        np.stack([policy.log_prob(x, obs, np.full((5, 6), a)) for a in range(4)]) for x in thetas
    )
    assert_allclose(policy.kl(*thetas, obs), (np.exp(log_p) * (log_p - log_q)).sum(0), rtol=1e-12)


def test_divergence_counts_the_steps_of_an_episode_alone():
    c, x, tasks = problem()
    D = sampler(c, tasks, ADDRESS)(0, np.tile(x, (3, 1)))
    assert not D.mask.all()
    kl = [
        np.mean(
            [
                c.pi.kl(x, x + 0.1, D.obs[i, k, t])
                for k, t in zip(*np.nonzero(D.mask[i]), strict=True)
            ]
        )
        for i in range(3)
    ]
    thetas = np.tile(x, (3, 1))
    assert_allclose(metarl.mean_kl(c, thetas, thetas + 0.1, D), kl, rtol=1e-12)


# --- The step ---
def explicit_fisher(c, x, tasks, address):
    """J^T F' J for each task; J by central differences of the inner loop on fixed episodes,
    F' from the scores.
    """
    path, episodes = lifetime(c, Tensor(np.tile(x, (len(tasks), 1))), sampler(c, tasks, address))
    episodes = metarl.with_log_pi(c, path, episodes)
    theta_prime, D = path[-1].data, episodes[-1]
    moved = path[0].data - theta_prime

    def again(x):
        x = np.tile(x, (len(tasks), 1))
        if c.estimator != "first-order":
            return adapt(c, Tensor(x), lambda k, theta: episodes[k])[0][-1].data
        return x - moved

    eye = 1e-5 * np.eye(x.size)
    J = np.stack([(again(x + e) - again(x - e)) / 2e-5 for e in eye], -1)  # (T, P, size of x)
    return (
        J.swapaxes(1, 2)
        @ np.stack([fisher(c, theta_prime[i], D, i) for i in range(len(tasks))])
        @ J
    )


def fisher(c, theta, D, i):
    """The mean over the steps of E[score score^T],
    over all actions or by the formula of a linear Gaussian.
    """
    total, P = np.zeros((theta.size, theta.size)), theta.size
    for k, t in zip(*np.nonzero(D.mask[i]), strict=True):
        obs = D.obs[i, k, t]
        if c.pi.discrete:
            for a in range(c.pi.action_dim):
                leaf = Tensor(theta)
                log_pi = c.pi.log_prob(leaf, obs, np.array(a))
                score = grad(log_pi, leaf).data
                total += np.exp(log_pi.data) * np.outer(score, score)
        else:
            phi, std = np.append(obs, 1), np.exp(theta[-2:])
            mean = np.stack([np.append(np.kron(phi, np.eye(2)[j]), np.zeros(2)) for j in range(2)])
            total += sum(np.outer(mean[j], mean[j]) / std[j] ** 2 for j in range(2))
            total += 2 * np.diag(np.arange(P) >= P - 2)
    return total / D.mask[i].sum()


@CASES
def test_fisher_product_equals_an_explicit_matrix(options):
    c, x, tasks = problem(**options)
    F = explicit_fisher(c, x, tasks, ADDRESS)
    v = noise_at(3).standard_normal(x.size)
    product = metarl.fisher_product(v, c, x, tasks, ADDRESS)[0]
    assert_allclose(product, F @ v, rtol=1e-6, atol=1e-8)


def outer_step(c, x, tasks, g):
    return metarl.trpo(c, x, g, tasks, ADDRESS, in_chunks)


@CASES
def test_step_is_along_the_natural_gradient_up_to_the_bound(options):
    c, x, tasks = problem(**options)
    g, _ = in_chunks(metarl.meta_gradient, c, x, tasks, ADDRESS)
    new = outer_step(c, x, tasks, g.mean(0))
    kl, gain = in_chunks(partial(metarl.trial, new), c, x, tasks, ADDRESS)[0].mean(0)
    assert 0.002 < kl <= metarl.DELTA and gain > 0
    if x.size <= 10:  # as many conjugate gradients as there are parameters solve it exactly
        F = explicit_fisher(c, x, tasks, (*ADDRESS, 0)).mean(0) + metarl.DAMPING * np.eye(x.size)
        direction = np.linalg.solve(F, g.mean(0))
        step = np.sqrt(2 * metarl.DELTA / (direction @ F @ direction)) * direction
        shortened = np.log(np.linalg.norm(x - new) / np.linalg.norm(step)) / np.log(0.8)
        assert_allclose(x - new, 0.8 ** round(shortened) * step, rtol=1e-3)
        assert 0 <= round(shortened) < 15


def test_ten_conjugate_gradients_are_taken(monkeypatch):
    """Schulman et al. 2015. With more distinct eigenvalues than that it does not end before.

    An eleventh product gives the length of the step.
    """
    c, x, tasks = problem(policy="mlp", hidden=(5,))
    F = np.geomspace(1, 1e6, x.size)
    assert x.size > 15
    products = []

    def fisher_product(v, c, x, tasks, address):
        products.append(v)
        return [np.tile(F * v, (len(tasks), 1))]

    monkeypatch.setattr(metarl, "fisher_product", fisher_product)
    outer_step(c, x, tasks, noise_at(4).standard_normal(x.size))
    assert len(products) == 11


def test_conjugate_gradients_end_when_nothing_is_left(monkeypatch):
    """Where F is a number, after one of them; the second product gives the length of the step."""
    c, x, tasks = problem()
    products = []

    def fisher_product(v, c, x, tasks, address):
        products.append(v)
        return [np.tile(3 * v, (len(tasks), 1))]

    monkeypatch.setattr(metarl, "fisher_product", fisher_product)
    outer_step(c, x, tasks, noise_at(4).standard_normal(x.size))
    assert len(products) == 2


def test_step_is_shortened_until_bound_and_surrogate_agree(monkeypatch):
    """The third trial keeps the bound, the fifth improves as well;
    none of fifteen leaves theta where it is.
    """
    c, x, tasks = problem()
    g, tried = in_chunks(metarl.meta_gradient, c, x, tasks, ADDRESS)[0].mean(0), []

    def trial(new, c, x, tasks, address):
        tried.append(x - new)
        n = len(tried)
        return [
            np.tile(
                [0.011 if n < 3 else 0.01, 1.0 if n < 3 or n == accepted else 0.0], (len(tasks), 1)
            )
        ]

    monkeypatch.setattr(metarl, "trial", trial)
    accepted = 5
    assert_array_equal(outer_step(c, x, tasks, g), x - tried[-1])
    assert_allclose(tried, [0.8**i * tried[0] for i in range(5)], rtol=1e-9, atol=1e-12)
    accepted, tried[:] = 99, []
    assert_array_equal(outer_step(c, x, tasks, g), x)
    assert len(tried) == 15


def test_no_gradient_no_step():
    c, x, tasks = problem()
    assert_array_equal(outer_step(c, x, tasks, np.zeros(x.size)), x)


@CASES
def test_trial_measures_nothing_where_it_stands_and_the_gradient_beside(options):
    """gain(x) = 0 and its derivative is minus the meta-gradient, on the episodes of x;
    the divergence is quadratic.
    """
    c, x, tasks = problem(**options)
    g, _ = metarl.meta_gradient(c, x, tasks, ADDRESS)
    at = lambda new: metarl.trial(new, c, x, tasks, ADDRESS)[0]
    assert_allclose(at(x), 0, atol=1e-12)
    v = noise_at(3).standard_normal(x.size)
    ahead, behind = at(x + 1e-5 * v), at(x - 1e-5 * v)
    # Of first order is the gradient of no function
    if c.estimator != "first-order" or c.algo == "joint":
        assert_allclose((ahead - behind)[:, 1] / 2e-5, -g @ v, rtol=1e-5, atol=1e-7)
    if c.estimator != "first-order":
        F = explicit_fisher(c, x, tasks, ADDRESS)
        assert_allclose(at(x + 1e-3 * v)[:, 0], 0.5e-6 * v @ F @ v, rtol=0.05)


def test_trial_weighs_by_the_ratio_of_the_new_policy_to_the_old():
    c, x, tasks = problem(algo="joint")
    new = x + 0.2 * noise_at(4).standard_normal(x.size)
    D = sampler(c, tasks, ADDRESS)(0, np.tile(x, (3, 1)))
    A = advantages(D, c.baseline, c.gamma, c.lam, c.standardise)
    ratio = np.exp(c.pi.log_prob(new, D.obs, D.actions) - c.pi.log_prob(x, D.obs, D.actions))
    expected = ((ratio - 1) * A).mean((1, 2))
    assert_allclose(metarl.trial(new, c, x, tasks, ADDRESS)[0][:, 1], expected, rtol=1e-12)


def test_state_of_a_run_with_trpo_is_theta_alone():
    c = Setting(**SMALL, iterations=2, test_tasks=2)
    state = metarl.initial_state(c)
    after = next(metarl.train(c, state))
    assert "m" not in state and state.keys() == after.keys()
    assert (after["theta"] != state["theta"]).any()


# --- Step sizes that are learned (Meta-SGD) ---
@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.parametrize("algo", ["maml", "fomaml"])
def test_gradient_of_the_step_sizes_equals_differences(algo, inner_steps):
    """theta' = theta - alpha exp(rest) g: with constant g the derivative by rest is exact
    for fomaml too.
    """
    c, x, tasks = problem(algo=algo, learn_alpha=True, inner_steps=inner_steps, outer="adam")
    P = c.pi.size
    g, _ = metarl.meta_gradient(c, x, tasks, ADDRESS)
    path, episodes = lifetime(c, Tensor(np.tile(x, (3, 1))), sampler(c, tasks, ADDRESS))
    episodes = metarl.with_log_pi(c, path, episodes)
    slopes = []
    for k in range(inner_steps):
        leaf = Tensor(path[k].data)
        slopes.append(grad(ad.sum(metarl.surrogate(c, leaf, episodes[k], c.estimator)), leaf).data)

    def loss(x):
        theta, scale = x[:P], np.exp(x[P:])
        for k in range(inner_steps):
            leaf = Tensor(np.broadcast_to(theta, (3, P)))
            slope = (
                grad(ad.sum(metarl.surrogate(c, leaf, episodes[k], c.estimator)), leaf).data
                if algo == "maml"
                else slopes[k]
            )
            theta = theta - c.alpha * (1 if k == 0 else c.alpha_decay) * scale * slope
        return metarl.surrogate(c, theta, episodes[-1])

    assert g.shape == (3, 2 * P)
    v = noise_at(3).standard_normal(2 * P)
    assert_allclose(g @ v, (loss(x + 1e-5 * v) - loss(x - 1e-5 * v)) / 2e-5, rtol=1e-5, atol=1e-8)


def test_learned_step_sizes_are_those_of_the_test_too():
    c, x, _ = problem(learn_alpha=True, test_tasks=3, test_episodes=4, adapt_episodes=4)
    P = c.pi.size
    _, returns = metarl.meta_test(c, np.append(x[:P], np.full(P, np.log(2.0))))
    plain = replace(c, learn_alpha=False, alpha=2 * c.alpha)
    _, expected = metarl.meta_test(plain, x[:P])
    assert_allclose(returns, expected, rtol=1e-9)
    _, other = metarl.meta_test(c, x)
    assert np.abs(other - expected)[:, 1:].max() > 0.1


@pytest.mark.parametrize("step_sizes", [0, 1, -1], ids=["none", "one for all", "one too few"])
def test_there_is_a_step_size_for_each_parameter(step_sizes):
    c, x, tasks = problem(learn_alpha=True)
    x = np.resize(x, c.pi.size + step_sizes % c.pi.size)
    with pytest.raises(ValueError, match="step sizes"):
        metarl.meta_gradient(c, x, tasks, (0,))


def test_step_sizes_are_learned_along_with_theta():
    c = replace(problem(learn_alpha=True, outer="adam")[0], iterations=1)
    state = metarl.initial_state(c)
    assert_array_equal(state["theta"][c.pi.size :], 0)
    moved = next(metarl.train(c, state))["theta"] - state["theta"]
    assert (moved != 0).all()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"algo": "reptile", "outer": "trpo"}, "--outer trpo: must be sgd or adam for reptile"),
        ({"algo": "es-maml", "outer": "trpo"}, "--outer trpo: must be sgd or adam for es-maml"),
        ({"algo": "reptile", "learn_alpha": True}, "--learn-alpha True: must be off for reptile"),
        ({"algo": "joint", "learn_alpha": True}, "--learn-alpha True: must be off for joint"),
        (
            {"sampling_term": True, "estimator": "dice"},
            "--estimator dice: must be log-prob or first-order",
        ),
        ({"algo": "emaml", "estimator": "lvc"}, "--estimator lvc: must be log-prob or first-order"),
        ({"algo": "emaml", "sampling_term": False}, "--sampling-term False: must be on"),
        (
            {"algo": "reptile", "sampling_term": True},
            "--sampling-term True: must be off for reptile",
        ),
        ({"algo": "fomaml", "estimator": "lvc"}, "--estimator lvc: must be first-order"),
    ],
)
def test_what_does_not_go_together_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Setting(**options)


def test_learned_step_sizes_have_a_rate_of_their_own():
    c = problem(learn_alpha=True, outer="sgd", beta=0.5, beta_alpha=2.0)[0]
    P = c.pi.size
    moved = metarl.descend(c, {"theta": np.zeros(2 * P)}, np.full(2 * P, 0.1))["theta"]
    assert_allclose(moved, np.repeat([-0.05, -0.2], P))


# --- Evolution strategies over a run ---
@pytest.mark.parametrize(
    "algo, nes", [("es-maml", "snes"), ("nes", "snes"), ("nes", "xnes"), ("cma-es", "snes")]
)
def test_a_run_is_one_strategy_that_keeps_what_it_has_learned(algo, nes, monkeypatch):
    """Three generations, beside a strategy that is never taken apart:
    step sizes, moments, covariance and paths go on.
    """
    c = Setting(algo=algo, nes=nes, policy="linear", learn_alpha=False, tasks=3, population=6)
    value = lambda x, tasks: (
        -((x - tasks.sum(-1)[:, None, None]) ** 2 @ np.arange(1.0, 1 + c.pi.size))
    )
    monkeypatch.setattr(
        metarl, "fitness", lambda c, x, tasks, address: (value(x, tasks), np.zeros((len(tasks), 3)))
    )
    state = metarl.initial_state(c)
    make = {
        "es-maml": partial(es.OpenAIES, optimizer="adam", lr=c.beta),
        "nes": metarl.NES[nes],
        "cma-es": es.CMAES,
    }
    one = make[algo](state["theta"], c.sigma, 6)
    for t in range(3):
        state = next(metarl.train(c, state))
        first_chunk = [0] if algo == "es-maml" else []
        one.rng = noise_at(c.seed, metarl.TRAIN, t, metarl.ASK, *first_chunk)
        x, noise = one.ask(), noise_at(c.seed, metarl.TRAIN, t, metarl.TASKS)
        if algo == "es-maml":  # the members of a pair share their task
            v = value(np.stack([x[:3], x[3:]], 1), metarl.sample_tasks(c, 3, noise)).T.ravel()
        else:
            v = value(np.stack([x] * 3), metarl.sample_tasks(c, 3, noise)).mean(0)
        one.tell(x, -v)
        assert_allclose(state["theta"], one.mean, rtol=1e-10)
        for name in set(one.MOVING) - {"mean"}:
            assert_allclose(state[name], getattr(one, name), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    "options",
    [
        {"algo": "reptile", "inner_optimizer": "adam", "tasks": 6, "inner": "pg"},
        {"algo": "es-maml"},
        {"algo": "nes"},
    ],
)
def test_options_are_compared_by_value(options):
    """Those that come from a file or the command line are other objects than those
    in the program.
    """
    small = dict(policy="linear", tasks=3, episodes=4, population=4, learn_alpha=False)
    ends = []
    for same in (lambda text: text, lambda text: "".join([text[:1], text[1:]])):
        c = Setting(
            **{name: same(x) if isinstance(x, str) else x for name, x in (small | options).items()}
        )
        ends.append(next(metarl.train(c, metarl.initial_state(c)))["theta"])
    assert_array_equal(*ends)


# --- The sampling term, written out ---
@pytest.mark.parametrize("K", [2, 4])
@pytest.mark.parametrize(
    "baseline, standardise", [("none", False), ("time", False), ("time", True)]
)
def test_sampling_term_equals_a_loop_over_episodes(baseline, standardise, K):
    """sum_n log pi(tau_n) (J' - mean of the other episodes' returns),
    in units of H and the deviation of advantages.
    """
    c, x, tasks = problem(
        algo="emaml", inner_steps=2, baseline=baseline, standardise=standardise, episodes=K
    )
    path, episodes = lifetime(c, Tensor(np.tile(x, (3, 1))), sampler(c, tasks, ADDRESS))
    D_prime, discounts = episodes[-1], c.gamma ** np.arange(c.family.horizon)
    A = advantages(D_prime, baseline, c.gamma, c.lam, standardise=False)
    expected = np.zeros(3)
    for i in range(3):
        unit = c.family.horizon * (A[i][D_prime.mask[i]].std() if standardise else 1)
        J = np.mean([discounts @ D_prime.rewards[i, k] for k in range(K)]) / unit
        for theta, D in zip(path, episodes[:-1], strict=False):
            R = [discounts @ D.rewards[i, k] / unit for k in range(K)]
            for k in range(K):
                log_pi = sum(
                    c.pi.log_prob(theta.data[i], D.obs[i, k, t], D.actions[i, k, t])
                    for t in range(c.family.horizon)
                    if D.mask[i, k, t]
                )
                expected[i] -= log_pi * (
                    J - (np.mean(np.delete(R, k)) if baseline != "none" else 0)
                )
    assert_allclose(metarl.sampling_term(c, path, episodes).data, expected, rtol=1e-6)


def test_first_standard_deviation():
    assert_allclose(Setting(std=0.5).pi.init(noise_at(1))[-2:], np.log(0.5))
    assert_array_equal(
        Setting(std=0.5).pi.init(noise_at(1))[:-2], Setting().pi.init(noise_at(1))[:-2]
    )
    discrete = Setting(env="bandit", std=0.5).pi
    assert_array_equal(discrete.init(noise_at(1))[-5:], 0)
