"""What is exact in benchmarks.bandits and benchmarks.sinusoid,
and the race of meta-gradients without its peers.
"""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import metarl
from autodiff import Tensor, value
from benchmarks import bandits, common, meta_gradient, populations, sinusoid, sparse_starts
from benchmarks import workers as benchmark_of_workers
from envs import PointMass
from harness.settings import Setting
from policies import Trajectories, rollout


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
    texts = common.cells(np.stack([samples, 10 * samples], 1), 1)
    assert texts == ["2.0 ± 2.5", "20.0 ± 24.8"]
    assert common.in_columns(texts, 12) == "   2.0 ± 2.5 20.0 ± 24.8"


# --- Bandits: agents that count ---
def bayes_value(counts, left):
    """The optimum in the plain form: no state is identified with another."""
    if left == 0:
        return 0.0
    values = []
    for i, (wins, losses) in enumerate(counts):
        p = (wins + 1) / (wins + losses + 2)
        won, lost = (
            [*counts[:i], c, *counts[i + 1 :]] for c in ((wins + 1, losses), (wins, losses + 1))
        )
        values.append(p * (1 + bayes_value(won, left - 1)) + (1 - p) * bayes_value(lost, left - 1))
    return max(values)


@pytest.mark.parametrize(("arms", "pulls"), [(1, 4), (2, 1), (2, 5), (3, 4), (5, 3)])
def test_optimum_agrees_with_the_plain_recursion(arms, pulls):
    assert bandits.optimum(arms, pulls) == pytest.approx(
        bayes_value([(0, 0)] * arms, pulls), abs=1e-12
    )


def test_optimum_of_two_pulls_by_hand():
    """After a success (probability 1/2) the arm is worth 2/3, after a failure another one 1/2."""
    assert bandits.optimum(2, 2) == pytest.approx(0.5 + 0.5 * 2 / 3 + 0.5 * 1 / 2)


def test_optimum_of_the_published_tables():
    assert [round(bandits.optimum(k, 10), 3) for k in (5, 10, 50)] == [6.660, 6.714, 6.714]


def plan(price, left, wins=0, losses=0):
    """The worth of the best plan for one arm whose pulls cost `price`, with the right to stop."""
    if left == 0:
        return 0.0
    p = (wins + 1) / (wins + losses + 2)
    after = p * plan(price, left - 1, wins + 1, losses) + (1 - p) * plan(
        price, left - 1, wins, losses + 1
    )
    return max(0.0, p - price + after)


@pytest.mark.parametrize(
    ("left", "wins", "losses"), [(1, 0, 0), (2, 0, 0), (5, 1, 2), (7, 0, 0), (3, 4, 1)]
)
def test_gittins_index_is_the_price_at_which_the_arm_is_worth_nothing(left, wins, losses):
    index = bandits.gittins(8)[left, wins, losses]
    assert plan(index + 1e-4, left, wins, losses) == 0
    assert plan(index - 1e-4, left, wins, losses) > 0


def test_gittins_index_by_hand():
    """With one pull left the mean; with two, 1/2 - c + (2/3 - c) / 2 = 0 at c = 5/9."""
    index = bandits.gittins(8)
    assert index[1, 3, 1] == pytest.approx(4 / 6, abs=1e-9)
    assert index[2, 0, 0] == pytest.approx(5 / 9, abs=1e-4)


def test_gittins_indices_order_arms_as_they_should():
    index, n = bandits.gittins(20), 6
    seen = index[2:14, :n, :n]
    assert (np.diff(seen, axis=0) > -1e-9).all(), "more pulls to come, more to explore for"
    assert (np.diff(seen, axis=1) > 0).all(), "more successes"
    assert (np.diff(seen, axis=2) < 0).all(), "more failures"


def test_gittins_earns_the_optimum_of_ten_pulls():
    tasks = np.random.default_rng(0).random((40_000, 5))
    returns = bandits.play(bandits.COUNTING["Gittins"], tasks, 10, np.random.default_rng(1))
    assert abs(returns.mean() - bandits.optimum(5, 10)) < 3 * returns.std() / 200


