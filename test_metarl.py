"""The tests that a learner reads too: what must be true of these algorithms, and how one knows.

"The return went up" proves nothing, since broken variants learn as well. So: oracles, where the right answer is
known in closed form; slow forms, written from the paper; and invariances.
"""

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import autodiff as ad
import es
import metarl
from autodiff import Tensor, grad
from harness.settings import Setting
from metarl import ALGORITHMS, INNER, adapt, in_chunks, meta_gradient, noise_at, sampler
from policies import rollout

SMALL = dict(hidden=(5,), tasks=3, episodes=4, iterations=3, test_tasks=3, test_steps=2)
SMALL |= dict(test_episodes=4, adapt_episodes=5, population=6)
ADDRESS = (0, metarl.TRAIN, 0, INNER, 0)


# --- Oracles: quadratic losses, sent through the code paths that RL uses ---


class Quadratics:
    """A family and a policy in one, made so that `surrogate` is the loss 1/2 (theta - c)' A (theta - c).

    An episode is one step with reward 1, its log-probability is minus the loss. With several (A, c), the
    observation tells which: a "minibatch", drawn by the generator's `integers`.
    """

    obs_dim = action_dim = horizon = task_dim = 1
    discrete = False

    def __init__(self, *losses):
        self.A, self.c = (np.array(x, float) for x in zip(*losses, strict=True))

    def sample_tasks(self, n, rng, split):
        return np.zeros((n, 1))

    def reset(self, tasks, shape, rng):
        return np.full((*shape, 1), rng.integers(len(self.A)), float)

    def observe(self, state):
        return state

    def step(self, state, action, tasks, rng):
        return state, np.ones(state.shape[:-1]), np.zeros(state.shape[:-1], bool)

    def actor(self, theta):
        return lambda obs, rng: obs

    def log_prob(self, theta, obs, action):
        which = int(obs.flat[0])
        d = theta - self.c[which]
        loss = 0.5 * ad.sum(d * ad.matmul(d, self.A[which]), -1)
        return -ad.reshape(loss, (len(obs), 1, 1)) * np.ones(obs.shape[:-1])


def quadratic_setting(algo, problem, **options):
    plain = dict(baseline="none", standardise=False, gamma=1.0, alpha_decay=1.0)
    plain |= dict(
        outer="sgd",
        tasks=1,
        episodes=1,
        estimator="first-order" if algo == "fomaml" else "log-prob",
    )
    return Setting(algo=algo, env=problem, policy=problem, **(plain | options))


HILL = Quadratics(([[3, 1], [1, 2]], [0, 0]))
START = np.array([1.0, -2.0])


def outer_step(c, theta):
    """theta before minus theta after one iteration."""
    state = {name: np.array(0) for name in ("t", "env_steps")} | {"theta": theta}
    return theta - ALGORITHMS[c.algo](c, state, ADDRESS, in_chunks)["theta"]


@pytest.mark.parametrize(
    "algo, expected", [("maml", [0.95, -2.10]), ("fomaml", [1.0, -2.5]), ("joint", [1, -3])]
)
def test_meta_gradient_of_a_quadratic(algo, expected):
    """d/dtheta L(theta - alpha grad L(theta)) = (I - alpha A) A (I - alpha A) theta; the first factor is MAML's own."""
    c = quadratic_setting(algo, HILL, alpha=0.1, beta=0.5, max_norm=1e9)
    g, _ = meta_gradient(c, START, np.zeros((1, 1)), ADDRESS)
    assert_allclose(g[0], expected, rtol=1e-14)
    assert_allclose(outer_step(c, START), 0.5 * np.array(expected), rtol=1e-14)


def test_reptile_moves_by_the_sum_of_inner_steps():
    """theta - theta_2 = alpha (g_0 + g_1), divided neither by alpha nor by k."""
    c = quadratic_setting("reptile", HILL, alpha=0.1, inner_steps=2, epsilon=1.0)
    assert_allclose(outer_step(c, START), [0.2, -0.55], rtol=1e-14)
    assert_allclose(outer_step(replace(c, epsilon=0.25), START), [0.05, -0.1375], rtol=1e-14)


