"""The tests that a learner reads too: what must be true of these algorithms, and how one knows.

"The return went up" proves nothing, since broken variants learn as well. Three things prove more:

1. Oracles: on quadratic losses the right answer is known in closed form.
2. Slow forms: the same again from the paper, with plain loops over tasks, steps and members.
3. Invariances: what must not change the result, such as the tasks that are adapted beside one.

All noise comes from `metarl.noise_at`. Some tests put a function of their own in its place, with
pytest's `monkeypatch`, which takes it back at the end: so they decide what the algorithm draws.
"""

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from harness.settings import Setting
from metarl import ALGORITHMS, INNER, adapt, in_chunks, meta_gradient, noise_at, sampler
from policies import Trajectories, rollout

# A small run, and an address for noise. Other test files use them, and some of the functions below.
SMALL = {"hidden": (5,), "tasks": 3, "episodes": 4, "iterations": 3, "population": 6}
SMALL |= {"test_tasks": 3, "test_steps": 2, "test_episodes": 4, "adapt_episodes": 5}
ADDRESS = (0, metarl.TRAIN, 0, INNER, 0)


# --- Oracles: quadratic losses, sent through the code that RL uses ---
class Quadratics:
    """A family and a policy in one, whose losses are 1/2 (theta - c)' A (theta - c).

    An episode is one step with reward 1, and its log-probability is minus the loss. Without a
    baseline the advantage is 1, so the surrogate, -log pi times the advantage, is the loss.
    There may be several (A, c): "minibatches". `reset` draws one, the observation is its number.
    (No black box plays here, so that `reset` may draw integers.)
    """

    obs_dim = action_dim = horizon = task_dim = 1
    discrete = False

    def __init__(self, *losses):
        self.A = np.array([A for A, _ in losses], float)
        self.c = np.array([c for _, c in losses], float)

    def sample_tasks(self, n, rng, split):
        return np.zeros((n, 1))

    def reset(self, tasks, shape, rng):
        return np.full((*shape, 1), rng.integers(len(self.A)), float)

    def observe(self, state):
        return state

    def step(self, state, action, tasks, rng):
        reward = np.ones(state.shape[:-1])
        return state, reward, np.zeros(reward.shape, bool)

    def actor(self, theta):
        return lambda obs, rng: obs  # an action without any effect

    def log_prob(self, theta, obs, action):
        which = int(obs.flat[0])
        d = theta - self.c[which]
        loss = 0.5 * ad.sum(d * ad.matmul(d, self.A[which]), -1)
        return -ad.reshape(loss, (len(obs), 1, 1))  # (T, K, H), with one episode of one step


def quadratic_setting(algo, problem, **options):
    """An iteration by the formulas: no baseline, no discount, no Adam, one task, one episode."""
    plain = {"baseline": "none", "standardise": False, "gamma": 1.0, "alpha_decay": 1.0}
    plain |= {"outer": "sgd", "max_norm": 1e9, "tasks": 1, "episodes": 1, "estimator": "log-prob"}
    if algo == "fomaml":
        plain["estimator"] = "first-order"
    return Setting(algo=algo, env=problem, policy=problem, **(plain | options))


def outer_step(c, theta):
    """theta before minus theta after one iteration."""
    state = {"t": np.array(0), "env_steps": np.array(0), "theta": theta}
    return theta - ALGORITHMS[c.algo](c, state, ADDRESS, in_chunks)["theta"]


HILL = Quadratics(([[3, 1], [1, 2]], [0, 0]))
START = np.array([1.0, -2.0])


@pytest.mark.parametrize(
    "algo, expected", [("maml", [0.95, -2.10]), ("fomaml", [1.0, -2.5]), ("joint", [1, -3])]
)
def test_meta_gradient_of_a_quadratic(algo, expected):
    """d/dtheta L(theta - alpha grad L(theta)) = (I - alpha A) A (I - alpha A) theta.

    From the right: theta' = (I - alpha A) theta is the inner step, and A theta' the gradient there,
    with which fomaml is content. The first factor, dtheta'/dtheta, is MAML's own.
    """
    c = quadratic_setting(algo, HILL, alpha=0.1, beta=0.5)
    g, _ = meta_gradient(c, START, np.zeros((1, 1)), ADDRESS)
    assert_allclose(g[0], expected, rtol=1e-14)
    assert_allclose(outer_step(c, START), 0.5 * np.array(expected), rtol=1e-14)