def test_counting_agents_choose_by_their_formulas():
    wins, losses, rng = np.array([[3, 1, 0]]), np.array([[1, 0, 0]]), np.random.default_rng(0)
    score = {name: f(wins, losses, 5, 10, rng)[0] for name, f in bandits.COUNTING.items()}
    np.testing.assert_allclose(score["greedy"], [4 / 6, 2 / 3, 1 / 2])
    ucb = [3 / 4 + np.sqrt(2 * np.log(5) / 4), 1 + np.sqrt(2 * np.log(5)), np.inf]
    np.testing.assert_allclose(score["UCB1"], ucb)
    np.testing.assert_allclose(score["Gittins"], bandits.gittins(10)[5, [3, 1, 0], [1, 0, 0]])
    draws = bandits.COUNTING["Thompson"](
        np.tile(wins, (20_000, 1)), np.tile(losses, (20_000, 1)), 5, 10, rng
    )
    np.testing.assert_allclose(draws.mean(0), [4 / 6, 2 / 3, 1 / 2], atol=0.01)
    np.testing.assert_allclose(draws.var(0), [8 / 252, 2 / 36, 1 / 12], atol=0.003)


def test_play_counts_what_it_pulled():
    """A certain arm and a hopeless one, an agent that looks at both and then at its counts."""
    seen = []

    def agent(wins, losses, t, pulls, rng):
        seen.append((wins.copy(), losses.copy(), t))
        return np.tile(np.eye(2)[t % 2], (len(wins), 1))

    returns = bandits.play(agent, np.array([[1.0, 0.0], [0.0, 1.0]]), 3, np.random.default_rng(0))
    np.testing.assert_array_equal(returns, [2, 1])
    np.testing.assert_array_equal(seen[2][0], [[1, 0], [0, 1]])
    np.testing.assert_array_equal(seen[2][1], [[0, 1], [1, 0]])
    assert [t for _, _, t in seen] == [0, 1, 2]


# --- Bandits: the agent that steps along the policy gradient ---
K, PULLS, MEANS = 2, 3, np.array([0.8, 0.3])
X = np.array([0.1, -0.2, 0.3, 0.0, 0.2, 0.4, 0.1, -0.2, 0.3])


def rule(theta, v, x, t, pulls, action, success):
    """theta and v after a pull, with grad log pi by hand: the logits are weights plus biases."""
    k, (win, lose, win_u, lose_u, mu) = len(theta) // 2, x[-5:]
    pi = np.exp(theta[:k] + theta[k:])
    score = np.tile(np.eye(k)[action] - pi / pi.sum(), 2)
    u = np.log(1 + t) / np.log(pulls)
    v = mu * v + (np.exp(win + win_u * u) if success else -np.exp(lose + lose_u * u)) * score
    return theta + v, v


def probability(x, history):
    """Of the (action, success) of each pull, in the bandit MEANS."""
    theta, v, p = x[: 2 * K], np.zeros(2 * K), 1.0
    for t, (action, success) in enumerate(history):
        pi = np.exp(theta[:K] + theta[K:])
        p *= pi[action] / pi.sum() * (MEANS[action] if success else 1 - MEANS[action])
        theta, v = rule(theta, v, x, t, PULLS, action, success)
    return p


def expected_return(x):
    """J^II of a whole lifetime: the sum over all histories."""
    histories = itertools.product(itertools.product(range(K), (0, 1)), repeat=PULLS)
    return sum(
        probability(x, history) * sum(success for _, success in history) for history in histories
    )


