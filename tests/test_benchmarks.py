"""The benchmarks: what they share, and the races without the peers."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import metarl
from autodiff import Tensor
from benchmarks import common, meta_gradient, populations, sparse_starts
from benchmarks import workers as benchmark_of_workers
from envs import PointMass
from harness.settings import Setting
from policies import rollout


# --- What they share ---
def test_training_goes_to_the_last_iteration():
    c = Setting(algo="reptile", env="bandit", iterations=3)
    states = list(itertools.islice(metarl.train(c, metarl.initial_state(c)), 3))
    np.testing.assert_array_equal(common.train(c), states[-1]["theta"])
    assert not np.array_equal(states[-1]["theta"], states[-2]["theta"])


def test_jobs_side_by_side_keep_their_order():
    jobs = [(7, 3), (1, 2), (9, 4)]
    assert list(common.side_by_side(divmod, jobs)) == [(2, 1), (0, 1), (2, 1)]


def test_means_with_their_intervals():
    """Of 1, 2, 3: the standard error is 1 / sqrt(3), the 97.5 % point of Student's t 4.3027."""
    samples = np.array([1.0, 2.0, 3.0])
    mean, half = common.mean_and_half(samples)
    assert (mean, half) == pytest.approx((2, 4.302652729911275 / np.sqrt(3)))
    assert common.in_columns(["2.0 ± 2.5", "20.0"], 12) == "   2.0 ± 2.5        20.0"


# --- The race of meta-gradients: ours ---
class Clamped(PointMass):
    """Moves by the action itself."""

    def move(self, action, tasks):
        return action.clip(-0.1, 0.1)