def test_reptile_moves_by_the_sum_of_inner_steps():
    """theta - theta_2 = alpha (g_0 + g_1), divided neither by alpha nor by k."""
    c = quadratic_setting("reptile", HILL, alpha=0.1, inner_steps=2, epsilon=1.0)
    assert_allclose(outer_step(c, START), [0.2, -0.55], rtol=1e-14)
    assert_allclose(outer_step(replace(c, epsilon=0.25), START), [0.05, -0.1375], rtol=1e-14)


# --- Oracles: Nichol's expansion ---
# An iteration on k minibatches moves theta, in expectation and for small alpha, by
#     a AvgGrad - b alpha AvgGradInner + O(alpha^2)        (Nichol et al. 2018, section 5).
# AvgGrad is the mean gradient. AvgGradInner, the mean Hessian times it, makes the gradients of
# different minibatches agree, so that a step along one is good for all: this is learning to adapt.
# MAML and FOMAML spend the last of the k minibatches on the outer gradient.
class Minibatch:
    """In place of a generator: "draws" the minibatch that it is told."""

    def __init__(self, which):
        self.which = which

    def integers(self, n):
        return self.which


def draw(sequence, monkeypatch):
    """From now on inner step j, the address of whose noise ends in j, draws sequence[j]."""

    def minibatch_at(*address):
        return Minibatch(sequence[address[-1]])

    monkeypatch.setattr(metarl, "noise_at", minibatch_at)


def expected_step(c, theta, k, monkeypatch):
    """The mean of `outer_step` over all sequences of k out of three minibatches."""
    total = 0
    for sequence in itertools.product(range(3), repeat=k):
        draw(sequence, monkeypatch)
        total = total + outer_step(c, theta)
    return total / 3**k


@pytest.mark.parametrize("algo", ["maml", "fomaml", "reptile"])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_nichols_expansion(algo, k, monkeypatch):
    """b out of steps with two small alpha.

    (a AvgGrad - step) / (alpha AvgGradInner) is b + e alpha + O(alpha^2) with an unknown e.
    Twice its value at alpha less that at 2 alpha is free of e: Richardson extrapolation.
    """
    rng = np.random.default_rng(3)
    roots = rng.standard_normal((3, 2, 2))
    A = roots @ roots.swapaxes(1, 2)  # no Hessian with a negative eigenvalue
    centres = rng.standard_normal((3, 2))
    theta = rng.standard_normal(2)
    problem = Quadratics(*zip(A, centres, strict=True))

    average = np.mean([A[n] @ (theta - centres[n]) for n in range(3)], 0)
    average_inner = A.mean(0) @ average
    a = {"maml": 1, "fomaml": 1, "reptile": k}[algo]  # Reptile: of its step over alpha
    b = {"maml": 2 * (k - 1), "fomaml": k - 1, "reptile": k * (k - 1) / 2}[algo]

    def b_with_error(alpha):
        inner_steps = k if algo == "reptile" else k - 1
        c = quadratic_setting(algo, problem, alpha=alpha, inner_steps=inner_steps, beta=1.0)
        step = expected_step(c, theta, k, monkeypatch)
        unit = alpha if algo == "reptile" else 1
        return (a * average - step / unit) / (alpha * average_inner)

    assert_allclose(2 * b_with_error(1e-4) - b_with_error(2e-4), b, atol=5e-4)


# --- Slow forms: the meta-gradient of MAML ---
def small_problem():
    """Settings, theta and tasks, so near that many episodes end before the horizon."""
    c = Setting(algo="maml", estimator="log-prob", learn_alpha=False, alpha=0.3, hidden=(5, 4))
    c = replace(c, episodes=4, env=replace(c.family, horizon=12, radius=0.1))
    tasks = 0.3 * metarl.sample_tasks(c, 3, noise_at(7))
    return c, c.pi.init(noise_at(5)), tasks


def slow_advantages(c, D):
    """(K, H): returns-to-go, less their mean over the episodes still running, standardised."""
    K, H = D.rewards.shape
    A = np.zeros((K, H))
    for k, t in np.ndindex(K, H):
        A[k, t] = sum(c.gamma ** (u - t) * D.rewards[k, u] for u in range(t, H))
    for t in range(H):
        running = [k for k in range(K) if D.mask[k, t]]
        if running:
            A[:, t] -= np.mean(A[running, t])
    valid = A[D.mask]
    return np.where(D.mask, (A - valid.mean()) / valid.std(), 0)


def slow_loss(c, theta, D):
    """The surrogate of one task, for theta (P,) and the Trajectories of that task alone."""
    A = slow_advantages(c, D)
    return -ad.sum(c.pi.log_prob(theta, D.obs, D.actions) * A) / A.size