@pytest.mark.parametrize("algo", ["maml", "fomaml", "reptile"])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_nichols_expansion(algo, k, monkeypatch):
    """Nichol et al. 2018, section 5: in expectation the step is  a AvgGrad - b alpha AvgGradInner + O(alpha^2).

    k counts minibatches, of which MAML spends the last one on its outer gradient. The expectation is taken over
    all sequences of three quadratic minibatch losses; b by Richardson extrapolation to alpha = 0.
    """
    noise = np.random.default_rng(3)
    squares = noise.standard_normal((3, 2, 2))
    A, centres, theta = (
        squares @ squares.swapaxes(1, 2),
        noise.standard_normal((3, 2)),
        noise.standard_normal(2),
    )
    problem = Quadratics(*zip(A, centres, strict=True))
    gradients = np.einsum("nij,nj->ni", A, theta - centres)
    average, inner = gradients.mean(0), A.mean(0) @ gradients.mean(0)

    def expected_step(alpha):
        steps = k if algo == "reptile" else k - 1
        c = quadratic_setting(
            algo, problem, alpha=alpha, alpha_decay=1.0, inner_steps=steps, beta=1.0, max_norm=1e9
        )
        total = 0
        for sequence in itertools.product(range(3), repeat=k):
            monkeypatch.setattr(
                metarl, "noise_at", lambda *address, s=sequence: Minibatch(s[address[-1]])
            )
            total = total + outer_step(c, theta) / (alpha if algo == "reptile" else 1)
        return total / 3**k

    class Minibatch:
        def __init__(self, index):
            self.integers = lambda n: index

    a = k if algo == "reptile" else 1
    slope = [(a * average - expected_step(alpha)) / alpha for alpha in (1e-4, 2e-4)]
    b = {"maml": 2 * (k - 1), "fomaml": k - 1, "reptile": k * (k - 1) / 2}[algo]
    assert_allclose((2 * slope[0] - slope[1]) / inner, b, atol=5e-4)


# --- The meta-gradient of MAML against slower ways to compute it ---


def loss_of_one_task(c, theta, D):
    """The surrogate of one task written out for theta (P,): a loop over layers, and one over episodes and steps."""
    x, start, widths = D.obs, 0, c.pi.network.widths
    for i, o in itertools.pairwise(widths):
        x = ad.tanh(x) if start else x
        W, b = (
            ad.reshape(theta[start : start + i * o], (i, o)),
            theta[start + i * o : start + (i + 1) * o],
        )
        x, start = x @ W + b, start + (i + 1) * o
    log_std = theta[start:]
    log_p = ad.sum(
        -0.5 * ((D.actions - x) / ad.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi), -1
    )
    K, H = D.rewards.shape
    A = np.zeros((K, H))
    for k, t in itertools.product(range(K), range(H)):
        A[k, t] = sum(c.gamma ** (u - t) * D.rewards[k, u] for u in range(t, H))
    for t in range(H):
        running = [k for k in range(K) if D.mask[k, t]]
        A[:, t] -= np.mean(A[running, t]) if running else 0
    valid = A[D.mask]
    A = np.where(D.mask, (A - valid.mean()) / (valid.std() + 1e-8), 0)
    return -ad.sum(log_p * A) / A.size


def episodes_of(c, theta, tasks, address, i):
    """Task i of the batch of episodes that the algorithm samples at `address`."""
    D = rollout(c.family, c.pi, theta, tasks, c.episodes, noise_at(*address))
    return type(D)(*(x[i] for x in D[:4]))


@pytest.fixture
def problem():
    c = Setting(
        algo="maml", estimator="log-prob", learn_alpha=False, alpha=0.3, hidden=(5, 4), episodes=4
    )
    c = replace(c, env=replace(c.family, horizon=12, radius=0.1))
    tasks = 0.3 * metarl.sample_tasks(
        c, 3, noise_at(7)
    )  # so near that many episodes end before the horizon
    return c, c.pi.init(noise_at(5)), tasks