class Prepared:
    """In place of a generator: what it draws was drawn before."""

    def __init__(self, noise):
        self.steps = iter(noise)

    def standard_normal(self, shape):
        return next(self.steps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_our_contestant_takes_all_the_noise_there_is_and_no_other(dtype, tmp_path):
    """The meta-gradient of its process is that of all tasks in one chunk,
    each inner step with its own noise.
    """
    T, K, H = 7, 3, 5
    arrays = meta_gradient.inputs(dtype, T, K, H, hidden=(4, 4))
    np.savez(tmp_path / "in.npz", **arrays)
    command = [
        sys.executable,
        meta_gradient.SCRIPT,
        "ours",
        tmp_path / "in.npz",
        tmp_path / "out.npy",
    ]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    options = dict(
        standardise=False,
        episodes=K,
        alpha=0.1,
        gamma=0.99,
        learn_alpha=False,
        dtype=dtype,
        hidden=(4, 4),
    )
    c = Setting(algo="maml", estimator="log-prob", env=Clamped(horizon=H, radius=0), **options)
    sample = lambda k, theta: rollout(
        c.family, c.pi, theta, arrays["goals"], K, Prepared(arrays["noise"][k])
    )
    x = Tensor(np.tile(arrays["theta"], (T, 1)))
    expected = metarl.grad(metarl.ad.sum(metarl.meta_loss(c, x, sample)[0]), x).data.mean(0)
    error = np.abs(np.load(tmp_path / "out.npy") - expected).max() / np.abs(expected).max()
    assert error < meta_gradient.TOLERANCE[dtype]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_is_that_of_this_process_and_its_children():
    program = """if True:
        import multiprocessing as m, time, numpy as np
        from benchmarks.peers import peak
        alone = peak()
        child = m.get_context("fork").Process(target=lambda: (np.ones(5_000_000), time.sleep(60)))
        child.start()
        while peak() < alone + 40:
            time.sleep(0.01)
        child.kill()
        child.join()
        print(alone > 15 and peak() < alone + 10)"""
    assert (
        subprocess.check_output(
            [sys.executable, "-c", program], cwd=meta_gradient.SCRIPT.parent.parent
        )
        == b"True\n"
    )


# --- Populations and workers ---
def test_parts_of_a_population_are_the_whole():
    whole = populations.returns("float64", 10)
    parts = populations.by_processes(map, 3, "float64", 10)
    assert_allclose(parts, whole, rtol=1e-12)
    theta, goals = populations.inputs("float64", 10)
    family = PointMass(horizon=populations.HORIZON)
    c = Setting(algo="es-maml", env=family, policy="linear", deterministic=True)
    alone = [rollout(c.family, c.pi, theta[[i]], goals[[i]], 1, None).returns for i in range(10)]
    assert_allclose(whole, np.concatenate(alone), rtol=1e-12)


def test_other_returns_end_the_race():
    ours = populations.returns("float64", 10)
    populations.compare("float64", ours, "itself", ours)
    for other in (ours + np.nan, ours + 1e-3):
        with pytest.raises(SystemExit, match="the returns in float64 differ from those of other"):
            populations.compare("float64", ours, "other", other)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_jax_plays_the_same_episodes(dtype, tmp_path):
    pytest.importorskip("jax")
    with populations.Jax(dtype, 40, tmp_path) as jax:
        populations.compare(dtype, populations.returns(dtype, 40), "JAX", jax.returns)
        assert jax() > 0


@pytest.mark.parametrize(
    "algo, chunks, rows", [("maml", 2, 5), ("es-maml", 2, 200), ("nes", 1, 6 * 7)]
)
def test_chunks_and_their_messages(algo, chunks, rows):
    """A message holds theta and an address, not the points of es-maml."""
    small = {"tasks": 7, "episodes": 4, "env": PointMass(horizon=2), "policy": "linear"}
    if algo != "maml":
        small |= {"population": 400 if algo == "es-maml" else 6}
    c = Setting(algo=algo, **small)
    state = metarl.initial_state(c)
    found, results = benchmark_of_workers.chunks_of(c, state)
    cost = benchmark_of_workers.costs(c, found, results, 1)
    assert (cost.chunks, cost.rows) == (chunks, rows)
    assert cost.theta == rows * state["theta"].nbytes
    if algo == "es-maml":
        assert cost.sent < cost.theta / 5
    assert len(results) == chunks


def test_predicted_speed_up():
    """Of 10 chunks of a second with 2 seconds beside them, and no or slow messages."""
    cost = benchmark_of_workers.Costs(10, 1, 1.0, 2.0, 1, 1)
    predicted = benchmark_of_workers.predicted
    assert_allclose([predicted(cost, 0, n) for n in (1, 2, 3, 10, 99)], [1, 12 / 7, 2, 4, 4])
    assert_allclose(predicted(cost, 0.1, 5), 12 / 5)


# --- Starts for sparse rewards ---
def test_the_ring_leaves_the_origin_and_stays_on_the_circle():
    """Its mean action has the direction of the position, outwards or inwards, and is 0 at 1."""
    angles = np.linspace(0.3, 6, 9)[:, None]
    on_circle = np.concatenate([np.cos(angles), np.sin(angles)], 1)
    for r, sign in ((0.6, 1), (1.4, -1)):
        action = sparse_starts.ring(r * on_circle)
        assert (sign * (action * on_circle).sum(1) > 0.9).all()
    assert np.abs(sparse_starts.ring(on_circle)).max() < 1e-9
    assert_allclose(sparse_starts.ring(np.zeros((1, 2))), [[0, 0.3]])


def test_the_ring_is_fitted_and_seen():
    c = Setting(algo="maml", **{**sparse_starts.COMMON, "dtype": "float64", "test_tasks": 20})
    target = lambda position: position @ np.array([[0.5, 0.1], [0.0, 0.3]])
    theta = sparse_starts.fitted(c, target, steps=400, n=64)
    position = metarl.noise_at(1).uniform(-1, 1, (50, 2))
    assert np.abs(c.pi.network.apply(theta, position) - target(position)).max() < 0.1
    ends, all_goals = sparse_starts.seen(c, c.pi.init(metarl.noise_at(0)))
    assert 0 <= ends <= 1 and 0 < all_goals < 0.3