@pytest.mark.parametrize("kind", [Tensor, np.asarray])
def test_lifetime_follows_the_rule_pull_by_pull(kind):
    c, rng = bandits.setting(3), np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((4, 6)), np.tile(X[-5:], (4, 1))], 1)
    log_pi, rewards, thetas = bandits.lifetime(c, kind(x), 6, rng.random((4, 3)), rng)
    log_pi = value(log_pi)
    for i in range(4):
        theta, v = x[i, :6], np.zeros(6)
        for t in range(6):
            np.testing.assert_allclose(thetas[t][i], theta, atol=1e-12)
            log_probs = theta[:3] + theta[3:] - np.log(np.exp(theta[:3] + theta[3:]).sum())
            action = np.abs(log_probs - log_pi.data[i, t]).argmin()
            assert log_probs[action] == pytest.approx(log_pi.data[i, t])
            theta, v = rule(theta, v, x[i], t, 6, action, rewards[i, t] > 0)


def test_meta_gradient_is_that_of_the_enumerated_lifetimes(monkeypatch):
    """Each of the 64 histories is lived once, by a scripted rollout;
    the estimates' mean under their probabilities.
    """
    histories = np.array(list(itertools.product(itertools.product(range(K), (0, 1)), repeat=PULLS)))
    n, time = len(histories), iter(range(PULLS))

    def scripted(family, network, theta, tasks, episodes, rng):
        action, reward = histories[:, next(time), :, None, None].swapaxes(0, 1)
        return Trajectories(
            np.ones((n, 1, 1, 1)), action, reward.astype(float), np.ones((n, 1, 1), bool)
        )

    monkeypatch.setattr(bandits, "rollout", scripted)
    g, returns = bandits.meta_gradient(bandits.setting(K), X, PULLS, np.tile(MEANS, (n, 1)), None)
    p = [probability(X, history) for history in histories]
    assert sum(p) == pytest.approx(1) and p @ returns == pytest.approx(expected_return(X))
    exact = [
        (expected_return(X + 1e-5 * e) - expected_return(X - 1e-5 * e)) / 2e-5
        for e in np.eye(len(X))
    ]
    np.testing.assert_allclose(-(p @ g), exact, atol=1e-8)


def test_worth_is_what_a_policy_earns_without_learning():
    c, tasks = bandits.setting(2), np.array([[0.5, 0.1], [0.2, 1.0]])
    even, first = np.zeros((2, 4)), np.tile([50.0, 0, 50, 0], (2, 1))
    np.testing.assert_allclose(
        bandits.worth(c, [even, first], tasks), [[0.6, 0.5], [1.2, 0.2]], atol=1e-12
    )


def test_cut_shortens_outliers_alone():
    g = np.ones((5, 2))
    g[3] = 1e3, -1e3
    g[4] = 0
    short = bandits.cut(g)
    np.testing.assert_array_equal(short[[0, 1, 2, 4]], g[[0, 1, 2, 4]])
    np.testing.assert_allclose(short[3], [100, -100])


def test_members_of_cma_es_live_under_the_same_noise(monkeypatch):
    """Members with the same rule earn the same;
    the return that counts is that of each member over all tasks.
    """
    told = []
    monkeypatch.setattr(bandits.es.CMAES, "ask", lambda self: np.tile(bandits.RULE, (12, 1)))
    monkeypatch.setattr(bandits.es.CMAES, "tell", lambda self, x, f: told.append(f))
    x, steps = bandits.by_cma_es(bandits.setting(2), 100, 0, generations=1)
    np.testing.assert_array_equal(x, np.zeros(9))
    assert steps == 12 * 25_000 and np.ptp(told[0]) == 0 and -100 < told[0][0] < -50


def test_training_is_reproducible_and_counts_its_steps():
    c = bandits.setting(2)
    (x, steps), (again, _) = (bandits.by_gradient(c, 100, 3, iterations=11) for _ in range(2))
    np.testing.assert_array_equal(x, again)
    assert steps == 11 * 50_000 and x.shape == (9,) and not np.array_equal(x[4:], bandits.RULE)


