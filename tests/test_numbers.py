"""Numbers that would lie: equal ones, whose rounding must not be divided by rounding; very large
and very small ones, whose squares are infinite or 0; whole ones, in which fractions are lost; and
those that are not finite, of which every comparison is false.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import autodiff as ad
import envs
import metarl
import policies
from autodiff import Tensor, grad
from harness.settings import Setting
from metarl import noise_at
from policies import Policy, Trajectories, advantages, returns_to_go, rollout, surrogate

ADDRESS = (0, metarl.TRAIN, 0, metarl.INNER)
TYPES = pytest.mark.parametrize("dtype", ["f4", "f8"])


def small(algo="maml", **options):
    options = dict(tasks=2, episodes=4, policy="linear", iterations=1) | options
    return Setting(algo=algo, **options)


def full(rewards, seed=1):
    """Trajectories with these rewards (T, K, H) in which no episode ends early."""
    T, K, H = rewards.shape
    noise = noise_at(seed)
    obs = noise.standard_normal((T, K, H, 2)).astype(rewards.dtype)
    actions = noise.standard_normal((T, K, H, 2)).astype(rewards.dtype)
    return Trajectories(obs, actions, rewards, np.ones((T, K, H), bool))


def ending_early(seed=2, dtype="f8"):
    """Trajectories of which some episodes end early, one in its first step."""
    D = full(noise_at(seed).standard_normal((3, 4, 6)).astype(dtype), seed)
    lengths = noise_at(seed, 1).integers(1, 7, (3, 4))
    lengths[0, 0] = 1
    mask = np.arange(6) < lengths[..., None]
    return D._replace(rewards=D.rewards * mask, mask=mask)


# --- Equal ---


@TYPES
@pytest.mark.parametrize("lam", [1.0, 0.9, 0.0])
@pytest.mark.parametrize("value", [-4, 0.1, 1 / 3])
def test_equal_rewards_have_no_advantage(dtype, lam, value):
    D = full(np.full((2, 20, 100), value, dtype))
    for standardise in (True, False):
        assert not advantages(D, "time", 0.99, lam, standardise).any()


@TYPES
def test_equal_rewards_of_single_pulls_have_none_without_a_baseline_either(dtype):
    """Their mean is rounded; the deviation from it must not be."""
    D = full(np.full((2, 7, 1), 0.1, dtype))
    assert not advantages(D, "none", standardise=True).any()


@TYPES
@pytest.mark.parametrize("n", [3, 7, 20, 49, 1000])
def test_the_mean_of_equal_numbers_is_their_value(dtype, n):
    x = np.full((n, 1), 1, dtype) * noise_at(3).standard_normal((1, 50)).astype(dtype)
    mask = noise_at(4).random(x.shape) < 0.7
    mean = policies.mean_over(x, mask, 0)
    assert mean.dtype == dtype
    assert_array_equal(mean[0], np.where(mask.any(0), x[0], 0))


@pytest.mark.parametrize("algo", ["maml", "emaml", "reptile"])
@TYPES
def test_where_nobody_is_near_a_goal_nothing_is_learned(algo, dtype):
    """On fourcorners all rewards are then -4. Adam divides what is left by its own size."""
    c = small(algo, env="fourcorners:horizon=10", dtype={"f4": "float32", "f8": "float64"}[dtype])
    state = metarl.initial_state(c)
    after = next(metarl.train(c, state))
    assert after["pre"] == after["post"] == -40
    assert_array_equal(after["theta"], state["theta"])


@pytest.mark.parametrize("inner", ["es", "hc"])
def test_equal_returns_of_queries_make_no_step(inner):
    """Hill climbing stays where a query is as good; an ES gradient divides 0 by no deviation."""
    c = small("es-maml", env="fourcorners:horizon=10", inner=inner, population=4)
    theta = np.zeros((2, c.pi.size))
    tasks = metarl.sample_tasks(c, 2, noise_at(5))
    after, _ = metarl.INNER_LOOPS[inner](c, theta, 1, tasks, noise_at(6))
    assert_array_equal(after, theta)


# --- Large and small ---
TOLERANCE = {"f8": {"rtol": 1e-9, "atol": 1e-12}, "f4": {"rtol": 2e-3, "atol": 1e-4}}
UNITS = {"f8": [1e-300, 1e-160, 1e-9, 1e9, 1e160, 1e300], "f4": [1e-30, 1e-9, 1e9, 1e20, 1e35]}


@TYPES
@pytest.mark.parametrize("baseline", policies.BASELINES)
@pytest.mark.parametrize("lam", [1.0, 0.7])
def test_advantages_do_not_depend_on_the_unit_of_rewards(dtype, baseline, lam):
    D = ending_early(dtype=dtype)
    A = advantages(D, baseline, 0.9, lam)
    assert_allclose(np.square(A).sum((1, 2)), D.mask.sum((1, 2)), rtol=1e-5)
    for unit in UNITS[dtype]:
        rewards = D.rewards * D.rewards.dtype.type(unit)
        other = advantages(D._replace(rewards=rewards), baseline, 0.9, lam)
        assert_allclose(other, A, **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_length_of_large_and_small_vectors(dtype):
    x = np.array([[3, 4], [0, 0]], dtype)
    for unit in UNITS[dtype]:
        scaled = x * x.dtype.type(unit)
        length = policies.length(scaled, 1)
        assert length.dtype == dtype
        assert_allclose(length[0, 0] / scaled[0, 0], 5 / 3, rtol=1e-6)
        assert length[1, 0] == np.inf
    assert np.isnan(policies.length(np.array([1, np.nan])))


class Paid:
    """The family of c, all rewards times a unit."""

    def __init__(self, family, unit):
        self.family = family
        self.unit = unit

    def __getattr__(self, name):
        return getattr(self.family, name)

    def step(self, state, action, tasks, rng):
        state, reward, done = self.family.step(state, action, tasks, rng)
        return state, reward * self.unit, done


@pytest.mark.parametrize("unit", UNITS["f8"])
@pytest.mark.parametrize(
    "options",
    [
        {"algo": "maml"},
        {"algo": "emaml"},
        {"algo": "maml", "outer": "trpo", "learn_alpha": False},
        {"algo": "reptile"},
        {"algo": "es-maml", "inner": "es", "population": 4},
        {"algo": "cma-es", "inner": "hc", "population": 4},
    ],
    ids=str,
)
def test_an_iteration_does_not_depend_on_the_unit_of_rewards(unit, options):
    c = small(**options)
    family = replace(c.family, horizon=8)
    thetas = []
    for each in (family, Paid(family, unit)):
        c_each = replace(c, env=each)
        with np.errstate(over="ignore"):  # the log sums returns
            thetas.append(next(metarl.train(c_each, metarl.initial_state(c_each)))["theta"])
    assert_allclose(thetas[1], thetas[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype, unit", [("f8", 1e200), ("f4", 1e30), ("f8", 1e-200)])
def test_a_long_gradient_is_scaled_down_and_not_away(dtype, unit):
    c = small(outer="sgd", learn_alpha=False, beta=1.0, max_norm=10.0)
    g = np.array([3, 4], dtype) * np.array(unit, dtype)
    state = {"theta": np.zeros(2, dtype), "t": np.array(0)}
    step = -metarl.descend(c, state, g)["theta"]
    assert step.dtype == dtype
    assert_allclose(step, [6, 8] if unit > 1 else g, rtol=1e-6)


@pytest.mark.parametrize("unit", [1e-250, 1e-20, 1e20, 1e250])
def test_a_trust_region_knows_no_length_of_the_gradient(unit):
    c = small(outer="trpo", learn_alpha=False)
    tasks = metarl.sample_tasks(c, 2, noise_at(7))
    x = metarl.initial_state(c)["theta"]
    [g, _] = metarl.in_chunks(metarl.meta_gradient, c, x, tasks, ADDRESS)
    new = metarl.trpo(c, x, g.mean(0), tasks, ADDRESS, metarl.in_chunks)
    other = metarl.trpo(c, x, unit * g.mean(0), tasks, ADDRESS, metarl.in_chunks)
    assert np.abs(new - x).max() > 1e-3
    assert_allclose(other, new, rtol=1e-5, atol=1e-7)


# --- Whole ---


def test_whole_and_boolean_rewards_are_discounted_as_fractions():
    powers = [[[0.6561, 0.729, 0.81, 0.9, 1]]]
    for kind in (int, np.int8, bool, np.uint16):
        rewards = np.array([[[0, 0, 0, 0, 1]]], kind)
        R = returns_to_go(rewards, 0.9)
        assert R.dtype == float
        assert_allclose(R, powers, rtol=1e-12)
    assert returns_to_go(np.ones((1, 1, 3), "f4"), np.float64(0.9)).dtype == np.float32


@pytest.mark.parametrize("baseline", policies.BASELINES)
@pytest.mark.parametrize("kind", [int, bool])
def test_advantages_of_whole_rewards_are_those_of_the_same_fractions(baseline, kind):
    D = ending_early()
    D = D._replace(rewards=((D.rewards > 0) * 3).astype(kind), obs=np.round(3 * D.obs))
    expected = advantages(D._replace(rewards=D.rewards.astype(float)), baseline, 0.9, 0.8)
    whole = advantages(D._replace(obs=D.obs.astype(int)), baseline, 0.9, 0.8)
    assert_allclose(whole, expected, rtol=1e-9, atol=1e-12)
    returns = np.arange(72).reshape(3, 4, 6)
    values = policies.BASELINES[baseline](D, returns)
    assert_allclose(values, policies.BASELINES[baseline](D, returns.astype(float)), rtol=1e-9)


ALL = pytest.mark.parametrize("name", envs.FAMILIES)


@ALL
def test_tasks_of_whole_numbers_are_those_of_the_same_fractions(name):
    family = envs.make(name)
    tasks = np.array([[1] * family.task_dim, [0] * family.task_dim])
    policy = Policy(family.obs_dim, family.action_dim, family.discrete, hidden=())
    theta = policy.init(noise_at(8))
    whole = rollout(family, policy, theta, tasks, 3, noise_at(9))
    fractions = rollout(family, policy, theta, tasks.astype(float), 3, noise_at(9))
    for a, b in zip(whole, fractions, strict=True):
        assert_array_equal(a, b)
    optimal = family.optimal_return(tasks)
    assert_array_equal(optimal, family.optimal_return(tasks.astype(float)))
    state = family.reset(tasks, (2,), noise_at(9))
    assert family.observe(state).dtype == float


@ALL
def test_observations_and_rewards_have_the_dtype_of_the_tasks_whatever_the_action(name):
    family = envs.make(name)
    tasks = np.ones((2, family.task_dim), "f4")
    state = family.reset(tasks, (2,), noise_at(9))
    action = np.array([1, 0])
    if not family.discrete:
        action = noise_at(10).standard_normal((2, 2))
    state, reward, _ = family.step(state, action, tasks, noise_at(9))
    assert family.observe(state).dtype == np.float32
    assert reward.dtype == np.float32


def test_numbers_of_numpy_are_numbers_and_truths_are_not():
    made = envs.make("bandit", arms=np.int64(3), horizon=np.int8(4))
    assert made == envs.make("bandit", arms=3, horizon=4)
    assert envs.make("pointmass", box=np.float32(0.5)) == envs.make("pointmass")
    for name, option, value in [
        ("bandit", "horizon", True),
        ("bandit", "arms", np.True_),
        ("pointmass", "box", True),
        ("pointmass", "radius", False),
        ("linear-bandit", "noise", True),
        ("linear-bandit", "noise", "1"),
        ("bandit", "prior", ((True, 1),) * 5),
        ("bandit", "prior", ((1, np.inf),) * 5),
        ("bandit", "prior", ((1, 2, 3),) * 5),
        ("bandit", "prior", ((1, 2),) * 4 + ((1,),)),
    ]:
        with pytest.raises(ValueError, match=f"^{option}"):
            envs.make(name, **{option: value})


def test_a_prior_may_be_lists_or_an_array():
    pairs = ((1.0, 2.0), (3.0, 1.0))
    made = envs.Bandit(arms=2, prior=pairs)
    for prior in (np.array(pairs), [list(p) for p in pairs], np.array(pairs, "f4")):
        other = envs.Bandit(arms=2, prior=prior)
        assert other == made
        assert hash(other) == hash(made)
        assert_array_equal(other.sample_tasks(4, noise_at(1)), made.sample_tasks(4, noise_at(1)))
    assert envs.Bandit(prior=np.empty((0,))) == envs.Bandit()


# --- Not finite ---


def with_junk(D, junk):
    """D with `junk` in all that comes after the end of its episodes."""
    after = ~D.mask
    obs = np.where(after[..., None], junk, D.obs)
    actions = np.where(after[..., None], junk, D.actions)
    rewards = np.where(after, junk, D.rewards)
    log_pi = None if D.log_pi is None else np.where(after, junk, D.log_pi)
    return Trajectories(obs, actions, rewards, D.mask, log_pi)


@pytest.mark.parametrize("estimator", policies.ESTIMATORS)
@pytest.mark.parametrize("baseline", policies.BASELINES)
@pytest.mark.parametrize("old", [False, True])
def test_what_comes_after_the_end_is_not_read(estimator, baseline, old):
    """By values, gradients and Hessians of the surrogate, and by the sampling term."""
    c = small(baseline=baseline, gamma=0.9)
    theta = noise_at(11).standard_normal((3, c.pi.size))
    D = ending_early()
    if old:
        D = D._replace(log_pi=c.pi.log_prob(0.9 * theta, D.obs, D.actions))

    def loss(x, D):
        return ad.sum(surrogate(c, x, D, estimator) + policies.sampling_term(c, [x], [D, D]))

    for junk in (np.nan, np.inf, 1e300):
        other = with_junk(D, junk)
        assert_array_equal(advantages(other, baseline, 0.9, 0.7), advantages(D, baseline, 0.9, 0.7))
        returns = returns_to_go(D.rewards, 0.9)
        values = policies.BASELINES[baseline](other, np.where(D.mask, returns, junk)) * D.mask
        assert_array_equal(values, policies.BASELINES[baseline](D, returns) * D.mask)
        x = Tensor(theta)
        assert_array_equal(loss(x, other).data, loss(x, D).data)
        assert_array_equal(grad(loss(x, other), x).data, grad(loss(x, D), x).data)
        v = noise_at(12).standard_normal(theta.shape)
        product = ad.hvp(lambda x, D=other: loss(x, D), theta, v)
        assert_array_equal(product, ad.hvp(lambda x: loss(x, D), theta, v))
        kl = metarl.mean_kl(c, theta, 1.1 * theta, other)
        assert_array_equal(kl, metarl.mean_kl(c, theta, 1.1 * theta, D))
    assert np.isfinite(grad(loss(x, D), x).data).all()


@dataclass(frozen=True)
class Breaking(envs.PointMass):
    """A point mass whose position is NaN after the end of its episode, if it `breaks`."""

    breaks: bool = True

    def step(self, state, action, tasks, rng):
        was_broken = np.isnan(state).any(-1)
        state, reward, done = super().step(state, action, tasks, rng)
        if self.breaks:
            state = np.where(done[..., None], np.nan, state)
        return state, reward, done & ~was_broken


@pytest.mark.parametrize(
    "options",
    [
        {"algo": "maml", "estimator": "dice"},
        {"algo": "emaml", "learn_alpha": True},
        {"algo": "maml", "outer": "trpo"},
        {"algo": "maml", "baseline": "linear", "lam": 0.9},
        {"algo": "reptile"},
        {"algo": "nes", "inner": "pg", "deterministic": False, "population": 4},
    ],
    ids=str,
)
def test_a_family_may_be_undefined_after_the_end_of_an_episode(options):
    c = small(**options)
    ends = [
        next(metarl.train(c, metarl.initial_state(c)))
        for c in (
            replace(c, env=Breaking(horizon=30, box=0.2, radius=0.1, breaks=breaks))
            for breaks in (True, False)
        )
    ]
    assert ends[0]["env_steps"] < 30 * 4 * 2 * 2 * (2 if c.algo == "nes" else 1)  # some did end
    for name, value in ends[0].items():
        assert_allclose(value, ends[1][name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e308])
def test_a_policy_that_is_not_finite_has_no_return(deterministic, broken):
    """A bandit's would else pull the first arm for ever, and look healthy."""
    family = envs.make("bandit")
    policy = Policy(1, 5, discrete=True, hidden=(), deterministic=deterministic)
    theta = np.zeros((2, policy.size))
    theta[1] = broken
    with np.errstate(all="ignore"):
        D = rollout(family, policy, theta, np.full((2, 5), 0.5), 3, noise_at(13))
    assert np.isfinite(D.returns[0])
    assert np.isnan(D.returns[1])
    assert (D.actions[0] >= 0).all()
    assert (D.actions[1] == policies.NO_ACTION).all()