def test_meta_gradient_equals_a_loop_over_tasks(problem):
    """Algorithm 3, task by task; the second-order term as (I - alpha H) g', with a Hessian-vector product."""
    c, theta, tasks = problem
    g, _ = meta_gradient(c, theta, tasks, ADDRESS)
    first_order, _ = meta_gradient(
        replace(c, algo="fomaml", estimator="first-order"), theta, tasks, ADDRESS
    )
    thetas = np.tile(theta, (len(tasks), 1))
    steps = []
    for i in range(len(tasks)):
        D = episodes_of(c, thetas, tasks, (*ADDRESS, 0), i)
        leaf = Tensor(theta)
        steps.append(theta - c.alpha * grad(loss_of_one_task(c, leaf, D), leaf).data)
    for i in range(len(tasks)):
        D = episodes_of(c, thetas, tasks, (*ADDRESS, 0), i)
        D_prime = episodes_of(c, np.stack(steps), tasks, (*ADDRESS, 1), i)
        assert not D.mask.all() and not D_prime.mask.all()
        leaf = Tensor(steps[i])
        g_prime = grad(loss_of_one_task(c, leaf, D_prime), leaf).data
        H_g_prime = ad.hvp(lambda x, D=D: loss_of_one_task(c, x, D), theta, g_prime)
        assert_allclose(g[i], g_prime - c.alpha * H_g_prime, rtol=1e-9, atol=1e-12)
        assert_allclose(first_order[i], g_prime, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("inner_steps", [1, 2])
def test_meta_gradient_equals_differences(problem, inner_steps):
    """Central differences of L_out(theta - alpha grad L_in(theta; D); D'), all episodes held fixed."""
    c, theta, tasks = problem
    c = replace(c, inner_steps=inner_steps, alpha_decay=0.7)
    thetas = np.tile(theta, (len(tasks), 1))
    sample = sampler(c, tasks, ADDRESS)
    path, episodes = adapt(c, Tensor(thetas), sample)
    episodes.append(sample(inner_steps, path[-1].data))
    episodes = metarl.with_log_pi(c, path, episodes)

    def outer_loss(theta):
        for k, D in enumerate(episodes[:-1]):
            leaf = Tensor(theta)
            alpha = c.alpha * (1 if k == 0 else 0.7)
            theta = theta - alpha * grad(ad.sum(metarl.surrogate(c, leaf, D)), leaf).data
        return metarl.surrogate(c, theta, episodes[-1]).sum()

    g, _ = meta_gradient(c, theta, tasks, ADDRESS)
    for _ in range(20):
        v = noise_at(1).standard_normal(thetas.shape)
        slope = (outer_loss(thetas + 1e-5 * v) - outer_loss(thetas - 1e-5 * v)) / 2e-5
        assert_allclose((g * v).sum(), slope, rtol=1e-6)


def test_only_maml_differentiates_through_the_inner_steps(problem):
    c, theta, tasks = problem
    leaf = Tensor(np.tile(theta, (len(tasks), 1)))
    for create_graph in (True, False):
        path, _ = adapt(c, leaf, sampler(c, tasks, ADDRESS), create_graph)
        through = grad(ad.sum(path[-1]), leaf).data
        assert (np.abs(through - 1).max() > 1e-3) == create_graph
    assert ALGORITHMS["fomaml"] is ALGORITHMS["maml"]


# --- Invariances ---


class Tape:
    """A generator that writes down what it draws."""

    def __init__(self, generator):
        self.generator, self.drawn = generator, []

    def standard_normal(self, shape):
        self.drawn.append(self.generator.standard_normal(shape))
        return self.drawn[-1]


class Replay:
    """A generator that draws what is on a tape, for the tasks in `rows` only."""

    def __init__(self, tape, rows):
        self.drawn = iter([x[rows] for x in tape.drawn])

    def standard_normal(self, shape):
        x = next(self.drawn)
        assert x.shape == tuple(shape)
        return x


@pytest.fixture
def tapes(monkeypatch):
    """Put all noise on tape; returns a function after which the noise of the tasks in `rows` is replayed."""
    record = {}
    monkeypatch.setattr(
        metarl, "noise_at", lambda *address: record.setdefault(address, Tape(noise_at(*address)))
    )

    def replay(rows):
        monkeypatch.setattr(metarl, "noise_at", lambda *address: Replay(record[address], rows))

    return replay


def test_tasks_adapted_together_equal_each_adapted_alone(problem, tapes):
    c, theta, tasks = problem
    thetas = np.tile(theta, (3, 1)) + 0.1 * np.arange(3)[:, None]
    together, _ = adapt(c, Tensor(thetas), sampler(c, tasks, ADDRESS))
    for i in range(3):
        tapes([i])
        alone, _ = adapt(c, Tensor(thetas[[i]]), sampler(c, tasks[[i]], ADDRESS))
        assert_allclose(alone[-1].data, together[-1].data[[i]], rtol=1e-12, atol=1e-15)


def test_permuted_tasks_permute_their_results(problem, tapes):
    c, theta, tasks = problem
    g, log = meta_gradient(c, theta, tasks, ADDRESS)
    order = [2, 0, 1]
    tapes(order)
    permuted, permuted_log = meta_gradient(c, theta, tasks[order], ADDRESS)
    assert_array_equal(permuted, g[order])
    assert_array_equal(permuted_log, log[order])


@pytest.mark.parametrize("standardise", [True, False])
def test_reptile_with_one_inner_step_is_joint_training(standardise):
    common = dict(SMALL, alpha=0.2, standardise=standardise)
    one = Setting(algo="reptile", inner_steps=1, epsilon=0.5, **common)
    joint = Setting(algo="joint", beta=0.1, outer="sgd", max_norm=1e9, **common)
    ends = [next(metarl.train(c, metarl.initial_state(c))) for c in (one, joint)]
    assert_allclose(ends[0]["theta"], ends[1]["theta"], rtol=1e-12, atol=1e-15)
    assert ends[0]["env_steps"] == ends[1]["env_steps"] > 0


def test_batched_reptile_is_the_mean_of_serial_reptile(tapes):
    c = Setting(algo="reptile", **SMALL)
    tasks, phi = metarl.sample_tasks(c, 3, noise_at(3)), c.pi.init(noise_at(5))
    phi_k, _ = metarl.reptile_adapt(c, phi, tasks, ADDRESS)
    for i in range(3):
        tapes([i])
        assert_allclose(
            metarl.reptile_adapt(c, phi, tasks[[i]], ADDRESS)[0], phi_k[[i]], rtol=1e-12, atol=1e-15
        )


def test_adam_takes_the_paper_s_steps():
    """Against Kingma & Ba's Algorithm 1 in scalars: also through the inner loop of Reptile."""
    c = quadratic_setting(
        "reptile", HILL, alpha=0.1, inner_steps=3, inner_optimizer="adam", alpha_decay=0.5
    )
    theta, m, v = START.copy(), np.zeros(2), np.zeros(2)
    for t, alpha in ((1, 0.1), (2, 0.05), (3, 0.05)):
        g = HILL.A[0] @ theta
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta = theta - alpha * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    assert_allclose(START - outer_step(c, START), theta, rtol=1e-13)


def test_outer_optimisers():
    """SGD and Adam against their formulas over three steps, and long gradients scaled down to max_norm."""
    c = Setting(algo="maml", learn_alpha=False, beta=0.1, max_norm=2.0)
    gradients = [np.array([3.0, 4.0]), np.array([0.3, -0.1]), np.zeros(2)]
    clipped = [np.array([1.2, 1.6]), *gradients[1:]]
    sgd = adam = {"theta": START, "m": np.zeros(2), "v": np.zeros(2), "t": 0}
    theta, m, v = START, np.zeros(2), np.zeros(2)
    for t, (g, short) in enumerate(zip(gradients, clipped, strict=True)):
        m, v = 0.9 * m + 0.1 * short, 0.999 * v + 0.001 * short**2
        theta = theta - 0.1 * (m / (1 - 0.9 ** (t + 1))) / (
            np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8
        )
        sgd = metarl.descend(replace(c, outer="sgd"), {**sgd, "t": t}, g)
        adam = metarl.descend(c, {**adam, "t": t}, g)
        assert_allclose(adam["theta"], theta, rtol=1e-13)
    assert_allclose(sgd["theta"], START - 0.1 * np.sum(clipped, 0), rtol=1e-14)


# --- Black boxes ---


def black_box(algo="es-maml", **options):
    """A small setting whose policies act at random, so that all noise counts."""
    c = Setting(
        **(
            SMALL
            | dict(algo=algo, episodes=6, alpha=0.7, inner_sigma=0.4, deterministic=False)
            | options
        )
    )
    return replace(c, env=replace(c.family, horizon=6)) if isinstance(c.env, str) else c


def meta_parameters(c, *shape):
    size = c.pi.size * (1 + c.learn_alpha)
    return 0.3 * noise_at(12).standard_normal((*shape, size))


def test_es_maml_update_equals_its_formula(monkeypatch):
    """theta + beta / (sigma n) sum_i v_i g_i, n counting both members of a pair, which share their task."""
    c = black_box(fitness="raw", outer="sgd", beta=0.3, sigma=0.2, population=6)
    value = lambda x, tasks: (
        np.sin(x @ np.arange(x.shape[-1])) * (1 + tasks[:, :1] + tasks[:, 1:] ** 2)
    )
    monkeypatch.setattr(
        metarl, "fitness", lambda c, x, tasks, address: (value(x, tasks), np.zeros((len(x), 3)))
    )
    state = metarl.initial_state(c) | {"theta": meta_parameters(c)}
    after = ALGORITHMS["es-maml"](c, state, ADDRESS[:3], in_chunks)["theta"]
    g = noise_at(*ADDRESS[:3], metarl.ASK).standard_normal((3, len(after)))
    tasks = metarl.sample_tasks(c, 3, noise_at(*ADDRESS[:3], metarl.TASKS))
    total = 0
    for i, sign in itertools.product(range(3), (1, -1)):
        x = state["theta"] + 0.2 * sign * g[i]
        total = total + value(x[None, None], tasks[[i]])[0, 0] * sign * g[i]
    assert_allclose(after, state["theta"] + 0.3 / (0.2 * 6) * total, rtol=1e-10)


@pytest.mark.parametrize("algo, nes", [("nes", "snes"), ("nes", "xnes"), ("cma-es", "snes")])
def test_a_generation_is_judged_by_the_mean_over_the_same_tasks(algo, nes, monkeypatch):
    c = black_box(algo, nes=nes, sigma=0.2)
    value = lambda x, tasks: -((x.sum(-1) - 3 * tasks.sum(-1)[:, None]) ** 2)
    monkeypatch.setattr(
        metarl, "fitness", lambda c, x, tasks, address: (value(x, tasks), np.zeros((len(x), 3)))
    )
    state = metarl.initial_state(c) | {"theta": meta_parameters(c)}
    after = ALGORITHMS[algo](c, state, ADDRESS[:3], in_chunks)
    make = {"snes": es.SNES, "xnes": es.XNES}[nes] if algo == "nes" else es.CMAES
    s = make(state["theta"], 0.2, 6, noise_at(*ADDRESS[:3], metarl.ASK))
    x, tasks = s.ask(), metarl.sample_tasks(c, 3, noise_at(*ADDRESS[:3], metarl.TASKS))
    s.tell(x, [np.mean([(p.sum() - 3 * task.sum()) ** 2 for task in tasks]) for p in x])
    assert_allclose(after["theta"], s.mean, rtol=1e-10)
    assert_allclose(after["sigma"], s.sigma, rtol=1e-10)


def slow_hill_climb(c, theta, scale, task, noise):
    """One task: keep the best point, starting with theta; from it try a random step; K evaluations in all."""
    score = lambda p: rollout(c.family, c.pi, p[None], task[None], 1, noise).rewards.sum()
    value = score(theta)
    for _ in range(c.episodes - 1):
        trial = theta + 0.4 * scale * noise.standard_normal((1, len(theta)))[0]
        new = score(trial)
        if new > value:
            theta, value = trial, new
    return theta


def slow_es_gradient(c, theta, scale, task, noise):
    """One task: K / 2 antithetic pairs; alpha times the mean of f eps over the deviation of f."""
    score = lambda p: rollout(c.family, c.pi, p[None], task[None], 1, noise).rewards.sum()
    values, products = [], []
    for _ in range(c.episodes // 2):
        eps = noise.standard_normal((1, len(theta)))[0]
        for sign in (1, -1):
            values.append(score(theta + sign * 0.4 * scale * eps))
            products.append(values[-1] * sign * eps)
    return theta + 0.7 * scale * np.mean(products, 0) / (np.std(values) + 1e-8)


def slow_policy_gradient(c, theta, scale, task, noise):
    D = rollout(c.family, c.pi, theta[None], task[None], c.episodes, noise)
    leaf = Tensor(theta[None])
    return theta - 0.7 * scale * grad(ad.sum(metarl.surrogate(c, leaf, D)), leaf).data[0]


SLOW = {"hc": slow_hill_climb, "es": slow_es_gradient, "pg": slow_policy_gradient}


@pytest.mark.parametrize("inner", SLOW)
@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.parametrize("learn_alpha", [True, False])
def test_fitness_equals_a_loop_over_tasks_and_members(inner, inner_steps, learn_alpha, tapes):
    """Each member alone, adapted by the slow form and then evaluated; the members of a task under the same noise."""
    c = black_box(inner=inner, inner_steps=inner_steps, learn_alpha=learn_alpha)
    x, tasks = meta_parameters(c, 4, 2), metarl.sample_tasks(c, 4, noise_at(3))
    v, log = metarl.fitness(c, x, tasks, ADDRESS)
    P, steps = c.pi.size, 6 * (6 * inner_steps + 6) * 2
    for i, j in np.ndindex(4, 2):
        theta, scale = x[i, j, :P], np.exp(x[i, j, P:]) if learn_alpha else np.ones(P)
        tapes([i])
        for k in range(inner_steps):
            theta = SLOW[inner](c, theta, scale, tasks[i], metarl.noise_at(*ADDRESS, k))
        D = rollout(
            c.family, c.pi, theta[None], tasks[[i]], 6, metarl.noise_at(*ADDRESS, inner_steps)
        )
        assert_allclose(v[i, j], D.rewards.sum(2).mean(), rtol=1e-9)
    assert_allclose(log[:, 1], v.mean(1), rtol=1e-12)
    assert (log[:, 2] <= steps).all() and log[:, 2].mean() > 0.9 * steps


@pytest.mark.parametrize("inner", SLOW)
def test_meta_test_adapts_as_fitness_does(inner):
    """The return after k adaptations is that of theta after k inner loops with the scales of the trained mean."""
    c = black_box(inner=inner, test_episodes=6)
    theta = meta_parameters(c)
    tasks, returns = metarl.meta_test(c, theta)
    address, P = (c.seed, metarl.TEST, INNER, 0), c.pi.size
    adapted, scale = np.tile(theta[:P], (3, 1)), np.tile(np.exp(theta[P:]), (3, 1))
    for k in range(3):
        D = rollout(c.family, c.pi, adapted, tasks, 6, noise_at(*address, metarl.MEASURE, k))
        assert_allclose(returns[:, k], D.returns, rtol=1e-10)
        noise = noise_at(*address, INNER, k)
        adapted, _ = metarl.INNER_LOOPS[inner](replace(c, episodes=5), adapted, scale, tasks, noise)


def test_cma_es_takes_the_diagonal_form_above_500_parameters():
    for hidden, ndim in (((), 2), ((30,), 2), ((30, 30), 1)):
        c = black_box("cma-es", policy="mlp", hidden=hidden, learn_alpha=False)
        assert metarl.initial_state(c)["C"].ndim == ndim == (1 if c.pi.size > 500 else 2)


def test_chunks_of_black_boxes_hold_2000_members():
    c, sizes = black_box(inner="hc"), []
    count = lambda c, x, tasks, address: (sizes.append(x.shape[0] * x.shape[1]) or tasks,)
    for members, tasks in ((2, 2400), (24, 100), (3000, 3)):
        in_chunks(count, c, np.zeros((tasks, members, 1)), np.zeros((tasks, 2)), ADDRESS)
    assert sizes == [2000, 2000, 800, 83 * 24, 17 * 24, 3000, 3000, 3000]


def test_deterministic_policies_act_by_their_mode():
    c = black_box(deterministic=True)
    theta, obs = c.pi.init(noise_at(5)), noise_at(6).standard_normal((3, 4, 2))
    assert_array_equal(c.pi.act(theta, obs, None), c.pi.mode(theta, obs))
    _, log = metarl.fitness(
        c, meta_parameters(c, 4, 2), metarl.sample_tasks(c, 4, noise_at(3)), ADDRESS
    )
    assert log[:, 2].max() <= 6 * (6 + 1) * 2  # one episode is enough to evaluate


def test_black_box_state_is_float64_and_episodes_have_the_dtype(monkeypatch):
    c, dtypes = black_box("cma-es", dtype="float32"), set()
    real = metarl.rollout

    def watched(*arguments, keep=True):
        D = real(*arguments)
        dtypes.update((D.obs.dtype, D.actions.dtype, D.rewards.dtype, arguments[2].dtype))
        return D

    monkeypatch.setattr(metarl, "rollout", watched)
    state = next(metarl.train(c, metarl.initial_state(c)))
    assert state["theta"].dtype == np.float64 and dtypes == {np.dtype("float32")}


# --- Noise and runs ---


def test_noise_is_addressed():
    draw = lambda *address: noise_at(*address).random(4).tolist()
    addresses = [
        (0,),
        (1,),
        (0, 0),
        (0, 1),
        (1, 0),
        (0, 0, 0),
        (0, 0, 1),
        (0, 1, 0),
        (256,),
        (0, 256),
    ]
    assert draw(3, 1, 4) == draw(3, 1, 4)
    assert len({tuple(draw(*address)) for address in addresses}) == len(addresses)


def test_each_is_the_same_with_any_map_and_no_two_chunks_share_noise():
    c = Setting(learn_alpha=False, **SMALL)
    n = 2 * metarl.CHUNK + 3
    tasks, theta = metarl.sample_tasks(c, n, noise_at(3)), c.pi.init(noise_at(5))
    g, log = in_chunks(meta_gradient, c, theta, tasks, ADDRESS)
    with ThreadPoolExecutor(2) as pool:
        for row, other in zip(
            (g, log), in_chunks(meta_gradient, c, theta, tasks, ADDRESS, map=pool.map), strict=True
        ):
            assert_array_equal(row, other)
    same = np.repeat(tasks[:1], n, 0)
    thetas = np.tile(theta, (n, 1))
    _, log = in_chunks(metarl.reptile_adapt, replace(c, algo="reptile"), theta, same, ADDRESS)
    assert len(np.unique(log[:, 0])) == n
    rows = in_chunks(
        lambda c, theta, tasks, address: (theta,), c, thetas + np.arange(n)[:, None], tasks, ADDRESS
    )[0]
    assert_array_equal(rows, thetas + np.arange(n)[:, None])


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_state_is_all_that_a_run_carries(algo):
    """From the state after two iterations, back from a plain dict of copies, the third comes out to the bit."""
    c = Setting(algo=algo, **SMALL)
    states = list(itertools.islice(metarl.train(c, metarl.initial_state(c)), 3))
    again = next(metarl.train(c, {name: value.copy() for name, value in states[1].items()}))
    assert all(isinstance(value, np.ndarray) for value in states[2].values())
    assert again.keys() == states[2].keys() == metarl.initial_state(c).keys()
    for name, value in again.items():
        assert_array_equal(value, states[2][name])
    assert [int(s["t"]) for s in states] == [1, 2, 3]
    assert not np.array_equal(states[0]["theta"], states[1]["theta"])


@pytest.mark.parametrize("algo", ["maml", "fomaml", "joint", "reptile"])
def test_float32_runs_stay_float32(algo, monkeypatch):
    seen = set()
    create = Tensor.__init__

    def watch(self, *arguments):
        create(self, *arguments)
        seen.add(self.dtype)

    monkeypatch.setattr(Tensor, "__init__", watch)
    c = Setting(algo=algo, dtype="float32", baseline="linear", **SMALL)
    state = next(metarl.train(c, metarl.initial_state(c)))
    assert seen == {np.dtype("float32")}
    assert {state[name].dtype for name in state if name in ("theta", "m", "v")} == seen
    assert metarl.meta_test(c, state["theta"])[1].dtype == np.float32


def test_environment_steps_are_counted_with_adaptation_and_up_to_the_end_of_each_episode():
    c = Setting(algo="maml", inner_steps=2, **SMALL)
    full = replace(c, env=replace(c.family, radius=0.0, horizon=7))
    state = next(metarl.train(full, metarl.initial_state(full)))
    assert state["env_steps"] == 3 * 4 * 7 * 3
    early = replace(full, env=replace(full.family, radius=0.1, box=0.15))
    assert next(metarl.train(early, metarl.initial_state(early)))["env_steps"] < 3 * 4 * 7 * 3


def test_log_reports_returns_before_and_after_adaptation(problem):
    c, theta, tasks = problem
    _, log = meta_gradient(c, theta, tasks, ADDRESS)
    thetas = np.tile(theta, (3, 1))
    path, _ = adapt(c, Tensor(thetas), sampler(c, tasks, ADDRESS))
    for column, parameters, k in ((0, thetas, 0), (1, path[-1].data, 1)):
        D = rollout(c.family, c.pi, parameters, tasks, c.episodes, noise_at(*ADDRESS, k))
        assert_allclose(log[:, column], D.rewards.sum(2).mean(1))


@pytest.mark.parametrize("algo", ["maml", "reptile", "es-maml", "cma-es"])
def test_no_noise_is_used_twice(algo, monkeypatch):
    """Initialisation, two iterations, meta-test, with two seeds: each generator is asked for once."""
    addresses = []
    monkeypatch.setattr(
        metarl, "noise_at", lambda *address: addresses.append(address) or noise_at(*address)
    )
    for seed in (0, 1):
        c = Setting(algo=algo, seed=seed, std=1.0, **SMALL)
        first, second = itertools.islice(metarl.train(c, metarl.initial_state(c)), 2)
        metarl.meta_test(c, second["theta"])
    assert len(set(addresses)) == len(addresses)
    assert {address[:2] for address in addresses} == set(
        itertools.product((0, 1), (metarl.INIT, metarl.TRAIN, metarl.TEST))
    )
    assert_allclose(second["env_steps"] / first["env_steps"], 2, rtol=0.02)


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


def test_meta_test_measures_each_step_on_fresh_episodes():
    c = Setting(algo="fomaml", learn_alpha=False, alpha=0.4, **SMALL)
    theta, address = c.pi.init(noise_at(5)), (0, metarl.TEST, INNER, 0)
    tasks, returns = metarl.meta_test(c, theta)
    assert returns.shape == (3, 3)
    for k in range(3):
        theta_k = np.tile(theta, (3, 1))
        if k:
            longer = replace(c, inner_steps=k, episodes=5)
            theta_k = adapt(longer, Tensor(theta_k), sampler(longer, tasks, (*address, INNER)))[0][
                -1
            ].data
        D = rollout(c.family, c.pi, theta_k, tasks, 4, noise_at(*address, metarl.MEASURE, k))
        assert_array_equal(returns[:, k], D.returns)


def test_meta_test_takes_its_own_number_of_episodes():
    c = Setting(**(SMALL | dict(test_episodes=9, learn_alpha=False)))
    _, returns = metarl.meta_test(replace(c, env=Counting()), c.pi.init(noise_at(5)))
    assert (returns == 9).all()


class Counting(type(Setting().family)):
    """The point mass, but each episode returns the number of episodes."""

    def step(self, state, action, tasks, rng):
        state, reward, _ = super().step(state, action, tasks, rng)
        return state, np.full(reward.shape, float(reward.shape[1])), np.ones(reward.shape, bool)


def test_learning_to_adapt():
    """Not a proof, but the point of it all: MAML's first steps already make one adaptation step worth more."""
    c = Setting(
        algo="fomaml",
        hidden=(16,),
        tasks=10,
        test_tasks=10,
        test_episodes=10,
        test_steps=1,
        beta=0.01,
    )
    state = next(itertools.islice(metarl.train(c, metarl.initial_state(c)), 29, None))
    gains = [
        np.diff(metarl.meta_test(c, theta)[1], axis=1)
        for theta in (metarl.initial_state(c)["theta"], state["theta"])
    ]
    assert metarl.meta_test(c, state["theta"])[1].mean(0)[1] > -25
    assert gains[1].mean() > 10


def test_partial_each_is_what_train_hands_on():
    c, calls = Setting(**SMALL), []
    counting = lambda f, *chunks: calls.append(f.__name__) or map(f, *chunks)
    next(metarl.train(c, metarl.initial_state(c), partial(in_chunks, map=counting)))
    assert calls == ["meta_gradient"]
