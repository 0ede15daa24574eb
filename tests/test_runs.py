"""Noise and its addresses, and runs: their state, precision, logs, and the meta-test."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import metarl
from autodiff import Tensor
from harness.settings import Setting
from metarl import ALGORITHMS, INNER, adapt, in_chunks, meta_gradient, noise_at, sampler
from policies import rollout
from test_metarl import ADDRESS, SMALL, small_problem


# --- Noise ---
def test_noise_is_addressed():
    def draw(*address):
        return tuple(noise_at(*address).random(4))

    addresses = [(0,), (1,), (256,), (0, 0), (0, 1), (1, 0), (0, 256)]
    addresses += [(0, 0, 0), (0, 0, 1), (0, 1, 0)]
    assert draw(3, 1, 4) == draw(3, 1, 4)
    assert len({draw(*address) for address in addresses}) == len(addresses)


@pytest.mark.parametrize("algo", ["maml", "reptile", "es-maml", "cma-es"])
def test_no_noise_is_used_twice(algo, monkeypatch):
    """Initialisation, two iterations, meta-test, with two seeds: each address is asked for once."""
    addresses = []

    def watched(*address):
        addresses.append(address)
        return noise_at(*address)

    monkeypatch.setattr(metarl, "noise_at", watched)
    for seed in (0, 1):
        c = Setting(algo=algo, seed=seed, std=1.0, **SMALL)
        first, second = itertools.islice(metarl.train(c, metarl.initial_state(c)), 2)
        metarl.meta_test(c, second["theta"])
    # The directions of ES-MAML are made twice: where they are judged, and where they move theta.
    asked = {address for address in addresses if algo == "es-maml" and metarl.ASK in address[3:4]}
    assert all(addresses.count(address) == 1 + (address in asked) for address in addresses)
    assert len({metarl.INIT, metarl.TRAIN, metarl.TEST}) == 3
    begins = itertools.product((0, 1), (metarl.INIT, metarl.TRAIN, metarl.TEST))
    assert {address[:2] for address in addresses} == set(begins)
    assert_allclose(second["env_steps"] / first["env_steps"], 2, rtol=0.02)


# --- Chunks ---
@pytest.mark.parametrize("algo", ["maml", "reptile", "joint"])
def test_chunks_of_gradients_hold_five_tasks(algo):
    c = Setting(algo=algo)
    numbers = []

    def count(c, x, tasks, address):
        numbers.append((len(tasks), address[-1]))
        return [tasks]

    in_chunks(count, c, np.zeros(3), np.zeros((12, 2)), ADDRESS)
    assert numbers == [(5, 0), (5, 5), (2, 10)]


def test_each_is_the_same_with_any_map_and_no_two_chunks_share_noise():
    c = Setting(learn_alpha=False, **SMALL)
    n = 2 * metarl.CHUNK + 3
    tasks = metarl.sample_tasks(c, n, noise_at(3))
    theta = c.pi.init(noise_at(5))

    here = in_chunks(meta_gradient, c, theta, tasks, ADDRESS)
    with ThreadPoolExecutor(2) as pool:
        there = in_chunks(meta_gradient, c, theta, tasks, ADDRESS, map=pool.map)
    for column, other in zip(here, there, strict=True):
        assert_array_equal(column, other)

    same = np.repeat(tasks[:1], n, 0)
    reptile = c.changed(algo="reptile")
    _, log = in_chunks(metarl.reptile_adapt, reptile, theta, same, ADDRESS)
    assert len(np.unique(log[:, 0])) == n

    def tasks_themselves(c, x, tasks, address):
        assert x is theta
        return [tasks]

    [out] = in_chunks(tasks_themselves, c, theta, tasks, ADDRESS)
    assert_array_equal(out, tasks)


def test_partial_each_is_what_train_hands_on():
    c = Setting(**SMALL)
    calls = []

    def counting(f, *chunks):
        calls.append(f.__name__)
        return map(f, *chunks)

    in_counted_chunks = partial(in_chunks, map=counting)
    next(metarl.train(c, metarl.initial_state(c), in_counted_chunks))
    assert calls == ["meta_gradient"]


# --- State, precision, log ---
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_state_is_all_that_a_run_carries(algo):
    """From a plain dict of copies of the second state the third comes out to the bit."""
    c = Setting(algo=algo, **SMALL)
    states = list(itertools.islice(metarl.train(c, metarl.initial_state(c)), 3))
    copies = {name: value.copy() for name, value in states[1].items()}
    again = next(metarl.train(c, copies))
    assert all(isinstance(value, np.ndarray) for value in states[2].values())
    assert again.keys() == states[2].keys() == metarl.initial_state(c).keys()
    for name, value in again.items():
        assert_array_equal(value, states[2][name])
    assert [int(state["t"]) for state in states] == [1, 2, 3]
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
    _, returns = metarl.meta_test(c, state["theta"])
    assert returns.dtype == np.float32


def test_environment_steps_are_counted_with_adaptation_and_up_to_the_end_of_each_episode():
    c = Setting(algo="maml", inner_steps=2, **SMALL)
    full = replace(c, env=replace(c.family, radius=0.0, horizon=7))
    state = next(metarl.train(full, metarl.initial_state(full)))
    assert state["env_steps"] == 3 * 4 * 7 * 3
    early = replace(full, env=replace(full.family, radius=0.1, box=0.15))
    state = next(metarl.train(early, metarl.initial_state(early)))
    assert state["env_steps"] < 3 * 4 * 7 * 3


def test_log_reports_returns_before_and_after_adaptation():
    c, theta, tasks = small_problem()
    _, log = meta_gradient(c, theta, tasks, ADDRESS)
    path, _ = adapt(c, Tensor(np.tile(theta, (3, 1))), sampler(c, tasks, ADDRESS))
    for k in (0, 1):
        rng = noise_at(*ADDRESS, k)
        D = rollout(c.family, c.pi, path[k].data, tasks, c.episodes, rng)
        assert_allclose(log[:, k], D.rewards.sum(2).mean(1))


# --- The meta-test ---
def test_meta_test_measures_each_step_on_fresh_episodes():
    c = Setting(algo="fomaml", learn_alpha=False, alpha=0.4, **SMALL)
    theta = c.pi.init(noise_at(5))
    address = (0, metarl.TEST, INNER, 0)
    tasks, returns = metarl.meta_test(c, theta)
    assert returns.shape == (3, 3)
    for k in range(3):
        theta_k = np.tile(theta, (3, 1))
        if k > 0:
            longer = replace(c, inner_steps=k, episodes=5)
            sample = sampler(longer, tasks, (*address, INNER))
            path, _ = adapt(longer, Tensor(theta_k), sample)
            theta_k = path[-1].data
        rng = noise_at(*address, metarl.MEASURE, k)
        D = rollout(c.family, c.pi, theta_k, tasks, 4, rng)
        assert_allclose(returns[:, k], D.returns, rtol=1e-12)


class Counting(type(Setting().family)):
    """The point mass, but each episode returns the number of episodes."""

    def step(self, state, action, tasks, rng):
        state, reward, _ = super().step(state, action, tasks, rng)
        count = np.full(reward.shape, float(reward.shape[1]))
        return state, count, np.ones(reward.shape, bool)


def test_meta_test_takes_its_own_number_of_episodes():
    c = Setting(**(SMALL | {"test_episodes": 9, "learn_alpha": False}))
    _, returns = metarl.meta_test(replace(c, env=Counting()), c.pi.init(noise_at(5)))
    assert (returns == 9).all()
