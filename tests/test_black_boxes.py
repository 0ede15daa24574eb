"""More of the algorithms that learn from returns alone, beside test_metarl.py.

Their inner loops against slow forms, a generation against the strategies of es.py, and how they are
tested, cut into chunks, and kept in float64.
"""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import autodiff as ad
import es
import metarl
from metarl import ALGORITHMS, INNER, in_chunks, noise_at
from policies import rollout, surrogate
from test_metarl import (
    ADDRESS,
    black_box,
    give_noise_of,
    gradient,
    meta_parameters,
    return_of,
    slow_hill_climb,
)


# --- Inner loops: one task, one member ---
def slow_es_gradient(c, theta, scale, task, noise):
    """K / 2 antithetic pairs; alpha times the mean of f eps over the deviation of f."""
    values = []
    products = []
    for _ in range(c.episodes // 2):
        eps = noise.standard_normal((1, len(theta)))[0]
        for sign in (1, -1):
            value = return_of(c, theta + sign * 0.4 * scale * eps, task, 1, noise)
            values.append(value)
            products.append(value * sign * eps)
    return theta + 0.7 * scale * np.mean(products, 0) / np.std(values)


def slow_policy_gradient(c, theta, scale, task, noise):
    D = rollout(c.family, c.pi, theta[None], task[None], c.episodes, noise)
    g = gradient(lambda theta: ad.sum(surrogate(c, theta, D)), theta[None])
    return theta - 0.7 * scale * g[0]


SLOW = {"hc": slow_hill_climb, "es": slow_es_gradient, "pg": slow_policy_gradient}


@pytest.mark.parametrize("inner", SLOW)
@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.parametrize("learn_alpha", [True, False])
def test_fitness_equals_a_loop_over_tasks_and_members(inner, inner_steps, learn_alpha, monkeypatch):
    """Each member adapts alone and is then judged; the members of a task under the same noise."""
    c = black_box(inner=inner, inner_steps=inner_steps, learn_alpha=learn_alpha)
    x = meta_parameters(c, 4, 2)
    tasks = metarl.sample_tasks(c, 4, noise_at(3))
    v, log = metarl.fitness(c, x, tasks, ADDRESS)
    P = c.pi.size
    for i, j in np.ndindex(4, 2):
        give_noise_of([i], 4, monkeypatch)
        theta = x[i, j, :P]
        scale = np.ones(P)
        if learn_alpha:
            scale = np.exp(x[i, j, P:])
        for k in range(inner_steps):
            theta = SLOW[inner](c, theta, scale, tasks[i], metarl.noise_at(*ADDRESS, k))
        expected = return_of(c, theta, tasks[i], 6, metarl.noise_at(*ADDRESS, inner_steps))
        assert_allclose(v[i, j], expected, rtol=1e-9)
    assert_allclose(log[:, 1], v.mean(1), rtol=1e-12)
    steps = 6 * (6 * inner_steps + 6) * 2  # of a task, if no episode ends before the horizon
    assert (log[:, 2] <= steps).all() and log[:, 2].mean() > 0.9 * steps


@pytest.mark.parametrize("inner", SLOW)
def test_meta_test_adapts_as_fitness_does(inner):
    """The return after k adaptations is that of theta after k inner loops.

    They take the scales of the trained mean.
    """
    c = black_box(inner=inner, test_episodes=6)
    theta = meta_parameters(c)
    tasks, returns = metarl.meta_test(c, theta)
    address = (c.seed, metarl.TEST, INNER, 0)
    P = c.pi.size
    adapted = np.tile(theta[:P], (3, 1))
    scale = np.tile(np.exp(theta[P:]), (3, 1))
    in_test = replace(c, episodes=5)
    for k in range(3):
        D = rollout(c.family, c.pi, adapted, tasks, 6, noise_at(*address, metarl.MEASURE, k))
        assert_allclose(returns[:, k], D.returns, rtol=1e-10)
        noise = noise_at(*address, INNER, k)
        adapted, _ = metarl.INNER_LOOPS[inner](in_test, adapted, scale, tasks, noise)


# --- Outer loops ---
@pytest.mark.parametrize("algo, nes", [("nes", "snes"), ("nes", "xnes"), ("cma-es", "snes")])
def test_a_generation_is_judged_by_the_mean_over_the_same_tasks(algo, nes, monkeypatch):
    c = black_box(algo, nes=nes, sigma=0.2)

    def fitness(c, x, tasks, address):
        v = -((x.sum(-1) - 3 * tasks.sum(-1)[:, None]) ** 2)
        return v, np.zeros((len(x), 3))

    monkeypatch.setattr(metarl, "fitness", fitness)
    state = metarl.initial_state(c) | {"theta": meta_parameters(c)}
    after = ALGORITHMS[algo](c, state, ADDRESS[:3], in_chunks)

    make = es.CMAES
    if algo == "nes":
        make = {"snes": es.SNES, "xnes": es.XNES}[nes]
    strategy = make(state["theta"], 0.2, 6, noise_at(*ADDRESS[:3], metarl.ASK))
    x = strategy.ask()
    tasks = metarl.sample_tasks(c, 3, noise_at(*ADDRESS[:3], metarl.TASKS))
    losses = [np.mean([(p.sum() - 3 * task.sum()) ** 2 for task in tasks]) for p in x]
    strategy.tell(x, losses)
    assert_allclose(after["theta"], strategy.mean, rtol=1e-10)
    assert_allclose(after["sigma"], strategy.sigma, rtol=1e-10)


def test_cma_es_takes_the_diagonal_form_above_500_parameters():
    for hidden, ndim in (((), 2), ((30,), 2), ((30, 30), 1)):
        c = black_box("cma-es", policy="mlp", hidden=hidden, learn_alpha=False)
        expected = 1 if c.pi.size > 500 else 2
        assert metarl.initial_state(c)["C"].ndim == ndim == expected


def test_the_full_form_is_taken_up_to_500_parameters():
    c = black_box("cma-es")
    for P, ndim in ((500, 2), (501, 1)):
        strategy = metarl.strategy_of(c, {"theta": np.zeros(P)}, None)
        assert strategy.C.ndim == ndim


# --- Chunks, episodes, precision ---
@pytest.mark.parametrize(
    "tasks, members, chunks",
    [
        (1, 1, [1]),  # however few there are,
        (199, 1, [199]),  # up to
        (399, 1, [399]),  # 399 rows of theta make one chunk
        (400, 1, [200, 200]),
        (250, 2, [125, 125]),  # es-maml by default
        (20, 24, [10, 10]),  # nes and cma-es by default
        (7, 150, [2, 2, 2, 1]),  # 5 chunks of at least 200 would be uneven
        (800, 2, 8 * [100]),
        (3000, 2, 8 * [375]),  # eight
        (4500, 2, 9 * [500]),  # until they would have more than 1000 rows
        (3, 3000, [1, 1, 1]),  # all members of a task are judged under the same noise
    ],
)
def test_chunks_of_black_boxes(tasks, members, chunks):
    c = black_box(inner="hc")
    sizes = []
    places = []

    def count(c, x, tasks, address):
        sizes.append(len(tasks))
        places.append(address[-1])
        return [tasks]

    in_chunks(count, c, None, np.zeros((tasks, 2)), ADDRESS, members=members)
    assert sizes == chunks
    assert places == [0, *np.cumsum(chunks)[:-1]]


def judged_in_three_chunks(algo, monkeypatch):
    """One iteration on `worth`: c, the states before and after, and the points of each task."""
    c = black_box(algo, population=12, tasks=6)
    judged = []

    def fitness(c, x, tasks, address):
        x = np.broadcast_to(x, (len(tasks), *x.shape[-2:]))
        judged.append(x)
        return [worth(x, tasks), np.zeros((len(x), 3))]

    monkeypatch.setattr(metarl, "fitness", fitness)
    monkeypatch.setattr(metarl, "chunk_size", lambda c, T, members: 2)
    state = metarl.initial_state(c)
    after = ALGORITHMS[algo](c, state, ADDRESS[:3], in_chunks)
    assert len(judged) == 3
    return c, state, after, np.concatenate(judged)


def worth(x, tasks):
    """(T, n): of members x (T, n, P) on tasks (T, 2)."""
    return -(x**2).sum(-1) * (1 + tasks[:, :1] ** 2)


def test_chunks_make_the_pairs_that_move_theta(monkeypatch):
    """Each makes those that it judges; theta is moved by all of them, made again."""
    c, state, after, points = judged_in_three_chunks("es-maml", monkeypatch)
    assert_allclose(points.mean(1), np.tile(state["theta"], (6, 1)), rtol=1e-12)
    assert len(np.unique(points, axis=0)) == 6  # no two chunks have the same noise
    tasks = metarl.sample_tasks(c, 6, noise_at(*ADDRESS[:3], metarl.TASKS))
    v = worth(points, tasks)
    strategy = metarl.strategy_of(c, state, None)
    strategy.tell(np.concatenate([points[:, 0], points[:, 1]]), -np.concatenate([v[:, 0], v[:, 1]]))
    assert_allclose(after["theta"], strategy.mean, rtol=1e-12)


def test_all_tasks_judge_the_same_generation(monkeypatch):
    _, _, _, points = judged_in_three_chunks("nes", monkeypatch)
    assert_array_equal(points, np.broadcast_to(points[0], points.shape))


def test_deterministic_policies_act_by_their_mode():
    c = black_box(deterministic=True)
    theta = c.pi.init(noise_at(5))
    obs = noise_at(6).standard_normal((3, 4, 2))
    assert_array_equal(c.pi.act(theta, obs, None), c.pi.mode(theta, obs))
    tasks = metarl.sample_tasks(c, 4, noise_at(3))
    _, log = metarl.fitness(c, meta_parameters(c, 4, 2), tasks, ADDRESS)
    assert log[:, 2].max() <= 6 * (6 + 1) * 2  # one episode is enough to evaluate


def test_black_box_state_is_float64_and_episodes_have_the_dtype(monkeypatch):
    c = black_box("cma-es", dtype="float32")
    dtypes = set()

    def watched(*arguments, keep=True):
        D = rollout(*arguments)
        dtypes.update((D.obs.dtype, D.actions.dtype, D.rewards.dtype, arguments[2].dtype))
        return D

    monkeypatch.setattr(metarl, "rollout", watched)
    state = next(metarl.train(c, metarl.initial_state(c)))
    assert state["theta"].dtype == np.float64
    assert dtypes == {np.dtype("float32")}