def test_the_ten_iterations_that_earned_most_are_kept(monkeypatch):
    """Returns with a peak at iteration 20, a gradient that moves every parameter by the same:
    the mean place there.
    """
    places = []

    def scripted(c, x, pulls, tasks, rng):
        places.append(x)
        return np.ones((3, 9)), np.full(3, -abs(len(places) - 21.0))

    monkeypatch.setattr(bandits, "meta_gradient", scripted)
    x, _ = bandits.by_gradient(bandits.setting(2), 50_000, 0, iterations=40)
    np.testing.assert_allclose(x, np.mean(places[15:25], 0))
    assert (np.diff(places, axis=0) < 0).all(), "against the gradient of the loss"


def test_a_run_is_judged_on_held_out_bandits(monkeypatch):
    c, n, lived = bandits.setting(2), 300, []
    monkeypatch.setattr(bandits, "TEST_TASKS", n)
    monkeypatch.setitem(bandits.TRAINED, "MAML", lambda c, pulls, seed: ("trained", 7))
    monkeypatch.setattr(
        bandits, "live", lambda c, x, pulls, tasks, rng: lived.append((x, tasks)) or np.arange(n)
    )
    mean, steps, seconds = bandits.run("MAML", 40, 2, 5)
    tasks = metarl.sample_tasks(c, n, metarl.noise_at(5, metarl.TEST, metarl.TASKS), "test")
    assert lived[0][0] == "trained" and (mean, steps) == ((n - 1) / 2, 7) and seconds >= 0
    np.testing.assert_array_equal(lived[0][1], tasks)
    mean, steps, _ = bandits.run("random", 40, 2, 5)
    assert steps == 0 and abs(mean - 40 * tasks.mean()) < 4 * np.sqrt(40 / 4 / n)


def test_an_agent_lives_from_the_same_start_in_each_task():
    x = np.array([99.0, 0, 0, 0, *bandits.RULE])  # the first arm, whatever comes
    tasks = np.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(
        bandits.live(bandits.setting(2), x, 9, tasks, metarl.noise_at(0)), [9, 0]
    )


# --- Sine waves ---
def test_waves_and_their_points():
    rng = np.random.default_rng(0)
    wave = sinusoid.sample_tasks(sinusoid.TASKS, rng)
    x, y = sinusoid.points(wave, 400, rng)
    amplitude = np.sqrt(wave(0 * x[:, :1]) ** 2 + wave(np.full_like(x[:, :1], np.pi / 2)) ** 2)
    assert x.shape == y.shape == (25, 400, 1) and np.abs(x).max() <= 5
    assert (
        (amplitude >= 0.1).all()
        and (amplitude <= 5).all()
        and (np.abs(y) <= amplitude + 1e-12).all()
    )
    assert (wave(0 * x[:, :1]) <= 0).all(), "sin(-phase) with the phase in [0, pi]"


def test_step_and_loss_against_differences():
    rng = np.random.default_rng(0)
    theta, x = rng.standard_normal((2, sinusoid.P)), rng.uniform(-5, 5, (2, 5, 1))
    loss = lambda theta: sinusoid.loss(theta, x, np.sin(x))
    moved = sinusoid.step(Tensor(theta), 0.01, x, np.sin(x)).data
    direction = rng.standard_normal((2, sinusoid.P))
    slope = (loss(theta + 1e-6 * direction) - loss(theta - 1e-6 * direction)) / 2e-6
    np.testing.assert_allclose(((theta - moved) * direction).sum(1), 0.01 * slope, rtol=1e-5)
    w = [
        theta[0, a:b]
        for a, b in ((0, 40), (40, 80), (80, 1680), (1680, 1720), (1720, 1760), (1760, 1761))
    ]
    hidden = np.maximum(x[0] * w[0] + w[1], 0)
    hidden = np.maximum(hidden @ w[2].reshape(40, 40) + w[3], 0)
    assert loss(theta)[0] == pytest.approx(
        np.mean((hidden @ w[4][:, None] + w[5] - np.sin(x[0])) ** 2)
    )