def episodes_of(c, thetas, tasks, k, i):
    """The episodes of task i among those that the algorithm samples in step k."""
    D = rollout(c.family, c.pi, thetas, tasks, c.episodes, noise_at(*ADDRESS, k))
    return Trajectories(D.obs[i], D.actions[i], D.rewards[i], D.mask[i])


def gradient(loss, theta):
    leaf = Tensor(theta)
    return grad(loss(leaf), leaf).data


def test_meta_gradient_equals_a_loop_over_tasks():
    """Algorithm 3, task by task: (I - alpha H) g', with H g' as a Hessian-vector product.

    H is the Hessian of the inner loss at theta, g' the gradient of the outer loss at theta'.
    """
    c, theta, tasks = small_problem()
    g, _ = meta_gradient(c, theta, tasks, ADDRESS)
    first_order = c.changed(algo="fomaml", estimator="first-order")
    g_first_order, _ = meta_gradient(first_order, theta, tasks, ADDRESS)

    inner_losses = []
    theta_prime = []
    for i in range(3):
        D = episodes_of(c, np.tile(theta, (3, 1)), tasks, 0, i)
        assert not D.mask.all()
        loss = partial(slow_loss, c, D=D)
        inner_losses.append(loss)
        theta_prime.append(theta - c.alpha * gradient(loss, theta))

    for i in range(3):
        D_prime = episodes_of(c, np.stack(theta_prime), tasks, 1, i)
        assert not D_prime.mask.all()
        g_prime = gradient(partial(slow_loss, c, D=D_prime), theta_prime[i])
        H_g_prime = ad.hvp(inner_losses[i], theta, g_prime)
        assert_allclose(g[i], g_prime - c.alpha * H_g_prime, rtol=1e-9, atol=1e-12)
        assert_allclose(g_first_order[i], g_prime, rtol=1e-9, atol=1e-12)


def test_only_maml_differentiates_through_the_inner_steps():
    """Where the inner gradient is a constant, theta' - theta is one, and dtheta'/dtheta is I."""
    c, theta, tasks = small_problem()
    leaf = Tensor(np.tile(theta, (3, 1)))
    for create_graph in (True, False):
        path, _ = adapt(c, leaf, sampler(c, tasks, ADDRESS), create_graph)
        through = grad(ad.sum(path[-1]), leaf).data
        assert (np.abs(through - 1).max() > 1e-3) == create_graph
    assert ALGORITHMS["fomaml"] is ALGORITHMS["maml"]


# --- Invariances ---
class Rows:
    """A generator that draws for a batch of T tasks, and gives the rows of some of them.

    Noise is addressed: so a task alone can be given what it got as one of a batch.
    """

    def __init__(self, generator, T, rows):
        self.generator = generator
        self.T = T
        self.rows = rows

    def standard_normal(self, shape):
        assert shape[0] == len(self.rows)
        x = self.generator.standard_normal((self.T, *shape[1:]))
        return x[self.rows]


def give_noise_of(rows, T, monkeypatch):
    """From now on tasks get the noise that these rows of a batch of T get at the same address."""

    def some_of_noise_at(*address):
        return Rows(noise_at(*address), T, rows)

    monkeypatch.setattr(metarl, "noise_at", some_of_noise_at)