def test_a_run_whose_bandit_breaks_in_the_test_says_so():
    c = small(env="bandit", test_tasks=3)
    x = np.full(c.pi.size, np.nan)
    _, returns = metarl.meta_test(c, x)
    assert np.isnan(returns).all()


@ALL
def test_no_family_pays_for_an_action_that_is_not_a_number(name):
    family = envs.make(name)
    if family.discrete:
        pytest.skip("the rollout knows actions that are none")
    tasks = family.sample_tasks(3, noise_at(14))
    state = family.reset(tasks, (3,), noise_at(14))
    state, reward, done = family.step(state, np.full((3, 2), np.nan), tasks, noise_at(14))
    assert np.isnan(reward).all()
    assert not done.any()


class Scripted(envs.PointMass):
    """Pays what stands in `script`, one entry for each rollout, in its first step."""

    def reset(self, tasks, shape, rng):
        object.__setattr__(self, "now", self.script.pop(0))
        return super().reset(tasks, shape, rng)

    def step(self, state, action, tasks, rng):
        state, reward, done = super().step(state, action, tasks, rng)
        return state, np.full_like(reward, self.now), done


@pytest.mark.parametrize(
    "script, accepted",
    [
        ([np.nan, 1.0, 2.0, np.nan], [1, 2]),
        ([np.nan, np.nan, -3.0, -4.0], [2]),
        ([np.nan, np.nan, np.nan, np.nan], []),
        ([-np.inf, np.nan, -5.0, -5.0], [2]),
        ([0.0, np.nan, 0.0, 1.0], [3]),
    ],
)
def test_hill_climbing_keeps_the_best_query_whatever_is_nan(script, accepted):
    family = Scripted(horizon=1)
    object.__setattr__(family, "script", list(script))
    c = replace(small("es-maml", inner="hc", population=4), env=family, inner_sigma=1.0)
    theta = np.zeros((1, c.pi.size))
    after, episodes = metarl.hill_climb(c, theta, 1, np.ones((1, 2)), noise_at(15))
    steps = noise_at(15).standard_normal((4, *theta.shape))
    assert_allclose(after, sum((steps[i - 1] for i in accepted), theta), rtol=1e-12)
    assert_array_equal([D.returns[0] for D in episodes], script)


def test_a_gradient_that_is_not_finite_shows_in_the_state():
    tasks = np.zeros((2, 2))
    for broken in (np.nan, np.inf):
        for outer in ("sgd", "adam", "trpo"):
            c = small(outer=outer)
            state = metarl.initial_state(c)
            g = np.zeros_like(state["theta"])
            g[0] = broken
            with np.errstate(invalid="ignore"):
                if outer == "trpo":
                    theta = metarl.trpo(c, state["theta"], g, tasks, ADDRESS, metarl.in_chunks)
                else:
                    theta = metarl.descend(c, state, g)["theta"]
            assert not np.isfinite(theta).all()