def post_adaptation_loss(z, seed):
    """What `meta_sgd` differentiates, written for each task by itself; z: theta and log alpha."""
    rng, total = np.random.default_rng(seed), 0
    wave = sinusoid.sample_tasks(sinusoid.TASKS, rng)
    given, asked = sinusoid.points(wave, 5, rng), sinusoid.points(wave, 15, rng)
    for i in range(sinusoid.TASKS):
        theta = Tensor(z[None, : sinusoid.P])
        for _ in range(2):
            theta = sinusoid.step(theta, np.exp(z[sinusoid.P :]), *(p[i : i + 1] for p in given))
            total += sinusoid.loss(theta.data, *(p[i : i + 1] for p in asked))[0]
    return total / sinusoid.TASKS


def test_meta_gradients_against_differences():
    rng, P = np.random.default_rng(1), sinusoid.P
    z = np.append(sinusoid.NETWORK.init(rng), np.full(P, np.log(0.01)))
    direction, noise = rng.standard_normal(2 * P), lambda: np.random.default_rng(2)
    rate, sample = np.append(np.zeros(P), direction[P:]), noise()
    wave = sinusoid.sample_tasks(sinusoid.TASKS, sample)
    g = sinusoid.meta_sgd(z, wave, sample)
    for part in (direction - rate, rate):
        ahead, behind = (post_adaptation_loss(z + h * part, 2) for h in (1e-6, -1e-6))
        assert g @ part == pytest.approx((ahead - behind) / 2e-6, rel=1e-4)
    sample = noise()
    wave = sinusoid.sample_tasks(sinusoid.TASKS, sample)
    np.testing.assert_allclose(sinusoid.maml(z[:P], wave, sample), g[:P], rtol=1e-9, atol=1e-12)


def test_reptile_of_a_perfect_learner_stays():
    """Where the loss is 0 there is no step:
    all waves are the network's own function, the constant 0.
    """
    z = np.zeros(sinusoid.P)
    assert not sinusoid.reptile(z, lambda x: 0 * x, np.random.default_rng(0)).any()
    g = sinusoid.reptile(z, lambda x: 0 * x + 1, np.random.default_rng(0))
    # From 0 towards 1 in five steps along 2 (b - 1): the only slope
    bias = 1 - (1 - 2 * sinusoid.ALPHA) ** 5
    assert np.flatnonzero(g).tolist() == [1760] and g[1760] == pytest.approx(-bias)


def test_errors_after_each_step_with_the_learned_rates():
    rng, n, P = np.random.default_rng(3), 3, sinusoid.P
    z = np.append(sinusoid.NETWORK.init(rng), np.log(rng.uniform(0.01, 0.05, P)))
    measured, noise = sinusoid.errors(z, 7, n), np.random.default_rng((7, 1))
    wave, x = sinusoid.sample_tasks(n, noise), noise.uniform(-5, 5, (n, 5, 1))
    theta = Tensor(np.tile(z[:P], (n, 1)))
    grid = np.linspace(-5, 5, 100)[None, :, None] * np.ones((n, 1, 1))
    for k in range(3):
        error = (sinusoid.NETWORK.apply(theta.data, grid) - wave(grid)) ** 2
        np.testing.assert_allclose(measured[:, k], error.mean((1, 2)))
        theta = sinusoid.step(theta, np.exp(z[P:]), x, wave(x))


def test_training_helps_and_is_reproducible():
    trained = [sinusoid.train(sinusoid.maml, 40, seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(trained[0], trained[1])
    assert not np.array_equal(trained[0], trained[2])
    before, after = (
        sinusoid.errors(z, 0, n=50).mean(0) for z in (sinusoid.train(None, 0, 0), trained[0])
    )
    assert before.shape == (11,) and after[1] < before[1]


def test_settings_of_the_bandits():
    c = bandits.setting(5)
    assert (c.family.horizon, c.family.arms, c.pi.size) == (1, 5, 10)
    train, test = (
        metarl.sample_tasks(c, 50, metarl.noise_at(0), split) for split in ("train", "test")
    )
    assert not (train[:, None] == test).all(-1).any()


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