def test_tasks_adapted_together_equal_each_adapted_alone(monkeypatch):
    c, theta, tasks = small_problem()
    thetas = np.tile(theta, (3, 1)) + 0.1 * np.arange(3)[:, None]
    together, _ = adapt(c, Tensor(thetas), sampler(c, tasks, ADDRESS))
    for i in range(3):
        give_noise_of([i], 3, monkeypatch)
        alone, _ = adapt(c, Tensor(thetas[[i]]), sampler(c, tasks[[i]], ADDRESS))
        assert_allclose(alone[-1].data, together[-1].data[[i]], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("standardise", [True, False])
def test_reptile_with_one_inner_step_is_joint_training(standardise):
    """Nichol et al. 2018, section 3: with epsilon alpha = beta, and the same noise."""
    c = Setting(algo="reptile", inner_steps=1, **SMALL, standardise=standardise)
    c = replace(c, alpha=0.2, epsilon=0.5)
    joint = c.changed(algo="joint", inner_steps=0, outer="sgd", beta=0.1, max_norm=1e9)
    one = next(metarl.train(c, metarl.initial_state(c)))
    other = next(metarl.train(joint, metarl.initial_state(joint)))
    assert_allclose(one["theta"], other["theta"], rtol=1e-12, atol=1e-15)
    assert one["env_steps"] == other["env_steps"] > 0


def test_training_tasks_are_never_tested_on():
    asked = []

    class Asking(type(Setting().family)):
        def sample_tasks(self, n, rng, split="train"):
            asked.append((n, split))
            return super().sample_tasks(n, rng, split)

    c = Setting(algo="reptile", env=Asking(), **SMALL)
    next(metarl.train(c, metarl.initial_state(c)))
    metarl.meta_test(replace(c, test_tasks=5), metarl.initial_state(c)["theta"])
    assert asked == [(3, "train"), (5, "test")]


# --- Black boxes ---
def black_box(algo="es-maml", **options):
    """A small setting whose policies act at random, so that all noise counts."""
    random = {"episodes": 6, "alpha": 0.7, "inner_sigma": 0.4, "deterministic": False}
    c = Setting(**(SMALL | random | {"algo": algo} | options))
    return replace(c, env=replace(c.family, horizon=6))


def meta_parameters(c, *shape):
    size = c.pi.size * (1 + c.learn_alpha)
    return 0.3 * noise_at(12).standard_normal((*shape, size))


def test_es_maml_update_equals_its_formula(monkeypatch):
    """theta + beta / (sigma n) sum_i v_i g_i; n counts both of a pair, which share their task."""
    c = black_box(fitness="raw", outer="sgd", beta=0.3, sigma=0.2, population=6)

    def fitness(c, x, tasks, address):  # any function of members and tasks
        v = np.sin(x @ np.arange(x.shape[-1])) * (1 + tasks[:, :1] + tasks[:, 1:] ** 2)
        return v, np.zeros((len(x), 3))

    monkeypatch.setattr(metarl, "fitness", fitness)
    theta = meta_parameters(c)
    state = metarl.initial_state(c) | {"theta": theta}
    after = ALGORITHMS["es-maml"](c, state, ADDRESS, in_chunks)["theta"]

    g = noise_at(*ADDRESS, metarl.ASK, 0).standard_normal((3, len(theta)))
    tasks = metarl.sample_tasks(c, 3, noise_at(*ADDRESS, metarl.TASKS))
    total = 0
    for i, sign in itertools.product(range(3), (1, -1)):
        x = theta + 0.2 * sign * g[i]
        v, _ = fitness(c, x[None, None], tasks[[i]], ADDRESS)
        total = total + v[0, 0] * sign * g[i]
    assert_allclose(after, theta + 0.3 / (0.2 * 6) * total, rtol=1e-10)


def return_of(c, theta, task, K, noise):
    """The mean return of K episodes in one task."""
    D = rollout(c.family, c.pi, theta[None], task[None], K, noise)
    return D.rewards.sum(2).mean()


def slow_hill_climb(c, theta, scale, task, noise):
    """Keep the best point, theta at first; from it try a random step; K evaluations in all."""
    best = return_of(c, theta, task, 1, noise)
    for _ in range(c.episodes - 1):
        eps = noise.standard_normal((1, len(theta)))[0]
        query = theta + 0.4 * scale * eps
        value = return_of(c, query, task, 1, noise)
        if value > best:
            theta = query
            best = value
    return theta


def test_hill_climbing_equals_a_loop_over_tasks_and_members(monkeypatch):
    """Each member adapts alone and is then judged; the members of a task under the same noise."""
    c = black_box(inner="hc", learn_alpha=False)
    x = meta_parameters(c, 4, 2)
    tasks = metarl.sample_tasks(c, 4, noise_at(3))
    v, _ = metarl.fitness(c, x, tasks, ADDRESS)
    for i, j in np.ndindex(4, 2):
        give_noise_of([i], 4, monkeypatch)  # now metarl.noise_at gives that of task i alone
        theta = slow_hill_climb(c, x[i, j], 1, tasks[i], metarl.noise_at(*ADDRESS, 0))
        expected = return_of(c, theta, tasks[i], 6, metarl.noise_at(*ADDRESS, 1))
        assert_allclose(v[i, j], expected, rtol=1e-9)


# --- And does it learn? ---
def test_learning_to_adapt():
    """Not a proof, but the point of it all: an inner step did harm at first, and now it helps."""
    c = Setting(algo="fomaml", hidden=(16,), tasks=10, beta=0.01, test_steps=1)
    c = replace(c, test_tasks=10, test_episodes=10)
    first = metarl.initial_state(c)
    *_, last = itertools.islice(metarl.train(c, first), 30)
    _, untrained = metarl.meta_test(c, first["theta"])
    _, trained = metarl.meta_test(c, last["theta"])
    assert trained[:, 1].mean() > -25
    assert np.diff(trained).mean() > 10
    assert np.diff(untrained).mean() < 0
